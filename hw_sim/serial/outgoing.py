"""What the devices of a line have sent and the line has not carried yet.

With a baud rate, bytes leave as fast as such a line carries them, ten bits each, in the plant's time; frames
that come while `BUFFER` bytes wait are lost whole. What the terminal then refuses, as its reader sleeps, is
lost byte by byte, so that the next frame follows on a torn one, as after a UART's overrun.
"""

from collections import Counter, deque
from collections.abc import Iterable
from typing import Final

from hw_sim.tty import Tty

__all__ = ["BUFFER", "Outgoing"]

BUFFER: Final = 1024
"""How many bytes a device holds that its line has not carried; those of one step of the bench at least."""
_BITS_PER_BYTE: Final = 10


class Outgoing:
    """The way from devices to the terminal; counts `sent` and `lost` frames, `bytes` and `lost_bytes`."""

    def __init__(self, tty: Tty, counts: Counter[str], *, baudrate: int | None) -> None:
        self._tty = tty
        self._counts = counts
        self._bytes_per_s = baudrate / _BITS_PER_BYTE if baudrate else None
        self.patient = False
        """Whether what the terminal refuses waits until it has room, instead of getting lost."""
        self._waiting = bytearray()
        self._gone = 0
        """Bytes that have left `_waiting` since the start."""
        self._ends: deque[int] = deque()
        """Where, counted from the start, each frame that is not through yet ends."""
        self._begin = 0
        """Where the first of those begins."""
        self._torn = False
        """Whether it has lost bytes already."""
        self._at_s = 0.0
        self._credit = 0.0
        self._buffer = BUFFER

    def put(self, frames: Iterable[bytes]) -> None:
        """Queue frames; those that a line of this baud rate has no room for are lost."""
        for frame in frames:
            if self._bytes_per_s is not None and len(self._waiting) + len(frame) > self._buffer:
                self._counts["lost"] += 1
                self._counts["lost_bytes"] += len(frame)
            elif frame:
                self._waiting += frame
                self._ends.append(self._gone + len(self._waiting))

    def send(self, at_s: float) -> None:
        """Let the line carry what it can until this moment of the plant's time."""
        if self._bytes_per_s is not None:
            passed = max(0.0, at_s - self._at_s) * self._bytes_per_s
            self._at_s = at_s
            self._credit += passed
            self._buffer = max(BUFFER, int(passed))
        self.resume()
        if not self._waiting:
            self._credit = min(self._credit, 1.0)  # an idle line does not save up

    def resume(self) -> bool:
        """Send what may still be sent now; returns whether nothing of that is left."""
        may = len(self._waiting)
        if self._bytes_per_s is not None:
            may = min(may, int(self._credit))
        if not may:
            return True
        took = self._tty.write(bytes(self._waiting[:may]))
        left = took if self.patient and self._tty.plugged else may
        self._credit -= left
        self._leave(left, took)
        return left == may

    def drop(self) -> None:
        """Lose all that waits: the terminal has been pulled out."""
        self._leave(len(self._waiting), 0)

    def _leave(self, count: int, took: int) -> None:
        """So many bytes leave the queue, of which the reader gets the first `took`."""
        whole = self._gone + took
        del self._waiting[:count]
        self._gone += count
        self._counts["bytes"] += took
        self._counts["lost_bytes"] += count - took
        while self._ends and self._ends[0] <= self._gone:
            self._begin = self._ends.popleft()
            self._counts["lost" if self._torn or self._begin > whole else "sent"] += 1
            self._torn = False
        self._torn = self._torn or (took < count and self._gone > self._begin)
