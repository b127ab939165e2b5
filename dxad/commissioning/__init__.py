"""The first hour with a device: what it is, what it says, and the configuration that reads it.

    wire ─▶ modbusprobe, …   asks or listens, within a Patience, and tells a Watcher what it sees
                │
                ▼
         registers, …        guesses what bytes mean: pure
                │
                ▼
         fragment            what to write into the configuration

Nothing here writes to a device, and nothing stays behind.
"""

import asyncio
from typing import Protocol

__all__ = ["Patience", "Watcher"]


class Watcher(Protocol):
    """Whoever looks on while it takes its time."""

    def doing(self, what: str) -> None:
        """This is being done now; it replaces what was."""

    def seen(self, what: str) -> None:
        """This was found; it stays."""


class Patience:
    """How long something may take: until its time is over, or somebody has had enough."""

    def __init__(self, seconds: float) -> None:
        """Begin now, on the running loop's clock."""
        self._loop = asyncio.get_running_loop()
        self._end = self._loop.time() + seconds
        self.stopped = False

    @property
    def left_s(self) -> float:
        """Seconds, 0 or more."""
        return 0.0 if self.stopped else max(0.0, self._end - self._loop.time())

    @property
    def over(self) -> bool:
        """Whether it is time to tell what was found."""
        return self.left_s <= 0.0

    def stop(self) -> None:
        """Somebody has had enough."""
        self.stopped = True

    def part(self, share: float) -> "Patience":
        """A share of what is left; whoever stops this one, or the whole, stops it."""
        return _Part(self, self.left_s * share)


class _Part(Patience):
    def __init__(self, whole: Patience, seconds: float) -> None:
        super().__init__(seconds)
        self._whole = whole

    @property
    def left_s(self) -> float:
        return min(super().left_s, self._whole.left_s)
