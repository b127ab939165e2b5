"""Statistics of columns with holes, vectorised over the columns: NaN is what is not known.

numpy's own nanmedian goes column by column in Python, and its nanstd warns of a column without any value.
"""

from typing import Final

import numpy as np

from dxad.types import F8, I8

__all__ = ["MAD_TO_STD", "mean_and_std", "medians", "quantiles", "spreads"]

MAD_TO_STD: Final = 1.4826
"""Times the median absolute deviation is the standard deviation, where values are normal."""
_FLOOR: Final = 4.0
"""The spread is at least this part of the root mean square: few distinct values have a MAD of nothing."""


def medians(values: F8) -> F8:
    """(n, channels) to (channels,): of each column's known values; NaN where there is none."""
    if not len(values):
        return np.full(values.shape[1], np.nan)
    ordered = np.sort(values, axis=0)  # NaN goes last
    count = _known(values)
    low = np.take_along_axis(ordered, np.maximum(count - 1, 0)[None] // 2, axis=0)[0]
    high = np.take_along_axis(ordered, np.minimum(count // 2, len(values) - 1)[None], axis=0)[0]
    return np.where(count > 0, low + (high - low) / 2, np.nan)


def quantiles(values: F8, share: float) -> F8:
    """(n, channels) to (channels,): the smallest known value that `share` of the column's do not exceed."""
    if not len(values):
        return np.full(values.shape[1], np.nan)
    place = np.ceil(share * _known(values)).astype(np.int64) - 1
    found: F8 = np.take_along_axis(np.sort(values, axis=0), np.maximum(place, 0)[None], axis=0)[0]
    return found


def spreads(values: F8, centre: F8) -> F8:
    """(n, channels) to (channels,): 1.4826 MAD about `centre`, at least a fourth of the root mean square.

    0 where a column has never left its centre or is known in less than half of the rows.
    """
    away = np.abs(values - centre)
    count = _known(values)
    square = np.where(np.isnan(away), 0.0, away) ** 2
    rms = np.sqrt(square.sum(axis=0) / np.maximum(count, 1))
    spread = np.maximum(MAD_TO_STD * medians(away), rms / _FLOOR)
    return np.where(2 * count >= max(1, len(values)), spread, 0.0)


def mean_and_std(values: F8) -> tuple[F8, F8]:
    """(n, channels) to twice (channels,): of each column's known values; NaN where there is none."""
    count = np.maximum(_known(values), 1)
    hole = np.isnan(values)
    empty = hole.all(axis=0)
    mean = np.where(hole, 0.0, values).sum(axis=0) / count
    std = np.sqrt((np.where(hole, 0.0, values - mean) ** 2).sum(axis=0) / count)
    mean[empty] = std[empty] = np.nan
    return mean, std


def _known(values: F8) -> I8:
    count: I8 = (~np.isnan(values)).sum(axis=0)
    return count
