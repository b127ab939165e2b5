"""New channels made of old ones: where they stand in a row, and how far they can be trusted."""

from collections.abc import Sequence
from typing import Final, TypeVar

import numpy as np
import numpy.typing as npt

from dxad.errors import ConfigError
from dxad.fields import distinct
from dxad.types import F8, U1, Channel, Rows, Schema, State

__all__ = ["Delay", "Derived", "as_far_as_known", "limited", "missing", "worst", "worst_of_row"]

Number = TypeVar("Number", np.float64, np.uint8)

_RANK: Final = np.array([3, 0, 1, 2, 4], dtype=np.uint8)
"""By state: GOOD, HELD, UNCERTAIN, EMPTY, BAD, from the best to the worst."""
_OF_RANK: Final = np.argsort(_RANK).astype(np.uint8)


def worst(left: U1, right: U1) -> U1:
    """The worse of two states, cell by cell: GOOD, HELD, UNCERTAIN, EMPTY, BAD."""
    return _OF_RANK.take(np.maximum(_RANK.take(left), _RANK.take(right)))


def worst_of_row(states: U1) -> U1:
    """(n, channels) to (n,): the worst state of each row."""
    found: U1 = _OF_RANK.take(_RANK.take(states).max(axis=1))
    return found


def as_far_as_known(values: F8, states: U1) -> U1:
    """The states of results that are known without every cell they are made of: those are UNCERTAIN."""
    guessed = ~np.isnan(values) & ((states == State.EMPTY) | (states == State.BAD))
    return missing(values, np.where(guessed, np.uint8(State.UNCERTAIN), states))


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
        kept = [column for column in range(len(inputs.channels)) if column not in gone]
        self._kept = np.array(kept, dtype=np.intp) if gone else None
        self.schema = Schema(distinct((*(inputs.channels[column] for column in kept), *made)), inputs.period)

    def beside(self, rows: Rows, values: F8, states: U1) -> Rows:
        """The rows with the new cells (n, made)."""
        old, old_states = rows.values, rows.states
        if self._kept is not None:
            old, old_states = old.take(self._kept, axis=1), old_states.take(self._kept, axis=1)
        return Rows(
            rows.first,
            rows.period,
            np.concatenate((old, values), axis=1),
            np.concatenate((old_states, states), axis=1),
        )


class Delay:
    """Gives the cells of some rows ago; keeps so many rows, in a ring."""

    def __init__(self, rows: int, channels: int) -> None:
        """Look `rows` back; before the first row everything is EMPTY."""
        self._values = np.full((rows, channels), np.nan)
        self._states = np.full((rows, channels), State.EMPTY, dtype=np.uint8)
        self._at = 0
        """Where the oldest row is."""

    def push(self, values: F8, states: U1) -> tuple[F8, U1]:
        """Take in consecutive rows (n, channels); returns as many, the delayed ones."""
        old, old_states = self._turn(self._values, values), self._turn(self._states, states)
        self._at = (self._at + len(values)) % len(self._values)
        return old, old_states

    def _turn(self, ring: npt.NDArray[Number], new: npt.NDArray[Number]) -> npt.NDArray[Number]:
        n, rows = len(new), len(ring)
        old = ring.take(np.arange(self._at, self._at + min(n, rows)), axis=0, mode="wrap")
        kept = new[-rows:] if n > rows else new
        ring[np.arange(self._at + n - len(kept), self._at + n) % rows] = kept
        return old if n <= rows else np.concatenate((old, new[: n - rows]))
