"""Plausibility: a value that cannot be true becomes a bad cell.

In the channel's unit:

- range: `x < low` or `x > high`
- rate: `|x[t] - x[s]| > max_rate · (t - s)`, with s the time of the last value before t that was measured and
  accepted: a spike is bad and what comes after it is not; a lasting step is accepted once it is slow enough
- stuck: the value has been the same, to the bit, for longer than `stuck`, in rows that follow each other

A HELD cell is tested as if it were measured, but is no reference for a rate and does not make a value stuck.

Source: range, step and persistence tests of WMO-No. 488, "Guide to the Global Observing System", app. VI.2.
"""

from collections.abc import Sequence
from typing import Final, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from dxad.fields import Duration, TransformSection
from dxad.plugin import Plugin
from dxad.signal.derive import limited
from dxad.types import F8, I8, NS_PER_S, Bools, Rows, Schema, State

__all__ = ["PLUGIN", "Config", "Validate"]

_LONG_AGO: Final = -(1 << 62)


class Config(TransformSection):
    """`{ type = "validate", channels = ["plc.level"], low = 0, max_rate = 0.1, stuck = "10min" }`."""

    type: Literal["validate"]
    low: float | None = Field(
        None, strict=False, allow_inf_nan=False, description="the least value; without it, none"
    )
    high: float | None = Field(
        None, strict=False, allow_inf_nan=False, description="the greatest value; without it, none"
    )
    max_rate: float | None = Field(
        None, gt=0, strict=False, allow_inf_nan=False, description="the fastest change, per second"
    )
    stuck: Duration | None = Field(None, gt=0, description="how long a value may stay the same to the bit")

    @model_validator(mode="after")
    def _some(self) -> Self:
        if self.low is self.high is self.max_rate is self.stuck is None:
            raise ValueError("give one of low, high, max_rate and stuck")
        if self.low is not None and self.high is not None and not self.low < self.high:
            raise ValueError(f"low {self.low:g} is not below high {self.high:g}")
        return self


class Validate:
    """Takes away what cannot be true."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._columns: list[int] = []
        self._ids: list[str] = []
        self._pace: _Pace | None = None
        self._stillness: _Stillness | None = None

    @property
    def doubted(self) -> Sequence[str]:
        """All its channels."""
        return self._ids

    def outputs(self, inputs: Schema) -> Schema:
        """The same channels, with the range that is left.

        Raises:
            ConfigError: no channel matches, or nothing of a channel's range would be left.
        """
        config = self._config
        self._columns = config.places(inputs)
        channels = list(inputs.channels)
        self._ids = [channels[column].id for column in self._columns]
        for column in self._columns:
            channels[column] = limited(channels[column], config.low, config.high)
        if config.max_rate is not None:
            self._pace = _Pace(config.max_rate * inputs.period / NS_PER_S, len(self._columns))
        if config.stuck is not None:
            self._stillness = _Stillness(config.stuck // inputs.period, len(self._columns))
        return Schema(tuple(channels), inputs.period)

    def apply(self, rows: Rows) -> Rows:
        """Test the columns."""
        mine, states = rows.values.take(self._columns, axis=1), rows.states.take(self._columns, axis=1)
        if not len(mine):
            return rows.with_values(rows.values.copy())
        measured = (states == State.GOOD) | (states == State.UNCERTAIN)
        bad = np.zeros(mine.shape, dtype=np.bool_)
        if self._config.low is not None:
            bad |= mine < self._config.low
        if self._config.high is not None:
            bad |= mine > self._config.high
        if self._pace is not None:
            bad |= self._pace.push(rows.first, np.where(bad, np.nan, mine), measured)
        if self._stillness is not None:
            bad |= self._stillness.push(rows.first, mine, measured)
        values, kinds = rows.values.copy(), rows.states.copy()
        values[:, self._columns] = np.where(bad, np.nan, mine)
        kinds[:, self._columns] = np.where(bad, np.uint8(State.BAD), states)
        return rows.with_values(values, kinds)


class _Pace:
    """Which values have come too fast."""

    def __init__(self, step: float, channels: int) -> None:
        """Allow a change by `step` per row."""
        self._step = step
        self._value = np.full(channels, np.nan)
        self._slot = np.zeros(channels)

    def push(self, first: int, x: F8, measured: Bools) -> Bools:
        slots = np.arange(first, first + len(x), dtype=np.float64)
        known = measured & ~np.isnan(x)
        # As long as nothing is too fast, the reference of each cell is simply the cell measured before it.
        place = np.where(known, np.arange(1, len(x) + 1)[:, None], 0)
        place = np.maximum.accumulate(np.concatenate((np.zeros((1, x.shape[1]), dtype=np.int64), place)))
        values = np.concatenate((self._value[None], x))
        times = np.concatenate((self._slot[None], np.broadcast_to(slots[:, None], x.shape)))
        before = np.take_along_axis(values, place[:-1], axis=0)
        since = np.take_along_axis(times, place[:-1], axis=0)
        fast: Bools = np.absolute(x - before) > self._step * (slots[:, None] - since)
        entry = self._value, self._slot
        self._value = np.take_along_axis(values, place[-1:], axis=0)[0]
        self._slot = np.take_along_axis(times, place[-1:], axis=0)[0]
        for column in np.flatnonzero(fast.any(axis=0)):
            reference = float(entry[0][column]), float(entry[1][column])
            again = self._row_by_row(reference, slots, x[:, column], known[:, column])
            fast[:, column], (self._value[column], self._slot[column]) = again
        return fast

    def _row_by_row(
        self, reference: tuple[float, float], slots: F8, x: F8, known: Bools
    ) -> tuple[list[bool], tuple[float, float]]:
        """One channel in which something was too fast: that is no reference for what comes after it."""
        value, since = reference
        fast = []
        for slot, here, usable in zip(slots.tolist(), x.tolist(), known.tolist(), strict=True):
            fast.append(abs(here - value) > self._step * (slot - since))
            if usable and not fast[-1]:
                value, since = here, slot
        return fast, (value, since)


class _Stillness:
    """Which values have been the same for too long."""

    def __init__(self, rows: int, channels: int) -> None:
        """Allow `rows` from the first of equal values to the last."""
        self._rows = rows
        self._value = np.full((1, channels), np.nan)
        self._begun = np.full((1, channels), _LONG_AGO)
        self._measured = np.full((1, channels), _LONG_AGO)

    def push(self, first: int, x: F8, measured: Bools) -> Bools:
        slots = first + np.arange(len(x))[:, None]
        same = x == np.concatenate((self._value, x[:-1]))
        begun = self._latest(self._begun, ~same, slots)
        seen = self._latest(self._measured, measured, slots)
        self._value, self._begun, self._measured = x[-1:].copy(), begun[-1:], seen[-1:]
        stuck: Bools = ~np.isnan(x) & (seen - begun > self._rows)
        return stuck

    @staticmethod
    def _latest(before: I8, when: Bools, slots: I8) -> I8:
        """(n, channels): the slot of the last row so far in which it was so."""
        found: I8 = np.maximum.accumulate(np.concatenate((before, np.where(when, slots, _LONG_AGO))))[1:]
        return found


PLUGIN = Plugin(Config, Validate)
