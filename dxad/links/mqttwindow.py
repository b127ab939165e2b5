"""Messages of QoS 1 that are under way: as many at once as the broker takes, each until its PUBACK.

    message ─▶ enter: a packet id ─▶ the broker ─▶ PUBACK ─▶ answered: whose it was, and what was said

Awaiting each one by itself would cost a round trip a message (MQTT 5, 4.9 and 4.4).
"""

import asyncio
from typing import Final

import mqtt5

from dxad.errors import NotConnected

__all__ = ["Window"]

_IDS: Final = 65_535


class Window:
    """What is under way over one connection."""

    def __init__(self, most: int, *, most_bytes: int) -> None:
        self._most = most
        self._most_bytes = most_bytes
        self._under_way: dict[int, tuple[int, int]] = {}
        """By packet id: which message of those given to `enter`, and its bytes."""
        self._bytes = 0
        self._packet_id = 0
        self._moved = asyncio.Event()
        self._lost: NotConnected | None = None
        self.answers: dict[int, mqtt5.PubAckPacket] = {}
        """By message, since the last `begin`."""

    def allow(self, most: int) -> None:
        """As many may be under way."""
        self._most = most

    def begin(self) -> None:
        """What is entered from here on is counted anew."""
        self.answers = {}

    def has_room(self, size: int) -> bool:
        """Whether a message of so many bytes may go now; one alone always may."""
        return not self._under_way or (
            len(self._under_way) < self._most and self._bytes + size <= self._most_bytes
        )

    def enter(self, message: int, size: int) -> int:
        """Send this one under the packet id that is returned."""
        while True:
            self._packet_id = self._packet_id % _IDS + 1
            if self._packet_id not in self._under_way:
                break
        self._under_way[self._packet_id] = message, size
        self._bytes += size
        return self._packet_id

    def leave(self, packet_id: int) -> None:
        """It was not sent after all."""
        _, size = self._under_way.pop(packet_id)
        self._bytes -= size

    def answered(self, packet: mqtt5.PubAckPacket) -> None:
        """The broker has it, or says why it will not; an answer to nothing is none."""
        found = self._under_way.pop(packet.packet_id, None)
        if found is not None:
            message, size = found
            self._bytes -= size
            self.answers[message] = packet
            self._moved.set()

    def end(self, error: NotConnected) -> None:
        """The connection is over: nobody knows what arrived of what is under way."""
        self._lost = error
        self._moved.set()

    @property
    def empty(self) -> bool:
        """Whether all were answered."""
        return not self._under_way

    async def moves(self, within_s: float) -> None:
        """Wait for the next answer.

        Raises:
            NotConnected: the connection is over.
            TimeoutError: none comes.
        """
        if self._lost is None:
            self._moved.clear()
            async with asyncio.timeout(within_s):
                await self._moved.wait()
        if self._lost is not None:
            raise self._lost
