"""Deadband: a value is repeated until it has moved by more than the band.

`y[t] = x[t] if |x[t] - y[t-1]| > band else y[t-1]`, in the channel's unit; the first value passes as it is.
In percent, `band = percent / 100 · (high - low)` of the channel's range. A cell without a value stays without
one, and the next one is compared with the last that was given.

Source: OPC UA Part 4 (OPC 10000-4), §7.22.2, AbsoluteDeadband; Part 8 (OPC 10000-8), §7.2, PercentDeadband.
"""

from typing import Literal

import numpy as np

from dxad.fields import BandSection
from dxad.plugin import Plugin
from dxad.types import F8, Rows, Schema

__all__ = ["PLUGIN", "Config", "Deadband"]


class Config(BandSection):
    """`{ type = "deadband", channels = ["plc.flow"], band = 0.5 }`."""

    type: Literal["deadband"]


class Deadband:
    """Holds each of its channels until it moves; states are unchanged."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._columns: list[int] = []
        self._band: F8 = np.empty(0)
        self._last: F8 = np.empty(0)

    def outputs(self, inputs: Schema) -> Schema:
        """The same channels.

        Raises:
            ConfigError: no channel matches, or the band is in percent and a channel has no range.
        """
        self._columns = self._config.places(inputs)
        self._band = np.array(self._config.widths(inputs.channels[column] for column in self._columns))
        self._last = np.full(len(self._columns), np.inf)  # whatever comes first has moved
        return inputs

    def apply(self, rows: Rows) -> Rows:
        """Replace the columns by what was last given."""
        mine = rows.values[:, self._columns]
        held = np.empty_like(mine)
        last, band = self._last, self._band
        distance, moved = np.empty_like(last), np.empty(len(last), dtype=np.bool_)
        for x, y in zip(mine, held, strict=True):
            np.subtract(x, last, out=distance)
            np.absolute(distance, out=distance)
            np.greater(distance, band, out=moved)  # never so for NaN
            np.copyto(last, x, where=moved)
            y[:] = last
        values = rows.values.copy()
        values[:, self._columns] = np.where(np.isnan(mine), np.nan, held)
        return rows.with_values(values)


PLUGIN = Plugin(Config, Deadband)
