"""What a pipeline keeps of its rows while it shall learn from them."""

import numpy as np

from dxad.types import F8, Bools, Rows

__all__ = ["Recorder"]


class Recorder:
    """Collects complete rows of normal running until it has enough."""

    def __init__(self, channels: int, rows: int) -> None:
        self.wanted = rows
        self.rows = 0
        self._values = np.empty((rows, channels))

    @property
    def full(self) -> bool:
        """Whether it has all the rows it wants."""
        return self.rows == self.wanted

    def push(self, rows: Rows, counts: Bools) -> None:
        """Take the rows in which the machine runs (n,) and nothing is missing."""
        usable = counts & ~np.isnan(rows.values).any(axis=1)
        complete = rows.values[usable][: self.wanted - self.rows]
        self._values[self.rows : self.rows + len(complete)] = complete
        self.rows += len(complete)

    def take(self) -> F8:
        """The rows recorded so far."""
        return self._values[: self.rows]
