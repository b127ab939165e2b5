"""Sensors that are stuck or silent, told from the rows of a pipeline before any transform.

A channel is *stuck* when its value has not changed by a bit for far longer than it ever did in normal
running, or where its source says so, and *missing* when it has had no good value for a while. Either is
trouble of its own: such a channel is taken from the model until it is well again.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

import numpy as np

from dxad.types import F8, I8, Bools, Channel, Rows, State

__all__ = ["ChannelCheck", "Trouble"]

_STUCK_FACTOR: Final = 5
"""How many times the longest stillness of normal running a channel may stand still."""
_STUCK_ROWS_MIN: Final = 10
_TAUGHT_ROWS: Final = 1000
_RESTLESS: Final = 0.5
"""A channel that stands still in a larger share of rows is never called stuck: a state, a set-point."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """One channel that cannot be believed now."""

    channel: str
    kind: Literal["stuck", "missing", "invalid"]
    since: int
    """The row at which it began."""


class ChannelCheck:
    """Watches consecutive rows; also learns how long each channel stands still in normal running."""

    def __init__(
        self,
        channels: Sequence[Channel],
        *,
        missing_rows: int,
        self_taught: bool = False,
        absent: Literal["missing", "invalid"] = "missing",
        stuck_at: Callable[[int], Bools] | None = None,
    ) -> None:
        """Call a channel missing, or what `absent` says, after `missing_rows` rows without a valid value.

        With `self_taught`, it judges by what it has learned itself after a thousand rows of running, unless
        somebody knows better by then. `stuck_at` tells which channels (n,) the sources call stuck in a row: a
        value of such a channel is not believed, but it is not missing either.
        """
        n = len(channels)
        self._channels = tuple(channels)
        self._missing_rows = missing_rows
        self._kind_of_absence: Literal["missing", "invalid"] = absent
        self._stuck_at = stuck_at
        self._stuck_rows = np.full(n, np.iinfo(np.int64).max, dtype=np.int64)
        self._value = np.full(n, np.nan)
        nothing, never = np.zeros(n, dtype=np.int64), np.zeros(n, dtype=np.bool_)
        self._calm = _Counts(nothing, nothing, nothing, never, never)
        self._everyone = np.ones(n, dtype=np.bool_)
        self._untaught = _TAUGHT_ROWS if self_taught else 0
        """Rows of running after which it will teach itself; 0 where it will not."""
        self._last = self._calm
        self._seen = np.zeros(n, dtype=np.bool_)
        """A channel that never came is its source's trouble: the condition `source.down` tells of it."""
        self._next = 0
        self._changes: list[tuple[int, list[Trouble]]] = []
        """What was wrong from which row on, of those watched last."""
        self.forget()

    def adjust(self, *, missing_rows: int) -> None:
        """From now on, call a channel missing after so many rows."""
        self._missing_rows = missing_rows

    def forget(self) -> None:
        """Start to learn anew how still the channels stand."""
        n = len(self._channels)
        self._longest = np.zeros(n, dtype=np.int64)
        self._unchanged = np.zeros(n, dtype=np.int64)
        self._fresh = np.zeros(n, dtype=np.int64)

    def learned(self) -> dict[str, int]:
        """By channel: after how many rows without change it is stuck; states and set-points are left out."""
        restless = self._unchanged <= _RESTLESS * self._fresh
        limit = np.maximum(_STUCK_FACTOR * self._longest, _STUCK_ROWS_MIN)
        return {
            channel.id: int(limit[place])
            for place, channel in enumerate(self._channels)
            if restless[place] and self._fresh[place] > _STUCK_ROWS_MIN
        }

    def expect(self, stuck_rows: Mapping[str, int]) -> None:
        """Judge by what a model has learned."""
        if stuck_rows:
            self._untaught = 0
        never = np.iinfo(np.int64).max
        self._stuck_rows = np.array(
            [stuck_rows.get(each.id, never) for each in self._channels], dtype=np.int64
        )
        last = self._last
        self._last = replace(last, stuck=(last.still >= self._stuck_rows) & (last.absent == 0))

    def apply(self, rows: Rows, running: Bools | None = None) -> Bools:
        """Watch consecutive rows; True (n, channels) where a cell must not be believed.

        Args:
            rows: what came.
            running: (n,) the rows in which the machine runs: in the others a channel may well stand still.
        """
        if self._untaught:
            return self._teaching(rows, running)
        return self._watched(rows, running)

    def _teaching(self, rows: Rows, running: Bools | None) -> Bools:
        """Watch, and begin to judge by what was learned at the very row with which there is enough of it."""
        ran = np.ones(len(rows), dtype=np.bool_) if running is None else running
        enough = np.flatnonzero(np.cumsum(ran) >= self._untaught)
        if not len(enough):
            self._untaught -= int(np.count_nonzero(ran))
            return self._watched(rows, running)
        until = int(enough[0]) + 1
        doubtful = self._watched(_cut(rows, 0, until), None if running is None else running[:until])
        changes = self._changes
        self._untaught = 0
        self.expect(self.learned())
        rest = self._watched(_cut(rows, until, len(rows)), None if running is None else running[until:])
        self._changes = [*changes, *((until + row, troubles) for row, troubles in self._changes)]
        return np.concatenate((doubtful, rest))

    def _watched(self, rows: Rows, running: Bools | None) -> Bools:
        if not len(rows):
            self._changes = [(0, self.troubles)]
            return np.zeros(rows.values.shape, dtype=np.bool_)
        if (running is None or running.all()) and self._all_move(rows):
            return self._undisturbed(rows)
        counts = self._count(rows, None if running is None or running.all() else running)
        doubtful = counts.stuck | counts.missing
        before = self._last.doubtful
        changes = [(0, self.troubles)]
        if doubtful.any() or before.any():
            first = np.flatnonzero((doubtful != np.vstack((before, doubtful[:-1]))).any(axis=1))
            changes += [(row, self._told(counts.at(row), rows.first + row + 1)) for row in first.tolist()]
        self._changes = changes
        self._last = counts.at(len(rows) - 1)
        self._next = rows.first + len(rows)
        return doubtful

    def _all_move(self, rows: Rows) -> bool:
        """Whether each cell is good and differs from the one before: the usual case, told in a few sweeps."""
        values = rows.values
        return bool(
            (rows.states == State.GOOD).all()
            and not (values[0] == self._value).any()
            and not (values[1:] == values[:-1]).any()
        )

    def _undisturbed(self, rows: Rows) -> Bools:
        """Take in rows in which each channel moves: there is nothing to doubt."""
        self._changes = [(0, [])]
        self._value = rows.values[-1].copy()
        self._last = self._calm
        self._fresh += len(rows)
        self._seen = self._everyone
        self._next = rows.first + len(rows)
        return np.zeros(rows.values.shape, dtype=np.bool_)

    def _count(self, rows: Rows, running: Bools | None) -> "_Counts":
        """What each channel has been doing, row by row; whole numbers, so that no cut changes them."""
        n = len(rows)
        row = np.arange(n)[:, None]
        fresh = (rows.states == State.GOOD) | (rows.states == State.UNCERTAIN)
        valid = fresh | (rows.states == State.HELD)
        if fresh.all():  # the usual case
            before = np.vstack((self._value, rows.values[:-1]))
            self._value = rows.values[-1].copy()
        else:
            newest = np.maximum.accumulate(np.where(fresh, row, -1), axis=0)
            known: F8 = np.vstack((self._value, rows.values))
            carried = np.take_along_axis(known, newest + 1, axis=0)
            before = np.vstack((self._value, carried[:-1]))
            self._value = carried[-1].copy()
        same = fresh & (rows.values == before)
        changed = fresh & ~same
        measured = fresh
        if running is not None:  # whoever rests may rest: stillness begins when the machine runs
            same &= running[:, None]
            changed |= ~running[:, None]
            measured = fresh & running[:, None]
        still, still_rows = self._since(row, changed, same)
        if valid.all():
            absent, seen = np.zeros(rows.values.shape, dtype=np.int64), np.ones_like(valid)
        else:
            came = np.maximum.accumulate(np.where(valid, row, -1), axis=0)
            absent = np.where(came >= 0, row - came, self._last.absent + row + 1)
            seen = self._seen | (came >= 0)
        self._longest = np.maximum(self._longest, still.max(axis=0))
        self._unchanged += same.sum(axis=0)
        self._fresh += measured.sum(axis=0)
        self._seen = seen[-1]
        return _Counts(
            still=still,
            still_rows=still_rows,
            absent=absent,
            stuck=(still >= self._stuck_rows) & (absent == 0),
            missing=seen & (absent >= self._missing_rows),
        )

    def _since(self, row: I8, changed: Bools, same: Bools) -> tuple[I8, I8]:
        """Equal values, and rows, since the last change, with what was carried over."""
        if changed.all():
            nothing = np.zeros(changed.shape, dtype=np.int64)
            return nothing, nothing
        latest = np.maximum.accumulate(np.where(changed, row, -1), axis=0)
        sums: I8 = np.vstack((np.zeros(changed.shape[1], dtype=np.int64), np.cumsum(same, axis=0)))
        here = latest >= 0
        still = sums[1:] - np.take_along_axis(sums, latest + 1, axis=0)
        still = np.where(here, still, still + self._last.still)
        return still, np.where(here, row - latest, self._last.still_rows + row + 1)

    def troubles_at(self, row: int) -> list[Trouble]:
        """The channels that cannot be believed after this row, by its place among those watched last."""
        return next(troubles for first, troubles in reversed(self._changes) if first <= row)

    @property
    def troubles(self) -> list[Trouble]:
        """The channels that cannot be believed after the last row, the longest first."""
        return self._told(self._last, self._next) if self._last.doubtful.any() else []

    def _told(self, counts: "_Counts", following: int) -> list[Trouble]:
        known = counts.stuck
        if self._stuck_at is not None and counts.missing.any():
            known = known | self._stuck_at(following - 1)
        found = [
            Trouble(
                channel.id,
                "stuck" if known[place] else self._kind_of_absence,
                int(following - (counts.absent if counts.missing[place] else counts.still_rows)[place]),
            )
            for place, channel in enumerate(self._channels)
            if counts.doubtful[place]
        ]
        return sorted(found, key=lambda each: each.since)


@dataclass(frozen=True, slots=True)
class _Counts:
    """What channels have been doing: of each row (n, channels), or after one (channels,)."""

    still: I8
    """Fresh values in a row that were equal to the one before."""
    still_rows: I8
    """Rows since the value last changed."""
    absent: I8
    """Rows since the last good or held value."""
    stuck: Bools
    missing: Bools

    @property
    def doubtful(self) -> Bools:
        return self.stuck | self.missing

    def at(self, row: int) -> "_Counts":
        return _Counts(
            self.still[row], self.still_rows[row], self.absent[row], self.stuck[row], self.missing[row]
        )


def _cut(rows: Rows, begin: int, end: int) -> Rows:
    return Rows(rows.first + begin, rows.period, rows.values[begin:end], rows.states[begin:end])
