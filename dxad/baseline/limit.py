"""Where the limit of a baseline comes from.

A score is the largest deviation among many channels, watched for long: both make its largest value grow, so
a constant limit such as Iglewicz and Hoaglin's 3.5 is right for one number of channels only. Instead one asks
how many rows shall lie between two false alarms, and divides the chance by the channels (Bonferroni; for
two-sided normal deviations exact to a few per cent): limit = -Phi^-1(1 / (2 * channels * rows)).

Few signals are normal. How much heavier a channel's tails are is read off its warm-up: on a normal
probability plot the deviations of a Weibull-like tail are a power of the normal quantile,
|x - median| ~ z ** theta, with theta = 1 for normal and 2 for exponential tails (L. Gardes, S. Girard,
"Estimation of the Weibull tail-coefficient with linear combination of upper order statistics", Journal of
Statistical Planning and Inference 138, 2008). The line goes through the median of the deviations and their
97.5 % quantile, so that one odd row in forty does not count as what the channel is like; theta is kept
between 1 and 2. The channel's spread is widened by what the limit moves, so that one limit holds for all.
"""

from statistics import NormalDist
from typing import Final

import numpy as np

from dxad.baseline.robust import quantiles
from dxad.types import F8

__all__ = ["MEDIAN_OF_NORMAL", "normal_limit", "widening"]

MEDIAN_OF_NORMAL: Final = NormalDist().inv_cdf(0.75)
"""Half of all deviations of a normal variable are smaller, in standard deviations."""
_UPPER: Final = 0.975
_UPPER_OF_NORMAL: Final = NormalDist().inv_cdf((1 + _UPPER) / 2)
_HEAVIEST: Final = 2.0


def normal_limit(channels: int, rows: int) -> float:
    """Standard deviations that the largest of so many normal channels exceeds once in `rows` rows."""
    return -NormalDist().inv_cdf(1 / (2 * max(1, channels) * rows))


def widening(deviations: F8, limit: float) -> F8:
    """By how much to widen the spread of channels with heavy tails; 1 or more.

    Args:
        deviations: (n, channels) of the warm-up, in spreads, without sign; NaN where not known.
        limit: that shall hold for all channels.
    """
    upper = quantiles(deviations, _UPPER)
    upper = np.where(upper > MEDIAN_OF_NORMAL, upper, MEDIAN_OF_NORMAL)  # NaN as well
    theta = np.log(upper / MEDIAN_OF_NORMAL) / np.log(_UPPER_OF_NORMAL / MEDIAN_OF_NORMAL)
    heavier = np.clip(theta, 1.0, _HEAVIEST) - 1.0
    widened: F8 = (limit / MEDIAN_OF_NORMAL) ** heavier
    return widened
