"""Publishes what devices send, over one connection, without ever making them wait.

    send ─▶ window (not acknowledged yet) ─▶ broker
       └──▶ backlog (window or socket are full) ─▶ window

As a device without a memory does it: while the broker is away, messages are lost, and what had not been
acknowledged when the connection broke is not sent again. All messages of a turn of the loop are one write.

Counts: `sent` are messages written; of those of QoS 1, `acked` the broker has acknowledged, `not_taken` it
has refused, and of `unacked` nobody knows whether it had them when the connection broke. `lost` were never
written.
"""

import asyncio
import contextlib
import logging
from collections import Counter, deque
from typing import Final

import mqtt5

from hw_sim.mqtt.packet import Version, connect, publish
from hw_sim.tasks import background, end

__all__ = ["Publisher"]

_KEEP_ALIVE_S: Final = 15
_PATIENCE_S: Final = 5.0
_RETRY_S: Final = 0.1
_GRACE_S: Final = 1.0
_WINDOW: Final = 4000
"""Messages in flight at most; a broker may want less."""
_BACKLOG: Final = 20_000
_BACKLOG_BYTES: Final = 256 << 20
_FAILURE: Final = 0x80
"""From here on a reason code means that something failed (MQTT 5.0, 2.4)."""
_CONNACK_311: Final = 4
"""Its length in bytes."""

_log = logging.getLogger(__name__)


