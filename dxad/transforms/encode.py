"""One-hot code of a channel that tells a state: `y_v[t] = 1 if x[t] = v else 0` for each of its values v.

New channels, without a unit and in the range 0 to 1: of `plc.mode` with the values 1 and 2, `plc.mode.is_1`
and `plc.mode.is_2`. A dot in a value becomes `_`. Their states are those of the channel; a value that is not
among those given is 0 in all of them, or a bad cell.

Source: D. B. Suits, "Use of Dummy Variables in Regression Equations", JASA 52 (1957), p. 548.
"""

from typing import Annotated, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from dxad.fields import TransformSection
from dxad.plugin import Plugin
from dxad.signal.derive import Derived
from dxad.types import Channel, Rows, Schema, State

__all__ = ["PLUGIN", "Config", "Encode"]


class Config(TransformSection):
    """`{ type = "encode", channels = ["plc.mode"], values = [0, 1, 2] }`."""

    type: Literal["encode"]
    values: tuple[Annotated[float, Field(allow_inf_nan=False)], ...] = Field(
        strict=False, min_length=1, max_length=64, description="the states there are, a channel for each"
    )
    unseen: Literal["zero", "bad"] = Field(
        "zero", description="what another value becomes: 0 in all channels, or bad cells"
    )
    keep: bool = Field(False, description="whether the channel itself stays beside them")

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        if len(set(self.values)) < len(self.values):
            raise ValueError("a value stands among values twice")
        return self


class Encode:
    """Makes a channel for each value of each of its channels."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._values = np.array(config.values)
        self._columns: list[int] = []

    def outputs(self, inputs: Schema) -> Schema:
        """The other channels, and the new ones, channel by channel.

        Raises:
            ConfigError: no channel matches.
        """
        self._columns = self._config.places(inputs)
        made = [
            Channel(f"{inputs.channels[column].id}.is_{_written(value)}", "", (0.0, 1.0))
            for column in self._columns
            for value in self._config.values
        ]
        self._derived = Derived(inputs, made, dropped=() if self._config.keep else self._columns)
        return self._derived.schema

    def apply(self, rows: Rows) -> Rows:
        """Compare the columns with each value."""
        values, states = rows.values.take(self._columns, axis=1), rows.states.take(self._columns, axis=1)
        same = values[:, :, None] == self._values
        made = np.where(np.isnan(values)[:, :, None], np.nan, same.astype(np.float64))
        if self._config.unseen == "bad":
            unseen = ~np.isnan(values) & ~same.any(axis=2)
            made[unseen] = np.nan
            states = np.where(unseen, np.uint8(State.BAD), states)
        width = len(self._columns) * len(self._values)
        spread = np.repeat(states, len(self._values), axis=1)
        return self._derived.beside(rows, made.reshape(len(rows), width), spread)


def _written(value: float) -> str:
    text = str(int(value)) if value.is_integer() else repr(value)
    return text.replace(".", "_")


PLUGIN = Plugin(Config, Encode)
