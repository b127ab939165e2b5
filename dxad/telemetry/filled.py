"""Cells of a ring that were filled after they were told: history of an outage, and samples that came late."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from dxad.join import Feed
from dxad.types import F8, I8, SAMPLE, U1, Quality, State

__all__ = ["FILLED_BYTES", "Filled", "Filling"]

_CELLS_MOST: Final = 1 << 14
"""That wait, or one filling; what is filled beyond them is lost to telemetry, and counted."""
FILLED_BYTES: Final = _CELLS_MOST * (SAMPLE.itemsize + 8)
"""What waits takes, of each source."""
_MANY: Final = 1 << 13
"""So many do not wait for the next look."""


@dataclass(frozen=True, slots=True)
class Filling:
    """Cells that were filled."""

    samples: npt.NDArray[np.void]
    """(n,) of dtype `SAMPLE`; their columns are places in the feed."""
    slots: I8
    """(n,)"""


class Filled:
    """Listens to one ring, for one who reads it."""

    def __init__(self, feed: Feed, *, passed: Callable[[], int], on_many: Callable[[], None]) -> None:
        """Note what is filled in columns of `feed`, of slots before those that `passed` tells.

        `on_many` is called when so much waits that somebody should `take` it now.
        """
        self.lost = 0
        """Rows of which cells were lost since somebody set it to zero."""
        self._feed = feed
        self._passed = passed
        self._on_many = on_many
        self._place = np.full(len(feed.ring.channels), -1, dtype=np.int32)
        self._place[list(feed.columns)] = np.arange(len(feed.columns))
        self._waiting: deque[Filling] = deque()
        self._cells = 0

    def listen(self) -> None:
        """From now on; safe twice."""
        if self._note not in self._feed.ring.on_filled:
            self._feed.ring.on_filled.append(self._note)

    def leave(self) -> None:
        """No more; safe twice."""
        if self._note in self._feed.ring.on_filled:
            self._feed.ring.on_filled.remove(self._note)

    def _note(self, slots: I8, columns: I8, values: F8, states: U1) -> None:
        places = self._place[columns]
        mine = (slots < self._passed()) & (places >= 0)
        count = int(np.count_nonzero(mine))
        if not count:
            return
        if self._cells and self._cells + count > _CELLS_MOST:
            self.lost += len(np.unique(slots[mine]))
            return
        samples = np.zeros(count, SAMPLE)
        samples["column"], samples["value"] = places[mine], values[mine]
        samples["quality"][states[mine] == State.UNCERTAIN] = Quality.UNCERTAIN
        self._waiting.append(Filling(samples, slots[mine]))
        self._cells += count
        if self._cells >= _MANY:
            self._on_many()

    def take(self) -> Filling | None:
        """What was filled at one time; the oldest first."""
        if not self._waiting:
            return None
        found = self._waiting.popleft()
        self._cells -= len(found.slots)
        return found
