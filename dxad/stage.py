"""Where samples wait between the wire and the ring, and how they become cells of its grid.

    source ── put ──▶ Stage ── take ──▶ Block ── accept ──▶ Sealer ── seal, at each tick ──▶ RingBuffer

A source writes each sample with one `pack_into`; everything after that is vectorised over what came since
the last tick.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from dxad.ringbuffer import RingBuffer
from dxad.types import SAMPLE, Bools, Fold, Quality, Reason, State

__all__ = ["Sealed", "Sealer", "Stage"]

_PACK = struct.Struct("<qqqdiBB")
assert _PACK.size == SAMPLE.itemsize

_STATE_OF = np.array([State.GOOD, State.UNCERTAIN, State.BAD], dtype=np.uint8)
"""By `Quality`."""


class Stage:
    """A fixed buffer that a source fills message by message and hands over whole.

    When it is full, further samples are counted in `overflowed` and dropped: whoever reads it is too slow.
    """

    def __init__(self, capacity: int) -> None:
        self.overflowed = 0
        self._messages = 0
        self._message = 0
        self._buffer = bytearray(capacity * SAMPLE.itemsize)
        self._view = memoryview(self._buffer)
        self._used = 0
        self._stamp = 0
        self._arrival = 0

    def __len__(self) -> int:
        return self._used // SAMPLE.itemsize

    def begin(self, arrival: int, *, stamp: int = 0) -> None:
        """Start a message: the samples put from now on are its own.

        Args:
            arrival: the stream clock now.
            stamp: the device's own time, UTC nanoseconds; 0 where it gave none.
        """
        self._message = self._messages
        self._messages += 1
        self._arrival = arrival
        self._stamp = stamp

    def put(
        self, column: int, value: float, quality: Quality = Quality.GOOD, reason: Reason = Reason.NONE
    ) -> None:
        """Add one sample of the message that was begun last."""
        at = self._used
        if at == len(self._buffer):
            self.overflowed += 1
            return
        _PACK.pack_into(
            self._view, at, self._message, self._stamp, self._arrival, value, column, quality, reason
        )
        self._used = at + SAMPLE.itemsize

    def take(self) -> npt.NDArray[np.void]:
        """All samples put so far, as an array of the caller's own; the stage is empty after."""
        samples = np.frombuffer(bytes(self._view[: self._used]), dtype=SAMPLE)
        self._used = 0
        return samples


@dataclass(frozen=True, slots=True)
class Sealed:
    """What became of the samples at one sealing."""

    rows: int = 0
    folded: int = 0
    """Samples that shared a slot and a channel with a later one: combined, not lost."""
    late: int = 0
    """Samples whose slots were skipped, after a sleep so long that the ring cannot hold them."""


