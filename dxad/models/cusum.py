"""The two-sided tabular CUSUM: what is a little off, for long.

    z  = (x - mean) / std                          of each channel, by its warm-up
    hi = max(0, hi + z - k),  lo = max(0, lo - z - k)
    score = h * max over channels of max(hi, lo) / h of the channel;  the limit is h

Source: E. S. Page, "Continuous Inspection Schemes", Biometrika 41, 1954; NIST/SEMATECH e-Handbook, 6.3.2.3.
The handbook's h of 4 or 5 gives a false alarm every few hundred rows and channel; without `h` in the
configuration it follows from `false_alarm_rows`, by Siegmund's approximation of the run length of one side,
(exp(2kb) - 2kb - 1) / 2k^2 with b = h + 1.166 (D. Siegmund, "Sequential Analysis", 1985), shared among the
sides and channels. That is for independent values about a known mean; those of a machine follow one another,
and a short warm-up does not tell their mean. With r = (1 + c) / (1 - c), where c is the correlation of a row
with the one before (that of an AR(1) process: sums of n values have r times the variance of independent ones,
see G. Box, G. Jenkins, "Time Series Analysis", 1970), a channel has

    a k greater by two standard errors of its mean, sqrt(r / rows of the warm-up)
    an h of h * r * k / k of the channel, which keeps 2kh / variance in Siegmund's exponent as it is,
    but not below one and a half times the largest sum of its warm-up

After the warm-up the sums begin at 0.

After an alarm Page begins anew at 0, which would end the alarm after one row. Here a sum goes on, but to no
more than `cap` times its h: a fault that lasts stays above the limit, and (cap - 1) h / k rows after its end,
at most, the score is below it. The mean is that of the warm-up for good, cut off at 8 robust spreads: a CUSUM
finds every drift, and a channel that is meant to drift wants `ewma`; a warm-up should see the slowest motion.
"""

import math
from functools import partial
from pathlib import Path
from typing import Final, Literal

import numpy as np
from pydantic import Field

from dxad.baseline import Baseline, WarmUpSection, mean_and_std, medians, pack, spreads, unpack
from dxad.plugin import Plugin
from dxad.types import F8, I8, Document

__all__ = ["PLUGIN", "Config", "Sums", "siegmund_h"]

_MARGIN: Final = 1.5
_TRIM: Final = 8.0
"""Robust spreads at which values of the warm-up are cut off, for the sake of mean and standard deviation."""
_OVERSHOOT: Final = 1.166


class Config(WarmUpSection):
    """`{ type = "cusum" }`."""

    type: Literal["cusum"]
    k: float = Field(
        0.5,
        gt=0,
        description="what is forgiven per row, in standard deviations: half of the shift that is to be found",
    )
    h: float | None = Field(
        None,
        gt=0,
        description="the sum that is the limit, in standard deviations; without it, from false_alarm_rows",
    )
    cap: float = Field(5.0, gt=1, description="a sum grows to this many times its limit and no further")


def siegmund_h(channels: int, rows: int, k: float) -> float:
    """The h at which one of so many independent channels is above it once in `rows` rows."""
    one_side = 2.0 * max(1, channels) * rows
    reach = 1.0
    for _ in range(100):  # a fixed point: its slope is below 1 for every positive reach
        reach = math.log1p(2.0 * k * reach + 2.0 * k * k * one_side) / (2.0 * k)
    return max(reach - _OVERSHOOT, k)


def _variance_ratio(away: F8) -> F8:
    """(n, channels) deviations to (channels,): (1 + c) / (1 - c), between 1 and n."""
    before, after = away[:-1], away[1:]
    pair = ~np.isnan(before) & ~np.isnan(after)
    before, after = np.where(pair, before, 0.0), np.where(pair, after, 0.0)
    square = (before**2 + after**2).sum(axis=0) / 2.0
    correlation = np.divide((before * after).sum(axis=0), square, out=np.zeros(len(square)), where=square > 0)
    n = max(1, len(away))
    correlation = np.clip(correlation, 0.0, (n - 1) / (n + 1))
    ratio: F8 = (1.0 + correlation) / (1.0 - correlation)
    return ratio


