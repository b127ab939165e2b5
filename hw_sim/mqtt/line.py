"""The line between a client and the broker: bytes both ways, with back-pressure, and what goes wrong."""

import asyncio
import contextlib
import functools
import socket
from collections.abc import Callable, Coroutine
from typing import Any, Final

from hw_sim.mqtt.packet import SUBSCRIBE, Framer, MalformedError, Version, no_subscription
from hw_sim.tasks import race

__all__ = ["CHUNK", "Line", "relay"]

CHUNK: Final = 1 << 16
"""The most bytes that are carried at once."""
_PORTION_S: Final = 0.05
"""Of a slow line: how often a portion comes."""
_PARTING_S: Final = 0.2
_PINGRESP_BYTES: Final = 2
_GARBAGE: Final = b"\x00\xff\xff\xff\xff\xff hw_sim"
"""Packet type 0, which is forbidden, and a length that does not end (MQTT 5.0, 2.1.2 and 1.5.5)."""


class Line:
    """What is wrong with the lines of all clients now."""

    def __init__(self) -> None:
        self.flowing = asyncio.Event()
        """Unset while not a byte goes either way."""
        self.flowing.set()
        self.delivered = 0
        """Bytes that went to clients, but for answers to their pings."""
        self.garbage_after = 0
        """Packets between two pieces of garbage; 0 is none."""
        self.subscribable = True
        """Whether subscriptions are granted."""
        self._rate = 0.0
        self._delay_s = 0.0
        self._eased = asyncio.Event()

    @property
    def by_packets(self) -> bool:
        """Whether a line that is opened now must look at packets."""
        return self.garbage_after > 0 or not self.subscribable

    def slow_down(self, *, rate: float, delay_s: float) -> None:
        """Carry so many bytes per second, and keep each chunk for so long; 0 is no limit."""
        if (rate, delay_s) != (self._rate, self._delay_s):
            self._rate, self._delay_s = rate, delay_s
            self._eased.set()  # what is waiting looks again
            self._eased = asyncio.Event()

    async def carry(self, data: bytes, writer: asyncio.StreamWriter) -> None:
        """Bring bytes to the other side as the line is now."""
        await self.flowing.wait()
        if self._delay_s:
            await self._wait(self._delay_s)
        while data:
            size = max(1, int(self._rate * _PORTION_S)) if self._rate else len(data)
            portion, data = data[:size], data[size:]
            await self.flowing.wait()
            writer.write(portion)
            await writer.drain()
            if self._rate:
                await self._wait(size / self._rate)

    async def _wait(self, seconds: float) -> None:
        """Wait, but not after the line has changed."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._eased.wait()


async def relay(
    line: Line,
    version: Version,
    client: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    broker: tuple[asyncio.StreamReader, asyncio.StreamWriter],
) -> None:
    """Carry bytes between both until one hangs up.

    A client that leaves sends DISCONNECT, upon which the broker hangs up, and has the time to do so. Our own
    frees the connection's place at DISCONNECT, and again if the socket is closed before it has hung up. That
    ends whatever connection has come into the place since (rumqttd 0.20, `remote` in server/broker.rs).
    """
    if line.by_packets:
        there = _requests(line, version, client, broker[1])
        back = _answers(line, broker[0], client[1])
    else:
        there, back = (
            _bytes(line, client[0], broker[1]),
            _bytes(line, broker[0], client[1], _at_once(broker[1].get_extra_info("socket"))),
        )
    await race(_and_then(there, _PARTING_S), back)


async def _and_then(job: Coroutine[Any, Any, None], pause_s: float) -> None:
    await job
    await asyncio.sleep(pause_s)


async def _bytes(
    line: Line,
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    acknowledge: Callable[[], None] | None = None,
) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(CHUNK):
            if acknowledge is not None:
                acknowledge()
            await line.carry(data, writer)
            if acknowledge is not None and len(data) > _PINGRESP_BYTES:
                line.delivered += len(data)


def _at_once(link: socket.socket) -> Callable[[], None]:
    """What has the system acknowledge at once what has just been read, which it forgets again (tcp(7)).

    Else our own broker, which does not switch Nagle's algorithm off, holds small messages up for 40 ms.
    """
    return functools.partial(link.setsockopt, socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)


async def _requests(
    line: Line,
    version: Version,
    client: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    broker: asyncio.StreamWriter,
) -> None:
    """Carry a client's packets, but for those that the broker shall not see."""
    framer = Framer()
    with contextlib.suppress(OSError, MalformedError):
        while data := await client[0].read(CHUNK):
            for packet in framer.packets(data):
                if packet[0] >> 4 == SUBSCRIBE and not line.subscribable:
                    await line.carry(no_subscription(version, packet), client[1])
                else:
                    await line.carry(packet, broker)


async def _answers(line: Line, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
    """Carry the broker's packets, and garbage in between."""
    framer, carried = Framer(), 0
    with contextlib.suppress(OSError, MalformedError):
        while data := await reader.read(CHUNK):
            for packet in framer.packets(data):
                await line.carry(packet, client)
                carried += 1
                if line.garbage_after and carried % line.garbage_after == 0:
                    await line.carry(_GARBAGE, client)
