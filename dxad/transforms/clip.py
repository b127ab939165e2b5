"""Limits: `y = min(max(x, low), high)`, in the channel's unit; or what lies outside is no value at all.

Source: numpy.clip; a cell that is bad for its range is what OPC UA calls Bad_OutOfRange (OPC 10000-4, §7.39).
"""

from collections.abc import Sequence
from typing import Literal, Self

import numpy as np
from pydantic import Field, model_validator

from dxad.fields import TransformSection, side_by_side
from dxad.plugin import Plugin
from dxad.signal.derive import limited
from dxad.types import Columns, Rows, Schema, State

__all__ = ["PLUGIN", "Clip", "Config"]


class Config(TransformSection):
    """`{ type = "clip", channels = ["plc.flow"], low = 0, high = 400 }`."""

    type: Literal["clip"]
    low: float | None = Field(
        None, strict=False, allow_inf_nan=False, description="the least value; without it, none"
    )
    high: float | None = Field(
        None, strict=False, allow_inf_nan=False, description="the greatest value; without it, none"
    )
    outside: Literal["edge", "bad"] = Field(
        "edge", description="what a value outside becomes: the nearest limit, or a bad cell"
    )

    @model_validator(mode="after")
    def _limits(self) -> Self:
        if self.low is None and self.high is None:
            raise ValueError("give low, high or both")
        if self.low is not None and self.high is not None and not self.low < self.high:
            raise ValueError(f"low {self.low:g} is not below high {self.high:g}")
        return self


class Clip:
    """Holds its channels within the limits."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._low = -np.inf if config.low is None else config.low
        self._high = np.inf if config.high is None else config.high
        self._chosen: Columns = []
        self._ids: list[str] = []

    @property
    def doubted(self) -> Sequence[str]:
        """Its channels, if what lies outside the limits is bad."""
        return self._ids if self._config.outside == "bad" else ()

    def outputs(self, inputs: Schema) -> Schema:
        """The same channels, with the range that is left.

        Raises:
            ConfigError: no channel matches, or nothing of a channel's range would be left.
        """
        columns = self._config.places(inputs)
        self._chosen = side_by_side(columns)
        channels = list(inputs.channels)
        self._ids = [channels[column].id for column in columns]
        for column in columns:
            channels[column] = limited(channels[column], self._config.low, self._config.high)
        return Schema(tuple(channels), inputs.period)

    def apply(self, rows: Rows) -> Rows:
        """Limit the columns."""
        values = rows.values.copy()
        mine = values[:, self._chosen]  # a view, where the columns stand side by side
        if self._config.outside == "edge":
            np.maximum(mine, self._low, out=mine)
            np.minimum(mine, self._high, out=mine)
            if not isinstance(self._chosen, slice):
                values[:, self._chosen] = mine
            return rows.with_values(values)
        out = (mine < self._low) | (mine > self._high)
        states = rows.states.copy()
        values[:, self._chosen] = np.where(out, np.nan, mine)
        states[:, self._chosen] = np.where(out, np.uint8(State.BAD), states[:, self._chosen])
        return rows.with_values(values, states)


PLUGIN = Plugin(Config, Clip)
