"""Integral over time, by the trapezoidal rule, with a reset and a leak.

    I[t] = exp(-p / leak) · I[t-1] + (x[t-1] + x[t]) / 2 · p / per,  and I[t] = 0 in a row where `reset` holds

with p the rows' period; without `leak` nothing is lost. I begins at 0 with the first value. A new channel
`plc.flow.integral`, in the channel's unit times `per`: of l/min with `per = "1min"` it is in litres, which
`unit` says. A stretch without values adds nothing, since nobody knows what happened in it; the integral has
no value there and goes on from where it was. It begins at 0 again when the pipeline is started.

Source: M. Abramowitz, I. A. Stegun, "Handbook of Mathematical Functions", 25.4.1, the trapezoidal rule.
"""

import math
from typing import Literal

import numpy as np
from pydantic import Field

from dxad.errors import ConfigError
from dxad.expression import Expression, compile_expression
from dxad.fields import Duration, Formula, TransformSection
from dxad.plugin import Plugin
from dxad.signal.derive import Derived, missing
from dxad.signal.recurrence import Recurrence
from dxad.types import F8, NS_PER_S, Bools, Channel, Rows, Schema

__all__ = ["PLUGIN", "Config", "Integrate"]


class Config(TransformSection):
    """`{ type = "integrate", channels = ["plc.flow"], per = "1min", unit = "l" }`."""

    type: Literal["integrate"]
    per: Duration = Field(NS_PER_S, gt=0, description="the time in the channel's unit: l/min is per 1min")
    unit: str | None = Field(None, description="the unit of the result; default: the channel's, times `per`")
    leak: Duration | None = Field(
        None, gt=0, description="the time in which all but 37 % of it is forgotten; without it, nothing is"
    )
    reset: Formula | None = Field(None, description="rows in which this holds begin at 0 again")
    keep: bool = Field(True, description="whether the channel itself stays beside it")


class Integrate:
    """Makes a channel of integrals of each of its channels."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._columns: list[int] = []
        self._share = self._weight = 1.0
        self._before: F8 = np.empty((1, 0))
        self._reset: Expression | None = None
        self._read: list[int] = []

    def outputs(self, inputs: Schema) -> Schema:
        """The other channels, and a new one for each of its own.

        Raises:
            ConfigError: no channel matches, or the reset reads one that is not there.
        """
        config = self._config
        self._columns = config.places(inputs)
        self._share = 1.0 if config.leak is None else math.exp(-inputs.period / config.leak)
        self._weight = inputs.period / config.per / 2
        self._before = np.full((1, len(self._columns)), np.nan)
        self._recurrence = Recurrence(len(self._columns))
        if config.reset is not None:
            self._reset = compile_expression(config.reset)
            try:
                self._read = self._reset.places(inputs.channels)
            except ConfigError as error:
                raise ConfigError(f"reset: {error}") from error
        made = [self._integral(inputs.channels[column]) for column in self._columns]
        self._derived = Derived(inputs, made, dropped=() if config.keep else self._columns)
        return self._derived.schema

    def _integral(self, channel: Channel) -> Channel:
        seconds = self._config.per / NS_PER_S
        per = "s" if seconds == 1 else f"({seconds:g} s)"
        unit = f"{channel.unit}*{per}" if channel.unit else per
        return channel.named("integral", unit=unit if self._config.unit is None else self._config.unit)

    def apply(self, rows: Rows) -> Rows:
        """Add the area under the rows."""
        values, states = rows.values.take(self._columns, axis=1), rows.states.take(self._columns, axis=1)
        known = np.concatenate((self._before, values))
        self._before = known[-1:].copy()
        with np.errstate(over="ignore"):
            area = (known[:-1] + known[1:]) * self._weight
        area[~np.isfinite(area)] = 0.0
        share = np.full(area.shape, self._share)
        begin = self._begin(rows)
        area[begin] = share[begin] = 0.0
        total = self._recurrence.push(rows.first, share, area)
        total[np.isnan(values)] = np.nan
        return self._derived.beside(rows, total, missing(total, states))

    def _begin(self, rows: Rows) -> Bools:
        """(n,): where the integral is 0; what is not known resets nothing."""
        if self._reset is None:
            return np.zeros(len(rows), dtype=np.bool_)
        columns = zip(self._reset.names, self._read, strict=True)
        holds = self._reset({name: rows.values[:, column] for name, column in columns})
        begin: Bools = (holds != 0) & ~np.isnan(holds)
        return begin


PLUGIN = Plugin(Config, Integrate)
