"""MQTT packets as far as a gate and a publisher must know them, of both versions.

Sources: MQTT 5.0 (OASIS, 7 March 2019) and MQTT 3.1.1 (OASIS, 29 October 2014), sections 2 and 3. What is of
version 5 alone is left to the codec `mqtt5`; it does not know 3.1.1.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import mqtt5

__all__ = [
    "DISCONNECT",
    "FOR_EVER",
    "SUBSCRIBE",
    "Framer",
    "Hello",
    "MalformedError",
    "Refusal",
    "UnsupportedError",
    "Version",
    "connack",
    "connect",
    "hello",
    "no_subscription",
    "publish",
    "read_packet",
]

Version = Literal["5", "3.1.1"]
Refusal = Literal["not_authorised", "bad_login", "unavailable"]

DISCONNECT: Final = b"\xe0\x00"
"""Of a client of either version that leaves in order."""
SUBSCRIBE: Final = 8

_CONNECT: Final = 0x10
_LEVELS: Final[dict[int, Version]] = {4: "3.1.1", 5: "5"}
_CODES: Final[dict[Refusal, tuple[int, int]]] = {
    "not_authorised": (0x87, 5),
    "bad_login": (0x86, 4),
    "unavailable": (0x88, 3),
}
"""Reason codes of MQTT 5.0, table 3-1, and return codes of 3.1.1, table 3.1."""
_UNACCEPTABLE_VERSION: Final = b"\x20\x02\x00\x01"
_NOT_GRANTED: Final = {"5": 0x87, "3.1.1": 0x80}


FOR_EVER: Final = 0xFFFF_FFFF
"""Seconds of a session that does not expire."""


class MalformedError(ValueError):
    """What was read is no packet of MQTT, or not the one that belongs there."""


class UnsupportedError(ValueError):
    """A version of MQTT that nobody here speaks; `answer` is what tells the client so."""

    answer = _UNACCEPTABLE_VERSION


@dataclass(frozen=True, slots=True)
class Hello:
    """A client's CONNECT."""

    version: Version
    client_id: str
    clean: bool
    """Whether it wants no session that there was (Clean Start, or Clean Session)."""
    keep_alive_s: int
    username: str | None
    password: bytes | None
    expires_s: int
    """How long its session is kept after the connection; of 3.1.1 none or for ever, 0xFFFFFFFF."""
    raw: bytes
    """The packet as it came."""

    def changed(self, *, clean: bool, keep_alive_s: int) -> bytes:
        """The packet, but for these."""
        packet = bytearray(self.raw)
        flags = _body(packet) + 7  # behind protocol name and level, section 3.1.2.3
        packet[flags] = packet[flags] & ~2 | clean << 1
        packet[flags + 1 : flags + 3] = keep_alive_s.to_bytes(2, "big")
        return bytes(packet)


def hello(packet: bytes) -> Hello:
    """Read a CONNECT.

    Raises:
        MalformedError: it is none.
        UnsupportedError: it is of another version.
    """
    if packet[0] != _CONNECT:
        raise MalformedError("the first packet is no CONNECT")
    cursor = _Cursor(packet, _body(packet))
    name, level = cursor.binary(), cursor.byte()
    if name != b"MQTT" or level not in _LEVELS:
        raise UnsupportedError(f"level {level} of {name!r}")
    if _LEVELS[level] == "5":
        return _hello5(packet)
    flags, keep_alive_s, client_id = cursor.byte(), cursor.short(), cursor.text()
    if flags & 1:
        raise MalformedError("the reserved flag is set")
    if flags & 4:
        cursor.binary()  # the will's topic
        cursor.binary()  # and its payload
    username = cursor.text() if flags & 0x80 else None
    password = cursor.binary() if flags & 0x40 else None
    clean = bool(flags & 2)
    return Hello(
        "3.1.1", client_id, clean, keep_alive_s, username, password, 0 if clean else FOR_EVER, packet
    )


def _hello5(packet: bytes) -> Hello:
    try:
        read, _ = mqtt5.read(memoryview(packet))
    except (ValueError, IndexError) as error:
        raise MalformedError(str(error)) from error
    assert isinstance(read, mqtt5.ConnectPacket)
    return Hello(
        "5",
        read.client_id,
        read.clean_start,
        read.keep_alive,
        read.username,
        read.password,
        read.session_expiry_interval,
        packet,
    )


class _Cursor:
    """Reads the fields of a packet one after the other (section 1.5)."""

    def __init__(self, packet: bytes, at: int) -> None:
        self._packet = packet
        self.at = at

    def _take(self, count: int) -> bytes:
        taken = self._packet[self.at : self.at + count]
        if len(taken) < count:
            raise MalformedError("it ends too early")
        self.at += count
        return taken

    @property
    def more(self) -> bool:
        return self.at < len(self._packet)

    def byte(self) -> int:
        return self._take(1)[0]

    def short(self) -> int:
        return int.from_bytes(self._take(2), "big")

    def binary(self) -> bytes:
        return self._take(self.short())

    def text(self) -> str:
        try:
            return self.binary().decode()
        except UnicodeDecodeError as error:
            raise MalformedError(str(error)) from error

    def skip_properties(self) -> None:
        length, at = _length(self._packet, self.at)
        self.at = at + length


