"""Rows of a recording as the samples of one source."""

from collections.abc import Sequence
from typing import Final

import numpy as np

from dxad.errors import EndOfStream
from dxad.ingest import Ingest
from dxad.recording.samples import samples_of
from dxad.types import F8, I8, Block, Bools, Channel

__all__ = ["Feed", "Wire"]

_FOR_EVER: Final = np.iinfo(np.int64).max


class Wire:
    """Stands where the source has its link; what was recorded is handed to `Ingest` past it."""

    alive_until = int(_FOR_EVER)
    """Whoever recorded had a session: what is reported by exception stays valid from row to row."""

    def __init__(self, channels: Sequence[Channel]) -> None:
        self.channels = channels

    async def connect(self) -> None:
        """There is nothing to connect to."""

    async def read(self) -> Block:
        """Nothing comes this way.

        Raises:
            EndOfStream: always.
        """
        raise EndOfStream("recorded data does not come by wire")

    async def close(self) -> None:
        """There is nothing to let go of."""


class Feed:
    """Hands the columns of one source over."""

    def __init__(self, ingest: Ingest, *, columns: Sequence[int], places: Sequence[int]) -> None:
        """Take the source's `columns` from these `places` of the recording's rows, pairwise."""
        ingest.believe_arrivals()
        self._ingest = ingest
        self._columns = np.asarray(columns, dtype=np.int32)
        whole = list(places) == list(range(len(places)))
        self._places: slice | list[int] = slice(0, len(places)) if whole else list(places)

    def has_any(self, values: F8, bad: Bools | None) -> Bools:
        """Which rows hold a sample of this source, (n,)."""
        there: Bools = ~np.isnan(values[:, self._places]).all(axis=1)
        return there if bad is None else there | bad[:, self._places].any(axis=1)

    def late(self, at: I8, newest: I8) -> Bools:
        """Which rows come after their slot was sealed, (n,), by the times of the rows before them.

        Args:
            at: (n,) stream times.
            newest: (n,) the largest of them so far, which is when the row arrived.
        """
        period, lateness = self._ingest.ring.period, self._ingest.lateness
        late: Bools = at // period < (newest - lateness) // period
        return late

    def accept(self, at: I8, first: int, values: F8, bad: Bools | None) -> None:
        """Hand over consecutive rows.

        Args:
            at: (n,) stream times.
            first: the number of the first row.
            values: (n, columns of the recording).
            bad: likewise.
        """
        numbers = np.arange(first, first + len(at), dtype=np.int64)
        wrong = None if bad is None else bad[:, self._places]
        samples = samples_of(
            values[:, self._places], wrong, arrivals=at, messages=numbers, columns=self._columns
        )
        if len(samples):
            self._ingest.accept(Block(samples))
