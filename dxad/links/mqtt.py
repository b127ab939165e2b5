"""One MQTT connection: the `mqtt5` codec, or mqtt311.py, on an asyncio transport.

The codec is sans-io; this reads, writes, pings, and bounds what a packet may be. Behind a real broker the
wake-ups cost more than the parsing: looks.py says when what has come is looked at.
"""

import asyncio
import socket
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Literal

import mqtt5

from dxad.errors import NotConnected
from dxad.links import mqtt311, words
from dxad.links.looks import Looks
from dxad.links.mqttsession import Session
from dxad.links.tls import TlsFilter, TlsSection

__all__ = ["MqttLink", "Version", "VersionRefusedError", "open_link"]

_PACKET_MAX: Final = 256 * 1024
"""Bytes; where CONNECT asks for no other bound."""
_BACKLOG: Final = 65_536
"""So many bytes in one look mean that there are more: the next look does not wait."""
_SLICE_S: Final = 0.0005
"""So long one connection may keep the loop to itself, however much there is to parse."""
_LOOKS: Final = 16
"""Packets from one look at the clock to the next."""
_COALESCE_S: Final = 0.005
"""From one look to the next, where nobody says."""
_ANSWER_S: Final = 5.0
_UNACKED_MS: Final = 10_000
"""TCP_USER_TIMEOUT: a peer that acknowledges nothing for so long is gone, whatever keep-alive thinks."""
_PUBLISH: Final = 3
_FILTERS_MOST: Final = 8
"""In one SUBSCRIBE: AWS IoT Core hangs up at more ("AWS IoT Core endpoints and quotas")."""
_REFUSED: Final = 128
"""Reason codes from here on are refusals (MQTT 5, 2.4)."""
_REFUSALS: Final[Mapping[int, str]] = {
    128: "without a reason; as a rule, we may not read it",
    131: "the broker has rules of its own",
    135: "we may not read it: look at the broker's access list",
    143: "it is no topic filter there",
    151: "there are too many subscriptions",
    158: "the broker shares no subscriptions: leave out `share`",
    162: "the broker has no wildcards: name each topic",
}
"""Of a subscription (MQTT 5, 3.9.3), in words."""
_GRANTS: Final = (mqtt5.QoS.AT_MOST_ONCE, mqtt5.QoS.AT_LEAST_ONCE, mqtt5.QoS.EXACTLY_ONCE)

_Read = Callable[[memoryview], tuple[object, int]]
_Write = Callable[[Any], bytes]


Version = Literal["5", "3.1.1"]

_CODECS: Final[Mapping[Version, tuple[_Read, _Write]]] = {
    "5": (mqtt5.read, lambda packet: packet.write()),
    "3.1.1": (mqtt311.read, mqtt311.write),
}


class VersionRefusedError(NotConnected):
    """The broker does not speak this version of the protocol, or hangs up without saying why."""


