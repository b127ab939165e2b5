"""MQTT 3.1.1 for a client, in the packets of the MQTT 5 codec: the few that differ are put differently.

MQTT Version 3.1.1 (OASIS, 2014); sections are of that. Like the codec's, `read` raises IndexError where a
packet has not fully come and ValueError where it is none.
"""

from enum import IntEnum
from typing import Final

import mqtt5

__all__ = ["read", "write"]

_LEVEL: Final = 4
"""What 3.1.1 calls itself in CONNECT (3.1.2.2)."""
_LENGTH_BYTES: Final = 4
_REFUSALS: Final = {
    0: mqtt5.ConnAckReasonCode.SUCCESS,
    1: mqtt5.ConnAckReasonCode.UNSUPPORTED_PROTOCOL_VERSION,
    2: mqtt5.ConnAckReasonCode.CLIENT_ID_NOT_VALID,
    3: mqtt5.ConnAckReasonCode.SERVER_UNAVAILABLE,
    4: mqtt5.ConnAckReasonCode.BAD_USER_NAME_OR_PASSWORD,
    5: mqtt5.ConnAckReasonCode.NOT_AUTHORIZED,
}
"""Of CONNACK (3.2.2.3)."""
_GRANTS: Final = {
    0: mqtt5.SubAckReasonCode.GRANTED_QOS_AT_MOST_ONCE,
    1: mqtt5.SubAckReasonCode.GRANTED_QOS_AT_LEAST_ONCE,
    2: mqtt5.SubAckReasonCode.GRANTED_QOS_EXACTLY_ONCE,
    0x80: mqtt5.SubAckReasonCode.UNSPECIFIED_ERROR,
}
"""Of SUBACK (3.9.3)."""
_RECEIPTS: Final = {
    mqtt5.PubAckPacket: b"\x40\x02",
    mqtt5.PubRecPacket: b"\x50\x02",
    mqtt5.PubCompPacket: b"\x70\x02",
}
"""What comes before a packet's number (3.4, 3.5, 3.7)."""
_QOS: Final = (mqtt5.QoS.AT_MOST_ONCE, mqtt5.QoS.AT_LEAST_ONCE, mqtt5.QoS.EXACTLY_ONCE)


class _Kind(IntEnum):
    """Of a packet (2.2.1)."""

    CONNECT = 1
    CONNACK = 2
    PUBLISH = 3
    PUBACK = 4
    PUBREL = 6
    SUBSCRIBE = 8
    SUBACK = 9
    PINGRESP = 13


Outgoing = (
    mqtt5.ConnectPacket
    | mqtt5.PublishPacket
    | mqtt5.SubscribePacket
    | mqtt5.PubAckPacket
    | mqtt5.PubRecPacket
    | mqtt5.PubCompPacket
    | mqtt5.PingReqPacket
    | mqtt5.DisconnectPacket
)


def write(packet: Outgoing) -> bytes:
    """The bytes of a packet; what only MQTT 5 can say is left out."""
    match packet:
        case mqtt5.ConnectPacket():
            return _packet(_Kind.CONNECT << 4, _connect(packet))
        case mqtt5.PublishPacket():
            flags = packet.duplicate << 3 | packet.qos.value << 1 | packet.retain
            number = b"" if packet.packet_id is None else packet.packet_id.to_bytes(2)
            return _packet(_Kind.PUBLISH << 4 | flags, _text(packet.topic) + number + packet.payload)
        case mqtt5.SubscribePacket():
            filters = b"".join(
                _text(each.pattern) + bytes([each.max_qos.value]) for each in packet.topic_filters
            )
            return _packet(_Kind.SUBSCRIBE << 4 | 2, packet.packet_id.to_bytes(2) + filters)
        case mqtt5.PubAckPacket() | mqtt5.PubRecPacket() | mqtt5.PubCompPacket():
            return _RECEIPTS[type(packet)] + packet.packet_id.to_bytes(2)
        case mqtt5.PingReqPacket():
            return b"\xc0\x00"
        case mqtt5.DisconnectPacket():
            return b"\xe0\x00"


