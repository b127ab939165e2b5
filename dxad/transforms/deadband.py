"""Deadband: a value is repeated until it has moved by more than the band.

`y[t] = x[t] if |x[t] - y[t-1]| > band else y[t-1]`, in the channel's unit; the first value passes as it is.
In percent, `band = percent / 100 · (high - low)` of the channel's range. A cell without a value stays without
one, and the next one is compared with the last that was given.

Source: OPC UA Part 4 (OPC 10000-4), §7.22.2, AbsoluteDeadband; Part 8 (OPC 10000-8), §7.2, PercentDeadband.
"""

import math
from typing import Literal

from dxad.fields import BandSection
from dxad.plugin import Plugin
from dxad.types import Rows, Schema

__all__ = ["PLUGIN", "Config", "Deadband"]


class Config(BandSection):
    """`{ type = "deadband", channels = ["plc.flow"], band = 0.5 }`."""

    type: Literal["deadband"]


class Deadband:
    """Holds each of its channels until it moves; states are unchanged."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._columns: list[int] = []
        self._bands: list[float] = []
        self._last: list[float] = []

    def outputs(self, inputs: Schema) -> Schema:
        """The same channels.

        Raises:
            ConfigError: no channel matches, or the band is in percent and a channel has no range.
        """
        self._columns = self._config.places(inputs)
        self._bands = self._config.widths(inputs.channels[column] for column in self._columns)
        self._last = [math.inf] * len(self._columns)  # whatever comes first has moved
        return inputs

    def apply(self, rows: Rows) -> Rows:
        """Replace the columns by what was last given."""
        values = rows.values.copy()
        for place, column in enumerate(self._columns):
            # Plain numbers, channel by channel: numpy would need five calls for every row.
            band, last, given = self._bands[place], self._last[place], []
            for x in rows.values[:, column].tolist():
                if abs(x - last) > band:  # never so for NaN
                    last = x
                given.append(last if x == x else x)  # noqa: PLR0124 - NaN stays
            values[:, column] = given
            self._last[place] = last
        return rows.with_values(values)


PLUGIN = Plugin(Config, Deadband)
