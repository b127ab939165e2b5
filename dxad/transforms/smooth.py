"""Moving average: `y[t] = mean(x[t - span + 1 .. t])`, causal, over the cells that hold a value.

Source: S. W. Smith, "The Scientist and Engineer's Guide to DSP", ch. 15.
"""

from typing import Final, Literal

import numpy as np
from pydantic import Field

from dxad.errors import ConfigError
from dxad.fields import Duration, TransformSection, matching
from dxad.plugin import Plugin
from dxad.types import F8, Rows, Schema

__all__ = ["PLUGIN", "Config", "Smooth"]

_SPAN_MAX: Final = 10_000
"""Rows; each of them costs an addition per batch."""


class Config(TransformSection):
    """`{ type = "smooth", channels = ["vib.*"], span = "1s" }`."""

    type: Literal["smooth"]
    span: Duration = Field(description="how far back the mean reaches")


class Smooth:
    """Averages each of its channels over the span; a cell without a value of its own stays without one."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._columns: list[int] = []
        self._tail: F8 = np.empty((0, 0))

    def outputs(self, inputs: Schema) -> Schema:
        """The same channels.

        Raises:
            ConfigError: no channel matches, or the span is no whole number of rows, or far too many.
        """
        if self._config.span % inputs.period or self._config.span < inputs.period:
            raise ConfigError(f"span is no multiple of the rows' period, {inputs.period / 1e6:g} ms")
        rows = self._config.span // inputs.period
        if rows > _SPAN_MAX:
            raise ConfigError(f"span is {rows} rows; {_SPAN_MAX} at most")
        self._columns = matching(self._config.channels, inputs.channels)
        if not self._columns:
            raise ConfigError(f"no channel matches {', '.join(self._config.channels)}")
        self._tail = np.full((rows - 1, len(self._columns)), np.nan)
        return inputs

    def apply(self, rows: Rows) -> Rows:
        """Replace the columns by their means."""
        n, before = len(rows), len(self._tail)
        mine = rows.values[:, self._columns]
        known = np.vstack((self._tail, mine))
        present = ~np.isnan(known)
        known = np.where(present, known, 0.0)
        # One addition per row of the span, in the same order for every cell: the sum of a window must not
        # depend on where a batch began, and neither a running sum nor numpy's own reduction promises that.
        total = np.zeros_like(mine)
        count = np.zeros(mine.shape, dtype=np.int64)
        for back in range(before + 1):
            total += known[back : back + n]
            count += present[back : back + n]
        values = rows.values.copy()
        values[:, self._columns] = np.where(np.isnan(mine), np.nan, total / np.maximum(count, 1))
        self._tail = np.vstack((self._tail, mine))[n:]
        return rows.with_values(values)


PLUGIN = Plugin(Config, Smooth)
