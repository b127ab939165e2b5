"""The only place that is asked for the time.

The *stream clock* is boot time (CLOCK_BOOTTIME): it never steps, and it goes on while the machine sleeps.
Wall time is a mapping of it that is applied where something leaves the process. Somebody may set the wall
clock at any time, by years: nothing waits, expires or is dropped by it.
"""

import asyncio
import heapq
import itertools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol

from dxad.runtime import kerneltime

__all__ = ["Clock", "SteppedClock", "SystemClock", "boot_id"]


_ASKED_NS: Final = 10**9
"""How long an answer of the kernel's holds."""
_TOGETHER_NS: Final = 50_000
"""Two clocks that were looked at within so long were looked at together."""
_LOOKS_MOST: Final = 5


class Clock(Protocol):
    """Tells the stream time, and waits for it."""

    def now(self) -> int:
        """The stream time, in nanoseconds since boot."""

    def utc(self, at: int) -> int:
        """The wall time, in UTC nanoseconds, of a stream time."""

    @property
    def synchronised(self) -> bool:
        """Whether somebody keeps the wall clock right; else every UTC is a guess."""

    async def sleep_until(self, at: int) -> None:
        """Wait until the stream time `at`; yields to the loop once even when it has passed."""


class SystemClock:
    """The machine's own clocks."""

    def __init__(self, *, synchronised: Callable[[], bool] = kerneltime.synchronised) -> None:
        """Ask `synchronised` once a second at most, as it is a system call."""
        self._ask = synchronised
        self._answer = False
        self._asked: int | None = None

    def now(self) -> int:
        """Read CLOCK_BOOTTIME."""
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME)

    def utc(self, at: int) -> int:
        """Map by the offset between the two clocks as it is now."""
        return self._offset() + at

    def _offset(self) -> int:
        """Wall time less stream time; whoever is held up between two looks at the clocks looks again."""
        found, took = 0, -1
        for _ in range(_LOOKS_MOST):
            before, wall = self.now(), time.time_ns()
            span = self.now() - before
            if took < 0 or span < took:
                found, took = wall - before - span // 2, span
            if took < _TOGETHER_NS:
                break
        return found

    @property
    def synchronised(self) -> bool:
        """What the kernel said within the last second."""
        now = self.now()
        if self._asked is None or now - self._asked >= _ASKED_NS:
            self._answer, self._asked = self._ask(), now
        return self._answer

    async def sleep_until(self, at: int) -> None:
        """Sleep on the event loop."""
        await asyncio.sleep(max(0, at - self.now()) / 1e9)


class SteppedClock:
    """A clock that stands still until it is stepped: for tests and for recorded data."""

    def __init__(
        self,
        *,
        start: int = 1_000_000_000_000,
        utc_offset: int = 1_700_000_000_000_000_000,
        synchronised: bool = True,
    ) -> None:
        self.synchronised = synchronised
        self._now = start
        self._utc_offset = utc_offset
        self._order = itertools.count()
        self._sleepers: list[tuple[int, int, asyncio.Future[None]]] = []

    def now(self) -> int:
        """The time it was stepped to."""
        return self._now

    def utc(self, at: int) -> int:
        """Map by the offset as it is now."""
        return at + self._utc_offset

    def step_utc(self, ns: int, *, synchronised: bool | None = None) -> None:
        """Somebody sets the wall clock on by `ns`, or back; and it is kept right from now on, or no more."""
        self._utc_offset += ns
        if synchronised is not None:
            self.synchronised = synchronised

    async def sleep_until(self, at: int) -> None:
        """Wait until `step` reaches `at`."""
        if at <= self._now:
            await asyncio.sleep(0)
            return
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (at, next(self._order), woken))
        await woken

    def advance(self, to: int) -> None:
        """Move on to the stream time `to`, where nobody sleeps: for what runs without an event loop."""
        self._now = max(self._now, to)

    async def step(self, ns: int, *, settle: int = 20) -> None:
        """Advance by `ns`, waking the sleepers on the way in order, each at its own time.

        Args:
            ns: how far.
            settle: how many turns of the event loop the beginning, each of them, and the end are given.
        """
        await self._settle(settle)
        target = self._now + ns
        while self._sleepers and self._sleepers[0][0] <= target:
            at, _, woken = heapq.heappop(self._sleepers)
            self._now = max(self._now, at)
            if not woken.done():
                woken.set_result(None)
            await self._settle(settle)
        self._now = target
        await self._settle(settle)

    async def _settle(self, turns: int) -> None:
        """Whoever has something to do now does it now."""
        for _ in range(turns):
            await asyncio.sleep(0)


def boot_id() -> str:
    """The kernel's id of this boot, 32 hex digits: stream times of different boots do not compare."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip().replace("-", "")
