"""A TCP port, and the clients on it."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Final, cast

from hw_sim.section import LOOPBACK

__all__ = ["Port"]

_CHUNK: Final = 4096
_TURNS: Final = 2
"""Of the loop, after which a connection that was aborted is gone."""


class _Client(asyncio.BufferedProtocol):
    """A connection. While its far end does not take what it is sent, nothing more is read from it.

    Buffered, since asyncio reads into fresh 256 KiB for any other protocol: 40 µs a request in place of 11.
    """

    def __init__(self, port: "Port") -> None:
        self._port = port
        self._received: Callable[[bytes], None] | None = None
        self._buffer = bytearray(_CHUNK)
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self._received = self._port.joined(self)
        self._port.clients.add(self)

    def get_buffer(self, sizehint: int) -> bytearray:  # noqa: ARG002 - as asyncio calls it
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        if self._received is not None:
            self._received(bytes(self._buffer[:nbytes]))

    def pause_writing(self) -> None:
        if self.transport is not None:
            self.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.transport is not None:
            self.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - as asyncio calls it
        self.transport = self._received = None
        self._port.clients.discard(self)

    def send(self, data: bytes) -> bool:
        """Send; whether there is still somebody to send to."""
        if self.transport is None or self.transport.is_closing():
            return False
        self.transport.write(data)
        return True

    def hang_up(self) -> None:
        """Close the connection, after what has been sent."""
        if self.transport is not None:
            self.transport.close()


class Port:
    """Listens, on the same port each time."""

    def __init__(self, port: int, joined: Callable[[_Client], Callable[[bytes], None]]) -> None:
        """Listen nowhere yet.

        Args:
            port: 0 is any that is free.
            joined: called with each new client; returns what its bytes are for.
        """
        self.number = port
        self.joined = joined
        self.clients: set[_Client] = set()
        self._server: asyncio.Server | None = None

    @property
    def is_open(self) -> bool:
        """Whether it listens."""
        return self._server is not None

    @property
    def peers(self) -> Sequence[_Client]:
        """What one can send to: the clients that are there."""
        return tuple(self.clients)

    async def open(self) -> None:
        """Listen.

        Raises:
            OSError: the port is taken.
        """
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Client(self), LOOPBACK, self.number)
        self.number = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Stop listening and drop all clients; safe twice."""
        server, self._server = self._server, None
        if server is None:
            return
        server.close()
        for client in tuple(self.clients):
            if client.transport is not None:
                client.transport.abort()
        await server.wait_closed()
        for _ in range(_TURNS):
            await asyncio.sleep(0)