def _connect(packet: mqtt5.ConnectPacket) -> bytes:
    """Its variable header and payload (3.1.2, 3.1.3)."""
    flags, will, login = packet.clean_start << 1, b"", b""
    if packet.will is not None:
        flags |= 0x04 | packet.will.qos.value << 3 | packet.will.retain << 5
        will = _text(packet.will.topic) + _bytes(packet.will.payload or b"")
    if packet.username is not None:
        flags |= 0x80
        login = _text(packet.username)
        if packet.password is not None:  # which 3.1.1 allows beside a name only (3.1.2.9)
            flags |= 0x40
            login += _bytes(packet.password)
    head = _text("MQTT") + bytes([_LEVEL, flags]) + packet.keep_alive.to_bytes(2)
    return head + _text(packet.client_id or "") + will + login


def read(view: memoryview) -> tuple[object, int]:
    """The first packet, and the bytes that it takes.

    Raises:
        IndexError: it has not fully come.
        ValueError: it is none that a broker sends.
    """
    length, at = _length(view)
    end = at + length
    if len(view) < end:
        raise IndexError("the packet has not fully come")
    kind, body = view[0] >> 4, view[at:end]
    try:
        return _packet_of(kind, view[0] & 0x0F, body), end
    except (IndexError, KeyError, UnicodeDecodeError) as error:
        raise ValueError(f"packet of type {kind}: {bytes(body[:8]).hex(' ')}") from error


def _packet_of(kind: int, flags: int, body: memoryview) -> object:
    match kind:
        case _Kind.PUBLISH:
            return _publish(flags, body)
        case _Kind.PUBACK:
            return mqtt5.PubAckPacket(body[0] << 8 | body[1])
        case _Kind.PUBREL:
            return mqtt5.PubRelPacket(body[0] << 8 | body[1])
        case _Kind.CONNACK:
            return mqtt5.ConnAckPacket(session_present=bool(body[0] & 1), reason_code=_REFUSALS[body[1]])
        case _Kind.SUBACK:
            return mqtt5.SubAckPacket(int.from_bytes(body[:2]), [_GRANTS[code] for code in body[2:]])
        case _Kind.PINGRESP:
            return mqtt5.PingRespPacket()
    raise ValueError(f"a broker sends no packet of type {kind}")


def _publish(flags: int, body: memoryview) -> mqtt5.PublishPacket:
    """A message (3.3)."""
    qos = _QOS[flags >> 1 & 3]
    at = 2 + int.from_bytes(body[:2])
    topic = str(body[2:at], "utf-8")
    if len(body) < at + 2 * (qos.value > 0):
        raise ValueError("a message ends within its head")
    packet_id = None
    if qos.value:
        packet_id = int.from_bytes(body[at : at + 2])
        if not packet_id:
            raise ValueError("a message that wants an answer has no number")
        at += 2
    return mqtt5.PublishPacket(
        topic,
        bytes(body[at:]),
        qos=qos,
        packet_id=packet_id,
        retain=bool(flags & 1),
        duplicate=bool(flags & 8),
    )


def _length(view: memoryview) -> tuple[int, int]:
    """The remaining length, and where what it counts begins (2.2.3)."""
    length = 0
    for place in range(_LENGTH_BYTES):
        byte = view[1 + place]
        length |= (byte & 0x7F) << (7 * place)
        if byte < 0x80:
            return length, 2 + place
    raise ValueError("a length that does not end")


def _packet(first: int, body: bytes) -> bytes:
    left, length = len(body), bytearray()
    while True:
        left, digit = left >> 7, left & 0x7F
        length.append(digit | 0x80 if left else digit)
        if not left:
            return bytes([first]) + bytes(length) + body


def _text(text: str) -> bytes:
    """UTF-8 behind its length (1.5.3)."""
    return _bytes(text.encode())


def _bytes(data: bytes) -> bytes:
    """Behind their length."""
    return len(data).to_bytes(2) + data
