"""Which rows count: those in which the machine runs as it is to be watched, and has done so for a while.

    when = "plc.running == 1", settle = "3 rows"

    running   0 0 1 1 1 1 1 1 0 1 1 1 1 1
    open      . . . . . x x x . . . . x x

What is not known is not running: a row without the channels of `when` does not count.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np

from dxad.expression import Expression
from dxad.types import Bools, Channel, Rows

__all__ = ["Gate", "stretches"]


class Gate:
    """Watches consecutive rows of a frame."""

    def __init__(self, when: Expression | None, channels: Sequence[Channel], *, settle_rows: int) -> None:
        """Open after `settle_rows` rows in which `when` holds; always open without it.

        Args:
            when: over channels that are all among `channels`.
            channels: what the columns of the rows are.
            settle_rows: how many rows at the beginning of each run do not count.
        """
        places = {channel.id: column for column, channel in enumerate(channels)}
        self._when = when
        self._columns = {} if when is None else {name: places[name] for name in when.names}
        self._settle_rows = settle_rows
        self._run = 0
        """How long it has been running, in rows."""

    def apply(self, rows: Rows) -> Bools:
        """Which of these rows count: (n,)."""
        n = len(rows)
        if self._when is None or not n:
            return np.ones(n, dtype=np.bool_)
        value = self._when({name: rows.values[:, column] for name, column in self._columns.items()})
        running = ~np.isnan(value) & (value != 0)
        row = np.arange(n)
        stopped = np.maximum.accumulate(np.where(running, -1, row))
        run = np.where(stopped >= 0, row - stopped, self._run + row + 1)
        self._run = int(run[-1])
        counts: Bools = running & (run > self._settle_rows)
        return counts

    def restart(self) -> None:
        """Rows were lost: who knows what the machine did meanwhile."""
        self._run = 0

    @property
    def open(self) -> bool:
        """Whether the last row counted."""
        return self._when is None or self._run > self._settle_rows


def stretches(mask: Bools) -> Iterator[tuple[int, int, bool]]:
    """The stretches of equal values, in order: begin, end, value."""
    edges = [0, *(np.flatnonzero(mask[1:] != mask[:-1]) + 1).tolist(), len(mask)]
    for begin, end in pairwise(edges):
        if begin < end:
            yield begin, end, bool(mask[begin])
