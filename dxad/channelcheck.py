"""Sensors that are stuck or silent, told from the rows of a pipeline before any transform.

A channel is *stuck* when its value has not changed by a bit for far longer than it ever did in normal
running, and *missing* when it has had no good value for a while. Either is trouble of its own: such a channel
is taken from the model until it is well again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from dxad.types import Bools, Channel, Rows, State

__all__ = ["ChannelCheck", "Trouble"]

_STUCK_FACTOR: Final = 5
"""How many times the longest stillness of normal running a channel may stand still."""
_STUCK_ROWS_MIN: Final = 10
_RESTLESS: Final = 0.5
"""A channel that stands still in a larger share of rows is never called stuck: a state, a set-point."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """One channel that cannot be believed now."""

    channel: str
    kind: Literal["stuck", "missing"]
    since: int
    """The row at which it began."""


class ChannelCheck:
    """Watches consecutive rows; also learns how long each channel stands still in normal running."""

    def __init__(self, channels: Sequence[Channel], *, missing_rows: int) -> None:
        """Call a channel missing after `missing_rows` rows without a good or held value."""
        n = len(channels)
        self._channels = tuple(channels)
        self._missing_rows = missing_rows
        self._stuck_rows = np.full(n, np.iinfo(np.int64).max, dtype=np.int64)
        self._value = np.full(n, np.nan)
        self._still = np.zeros(n, dtype=np.int64)
        """Fresh values in a row that were equal to the one before."""
        self._still_rows = np.zeros(n, dtype=np.int64)
        """Rows since the value last changed."""
        self._absent = np.zeros(n, dtype=np.int64)
        self._seen = np.zeros(n, dtype=np.bool_)
        """A channel that never came is its source's trouble: the condition `source.down` tells of it."""
        self._next = 0
        self._changes: list[tuple[int, list[Trouble]]] = []
        """What was wrong from which row on, of those watched last."""
        self.forget()

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
        never = np.iinfo(np.int64).max
        self._stuck_rows = np.array(
            [stuck_rows.get(each.id, never) for each in self._channels], dtype=np.int64
        )

    def apply(self, rows: Rows) -> Bools:
        """Watch consecutive rows; True (n, channels) where a cell must not be believed."""
        doubtful = np.zeros(rows.values.shape, dtype=np.bool_)
        self._changes = [(0, self.troubles)]
        last = self._stuck | self._missing
        for row in range(len(rows)):
            value, state = rows.values[row], rows.states[row]
            fresh = (state == State.GOOD) | (state == State.UNCERTAIN)
            same = fresh & (value == self._value)
            self._still = np.where(fresh, np.where(same, self._still + 1, 0), self._still)
            self._still_rows = np.where(fresh & ~same, 0, self._still_rows + 1)
            valid = fresh | (state == State.HELD)
            self._absent = np.where(valid, 0, self._absent + 1)
            self._value = np.where(fresh, value, self._value)
            self._longest = np.maximum(self._longest, self._still)
            self._unchanged += same
            self._fresh += fresh
            self._seen |= valid
            doubtful[row] = self._stuck | self._missing
            if (doubtful[row] != last).any():
                last = doubtful[row]
                self._next = rows.first + row + 1
                self._changes.append((row, self.troubles))
        self._next = rows.first + len(rows)
        return doubtful

    def troubles_at(self, row: int) -> list[Trouble]:
        """The channels that cannot be believed after this row, by its place among those watched last."""
        return next(troubles for first, troubles in reversed(self._changes) if first <= row)

    @property
    def _stuck(self) -> Bools:
        stuck: Bools = (self._still >= self._stuck_rows) & (self._absent == 0)
        return stuck

    @property
    def _missing(self) -> Bools:
        missing: Bools = self._seen & (self._absent >= self._missing_rows)
        return missing

    @property
    def troubles(self) -> list[Trouble]:
        """The channels that cannot be believed after the last row, the longest first."""
        missing, stuck = self._missing, self._stuck
        found = [
            Trouble(
                channel.id,
                "missing" if missing[place] else "stuck",
                int(self._next - (self._absent[place] if missing[place] else self._still_rows[place])),
            )
            for place, channel in enumerate(self._channels)
            if missing[place] or stuck[place]
        ]
        return sorted(found, key=lambda each: each.since)