class Sums:
    """Channels that never moved in the warm-up stay out."""

    ready = True

    def __init__(
        self,
        *,
        k: F8,
        cap: float,
        limit: float,
        mean: F8,
        std: F8,
        share: F8,
        normal: tuple[F8, F8],
        sums: F8 | None = None,
    ) -> None:
        """Take up sums.

        Args:
            k: (channels,) what is forgiven per row.
            cap: how far a sum grows, in limits.
            limit: h.
            mean: (channels,) that deviations are from; NaN where nothing is known.
            std: (channels,) that they are counted in; 0 where a channel stays out.
            share: (channels,) h over the h of the channel.
            normal: mean and standard deviation of all values.
            sums: (2, channels), both sides; without it they begin at 0.
        """
        self.normal = normal
        self._k, self._std, self._share = k, std, share
        self._mean = np.where(np.isnan(mean), 0.0, mean)
        self._per_std = np.divide(1.0, std, out=np.zeros(len(std)), where=std > 0)
        self._most = cap * limit / share
        self._sums = np.zeros((2, len(std))) if sums is None else sums

    @classmethod
    def settle(cls, values: F8, limit: float, *, k: float, cap: float) -> "Sums":
        """Take (n, channels) as normal."""
        median = medians(values)
        reach = _TRIM * spreads(values, median)
        mean, std = mean_and_std(np.clip(values, median - reach, median + reach))
        std = np.where(reach > 0, std, 0.0)
        ratio = _variance_ratio(values - mean)
        allowed = k + 2.0 * np.sqrt(ratio / max(1, len(values)))
        made = partial(cls, k=allowed, limit=limit, mean=mean, std=std, normal=mean_and_std(values))
        free = made(cap=math.inf, share=np.ones(values.shape[1]))
        largest = free.run(values).max(axis=(0, 1), initial=0.0)
        return made(cap=cap, share=limit / np.maximum(limit * ratio * k / allowed, _MARGIN * largest))

    @classmethod
    def restore(cls, state: Document, channels: int, limit: float, *, cap: float) -> "Sums":
        """What `state` gave."""
        names = ("k", "mean", "std", "share", "normal_mean", "normal_std")
        k, mean, std, share, *normal = (unpack(state, name, (channels,)) for name in names)
        sums = unpack(state, "sums", (2, channels))
        return cls(
            k=k,
            cap=cap,
            limit=limit,
            mean=mean,
            std=std,
            share=share,
            normal=(normal[0], normal[1]),
            sums=sums,
        )

    def run(self, rows: F8) -> F8:
        """Both sums after each row, (n, 2, channels); one that is not known leaves them as they are."""
        away = (rows - self._mean) * self._per_std
        steps: F8 = np.stack((away, -away), axis=1)
        steps -= self._k
        steps[np.isnan(steps)] = 0.0
        sums = self._sums
        for step in steps:
            np.add(step, sums, out=step)
            np.maximum(step, 0.0, out=step)
            np.minimum(step, self._most, out=step)
            sums = step
        self._sums = sums.copy()
        return steps

    def score(self, _times: I8, rows: F8) -> tuple[F8, F8]:
        """The larger of the two sums is what a channel contributes; one whose value is bad waits."""
        contributions = self.run(rows).max(axis=1)
        contributions *= self._share
        contributions[np.isnan(rows)] = 0.0
        values: F8 = contributions.max(axis=1, initial=0.0)
        return values, contributions

    def normal_after(self, _rows: int) -> tuple[F8, F8]:
        """That of the warm-up, for good."""
        return self.normal

    def forgive(self) -> None:
        """The sums begin anew at 0."""
        self._sums = np.zeros(self._sums.shape)

    def state(self) -> Document:
        """A few numbers per channel."""
        mean, std = self.normal
        return {
            "k": pack(self._k),
            "mean": pack(self._mean),
            "std": pack(self._std),
            "share": pack(self._share),
            "normal_mean": pack(mean),
            "normal_std": pack(std),
            "sums": pack(self._sums),
        }


def _build(config: Config, *, state_dir: Path) -> Baseline:  # noqa: ARG001 - every model is offered it
    def limit(channels: int) -> float:
        return config.h if config.h is not None else siegmund_h(channels, config.false_alarm_rows, config.k)

    return Baseline(
        "cusum",
        warm_up=config.warm_up,
        relearn_after=config.relearn_after,
        limit=limit,
        settle=partial(Sums.settle, k=config.k, cap=config.cap),
        restore=partial(Sums.restore, cap=config.cap),
    )


PLUGIN = Plugin(Config, _build)
