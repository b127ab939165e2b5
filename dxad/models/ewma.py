"""The EWMA control chart: small shifts that last, against a mean and a variance that follow slowly.

    chart      z += weight * (x - z)
    deviation  |z - mean| / std;  the score is the largest over the channels
    learning   mean += 2 / (span + 1) * (x - mean);  variance += 2 / (span + 1) * ((z - mean)^2 - variance)

Source: S. W. Roberts, "Control Chart Tests Based on Geometric Moving Averages", Technometrics 1, 1959;
NIST/SEMATECH e-Handbook, 6.3.2.4, whose weight of 0.2 to 0.3 is the default here. The handbook's standard
deviation of z, sigma * sqrt(weight / (2 - weight)), is for independent values; those of a machine are not,
so the spread of z itself is measured. The first mean and spread are those of the warm-up (median and MAD);
the spread never falls below a fourth of it, or a machine at rest would make the chart jumpy. Nothing is
learned from a row whose score is above the limit; what drifts more slowly than `span` is learned.
"""

from functools import partial
from pathlib import Path
from typing import Final, Literal

import numpy as np
from pydantic import Field

from dxad.baseline import (
    Baseline,
    WarmUpSection,
    mean_and_std,
    medians,
    normal_limit,
    pack,
    spreads,
    unpack,
    widening,
)
from dxad.plugin import Plugin
from dxad.types import F8, I8, Bools, Document

__all__ = ["PLUGIN", "Config", "EwmaChart"]

_FLOOR: Final = 1 / 16
"""Of the first variance: the least that it falls to."""


class Config(WarmUpSection):
    """`{ type = "ewma" }`."""

    type: Literal["ewma"]
    weight: float = Field(0.2, gt=0, le=1, description="of the newest row in the chart's mean")
    span: int = Field(10_000, ge=10, description="rows over which mean and variance follow what is normal")


class EwmaChart:
    """Channels that never moved in the warm-up stay out."""

    ready = True

    def __init__(
        self,
        *,
        weight: float,
        span: int,
        limit: float,
        chart: F8,
        mean: F8,
        variance: F8,
        first: F8,
        width: F8,
        std: F8,
    ) -> None:
        """Take up a chart.

        Args:
            weight: of the newest row in the chart.
            span: rows over which mean and variance follow.
            limit: of the score.
            chart: (channels,) z.
            mean: (channels,), a number also where nothing is known.
            variance: (channels,) of z about the mean.
            first: (channels,) the variance in the warm-up; 0 where a channel stays out.
            width: (channels,) the factor that heavy tails widen the variance by.
            std: (channels,) of the values themselves in the warm-up; NaN where nothing is known.
        """
        self._weight, self._gain, self._limit = weight, 2.0 / (span + 1.0), limit
        self._chart, self._mean, self._variance = chart, mean, variance
        self._first, self._width, self._std = first, width, std
        self._floor = np.where(first > 0, first * _FLOOR, 1.0)
        self._divisor = np.where(first > 0, width, np.inf)
        self._course = [(mean, variance)]
        """Mean and variance before the rows scored last, and after each of them: never changed in place."""

    @classmethod
    def settle(cls, values: F8, limit: float, *, weight: float, span: int) -> "EwmaChart":
        """Take (n, channels) as normal."""
        mean = np.nan_to_num(medians(values))
        charts = np.empty(values.shape)
        chart = mean.copy()
        for row, out in zip(values, charts, strict=True):
            step = row - chart
            step[np.isnan(step)] = 0.0
            chart += weight * step
            out[:] = chart
        spread = spreads(np.where(np.isnan(values), np.nan, charts), mean)
        away = np.abs(charts - mean) / np.where(spread > 0, spread, 1.0)
        return cls(
            weight=weight,
            span=span,
            limit=limit,
            chart=chart,
            mean=mean,
            variance=np.maximum(spread**2, np.finfo(float).tiny),
            first=spread**2,
            width=widening(away, limit) ** 2,
            std=mean_and_std(values)[1],
        )

    @classmethod
    def restore(
        cls, state: Document, channels: int, limit: float, *, weight: float, span: int
    ) -> "EwmaChart":
        """What `state` gave."""
        names = ("chart", "mean", "variance", "first", "width", "std")
        arrays = {name: unpack(state, name, (channels,)) for name in names}
        return cls(weight=weight, span=span, limit=limit, **arrays)

    def normal_after(self, rows: int) -> tuple[F8, F8]:
        """The mean of then; the standard deviation has changed since the warm-up as the chart's has."""
        mean, variance = self._course[rows]
        changed = np.sqrt(
            np.divide(variance, self._first, out=np.ones(len(self._first)), where=self._first > 0)
        )
        return np.where(np.isnan(self._std), np.nan, mean), self._std * changed

    def score(self, _times: I8, rows: F8) -> tuple[F8, F8]:
        """Squares of the deviations are the contributions."""
        holes = np.isnan(rows)
        holed = holes.any(axis=1).tolist()
        contributions = np.empty(rows.shape)
        highest = self._limit**2
        self._course = [(self._mean, self._variance)]
        tops = [self._step(row, holes[place] if holed[place] else None, contributions[place], highest)
                for place, row in enumerate(rows)]  # fmt: skip
        return np.sqrt(np.array(tops, dtype=np.float64)), contributions

    def _step(self, row: F8, hole: Bools | None, out: F8, highest: float) -> float:
        """One row: chart, square of the deviation, and what is learned if that is not above `highest`."""
        step = row - self._chart
        if hole is not None:
            step[hole] = 0.0
        step *= self._weight
        self._chart += step
        np.subtract(self._chart, self._mean, out=step)
        step *= step
        np.divide(step, self._variance, out=out)
        out /= self._divisor
        if hole is not None:
            out[hole] = 0.0
        top = float(np.maximum.reduce(out, initial=0.0))
        if top <= highest:
            step -= self._variance
            lesson = row - self._mean
            if hole is not None:
                step[hole] = lesson[hole] = 0.0
            step *= self._gain
            step += self._variance
            self._variance = np.maximum(step, self._floor, out=step)
            lesson *= self._gain
            lesson += self._mean
            self._mean = lesson
        self._course.append((self._mean, self._variance))
        return top

    def forgive(self) -> None:
        """The chart begins anew at the mean."""
        self._chart = self._mean.copy()

    def state(self) -> Document:
        """A few numbers per channel."""
        return {
            "chart": pack(self._chart),
            "mean": pack(self._mean),
            "variance": pack(self._variance),
            "first": pack(self._first),
            "width": pack(self._width),
            "std": pack(self._std),
        }


def _build(config: Config, *, state_dir: Path) -> Baseline:  # noqa: ARG001 - every model is offered it
    return Baseline(
        "ewma",
        warm_up=config.warm_up,
        relearn_after=config.relearn_after,
        limit=partial(normal_limit, rows=config.false_alarm_rows),
        settle=partial(EwmaChart.settle, weight=config.weight, span=config.span),
        restore=partial(EwmaChart.restore, weight=config.weight, span=config.span),
    )


PLUGIN = Plugin(Config, _build)
