"""Samples that came before: a device, or a broker that heard no acknowledgement, has sent them again.

A sample is a duplicate when one of the last `DEPTH` of its channel had the same stamp of the device's own,
and the same value to the bit. The stamp alone does not tell: many devices stamp in whole seconds.
"""

from typing import Final

import numpy as np
import numpy.typing as npt

from dxad.types import I8, Bools

__all__ = ["Duplicates"]

_NONE: Final = -1


class Duplicates:
    """Remembers the last samples of each channel."""

    DEPTH: Final = 128
    """Samples per channel."""

    def __init__(self, watched: Bools) -> None:
        """Look at these columns (columns,)."""
        columns = len(watched)
        self._watched = watched
        self._stamps = np.full((self.DEPTH, columns), _NONE, dtype=np.int64)
        self._bits = np.zeros((self.DEPTH, columns), dtype=np.int64)
        self._count = np.zeros(columns, dtype=np.int64)
        """Samples of each column so far: the next one goes to this place, modulo DEPTH."""
        self._newest = np.full(columns, _NONE, dtype=np.int64)

    @classmethod
    def size_bytes(cls, channels: int) -> int:
        """What it takes for so many channels, known before it is made."""
        return channels * (cls.DEPTH * 16 + 16)

    def among(self, samples: npt.NDArray[np.void]) -> Bools | None:
        """Which of consecutive samples, of dtype `SAMPLE`, came before; None where none did."""
        stamps, columns = samples["stamp"].astype(np.int64), samples["column"].astype(np.int64)
        places = np.flatnonzero((stamps > 0) & self._watched[columns])
        if not len(places):
            return None
        places = places[np.argsort(columns[places], kind="stable")]
        stamps, columns = stamps[places], columns[places]
        bits = samples["value"][places].view(np.int64)
        begins = np.flatnonzero(np.append(True, columns[1:] != columns[:-1]))
        before = np.empty_like(stamps)
        before[1:] = stamps[:-1]
        before[begins] = self._newest[columns[begins]]
        again = np.zeros(len(stamps), dtype=np.bool_)
        back = stamps <= before  # no sample whose stamp is the newest so far can have come before
        if back.any():
            ends = np.append(begins[1:], len(stamps))
            for place in np.flatnonzero(np.logical_or.reduceat(back, begins)).tolist():
                mine = slice(int(begins[place]), int(ends[place]))
                again[mine] = self._seen(int(columns[mine.start]), stamps[mine], bits[mine])
            new = ~again
            stamps, columns, bits = stamps[new], columns[new], bits[new]
        self._remember(columns, stamps, bits)
        if not again.any():
            return None
        found = np.zeros(len(samples), dtype=np.bool_)
        found[places] = again
        return found

    def _seen(self, column: int, stamps: I8, bits: I8) -> list[bool]:
        """Which samples of one column came before, one after the other."""
        known = set(zip(self._stamps[:, column].tolist(), self._bits[:, column].tolist(), strict=True))
        again = []
        for each in zip(stamps.tolist(), bits.tolist(), strict=True):
            again.append(each in known)
            known.add(each)
        return again

    def _remember(self, columns: I8, stamps: I8, bits: I8) -> None:
        """Take in samples in the order of their columns."""
        if not len(columns):
            return
        begins = np.flatnonzero(np.append(True, columns[1:] != columns[:-1]))
        counts = np.diff(np.append(begins, len(columns)))
        rank = np.arange(len(columns)) - np.repeat(begins, counts)
        kept = rank >= np.repeat(counts, counts) - self.DEPTH
        at = ((self._count[columns] + rank) % self.DEPTH)[kept], columns[kept]
        self._stamps[at], self._bits[at] = stamps[kept], bits[kept]
        mine = columns[begins]
        self._count[mine] += counts
        self._newest[mine] = np.maximum(self._newest[mine], np.maximum.reduceat(stamps, begins))
