"""How bad a machine's vibration is: zones A to D of a standard, or between limits of one's own.

The zone of a value v, whatever its sign, is the number of limits l[1] < l[2] < l[3] at or below it: 0 to 3
for A to D. With a hysteresis h it rises at once, but falls below limit l only when v < (1 − h)·l:

    zone[t] = min(max(zone[t−1], #{l <= v[t]}), #{(1 − h)·l <= v[t]})

The limits of "iso20816-3" are those that ISO 10816-3:2009 gave in tables A.1 and A.2, whose place ISO
20816-3:2022 has taken. They are for the r.m.s. velocity in mm/s at bearing housings, broad-band from 10 Hz
(2 Hz below 600/min) to 1000 Hz, of industrial machines above 15 kW from 120/min in steady operation; the
largest direction counts. So they want the rms of a velocity over that band, not of an acceleration.

- Group 1: large machines, above 300 kW; electrical machines with a shaft height of 315 mm and more.
- Group 2: medium-sized machines, 15 kW to 300 kW; electrical machines with shafts 160 mm to 315 mm high.
- A support is rigid where the lowest natural frequency of machine and support lies at least 25 % above the
  main excitation (mostly the speed of the shaft), else it is flexible.

Pumps (ISO 10816-7), reciprocating machines (ISO 10816-6) and wind turbines (ISO 10816-21) have limits of
their own. New machines are in A; B is fit for long operation; C is not, plan a repair; D does damage.
"""

from typing import Final, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from dxad.errors import ConfigError
from dxad.fields import TransformSection, distinct, matching
from dxad.plugin import Plugin
from dxad.types import F8, Bools, Channel, Rows, Schema

__all__ = ["PLUGIN", "Classify", "Config"]

I1 = npt.NDArray[np.int8]
Limits = tuple[float, float, float]

_ISO_20816_3: Final[dict[tuple[int, str], Limits]] = {
    (1, "rigid"): (2.3, 4.5, 7.1),
    (1, "flexible"): (3.5, 7.1, 11.0),
    (2, "rigid"): (1.4, 2.8, 4.5),
    (2, "flexible"): (2.3, 4.5, 7.1),
}
"""By group and support: A to B, B to C, C to D, mm/s r.m.s."""

_WORST: Final = 3


class Config(TransformSection):
    """`{ type = "classify", standard = "iso20816-3", group = 2, support = "rigid" }`."""

    type: Literal["classify"]
    standard: Literal["iso20816-3"] | None = Field(None, description="whose limits; or give `limits`")
    group: Literal[1, 2] | None = Field(
        None, description="1 for large machines, above 300 kW; 2 for medium ones, above 15 kW"
    )
    support: Literal["rigid", "flexible"] | None = Field(None, description="what the machine stands on")
    limits: tuple[float, float, float] | None = Field(
        None, strict=False, description="where zones 1, 2 and 3 begin, in place of a standard's limits"
    )
    unit: str = Field("mm/s", description="of `limits`; a channel with another one is refused")
    hysteresis: float = Field(
        0.0, ge=0, lt=1, description="the share of a limit by which a value must fall below it"
    )

    @model_validator(mode="after")
    def _whose(self) -> Self:
        if (self.standard is None) == (self.limits is None):
            raise ValueError("give either standard, or limits of your own")
        if self.standard is not None and (self.group is None or self.support is None):
            raise ValueError(f"{self.standard} has limits by group (1 or 2) and support (rigid or flexible)")
        if self.standard is None and (self.group, self.support) != (None, None):
            raise ValueError("group and support are a standard's: without one they mean nothing")
        if self.standard is not None and self.unit != "mm/s":
            raise ValueError(f"the limits of {self.standard} are in mm/s, not in {self.unit}")
        if self.limits is not None and not 0 < self.limits[0] < self.limits[1] < self.limits[2]:
            raise ValueError("limits do not rise from above zero")
        return self

    def zone_limits(self) -> Limits:
        """Where zones 1, 2 and 3 begin, in `unit`."""
        if self.limits is not None:
            return self.limits
        assert self.group is not None
        assert self.support is not None
        return _ISO_20816_3[self.group, self.support]


class Classify:
    """Puts the zone of each of its channels behind it, `vib.x.rms.zone`, in the state of its input."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._limits = np.array(config.zone_limits())
        self._columns: list[int] = []
        self._zones: I1 = np.empty(0, dtype=np.int8)
        """The zone of each channel in its last row that held a value."""

    def outputs(self, inputs: Schema) -> Schema:
        """All channels as they were, and behind each matching one its zone.

        Raises:
            ConfigError: no channel matches, or one is not in the unit of the limits, or has a zone already.
        """
        self._columns = matching(self._config.channels, inputs.channels)
        if not self._columns:
            raise ConfigError(f"no channel matches {', '.join(self._config.channels)}")
        channels: list[Channel] = []
        chosen = set(self._columns)
        for column, channel in enumerate(inputs.channels):
            channels.append(channel)
            if column in chosen:
                channels.append(self._zone_of(channel))
        self._zones = np.zeros(len(self._columns), dtype=np.int8)
        return Schema(distinct(channels), inputs.period)

    def _zone_of(self, channel: Channel) -> Channel:
        if channel.unit != self._config.unit:
            unit = channel.unit or "no unit"
            raise ConfigError(f"{channel.id!r} is in {unit}, the limits are in {self._config.unit}")
        return channel.named("zone", unit="1")

    def apply(self, rows: Rows) -> Rows:
        """Classify each row."""
        columns = np.asarray(self._columns)
        values, states = rows.values[:, columns], rows.states[:, columns]
        known = ~np.isnan(values)
        zones = self._zones_of(np.abs(values), known)
        behind = columns + 1
        return Rows(
            rows.first,
            rows.period,
            np.insert(rows.values, behind, np.where(known, zones, np.nan), axis=1),
            np.insert(rows.states, behind, states, axis=1),
        )

    def _zones_of(self, values: F8, known: Bools) -> I1:
        """The zones (n, columns) row by row, and the last one kept for the next call.

        Without a hysteresis a zone is its own row's matter. With one, a row takes the zone before it to its
        place in [low, high], and a row without a value lets it be. What rows do one after another is again of
        this form, so all of them are joined in log2(n) steps (W. D. Hillis, G. L. Steele, "Data parallel
        algorithms", CACM 29 (1986) 1170-1183); in whole numbers, so no order of joining changes the result.
        """
        low = _reached(values, self._limits)
        if not self._config.hysteresis:
            return low
        high = _reached(values, self._limits * (1 - self._config.hysteresis))
        high[~known] = _WORST
        back = 1
        while back < len(values):
            joined = [np.clip(end[:-back], low[back:], high[back:]) for end in (low, high)]
            low, high = (
                np.concatenate((end[:back], rest)) for end, rest in zip((low, high), joined, strict=True)
            )
            back *= 2
        zones: I1 = np.clip(self._zones, low, high)
        if len(zones):
            self._zones = zones[-1]
        return zones


def _reached(values: F8, limits: F8) -> I1:
    """How many of the limits each value is at or above; 0 where nothing is known."""
    count = np.zeros(values.shape, dtype=np.int8)
    for limit in limits:
        count += values >= limit
    return count


PLUGIN = Plugin(Config, Classify)
