"""Smoothing, causal, over the cells that hold a value; units are unchanged. N is the span in rows.

- `mean`:   y[t] = mean(x[t-N+1 .. t])
- `median`: y[t] = median(x[t-N+1 .. t]); of an even number, the mean of the two in the middle
- `ewma`:   y[t] = (1 - a) · y[t-1] + a · x[t] with a = 2 / (N + 1), so that what goes in is on average as old
  as in a mean over N rows; y begins with the first value, and anew after N rows without one

Sources: S. W. Smith, "The Scientist and Engineer's Guide to DSP", ch. 15 (mean); J. W. Tukey, "Exploratory
Data Analysis" (1977), ch. 7 (median); S. W. Roberts, "Control Chart Tests Based on Geometric Moving
Averages", Technometrics 1 (1959), p. 239 (ewma), with the span as in pandas, `DataFrame.ewm(span=N)`.
"""

from typing import Final, Literal, Protocol

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from pydantic import Field

from dxad.errors import ConfigError
from dxad.fields import Duration, TransformSection, rows_in, side_by_side
from dxad.plugin import Plugin
from dxad.signal.moving import moving_sum
from dxad.signal.recurrence import Recurrence
from dxad.types import F8, Columns, Rows, Schema

__all__ = ["PLUGIN", "Config", "Smooth"]

_SPAN_MAX: Final = 10_000
"""Rows; they are kept."""
_SPAN_MAX_MEDIAN: Final = 1000
"""Rows; they are sorted for each row."""
_SORTED_AT_ONCE: Final = 1 << 18
"""Cells: what a median holds in memory for a moment, 2 MiB."""
_LONG_AGO: Final = -(1 << 62)


class Config(TransformSection):
    """`{ type = "smooth", channels = ["vib.*"], span = "1s" }`."""

    type: Literal["smooth"]
    span: Duration = Field(description="how far back it reaches; for ewma, the span of a mean as smooth")
    method: Literal["mean", "ewma", "median"] = Field("mean", description="how it is smoothed")

    @property
    def reach(self) -> int:
        """How far back it remembers its channels' rows, nanoseconds."""
        return 0 if self.method == "ewma" else self.span


class _Method(Protocol):
    def push(self, first: int, x: F8) -> F8:
        """Smooth consecutive rows (n, channels); what it says of a cell without a value does not matter."""


class Smooth:
    """Smooths each of its channels; a cell without a value of its own stays without one."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._chosen: Columns = []
        self._method: _Method = _Mean(1, 0)

    def outputs(self, inputs: Schema) -> Schema:
        """The same channels.

        Raises:
            ConfigError: no channel matches, or the span is no whole number of rows, or far too many.
        """
        rows = rows_in(self._config.span, inputs.period, key="span", most=_SPAN_MAX)
        columns = self._config.places(inputs)
        self._chosen = side_by_side(columns)
        width = len(columns)
        match self._config.method:
            case "mean":
                self._method = _Mean(rows, width)
            case "ewma":
                self._method = _Ewma(rows, width)
            case "median":
                if rows > _SPAN_MAX_MEDIAN:
                    raise ConfigError(f"span is {rows} rows; {_SPAN_MAX_MEDIAN} at most for a median")
                self._method = _Median(rows, width)
        return inputs

    def apply(self, rows: Rows) -> Rows:
        """Replace the columns by their smoothed selves."""
        mine = rows.values[:, self._chosen]
        smoothed = self._method.push(rows.first, mine)
        missing = np.isnan(mine)
        if missing.any():
            smoothed[missing] = np.nan
        if smoothed.shape == rows.values.shape:
            return rows.with_values(smoothed)
        values = rows.values.copy()
        values[:, self._chosen] = smoothed
        return rows.with_values(values)


class _Mean:
    def __init__(self, span: int, channels: int) -> None:
        self._tail = np.full((span - 1, channels), np.nan)

    def push(self, first: int, x: F8) -> F8:  # noqa: ARG002 - the window moves with the rows
        known = np.concatenate((self._tail, x))
        self._tail = known[len(x) :]
        span = len(self._tail) + 1
        present = ~np.isnan(known)
        if present.all():
            whole: F8 = moving_sum(known, span)
            whole /= span
            return whole
        count = moving_sum(present.astype(np.int64), span)
        total: F8 = moving_sum(np.where(present, known, 0.0), span)
        mean: F8 = total / np.maximum(count, 1)
        return mean


class _Ewma:
    def __init__(self, span: int, channels: int) -> None:
        self._span = span
        self._new = 2 / (span + 1)
        self._recurrence = Recurrence(channels)
        self._last = np.full(channels, _LONG_AGO)
        """The slot of the last value."""

    def push(self, first: int, x: F8) -> F8:
        if not len(x):
            return x
        present = ~np.isnan(x)
        if present.all():
            old, new = np.full(x.shape, 1 - self._new), self._new * x
            anew = first - self._last > self._span
            old[0, anew], new[0, anew] = 0.0, x[0, anew]
            self._last = np.full(x.shape[1], first + len(x) - 1)
            return self._recurrence.push(first, old, new)
        slots = first + np.arange(len(x))[:, None]
        seen = np.maximum.accumulate(np.concatenate((self._last[None], np.where(present, slots, _LONG_AGO))))
        self._last = seen[-1]
        anew = present & (slots - seen[:-1] > self._span)
        old = np.where(present, np.where(anew, 0.0, 1 - self._new), 1.0)
        new = np.where(anew, x, np.where(present, self._new * x, 0.0))
        return self._recurrence.push(first, old, new)


class _Median:
    def __init__(self, span: int, channels: int) -> None:
        self._tail = np.full((span - 1, channels), np.nan)

    def push(self, first: int, x: F8) -> F8:  # noqa: ARG002 - the window moves with the rows
        if not len(x):
            return x
        known = np.concatenate((self._tail, x))
        self._tail = known[len(x) :]
        span = len(self._tail) + 1
        windows = sliding_window_view(known, span, axis=0)
        step = max(1, _SORTED_AT_ONCE // max(1, span * x.shape[1]))
        made = np.empty_like(x)
        for begin in range(0, len(x), step):
            made[begin : begin + step] = _medians(windows[begin : begin + step])
        return made


def _medians(windows: F8) -> F8:
    """(n, channels, span) to (n, channels); NaN where nothing is known."""
    span = windows.shape[-1]
    if not np.isnan(windows).any():
        middle = np.partition(windows, (span // 2, (span - 1) // 2), axis=-1)
        return (middle[..., (span - 1) // 2] + middle[..., span // 2]) / 2
    count = (~np.isnan(windows)).sum(axis=-1)
    ordered = np.sort(windows, axis=-1)  # NaN goes to the end
    low, high = np.maximum(count - 1, 0) // 2, count // 2
    pair = np.take_along_axis(ordered, np.stack((low, np.minimum(high, span - 1)), axis=-1), axis=-1)
    return (pair[..., 0] + pair[..., 1]) / 2


PLUGIN = Plugin(Config, Smooth)
