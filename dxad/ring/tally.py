"""What became of samples, device by device, where a source has several.

Counted by column, since that is what samples have; a column's device may become known later.
"""

from collections.abc import Sequence
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from dxad.types import Document, Quality, Reason

__all__ = ["DEVICES_SHOWN", "Fate", "Tally"]

Fate = Literal["received", "late", "duplicate", "ahead"]

DEVICES_SHOWN: Final = 100
"""So many devices of a source have numbers of their own; the others are one, `other`."""
_COUNTED_AT: Final = 4096
"""Samples, or a hundredth of it blocks, that wait to be counted together."""
_FATES: Final[tuple[Fate, ...]] = ("received", "late", "duplicate", "ahead")


class Tally:
    """Counts samples by column."""

    def __init__(self, columns: int) -> None:
        self._counts = {fate: np.zeros(columns, dtype=np.int64) for fate in _FATES}
        self._rejected = np.zeros((len(Reason), columns), dtype=np.int64)
        self._received: list[npt.NDArray[np.int32]] = []
        """Columns of samples that have not been counted yet."""
        self._uncounted = 0

    def count(self, fate: Fate, samples: npt.NDArray[np.void]) -> None:
        """Count these as such."""
        counts = self._counts[fate]
        counts += np.bincount(samples["column"], minlength=len(counts))

    def receive(self, samples: npt.NDArray[np.void]) -> None:
        """Count these as received, some time."""
        self._received.append(samples["column"])
        self._uncounted += len(samples)
        if self._uncounted >= _COUNTED_AT or len(self._received) >= _COUNTED_AT // 100:
            self._count_received()

    def _count_received(self) -> None:
        if self._received:
            counts = self._counts["received"]
            counts += np.bincount(np.concatenate(self._received), minlength=len(counts))
            self._received, self._uncounted = [], 0

    def reject(self, samples: npt.NDArray[np.void]) -> None:
        """Count those that are BAD by their reasons."""
        bad = np.flatnonzero(samples["quality"] == Quality.BAD)
        columns = self._rejected.shape[1]
        cell = samples["reason"][bad].astype(np.int64) * columns + samples["column"][bad]
        self._rejected += np.bincount(cell, minlength=self._rejected.size).reshape(self._rejected.shape)

    def by_device(self, devices: Sequence[str]) -> dict[str, Document]:
        """The counts of each device; what is zero and seldom is left out.

        Args:
            devices: by column; an empty name is of a column that has no device yet.
        """
        self._count_received()
        columns: dict[str, list[int]] = {}
        for column, device in enumerate(devices):
            if device:
                shown = device if device in columns or len(columns) < DEVICES_SHOWN else "other"
                columns.setdefault(shown, []).append(column)
        found: dict[str, Document] = {}
        for device, mine in columns.items():
            counts = {fate: int(self._counts[fate][mine].sum()) for fate in _FATES}
            rejected = self._rejected[:, mine].sum(axis=1).tolist()
            found[device] = {
                **{fate: n for fate, n in counts.items() if n or fate == "received"},
                "rejected": {Reason(at).name.lower(): n for at, n in enumerate(rejected) if n},
            }
        return found
