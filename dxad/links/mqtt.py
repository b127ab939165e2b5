"""One MQTT 5 connection: the `mqtt5` codec on an asyncio transport.

The codec is sans-io; this reads, writes, pings, and bounds what a packet may be. Behind a real broker the
wake-ups cost more than the parsing, so after each read that emptied the socket the next look waits a little.
"""

import asyncio
import socket
from collections.abc import Callable, Sequence
from typing import Any, Final

import mqtt5

from dxad.errors import NotConnected

__all__ = ["MqttLink", "open_link"]

_PACKET_MAX: Final = 256 * 1024
_FULL_READ: Final = 65_536
"""asyncio reads so much at once: less means that the socket is empty."""
_ANSWER_S: Final = 5.0
_UNACKED_MS: Final = 10_000
"""TCP_USER_TIMEOUT: a peer that acknowledges nothing for so long is gone, whatever keep-alive thinks."""
_REFUSED: Final = 128
"""Reason codes from here on are refusals (MQTT 5, 2.4)."""


class MqttLink(asyncio.Protocol):
    """A connection to a broker; `on_publish` is called for every message, on the event loop."""

    def __init__(
        self,
        connect: mqtt5.ConnectPacket,
        on_publish: Callable[[mqtt5.PublishPacket], None],
        on_closed: Callable[[NotConnected], None],
        *,
        coalesce_s: float,
    ) -> None:
        """Introduce ourselves with `connect`; `on_closed` is called once, with the reason."""
        self.alive_at = 0.0
        """The loop's time of the last packet: the session's proof of life."""
        self._connect = connect
        self._on_publish = on_publish
        self._on_closed = on_closed
        self._coalesce_s = coalesce_s
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._tail = b""
        self._packet_id = 0
        self._keep_alive = connect.keep_alive
        self._awaiting_ping = False
        self._timers: list[asyncio.TimerHandle] = []
        self._closed = False
        self.connack: asyncio.Future[mqtt5.ConnAckPacket] = self._loop.create_future()
        self._subacks: dict[int, asyncio.Future[Sequence[Any]]] = {}

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """TCP is up: say hello."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        sock = transport.get_extra_info("socket")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _UNACKED_MS)
        transport.write(self._connect.write())

    def data_received(self, data: bytes) -> None:
        """Parse all packets that are complete, keep the rest."""
        self.alive_at = self._loop.time()
        view = memoryview(self._tail + data if self._tail else data)
        self._tail = b""
        at, end = 0, len(view)
        while at < end and not self._closed:
            try:
                packet, used = mqtt5.read(view[at:])
            except IndexError:  # the packet has not fully arrived
                if _announced(view[at:]) > _PACKET_MAX:
                    self.fail(f"the broker sends a packet larger than {_PACKET_MAX} bytes")
                self._tail = bytes(view[at:])
                break
            except ValueError as error:
                self.fail(f"the broker does not speak MQTT 5: {error}")
                break
            at += used
            if isinstance(packet, mqtt5.PublishPacket):
                self._on_publish(packet)
            else:
                self._control(packet)
        if self._coalesce_s and len(data) < _FULL_READ and self.connack.done() and not self._closed:
            assert self._transport is not None
            self._transport.pause_reading()
            self._later(self._coalesce_s, self._resume)

    def _resume(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def _control(self, packet: object) -> None:
        match packet:
            case mqtt5.ConnAckPacket():
                if not self.connack.done():
                    self.connack.set_result(packet)
                if packet.server_keep_alive is not None:
                    self._keep_alive = packet.server_keep_alive
                self._later(self._keep_alive / 2, self._ping)
            case mqtt5.SubAckPacket():
                waiting = self._subacks.pop(packet.packet_id, None)
                if waiting is not None and not waiting.done():
                    waiting.set_result(packet.reason_codes)
            case mqtt5.PingRespPacket():
                self._awaiting_ping = False
            case mqtt5.DisconnectPacket():
                self.fail(f"the broker says {packet.reason_code.name} {packet.reason_str or ''}".rstrip())

    def _ping(self) -> None:
        if self._awaiting_ping:
            self.fail(f"the broker has not answered a ping for {self._keep_alive / 2:g} s")
            return
        self._awaiting_ping = True
        assert self._transport is not None
        self._transport.write(mqtt5.PingReqPacket().write())
        self._later(self._keep_alive / 2, self._ping)

    def _later(self, delay_s: float, call: Callable[[], None]) -> None:
        now = self._loop.time()
        self._timers = [timer for timer in self._timers if not timer.cancelled() and timer.when() > now]
        self._timers.append(self._loop.call_later(delay_s, call))

    async def subscribe(self, filters: Sequence[str], qos: int) -> None:
        """Ask for all messages of these topic filters.

        Raises:
            NotConnected: the broker refuses one, or does not answer.
        """
        assert self._transport is not None
        self._packet_id += 1
        answer: asyncio.Future[Sequence[Any]] = self._loop.create_future()
        self._subacks[self._packet_id] = answer
        wanted = mqtt5.QoS.AT_LEAST_ONCE if qos else mqtt5.QoS.AT_MOST_ONCE
        topics = [mqtt5.TopicFilter(each, max_qos=wanted) for each in filters]
        self._transport.write(mqtt5.SubscribePacket(self._packet_id, topics).write())
        try:
            async with asyncio.timeout(_ANSWER_S):
                codes = await answer
        except TimeoutError as error:
            raise NotConnected(f"the broker has not answered a subscription for {_ANSWER_S:g} s") from error
        for name, code in zip(filters, codes, strict=True):
            if code.value >= _REFUSED:
                raise NotConnected(f"the broker refuses the subscription to {name!r}: {code.name}")

    def acknowledge(self, packet_ids: Sequence[int]) -> None:
        """Tell the broker that these messages are ours now, in one write."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(b"".join(mqtt5.PubAckPacket(each).write() for each in packet_ids))

    def fail(self, reason: str) -> None:
        """Give the connection up."""
        self._end(NotConnected(reason))
        if self._transport is not None:
            self._transport.abort()

    def connection_lost(self, error: Exception | None) -> None:
        """The broker, or the network, is gone."""
        reason = f"connection lost: {error}" if error else "the broker closed the connection"
        if not self.connack.done():
            reason += " before it answered CONNECT; a broker that speaks only MQTT 3.1.1 does this"
        self._end(NotConnected(reason))

    def _end(self, error: NotConnected) -> None:
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()
        if self._closed:
            return
        self._closed = True
        futures: list[asyncio.Future[Any]] = [self.connack, *self._subacks.values()]
        for waiting in futures:
            if not waiting.done():
                waiting.set_exception(error)
                waiting.exception()  # nobody may be waiting any more
        self._on_closed(error)

    async def close(self) -> None:
        """Say goodbye and close; safe twice."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(mqtt5.DisconnectPacket().write())
            self._transport.close()
        self._end(NotConnected("closed"))
        await asyncio.sleep(0)


async def open_link(
    host: str,
    port: int,
    connect: mqtt5.ConnectPacket,
    on_publish: Callable[[mqtt5.PublishPacket], None],
    on_closed: Callable[[NotConnected], None],
    *,
    coalesce_s: float = 0.005,
) -> MqttLink:
    """Connect to a broker.

    Raises:
        NotConnected: there is none, or it refuses us.
    """
    loop = asyncio.get_running_loop()
    where = f"mqtt://{host}:{port}"
    try:
        async with asyncio.timeout(_ANSWER_S):
            _, link = await loop.create_connection(
                lambda: MqttLink(connect, on_publish, on_closed, coalesce_s=coalesce_s), host, port
            )
    except TimeoutError as error:
        raise NotConnected(f"{where}: no connection within {_ANSWER_S:g} s") from error
    except OSError as error:
        raise NotConnected(f"{where}: {error.strerror or error}") from error
    try:
        async with asyncio.timeout(_ANSWER_S):
            answer = await link.connack
    except TimeoutError as error:
        await link.close()
        raise NotConnected(f"{where}: no answer to CONNECT within {_ANSWER_S:g} s") from error
    except NotConnected as error:
        raise NotConnected(f"{where}: {error}") from error
    if answer.reason_code.value >= _REFUSED:
        await link.close()
        raise NotConnected(f"{where}: the broker refuses us: {answer.reason_code.name}")
    return link


def _announced(view: memoryview) -> int:
    """The length that an incomplete packet announces: a variable byte integer (MQTT 5, 1.5.5)."""
    length = 0
    for place, byte in enumerate(view[1:5]):
        length |= (byte & 127) << (7 * place)
        if byte < 128:
            break
    return length
