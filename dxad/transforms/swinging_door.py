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

import math
from typing import Literal

from pydantic import Field

from dxad.fields import BandSection
from dxad.plugin import Plugin
from dxad.types import Rows, Schema

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
        self._doors: list[_Door] = []

    def outputs(self, inputs: Schema) -> Schema:
        """The same channels.

        Raises:
            ConfigError: no channel matches, or the band is in percent and a channel has no range.
        """
        self._columns = self._config.places(inputs)
        widths = self._config.widths(inputs.channels[column] for column in self._columns)
        self._doors = [_Door(width, trend=self._config.yields == "trend") for width in widths]
        return inputs

    def apply(self, rows: Rows) -> Rows:
        """Replace the columns by their trend, or by its pivots."""
        values = rows.values.copy()
        for column, door in zip(self._columns, self._doors, strict=True):
            values[:, column] = door.follow(rows.first, rows.values[:, column].tolist())
        return rows.with_values(values)


class _Door:
    """One channel. Plain numbers: a step is a few comparisons, which arrays of a row would only slow down."""

    def __init__(self, band: float, *, trend: bool) -> None:
        self._band = band
        self._trend = trend
        self._pivot = self._last = (0, math.nan)
        """Slot and value."""
        self._upper, self._lower = math.inf, -math.inf

    def follow(self, slot: int, values: list[float]) -> list[float]:
        """What each of the values of consecutive slots becomes."""
        (pivot_slot, pivot), last = self._pivot, self._last
        upper, lower, band = self._upper, self._lower, self._band
        trend, made = self._trend, []
        for here, x in enumerate(values, slot):
            if x != x:  # noqa: PLR0124 - NaN
                made.append(x)
                continue
            if pivot != pivot:  # noqa: PLR0124 - the first value there is
                pivot_slot, pivot = here, x
                made.append(x)
            else:
                run, rise = here - pivot_slot, x - pivot
                steepest, flattest = (rise + band) / run, (rise - band) / run
                if steepest < upper:  # noqa: PLR1730 - a call would take twice the time
                    upper = steepest
                if flattest > lower:  # noqa: PLR1730 - likewise
                    lower = flattest
                if upper < lower:
                    pivot_slot, pivot = last
                    run, rise = here - pivot_slot, x - pivot
                    upper, lower = (rise + band) / run, (rise - band) / run
                made.append(pivot + run * ((upper + lower) / 2) if trend else pivot)
            last = here, x
        self._pivot, self._last = (pivot_slot, pivot), last
        self._upper, self._lower = upper, lower
        return made


PLUGIN = Plugin(Config, SwingingDoor)
