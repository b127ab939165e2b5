"""Stretches of rows for a model, in single precision.

Rows lie one after the other in one buffer, so that windows are views of it and nothing is copied until a
model gathers what it needs:

    tail of earlier rows │ rows just pushed │ spare
    ├── window ──┤
      ├── window ──┤                            a window for every `hop` rows
"""

from typing import Final

import numpy as np

from dxad.types import F4, I8, Rows, Windows

__all__ = ["WindowBuffer"]

_LARGEST: Final = float(np.finfo(np.float32).max)
_ROWS_AT_ONCE: Final = 256
"""Rows per push that the buffer has room for from the start; more make it grow once."""


class WindowBuffer:
    """Remembers the last rows and offers a window for every `hop` rows that come."""

    def __init__(self, *, rows: int, channels: int, hop: int = 1) -> None:
        """Windows of `rows` rows, `hop` rows apart."""
        self.rows = rows
        self.hop = hop
        self._channels = channels
        self._until_next = rows
        """How many rows must still come before the next window is full."""
        self._held = 0
        """Rows of the tail, at the head of the buffer."""
        self._buffer: F4 = np.empty((rows - 1 + _ROWS_AT_ONCE, channels), dtype=np.float32)
        self._same: _Views | None = None
        self._bad: I8 = np.zeros(len(self._buffer), dtype=np.int64)
        """By row of the buffer: how many of its cells are bad or empty."""
        self._whole = 0
        """How many rows came last that have no bad cell."""
        self._complete = 0
        """How many windows the rows held last complete."""
        self._first = 0
        """The place of the first row of the first of them."""
        self._last = 0
        """The slot of its last row."""
        self._period = 1

    @staticmethod
    def size_bytes(rows: int, channels: int) -> int:
        """What a buffer of these dimensions takes, known before it is made."""
        return (rows - 1 + _ROWS_AT_ONCE) * (4 * channels + 8)

    def push(self, rows: Rows) -> Windows:
        """Take in consecutive rows; returns the windows they complete, none perhaps.

        The windows are read-only views that are valid until the next push.
        """
        self.hold(rows)
        return self.offer()

    def hold(self, rows: Rows) -> None:
        """Take in consecutive rows, in single precision, and count their bad cells."""
        n = len(rows)
        begin = self._make_room(n)
        self._held = begin + n
        self._write(rows, begin, begin + n)
        self._complete = len(range(self._until_next - 1, n, self.hop))
        self._first = begin + self._until_next - self.rows
        self._last = rows.first + self._until_next - 1
        self._period = rows.period
        self._until_next += self.hop * self._complete - n

    def offer(self) -> Windows:
        """The windows that the rows held last complete."""
        n, first, hop = self._complete, self._first, self.hop
        if not n:
            nothing = np.empty((0, self.rows, self._channels), dtype=np.float32)
            return Windows(np.empty(0, np.int64), nothing, np.empty(0, np.float32), period=self._period)
        last = np.arange(self._last, self._last + n * hop, hop, dtype=np.int64)
        whole = self._whole >= self._held - first
        views = self._views(first, n)
        bad = views.none_bad if whole else self._shares(first, n)
        question = False  # by place: names would cost as much as a tenth of all this
        return Windows(last, views.values, bad, views.base, hop, self._period, question, whole)

    def clear(self) -> None:
        """Forget all rows: the next one follows none of them."""
        self._until_next = self.rows
        self._held = self._whole = self._complete = 0

    def _make_room(self, n: int) -> int:
        """Move the tail to the head of the buffer; returns the place of the next row."""
        kept = min(self._held, self.rows - 1)
        tail, bad = self._buffer[self._held - kept : self._held], self._bad[self._held - kept : self._held]
        if kept + n > len(self._buffer):
            buffer = np.empty((kept + n, self._channels), dtype=np.float32)
            self._same = None
            counts = np.zeros(kept + n, dtype=np.int64)
        else:
            buffer, counts = self._buffer, self._bad
            if self._held - kept < kept:  # the two places overlap
                tail, bad = tail.copy(), bad.copy()
        buffer[:kept], counts[:kept] = tail, bad
        self._buffer, self._bad = buffer, counts
        return kept

    def _write(self, rows: Rows, begin: int, stop: int) -> None:
        single = self._buffer[begin:stop]
        with np.errstate(over="ignore"):
            single[:] = rows.values
        finite = np.isfinite(single)
        if finite.all():
            self._bad[begin:stop] = 0
            self._whole += stop - begin
            return
        self._whole = 0
        if np.isinf(single).any():  # what single precision cannot hold stands at its edge
            np.clip(single, -_LARGEST, _LARGEST, out=single)
            finite = ~np.isnan(single)
        self._bad[begin:stop] = self._channels - finite.sum(axis=1)

    def _views(self, first: int, n: int) -> "_Views":
        """Of `n` windows from this row of the buffer on: mostly those of the last time, at the same place."""
        if self._same is None or (self._same.first, self._same.n) != (first, n):
            self._same = _Views(self._buffer, first, n, self.rows, self.hop)
        return self._same

    def _shares(self, first: int, n: int) -> F4:
        """Of each window, the share of cells that are bad: whole numbers, so a running sum is exact."""
        stop = first + (n - 1) * self.hop + self.rows
        sums = np.concatenate(([0], np.cumsum(self._bad[first:stop])))
        counts = sums[self.rows :: self.hop] - sums[: -self.rows : self.hop]
        shares: F4 = counts.astype(np.float32) / np.float32(self.rows * self._channels)
        return shares


class _Views:
    """Windows as a reader may have them; what changes from push to push is what the buffer holds."""

    def __init__(self, buffer: F4, first: int, n: int, rows: int, hop: int) -> None:
        self.first, self.n = first, n
        per_row = buffer.strides[0]
        self.base: F4 = buffer[first : first + (n - 1) * hop + rows]
        self.base.flags.writeable = False
        shape = (n, rows, buffer.shape[1])
        self.values: F4 = np.ndarray(shape, np.float32, self.base, 0, (hop * per_row, per_row, 4))
        self.none_bad: F4 = np.zeros(n, dtype=np.float32)
        self.none_bad.flags.writeable = False
