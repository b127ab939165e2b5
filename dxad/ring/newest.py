"""The newest samples of each channel, sealed or not: what a row that is finer than a ring's slots looks at.

A slot of a slow ring is sealed long after its sample came. The samples themselves say what was known at the
end of a row, so that a row is the same whether it is read at once or later.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from dxad.types import F8, I8, U1, Bools, Quality, State

__all__ = ["Look", "Newest"]

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

    def look(self, columns: Sequence[int] | slice) -> "Look":
        """Some of the channels, for one reader."""
        return Look(self, np.arange(len(self._last))[columns])

    def copied(self, columns: I8, known: int) -> "tuple[int, I8, F8, U1] | None":
        """Times, values and states (DEPTH, columns), the newest first, and the number of this state.

        None where the state is the `known` one still.
        """
        while True:
            ended = self._ended
            if ended == known == self._begun:
                return None
            order = (self._count[columns] - 1 - np.arange(self.DEPTH)[:, None]) % self.DEPTH
            times, values, states = (
                part[order, columns] for part in (self._times, self._values, self._states)
            )
            if ended == self._begun:
                return ended, times, values, states

    def holds_ns(self, columns: I8) -> I8:
        """How long samples of these channels stay valid."""
        holds: I8 = self._holds_ns[columns]
        return holds

    @property
    def period(self) -> int:
        """Of the ring whose samples these are: holds are counted in its slots."""
        return self._period


class Look:
    """What one reader makes of some channels' newest samples; copied anew only when some have come."""

    def __init__(self, newest: Newest, columns: I8) -> None:
        self._newest = newest
        self._columns = columns
        self._holds_ns = newest.holds_ns(columns)
        self._by_session = self._holds_ns < 0
        self._some_by_session = bool(self._by_session.any())
        self._hold_slots = self._holds_ns // newest.period
        self._column = np.arange(len(columns))
        self._known = -1
        self._times = np.empty((0, len(columns)), dtype=np.int64)
        self._slots = self._times
        self._values = np.empty((0, len(columns)))
        self._states = np.empty((0, len(columns)), dtype=np.uint8)

    def at(self, ends: I8) -> tuple[F8, U1, Bools]:
        """What was known at each of these times.

        Args:
            ends: (n,) the ends of rows, ascending; a sample counts when its time lies before.

        Returns:
            values (n, columns) and states: HELD for what was good, EMPTY where it has outlived its hold; and
            whether the sample is known here, (n, columns): False where it would be older than all that is
            kept.
        """
        self._renew()
        last_slot = (ends[:, None] - 1) // self._newest.period
        if (self._times[0] < ends[0]).all():  # as a rule: nothing has come since
            value = np.repeat(self._values[:1], len(ends), axis=0)
            state = np.repeat(self._states[:1], len(ends), axis=0)
            known = np.repeat(self._times[:1] > _NEVER, len(ends), axis=0)
            slot = self._slots[:1]
        else:
            before = self._times[None] < ends[:, None, None]
            place = before.argmax(axis=1)
            value, state = self._values[place, self._column], self._states[place, self._column]
            known = before.any(axis=1) & (self._times[place, self._column] > _NEVER)
            slot = self._slots[place, self._column]
        valid = last_slot - slot <= self._hold_slots
        if self._some_by_session:
            proved = last_slot * self._newest.period <= self._newest.valid_until
            valid = np.where(self._by_session, proved, valid)
        valid &= known
        value[~valid] = np.nan
        state[~valid] = State.EMPTY
        return value, state, known

    def _renew(self) -> None:
        copied = self._newest.copied(self._columns, self._known)
        if copied is not None:
            self._known, self._times, self._values, self._states = copied
            self._slots = self._times // self._newest.period
            self._states[self._states == State.GOOD] = State.HELD
