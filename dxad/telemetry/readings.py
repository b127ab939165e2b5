"""Rows of a ring to the data of telemetry records, by columns; see the package for what is in them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np

from dxad.types import F8, U1, Bools, Channel, Document, State

__all__ = ["BODY_BYTES", "CHANNEL_BYTES", "ROWS_MOST", "split", "unit"]

BODY_BYTES: Final = 63_000
"""Of a record's 64 KiB; the rest is its envelope."""
_MARKS: Final = (
    ("uncertain", State.UNCERTAIN),
    ("bad", State.BAD),
    ("held", State.HELD),
    ("missing", State.EMPTY),
)
"""What places in `values` are told of, by their states; the last two in mode deadband only."""
_SAMPLE_BYTES: Final = 9 + 3 + 3
"""In msgpack: a float64, its row, its place where it is not good; rows are below 65,536."""
CHANNEL_BYTES: Final = 64
"""The keys and lengths of a channel beside its names, and its aggregates."""
ROWS_MOST: Final = 4000
"""Rows at once in mode all: the samples of one channel fit into a record."""


def split(
    channels: Sequence[Channel], values: F8, states: U1, *, mode: str, told: Bools | None = None
) -> Iterator[Document]:
    """The `channels` of one record after the other, each small enough.

    Args:
        channels: (channels,)
        values: (rows, channels); in mode all or deadband of `ROWS_MOST` rows at most.
        states: (rows, channels) of `State`.
        mode: of the section.
        told: (rows, channels) in mode deadband, which of them are told.
    """
    good = (states == State.GOOD) & np.isfinite(values)  # a row that was not scored has no number
    taken = good if mode in ("mean", "minmax") else good | (states == State.UNCERTAIN)
    if mode == "all":
        taken |= states == State.BAD
    if told is not None:
        taken = told
    counts = taken.sum(axis=0)
    names = np.array([len(each.id.encode()) + len(each.unit.encode()) for each in channels])
    costs = np.where(counts > 0, names + CHANNEL_BYTES, 0)
    if mode in ("all", "deadband"):
        costs += counts * _SAMPLE_BYTES
    through = np.cumsum(costs)
    start, said = 0, _SAID[mode]
    while start < len(channels):
        before = through[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(through, before + BODY_BYTES, side="right")))
        some = slice(start, stop)
        found = said(channels[some], values[:, some], states[:, some], taken[:, some])
        if found:
            yield found
        start = stop


def _all(channels: Sequence[Channel], values: F8, states: U1, taken: Any) -> Document:
    columns, rows = np.nonzero(taken.T)
    numbers, kinds = values.T[columns, rows], states.T[columns, rows]
    finite = np.isfinite(numbers)
    ends = np.cumsum(taken.sum(axis=0)).tolist()
    found: Document = {}
    begin = 0
    for channel, end in zip(channels, ends, strict=True):
        if end > begin:
            part = slice(begin, end)
            said = unit(channel)
            said["values"] = numbers[part].tolist()
            if not finite[part].all():
                said["values"] = [
                    value if is_number else None
                    for value, is_number in zip(said["values"], finite[part].tolist(), strict=True)
                ]
            if end - begin < len(values):
                said["at"] = rows[part].tolist()
            for name, state in _MARKS:
                places = np.nonzero(kinds[part] == state)[0]
                if len(places):
                    said[name] = places.tolist()
            found[channel.id] = said
        begin = end
    return found


def _last(channels: Sequence[Channel], values: F8, states: U1, taken: Any) -> Document:
    at = len(taken) - 1 - taken[::-1].argmax(axis=0)
    places = np.arange(len(channels))
    newest, doubtful = values[at, places].tolist(), (states[at, places] == State.UNCERTAIN).tolist()
    return {
        channel.id: unit(channel) | {"value": value, "at": row} | ({"uncertain": True} if uncertain else {})
        for channel, there, value, row, uncertain in zip(
            channels, taken.any(axis=0).tolist(), newest, at.tolist(), doubtful, strict=True
        )
        if there
    }


def _mean(channels: Sequence[Channel], values: F8, _: U1, taken: Any) -> Document:
    return _aggregated(channels, _means(values, taken))


def _minmax(channels: Sequence[Channel], values: F8, _: U1, taken: Any) -> Document:
    extremes = {
        "min": np.where(taken, values, np.inf).min(axis=0).tolist(),
        "max": np.where(taken, values, -np.inf).max(axis=0).tolist(),
    }
    return _aggregated(channels, {**_means(values, taken), **extremes})


def _means(values: F8, taken: Any) -> dict[str, list[Any]]:
    counts = taken.sum(axis=0)
    sums = np.where(taken, values, 0.0).sum(axis=0)
    return {"mean": (sums / np.maximum(counts, 1)).tolist(), "count": counts.tolist()}


def _aggregated(channels: Sequence[Channel], columns: Mapping[str, list[Any]]) -> Document:
    return {
        channel.id: unit(channel) | dict(zip(columns, row, strict=True))
        for channel, count, row in zip(
            channels, columns["count"], zip(*columns.values(), strict=True), strict=True
        )
        if count
    }


def unit(channel: Channel) -> Document:
    """What is said of its values."""
    return {"unit": channel.unit} if channel.unit else {}


_SAID: Final[Mapping[str, Callable[[Sequence[Channel], F8, U1, Any], Document]]] = {
    "all": _all,
    "deadband": _all,
    "last": _last,
    "mean": _mean,
    "minmax": _minmax,
}
