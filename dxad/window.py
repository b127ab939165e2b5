"""Stretches of rows for a model, in single precision."""

from typing import Final

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from dxad.types import F4, Rows, Windows

__all__ = ["WindowBuffer"]

_LARGEST: Final = float(np.finfo(np.float32).max)


class WindowBuffer:
    """Remembers the last rows and offers a window for every `hop` rows that come."""

    def __init__(self, *, rows: int, channels: int, hop: int = 1) -> None:
        """Windows of `rows` rows, `hop` rows apart."""
        self.rows = rows
        self.hop = hop
        self._tail: F4 = np.empty((0, channels), dtype=np.float32)
        self._until_next = rows
        """How many rows must still come before the next window is full."""

    def push(self, rows: Rows) -> Windows:
        """Take in consecutive rows; returns the windows they complete, none perhaps."""
        # What single precision cannot hold stands at its edge: infinities would make scores NaN.
        single = np.clip(rows.values, -_LARGEST, _LARGEST).astype(np.float32)
        known = np.concatenate((self._tail, single))
        last = np.arange(self._until_next - 1, len(rows), self.hop)
        self._until_next = self._until_next + self.hop * len(last) - len(rows)
        ends = last + len(self._tail)
        if len(last):
            views = sliding_window_view(known, self.rows, axis=0)[ends - self.rows + 1]
            values = np.ascontiguousarray(np.swapaxes(views, 1, 2))
        else:
            values = np.empty((0, self.rows, known.shape[1]), dtype=np.float32)
        self._tail = known[max(0, len(known) - self.rows + 1) :] if self.rows > 1 else known[:0]
        bad = np.isnan(values).mean(axis=(1, 2), dtype=np.float32)
        return Windows(rows.first + last, values, bad)
