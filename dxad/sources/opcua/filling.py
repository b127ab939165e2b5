"""When gaps are filled from the server's history: behind live data, one gap at a time.

gap ─▶ listen until it is known how the server's clock differs from ours ─▶ read ─▶ put
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from asyncua import ua

from dxad.runtime.clock import Clock
from dxad.sources.opcua.connection import FAULTS, Connection
from dxad.sources.opcua.holding import Gap
from dxad.sources.opcua.past import Delay, Reader
from dxad.sources.opcua.subscription import DAMAGED
from dxad.sources.opcua.wire import Item
from dxad.types import NS_PER_S

__all__ = ["Filled", "Filling"]

LISTEN_NS: Final = NS_PER_S
"""How long live data is listened to before its delay is believed."""
_GAPS_MOST: Final = 16


@dataclass(frozen=True, slots=True)
class Filled:
    """What the owner of a filling is told."""

    put: Callable[[int, object, int, int, int], None]
    """A value of the past: handle, value, status, its own time, and the stream time at which it was taken."""
    room: Callable[[], float]
    """What share of the owner's queue is free."""
    hold: Callable[[int], int | None]
    """By handle, how long a value holds, ns; None: until the next one."""
    fault: Callable[[str], None]
    """What is worth counting."""
    failed: Callable[[BaseException], None]
    """It has ended by a bug."""


class Filling:
    """Fills the gaps of one connection."""

    def __init__(
        self, connection: Connection, owner: Filled, *, clock: Clock, asked: bool, keep: int, listen: int,
        period: int,
    ) -> None:  # fmt: skip
        """Fill what is at most `keep` old.

        Args:
            connection: with a session.
            owner: who is told.
            clock: asked for the time.
            asked: whether it is told that the server keeps no history.
            keep: ns.
            listen: ns of live data to learn the delay from, at least.
            period: of a slot, ns.
        """
        self._owner = owner
        self._connection = connection
        self._clock = clock
        self._asked = asked
        self._keep = keep
        self._period = period
        self._listen = max(LISTEN_NS, listen)
        self._delay = Delay()
        self._seen: set[int] = set()
        self._gaps: list[Gap] = []
        self._news = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._nodes: Sequence[ua.NodeId | None] = ()
        self.listening = False
        """Whether it wants to see what comes."""

    def add(self, gap: Gap, nodes: Sequence[ua.NodeId | None]) -> None:
        """Fill this, of these nodes, by their handles from 1 on; of too many gaps, the oldest is left."""
        self._gaps = [*self._gaps, gap][-_GAPS_MOST:]
        self._nodes = nodes
        self._seen.clear()
        self.listening = True
        if self._task is None:
            self._task = asyncio.create_task(self._fill(), name="opcua.fill")
            self._task.add_done_callback(self._ended)
        self._news.set()

    def see(self, items: Sequence[Item], now: int) -> None:
        """What comes live: it tells how far behind the values' times are."""
        for handle, value, _, stamp in items:
            if handle == 0:
                self._delay.server(now, value)
            elif handle in self._seen:
                self._delay.value(now, stamp)
            else:
                self._seen.add(handle)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._owner.failed(error)

    async def _fill(self) -> None:
        while True:
            while not self._gaps:
                self._news.clear()
                await self._news.wait()
            await self._clock.sleep_until(self._clock.now() + self._listen)
            self.listening = False
            gap, delay = self._gaps.pop(0), self._delay.ns
            if delay is None:
                self._owner.fault("history: nothing tells how the server's clock differs from ours")
                continue
            gap = Gap(max(gap.begin, self._clock.now() - self._keep), gap.end)
            try:
                await self._read(gap, delay)
            except FAULTS as error:
                self._owner.fault(f"history: {self._connection.told(error)}")
            except DAMAGED as error:
                self._owner.fault(f"history: an answer cannot be read: {error}")

    async def _read(self, gap: Gap, delay: int) -> None:
        def put(handle: int, value: object, status: int, at: int) -> None:
            self._owner.put(handle, value, status, at - delay, at)

        reader = Reader(
            self._connection, put=put, room=self._owner.room, period=self._period, hold=self._owner.hold
        )
        able = await reader.able(self._nodes)
        if able:
            await reader.read(able, gap, delay)
        elif self._asked:
            self._owner.fault("history: the server keeps none of these nodes, or does not let us read it")

    async def close(self) -> None:
        """Fill no more; safe twice."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
