"""What the untrained models share: a warm-up, regimes, a guard against learning what is odd, and their limit.

rows ─▶ Baseline ─┬─ regime 0 ─▶ WarmUp ─▶ Statistic     a model of `dxad.models` is a Statistic, and the rest is here
                  ├─ regime 1 ─▶ WarmUp ─▶ Statistic
                  └─ …
"""

from dxad.baseline.limit import MEDIAN_OF_NORMAL, normal_limit, widening
from dxad.baseline.model import Baseline
from dxad.baseline.packed import pack, unpack
from dxad.baseline.robust import mean_and_std, medians, spreads
from dxad.baseline.section import BaselineSection
from dxad.baseline.statistic import Statistic

__all__ = [
    "MEDIAN_OF_NORMAL",
    "Baseline",
    "BaselineSection",
    "Statistic",
    "mean_and_std",
    "medians",
    "normal_limit",
    "pack",
    "spreads",
    "unpack",
    "widening",
]