def _length(packet: bytes | bytearray | memoryview, at: int) -> tuple[int, int]:
    """A variable byte integer (section 1.5.5, in 3.1.1 2.2.3) and where it ends.

    Raises:
        IndexError: it is not all there.
        MalformedError: it has more than four bytes.
    """
    value = 0
    for place in range(4):
        byte = packet[at + place]
        value |= (byte & 127) << 7 * place
        if byte < 128:
            return value, at + place + 1
    raise MalformedError("a length of more than four bytes")


def _body(packet: bytes | bytearray) -> int:
    return _length(packet, 1)[1]


def connack(version: Version, refusal: Refusal) -> bytes:
    """The CONNACK that refuses."""
    code5, code311 = _CODES[refusal]
    if version == "5":
        return mqtt5.ConnAckPacket(reason_code=mqtt5.ConnAckReasonCode(code5)).write()
    return bytes([0x20, 2, 0, code311])


def connect(
    version: Version, client_id: str, *, username: str | None, password: bytes | None, keep_alive_s: int
) -> bytes:
    """The CONNECT of a client that wants no session, neither an old one nor a new."""
    if version == "5":
        return mqtt5.ConnectPacket(
            client_id, username=username, password=password, clean_start=True, keep_alive=keep_alive_s
        ).write()
    flags, fields = 2, [client_id.encode()]
    if username is not None:
        flags |= 0x80
        fields.append(username.encode())
    if password is not None:
        flags |= 0x40
        fields.append(password)
    body = b"\x00\x04MQTT\x04" + bytes([flags]) + keep_alive_s.to_bytes(2, "big")
    return _packet(_CONNECT, body + b"".join(len(each).to_bytes(2, "big") + each for each in fields))


def publish(version: Version, topic: str, payload: bytes, *, retain: bool, packet_id: int | None) -> bytes:
    """A PUBLISH, of QoS 1 if it has an id."""
    if version == "5":
        qos = mqtt5.QoS.AT_MOST_ONCE if packet_id is None else mqtt5.QoS.AT_LEAST_ONCE
        return mqtt5.PublishPacket(topic, payload, qos=qos, retain=retain, packet_id=packet_id).write()
    name = topic.encode()
    number = b"" if packet_id is None else packet_id.to_bytes(2, "big")
    head = 0x30 | retain | (packet_id is not None) << 1
    return _packet(head, b"".join((len(name).to_bytes(2, "big"), name, number, payload)))


def _packet(head: int, body: bytes) -> bytes:
    length, rest = bytearray(), len(body)
    while True:
        rest, low = divmod(rest, 128)
        length.append(low | (rest > 0) << 7)
        if not rest:
            return bytes([head]) + length + body


def no_subscription(version: Version, packet: bytes) -> bytes:
    """The SUBACK that grants nothing of a SUBSCRIBE.

    Raises:
        MalformedError: it is none.
    """
    cursor = _Cursor(packet, _body(packet))
    number = cursor.short()
    if version == "5":
        cursor.skip_properties()
    filters = 0
    while cursor.more:
        cursor.binary()
        cursor.byte()
        filters += 1
    properties = b"\x00" if version == "5" else b""
    return _packet(0x90, number.to_bytes(2, "big") + properties + bytes([_NOT_GRANTED[version]]) * filters)


async def read_packet(reader: asyncio.StreamReader, most: int) -> bytes:
    """The next packet of a stream.

    Raises:
        MalformedError: it is none, or longer than `most` bytes.
        asyncio.IncompleteReadError: the stream ends.
    """
    head = bytearray(await reader.readexactly(2))
    while head[-1] & 128 and len(head) < 5:
        head += await reader.readexactly(1)
    length, _ = _length(head, 1)
    if length > most:
        raise MalformedError(f"{length} bytes are too many")
    return bytes(head + await reader.readexactly(length))


class Framer:
    """Cuts a stream into packets, whatever the portions are that it comes in."""

    def __init__(self) -> None:
        self._rest = bytearray()

    def packets(self, data: bytes) -> Sequence[bytes]:
        """All packets that are whole by now.

        Raises:
            MalformedError: it is no stream of MQTT.
        """
        self._rest += data
        at, found = 0, []
        while True:
            try:
                length, body = _length(self._rest, at + 1)
            except IndexError:
                break
            if body + length > len(self._rest):
                break
            found.append(bytes(self._rest[at : body + length]))
            at = body + length
        del self._rest[:at]
        return found
