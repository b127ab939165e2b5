"""Linear rescaling: `y = factor * x + offset`, in the unit of the result."""

from typing import Literal

from pydantic import Field

from dxad.errors import ConfigError
from dxad.fields import TransformSection, side_by_side
from dxad.plugin import Plugin
from dxad.types import Channel, Columns, Rows, Schema

__all__ = ["PLUGIN", "Config", "Scale"]


class Config(TransformSection):
    """`{ type = "scale", channels = ["plc.flow"], factor = 0.06, unit = "m3/h" }`."""

    type: Literal["scale"]
    factor: float = Field(1.0, strict=False, description="result = factor * value + offset")
    offset: float = Field(0.0, strict=False, description="in the unit of the result")
    unit: str | None = Field(None, description="the unit of the result; default: unchanged")


class Scale:
    """Applies the same line to all its channels; states are unchanged."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._chosen: Columns = []

    def outputs(self, inputs: Schema) -> Schema:
        """The same channels, with their new unit and range.

        Raises:
            ConfigError: no channel matches, or the factor is zero.
        """
        if self._config.factor == 0:
            raise ConfigError("factor 0 would erase the channel")
        columns = self._config.places(inputs)
        self._chosen = side_by_side(columns)
        channels = list(inputs.channels)
        for column in columns:
            channels[column] = self._rescaled(channels[column])
        return Schema(tuple(channels), inputs.period)

    def _rescaled(self, channel: Channel) -> Channel:
        unit = channel.unit if self._config.unit is None else self._config.unit
        if channel.range is None:
            return Channel(channel.id, unit)
        low, high = sorted(self._config.factor * end + self._config.offset for end in channel.range)
        return Channel(channel.id, unit, (low, high))

    def apply(self, rows: Rows) -> Rows:
        """Rescale the columns."""
        values = rows.values.copy()
        mine = values[:, self._chosen]  # a view, where the columns stand side by side
        mine *= self._config.factor
        mine += self._config.offset
        if not isinstance(self._chosen, slice):
            values[:, self._chosen] = mine
        return rows.with_values(values)


PLUGIN = Plugin(Config, Scale)
