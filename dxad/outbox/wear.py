"""How much is written to the disk in a day: flash wears out by it.

What counts is what the store thread itself had written: pages that it made dirty in the kernel's page cache.
Source: Documentation/filesystems/proc.rst, /proc/<pid>/io, `write_bytes` less `cancelled_write_bytes`. What
the file system and the flash's own controller add comes on top. Taking room is left out: it is written once.
"""

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

__all__ = ["Room", "Wear", "written_bytes"]

_HOUR_NS: Final = 3600 * 10**9
_DAY_NS: Final = 24 * _HOUR_NS
_LEAST_NS: Final = 60 * 10**9
"""What was written in less than this says nothing of a day."""


class Wear:
    """The last day, hour by hour."""

    def __init__(self) -> None:
        self._hours: deque[list[int]] = deque(maxlen=24)  # [since, bytes]
        self._last: int | None = None

    def note(self, written: int, now_ns: int) -> None:
        """So much has been written since the thread began."""
        if not self._hours or now_ns - self._hours[-1][0] >= _HOUR_NS:
            self._hours.append([now_ns, 0])
        if self._last is not None and written > self._last:
            self._hours[-1][1] += written - self._last
        self._last = written

    @property
    def written(self) -> int:
        """Bytes in the last day, or since the start if that is less."""
        return sum(size for _, size in self._hours)

    def span_ns(self, now_ns: int) -> int:
        """How long that was."""
        return min(now_ns - self._hours[0][0], _DAY_NS) if self._hours else 0

    def per_day(self, now_ns: int) -> int | None:
        """Bytes a day, at the pace of the last day or of what there was of it; None if that is too short."""
        span = self.span_ns(now_ns)
        return None if span < _LEAST_NS else self.written * _DAY_NS // span


class Room:
    """What the calling thread has written to take room, on the way into the log and out of it."""

    def __init__(self) -> None:
        self.bytes = 0
        self._in_log = 0

    @contextmanager
    def taken(self, *, by_log: bool) -> Iterator[None]:
        """All that is written in the block takes room, `by_log` if a checkpoint is to write it once more."""
        before = written_bytes() or 0
        yield
        size = max(0, (written_bytes() or 0) - before)
        self.bytes += size
        self._in_log += size if by_log else 0

    @contextmanager
    def folded(self) -> Iterator[None]:
        """The block is a checkpoint: some of what it writes is room that stands in the log."""
        before = written_bytes() or 0
        yield
        size = min(self._in_log, max(0, (written_bytes() or 0) - before))
        self.bytes += size
        self._in_log -= size


def written_bytes() -> int | None:
    """What the calling thread has had written to disks; None where the kernel does not count it."""
    try:
        lines = Path("/proc/thread-self/io").read_text().splitlines()
    except OSError:
        return None
    found = dict(line.split(": ") for line in lines)
    return int(found.get("write_bytes", 0)) - int(found.get("cancelled_write_bytes", 0))