class Sealer:
    """Turns staged samples into sealed rows of a ring.

    Only samples whose quality is not BAD make a cell good; a BAD one marks a cell that nothing better fills.
    A cell without a sample is HELD while the last good value is no older than its column's `hold`. What is
    held by session ends with the session's proof of life, and with a BAD sample, which takes it back.
    """

    _CELLS_AT_ONCE: Final = 1 << 18
    """Bounds the memory of a seal after a long sleep."""

    def __init__(self, ring: RingBuffer, *, folds: Sequence[Fold], holds_ns: Sequence[int]) -> None:
        """Seal rows of `ring`; `folds` and `holds_ns` are by column, a hold below zero asks `valid_until`."""
        columns = len(ring.channels)
        self._ring = ring
        self._folds: Final = tuple(folds)
        self._combined = tuple(column for column, fold in enumerate(folds) if fold != "last")
        self._holds_ns = np.asarray(holds_ns, dtype=np.int64)
        self._by_session = self._holds_ns < 0
        self._waiting = [(np.empty(0, dtype=SAMPLE), np.empty(0, dtype=np.int64))]
        """Samples of slots that are not due yet, with their times, block by block."""
        self._last_value = np.full(columns, np.nan)
        self._last_slot = np.full(columns, np.iinfo(np.int64).min // 2, dtype=np.int64)

    def accept(self, samples: npt.NDArray[np.void], times: npt.NDArray[np.int64]) -> int:
        """Take samples with their stream times; returns how many came too late for their slot."""
        period = self._ring.period
        in_time = times // period >= self._ring.sealed
        late = len(times) - int(np.count_nonzero(in_time))
        if late:
            samples, times = samples[in_time], times[in_time]
        if len(times):
            self._waiting.append((samples, times))
        return late

    def seal(self, until: int, *, valid_until: int = 0) -> Sealed:
        """Fold what was accepted into the slots that end at or before the stream time `until`, and seal them.

        Args:
            until: nothing that belongs before this time will still be accepted.
            valid_until: the stream time up to which the source's session is proved alive; columns that are
                held by session stay valid so long.
        """
        ring, period = self._ring, self._ring.period
        stop = until // period
        if stop <= ring.sealed:
            return Sealed()
        first = max(ring.sealed, stop - ring.slots)  # after a long sleep, only what the ring can hold
        samples = np.concatenate([samples for samples, _ in self._waiting])
        times = np.concatenate([times for _, times in self._waiting])
        at_once = max(1, self._CELLS_AT_ONCE // len(ring.channels))
        folded = 0
        for begin in range(first, stop, at_once):
            end = min(stop, begin + at_once)
            due = (times >= begin * period) & (times < end * period)
            rows = times[due] // period - begin
            folded += self._seal_rows(begin, end - begin, samples[due], rows, valid_until)
        early = times >= stop * period
        self._waiting = [(samples[early], times[early])]
        return Sealed(stop - first, folded, int(np.count_nonzero(times < first * period)))

    def _seal_rows(
        self,
        first: int,
        rows: int,
        samples: npt.NDArray[np.void],
        row: npt.NDArray[np.int64],
        valid_until: int,
    ) -> int:
        """Seal so many rows with the samples that belong to them; returns how many were folded."""
        shape = (rows, len(self._ring.channels))
        values = np.full(shape, np.nan)
        states, reasons = np.zeros(shape, dtype=np.uint8), np.zeros(shape, dtype=np.uint8)
        folded = self._fold(samples, row, values, states, reasons) if len(samples) else 0
        self._hold(first, values, states, valid_until)
        self._ring.append(first, values, states, reasons)
        return folded

    def _fold(
        self,
        samples: npt.NDArray[np.void],
        row: npt.NDArray[np.int64],
        values: npt.NDArray[np.float64],
        states: npt.NDArray[np.uint8],
        reasons: npt.NDArray[np.uint8],
    ) -> int:
        """Write each slot's samples into its cell; returns how many were combined with another."""
        columns = samples["column"].astype(np.int64)
        cell = row * values.shape[1] + columns
        # BAD samples first, so that any other overwrites them; then by device time, ties by arrival.
        bad_first = samples["quality"] != Quality.BAD
        order = np.lexsort((samples["message"], samples["stamp"], bad_first, cell))
        ordered = cell[order]
        last = np.append(ordered[1:] != ordered[:-1], True)
        winner = order[last]
        flat = cell[winner]
        values.ravel()[flat] = samples["value"][winner]
        states.ravel()[flat] = _STATE_OF[samples["quality"][winner]]
        reasons.ravel()[flat] = samples["reason"][winner]
        values[states == State.BAD] = np.nan
        good = samples["quality"] != Quality.BAD
        for column in self._combined:
            self._combine(column, samples["value"], cell, good & (columns == column), values)
        return len(samples) - len(winner)

    def _combine(
        self,
        column: int,
        value: npt.NDArray[np.float64],
        cell: npt.NDArray[np.int64],
        mine: Bools,
        values: npt.NDArray[np.float64],
    ) -> None:
        """Fold one column's samples, in the order of arrival, by its own rule."""
        cells, inverse, counts = np.unique(cell[mine], return_inverse=True, return_counts=True)
        if not len(cells):
            return
        mine_values = value[mine]
        match self._folds[column]:
            case "count":
                result = counts.astype(np.float64)
            case "mean":
                result = np.zeros(len(cells))
                np.add.at(result, inverse, mine_values)
                result /= counts
            case "min":
                result = np.full(len(cells), np.inf)
                np.minimum.at(result, inverse, mine_values)
            case _:
                result = np.full(len(cells), -np.inf)
                np.maximum.at(result, inverse, mine_values)
        values.ravel()[cells] = result

    def _hold(
        self,
        first: int,
        values: npt.NDArray[np.float64],
        states: npt.NDArray[np.uint8],
        valid_until: int,
    ) -> None:
        """Carry the last good value into the cells that nothing fell into, as long as it is valid."""
        rows, _ = values.shape
        slot = first + np.arange(rows, dtype=np.int64)[:, None]
        good = (states == State.GOOD) | (states == State.UNCERTAIN)
        # The slot of the newest good value at or before each row.
        newest = np.maximum.accumulate(np.where(good, slot, self._last_slot), axis=0)
        spread = np.vstack((self._last_value[None, :], values))
        source = np.where(newest >= first, newest - first + 1, 0)
        carried = np.take_along_axis(spread, source, axis=0)
        period = self._ring.period
        taken_back = np.maximum.accumulate(np.where(states == State.BAD, slot, -1), axis=0) > newest
        proved = (slot * period <= valid_until) & ~taken_back
        valid = np.where(self._by_session, proved, (slot - newest) * period <= self._holds_ns)
        held = (states == State.EMPTY) & valid & ~np.isnan(carried)
        values[held] = carried[held]
        states[held] = State.HELD
        ended = self._by_session & ((states[-1] == State.EMPTY) | (states[-1] == State.BAD))
        self._last_slot = newest[-1]
        self._last_value = np.where(ended, np.nan, carried[-1])
