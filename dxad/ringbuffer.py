"""The recent past of one source or feature on a fixed time grid, preallocated.

Slot `k` lives at place `k % slots`. `sealed` is the first slot that is not readable yet; the ring holds the
`slots` slots before it. One writer appends; any number of readers, in any thread, each with a cursor of its
own, copy out and learn how many slots they lost to the writer.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dxad.types import F8, U1, Channel

__all__ = ["Reading", "RingBuffer"]

CELL_BYTES = 8 + 1 + 1
"""A value, its state and its reason."""


@dataclass(frozen=True, slots=True)
class Reading:
    """Sealed slots copied out of a ring; the arrays are the reader's own."""

    first: int
    values: F8
    states: U1
    lost: int
    """How many slots before `first` had been asked for and were overwritten already."""


class RingBuffer:
    """A grid of `slots` × channels that forgets its oldest slot for each new one."""

    def __init__(self, channels: Sequence[Channel], *, period: int, slots: int, start: int) -> None:
        """Hold the last `slots` slots of `period` nanoseconds each; the first to come is slot `start`."""
        self.channels = tuple(channels)
        self.period = period
        self.slots = slots
        self.start = start
        self.sealed = start
        self._claimed = (
            start  # what the writer has begun to overwrite: readers judge by this, never by `sealed`
        )
        self._values = np.full((slots, len(channels)), np.nan)
        self._states = np.zeros((slots, len(channels)), dtype=np.uint8)
        self._reasons = np.zeros((slots, len(channels)), dtype=np.uint8)

    @staticmethod
    def size_bytes(channels: int, slots: int) -> int:
        """What a ring of these dimensions takes, known before it is made."""
        return channels * slots * CELL_BYTES

    @property
    def oldest(self) -> int:
        """The first slot that can still be read."""
        return max(self.start, self._claimed - self.slots)

    def append(self, first: int, values: F8, states: U1, reasons: U1 | None = None) -> None:
        """Seal the rows from slot `first` on; slots skipped since the last call become EMPTY.

        Args:
            first: at least `sealed`.
            values: (n, channels), n at most `slots`.
            states: (n, channels) of `State`.
            reasons: (n, channels) of `Reason`; all NONE where absent.
        """
        self._claimed = first + len(values)
        skipped = np.arange(max(self.sealed, self._claimed - self.slots), first) % self.slots
        self._values[skipped] = np.nan
        self._states[skipped] = 0
        self._reasons[skipped] = 0
        places = np.arange(first, first + len(values)) % self.slots
        self._values[places] = values
        self._states[places] = states
        self._reasons[places] = 0 if reasons is None else reasons
        self.sealed = first + len(values)

    def read(self, start: int, stop: int) -> Reading:
        """Copy the sealed slots of [start, stop); may be called from another thread than `append`.

        Slots that are not sealed yet are left out; those that were overwritten, even while this call copied,
        are counted as lost.
        """
        stop = max(start, min(stop, self.sealed))
        first = min(max(start, self.oldest), stop)
        places = np.arange(first, stop) % self.slots
        values, states = self._values[places], self._states[places]
        overtaken = min(max(self.oldest - first, 0), stop - first)
        return Reading(first + overtaken, values[overtaken:], states[overtaken:], first + overtaken - start)

    def reasons_at(self, slot: int) -> U1:
        """The reasons (channels,) of one slot that is still held."""
        reasons: U1 = self._reasons[slot % self.slots].copy()
        return reasons
