"""The untrained baseline: how many robust standard deviations the oddest channel is away.

score = max over channels of |x - median| / spread, of the window's last row, where spread = 1.4826 MAD (at
least a fourth of the root mean square), and median and MAD are those of the warm-up. Source: B. Iglewicz,
D. Hoaglin, "How to Detect and Handle Outliers", 1993. Their limit of 3.5 is for one channel and few values;
`dxad.baseline.limit` says what stands in its place, and how it allows for heavy tails.
"""

from functools import partial
from pathlib import Path
from typing import Final, Literal

import numpy as np

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
from dxad.types import F8, I8, Document

__all__ = ["PLUGIN", "Config", "ZScore", "ZScores"]

_CELLS_AT_ONCE: Final = 16_384
"""Rows are scored in blocks of about so many cells, which stay in the processor's cache from step to step."""


class Config(WarmUpSection):
    """`{ type = "zscore" }`."""

    type: Literal["zscore"]


class ZScores:
    """What it took as normal is normal for good; channels that never moved in the warm-up stay out."""

    ready = True

    def __init__(self, median: F8, spread: F8, normal: tuple[F8, F8]) -> None:
        self.normal = normal
        self._spread = spread
        self._median = np.where(np.isnan(median), 0.0, median)
        self._per_spread = np.divide(1.0, spread, out=np.zeros(len(spread)), where=spread > 0)
        self._rows = max(1, _CELLS_AT_ONCE // max(1, len(spread)))

    @classmethod
    def settle(cls, values: F8, limit: float) -> "ZScores":
        """Take (n, channels) as normal."""
        median = medians(values)
        spread = spreads(values, median)
        moves = spread > 0
        away = np.abs(values - median) / np.where(moves, spread, 1.0)
        return cls(median, spread * widening(away, limit), mean_and_std(values))

    @classmethod
    def restore(cls, state: Document, channels: int, _limit: float) -> "ZScores":
        """What `state` gave."""
        names = ("median", "spread", "mean", "std")
        median, spread, mean, std = (unpack(state, name, (channels,)) for name in names)
        return cls(median, spread, (mean, std))

    def score(self, _times: I8, rows: F8) -> tuple[F8, F8]:
        """Squares of the deviations are the contributions."""
        n = len(rows)
        values, contributions = np.empty(n), np.empty(rows.shape)
        for begin in range(0, n, self._rows):
            block = contributions[begin : begin + self._rows]
            np.subtract(rows[begin : begin + self._rows], self._median, out=block)
            np.multiply(block, self._per_spread, out=block)
            np.multiply(block, block, out=block)
            np.fmax(block, 0.0, out=block)  # NaN, a bad value, becomes 0
            np.maximum.reduce(block, axis=1, out=values[begin : begin + self._rows], initial=0.0)
        np.sqrt(values, out=values)
        return values, contributions

    def normal_after(self, _rows: int) -> tuple[F8, F8]:
        """That of the warm-up, for good."""
        return self.normal

    def forgive(self) -> None:
        """Nothing is summed up."""

    def state(self) -> Document:
        """A few numbers per channel."""
        mean, std = self.normal
        return {
            "median": pack(self._median),
            "spread": pack(self._spread),
            "mean": pack(mean),
            "std": pack(std),
        }


class ZScore(Baseline):
    """The model: the above for each regime."""

    def __init__(self, config: Config) -> None:
        super().__init__(
            "zscore",
            warm_up=config.warm_up,
            relearn_after=config.relearn_after,
            limit=partial(normal_limit, rows=config.false_alarm_rows),
            settle=ZScores.settle,
            restore=ZScores.restore,
        )


def _build(config: Config, *, state_dir: Path) -> ZScore:  # noqa: ARG001 - every model is offered it
    return ZScore(config)


PLUGIN = Plugin(Config, _build)
