"""How staged samples become cells of a ring: folded, held, sealed; and filled in where they came late.

    Block ── accept ──▶ Sealer ── seal, at each tick ──▶ RingBuffer
                           └───── fill, what is late ───▶

Everything is vectorised over what came since the last tick.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from dxad.ring.ringbuffer import RingBuffer
from dxad.types import F8, I8, SAMPLE, U1, Bools, Fold, Quality, State

__all__ = ["Accepted", "Sealed", "Sealer"]

_STATE_OF: Final = np.array([State.GOOD, State.UNCERTAIN, State.BAD], dtype=np.uint8)
"""By `Quality`."""
_LONG_AGO: Final = np.iinfo(np.int64).min // 2
_MERGED_FROM: Final = 8192
"""Samples that may wait, whatever they are."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """What became of those samples of a block that do not simply wait for their slots to end."""

    backfilled: int = 0
    """Samples that filled a cell that was empty or held."""
    folded: int = 0
    """Samples that shared such a cell with a later one."""
    late: int = 0
    """Samples whose cell had something better already, or that were BAD."""
    too_old: int = 0
    """Samples of slots that the ring does not hold any more."""
    waiting: int = 0
    """Samples for which there was no room: too many wait for their slots to end."""
    merged: int = 0
    """Samples that wait no longer, since a later one waits that has the same slot and channel."""

    @property
    def after_sealing(self) -> int:
        """How many came after their slot was sealed."""
        return self.backfilled + self.folded + self.late + self.too_old


@dataclass(frozen=True, slots=True)
class Sealed:
    """What became of the samples at one sealing."""

    rows: int = 0
    stored: int = 0
    """Samples that became a cell."""
    folded: int = 0
    """Samples that shared a slot and a channel with a later one: combined, not lost."""
    late: int = 0
    """Samples whose slots were skipped, after a sleep so long that the ring cannot hold them."""


@dataclass(frozen=True, slots=True)
class _Waiting:
    """Samples that came together, and wait for their slots to end."""

    samples: npt.NDArray[np.void]
    times: I8
    earliest: int
    latest: int

    @classmethod
    def of(cls, samples: npt.NDArray[np.void], times: I8) -> "_Waiting":
        """These, at least one."""
        return cls(samples, times, int(times.min()), int(times.max()))

    def split(self, until: int) -> "tuple[_Waiting, _Waiting]":
        """Those before this time, and the others; there are some of both."""
        before = self.times < until
        after = ~before
        return (
            _Waiting.of(self.samples.compress(before), self.times[before]),
            _Waiting.of(self.samples.compress(after), self.times[after]),
        )


class Sealer:
    """Turns staged samples into sealed rows of a ring.

    Only samples whose quality is not BAD make a cell good; a BAD one marks a cell that nothing better fills.
    A cell without a sample is HELD while the last good value is no older than its column's `hold`; a `count`
    is zero then. What is held by session ends with the session's proof of life, and with a BAD sample, which
    takes it back.
    """

    _CELLS_AT_ONCE: Final = 1 << 18
    """Bounds the memory of a seal after a long sleep."""

    def __init__(
        self,
        ring: RingBuffer,
        *,
        folds: Sequence[Fold],
        holds_ns: Sequence[int],
        waiting_most: int = 1_000_000,
    ) -> None:
        """Seal rows of `ring`.

        Args:
            ring: written by this sealer alone.
            folds: by column.
            holds_ns: by column; below zero, a value holds until `valid_until`.
            waiting_most: samples that may wait for their slots to end.
        """
        columns = len(ring.channels)
        ring.holds_ns = tuple(holds_ns)
        self._ring = ring
        self._waiting_most = waiting_most
        self._fold_of = np.array(folds)
        self._combining = tuple(sorted(set(folds) - {"last"}))
        self._counting = self._fold_of == "count"
        self._by_session = np.asarray(holds_ns, dtype=np.int64) < 0
        self._some_by_session = bool(self._by_session.any())
        self._hold_slots = np.asarray(holds_ns, dtype=np.int64) // ring.period
        self._column = np.arange(columns)
        self._by_last = self._fold_of == "last"
        self._merge_at = _MERGED_FROM if self._by_last.any() else waiting_most + 1
        """So many may wait before those that need not are let go."""
        self._waiting: list[_Waiting] = []
        """Samples of slots that are not due yet, block by block."""
        self.waiting = 0
        """How many they are."""
        self._last_value = np.full(columns, np.nan)
        self._last_slot = np.full(columns, _LONG_AGO, dtype=np.int64)

    def accept(self, samples: npt.NDArray[np.void], times: I8) -> Accepted:
        """Take samples of dtype `SAMPLE` with their stream times; the late ones are filled in at once."""
        if self._ring.newest is not None:
            self._ring.newest.add(samples, times)
        sealed_ns = self._ring.sealed * self._ring.period
        accepted = Accepted()
        if len(times) and times.min() < sealed_ns:
            late = times < sealed_ns
            accepted = self._backfill(samples.compress(late), times[late] // self._ring.period)
            samples, times = samples.compress(~late), times[~late]
        room = self._waiting_most - self.waiting
        if len(times) > room:
            accepted = replace(accepted, waiting=len(times) - room)
            samples, times = samples[:room], times[:room]
        if len(times):
            self._waiting.append(_Waiting.of(samples, times))
            self.waiting += len(times)
        if self.waiting >= self._merge_at:
            accepted = replace(accepted, merged=self._merge())
        return accepted

    def _merge(self) -> int:
        """Let go of waiting samples that others of their slots will hide; returns how many.

        So a flood neither waits for its slots to end, nor is folded all at once when they have.
        """
        samples, times = _joined(self._waiting)
        slots = times // self._ring.period
        first, columns = int(slots.min()), len(self._by_last)
        cells = (int(slots.max()) - first + 1) * columns
        kept = np.ones(len(samples), dtype=np.bool_)
        if cells <= self._CELLS_AT_ONCE:
            column = samples["column"].astype(np.int64)
            hidden = np.full(cells, -1, dtype=np.int64)
            order = _hiding(samples)
            hidden[((slots - first) * columns + column)[order]] = order  # the last one stays, see `_write`
            kept = ~self._by_last[column]
            kept[hidden[hidden >= 0]] = True
        held = len(samples)
        self._waiting = [_Waiting.of(samples.compress(kept), times[kept])]
        self.waiting = int(np.count_nonzero(kept))
        self._merge_at = max(_MERGED_FROM, 2 * self.waiting)
        return held - self.waiting

    def _backfill(self, samples: npt.NDArray[np.void], slots: I8) -> Accepted:
        """Fill cells of sealed slots; a value newer than the last one is also what is held from now on."""
        ring = self._ring
        held = slots >= ring.oldest
        good = held & (samples["quality"] != Quality.BAD)
        too_old, late = len(samples) - int(held.sum()), int(held.sum() - good.sum())
        if not good.any():
            return Accepted(late=late, too_old=too_old)
        samples, slots = samples.compress(good), slots[good]
        columns = len(ring.channels)
        found, cell, counts = np.unique(
            slots * columns + samples["column"], return_inverse=True, return_counts=True
        )
        values, states, _ = self._fold(samples, cell, len(found))
        slot, column = np.divmod(found, columns)
        filled = ring.fill(slot, column, values, states)
        late += int(counts[~filled].sum())
        newer = filled & (slot > self._last_slot[column])
        self._last_value[column[newer]] = values[newer]  # in the order of slots: the last one stays
        self._last_slot[column[newer]] = slot[newer]
        backfilled = int(filled.sum())
        return Accepted(backfilled, int(counts[filled].sum()) - backfilled, late, too_old)

    def seal(self, until: int, *, valid_until: int = 0) -> Sealed:
        """Fold what was accepted into the slots that end at or before the stream time `until`, and seal them.

        Args:
            until: nothing that belongs before this time will still be accepted in time.
            valid_until: the stream time up to which the source's session is proved alive; columns that are
                held by session stay valid so long.
        """
        ring = self._ring
        stop = until // ring.period
        if ring.newest is not None:
            ring.newest.valid_until = valid_until
        if stop <= ring.sealed:
            return Sealed()
        first = max(ring.sealed, stop - ring.slots)  # after a long sleep, only what the ring can hold
        samples, slots, late = self._due(first, stop)
        at_once = max(1, self._CELLS_AT_ONCE // len(ring.channels))
        stored = 0
        for begin in range(first, stop, at_once):
            end = min(stop, begin + at_once)
            if end - begin == stop - first:
                stored += self._seal_rows(begin, end, samples, slots, valid_until)
            else:
                due = (slots >= begin) & (slots < end)
                stored += self._seal_rows(begin, end, samples.compress(due), slots[due], valid_until)
        return Sealed(stop - first, stored, len(samples) - stored, late)

    def _due(self, first: int, stop: int) -> tuple[npt.NDArray[np.void], I8, int]:
        """The samples of slots [first, stop), their slots, and how many are late; others go on waiting."""
        if not self._waiting:
            return np.empty(0, dtype=SAMPLE), np.empty(0, dtype=np.int64), 0
        until = stop * self._ring.period
        due, later = [], []
        for each in self._waiting:
            if each.latest < until:
                due.append(each)
            elif each.earliest >= until:
                later.append(each)
            else:
                split = each.split(until)
                due.append(split[0])
                later.append(split[1])
        self._waiting = later
        if not due:
            return np.empty(0, dtype=SAMPLE), np.empty(0, dtype=np.int64), 0
        samples, times = _joined(due)
        self.waiting -= len(times)
        slots = times // self._ring.period
        late = int(np.count_nonzero(slots < first))
        if late:
            samples, slots = samples.compress(slots >= first), slots[slots >= first]
        return samples, slots, late

    def _seal_rows(
        self, first: int, stop: int, samples: npt.NDArray[np.void], slots: I8, valid_until: int
    ) -> int:
        """Seal rows [first, stop) with the samples that belong to them; returns how many cells they fill."""
        shape = (stop - first, len(self._ring.channels))
        cell = (slots - first) * shape[1] + samples["column"]
        values, states, reasons = self._fold(samples, cell, shape[0] * shape[1])
        stored = int(np.count_nonzero(states))
        values, states = values.reshape(shape), states.reshape(shape)
        self._hold(first, values, states, valid_until)
        self._ring.append(first, values, states, reasons.reshape(shape))
        return stored

    def _fold(self, samples: npt.NDArray[np.void], cell: I8, cells: int) -> tuple[F8, U1, U1]:
        """Fold each sample into its cell: the last by device time, ties by arrival, unless combined.

        Args:
            samples: in the order of their arrival.
            cell: (n,) where each belongs, from 0 to before `cells`.
            cells: how many there are.

        Returns:
            values (cells,), states and reasons; EMPTY where nothing fell.
        """
        values = np.full(cells, np.nan)
        states, reasons = np.zeros(cells, dtype=np.uint8), np.zeros(cells, dtype=np.uint8)
        if not len(samples):
            return values, states, reasons
        value, quality, reason = samples["value"].copy(), samples["quality"].copy(), samples["reason"].copy()
        column = samples["column"]
        bad = quality == Quality.BAD
        if bad.any():
            self._write(
                samples.compress(bad), cell[bad], (np.nan, State.BAD, reason[bad]), (values, states, reasons)
            )
            good = ~bad
            samples, cell, value, column = samples.compress(good), cell[good], value[good], column[good]
            quality, reason = quality[good], reason[good]
        self._write(samples, cell, (value, _STATE_OF[quality], reason), (values, states, reasons))
        for fold in self._combining:
            mine = (self._fold_of == fold)[column]
            if mine.any():
                _combine(fold, cell[mine], value[mine], values)
        return values, states, reasons

    @staticmethod
    def _write(
        samples: npt.NDArray[np.void],
        cell: I8,
        what: tuple[Any, ...],
        into: tuple[F8, U1, U1],
    ) -> None:
        """Write samples into their cells in the order of their stamps: the last one of a cell stays there.

        Source: NumPy's user guide, "Indexing with arrays of indices": assignments are done one after the
        other, leaving behind the last value.
        """
        stamps = samples["stamp"]
        if (stamps[1:] < stamps[:-1]).any():
            order = np.argsort(stamps, kind="stable")
            cell = cell[order]
            what = tuple(part[order] if isinstance(part, np.ndarray) else part for part in what)
        values, states, reasons = into
        values[cell], states[cell], reasons[cell] = what

    def _hold(self, first: int, values: F8, states: U1, valid_until: int) -> None:
        """Carry the last good value into the cells that nothing fell into, as long as it is valid."""
        rows, columns = values.shape
        empty = states == State.EMPTY
        good = ~(empty | (states == State.BAD))
        if good.all():
            self._last_value, self._last_slot = values[-1].copy(), np.full(columns, first + rows - 1)
            return
        slot = first + np.arange(rows, dtype=np.int64)[:, None]
        # The slot of the newest good value at or before each row.
        newest = np.where(good, slot, self._last_slot)
        if rows > 1:
            np.maximum.accumulate(newest, axis=0, out=newest)
        spread = np.concatenate((self._last_value[None], values))
        carried = spread.ravel().take(np.maximum(newest - (first - 1), 0) * columns + self._column)
        held = slot - newest <= self._hold_slots
        if self._some_by_session:
            self._hold_by_session(slot, newest, states, held, valid_until)
        held &= empty & ~np.isnan(carried)
        np.copyto(values, carried, where=held)
        np.copyto(values, 0.0, where=held & self._counting)
        states[held] = State.HELD
        self._last_slot, self._last_value = newest[-1], carried[-1]
        if self._some_by_session:
            self._forget(states[-1], (first + rows) * self._ring.period)

    def _forget(self, states: U1, before: int) -> None:
        """Where a session has ended, nothing that came before this time is held any more."""
        ended = self._by_session & ((states == State.EMPTY) | (states == State.BAD))
        ended &= ~np.isnan(self._last_value)
        if ended.any():
            self._last_value[ended] = np.nan
            if self._ring.newest is not None:
                self._ring.newest.forget(ended, before)

    def _hold_by_session(self, slot: I8, newest: I8, states: U1, held: Bools, valid_until: int) -> None:
        """Correct `held` where the session's proof of life tells, and not a time."""
        taken_back = np.maximum.accumulate(np.where(states == State.BAD, slot, -1), axis=0) > newest
        proved = (slot * self._ring.period <= valid_until) & ~taken_back
        np.copyto(held, proved, where=self._by_session)


