"""What a stretch of rows amounts to: root mean square, extremes, moments, and ratios of them.

Over the n values x of a stretch that are known, with μ = Σx/n and m[k] = Σ(x − μ)^k / n:

===============  ====================  =========  ==============================================
stat             formula               unit       tells of
===============  ====================  =========  ==============================================
rms              √(Σx²/n)              of x       energy
mean             μ                     of x       level
median           the middle value      of x       level, unmoved by outliers; two middle ones: their mean
min, max         the extremes          of x
peak             max |x|               of x       the largest excursion from zero
peak_to_peak     max − min             of x
variance         m[2]                  of x²      energy about the mean
std              √m[2]                 of x       so that rms² = mean² + std²
crest_factor     peak / rms            1          impacts; √2 for a sine
shape_factor     rms / (Σ|x|/n)        1          π/√8 for a sine
impulse_factor   peak / (Σ|x|/n)       1          impacts; π/2 for a sine
skewness         m[3] / m[2]^1.5       1          lopsidedness; 0 for a symmetric signal
kurtosis         m[4] / m[2]²          1          impacts; Pearson's: 3 for noise, 1.5 for a sine
count            n                     1          how much was known
===============  ====================  =========  ==============================================

A stretch of which less than half is known yields nothing, and so does a ratio of zero to zero: a channel
that stands still has no kurtosis, one that is zero throughout no crest factor. Those cells are EMPTY. A
result is no better than what it is made of: UNCERTAIN where a cell was, or was BAD; and BAD where too little
is known because cells were. The count is always GOOD.

Sources: ISO 20816-1:2016, annex A (vibration measures); D. Dyer, R. M. Stewart, "Detection of rolling element
bearing damage by statistical vibration analysis", J. Mech. Design 100 (1978) 229-235 (kurtosis). Moments are
taken in two passes about the stretch's own mean (T. F. Chan, G. H. Golub, R. J. LeVeque, "Algorithms for
computing the sample variance", The American Statistician 37 (1983) 242-247), after its least value was
subtracted: then a constant has deviations of exactly zero.
"""

from functools import cached_property
from typing import Annotated, Any, Final, Literal, get_args

import numpy as np
from pydantic import BeforeValidator, Field, WithJsonSchema

from dxad.fields import Duration, TransformSection
from dxad.plugin import Plugin
from dxad.signal.stretch import Stretches
from dxad.types import F8, U1, Bools, Channel, Rows, Schema, State

__all__ = ["PLUGIN", "Config", "Summarize"]

_ENOUGH: Final = 0.5
"""A stretch of which a smaller share is known yields nothing."""

Stat = Literal[
    "rms", "mean", "median", "min", "max", "peak", "peak_to_peak", "variance", "std", "crest_factor",
    "shape_factor", "impulse_factor", "skewness", "kurtosis", "count",
]  # fmt: skip
_RATIOS: Final = ("crest_factor", "shape_factor", "impulse_factor", "skewness", "kurtosis", "count")


