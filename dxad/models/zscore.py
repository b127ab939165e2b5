"""The untrained baseline: how many robust standard deviations the oddest channel is away.

score = max over channels of |x - median| / (1.4826 MAD), of the window's last row. Median and MAD are those
of the warm-up. Source: B. Iglewicz, D. Hoaglin, "How to Detect and Handle Outliers", 1993, which puts the
limit at 3.5.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal

import numpy as np
from pydantic import Field

from dxad.errors import ModelError
from dxad.fields import ModelSection
from dxad.plugin import Plugin
from dxad.types import F8, Calibration, Channel, Document, Scores, Windows

__all__ = ["PLUGIN", "Config", "ZScore"]

_MAD_TO_STD: Final = 1.4826
_LIMIT: Final = 3.5
_MARGIN: Final = 1.5
"""The limit is at least this many times the largest score of the warm-up itself."""


class Config(ModelSection):
    """`{ type = "zscore" }`."""

    type: Literal["zscore"]
    warm_up: int = Field(100, ge=10, description="rows that are taken as normal before the first score")


class ZScore:
    """Takes its first rows as normal, then scores; channels that never moved in the warm-up stay out."""

    version = "zscore"

    def __init__(self, config: Config) -> None:
        self._warm_up = config.warm_up
        self._seen: F8 = np.empty((0, 0))
        self._channels: tuple[Channel, ...] = ()
        self._median: F8 | None = None
        self._scale: F8 = np.empty(0)
        self.calibration: Calibration | None = None

    def load(self, channels: Sequence[Channel], rows: int | None, *, by: int | None = None) -> int:
        """Any channels will do, and one row is enough.

        Raises:
            ModelError: regimes are asked for.
        """
        if by is not None:
            raise ModelError("this model knows no regimes")
        self._channels = tuple(channels)
        self._seen = np.empty((0, len(channels)))
        return rows or 1

    def score(self, windows: Windows) -> Scores:
        """Score each window's last row; NaN during the warm-up."""
        rows = windows.values[:, -1].astype(np.float64)
        n = len(rows)
        missing = 0
        if self._median is None:
            missing = min(n, self._warm_up - len(self._seen))
            self._seen = np.concatenate((self._seen, rows[:missing]))
            if len(self._seen) == self._warm_up:
                self._settle()
        values = np.full(n, np.nan)
        contributions = np.zeros((n, len(self._channels)))
        if self._median is not None and missing < n:
            contributions[missing:] = self._deviations(rows[missing:]) ** 2
            values[missing:] = np.sqrt(contributions[missing:].max(axis=1, initial=0.0))
        return Scores(values, contributions)

    def _deviations(self, rows: F8) -> F8:
        """In robust standard deviations; 0 where a value or a scale is missing."""
        assert self._median is not None
        moves = self._scale > 0
        deviations = np.zeros(rows.shape)
        np.divide(np.abs(rows - self._median), self._scale, out=deviations, where=moves)
        return np.nan_to_num(deviations, nan=0.0)

    def _settle(self) -> None:
        median, scale, normal = [], [], {}
        for column, channel in enumerate(self._channels):
            known = self._seen[:, column]
            known = known[~np.isnan(known)] if not np.isnan(known).all() else np.zeros(1)
            middle = float(np.median(known))
            spread = float(np.median(np.abs(known - middle)))
            median.append(middle)
            scale.append(max(_MAD_TO_STD * spread, float(known.std()) / 4))
            normal[channel.id] = (float(known.mean()), float(known.std()))
        self._median, self._scale = np.array(median), np.array(scale)
        worst = float(self._deviations(self._seen).max(initial=0.0))
        self.calibration = Calibration(max(_LIMIT, _MARGIN * worst), normal=normal)
        self._seen = self._seen[:0]

    def state(self) -> Document:
        """Nothing yet."""
        return {}

    def restore(self, state: Document) -> None:
        """Nothing yet."""

    def close(self) -> None:
        """Nothing to let go of."""


def _build(config: Config, *, state_dir: Path) -> ZScore:  # noqa: ARG001 - every model is offered it
    return ZScore(config)


PLUGIN = Plugin(Config, _build)
