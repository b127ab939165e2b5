"""One number for a stretch of rows: root mean square, mean, extremes, peak.

Formulas, over the values x of the stretch that are known: rms = sqrt(mean(x²)); mean = sum(x)/n; min; max;
peak = max(|x|). Source of the vibration measures: ISO 20816-1:2016, annex A.
"""

from typing import Final, Literal

import numpy as np
from pydantic import Field

from dxad.errors import ConfigError
from dxad.fields import Duration, TransformSection, matching
from dxad.plugin import Plugin
from dxad.types import F8, U1, Bools, Rows, Schema, State

__all__ = ["PLUGIN", "Config", "Summarize"]

_ENOUGH: Final = 0.5
"""A stretch of which a smaller share is known yields nothing."""
_OVER_MAX: Final = 10_000
"""Rows; each of them costs an operation per batch."""


class Config(TransformSection):
    """`{ type = "summarize", channels = ["vib.*"], stat = "rms", every = "100ms" }`."""

    type: Literal["summarize"]
    stat: Literal["rms", "mean", "min", "max", "peak"] = Field(
        "rms", description="what a stretch of rows becomes"
    )
    every: Duration | None = Field(None, description="the time between two results; default: one row")
    over: Duration | None = Field(None, description="how far back a result reaches; default: `every`")


class Summarize:
    """Yields a row for every `every`, of nothing but its own channels; their ids end in the statistic."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._columns: list[int] = []
        self._hop = self._width = 1
        self._period = 1
        self._tail: F8 = np.empty((0, 0))
        self._tail_good: Bools = np.empty((0, 0), dtype=np.bool_)

    def outputs(self, inputs: Schema) -> Schema:
        """The statistic of each matching channel, at the rate of `every`.

        Raises:
            ConfigError: no channel matches, or a duration is no whole number of rows, or far too many.
        """
        self._period = self._config.every or inputs.period
        over = self._config.over or self._period
        for key, duration in (("every", self._period), ("over", over)):
            if duration % inputs.period or duration < inputs.period:
                raise ConfigError(f"{key} is no multiple of the rows' period, {inputs.period / 1e6:g} ms")
        if over // inputs.period > _OVER_MAX:
            raise ConfigError(f"a result is made of {over // inputs.period} rows; {_OVER_MAX} at most")
        self._columns = matching(self._config.channels, inputs.channels)
        if not self._columns:
            raise ConfigError(f"no channel matches {', '.join(self._config.channels)}")
        self._hop, self._width = self._period // inputs.period, over // inputs.period
        self._tail = np.full((self._width - 1, len(self._columns)), np.nan)
        self._tail_good = np.zeros(self._tail.shape, dtype=np.bool_)
        channels = [inputs.channels[column].named(self._config.stat) for column in self._columns]
        return Schema(tuple(channels), self._period)

    def apply(self, rows: Rows) -> Rows:
        """Summarise each stretch that ends within `rows`."""
        mine = rows.values[:, self._columns]
        known = np.vstack((self._tail, mine))
        measured = np.vstack((self._tail_good, rows.states[:, self._columns] == State.GOOD))
        # A stretch ends with each slot whose successor begins a new result.
        first = (rows.first + self._hop) // self._hop  # the result that ends first
        ends = np.arange(first * self._hop - 1 - rows.first, len(rows), self._hop)
        stretches = ends[:, None] + np.arange(self._width)[None, :]
        values, states = self._reduce(known[stretches], measured[stretches])
        keep = len(known) - (self._width - 1)
        self._tail, self._tail_good = known[keep:], measured[keep:]
        return Rows(first - 1, self._period, values, states)

    def _reduce(self, cells: F8, measured: Bools) -> tuple[F8, U1]:
        """(n, width, channels) to (n, channels), cell by cell in order: see `smooth` for why."""
        present = ~np.isnan(cells)
        empty = {"min": np.inf, "max": -np.inf}.get(self._config.stat, 0.0)
        cells = np.where(present, cells, empty)
        result = np.full((len(cells), cells.shape[2]), empty)
        count = np.zeros(result.shape, dtype=np.int64)
        fresh = np.zeros(result.shape, dtype=np.int64)
        for row in range(self._width):
            x = cells[:, row]
            count += present[:, row]
            fresh += measured[:, row]
            match self._config.stat:
                case "rms":
                    result += x * x
                case "mean":
                    result += x
                case "min":
                    result = np.minimum(result, x)
                case "max":
                    result = np.maximum(result, x)
                case "peak":
                    result = np.maximum(result, np.abs(x))
        if self._config.stat in ("rms", "mean"):
            result /= np.maximum(count, 1)
        if self._config.stat == "rms":
            result = np.sqrt(result)
        enough = count >= _ENOUGH * self._width
        states = np.where(fresh > 0, State.GOOD, State.HELD).astype(np.uint8)
        states[~enough] = State.EMPTY
        return np.where(enough, result, np.nan), states


PLUGIN = Plugin(Config, Summarize)