class Publisher:
    """A client that only publishes, and comes back when its connection is lost."""

    def __init__(
        self,
        version: Version,
        client_id: str,
        counts: Counter[str],
        *,
        username: str | None = None,
        password: str | None = None,
    ) -> None:
        self._version = version
        self._counts = counts
        self._connect = connect(
            version,
            client_id,
            username=username,
            password=None if password is None else password.encode(),
            keep_alive_s=_KEEP_ALIVE_S,
        )
        self._link: _Link | None = None
        self._task: asyncio.Task[None] | None = None
        self._error: Exception | None = None

    @property
    def connected(self) -> bool:
        """Whether what is sent now will get to the broker."""
        return self._link is not None

    async def start(self, host: str, port: int) -> None:
        """Connect, and until `leave` come back whenever the connection is lost.

        Raises:
            ConnectionError: no broker answers there yet, or it refuses; it is tried again all the same.
        """
        assert self._task is None
        up = asyncio.Event()
        self._task = background(self._stay(host, port, up), name=f"MQTT {self._version} publisher")
        try:
            async with asyncio.timeout(_PATIENCE_S):
                await up.wait()
        except TimeoutError:
            why = f": {self._error}" if self._error else ""
            raise ConnectionError(f"no MQTT {self._version} broker answers at {host}:{port}{why}") from None

    async def _stay(self, host: str, port: int, up: asyncio.Event) -> None:
        loop = asyncio.get_running_loop()
        while True:
            link = _Link(self._version, self._connect, self._counts)
            try:
                async with asyncio.timeout(_PATIENCE_S):
                    await loop.create_connection(lambda link=link: link, host, port)  # type: ignore[misc]
                    await link.up
                self._link = link
                up.set()
                await link.closed.wait()
            except OSError as error:
                self._error = error
                _log.info("no broker at %s:%s: %s", host, port, error)
            finally:
                self._link = None
                link.abort()
            await asyncio.sleep(_RETRY_S)

    def send(self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False) -> None:
        """Publish, now or as soon as there is room; lost if there is no broker, or far too much to send."""
        if self._link is None or not self._link.send(topic, payload, qos=qos, retain=retain):
            self._counts["lost"] += 1

    async def room(self) -> None:
        """Wait until all that was sent is with the broker or on its way, or the connection is lost."""
        if self._link is not None:
            await self._link.clear.wait()

    async def settle(self) -> None:
        """Wait, but not for long, until the broker has acknowledged everything."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_GRACE_S):
                while self._link is not None and not self._link.idle.is_set():
                    await self._link.idle.wait()

    async def leave(self) -> None:
        """Hang up and stay away; safe twice. What is on its way is as lost as with any broken connection."""
        task, self._task = self._task, None
        if self._link is not None:
            self._link.leave()
        if task is not None:
            await end(task)


class _Link(asyncio.Protocol):
    """One connection."""

    def __init__(self, version: Version, greeting: bytes, counts: Counter[str]) -> None:
        self._loop = asyncio.get_running_loop()
        self.up: asyncio.Future[None] = self._loop.create_future()
        self.closed = asyncio.Event()
        self.clear = asyncio.Event()
        """Set while nothing waits for room."""
        self.clear.set()
        self.idle = asyncio.Event()
        """Set while everything is acknowledged."""
        self.idle.set()
        self._version = version
        self._greeting = greeting
        self._counts = counts
        self._window = _WINDOW
        self._rest = b""
        self._out: list[bytes] = []
        self._in_flight: set[int] = set()
        self._backlog: deque[tuple[str, bytes, int, bool]] = deque()
        self._backlog_bytes = 0
        self._last_id = 0
        self._writable = True
        self._answered = True
        self._timer: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.write(self._greeting)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if not self.up.done():
            self.up.set_exception(exc or ConnectionError("it hangs up"))
            self.up.exception()  # nobody waits for it if the connection was cancelled
        self._counts["unacked"] += len(self._in_flight)
        self._counts["lost"] += len(self._backlog)
        self._in_flight.clear()
        self._backlog.clear()
        self._transport = None
        for event in (self.closed, self.clear, self.idle):
            event.set()

    def abort(self) -> None:
        """End the connection at once, if there is one."""
        if self._transport is not None:
            self._transport.abort()

    def leave(self) -> None:
        """End the connection, if there is one, after what was sent; without DISCONNECT, see `relay`."""
        if self._transport is not None:
            self._flush()
            self._transport.close()

    def send(self, topic: str, payload: bytes, *, qos: int, retain: bool) -> bool:
        """Publish, or remember it; returns whether there was room for that."""
        if self._transport is None or self._transport.is_closing():
            return False
        if self._roomy and not self._backlog:
            self._write(topic, payload, qos, retain)
            return True
        if len(self._backlog) >= _BACKLOG or self._backlog_bytes + len(payload) > _BACKLOG_BYTES:
            return False
        self._backlog.append((topic, payload, qos, retain))
        self._backlog_bytes += len(payload)
        self.clear.clear()
        return True

    @property
    def _roomy(self) -> bool:
        return self._writable and len(self._in_flight) < self._window

    def _write(self, topic: str, payload: bytes, qos: int, retain: bool) -> None:  # noqa: FBT001 - as in send
        number = None
        if qos:
            number = self._last_id % 65_535 + 1
            while number in self._in_flight:
                number = number % 65_535 + 1
            self._last_id = number
            self._in_flight.add(number)
            self.idle.clear()
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append(publish(self._version, topic, payload, retain=retain, packet_id=number))
        self._counts["sent"] += 1

    def _flush(self) -> None:
        if self._transport is not None and self._out:
            self._transport.write(b"".join(self._out))
        self._out.clear()

    def pause_writing(self) -> None:
        self._writable = False

    def resume_writing(self) -> None:
        self._writable = True
        self._refill()

    def _refill(self) -> None:
        while self._backlog and self._roomy:
            topic, payload, qos, retain = self._backlog.popleft()
            self._backlog_bytes -= len(payload)
            self._write(topic, payload, qos, retain)
        if not self._backlog:
            self.clear.set()

    def data_received(self, data: bytes) -> None:
        data = self._rest + data
        view, at = memoryview(data), 0
        while at < len(data):
            if self._version == "3.1.1" and not self.up.done():
                if len(data) < _CONNACK_311:
                    break
                self._welcome(data[3])
                at += _CONNACK_311
                continue
            try:
                packet, used = mqtt5.read(view[at:])
            except IndexError:
                break
            except ValueError as error:
                _log.warning("the broker sends what is no packet: %s", error)
                self.abort()
                return
            at += used
            self._hear(packet)
        self._rest = data[at:]
        if self._backlog:
            self._refill()
        if not self._in_flight and not self._backlog:
            self.idle.set()

    def _hear(self, packet: mqtt5.Packet) -> None:
        match packet:
            case mqtt5.PubAckPacket():
                if packet.packet_id in self._in_flight:
                    self._in_flight.remove(packet.packet_id)
                    refused = int(packet.reason_code) >= _FAILURE
                    self._counts["not_taken" if refused else "acked"] += 1
            case mqtt5.ConnAckPacket():
                self._window = min(_WINDOW, packet.receive_max)
                self._welcome(int(packet.reason_code))
            case mqtt5.PingRespPacket():
                self._answered = True
            case mqtt5.DisconnectPacket():
                _log.info("the broker ends the connection: %s", packet.reason_code.name)

    def _welcome(self, code: int) -> None:
        if code:
            self.up.set_exception(ConnectionError(f"it refuses with code {code}"))
            self.abort()
            return
        self.up.set_result(None)
        self._timer = self._loop.call_later(_KEEP_ALIVE_S / 2, self._ping)

    def _ping(self) -> None:
        """Ask whether the broker is there; a connection on which nobody answers is ended."""
        if self._transport is None:
            return
        if not self._answered:
            _log.info("the broker does not answer")
            self.abort()
            return
        self._answered = False
        self._transport.write(mqtt5.PingReqPacket().write())
        self._timer = self._loop.call_later(_KEEP_ALIVE_S / 2, self._ping)