def _several(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


_ONE: Final = {"enum": list(get_args(Stat)), "type": "string"}
Stats = Annotated[
    tuple[Stat, ...],
    BeforeValidator(_several),
    WithJsonSchema({"anyOf": [_ONE, {"items": _ONE, "minItems": 1, "type": "array", "uniqueItems": True}]}),
]
"""A statistic or a list of them."""


class Config(TransformSection):
    """`{ type = "summarize", channels = ["vib.*"], stat = ["rms", "kurtosis"], every = "100ms" }`."""

    type: Literal["summarize"]
    stat: Stats = Field(
        ("rms",), strict=False, min_length=1, description="what a stretch of rows becomes: one, or a list"
    )
    every: Duration | None = Field(None, description="the time between two results; default: one row")
    over: Duration | None = Field(None, description="how far back a result reaches; default: `every`")

    @property
    def reach(self) -> int:
        """How far back it remembers its channels' rows, nanoseconds."""
        return self.over or self.every or 0


class Summarize:
    """Puts statistics of its channels in their place; their ids end in the statistic: `vib.x.rms`."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._stretches: Stretches

    def outputs(self, inputs: Schema) -> Schema:
        """The statistics of each matching channel, at the rate of `every`.

        Without `every`, the channels that do not match pass unchanged beside them.

        Raises:
            ConfigError: no channel matches, or a duration is no whole number of rows, or far too many.
        """
        self._stretches = Stretches(
            inputs,
            self._config.channels,
            every=self._config.every,
            over=self._config.over,
            results=lambda channel: [_result(channel, stat) for stat in self._config.stat],
        )
        return self._stretches.outputs

    def apply(self, rows: Rows) -> Rows:
        """Summarise each stretch that ends within `rows`."""
        return self._stretches.apply(rows, self._reduce)

    def _reduce(self, cells: F8, states: U1) -> tuple[F8, U1]:
        """(n, channels, width) to (n, channels, statistics)."""
        sample = _Sample(cells)
        measured = (states == State.GOOD).any(axis=-1)
        state = np.where(measured, State.GOOD, State.HELD).astype(np.uint8)
        unknown = sample.count < _ENOUGH * cells.shape[-1]
        state[unknown] = State.EMPTY
        if (states >= State.UNCERTAIN).any():
            bad = (states == State.BAD).any(axis=-1)
            state[(bad | (states == State.UNCERTAIN).any(axis=-1)) & ~unknown] = State.UNCERTAIN
            state[bad & unknown] = State.BAD
        values = np.empty((*state.shape, len(self._config.stat)))
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            for place, stat in enumerate(self._config.stat):
                values[..., place] = getattr(sample, stat)
        known = np.repeat(state[..., None], len(self._config.stat), axis=-1)
        known[~np.isfinite(values) & (known != State.BAD)] = State.EMPTY
        if "count" in self._config.stat:
            known[..., self._config.stat.index("count")] = State.GOOD
        values[(known == State.EMPTY) | (known == State.BAD)] = np.nan
        return values + 0.0, known  # no zero has a sign: which one a minimum finds is a matter of chance


def _result(channel: Channel, stat: Stat) -> Channel:
    if stat in _RATIOS:
        return channel.named(stat, unit="1")
    if stat == "variance":
        return channel.named(stat, unit=_squared(channel.unit))
    return channel.named(stat)


def _squared(unit: str) -> str:
    if unit in ("", "1"):
        return unit
    return f"{unit}²" if unit.isalpha() else f"({unit})²"


class _Sample:
    """Stretches `(n, channels, width)` and their statistics `(n, channels)`, which share what they can.

    What is not known counts as the number that changes nothing: a stretch that is known throughout has the
    same result beside one that is not.
    """

    def __init__(self, cells: F8) -> None:
        self._cells = cells
        absent = np.isnan(cells)
        self._absent: Bools | None = absent if absent.any() else None
        shape, width = cells.shape[:-1], cells.shape[-1]
        self.count: F8 = (
            np.full(shape, float(width))
            if self._absent is None
            else width - np.add.reduce(absent, axis=-1, dtype=np.float64)
        )

    def _or(self, cells: F8, neutral: float) -> F8:
        """The cells, with a neutral number where nothing is known."""
        return cells if self._absent is None else np.where(self._absent, neutral, cells)

    def _mean(self, cells: F8) -> F8:
        """Of cells that are zero where nothing is known."""
        result: F8 = np.add.reduce(cells, axis=-1) / self.count
        return result

    @cached_property
    def _known(self) -> F8:
        return self._or(self._cells, 0.0)

    @cached_property
    def min(self) -> F8:
        least: F8 = np.minimum.reduce(self._or(self._cells, np.inf), axis=-1)
        return least

    @cached_property
    def max(self) -> F8:
        most: F8 = np.maximum.reduce(self._or(self._cells, -np.inf), axis=-1)
        return most

    @property
    def peak_to_peak(self) -> F8:
        return self.max - self.min

    @cached_property
    def peak(self) -> F8:
        return np.maximum(self.max, -self.min)

    @cached_property
    def mean(self) -> F8:
        return self._mean(self._known)

    @property
    def median(self) -> F8:
        ordered = np.sort(self._cells, axis=-1)  # what is not known comes last
        count = np.maximum(self.count.astype(np.int64), 1)[..., None]
        below = np.take_along_axis(ordered, (count - 1) // 2, axis=-1)[..., 0]
        above = np.take_along_axis(ordered, count // 2, axis=-1)[..., 0]
        return below + (above - below) / 2

    @cached_property
    def rms(self) -> F8:
        return np.sqrt(self._mean(self._known * self._known))

    @cached_property
    def _rectified(self) -> F8:
        return self._mean(np.abs(self._known))

    @property
    def crest_factor(self) -> F8:
        return self.peak / self.rms

    @property
    def shape_factor(self) -> F8:
        return self.rms / self._rectified

    @property
    def impulse_factor(self) -> F8:
        return self.peak / self._rectified

    @cached_property
    def _deviations(self) -> F8:
        risen = self._or(self._cells - self.min[..., None], 0.0)
        return self._or(risen - self._mean(risen)[..., None], 0.0)

    @cached_property
    def _squares(self) -> F8:
        return self._deviations * self._deviations

    @cached_property
    def variance(self) -> F8:
        return self._mean(self._squares)

    @property
    def std(self) -> F8:
        root: F8 = np.sqrt(self.variance)
        return root

    @property
    def skewness(self) -> F8:
        third = self._mean(self._squares * self._deviations)
        return third / (self.variance * self.std)

    @property
    def kurtosis(self) -> F8:
        fourth = self._mean(self._squares * self._squares)
        return fourth / (self.variance * self.variance)


PLUGIN = Plugin(Config, Summarize)
