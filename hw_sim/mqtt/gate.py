"""The gate in front of a broker: one port for both versions of MQTT, logins, TLS, and faults of the link.

    client ═╗                                    ╔═ broker's MQTT 5
            ╠═ port, TLS port ─ CONNECT ─ relay ═╣
    client ═╝          (users)        (line.py)  ╚═ broker's MQTT 3.1.1

The gate reads a client's CONNECT itself, refuses it or opens a connection of its own to the broker, and then
carries bytes both ways. So all that can go wrong with a link also does so in front of somebody else's broker.

Our own broker keeps sessions by rules of its own: it keeps those that began with Clean Start 0, and for ever,
and hangs up on keep-alive 0. The gate makes up for that (MQTT 5.0, 3.1.2.4, 3.1.2.10 and 3.1.2.11.2).
"""

import asyncio
import contextlib
import logging
import math
import socket
import ssl
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Final

from hw_sim.mqtt.line import CHUNK, Line, relay
from hw_sim.mqtt.packet import (
    DISCONNECT,
    FOR_EVER,
    Hello,
    MalformedError,
    Refusal,
    UnsupportedError,
    Version,
    connack,
    connect,
    hello,
    read_packet,
)
from hw_sim.section import LOOPBACK
from hw_sim.tasks import background, end

__all__ = ["Gate"]

_CONNECT_MAX: Final = 327_680
"""Bytes of a CONNECT: five fields of the largest size."""
_CONNACK_MAX: Final = 1 << 20
_PATIENCE_S: Final = 10.0
_GRACE_S: Final = 1.0
_BACKLOG: Final = 128
_LONGEST_KEEP_ALIVE_S: Final = 65_535

_log = logging.getLogger(__name__)

