"""A new channel from a Python function of one's own, found by an entry point in the group `dxad.functions`.

    [project.entry-points."dxad.functions"]              # in the pyproject.toml of any installed package
    dew_point = "plant.air:dew_point"

    def dew_point(columns):                              # in plant/air.py; columns by channel id, each (n,)
        t, rh = columns["air.temperature"], columns["air.humidity"]
        gamma = np.log(rh / 100) + 17.62 * t / (243.12 + t)
        return 243.12 * gamma / (17.62 - gamma)          # (n,)

It is given a batch of rows, f8 arrays of its own to do with what it likes, NaN where a cell has no value, and
returns as many numbers. How rows are cut into batches is not its business: it must not remember anything, and
each result must depend on its own row alone. The result is as good as the worst of the row's cells, BAD where
it is not finite, and UNCERTAIN where it is known although a cell is missing.

A function that raises, or returns something else, costs its own channel alone: its cells are BAD in that
batch, and `fault` says what happened. Nothing is raised, since the other channels are sound. It runs on the
thread of all pipelines, with all rights of the daemon, and nothing bounds its time: install what you trust.
"""

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from pydantic import Field

from dxad import plugin
from dxad.errors import FOREIGN_FAULTS
from dxad.fields import ChannelId, TransformSection
from dxad.plugin import Plugin
from dxad.signal.derive import Derived, as_far_as_known, worst_of_row
from dxad.types import F8, Channel, Rows, Schema, State

__all__ = ["PLUGIN", "Call", "Config"]


class Config(TransformSection):
    """`{ type = "call", function = "dew_point", channels = ["air.*"], name = "air.dew_point" }`."""

    type: Literal["call"]
    function: str = Field(description="its name among the entry points of the group dxad.functions")
    name: ChannelId = Field(description="the id of the new channel")
    unit: str = Field("", description="the unit of the result")
    range: tuple[float, float] | None = Field(
        None, strict=False, description="the results that are physically possible; others are bad"
    )
    keep: bool = Field(True, description="whether the channels it is given stay beside it")


class Call:
    """Makes one channel of all of its channels."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._columns: list[int] = []
        self._names: list[str] = []
        self._function: Callable[..., Any] = _nothing
        self.fault: str | None = None
        """What went wrong in the last batch; None when nothing did."""

    def outputs(self, inputs: Schema) -> Schema:
        """The inputs and the new channel.

        Raises:
            ConfigError: no channel matches, or there is no such function.
        """
        config = self._config
        self._columns = config.places(inputs)
        self._names = [inputs.channels[column].id for column in self._columns]
        self._function = plugin.function(config.function)
        made = Channel(config.name, config.unit, config.range)
        self._derived = Derived(inputs, [made], dropped=() if config.keep else self._columns)
        return self._derived.schema

    def apply(self, rows: Rows) -> Rows:
        """Call the function, once."""
        made = self._results(rows)
        if self._config.range is not None:
            low, high = self._config.range
            made[(made < low) | (made > high)] = np.nan
        states = as_far_as_known(made, worst_of_row(rows.states.take(self._columns, axis=1)))
        if self.fault is not None:
            states[:] = State.BAD
        return self._derived.beside(rows, made[:, None], states[:, None])

    def _results(self, rows: Rows) -> F8:
        """(n,): finite or NaN."""
        nothing = np.full(len(rows), np.nan)
        self.fault = None
        if not len(rows):
            return nothing
        columns = rows.values.T[self._columns].copy()
        given = dict(zip(self._names, columns, strict=True))
        try:
            with np.errstate(all="ignore"):
                found = np.array(self._function(given), dtype=np.float64)
        except FOREIGN_FAULTS as error:
            self.fault = f"{self._config.function}: {type(error).__name__}: {error}"
            return nothing
        if found.shape != nothing.shape:
            shape = f"the shape {found.shape}, not {nothing.shape}"
            self.fault = f"{self._config.function}: its result has {shape}, one number for each row"
            return nothing
        found[~np.isfinite(found)] = np.nan
        return found


def _nothing(columns: dict[str, F8]) -> F8:
    return np.full(len(next(iter(columns.values()))), np.nan)


PLUGIN = Plugin(Config, Call)
