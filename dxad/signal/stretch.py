"""Stretches of rows, each reduced to a few numbers by a transform.

    rows ──▶ (channels, rows), the last of them ──▶ (n, channels, width), a copy ──▶ (n, channels, results)

Every stretch of a channel lies in a piece of memory of its own, as long as the stretch, when it is reduced
over the last axis. What numpy makes of it depends on its numbers alone: not on its neighbours, not on where
a batch began. So results are bit-equal however rows are cut, and still one call serves many stretches.
"""

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from dxad.errors import ConfigError
from dxad.fields import distinct, matching
from dxad.types import F8, U1, Channel, Rows, Schema, State

__all__ = ["Reduction", "Stretches"]

Reduction = Callable[[F8, U1], tuple[F8, U1]]
"""From values and states (n, channels, width) to values and states (n, channels, results)."""

_WIDTH_MAX: Final = 1 << 16
"""Rows of a stretch."""
_CELLS_MAX: Final = 1 << 22
"""Cells of all channels in one stretch: 32 MiB, and a reduction needs a few times that."""
_CELLS_AT_ONCE: Final = 1 << 14
"""Cells that are taken in at once: 128 KiB."""
_CELLS_REDUCED: Final = 1 << 15
"""Cells that are reduced in one call, where one stretch has fewer: 256 KiB; twice that is slower."""


class Stretches:
    """Replaces some channels of rows by what a reduction makes of their last rows, `every` so often.

    Where that is the rows' own period, the other channels pass unchanged, each in its place; where it is
    longer, there is no row of theirs to pass, and the results stand alone.
    """

    def __init__(
        self,
        inputs: Schema,
        patterns: Sequence[str],
        *,
        every: int | None,
        over: int | None,
        results: Callable[[Channel], Sequence[Channel]],
    ) -> None:
        """Declare the rows that will be made of `inputs`.

        Args:
            inputs: what the rows look like.
            patterns: the channels that are replaced.
            every: nanoseconds between two results; None is one row.
            over: nanoseconds that a result reaches back; None is `every`.
            results: what is made of one channel, the same number for each.

        Raises:
            ConfigError: no channel matches, a duration is no whole number of rows or far too many, or two
                channels would have the same id.
        """
        self._columns = matching(patterns, inputs.channels)
        if not self._columns:
            raise ConfigError(f"no channel matches {', '.join(patterns)}")
        period = inputs.period if every is None else every
        over = period if over is None else over
        for key, duration in (("every", period), ("over", over)):
            if duration % inputs.period or duration < inputs.period:
                raise ConfigError(f"{key} is no multiple of the rows' period, {inputs.period / 1e6:g} ms")
        self.width = over // inputs.period
        """Rows of a stretch."""
        self._hop = period // inputs.period
        self._check_size()
        self.outputs = Schema(self._declared(inputs, results), period)
        """The rows that come out."""
        stretches = max(1, _CELLS_REDUCED // (self.width * len(self._columns)))
        self._piece = max(1, min(_CELLS_AT_ONCE // len(self._columns), stretches * self._hop))
        """Rows that are taken in before stretches are cut; more come in several pieces."""
        capacity = 2 * (self.width - 1) + self._piece
        self._values = np.full((len(self._columns), capacity), np.nan)
        self._states = np.zeros((len(self._columns), capacity), dtype=np.uint8)
        self._end = self.width - 1
        """Where the next row goes; before the first one lie EMPTY cells."""
        self._next = -1
        """The slot that the next row is of."""
        self._value_views = sliding_window_view(self._values, self.width, axis=1).swapaxes(0, 1)
        self._state_views = sliding_window_view(self._states, self.width, axis=1).swapaxes(0, 1)

    def _check_size(self) -> None:
        if self.width > _WIDTH_MAX:
            raise ConfigError(f"a result is made of {self.width} rows; {_WIDTH_MAX} at most")
        if self.width * len(self._columns) > _CELLS_MAX:
            raise ConfigError(
                f"a result is made of {self.width} rows of {len(self._columns)} channels; "
                f"{_CELLS_MAX // self.width} channels at most"
            )

    def _declared(
        self, inputs: Schema, results: Callable[[Channel], Sequence[Channel]]
    ) -> tuple[Channel, ...]:
        channels: list[Channel] = []
        passing: list[tuple[int, int]] = []
        made: list[int] = []
        chosen = set(self._columns)
        for column, channel in enumerate(inputs.channels):
            if column in chosen:
                found = results(channel)
                made += range(len(channels), len(channels) + len(found))
                channels += found
            elif self._hop == 1:
                passing.append((column, len(channels)))
                channels.append(channel)
        self._passing, self._passed = np.array(passing, dtype=np.intp).reshape(-1, 2).T
        """The columns that pass unchanged, and their places in the result."""
        self._made = np.array(made, dtype=np.intp)
        """The places of the results, channel by channel."""
        return distinct(channels)

    def apply(self, rows: Rows, reduction: Reduction) -> Rows:
        """Take in the rows; returns the results of the stretches that end within them, and what passes.

        Rows that do not follow those of the call before begin anew: no stretch reaches across the gap.
        """
        if rows.first != self._next:
            self._end = self.width - 1
            self._values[:, : self._end], self._states[:, : self._end] = np.nan, State.EMPTY
        self._next = rows.first + len(rows)
        first = rows.first // self._hop
        n = (rows.first + len(rows)) // self._hop - first
        values = np.empty((n, len(self.outputs.channels)))
        states = np.empty(values.shape, dtype=np.uint8)
        if self._passing.size:
            values[:, self._passed] = rows.values[:, self._passing]
            states[:, self._passed] = rows.states[:, self._passing]
        for begin in range(0, len(rows), self._piece):
            end = min(len(rows), begin + self._piece)
            self._append(rows.values[begin:end], rows.states[begin:end])
            # A stretch ends with each slot whose successor begins a new result.
            made, stop = (rows.first + begin) // self._hop, (rows.first + end) // self._hop
            if made == stop:
                continue
            after = rows.first + end - (made + 1) * self._hop  # rows that came after the first stretch
            start = self._end - after - self.width
            cut = slice(start, start + (stop - made - 1) * self._hop + 1, self._hop)
            if not self._states[:, start : self._end].any():
                cut = slice(start, start + 1)  # nothing is known of any: one EMPTY stretch is as the next
            found, known = reduction(
                np.array(self._value_views[cut], order="C"), np.array(self._state_views[cut], order="C")
            )
            place = slice(made - first, stop - first)
            values[place, self._made] = found.reshape(len(found), -1)
            states[place, self._made] = known.reshape(len(known), -1)
        return Rows(first, self.outputs.period, values, states)

    def _append(self, values: F8, states: U1) -> None:
        n, back = len(values), self.width - 1
        if self._end + n > self._values.shape[1]:
            for ring in (self._values, self._states):
                ring[:, :back] = ring[:, self._end - back : self._end].copy()
            self._end = back
        self._values[:, self._end : self._end + n] = values[:, self._columns].T
        self._states[:, self._end : self._end + n] = states[:, self._columns].T
        self._end += n