_Ends = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Gate:
    """Listens for clients and connects them to a broker."""

    def __init__(
        self,
        broker: Callable[[Version], tuple[str, int]],
        *,
        own: bool,
        users: Mapping[str, str],
        counts: Counter[str],
    ) -> None:
        self.line = Line()
        self.refusal: Refusal | None = None
        """What every CONNECT is answered with, if anything."""
        self.ports: list[int] = []
        """The plain port and that of TLS, once it has listened."""
        self._broker = broker
        self._own = own
        self._users = users
        self._counts = counts
        self._listeners: list[asyncio.Task[None]] = []
        self._clients: dict[asyncio.Task[None], Hello | None] = {}
        self._strangers: set[asyncio.Task[None]] = set()
        self._kept: set[str] = set()
        """Clients whose sessions outlive their connections."""
        self._until: dict[str, float] = {}
        """When the session of a client that is away ends, on the loop's clock."""

    async def open(self, port: int, tls_port: int | None, context: ssl.SSLContext | None) -> None:
        """Listen; after `shut`, again on the same ports.

        Raises:
            OSError: a port is taken.
        """
        wanted = self.ports or [port, *(() if tls_port is None else (tls_port,))]
        with contextlib.ExitStack() as opened:
            listeners = [opened.enter_context(_listener(each)) for each in wanted]
            opened.pop_all()
        self.ports = [each.getsockname()[1] for each in listeners]
        self._listeners = [
            background(self._accept(listener, tls), name=f"MQTT gate {number}")
            for listener, tls, number in zip(listeners, (None, context), self.ports, strict=False)
        ]

    async def shut(self) -> None:
        """Listen no more, and end all connections; safe twice."""
        listeners, self._listeners = self._listeners, []
        for listener in listeners:
            await end(listener)
        tasks = (*self._clients, *self._strangers)
        for task in tasks:
            task.cancel()
        for task in tasks:
            await end(task)

    def kick(self) -> None:
        """End all connections."""
        for task in self._clients:
            task.cancel()
        self._counts["kicked"] += len(self._clients)

    def take_over(self) -> None:
        """Have a stranger connect with the id of each client."""
        for greeting in [each for each in self._clients.values() if each is not None and each.client_id]:
            task = background(self._greet(greeting, self._forwarded(greeting)), name="MQTT stranger")
            self._strangers.add(task)
            task.add_done_callback(self._strangers.discard)
            self._counts["taken_over"] += 1

    def forget(self) -> None:
        """Have all sessions gone that a client had until now."""
        self._until |= dict.fromkeys(self._kept, -math.inf)
        self._kept.clear()

    async def _accept(self, listener: socket.socket, tls: ssl.SSLContext | None) -> None:
        loop = asyncio.get_running_loop()
        with listener:
            while True:
                try:
                    connection, _ = await loop.sock_accept(listener)
                except OSError as error:  # gone before it was accepted, or no descriptor is left
                    _log.warning("a client could not be accepted: %s", error)
                    await asyncio.sleep(_GRACE_S)
                    continue
                task = background(self._serve(connection, tls), name="MQTT client")
                self._clients[task] = None
                task.add_done_callback(self._clients.pop)

    async def _serve(self, connection: socket.socket, tls: ssl.SSLContext | None) -> None:
        with connection:  # asyncio's transport closes it, unless there never is one
            await self.line.flowing.wait()
            try:
                client = await _streams(connection, tls)
            except OSError as error:
                _log.info("no TLS with a client: %s", error)
                return
            try:
                await self._admit(client)
            except (MalformedError, OSError, asyncio.IncompleteReadError) as error:
                _log.info("a client is let go: %s", error)
            except asyncio.CancelledError:  # at once, whatever it has not taken yet
                client[1].transport.abort()
                raise
            finally:
                await _leave(client[1])

    async def _admit(self, client: _Ends) -> None:
        """Hear a client's CONNECT and act upon it, until its connection ends."""
        try:
            async with asyncio.timeout(_PATIENCE_S):
                greeting = hello(await read_packet(client[0], _CONNECT_MAX))
        except UnsupportedError as error:
            await self.line.carry(error.answer, client[1])
            return
        self._counts["connects"] += 1
        refusal = self.refusal or self._refusal(greeting)
        if refusal is not None:
            self._counts["refused"] += 1
            await self.line.carry(connack(greeting.version, refusal), client[1])
            return
        await self._renew(greeting)
        try:
            broker = await asyncio.open_connection(*self._broker(greeting.version), limit=CHUNK)
        except OSError:
            await self.line.carry(connack(greeting.version, "unavailable"), client[1])
            raise
        task = asyncio.current_task()
        assert task is not None
        self._clients[task] = greeting
        try:
            await self.line.carry(self._forwarded(greeting), broker[1])
            await relay(self.line, greeting.version, client, broker)
        finally:
            forwarded_as_kept = not greeting.clean or greeting.expires_s > 0
            if self._own and forwarded_as_kept and greeting.expires_s != FOR_EVER:
                self._until[greeting.client_id] = asyncio.get_running_loop().time() + greeting.expires_s
            await _leave(broker[1])

    def _refusal(self, greeting: Hello) -> Refusal | None:
        if not self._users:
            return None
        if greeting.username is None:
            return "not_authorised"
        secret = self._users.get(greeting.username)
        return None if secret is not None and greeting.password == secret.encode() else "bad_login"

    def _forwarded(self, greeting: Hello) -> bytes:
        """The CONNECT for the broker."""
        if not self._own:
            return greeting.raw
        return greeting.changed(
            clean=greeting.clean and not greeting.expires_s,
            keep_alive_s=greeting.keep_alive_s or _LONGEST_KEEP_ALIVE_S,
        )

    async def _renew(self, greeting: Hello) -> None:
        """Have the broker forget the client's session if it is over, or if the client wants a new one."""
        until = self._until.pop(greeting.client_id, math.inf)
        over = not greeting.clean and until <= asyncio.get_running_loop().time()
        anew = self._own and greeting.clean and greeting.expires_s > 0
        if greeting.client_id and (over or anew):
            name, secret = greeting.username, greeting.password
            packet = connect(
                greeting.version, greeting.client_id, username=name, password=secret, keep_alive_s=60
            )
            await self._greet(greeting, packet)
        if greeting.expires_s:
            self._kept.add(greeting.client_id)

    async def _greet(self, greeting: Hello, packet: bytes) -> None:
        """Connect to the broker in a client's name, and leave."""
        with contextlib.suppress(OSError, MalformedError, asyncio.IncompleteReadError):
            async with asyncio.timeout(_PATIENCE_S):
                reader, writer = await asyncio.open_connection(*self._broker(greeting.version))
                try:
                    writer.write(packet)
                    await read_packet(reader, _CONNACK_MAX)
                    writer.write(DISCONNECT)
                    await reader.read()  # until it hangs up: see `relay`
                finally:
                    await _leave(writer)


def _listener(port: int) -> socket.socket:
    try:
        listener = socket.create_server((LOOPBACK, port), backlog=_BACKLOG)
    except OSError as error:
        raise OSError(error.errno, f"MQTT on {LOOPBACK}:{port}: {error.strerror}") from error
    listener.setblocking(False)
    return listener


async def _streams(connection: socket.socket, tls: ssl.SSLContext | None) -> _Ends:
    """Streams over an accepted connection, after a handshake if it is one of TLS.

    Raises:
        OSError: the client does not speak TLS, has no certificate that it must show, or does not trust ours.
    """
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=CHUNK, loop=loop)
    protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
    transport, _ = await loop.connect_accepted_socket(
        lambda: protocol,
        connection,
        ssl=tls,
        ssl_handshake_timeout=None if tls is None else _PATIENCE_S,
    )
    return reader, asyncio.StreamWriter(transport, protocol, reader, loop)


async def _leave(writer: asyncio.StreamWriter) -> None:
    """Hang up, once what was written has gone out, if it does so soon."""
    writer.close()
    try:
        async with asyncio.timeout(_GRACE_S):
            await writer.wait_closed()
    except OSError:  # it is gone already, or does not take what is left (TimeoutError)
        writer.transport.abort()
    except asyncio.CancelledError:
        writer.transport.abort()
        raise
