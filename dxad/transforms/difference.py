"""Difference: `y[t] = x[t] - x[t-lag]`, in the channel's unit.

A new channel `plc.flow.difference`. It is as good as the worse of its two cells, and missing where one of
them is. Source: R. J. Hyndman, G. Athanasopoulos, "Forecasting: Principles and Practice", 3rd ed., §9.1.
"""

from typing import Final, Literal

import numpy as np
from pydantic import Field

from dxad.fields import Duration, TransformSection, rows_in
from dxad.plugin import Plugin
from dxad.signal.derive import Delay, Derived, missing, worst
from dxad.types import Channel, Rows, Schema

__all__ = ["PLUGIN", "Config", "Difference"]

_LAG_MAX: Final = 36_000
"""Rows; they are kept: an hour at 10 Hz."""


class Config(TransformSection):
    """`{ type = "difference", channels = ["plc.level"], lag = "10s" }`."""

    type: Literal["difference"]
    lag: Duration | None = Field(None, description="how far back the other value lies; default: one row")

    @property
    def reach(self) -> int:
        """How far back it remembers its channels' rows, nanoseconds."""
        return self.lag or 0

    keep: bool = Field(False, description="whether the channel itself stays beside it")


class Difference:
    """Makes a channel of differences of each of its channels."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._columns: list[int] = []

    def outputs(self, inputs: Schema) -> Schema:
        """The other channels, and a new one for each of its own, with twice its range.

        Raises:
            ConfigError: no channel matches, or the lag is no whole number of rows, or far too many.
        """
        lag = rows_in(self._config.lag or inputs.period, inputs.period, key="lag", most=_LAG_MAX)
        self._columns = self._config.places(inputs)
        self._delay = Delay(lag, len(self._columns))
        made = [_difference(inputs.channels[column]) for column in self._columns]
        self._derived = Derived(inputs, made, dropped=() if self._config.keep else self._columns)
        return self._derived.schema

    def apply(self, rows: Rows) -> Rows:
        """Subtract what was `lag` ago."""
        values, states = rows.values.take(self._columns, axis=1), rows.states.take(self._columns, axis=1)
        before, states_before = self._delay.push(values, states)
        with np.errstate(over="ignore"):
            change = values - before
        change[np.isinf(change)] = np.nan
        return self._derived.beside(rows, change, missing(change, worst(states, states_before)))


def _difference(channel: Channel) -> Channel:
    made = channel.named("difference")
    if channel.range is None:
        return made
    width = channel.range[1] - channel.range[0]
    return Channel(made.id, made.unit, (-width, width))


PLUGIN = Plugin(Config, Difference)
