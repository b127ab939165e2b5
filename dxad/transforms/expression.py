"""A new channel from a formula over others: `plc.power / plc.flow`.

What a formula may say stands in `dxad.expression`. The result is as good as the worst of the cells it reads:
missing where one of them is, HELD where one is held. A result that is not finite (a division by zero) is
BAD. One that is known although a cell it reads is missing, by `isnan(x)` or a branch that is not taken, is
UNCERTAIN.
"""

from typing import Literal

import numpy as np
from pydantic import Field

from dxad.errors import ConfigError
from dxad.expression import compile_expression
from dxad.fields import ChannelId, Formula, TransformSection
from dxad.plugin import Plugin
from dxad.signal.derive import Derived, as_far_as_known, worst_of_row
from dxad.types import Channel, Rows, Schema

__all__ = ["PLUGIN", "Config", "ExpressionTransform"]


class Config(TransformSection):
    """`{ type = "expression", name = "plc.specific", formula = "plc.power / plc.flow", unit = "kWh/m3" }`."""

    type: Literal["expression"]
    name: ChannelId = Field(description="the id of the new channel")
    formula: Formula = Field(description="arithmetic over channels")
    unit: str = Field("", description="the unit of the result")
    range: tuple[float, float] | None = Field(
        None, strict=False, description="the results that are physically possible; others are bad"
    )
    keep: bool = Field(True, description="whether the channels it reads stay beside it")


class ExpressionTransform:
    """Makes one channel; `channels` are those that its formula may read."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._formula = compile_expression(config.formula)
        self._columns: list[int] = []

    def outputs(self, inputs: Schema) -> Schema:
        """The inputs and the new channel.

        Raises:
            ConfigError: the formula reads a channel that is not there, or not among `channels`.
        """
        config = self._config
        offered = [inputs.channels[column] for column in config.places(inputs)]
        try:
            self._formula.places(offered)
        except ConfigError as error:
            raise ConfigError(f"formula: {error}") from error
        self._columns = self._formula.places(inputs.channels)
        made = Channel(config.name, config.unit, config.range)
        self._derived = Derived(inputs, [made], dropped=() if config.keep else self._columns)
        return self._derived.schema

    def apply(self, rows: Rows) -> Rows:
        """Work the formula out, row by row."""
        columns = zip(self._formula.names, self._columns, strict=True)
        made = self._formula({name: rows.values[:, column] for name, column in columns})
        if self._config.range is not None:
            low, high = self._config.range
            made[(made < low) | (made > high)] = np.nan
        states = as_far_as_known(made, worst_of_row(rows.states.take(self._columns, axis=1)))
        return self._derived.beside(rows, made[:, None], states[:, None])


PLUGIN = Plugin(Config, ExpressionTransform)
