"""Stretches of rows for a model, in single precision.

Rows lie one after the other in one buffer, so that windows are views of it and nothing is copied until a
model gathers what it needs:

    tail of earlier rows │ rows just pushed │ spare
    ├── window ──┤
      ├── window ──┤                            a window for every `hop` rows
"""

from typing import Final

import numpy as np
from numpy.lib.stride_tricks import as_strided

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
        self._bad: I8 = np.zeros(len(self._buffer), dtype=np.int64)
        """By row of the buffer: how many of its cells are bad or empty."""

    @staticmethod
    def size_bytes(rows: int, channels: int) -> int:
        """What a buffer of these dimensions takes, known before it is made."""
        return (rows - 1 + _ROWS_AT_ONCE) * (4 * channels + 8)

    def push(self, rows: Rows) -> Windows:
        """Take in consecutive rows; returns the windows they complete, none perhaps.

        The windows are read-only views that are valid until the next push.
        """
        n = len(rows)
        begin = self._make_room(n)
        stop = begin + n
        self._write(rows, begin, stop)
        last = np.arange(self._until_next - 1, n, self.hop, dtype=np.int64)
        self._until_next += self.hop * len(last) - n
        self._held = stop
        if not len(last):
            nothing = np.empty((0, self.rows, self._channels), dtype=np.float32)
            return Windows(last, nothing, np.empty(0, dtype=np.float32), period=rows.period)
        first = begin + int(last[0]) - self.rows + 1
        base = self._buffer[first : begin + int(last[-1]) + 1]
        return Windows(
            rows.first + last,
            self._views(base, len(last)),
            self._shares(first, len(last)),
            base,
            self.hop,
            rows.period,
        )

    def _make_room(self, n: int) -> int:
        """Move the tail to the head of the buffer; returns the place of the next row."""
        kept = min(self._held, self.rows - 1)
        tail, bad = self._buffer[self._held - kept : self._held], self._bad[self._held - kept : self._held]
        if kept + n > len(self._buffer):
            buffer = np.empty((kept + n, self._channels), dtype=np.float32)
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
        if np.isinf(single).any():  # what single precision cannot hold stands at its edge
            np.clip(single, -_LARGEST, _LARGEST, out=single)
        self._bad[begin:stop] = np.isnan(single).sum(axis=1)

    def _views(self, base: F4, n: int) -> F4:
        per_row, per_cell = base.strides
        shape = (n, self.rows, self._channels)
        return as_strided(base, shape, (self.hop * per_row, per_row, per_cell), writeable=False)

    def _shares(self, first: int, n: int) -> F4:
        """Of each window, the share of cells that are bad: whole numbers, so a running sum is exact."""
        stop = first + (n - 1) * self.hop + self.rows
        sums = np.concatenate(([0], np.cumsum(self._bad[first:stop])))
        counts = sums[self.rows :: self.hop] - sums[: -self.rows : self.hop]
        shares: F4 = counts.astype(np.float32) / np.float32(self.rows * self._channels)
        return shares
