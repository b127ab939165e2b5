"""Sums over a window that moves row by row, without a running sum.

The sum of w rows is put together from sums of 1, 2, 4, 8 … rows, as the binary digits of w say: log2(w)
vector additions instead of w. Each result is the same tree of additions over its own rows, so that it does
not depend on where a batch began, to the bit; a running sum would, and it would drift. Source: the doubling
scheme of W. D. Hillis, G. L. Steele, "Data Parallel Algorithms", CACM 29 (1986), p. 1170, ended at w.
"""

from typing import TypeVar

import numpy as np
import numpy.typing as npt

__all__ = ["moving_sum"]

Number = TypeVar("Number", np.float64, np.int64)


def moving_sum(rows: npt.NDArray[Number], width: int) -> npt.NDArray[Number]:
    """The sums of all stretches of `width` rows.

    Args:
        rows: (n, ...); n at least `width` - 1.
        width: at least 1.

    Returns:
        (n - width + 1, ...), of the same dtype: the sums of rows i to i + width - 1.
    """
    n = len(rows) - width + 1
    total: npt.NDArray[Number] | None = None
    power, size, done = rows, 1, 0
    while True:
        if width & size:
            stretch = power[done : done + n]
            total = stretch.copy() if total is None else total + stretch
            done += size
        if done == width:
            assert total is not None
            return total
        power, size = power[:-size] + power[size:], size * 2
