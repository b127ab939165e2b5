"""Which cells of a ring's rows are worth telling: the rest is as it was told last, within a band.

A sample goes when it differs from the last one told by more than the band, when its quality is another, or
when nothing was told of its channel for `max_interval`: then the value that is held goes too. That a channel
has no value any more goes as well. The band is in the channel's unit, a share of its range (percent), or of
the value told last (relative).

Source: OPC UA Part 4 (OPC 10000-4), §7.22.2, AbsoluteDeadband; Part 8 (OPC 10000-8), §7.2, PercentDeadband.
"""

import math
from collections.abc import Sequence
from typing import Final

import numpy as np

from dxad.types import F8, U1, Bools, Channel, State

__all__ = ["Deadband", "with_gaps"]

_NOTHING: Final = -1
"""Nothing was told yet."""


def with_gaps(values: F8, states: U1) -> U1:
    """The states (rows, channels), EMPTY also where a sample is no number, as in a row without score."""
    nothing = ~np.isfinite(values) & (states != State.BAD)
    found: U1 = np.where(nothing, np.uint8(State.EMPTY), states)
    return found


class Deadband:
    """Remembers of each channel what was told last."""

    def __init__(self, channels: Sequence[Channel], *, band: float, kind: str, most_rows: int) -> None:
        """Tell of `channels`, whose ranges are known if the kind is `percent`.

        Args:
            channels: by column.
            band: how far a value may move and not be told.
            kind: `absolute`, `percent` or `relative`.
            most_rows: after so many without being told, a channel is.
        """
        width = len(channels)
        self._relative = kind == "relative"
        self._bands = np.full(width, band / 100 if self._relative else band)
        if kind == "percent":
            spans = [0.0 if each.range is None else each.range[1] - each.range[0] for each in channels]
            self._bands = band / 100 * np.array(spans)
        self._most_rows = most_rows
        self._values = np.full(width, np.nan)
        self._states = np.full(width, _NOTHING, dtype=np.int64)
        self._slots = np.zeros(width, dtype=np.int64)

    def told(self, first: int, values: F8, states: U1) -> Bools:
        """Which cells of consecutive rows from slot `first` on are to be told: (rows, channels)."""
        chosen = np.zeros(states.shape, dtype=np.bool_)
        for column in np.flatnonzero(self._may_tell(first, values, states)).tolist():
            self._tell(column, first, values[:, column], states[:, column], chosen[:, column])
        return chosen

    def _may_tell(self, first: int, values: F8, states: U1) -> Bools:
        """Of which channels there may be something: (channels,)."""
        due: Bools = first + len(states) - 1 - self._slots >= self._most_rows
        other = (states != self._states) & (states != State.HELD)
        moved = np.abs(values - self._values) > self._width(self._values)
        found: Bools = due | (other | moved).any(axis=0)
        return found

    def _width(self, last: F8) -> F8:
        return self._bands * np.abs(last) if self._relative else self._bands

    def _tell(self, column: int, first: int, values: F8, states: U1, chosen: Bools) -> None:
        """Choose cells of one channel, in plain numbers: numpy would need several calls for every row."""
        last, state, at = float(self._values[column]), int(self._states[column]), int(self._slots[column])
        band = share = float(self._bands[column])
        if self._relative:
            band = share * abs(last)
        for row, (value, now) in enumerate(zip(values.tolist(), states.tolist(), strict=True)):
            if state == _NOTHING and now in (State.EMPTY, State.HELD):
                continue
            news = now != State.HELD and (now != state or abs(value - last) > band)  # never so for NaN
            if not news and first + row - at < self._most_rows:
                continue
            chosen[row] = True
            at = first + row
            if now != State.HELD:
                last, state = value, now
                band = share * abs(last) if self._relative else share
                band = 0.0 if math.isnan(band) else band
        self._values[column], self._states[column], self._slots[column] = last, state, at
