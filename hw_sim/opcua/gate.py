"""The network side of a server: its listener, and a gate in each connection that can hold or delay bytes.

                 ┌──────────── Listener ───────────┐
client ══ TCP ═══╪═══▶ Gate ───────▶ OPCUAProtocol │
                 │      ▲                 │        │
                 │      └──── _Outlet ◀───┘        │
                 └─────────────────────────────────┘
"""

import asyncio
from collections import Counter, deque
from typing import Any

from asyncua.common.connection import TransportLimits
from asyncua.crypto.security_policies import SecurityPolicyFactory
from asyncua.server.binary_server_asyncio import OPCUAProtocol
from asyncua.server.internal_server import InternalServer
from asyncua.server.uaprocessor import UaProcessor

from hw_sim.section import LOOPBACK

__all__ = ["Gate", "Line", "Listener"]


class Line:
    """How the link is now, for all of its connections."""

    def __init__(self, counts: Counter[str]) -> None:
        self.counts = counts
        self.listening = False
        self.held = False
        """Nothing goes through, either way."""
        self.delay_s = 0.0
        """What the server sends is late by so much."""
        self.carrying = 0
        """How many values are in what the server says just now."""
        self.gates: set[Gate] = set()
        """The connections there are."""

    def set(self, *, held: bool, delay_s: float) -> None:
        """Be so from now on."""
        self.held, self.delay_s = held, delay_s
        for gate in tuple(self.gates):
            gate.changed()


class Gate(asyncio.Protocol):
    """Stands between a connection's socket and the protocol that serves it; bytes keep their order."""

    def __init__(self, inner: asyncio.Protocol, line: Line) -> None:
        self._inner = inner
        self._line = line
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._waiting: deque[tuple[float, bytes | None, int]] = deque()
        """When to send what, and how many values are in it; None is to close."""
        self._timer: asyncio.TimerHandle | None = None
        self._gone = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client has come."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        if not self._line.listening:  # it was taken in the moment of the end
            self._gone = True
            transport.abort()
            return
        self._line.gates.add(self)
        self._line.counts["connections"] += 1
        self._inner.connection_made(_Outlet(self, transport))
        self.changed()

    def data_received(self, data: bytes) -> None:
        """What the client sent; held, it stays in the socket."""
        self._inner.data_received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        self._line.gates.discard(self)
        self._gone = True
        self._unsent(sum(values for *_, values in self._waiting))
        self._waiting.clear()
        if self._timer is not None:
            self._timer.cancel()
        self._inner.connection_lost(exc)

    def changed(self) -> None:
        """The line has become another."""
        assert self._transport is not None
        if self._line.held:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()
        self._pump()

    def send(self, data: bytes | None) -> None:
        """What the server says; None is that it closes the connection."""
        line = self._line
        if self._gone:
            self._unsent(line.carrying)
            return
        if line.held or line.delay_s or self._waiting:
            line.counts["held" if line.held else "delayed"] += data is not None
            self._waiting.append((self._loop.time() + line.delay_s, data, line.carrying))
            self._pump()
        else:
            self._out(data)

    def _unsent(self, values: int) -> None:
        if values:
            self._line.counts["unsent"] += values

    def abort(self) -> None:
        """Drop the connection at once, whatever waits."""
        assert self._transport is not None
        self._transport.abort()

    def _pump(self) -> None:
        """Send what is due, and come back for the rest."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._line.held:
            return
        now = self._loop.time()
        while self._waiting and (not self._line.delay_s or self._waiting[0][0] <= now):
            self._out(self._waiting.popleft()[1])
        if self._waiting:
            self._timer = self._loop.call_at(self._waiting[0][0], self._pump)

    def _out(self, data: bytes | None) -> None:
        assert self._transport is not None
        if data is None:
            self._transport.close()
        else:
            self._transport.write(data)


class _Outlet(asyncio.Transport):
    """What the server takes for its connection's transport."""

    def __init__(self, gate: Gate, transport: asyncio.Transport) -> None:
        super().__init__()
        self._gate = gate
        self._transport = transport

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._transport.get_extra_info(name, default)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self._gate.send(bytes(data))

    def close(self) -> None:
        self._gate.send(None)


class _Processor(UaProcessor):
    """One that ends the watchdog of a session when the next one begins on the same connection.

    asyncua forgets it then, and it would go on.
    """

    _watchdog: asyncio.Task[None] | None = None

    @property
    def _session_watchdog_task(self) -> asyncio.Task[None] | None:
        return self._watchdog

    @_session_watchdog_task.setter
    def _session_watchdog_task(self, task: asyncio.Task[None] | None) -> None:
        if self._watchdog is not None:
            self._watchdog.cancel()
        self._watchdog = task


class _Protocol(OPCUAProtocol):
    """asyncua's, with that processor."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        if self.processor is not None:
            self.processor = _Processor(self.iserver, self.transport, self.limits)
            self.processor.set_policies(self.policies)  # type: ignore[no-untyped-call]


class Listener:
    """Listens and serves what comes; after `close`, nothing of it is left."""

    def __init__(
        self,
        iserver: InternalServer,
        policies: list[SecurityPolicyFactory],
        limits: TransportLimits,
        line: Line,
    ) -> None:
        self._iserver = iserver
        self._policies = policies
        self._limits = limits
        self._line = line
        self._server: asyncio.Server | None = None
        self._clients: list[OPCUAProtocol] = []
        self._closing: list[asyncio.Task[Any]] = []

    async def open(self, port: int) -> None:
        """Listen.

        Raises:
            OSError: the port is taken.
        """
        self._server = await asyncio.get_running_loop().create_server(self._connection, LOOPBACK, port)
        self._line.listening = True

    def _connection(self) -> Gate:
        self._closing[:] = [task for task in self._closing if not task.done()]
        inner = _Protocol(self._iserver, self._policies, self._clients, self._closing, self._limits)
        return Gate(inner, self._line)

    async def close(self) -> None:
        """Drop all connections, as when the process is killed, and listen no more."""
        server, self._server = self._server, None
        if server is None:
            return
        self._line.listening = False
        server.close()
        for gate in tuple(self._line.gates):
            gate.abort()
        while self._line.gates:  # noqa: ASYNC110 - a turn of the loop or two
            await asyncio.sleep(0)
        await server.wait_closed()
        while self._closing:
            await self._closing.pop()
