"""What a node's past shows slot by slot: a history has an entry for each change, which held until the next.

entries    ·  1 ·  ·  ·  2 ·  ·      the first may be of long before: the bound (OPC 10000-11, 6.5.3)
slots      |  1  1  1  1  2  2  |    each as good as the server calls the entry
"""

from collections.abc import Iterator
from dataclasses import dataclass

__all__ = ["Gap", "Shown", "Stretch"]

Shown = tuple[object, int, int]
"""Value, status, and the stream time at which it was so."""


@dataclass(frozen=True, slots=True)
class Gap:
    """A stretch of stream time of which nothing was told."""

    begin: int
    end: int


class Stretch:
    """One node in one gap; takes its entries, the oldest first."""

    def __init__(self, gap: Gap, *, period: int, hold: int | None) -> None:
        """A value shows in slots of `period` ns, for `hold` ns after it was taken; None: until the next."""
        self._gap = gap
        self._period = period
        self._hold = hold
        self._last: tuple[object, int] | None = None
        self._taken = 0
        self._next = -(-gap.begin // period)
        """The first slot that nothing shows in yet."""

    @property
    def bounded(self) -> bool:
        """Whether an entry has come, so that nothing older needs to be known."""
        return self._taken > 0

    def take(self, value: object, status: int, taken: int) -> Iterator[Shown]:
        """The next entry; yields what is shown up to it. One that is bad shows nothing."""
        yield from self._shown(min(taken, self._gap.end))
        self._taken = taken
        self._last = None if status >> 31 else (value, status)
        if self._gap.begin <= taken < self._gap.end:
            self._next = max(self._next, taken // self._period + 1)
            if self._last is not None:
                yield value, status, taken

    def close(self) -> Iterator[Shown]:
        """There are no more; yields what is shown up to the end of the gap."""
        yield from self._shown(self._gap.end)

    def _shown(self, until: int) -> Iterator[Shown]:
        if self._last is None:
            return
        stop = until // self._period
        if self._hold is not None:
            stop = min(stop, (self._taken + self._hold) // self._period + 1)
        value, status = self._last
        while self._next < stop:
            at, self._next = self._next * self._period, self._next + 1
            yield value, status, at
