"""Where samples wait between the wire and whoever seals them.

    source ── put ──▶ Stage ── take ──▶ Block

A source writes each sample with one `pack_into`; everything after that is vectorised.
"""

import struct
from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from dxad.types import F8, SAMPLE, Bools, Overflow, Quality, Reason

__all__ = ["Stage"]

_PACK = struct.Struct("<qqqdiBB")
assert _PACK.size == SAMPLE.itemsize

_SIZE: Final = SAMPLE.itemsize


class Stage:
    """A fixed buffer that a source fills message by message and hands over whole.

    When it is full, whoever reads it is too slow. What is lost then, and counted in `overflowed`, is for its
    policy to say: `drop_newest` the samples that come; `drop_oldest` those that have waited longest; `thin`
    every second message of those that wait and those that come, three of four when it is full again, and so
    on until it is taken: what is kept is spread evenly. With `block` the source asks for `room` before it
    puts; what is put all the same is dropped.
    """

    def __init__(self, capacity: int, overflow: Overflow = "drop_newest") -> None:
        """Hold `capacity` samples."""
        self.overflowed = 0
        """Samples that were lost because there was no room."""
        self._messages = 0
        self._message = 0
        self._buffer = bytearray(capacity * _SIZE)
        self._view = memoryview(self._buffer)
        self._begin = 0
        """Where the oldest sample stands, in bytes."""
        self._used = 0
        self._every = 1
        """Of so many messages, one is kept."""
        self._overflow = overflow
        self._stamp = 0
        self._arrival = 0
        self._whole: npt.NDArray[np.void] | None = None
        """All that waits, if it came at once and does not stand in the buffer."""

    def __len__(self) -> int:
        return self._used // _SIZE

    @property
    def messages(self) -> int:
        """How many were begun, also of those that were dropped."""
        return self._messages

    @property
    def room(self) -> int:
        """How many more samples can be put without losing any."""
        return (len(self._buffer) - self._used) // _SIZE

    def begin(self, arrival: int, *, stamp: int = 0) -> None:
        """Start a message: the samples put from now on are its own.

        Args:
            arrival: the stream clock now.
            stamp: the device's own time, UTC nanoseconds; 0 where it gave none.
        """
        self._message = self._messages
        self._messages += 1
        self._arrival = arrival
        self._stamp = stamp

    def put(
        self, column: int, value: float, quality: Quality = Quality.GOOD, reason: Reason = Reason.NONE
    ) -> None:
        """Add one sample of the message that was begun last."""
        if self._every > 1 and self._message % self._every:
            self.overflowed += 1
            return
        if self._whole is not None:
            self._settle()
        at = self._used
        if at == len(self._buffer):
            at = self._make_room()
            if at < 0:
                self.overflowed += 1
                return
        elif self._begin:
            at = (at + self._begin) % len(self._buffer)
        _PACK.pack_into(
            self._view, at, self._message, self._stamp, self._arrival, value, column, quality, reason
        )
        self._used += _SIZE

    def put_many(self, arrival: int, values: F8) -> bool:
        """Add messages that arrived together; returns False, and has added none, unless all find room.

        Args:
            arrival: the stream clock now.
            values: (messages, columns), of all columns in their order; NaN makes a BAD sample.
        """
        messages, columns = values.shape
        size = messages * columns * _SIZE
        if self._every > 1 or size > len(self._buffer) - self._used:
            return False
        samples = np.zeros((messages, columns), SAMPLE)
        samples["message"] = np.arange(self._messages, self._messages + messages)[:, np.newaxis]
        samples["arrival"] = arrival
        samples["value"] = values
        samples["column"] = np.arange(columns, dtype=np.int32)
        missing = np.isnan(values)
        if missing.any():
            samples["quality"][missing] = Quality.BAD
            samples["reason"][missing] = Reason.TYPE
        self._append(samples.tobytes())
        self._messages += messages
        return True

    def put_gathered(
        self,
        arrivals: Sequence[int],
        values: F8,
        columns: npt.NDArray[np.int32],
        counts: Sequence[int],
        stamps: Sequence[int],
        *,
        wrong: Bools | None = None,
    ) -> bool:
        """Add messages of all shapes that arrived together; returns False, and has added none, if room lacks.

        Args:
            arrivals: of each message, on the stream clock.
            values: (samples,), those of one message after the other.
            columns: of each sample.
            counts: of each message's samples.
            stamps: of each message, as in `begin`; or none at all.
            wrong: (samples,) those that are NaN, which makes them BAD; None if there are none.
        """
        if self._every > 1 or len(values) * _SIZE > len(self._buffer) - self._used:
            return False
        samples = np.zeros(len(values), SAMPLE)
        messages = np.arange(self._messages, self._messages + len(counts))
        width: int | Sequence[int] = counts[0] if min(counts) == max(counts) else counts
        samples["message"] = messages.repeat(width)
        if arrivals[0] == arrivals[-1]:  # they ascend
            samples["arrival"] = arrivals[0]
        else:
            samples["arrival"] = np.array(arrivals, dtype=np.int64).repeat(width)
        samples["value"] = values
        samples["column"] = columns
        if stamps:
            samples["stamp"] = np.array(stamps, dtype=np.int64).repeat(width)
        if wrong is not None:
            samples["quality"][wrong] = Quality.BAD
            samples["reason"][wrong] = Reason.TYPE
        if self._used:
            self._append(samples.tobytes())
        else:
            self._whole, self._used = samples, samples.nbytes
        self._messages += len(counts)
        return True

    def _append(self, written: bytes) -> None:
        """Add samples as they stand in memory, for which there is room."""
        if self._whole is not None:
            self._settle()
        size = len(written)
        at = (self._begin + self._used) % len(self._buffer)
        first = min(size, len(self._buffer) - at)
        self._view[at : at + first] = written[:first]
        self._view[: size - first] = written[first:]
        self._used += size

    def _settle(self) -> None:
        """Put what came at once into the buffer: more comes before it is taken."""
        whole, self._whole = self._whole, None
        if whole is not None:
            self._used = 0
            self._append(whole.tobytes())

    def _make_room(self) -> int:
        """Let go of waiting samples for the one that comes; returns where it goes, or -1: it is not kept."""
        if self._overflow == "drop_oldest":
            at = self._begin
            self._begin = (at + _SIZE) % len(self._buffer)
            self._used -= _SIZE
            self.overflowed += 1
            return at
        if self._overflow == "thin":
            while self._used == len(self._buffer) and self._every < self._messages:
                self._thin()
            if self._used < len(self._buffer) and not self._message % self._every:
                return self._used
        return -1

    def _thin(self) -> None:
        """Keep half of the messages."""
        self._every *= 2
        waiting = self._samples(self._used)
        kept = waiting[waiting["message"] % self._every == 0].tobytes()
        self.overflowed += (self._used - len(kept)) // _SIZE
        self._view[: len(kept)] = kept
        self._begin, self._used = 0, len(kept)

    def _samples(self, size: int) -> npt.NDArray[np.void]:
        """A copy of the first `size` bytes that wait, in order."""
        end = self._begin + size
        whole = bytes(self._view[self._begin : end])
        return np.frombuffer(whole + bytes(self._view[: max(0, end - len(self._buffer))]), dtype=SAMPLE)

    def take(self, most: int | None = None) -> npt.NDArray[np.void]:
        """All samples that wait, or the first `most` of them, as an array of the caller's own."""
        size = self._used if most is None else min(self._used, most * _SIZE)
        if self._whole is not None and size == self._used:
            whole, self._whole, self._used, self._every = self._whole, None, 0, 1
            return whole
        self._settle()
        samples = self._samples(size)
        self._used -= size
        self._begin = (self._begin + size) % len(self._buffer) if self._used else 0
        self._every = 1
        return samples
