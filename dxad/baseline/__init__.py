"""What the untrained models share: a warm-up, regimes, a guard against learning what is odd, and their limit.

rows ─▶ Baseline ─┬─ regime 0 ─▶ warm-up ─▶ Statistic
                  ├─ regime 1 ─▶ warm-up ─▶ Statistic
                  └─ …

A baseline of `dxad.models` is a Statistic; all else is here.
"""

from dxad.baseline.limit import MEDIAN_OF_NORMAL, normal_limit, widening
from dxad.baseline.model import Baseline
from dxad.baseline.packed import pack, unpack, unpack_single
from dxad.baseline.robust import MAD_TO_STD, mean_and_std, medians, spreads
from dxad.baseline.section import BaselineSection, WarmUpSection
from dxad.baseline.statistic import Statistic

__all__ = [
    "MAD_TO_STD",
    "MEDIAN_OF_NORMAL",
    "Baseline",
    "BaselineSection",
    "Statistic",
    "WarmUpSection",
    "mean_and_std",
    "medians",
    "normal_limit",
    "pack",
    "spreads",
    "unpack",
    "unpack_single",
    "widening",
]
