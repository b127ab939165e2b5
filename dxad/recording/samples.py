"""Rows of a recording as samples of a source."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from dxad.types import F8, I8, SAMPLE, Bools, Quality, Reason

__all__ = ["samples_of"]


def samples_of(
    values: F8,
    bad: Bools | None,
    *,
    arrivals: I8,
    messages: I8,
    columns: npt.NDArray[np.int32] | Sequence[int],
    stamps: I8 | None = None,
) -> npt.NDArray[np.void]:
    """Row by row, in the order of the columns; one for each cell that is not missing.

    Args:
        values: (n, columns); NaN where nothing came.
        bad: (n, columns), where something came that could not be believed; None is nowhere.
        arrivals: (n,) stream times.
        messages: (n,) numbers.
        columns: the places of the channels among the source's.
        stamps: (n,) the rows' own times, UTC nanoseconds; None where they have none.
    """
    cells = np.empty(values.shape, dtype=SAMPLE)
    cells["message"] = messages[:, None]
    cells["stamp"] = 0 if stamps is None else stamps[:, None]
    cells["arrival"] = arrivals[:, None]
    cells["value"] = values
    cells["column"] = columns
    cells["quality"] = Quality.GOOD
    cells["reason"] = Reason.NONE
    there = ~np.isnan(values)
    if bad is not None and bad.any():
        cells["quality"][bad] = Quality.BAD
        cells["reason"][bad] = Reason.DEVICE
        there |= bad
    flat = cells.reshape(-1)
    return flat if there.all() else flat[there.reshape(-1)]
