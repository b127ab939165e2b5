"""Rate of change: `y[t] = (x[t] - x[t-lag]) / lag`, per second: of a channel in mm/s it is in mm/s/s.

A new channel `plc.level.rate`. It is as good as the worse of its two cells, and missing where one of them is.
Source: M. Abramowitz, I. A. Stegun, "Handbook of Mathematical Functions", §25.1, backward differences.
"""

from typing import Final, Literal

import numpy as np
from pydantic import Field

from dxad.fields import Duration, TransformSection, rows_in
from dxad.plugin import Plugin
from dxad.signal.derive import Delay, Derived, missing, worst
from dxad.types import NS_PER_S, Channel, Rows, Schema

__all__ = ["PLUGIN", "Config", "Rate"]

_LAG_MAX: Final = 36_000
"""Rows; they are kept: an hour at 10 Hz."""


class Config(TransformSection):
    """`{ type = "rate", channels = ["plc.level"], lag = "10s" }`."""

    type: Literal["rate"]
    lag: Duration | None = Field(None, description="the time the change is taken over; default: one row")

    @property
    def reach(self) -> int:
        """How far back it remembers its channels' rows, nanoseconds."""
        return self.lag or 0

    keep: bool = Field(False, description="whether the channel itself stays beside it")


class Rate:
    """Makes a channel of rates of change of each of its channels."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._columns: list[int] = []
        self._lag_s = 1.0

    def outputs(self, inputs: Schema) -> Schema:
        """The other channels, and a new one for each of its own.

        Raises:
            ConfigError: no channel matches, or the lag is no whole number of rows, or far too many.
        """
        duration = self._config.lag or inputs.period
        lag = rows_in(duration, inputs.period, key="lag", most=_LAG_MAX)
        self._lag_s = duration / NS_PER_S
        self._columns = self._config.places(inputs)
        self._delay = Delay(lag, len(self._columns))
        made = [self._rate(inputs.channels[column]) for column in self._columns]
        self._derived = Derived(inputs, made, dropped=() if self._config.keep else self._columns)
        return self._derived.schema

    def _rate(self, channel: Channel) -> Channel:
        made = channel.named("rate", unit=f"{channel.unit or '1'}/s")
        if channel.range is None:
            return made
        fastest = (channel.range[1] - channel.range[0]) / self._lag_s
        return Channel(made.id, made.unit, (-fastest, fastest))

    def apply(self, rows: Rows) -> Rows:
        """Take the change since `lag` ago, per second."""
        values, states = rows.values.take(self._columns, axis=1), rows.states.take(self._columns, axis=1)
        before, states_before = self._delay.push(values, states)
        with np.errstate(over="ignore"):
            change = (values - before) / self._lag_s
        change[np.isinf(change)] = np.nan
        return self._derived.beside(rows, change, missing(change, worst(states, states_before)))


PLUGIN = Plugin(Config, Rate)
