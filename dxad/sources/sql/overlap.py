"""Rows that are committed after others that stand behind them: the last stretch is asked for again and again.

    cursor    1 2 3 . 5 6 │ 7        4 is being written, by a transaction that began before those of 5 and 6
                    └─────┘ asked for again, until nobody can still be at it; 5 and 6 are known

A sequence, or a clock's time, is drawn before its row is committed, and who commits later has an earlier one.
"""

from collections import deque
from collections.abc import Sequence
from typing import Any, Final

__all__ = ["Overlap"]

_ALL: Final = None
"""A cursor before all rows."""


class Overlap:
    """Which stretch of a cursor's values may still get rows, and which of its rows have been read."""

    def __init__(self, span: int, most: int) -> None:
        """Go back as far as the cursor has come in `span` nanoseconds, and over `most` rows at most."""
        self._span = span
        self._most = most
        self._begins: Any = _ALL
        self._marks: deque[tuple[int, Any]] = deque()
        """When the cursor was how far."""
        self._seen: set[Any] = set()
        """The values behind `_begins` of the rows that were read."""

    def __len__(self) -> int:
        return len(self._seen)

    def begin(self, cursor: Any) -> None:
        """The first row to be read is the one behind this value."""
        self._begins = cursor
        self._marks.clear()
        self._seen.clear()

    def begins(self, now: int) -> Any:
        """The value behind which rows are asked for at this stream time."""
        before = self._begins
        while self._marks and self._marks[0][0] <= now - self._span:
            _, self._begins = self._marks.popleft()
        if self._begins != before:
            self._forget()
        return self._begins

    def unread(self, values: Sequence[Any]) -> list[int]:
        """The places of those that were not read."""
        return [place for place, value in enumerate(values) if value not in self._seen]

    def read(self, values: Sequence[Any], cursor: Any, now: int) -> None:
        """Rows with these values have been read, and the cursor has come so far."""
        self._seen.update(values)
        self._marks.append((now, cursor))
        if len(self._seen) > self._most:  # what is further back is given up
            known = sorted(value for value in self._seen if value is not None)
            self._begins = known[len(known) // 2]
            self._marks = deque((at, value) for at, value in self._marks if value > self._begins)
            self._forget()

    def _forget(self) -> None:
        self._seen = {value for value in self._seen if value is not None and value > self._begins}
