"""Rows of a ring as a JSON object of bounded size, for those who follow it with a cursor."""

from typing import Final

import numpy as np

from dxad.ring.ringbuffer import RingBuffer
from dxad.runtime.clock import Clock
from dxad.types import Document

__all__ = ["BYTES_MOST", "excerpt"]

BYTES_MOST: Final = 256 * 2**10
"""Of an answer: more would hold up the event loop."""
_CELL_BYTES: Final = 26
"""-1.2345678901234567e-300, a comma and the state."""
_ROW_BYTES: Final = 8
_HEAD_BYTES: Final = 1024


def excerpt(ring: RingBuffer, *, start: int | None, limit: int, clock: Clock, boot: str) -> Document:
    """The rows from slot `start` on.

    Args:
        ring: of a source or a pipeline.
        start: the first slot wanted; None is the oldest there is.
        limit: rows at most; fewer come where they would take more than `BYTES_MOST`.
        clock: maps slots to wall time.
        boot: of this boot: slots of different boots do not compare.

    Returns:
        `channels` with id and unit; `period_ns`; `oldest` and `sealed`, the slots that the ring holds;
        `first`, the slot of the first row; `next`, where to go on; `utc_ns` of the start of `first`; `lost`,
        the rows from `start` on that were overwritten; `values`, one list a row, null where nothing is known;
        `states`, one text a row with a digit of `State` for each channel.
    """
    channels = [{"id": channel.id, "unit": channel.unit} for channel in ring.channels]
    head_bytes = _HEAD_BYTES + sum(32 + len(each["id"]) + len(each["unit"]) for each in channels)
    room = max(1, (BYTES_MOST - head_bytes) // (_CELL_BYTES * len(channels) + _ROW_BYTES))
    begin = ring.oldest if start is None else start
    # What was overwritten takes no room in the answer.
    reading = ring.read(begin, max(begin, ring.oldest) + min(limit, room))
    digits = reading.states + np.uint8(ord("0"))
    return {
        "boot": boot,
        "channels": channels,
        "period_ns": ring.period,
        "oldest": ring.oldest,
        "sealed": ring.sealed,
        "first": reading.first,
        "next": reading.first + len(reading.values),
        "utc_ns": clock.utc(reading.first * ring.period),
        "lost": reading.lost,
        "values": reading.values,
        "states": [row.tobytes().decode() for row in digits],
    }
