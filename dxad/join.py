"""One feed's part in the rows of a frame: columns of a ring of any period, on the frame's grid.

Row `r` of period `P` covers [r*P, (r+1)*P). A finer ring's slots that begin within it are folded as each
channel says; a ring of the same period gives its slot; a coarser one gives its newest sample from before the
row's end, while it holds, or of channels that fold their samples the newest slot that had ended.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from dxad.fields import side_by_side
from dxad.ring.ringbuffer import RingBuffer
from dxad.types import F8, I8, U1, Bools, Channel, Columns, State

__all__ = ["LOOKED_BACK", "Feed", "Part"]

LOOKED_BACK: Final = 64
"""Slots; a device may send far less often than its source has slots."""


@dataclass(frozen=True, slots=True)
class Feed:
    """Some columns of a ring."""

    ring: RingBuffer
    columns: tuple[int, ...]

    @property
    def channels(self) -> tuple[Channel, ...]:
        """The channels of those columns."""
        return tuple(self.ring.channels[column] for column in self.columns)

    @property
    def chosen(self) -> Columns:
        """The columns as a ring copies them fastest."""
        return side_by_side(self.columns)


class Part:
    """Reads a feed in rows of `period` nanoseconds."""

    def __init__(self, feed: Feed, period: int) -> None:
        self.ring = feed.ring
        self.width = len(feed.columns)
        self.coarse = feed.ring.period > period
        self._period = period
        self._columns = feed.chosen
        newest = feed.ring.keep_newest() if self.coarse else None
        self._look = None if newest is None else newest.look(self._columns)
        folds = [channel.fold for channel in feed.channels]
        self._by_sample = np.array(folds) == "last"
        self._folded = {
            fold: np.array([column for column, each in enumerate(folds) if each == fold], dtype=np.int64)
            for fold in ("mean", "min", "max", "count")
            if fold in folds
        }

    @property
    def cells_per_row(self) -> int:
        """How many cells of the ring are looked at for one row."""
        return self.width * max(1, -(-self._period // self.ring.period))

    @property
    def oldest_row(self) -> int:
        """The first row that the ring can still fill."""
        if self.coarse:
            return 0
        return -(-self.ring.oldest * self.ring.period // self._period)

    def reasons(self, row: int) -> U1:
        """Of each column, what its source says last, in this row or shortly before, of its samples."""
        end = (row + 1) * self._period
        stop = end // self.ring.period if self.coarse else -(-end // self.ring.period)
        return self.ring.last_reasons(stop, LOOKED_BACK, self._columns)

    def missed_before(self, row: int) -> int:
        """How many of the ring's slots from `row` on were overwritten before they were read."""
        return 0 if self.coarse else max(0, self.ring.oldest - row * self._period // self.ring.period)

    def read(self, first: int, stop: int) -> tuple[F8, U1]:
        """Values and states (stop - first, columns) of rows [first, stop); EMPTY where nothing is known."""
        if self.coarse:
            return self._newest_before(first, stop)
        if self.ring.period == self._period:
            return self._slots(first, stop)
        return self._folds(first, stop)

    def _slots(self, first: int, stop: int) -> tuple[F8, U1]:
        """The ring's own slots; EMPTY where the writer was faster."""
        reading = self.ring.read(first, stop, self._columns)
        skip, missing = reading.first - first, stop - first - len(reading.values)
        if not missing:
            return reading.values, reading.states
        return (
            np.pad(reading.values, ((skip, missing - skip), (0, 0)), constant_values=np.nan),
            np.pad(reading.states, ((skip, missing - skip), (0, 0))),
        )

    def _folds(self, first: int, stop: int) -> tuple[F8, U1]:
        """Each row's finer slots, those that begin within it, as one."""
        rows, period = stop - first, self.ring.period
        if self._period % period == 0:
            times = self._period // period
            values, states = self._slots(first * times, stop * times)
            shape = (rows, times, self.width)
            values, states = values.reshape(shape), states.reshape(shape)
            inside = None
        else:
            borders = -(-(np.arange(first, stop + 1) * self._period) // period)
            counts = np.diff(borders)
            times = int(counts.max())
            values, states = self._slots(int(borders[0]), int(borders[-1]))
            place = np.minimum(borders[:-1, None] - borders[0] + np.arange(times), len(values) - 1)
            inside = np.arange(times) < counts[:, None]
            values = np.where(inside[:, :, None], values[place], np.nan)
            states = states[place]
        return self._fold(values, states, inside)

    def _fold(self, values: F8, states: U1, inside: Bools | None) -> tuple[F8, U1]:
        """Fold slots (rows, times, columns) over the times; NaN where a place is `inside` no row.

        The state is that of the newest slot that holds a value; of the last one, if none does.
        """
        rows, times, _ = values.shape
        known = ~np.isnan(values)
        last = np.full(rows, times - 1) if inside is None else inside.sum(axis=1) - 1
        if inside is None and known[:, -1].all():
            value, state = values[:, -1].copy(), states[:, -1].copy()
        else:
            newest = times - 1 - known[:, ::-1].argmax(axis=1)
            place = np.where(known.any(axis=1), newest, last[:, None])[:, None, :]
            value = np.take_along_axis(values, place, axis=1)[:, 0]
            state = np.take_along_axis(states, place, axis=1)[:, 0]
        for fold, columns in self._folded.items():
            value[:, columns] = _combined(fold, values[:, :, columns], known[:, :, columns])
        return value, state

    def _newest_before(self, first: int, stop: int) -> tuple[F8, U1]:
        """For each row the newest sample from before its end, or the newest slot that had ended by then.

        The slot counts where it folds more than the last of its samples, and where the sample is older than
        those that are kept: nobody knows when those of a slot came.
        """
        ring = self.ring
        ends = np.arange(first + 1, stop + 1) * self._period
        slots = np.minimum(ends // ring.period, ring.sealed) - 1
        if self._look is None:
            return self._slots_at(slots)
        values, states, known = self._look.at(ends)
        known &= self._by_sample
        if not known.all():
            older, older_states = self._slots_at(slots)
            values, states = np.where(known, values, older), np.where(known, states, older_states)
        return values, states

    def _slots_at(self, slots: I8) -> tuple[F8, U1]:
        """These slots of the ring, in ascending order; what is good there is HELD, EMPTY what is gone."""
        ring = self.ring
        reading = ring.read(int(slots[0]), int(slots[-1]) + 1, self._columns)
        values = np.full((len(slots), self.width), np.nan)
        states = np.zeros((len(slots), self.width), dtype=np.uint8)
        there = (slots >= reading.first) & (slots >= ring.start)
        places = slots[there] - reading.first
        values[there], states[there] = reading.values[places], reading.states[places]
        states[states == State.GOOD] = State.HELD
        return values, states


def _combined(fold: str, values: F8, known: Bools) -> F8:
    """Fold the known values (rows, times, columns) over the times, in order; NaN where there are none."""
    total: F8
    if fold in ("min", "max"):
        total = (np.fmin if fold == "min" else np.fmax).reduce(values, axis=1)
        return total
    counts = known.sum(axis=1)
    filled = np.where(known, values, 0.0)
    total = filled[:, 0].copy()
    for place in range(1, filled.shape[1]):  # one after the other: numpy's own sum pairs by the array's shape
        total += filled[:, place]
    if fold == "mean":
        total /= np.maximum(counts, 1)
    total[counts == 0] = np.nan
    return total
