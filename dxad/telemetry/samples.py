"""Samples of a journal to the data of telemetry records; see the package for what is in them."""

from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from dxad.telemetry.readings import BODY_BYTES, CHANNEL_BYTES, unit
from dxad.types import I8, Channel, Document, Quality

__all__ = ["split_samples"]

_SAMPLE_BYTES: Final = 9 + 5 + 3
"""In msgpack: a float64, its row, its place where it is not good."""
_STAMP_BYTES: Final = 9
_US: Final = 1_000
"""Nanoseconds."""


def split_samples(channels: Sequence[Channel], samples: npt.NDArray[np.void], rows: I8) -> Iterator[Document]:
    """The `channels` of one record after the other, each small enough.

    Args:
        channels: by column.
        samples: (n,) of dtype `SAMPLE`.
        rows: (n,) of the record, to which each belongs.
    """
    order = np.lexsort((rows, samples["column"]))  # what shares a row stays in the order of arrival
    samples, rows = samples[order], rows[order]
    columns = samples["column"]
    ends = [*(np.flatnonzero(np.diff(columns)) + 1).tolist(), len(samples)]
    cost = _SAMPLE_BYTES + (_STAMP_BYTES if samples["stamp"].any() else 0)
    found: Document = {}
    left, begin = BODY_BYTES, 0
    for end in ends:
        channel = channels[int(columns[begin])]
        named = len(channel.id.encode()) + len(channel.unit.encode()) + CHANNEL_BYTES
        while begin < end:
            count = min(end - begin, (left - named) // cost)
            if count <= 0:
                yield found
                found, left = {}, BODY_BYTES
                continue
            part = slice(begin, begin + count)
            found[channel.id] = _said(channel, samples[part], rows[part])
            left -= named + count * cost
            begin += count
    yield found


def _said(channel: Channel, samples: npt.NDArray[np.void], rows: I8) -> dict[str, Any]:
    values, stamps, quality = samples["value"], samples["stamp"], samples["quality"]
    said: dict[str, Any] = unit(channel)
    said["values"] = values.tolist()
    nothing = ~np.isfinite(values) | (quality == Quality.BAD)
    for place in np.flatnonzero(nothing).tolist():
        said["values"][place] = None
    said["at"] = rows.tolist()
    if stamps.any():
        said["stamps_us"] = (stamps // _US).tolist()
    for name, kind in (("uncertain", Quality.UNCERTAIN), ("bad", Quality.BAD)):
        places = np.flatnonzero(quality == kind)
        if len(places):
            said[name] = places.tolist()
    return said
