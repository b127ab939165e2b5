"""The newest samples of each channel, sealed or not: what a row that is finer than a ring's slots looks at.

A slot of a slow ring is sealed long after its sample came. The samples themselves say what was known at the
end of a row, so that a row is the same whether it is read at once or later.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from dxad.types import F8, I8, U1, Bools, Quality, State

__all__ = ["Newest"]

_NEVER: Final = np.iinfo(np.int64).min // 2
_STATE_OF: Final = np.array([State.GOOD, State.UNCERTAIN, State.BAD], dtype=np.uint8)
"""By `Quality`."""


class Newest:
    """The last `DEPTH` samples of each channel, in order of their times.

    One writer adds, readers in any thread copy and look again if they were disturbed (a sequence lock).
    """

    DEPTH: Final = 16
    """Samples per channel: so many slots of the ring may a pipeline lag behind and still see each sample."""

    def __init__(self, holds_ns: Sequence[int], *, period: int) -> None:
        """Keep what comes for columns with these holds; a hold below zero lasts until `valid_until`."""
        self.valid_until = 0
        """The stream time up to which the source's session is proved alive."""
        columns = len(holds_ns)
        self._holds_ns = np.asarray(holds_ns, dtype=np.int64)
        self._period = period
        self._begun = 0
        self._ended = 0
        self._times = np.full((self.DEPTH, columns), _NEVER, dtype=np.int64)
        self._values = np.full((self.DEPTH, columns), np.nan)
        self._states = np.zeros((self.DEPTH, columns), dtype=np.uint8)
        self._count = np.zeros(columns, dtype=np.int64)
        """Samples of each column so far: the next one goes to this place, modulo DEPTH."""
        self._last = np.full(columns, _NEVER, dtype=np.int64)

    @classmethod
    def size_bytes(cls, channels: int) -> int:
        """What it takes for so many channels, known before it is made."""
        return channels * (cls.DEPTH * (8 + 8 + 1) + 3 * 8)

    def add(self, samples: npt.NDArray[np.void], times: I8) -> None:
        """Take samples of dtype `SAMPLE` with their stream times; none that is older than the newest."""
        columns = samples["column"].astype(np.int64)
        order = np.lexsort((times, columns))
        order = order[times[order] >= self._last[columns[order]]]
        if not len(order):
            return
        columns, times = columns[order], times[order]
        begins = np.flatnonzero(np.append(True, columns[1:] != columns[:-1]))
        counts = np.diff(np.append(begins, len(columns)))
        rank = np.arange(len(columns)) - np.repeat(begins, counts)
        kept = rank >= np.repeat(counts, counts) - self.DEPTH  # of many at once, the last
        places = (self._count[columns] + rank) % self.DEPTH
        quality = samples["quality"][order]
        values = np.where(quality == Quality.BAD, np.nan, samples["value"][order])
        self._begun += 1
        at = places[kept], columns[kept]
        self._times[at] = times[kept]
        self._values[at] = values[kept]
        self._states[at] = _STATE_OF[quality[kept]]
        self._count[columns[begins]] += counts
        self._last[columns[begins]] = times[begins + counts - 1]
        self._ended = self._begun

    def forget(self, columns: Bools, before: int) -> None:
        """The session that proved these columns' values has ended: none from before this time comes back."""
        self._begun += 1
        self._states[(self._times < before) & columns] = State.EMPTY
        self._values[(self._times < before) & columns] = np.nan
        self._ended = self._begun

    def at(self, ends: I8, columns: Sequence[int] | slice) -> tuple[F8, U1, Bools]:
        """What was known at each of these times.

        Args:
            ends: (n,) the ends of rows; a sample counts when its time lies before.
            columns: which channels.

        Returns:
            values (n, columns) and states: HELD for what was good, EMPTY where it has outlived its hold; and
            whether the sample is known here, (n, columns): False where it would be older than all that is
            kept.
        """
        chosen = np.arange(len(self._last))[columns]
        while True:
            begun = self._ended
            order = (self._count[chosen] - 1 - np.arange(self.DEPTH)[:, None]) % self.DEPTH  # newest first
            times, values, states = (
                part[order, chosen] for part in (self._times, self._values, self._states)
            )
            until = self.valid_until
            if begun == self._begun:
                break
        holds = self._holds_ns[chosen]
        before = times[None] < ends[:, None, None]
        place = before.argmax(axis=1)
        column = np.arange(len(chosen))
        time = times[place, column]
        known = before.any(axis=1) & (time > _NEVER)
        value = np.where(known, values[place, column], np.nan)
        state = np.where(known, states[place, column], np.uint8(State.EMPTY))
        last_slot = (ends[:, None] - 1) // self._period
        age = (last_slot - time // self._period) * self._period
        valid = np.where(holds < 0, last_slot * self._period <= until, age <= holds)
        outlived = known & ~valid
        value[outlived] = np.nan
        state[outlived] = State.EMPTY
        state[state == State.GOOD] = State.HELD
        return value, state, known
