"""Where the limit of a model lies: causal means of scores over several spans, each against its own scale."""

import math
from typing import Final

import numpy as np

from dxad.training.linear import windows_of
from dxad.types import F8

__all__ = ["SPANS", "limit", "scales"]

SPANS: Final = (1, 5, 30)
"""Rows over which scores are averaged: short for steps, long for what creeps."""
_QUANTILE: Final = 0.99
_LIMIT: Final = 2.0
"""How far above the quiet 99 % of a long calibration slice a judged score must rise."""
_CAUTION: Final = 0.4
"""How much further where the slice is short: the quantile of n rows that hang together over a span of s is
uncertain by about sqrt(s / n)."""


def scales(scores: F8) -> tuple[float, ...]:
    """For each span the 99 % quantile of the causal means over it; scores (n,) of consecutive normal rows."""
    found = []
    for span in SPANS:
        reach = min(span, len(scores))  # a short slice has no longer mean
        means = windows_of(scores[:, None], reach).mean(axis=(1, 2))
        found.append(max(float(np.quantile(means, _QUANTILE)), 1e-9))
    return tuple(found)


def limit(rows: int) -> float:
    """What a judged score is held against that was calibrated on so many rows."""
    return _LIMIT * (1 + _CAUTION * math.sqrt(max(SPANS) / max(rows, 1)))
