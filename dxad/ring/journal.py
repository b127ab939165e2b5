"""Samples of one source on their way into the outbox, and how far they have come.

admission ── add ──▶ Journal ── take ──▶ telemetry ──▶ outbox
source ◀── confirm ── mark ◀──── settle ── once it is on the disk

It has every sample that was received, as it was judged, also those that share a slot or come after it was
sealed: the broker will keep none of them. Nothing is ever thrown out; whoever adds waits for `room`, and so
does the broker at the end.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from dxad.types import I8, SAMPLE, Channel

__all__ = ["Confirming", "Journal", "Stretch"]

_TIME_BYTES: Final = 8


@runtime_checkable
class Confirming(Protocol):
    """A source whose blocks have tickets: it tells its peer of samples once they are stored for good."""

    def confirm(self, ticket: int) -> None:
        """The samples of this block, and of all before it, are stored."""

    @property
    def pressed(self) -> bool:
        """Whether its peer may soon send nothing more before it is told."""


@dataclass(slots=True, eq=False)
class Stretch:
    """Samples that follow each other."""

    samples: npt.NDArray[np.void]
    """(n,) of dtype `SAMPLE`."""
    times: I8
    """(n,) on the stream clock."""
    end: int
    """How many samples had been added up to its last."""
    settled: bool = False


class Journal:
    """Counts samples in and out; one writer, one reader, all on the event loop."""

    def __init__(self, channels: Sequence[Channel], *, period: int, capacity: int) -> None:
        """Let `capacity` samples of these channels wait, and a block more."""
        self.channels = tuple(channels)
        self.period = period
        self.on_stored: Callable[[int], None] = lambda _ticket: None
        """Is told the ticket of the last block that is stored whole."""
        self.wanted = asyncio.Event()
        """Set when somebody waits: what is here shall be taken now."""
        self._capacity = capacity
        self._added = self._stored = 0
        self._waiting: deque[tuple[npt.NDArray[np.void], I8]] = deque()
        self._under_way: deque[Stretch] = deque()
        self._marks: deque[tuple[int, int]] = deque()
        """Samples that had been added when a block ended, and its ticket."""
        self._moved = asyncio.Event()
        self._seen = 0
        self._stands_since: int | None = None

    @staticmethod
    def size_bytes(capacity: int) -> int:
        """What waits at most, and a copy of what is being taken."""
        return 2 * capacity * (SAMPLE.itemsize + _TIME_BYTES)

    def __len__(self) -> int:
        return self._added - self._stored

    def add(self, samples: npt.NDArray[np.void], times: I8) -> None:
        """Samples of dtype `SAMPLE` came, with their stream times; the arrays are not written any more."""
        if len(samples):
            self._waiting.append((samples, times))
            self._added += len(samples)

    def mark(self, ticket: int, *, pressed: bool) -> None:
        """A block of a source ends here; `pressed` if its peer cannot wait long."""
        self._marks.append((self._added, ticket))
        self._tell()
        if pressed and self._waiting:
            self.wanted.set()

    def take(self, most: int) -> Stretch | None:
        """The next samples, in the order in which they were added; `most` of them, or one block more."""
        taken: list[tuple[npt.NDArray[np.void], I8]] = []
        count = 0
        while self._waiting and (not taken or count + len(self._waiting[0][1]) <= most):
            taken.append(self._waiting.popleft())
            count += len(taken[-1][1])
        if not taken:
            return None
        begin = self._under_way[-1].end if self._under_way else self._stored
        # np.concatenate looks at each field of each record: many times slower.
        joined = b"".join([np.ascontiguousarray(each).data for each, _ in taken])
        samples = np.frombuffer(joined, dtype=SAMPLE)
        found = Stretch(samples, np.concatenate([times for _, times in taken]), begin + count)
        self._under_way.append(found)
        return found

    def settle(self, stretch: Stretch) -> None:
        """These are on the disk, or lost and counted: nobody need keep them."""
        stretch.settled = True
        while self._under_way and self._under_way[0].settled:
            self._stored = self._under_way.popleft().end
        self._tell()

    def _tell(self) -> None:
        self._moved.set()
        ticket = None
        while self._marks and self._marks[0][0] <= self._stored:
            ticket = self._marks.popleft()[1]
        if ticket is not None:
            self.on_stored(ticket)

    async def room(self) -> None:
        """Wait until there is room for another block."""
        while len(self) > self._capacity:
            await self._next_move()

    async def emptied(self) -> None:
        """Wait until all that is here now is stored."""
        until = self._added
        while self._stored < until:
            await self._next_move()

    async def _next_move(self) -> None:
        self._moved.clear()
        self.wanted.set()
        await self._moved.wait()

    def stands_for(self, now: int) -> int:
        """Nanoseconds for which samples have waited and none was stored, as seen at each call."""
        if self._stands_since is None or self._stored == self._added or self._stored != self._seen:
            self._seen, self._stands_since = self._stored, now
        return now - self._stands_since
