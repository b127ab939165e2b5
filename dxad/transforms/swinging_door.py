"""Swinging door: a trend in straight lines, none of them further from a value than the band.

From the pivot (t0, v0), two doors hinge at v0 + band and v0 - band. Each value narrows the slopes that a line
from the pivot may have if it is to pass all values so far within the band:

    upper[t] = min(upper[t-1], (x[t] - v0 + band) / (t - t0))
    lower[t] = max(lower[t-1], (x[t] - v0 - band) / (t - t0))

When they cross, no such line is left: the value before becomes the new pivot, and the doors begin there.

What a row yields is causal and without delay: `trend` is the line down the middle of the doors at that row,
`v0 + (t - t0) · (upper + lower) / 2`, which lies within the band of its value; `pivot` is v0, the last value
that an archive would have stored, and so changes only where one is stored. A cell without a value stays
without one and moves nothing. Values are in the channel's unit, t in rows.

Source: E. H. Bristol, "Swinging Door Trending: Adaptive Trend Recording?", ISA National Conf. Proc. (1990);
US patent 4,669,097 (1987).
"""

from typing import Literal

import numpy as np
from pydantic import Field

from dxad.fields import BandSection
from dxad.plugin import Plugin
from dxad.types import F8, Rows, Schema

__all__ = ["PLUGIN", "Config", "SwingingDoor"]


class Config(BandSection):
    """`{ type = "swinging_door", channels = ["plc.*"], band = 1, kind = "percent" }`."""

    type: Literal["swinging_door"]
    yields: Literal["trend", "pivot"] = Field(
        "trend", description="the line within the doors, or the last value that began a line"
    )


class SwingingDoor:
    """Follows each of its channels with a line; states are unchanged."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._columns: list[int] = []
        self._band: F8 = np.empty(0)
        self._doors: F8 = np.empty((0, 0))

    def outputs(self, inputs: Schema) -> Schema:
        """The same channels.

        Raises:
            ConfigError: no channel matches, or the band is in percent and a channel has no range.
        """
        self._columns = self._config.places(inputs)
        self._band = np.array(self._config.widths(inputs.channels[column] for column in self._columns))
        # By row: the pivot's slot and value, the slot and the value last seen, upper, lower; NaN before any.
        self._doors = np.full((6, len(self._columns)), np.nan)
        return inputs

    def apply(self, rows: Rows) -> Rows:
        """Replace the columns by their trend, or by its pivots."""
        mine = rows.values[:, self._columns]
        made = np.empty_like(mine)
        with np.errstate(all="ignore"):  # NaN before the first value, and in cells without one
            for row in range(len(mine)):
                made[row] = self._row(float(rows.first + row), mine[row])
        values = rows.values.copy()
        values[:, self._columns] = np.where(np.isnan(mine), np.nan, made)
        return rows.with_values(values)

    def _row(self, slot: float, x: F8) -> F8:
        pivot_slot, pivot, last_slot, last, upper, lower = self._doors
        rise, run = x - pivot, slot - pivot_slot
        np.fmin(upper, (rise + self._band) / run, out=upper)
        np.fmax(lower, (rise - self._band) / run, out=lower)
        crossed = upper < lower
        if crossed.any():
            np.copyto(pivot_slot, last_slot, where=crossed)
            np.copyto(pivot, last, where=crossed)
            rise, run = x - pivot, slot - pivot_slot
            np.copyto(upper, (rise + self._band) / run, where=crossed)
            np.copyto(lower, (rise - self._band) / run, where=crossed)
        known = x == x  # noqa: PLR0124 - not NaN
        np.copyto(last_slot, slot, where=known)
        np.copyto(last, x, where=known)
        first = known & np.isnan(pivot)
        if first.any():
            np.copyto(pivot_slot, slot, where=first)
            np.copyto(pivot, x, where=first)
            return np.where(first, x, self._given(run, pivot, upper, lower))
        return self._given(run, pivot, upper, lower)

    def _given(self, run: F8, pivot: F8, upper: F8, lower: F8) -> F8:
        if self._config.yields == "pivot":
            return pivot
        return pivot + run * ((upper + lower) / 2)


PLUGIN = Plugin(Config, SwingingDoor)