class MqttLink(asyncio.Protocol):
    """A connection to a broker; `on_publish` is called for every message, on the event loop."""

    def __init__(
        self,
        where: str,
        connect: mqtt5.ConnectPacket,
        on_publish: Callable[[mqtt5.PublishPacket], None],
        on_closed: Callable[[NotConnected], None],
        *,
        on_looked: Callable[[bool], None] = lambda _whole: None,
        on_too_large: Callable[[str], None],
        on_receipt: Callable[[mqtt5.PubAckPacket], None] = lambda _packet: None,
        version: Version,
        sole: bool = True,
        session: Session | None = None,
        until_look: Callable[[], float] | None,
    ) -> None:
        """Introduce ourselves with `connect`; `on_closed` is called once, with the reason."""
        self.version = version
        self._sole = sole
        self._session = session
        self._read, self._write = _CODECS[version]
        self.answer = mqtt5.ConnAckPacket()
        """What the broker has said of itself, once it has accepted us."""
        self.alive_at = 0.0
        """The loop's time of the last packet: the session's proof of life."""
        self.keep_alive_s = connect.keep_alive
        self.session_present = False
        """Whether the broker has remembered us from an earlier connection."""
        self._where = where
        self._connect = connect
        self._packet_max = connect.max_packet_size or _PACKET_MAX
        self._on_publish = on_publish
        self._receive = on_publish if session is None else self._once
        self._on_closed = on_closed
        self._on_looked = on_looked
        self._on_too_large = on_too_large
        self._until_look = until_look
        self.front: asyncio.Protocol = self
        """Takes what the socket brings."""
        self._on_receipt = on_receipt
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._tail: bytes | memoryview = b""
        self._skip = 0
        """Bytes still to come of a message that is too large."""
        self._packet_id = 0
        self._awaiting_ping = False
        self._next_ping: asyncio.TimerHandle | None = None
        self._looks: Looks | None = None
        self._plenty = False
        """Whether so much came at once that there is more."""
        self._gives_way = False
        """Whether some of what was read waits while others have their turn."""
        self._closed = False
        self._held = False
        """Whether what comes is left in the network for now."""
        self._gone = asyncio.Event()
        self._connack: asyncio.Future[mqtt5.ConnAckPacket] = self._loop.create_future()
        self._subacks: dict[int, asyncio.Future[Sequence[Any]]] = {}

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """TCP is up: say hello."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._looks = Looks(transport, self.front.data_received, self.fail, self._until_look)
        sock = transport.get_extra_info("socket")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _UNACKED_MS)
        transport.write(self._write(self._connect))

    def data_received(self, data: bytes) -> None:
        """Parse all packets that are complete, keep the rest."""
        if data:
            self.alive_at = self._loop.time()
            self._plenty = len(data) >= _BACKLOG
        assert self._looks is not None
        self._parse(data)
        self._on_looked(not self._gives_way)
        if self._gives_way or self._held or self._closed:
            return
        if self._plenty or not self._connack.done():
            self._looks.listen()
        else:
            self._looks.later()

    def _parse(self, data: bytes) -> None:
        view = memoryview(self._tail if not data else bytes(self._tail) + data if self._tail else data)
        self._tail = b""
        at, end = min(self._skip, len(view)), len(view)
        self._skip -= at
        packets, until = 0, self._loop.time() + _SLICE_S
        read, receive, message = self._read, self._receive, mqtt5.PublishPacket
        while at < end and not self._closed:
            if self._held:
                self._tail = bytes(view[at:])
                return
            packets += 1
            if packets % _LOOKS == 0 and self._loop.time() > until:
                self._give_way(view[at:])
                return
            try:
                packet, used = read(view[at:])
            except IndexError:  # the packet has not fully arrived
                if _announced(view[at:]) > self._packet_max and self._too_large(view[at:]):
                    break
                self._tail = bytes(view[at:])
                break
            except ValueError as error:
                told = f"the broker does not speak MQTT {self.version}: {error}"
                self._give_up(self._not(told) if self._connack.done() else self._unspoken(told))
                break
            at += used
            if isinstance(packet, message):
                receive(packet)
            else:
                self._control(packet)

    def _give_way(self, rest: memoryview) -> None:
        """It is somebody else's turn: go on with the rest afterwards, and read no more before."""
        assert self._looks is not None
        self._tail, self._gives_way = rest, True
        self._looks.after_others(self._go_on)

    def _go_on(self) -> None:
        self._gives_way = False
        self.data_received(b"")

    def _too_large(self, view: memoryview) -> bool:
        """Let a message pass by that begins here; whether its head was there.

        Giving the link up would not help: a broker that does not heed our maximum, or has been told none, as
        in MQTT 3.1.1, sends it again.
        """
        length, topic_at = _announced(view), 1
        while view[topic_at] & 0x80:
            topic_at += 1
        topic_at += 1
        packet_id_at = topic_at + 2 + int.from_bytes(view[topic_at : topic_at + 2])
        if len(view) < packet_id_at + 2:
            return False
        if view[0] >> 4 != _PUBLISH:
            self.fail(f"the broker sends a packet larger than {self._packet_max} bytes, and no message")
            return True
        self._skip = topic_at + length - len(view)
        self._on_too_large(f"a message of {length} bytes is larger than {self._packet_max}")
        if view[0] & 0x06:
            packet_id = int.from_bytes(view[packet_id_at : packet_id_at + 2])
            if view[0] & 0x04 and self._session is not None:
                self._session.take(packet_id)
            self.acknowledge([packet_id])
        return True

    def _once(self, packet: mqtt5.PublishPacket) -> None:
        """A message, unless it is of QoS 2 and has come before."""
        assert self._session is not None
        packet_id = packet.packet_id
        if packet.qos != mqtt5.QoS.EXACTLY_ONCE or packet_id is None or self._session.take(packet_id):
            self._on_publish(packet)
        elif self._session.recorded(packet_id):  # else it will be, once it is stored
            self.acknowledge([packet_id])

    def hold(self, *, held: bool) -> None:
        """Do not read, or read again; the broker's answers to pings wait as well, and are not missed."""
        self._held = held
        if self._transport is None or self._transport.is_closing() or self._looks is None:
            return
        if held:
            self._looks.stop()
            return
        self._awaiting_ping, self._plenty = False, True
        self.data_received(b"")  # what had come already; enough of it holds us back again

    def _control(self, packet: object) -> None:
        match packet:
            case mqtt5.ConnAckPacket():
                if not self._connack.done():
                    self._connack.set_result(packet)
                    if self._session is not None:
                        self._session.resume(present=packet.session_present)
                # A server that says 0 wants no pings; we want to know whether it is there.
                self.keep_alive_s = packet.server_keep_alive or self.keep_alive_s
                self._next_ping = self._loop.call_later(self.keep_alive_s / 2, self._ping)
            case mqtt5.PubAckPacket():
                self._on_receipt(packet)
            case mqtt5.SubAckPacket():
                waiting = self._subacks.pop(packet.packet_id, None)
                if waiting is not None and not waiting.done():
                    waiting.set_result(packet.reason_codes)
            case mqtt5.PubRelPacket():
                known = self._session is not None and self._session.release(packet.packet_id)
                reasons = mqtt5.PubCompReasonCode
                reason = reasons.SUCCESS if known else reasons.PACKET_ID_NOT_FOUND
                self._send(mqtt5.PubCompPacket(packet.packet_id, reason_code=reason))
            case mqtt5.PingRespPacket():
                self._awaiting_ping = False
            case mqtt5.DisconnectPacket():
                self.fail(f"the broker says {packet.reason_code.name} {packet.reason_str or ''}".rstrip())

    def _ping(self) -> None:
        silent_s = self._loop.time() - self.alive_at  # its answer may wait behind a flood of messages
        if self._awaiting_ping and not self._held and silent_s > self.keep_alive_s / 2:
            self.fail(f"the broker has not answered a ping for {self.keep_alive_s / 2:g} s")
            return
        self._awaiting_ping = True
        assert self._transport is not None
        self._transport.write(self._write(mqtt5.PingReqPacket()))
        self._next_ping = self._loop.call_later(self.keep_alive_s / 2, self._ping)

    async def accepted(self) -> None:
        """Wait until the broker has taken us.

        Raises:
            NotConnected: it refuses, hangs up, or does not answer.
        """
        try:
            async with asyncio.timeout(_ANSWER_S):
                answer = await self._connack
        except TimeoutError as error:
            raise self._not(f"no answer to CONNECT within {_ANSWER_S:g} s") from error
        if answer.reason_code.value >= _REFUSED:
            reason = f"{answer.reason_code.name} {answer.reason_str or ''}".rstrip()
            told = f"the broker refuses us: {reason}"
            if answer.reason_code == mqtt5.ConnAckReasonCode.UNSUPPORTED_PROTOCOL_VERSION:
                raise self._unspoken(told)
            raise self._not(told)
        self.session_present = answer.session_present
        self.answer = answer

    async def subscribe(self, filters: Sequence[str], qos: int) -> None:
        """Ask for all messages of these topic filters.

        Raises:
            NotConnected: the broker refuses one, or does not answer.
        """
        answers = [
            self._asked_for(filters[at : at + _FILTERS_MOST], qos)
            for at in range(0, len(filters), _FILTERS_MOST)
        ]
        codes: list[Any] = []
        try:
            async with asyncio.timeout(_ANSWER_S):
                for at, answer in zip(range(0, len(filters), _FILTERS_MOST), answers, strict=True):
                    granted = list(await answer)
                    asked = min(_FILTERS_MOST, len(filters) - at)
                    if len(granted) != asked:
                        raise self._not(f"the broker answers {asked} topics with {len(granted)} grants")
                    codes += granted
        except TimeoutError as error:
            raise self._not(f"the broker has not answered a subscription for {_ANSWER_S:g} s") from error
        refused = [
            f"the subscription to {name!r}: {code.name}, {_REFUSALS.get(code.value, 'it does not say more')}"
            for name, code in zip(filters, codes, strict=False)
            if code.value >= _REFUSED
        ]
        if refused:
            raise self._not(f"the broker refuses {'; and '.join(refused)}")

    def _asked_for(self, filters: Sequence[str], qos: int) -> asyncio.Future[Sequence[Any]]:
        """Send a SUBSCRIBE; what the broker grants, one code for each."""
        self._packet_id += 1
        answer: asyncio.Future[Sequence[Any]] = self._loop.create_future()
        self._subacks[self._packet_id] = answer
        topics = [  # what is published while we are there is no retained message, even if it will be one
            mqtt5.TopicFilter(each, max_qos=_GRANTS[qos], retain_as_published=False) for each in filters
        ]
        self._send(mqtt5.SubscribePacket(self._packet_id, topics))
        return answer

    def acknowledge(self, packet_ids: Sequence[int]) -> None:
        """Tell the broker that these messages are ours now, in one write."""
        if self._transport is not None and not self._transport.is_closing():
            receipt = mqtt5.PubAckPacket if self._session is None else self._receipt
            self._transport.write(b"".join(self._write(receipt(each)) for each in packet_ids))

    def _receipt(self, packet_id: int) -> mqtt5.PubAckPacket | mqtt5.PubRecPacket:
        if self._session is not None and self._session.record(packet_id):
            return mqtt5.PubRecPacket(packet_id)
        return mqtt5.PubAckPacket(packet_id)

    def _send(self, packet: object) -> None:
        self.transmit(self.encoded(packet))

    def encoded(self, packet: object) -> bytes:
        """The bytes of a packet in this link's version."""
        return self._write(packet)

    def transmit(self, data: bytes) -> None:
        """Send packets that were encoded; nothing where the connection is over."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def fail(self, reason: str) -> None:
        """Give the connection up."""
        self._give_up(self._not(reason))

    def _give_up(self, error: NotConnected) -> None:
        self._end(error)
        if self._transport is not None:
            self._transport.abort()

    def connection_lost(self, error: Exception | None) -> None:
        """The broker, or the network, is gone."""
        reason = "the broker closed the connection"
        if error is not None:
            reason = f"connection lost: {words(error) if isinstance(error, OSError) else error}"
        if not self._connack.done():
            certificate = ", or our certificate" if self._where.startswith("mqtts:") else ""
            other = "3.1.1" if self.version == "5" else "5"
            other = f"speak MQTT {other} only, or " if self._sole else ""
            reason += f" before it answered CONNECT: it may {other}refuse the login{certificate}"
            self._end(self._unspoken(reason))
        self._end(self._not(reason))
        self._gone.set()

    def _unspoken(self, reason: str) -> NotConnected:
        """Perhaps its way to say that it has another version."""
        return VersionRefusedError(f"{self._where}: {reason}")

    def _not(self, reason: str) -> NotConnected:
        return NotConnected(f"{self._where}: {reason}")

    def _end(self, error: NotConnected) -> None:
        if self._next_ping is not None:
            self._next_ping.cancel()
        if self._looks is not None:
            self._looks.stop()
        if self._closed:
            return
        self._closed = True
        futures: list[asyncio.Future[Any]] = [self._connack, *self._subacks.values()]
        for waiting in futures:
            if not waiting.done():
                waiting.set_exception(error)
                waiting.exception()  # nobody may be waiting any more
        self._on_closed(error)

    async def close(self) -> None:
        """Say goodbye and close; safe twice."""
        if self._transport is None:
            return
        if not self._transport.is_closing():
            self._transport.write(self._write(mqtt5.DisconnectPacket()))
            if self._transport.get_write_buffer_size():  # closing would wait for a peer that takes nothing
                self._transport.abort()
            self._transport.close()
        self._end(self._not("closed"))
        await self._gone.wait()


async def open_link(
    host: str,
    port: int,
    connect: mqtt5.ConnectPacket,
    on_publish: Callable[[mqtt5.PublishPacket], None],
    on_closed: Callable[[NotConnected], None],
    *,
    on_looked: Callable[[bool], None] = lambda _whole: None,
    on_too_large: Callable[[str], None] = lambda _reason: None,
    on_receipt: Callable[[mqtt5.PubAckPacket], None] = lambda _packet: None,
    version: Version = "5",
    sole: bool = True,
    session: Session | None = None,
    tls: TlsSection | None = None,
    until_look: Callable[[], float] | None = lambda: _COALESCE_S,
) -> MqttLink:
    """Connect to a broker; with `tls`, over that or not at all.

    Args:
        host: of the broker.
        port: of the broker.
        connect: how we introduce ourselves.
        on_publish: is called for every message, on the event loop.
        on_closed: is called once, with the reason.
        on_looked: is called when messages that came together were handed over; with False, more are to come
            when others had their turn.
        on_too_large: is told of messages that are larger than `connect` says.
        on_receipt: is called for every acknowledgement of a message of ours.
        version: of the protocol.
        sole: no other version will be tried, so that one may tell of it.
        session: what outlives the connection, where messages of QoS 2 may come.
        tls: whom to trust, and who we are.
        until_look: tells the seconds from a look at the socket to the next one; None, the network does.

    Raises:
        VersionRefusedError: the broker may speak another version of the protocol.
        NotConnected: there is none, it is not to be trusted, or it refuses us.
        ConfigError: a file of `tls` is not there, or is not what it should be.
    """
    loop = asyncio.get_running_loop()
    where = f"mqtt{'' if tls is None else 's'}://{host}:{port}"
    link = MqttLink(
        where,
        connect,
        on_publish,
        on_closed,
        on_looked=on_looked,
        on_too_large=on_too_large,
        on_receipt=on_receipt,
        version=version,
        sole=sole,
        session=session,
        until_look=until_look,
    )
    if tls is not None:
        link.front = TlsFilter(link, tls.context(), tls.server_name or host)
    try:
        async with asyncio.timeout(_ANSWER_S):
            transport, _ = await loop.create_connection(lambda: link.front, host, port)
    except TimeoutError as error:
        raise NotConnected(f"{where}: no connection within {_ANSWER_S:g} s") from error
    except OSError as error:
        raise NotConnected(f"{where}: {words(error)}") from error
    try:
        await link.accepted()
    except (NotConnected, asyncio.CancelledError):
        link.fail("given up")
        transport.abort()  # which the link does not know before the handshake is over
        raise
    return link


def _announced(view: memoryview) -> int:
    """The length that an incomplete packet announces: a variable byte integer (MQTT 5, 1.5.5)."""
    length = 0
    for place, byte in enumerate(view[1:5]):
        length |= (byte & 127) << (7 * place)
        if byte < 128:
            break
    return length
