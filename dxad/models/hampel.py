"""The Hampel identifier: how far a row is from the median of the rows before it, in their own MADs.

score = max over channels of |x - median| / spread, where median and MAD are those of the last `span` rows
that were not above the limit, and spread = 1.4826 MAD, at least a fourth of the spread of the warm-up: a
signal that stands still for a while has a MAD of nothing. Sources: F. R. Hampel, "The Influence Curve and its
Role in Robust Estimation", JASA 69, 1974; R. K. Pearson, "Outliers in Process Modeling and Identification",
IEEE Transactions on Control Systems Technology 10, 2002. Theirs looks as far ahead as back; this one back
only.

It finds jumps and spikes and forgives what is slower than its span. A step that stays is above the limit
until `relearn_after`, whose default is shorter here than elsewhere. Where a value is bad, the oldest of its
channel stays for another round.

The columns are kept sorted, so that a row costs a few passes over span x channels and no sort:

    ordered, leaving value out   t[i] = s[i] if s[i] < leaving else s[i + 1]
    entering value in            s[i] = median of t[i - 1], entering, t[i]
    MAD of odd span 2m + 1       min over i <= m of max(median - s[i], s[i + m] - median)

The last holds because the m + 1 values nearest to the median lie side by side.
"""

from functools import partial
from pathlib import Path
from typing import Final, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from dxad.baseline import (
    MAD_TO_STD,
    Baseline,
    WarmUpSection,
    medians,
    normal_limit,
    pack,
    spreads,
    unpack,
    widening,
)
from dxad.plugin import Plugin
from dxad.types import F8, I8, Document

__all__ = ["PLUGIN", "Config", "Hampel"]

_FLOOR: Final = 0.25


class Config(WarmUpSection):
    """`{ type = "hampel" }`."""

    type: Literal["hampel"]
    warm_up: int = Field(
        200, ge=10, le=100_000, description="rows that are taken as normal before the first score, per regime"
    )
    span: int = Field(61, ge=5, le=1001, description="rows that a row is compared with; an odd number")
    relearn_after: int | None = Field(
        1000,
        ge=1,
        description="as for the others; here with a default, since a step is to be found, not kept",
    )

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.span % 2 == 0:
            raise ValueError(f"span: {self.span} is even; write {self.span + 1}")
        if self.warm_up < self.span:
            raise ValueError(f"warm_up: {self.warm_up} rows do not fill a span of {self.span}")
        return self


class Hampel:
    """Channels that never moved in the warm-up stay out."""

    ready = True

    def __init__(self, *, limit: float, past: F8, oldest: int, floor: F8, width: F8) -> None:
        """Take up a past.

        Args:
            limit: of the score.
            past: (span, channels) the rows that others are compared with, all known, in a ring.
            oldest: the place of the oldest in it.
            floor: (channels,) the least spread; 0 where a channel stays out.
            width: (channels,) the factor that heavy tails widen the spread by.
        """
        self._limit, self._past, self._oldest = limit, past, oldest
        self._floor, self._width = floor, width
        self._moves = floor > 0
        self._half = len(past) // 2
        span, channels = past.shape
        self._ordered = np.sort(past, axis=0)
        self._without = np.empty((span + 1, channels))
        """Space for the ordered past without the value that leaves, between two infinities."""
        self._without[0], self._without[-1] = -np.inf, np.inf
        self._measure()
        self._course = [(self._median, self._spread)]
        """Median and spread before the rows scored last, and after each of them."""

    @classmethod
    def settle(cls, values: F8, limit: float, *, span: int) -> "Hampel":
        """Take (n, channels) as normal, n at least `span`."""
        floor = _FLOOR * spreads(values, medians(values))
        past = np.column_stack([_filled(column, len(values)) for column in values.T])
        ones = np.ones(len(floor))
        free = cls(limit=np.inf, past=past[:span].copy(), oldest=0, floor=floor, width=ones)
        away = np.sqrt(free.score(np.zeros(0, dtype=np.int64), values[span:])[1])
        return cls(limit=limit, past=past[-span:].copy(), oldest=0, floor=floor, width=widening(away, limit))

    @classmethod
    def restore(cls, state: Document, channels: int, limit: float, *, span: int) -> "Hampel":
        """What `state` gave."""
        floor, width = (unpack(state, name, (channels,)) for name in ("floor", "width"))
        past = unpack(state, "past", (span, channels))
        return cls(limit=limit, past=past, oldest=int(state["oldest"]) % span, floor=floor, width=width)

    def normal_after(self, rows: int) -> tuple[F8, F8]:
        """Median and spread of the last rows that were normal."""
        median, spread = self._course[rows]
        return np.where(self._moves, median, np.nan), spread

    def score(self, _times: I8, rows: F8) -> tuple[F8, F8]:
        """Squares of the deviations are the contributions."""
        contributions = np.zeros(rows.shape)
        values = np.zeros(len(rows))
        self._course = [(self._median, self._spread)]
        for place, row in enumerate(rows):
            squares = contributions[place]
            np.subtract(row, self._median, out=squares)
            np.divide(squares, self._spread, out=squares)
            np.multiply(squares, squares, out=squares)
            np.fmax(squares, 0.0, out=squares)  # NaN, a bad value, becomes 0
            values[place] = top = float(np.maximum.reduce(squares, initial=0.0)) ** 0.5
            if top <= self._limit:
                self._learn(row)
            self._course.append((self._median, self._spread))
        return values, contributions

    def _learn(self, row: F8) -> None:
        leaving = self._past[self._oldest]
        entering = np.where(np.isnan(row), leaving, row)
        without, ordered = self._without, self._ordered
        without[1:-1] = ordered[1:]
        np.copyto(without[1:-1], ordered[:-1], where=ordered[:-1] < leaving)
        np.maximum(without[:-1], entering, out=ordered)
        np.minimum(ordered, without[1:], out=ordered)
        self._past[self._oldest] = entering
        self._oldest = (self._oldest + 1) % len(self._past)
        self._measure()

    def _measure(self) -> None:
        self._median: F8 = self._ordered[self._half].copy()
        below = self._median - self._ordered[: self._half + 1]
        above = self._ordered[self._half :] - self._median
        spread = MAD_TO_STD * np.maximum(below, above).min(axis=0)
        np.maximum(spread, self._floor, out=spread)
        spread *= self._width
        spread[~self._moves] = np.inf
        self._spread: F8 = spread

    def forgive(self) -> None:
        """Nothing is summed up."""

    def state(self) -> Document:
        """The past rows."""
        return {
            "past": pack(self._past),
            "oldest": self._oldest,
            "floor": pack(self._floor),
            "width": pack(self._width),
        }


def _filled(column: F8, n: int) -> F8:
    """The known values of a column over and over, or zeros."""
    known = column[~np.isnan(column)]
    return np.resize(known, n) if len(known) else np.zeros(n)


def _build(config: Config, *, state_dir: Path) -> Baseline:  # noqa: ARG001 - every model is offered it
    return Baseline(
        "hampel",
        warm_up=config.warm_up,
        relearn_after=config.relearn_after,
        limit=partial(normal_limit, rows=config.false_alarm_rows),
        settle=partial(Hampel.settle, span=config.span),
        restore=partial(Hampel.restore, span=config.span),
    )


PLUGIN = Plugin(Config, _build)