def _joined(waiting: Sequence[_Waiting]) -> tuple[npt.NDArray[np.void], I8]:
    """All samples and their times, in the order of arrival."""
    if len(waiting) == 1:
        return waiting[0].samples, waiting[0].times
    # np.concatenate and an index by a mask look at each field of each record: many times slower.
    joined = b"".join([np.ascontiguousarray(each.samples).data for each in waiting])
    return np.frombuffer(joined, dtype=SAMPLE), np.concatenate([each.times for each in waiting])


def _hiding(samples: npt.NDArray[np.void]) -> I8:
    """The places of samples in an order in which each hides those of its cell before it.

    Bad ones first, then by stamp, then by arrival.
    """
    stamps, bad = samples["stamp"], samples["quality"] == Quality.BAD
    order = np.arange(len(samples), dtype=np.int64)
    if (stamps[1:] < stamps[:-1]).any():
        order = np.argsort(stamps, kind="stable")
    if bad.any():
        order = np.concatenate((order[bad[order]], order[~bad[order]]))
    return order


def _combine(fold: str, cell: I8, value: F8, values: F8) -> None:
    """Fold the samples of some columns into their cells of `values`, in the order of arrival."""
    cells = len(values)
    counts = np.bincount(cell, minlength=cells)
    some = counts > 0
    if fold == "count":
        values[some] = counts[some]
    elif fold == "mean":
        values[some] = np.bincount(cell, weights=value, minlength=cells)[some] / counts[some]
    elif fold == "min":
        values[some] = np.inf
        np.minimum.at(values, cell, value)
    else:
        values[some] = -np.inf
        np.maximum.at(values, cell, value)
