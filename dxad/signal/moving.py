"""Sums over a window that moves row by row, without a running sum.

The sum of w rows is put together from sums of 1, 2, 4, 8 … rows, as the binary digits of w say: log2(w)
vector additions instead of w. Each result is the same tree of additions over its own rows, so that it does
not depend on where a batch began, to the bit; a running sum would, and it would drift. Source: the doubling
scheme of W. D. Hillis, G. L. Steele, "Data Parallel Algorithms", CACM 29 (1986), p. 1170, ended at w.
"""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import numpy.typing as npt

__all__ = ["moving_sum", "moving_sums"]

Number = TypeVar("Number", np.float64, np.int64)


def moving_sum(rows: npt.NDArray[Number], width: int) -> npt.NDArray[Number]:
    """The sums of all stretches of `width` rows.

    Args:
        rows: (n, ...); n at least `width` - 1.
        width: at least 1.

    Returns:
        (n - width + 1, ...), of the same dtype: the sums of rows i to i + width - 1.
    """
    return moving_sums(rows, (width,))[0]


def moving_sums(rows: npt.NDArray[Number], widths: Sequence[int]) -> list[npt.NDArray[Number]]:
    """The sums of stretches of several widths that end with the same rows.

    Args:
        rows: (n, ...); n at least the largest width - 1.
        widths: each at least 1.

    Returns:
        For each width (n - largest + 1, ...): the sums of the rows that end with row `largest` - 1 + i.
    """
    largest = max(widths)
    n = len(rows) - largest + 1
    totals: list[npt.NDArray[Number] | None] = [None] * len(widths)
    done = [0] * len(widths)
    power, size = rows, 1
    while size <= largest:
        for place, width in enumerate(widths):
            if width & size:
                begin = largest - width + done[place]
                stretch, total = power[begin : begin + n], totals[place]
                totals[place] = stretch.copy() if total is None else total + stretch
                done[place] += size
        if 2 * size <= largest:
            power = power[:-size] + power[size:]
        size *= 2
    return [total for total in totals if total is not None]
