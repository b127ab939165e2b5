"""New channels made of old ones: where they stand in a row, and how far they can be trusted."""

from collections.abc import Sequence
from functools import reduce
from typing import Final

import numpy as np

from dxad.errors import ConfigError
from dxad.types import F8, U1, Channel, Rows, Schema, State

__all__ = ["MISSING", "Delay", "Derived", "limited", "missing", "worst"]

MISSING: Final = (State.EMPTY, State.BAD)
"""The states of a cell that has no value."""

_RANK: Final = np.array([3, 0, 1, 2, 4], dtype=np.uint8)
"""By state: GOOD, HELD, UNCERTAIN, EMPTY, BAD, from the best to the worst."""
_OF_RANK: Final = np.argsort(_RANK).astype(np.uint8)


def worst(*states: U1) -> U1:
    """The worst of several states, cell by cell: GOOD, HELD, UNCERTAIN, EMPTY, BAD."""
    found: U1 = _OF_RANK[reduce(np.maximum, [_RANK[each] for each in states])]
    return found


def missing(values: F8, states: U1) -> U1:
    """The states of new values: as given, but BAD where one is NaN although nothing was missing."""
    lost = np.isnan(values) & (states != State.EMPTY)
    return np.where(lost, np.uint8(State.BAD), states)


def limited(channel: Channel, low: float | None, high: float | None) -> Channel:
    """The channel with the part of its range that lies between the limits; None is no limit.

    Raises:
        ConfigError: nothing of it does.
    """
    least, most = channel.range or (-np.inf, np.inf)
    least = least if low is None else max(least, low)
    most = most if high is None else min(most, high)
    if not least < most:
        raise ConfigError(f"nothing of the range of {channel.id!r} lies within the limits")
    known = bool(np.isfinite([least, most]).all())
    return Channel(channel.id, channel.unit, (least, most) if known else None, channel.fold)


class Derived:
    """New channels at the end of a row, behind those of the inputs that stay."""

    def __init__(self, inputs: Schema, made: Sequence[Channel], *, dropped: Sequence[int] = ()) -> None:
        """Declare the channels `made`; those in the columns `dropped` go.

        Raises:
            ConfigError: two channels would have the same id.
        """
        gone = set(dropped)
        self._kept = [column for column in range(len(inputs.channels)) if column not in gone]
        channels = (*(inputs.channels[column] for column in self._kept), *made)
        ids = [channel.id for channel in channels]
        for name in ids:
            if ids.count(name) > 1:
                raise ConfigError(f"there would be two channels {name!r}")
        self.schema = Schema(channels, inputs.period)

    def beside(self, rows: Rows, values: F8, states: U1) -> Rows:
        """The rows with the new cells (n, made)."""
        return Rows(
            rows.first,
            rows.period,
            np.concatenate((rows.values[:, self._kept], values), axis=1),
            np.concatenate((rows.states[:, self._kept], states), axis=1),
        )


class Delay:
    """Gives the cells of some rows ago."""

    def __init__(self, rows: int, channels: int) -> None:
        """Look `rows` back; before the first row everything is EMPTY."""
        self._values = np.full((rows, channels), np.nan)
        self._states = np.full((rows, channels), State.EMPTY, dtype=np.uint8)

    def push(self, values: F8, states: U1) -> tuple[F8, U1]:
        """Take in consecutive rows (n, channels); returns as many, the delayed ones."""
        n = len(values)
        all_values = np.concatenate((self._values, values))
        all_states = np.concatenate((self._states, states))
        self._values, self._states = all_values[n:], all_states[n:]
        return all_values[:n], all_states[:n]
