"""The recent past of one source or feature on a fixed time grid, preallocated.

Slot `k` lives at place `k % slots`. `sealed` is the first slot that is not readable yet; the ring holds the
`slots` slots before it. One writer appends and fills; any number of readers, in any thread, each with a
cursor of its own, copy out and learn how many slots they lost to the writer.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from dxad.ring.newest import Newest
from dxad.types import F4, F8, I8, U1, Bools, Channel, Columns, Reason, State

__all__ = ["ALL", "Reading", "RingBuffer"]

CELL_BYTES = 8 + 1 + 1
"""A value, its state and its reason."""

ALL: Final = slice(None)


@dataclass(frozen=True, slots=True)
class Reading:
    """Sealed slots copied out of a ring; the arrays are the reader's own."""

    first: int
    values: F8
    states: U1
    lost: int
    """How many slots before `first` had been asked for and were overwritten already."""


class RingBuffer:
    """A grid of `slots` × channels that forgets its oldest slot for each new one."""

    def __init__(self, channels: Sequence[Channel], *, period: int, slots: int, start: int) -> None:
        """Hold the last `slots` slots of `period` nanoseconds each; the first to come is slot `start`."""
        self.channels = tuple(channels)
        self.period = period
        self.slots = slots
        self.start = start
        self.sealed = start
        self.revision = 0
        """How often cells of sealed slots were filled later."""
        self.overwritten = 0
        """Slots that some reader with a cursor did not come to read; counted by the readers."""
        self.holds_ns: Sequence[int] | None = None
        """By column, how long a sample stays valid; set by whoever seals samples into this ring."""
        self.newest: Newest | None = None
        """The newest samples of each channel, also of slots that are not sealed; only if somebody asked."""
        self.on_filled: list[Callable[[I8, I8, F8, U1], None]] = []
        """Called by the writer for each filling, with slots, columns, values and states of its cells."""
        self._claimed = (
            start  # what the writer has begun to overwrite: readers judge by this, never by `sealed`
        )
        self._revising = 0
        """How many fillings have begun; while it differs from `revision`, one is under way."""
        self._values = np.full((slots, len(channels)), np.nan)
        self._states = np.zeros((slots, len(channels)), dtype=np.uint8)
        self._reasons = np.zeros((slots, len(channels)), dtype=np.uint8)
        self._reasoned = False
        """Whether any cell has ever had a reason."""

    @staticmethod
    def size_bytes(channels: int, slots: int) -> int:
        """What a ring of these dimensions takes, known before it is made."""
        return channels * slots * CELL_BYTES

    @property
    def oldest(self) -> int:
        """The first slot that can still be read."""
        return max(self.start, self._claimed - self.slots)

    def begin(self, slot: int) -> None:
        """The first row to come is this one; before anything was appended."""
        assert self.sealed == self.start, "rows are there already"
        self.start = self.sealed = self._claimed = max(slot, self.start)

    def keep_newest(self) -> Newest | None:
        """Keep the newest samples of each channel too, from now on: for rows finer than the ring's slots.

        None where the ring is not made of samples.
        """
        if self.newest is None and self.holds_ns is not None:
            self.newest = Newest(self.holds_ns, period=self.period)
        return self.newest

    def _spans(self, first: int, stop: int) -> Iterator[tuple[slice, slice]]:
        """Where slots [first, stop) live, at most `slots` of them: places, and rows of an array of theirs."""
        place, rows = first % self.slots, stop - first
        fit = min(rows, self.slots - place)
        yield slice(place, place + fit), slice(0, fit)
        if fit < rows:
            yield slice(0, rows - fit), slice(fit, rows)

    def append(self, first: int, values: F8 | F4, states: U1, reasons: U1 | None = None) -> None:
        """Seal the rows from slot `first` on; slots skipped since the last call become EMPTY.

        Args:
            first: at least `sealed`.
            values: (n, channels); of more than `slots`, the last.
            states: (n, channels) of `State`.
            reasons: (n, channels) of `Reason`; all NONE where absent.
        """
        self._reasoned = self._reasoned or reasons is not None
        stop = first + len(values)
        self._claimed = stop
        if len(values) > self.slots:
            first, values, states = stop - self.slots, values[-self.slots :], states[-self.slots :]
            reasons = None if reasons is None else reasons[-self.slots :]
        skipped = max(self.sealed, stop - self.slots)
        if skipped < first:
            for places, _ in self._spans(skipped, first):
                self._values[places] = np.nan
                self._states[places] = 0
                self._reasons[places] = 0
        for places, rows in self._spans(first, stop):
            self._values[places] = values[rows]
            self._states[places] = states[rows]
            if reasons is not None:
                self._reasons[places] = reasons[rows]
            elif self._reasoned:
                self._reasons[places] = 0
        self.sealed = stop

    def read(self, start: int, stop: int, columns: Columns = ALL) -> Reading:
        """Copy the sealed slots of [start, stop); may be called from another thread than `append`.

        Slots that are not sealed yet are left out; those that were overwritten, even while this call copied,
        are counted as lost. What is filled while this call copies is copied again: a reader sees a filling
        whole or not at all (a sequence lock, as in Linux' Documentation/locking/seqlock.rst).
        """
        stop = max(start, min(stop, self.sealed))
        first = min(max(start, self.oldest), stop)
        while True:
            revision = self.revision
            values = self._copied(self._values, first, stop, columns)
            states = self._copied(self._states, first, stop, columns)
            if revision == self._revising:
                break
        overtaken = min(max(self.oldest - first, 0), stop - first)
        if not overtaken:
            return Reading(first, values, states, first - start)
        return Reading(first + overtaken, values[overtaken:], states[overtaken:], first + overtaken - start)

    def _copied(self, cells: npt.NDArray[Any], first: int, stop: int, columns: Columns) -> npt.NDArray[Any]:
        begin = first % self.slots
        end = begin + stop - first
        if end <= self.slots:
            return _chosen(cells[begin:end], columns)
        return np.concatenate((_chosen(cells[begin:], columns), _chosen(cells[: end - self.slots], columns)))

    def fill(self, slots: I8, columns: I8, values: F8, states: U1) -> Bools:
        """Put values that came late into cells that are EMPTY or HELD; called by the writer alone.

        Each becomes what `states` says with the reason BACKFILLED; where something fills a cell, `revision`
        rises by one.

        Args:
            slots: (n,) each from `oldest` to before `sealed`, none twice with the same column.
            columns: (n,)
            values: (n,)
            states: (n,) GOOD or UNCERTAIN.

        Returns:
            (n,) which of them filled a cell.
        """
        places = slots % self.slots
        found = self._states[places, columns]
        free: Bools = (found == State.EMPTY) | (found == State.HELD)
        if free.any():
            places, columns = places[free], columns[free]
            self._reasoned = True
            self._revising += 1
            self._values[places, columns] = values[free]
            self._states[places, columns] = states[free]
            self._reasons[places, columns] = Reason.BACKFILLED
            self.revision = self._revising
            for tell in self.on_filled:
                tell(slots[free], columns, values[free], states[free])
        return free

    def reasons_at(self, slot: int) -> U1:
        """The reasons (channels,) of one slot that is still held."""
        reasons: U1 = self._reasons[slot % self.slots].copy()
        return reasons

    def last_reasons(self, stop: int, rows: int, columns: Columns = ALL) -> U1:
        """Of each column, the newest reason there is in the last `rows` slots before `stop`; or NONE."""
        stop = min(stop, self.sealed)
        first = max(self.oldest, stop - rows)
        if not self._reasoned or stop <= first:
            return np.zeros(len(self.channels), dtype=np.uint8)[columns]
        found: U1 = self._copied(self._reasons, first, stop, columns)
        newest = len(found) - 1 - (found[::-1] != Reason.NONE).argmax(axis=0)
        last: U1 = np.take_along_axis(found, newest[None], axis=0)[0]
        return last

    def backfilled(self, start: int, stop: int) -> Bools:
        """Which cells (n, channels) of these slots, all of them still held, were filled after sealing."""
        found: Bools = self._copied(self._reasons, start, stop, ALL) == Reason.BACKFILLED
        return found


def _chosen(cells: npt.NDArray[Any], columns: Columns) -> npt.NDArray[Any]:
    """A copy of some columns."""
    return cells[:, columns].copy() if isinstance(columns, slice) else cells.take(columns, axis=1)
