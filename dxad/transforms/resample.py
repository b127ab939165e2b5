"""Another period: fewer rows of several each, or several rows of each.

Fewer (`every` is a multiple of the rows' period): `last`, `mean = sum(x) / n`, `min` or `max` of the values x
that are known in the stretch; units are unchanged. A result is GOOD where one of its cells is, else HELD,
else UNCERTAIN, and missing where all are; a `last` is as good as the cell it was in.

More (`every` divides the rows' period into k parts): `last` repeats the value k times; `linear` leads from
the row before to this one in k equal steps, `x[t-1] + (x[t] - x[t-1]) · j / k` for j = 1 … k, and so it is
causal but behind: the value of a row is reached at the end of its slot, up to one period of the rows late.
Only the last of the k rows counts as measured, the others are HELD. Where the row before has no value, the
steps towards this one have none either.

Source: OPC UA Part 13 (OPC 10000-13), §5.4.3, aggregates End, Average, Minimum, Maximum, Interpolative.
"""

from typing import Final, Literal

import numpy as np
from pydantic import Field

from dxad.errors import ConfigError
from dxad.fields import Duration, TransformSection
from dxad.plugin import Plugin
from dxad.signal.derive import worst
from dxad.types import F8, U1, Rows, Schema, State

__all__ = ["PLUGIN", "Config", "Resample"]

_TIMES_MAX: Final = 10_000
"""Rows that become one, or that one becomes."""


class Config(TransformSection):
    """`{ type = "resample", channels = ["vib.*"], every = "100ms", method = "mean" }`, as a feature."""

    type: Literal["resample"]
    every: Duration = Field(gt=0, description="the period of the result")
    method: Literal["last", "mean", "min", "max", "linear"] = Field(
        "last", description="what becomes of several rows; between rows, last or linear"
    )


class Resample:
    """Yields rows of nothing but its own channels, at another period."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._columns: list[int] = []
        self._fewer = self._more = 1
        self._values: F8 = np.empty((0, 0))
        self._states: U1 = np.empty((0, 0), dtype=np.uint8)

    def outputs(self, inputs: Schema) -> Schema:
        """The matching channels, at the rate of `every`.

        Raises:
            ConfigError: no channel matches, the periods do not divide one another, or not with this method.
        """
        every, period, method = self._config.every, inputs.period, self._config.method
        if every % period and period % every:
            raise ConfigError(f"every and the rows' period, {period / 1e6:g} ms, do not divide one another")
        self._fewer, self._more = max(1, every // period), max(1, period // every)
        if max(self._fewer, self._more) > _TIMES_MAX:
            raise ConfigError(f"every is further than {_TIMES_MAX} times from the rows' {period / 1e6:g} ms")
        if method == "linear" and self._fewer > 1:
            raise ConfigError("linear is for more rows; of several rows, take last, mean, min or max")
        if method not in ("last", "linear") and self._more > 1:
            raise ConfigError(f"{method} is for fewer rows; between rows, take last or linear")
        self._columns = self._config.places(inputs)
        width = len(self._columns)
        before = 1 if self._more > 1 else 0
        self._values = np.full((before, width), np.nan)
        self._states = np.full((before, width), State.EMPTY, dtype=np.uint8)
        return Schema(tuple(inputs.channels[column] for column in self._columns), every)

    def apply(self, rows: Rows) -> Rows:
        """Resample what ends within `rows`."""
        if self._more > 1:
            values = np.concatenate((self._values, rows.values.take(self._columns, axis=1)))
            states = np.concatenate((self._states, rows.states.take(self._columns, axis=1)))
            self._values, self._states = values[-1:], states[-1:]
            return self._spread(rows.first, values, states)
        times = self._fewer
        first = rows.first // times
        self._align(rows.first - first * times)
        values = np.concatenate((self._values, rows.values.take(self._columns, axis=1)))
        states = np.concatenate((self._states, rows.states.take(self._columns, axis=1)))
        done = len(values) // times
        shape = (done, times, values.shape[1])
        end = done * times
        self._values, self._states = values[end:], states[end:]
        made, quality = self._gathered(values[:end].reshape(shape), states[:end].reshape(shape))
        return Rows(first, self._config.every, made, quality)

    def _align(self, begun: int) -> None:
        """Have `begun` rows of an unfinished stretch; one that began before any row was seen is padded."""
        missing = max(0, begun - len(self._values))
        nothing = np.full((missing, len(self._columns)), np.nan)
        empty = np.full(nothing.shape, State.EMPTY, dtype=np.uint8)
        surplus = max(0, len(self._values) - begun)
        self._values = np.concatenate((nothing, self._values[surplus:]))
        self._states = np.concatenate((empty, self._states[surplus:]))

    def _gathered(self, values: F8, states: U1) -> tuple[F8, U1]:
        """(n, times, channels) to (n, channels)."""
        known = ~np.isnan(values)
        any_known = known.any(axis=1)
        if self._config.method == "last":
            place = values.shape[1] - 1 - np.argmax(known[:, ::-1], axis=1)[:, None]
            # Where nothing is known the place is the stretch's last cell.
            return (
                np.take_along_axis(values, place, axis=1)[:, 0],
                np.take_along_axis(states, place, axis=1)[:, 0],
            )
        match self._config.method:
            case "mean":
                total = np.zeros(any_known.shape)
                for at in range(values.shape[1]):  # in this order for every cell, wherever a batch began
                    total += np.where(known[:, at], values[:, at], 0.0)
                made = total / np.maximum(known.sum(axis=1), 1)
            case "min":
                made = np.where(known, values, np.inf).min(axis=1)
            case _:
                made = np.where(known, values, -np.inf).max(axis=1)
        quality = states[:, -1]
        for state in (State.UNCERTAIN, State.HELD, State.GOOD):
            quality = np.where((states == state).any(axis=1), np.uint8(state), quality)
        return np.where(any_known, made, np.nan), quality

    def _spread(self, first: int, values: F8, states: U1) -> Rows:
        """(1 + n, channels) to (n * times, channels)."""
        times = self._more
        here, quality = values[1:], states[1:]
        shape = (len(here), times, here.shape[1])
        made = np.repeat(here, times, axis=0)
        spread = np.repeat(quality, times, axis=0)
        if self._config.method == "linear":
            steps = (np.arange(1, times) / times)[None, :, None]
            lines = values[:-1, None] + (here - values[:-1])[:, None] * steps
            made.reshape(shape)[:, :-1] = lines
            on_the_way = worst(states[:-1], quality)
            spread.reshape(shape)[:, :-1] = on_the_way[:, None]
        between = spread.reshape(shape)[:, :-1]
        between[between == State.GOOD] = State.HELD
        made[(spread == State.EMPTY) | (spread == State.BAD)] = np.nan
        return Rows(first * times, self._config.every, made, spread)


PLUGIN = Plugin(Config, Resample)
