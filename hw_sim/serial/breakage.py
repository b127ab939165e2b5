"""What faults make of a device's frames, from the payload to the bytes on the line."""

import random
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final

from hw_sim.fault import Settings
from hw_sim.serial.framing import Framing
from hw_sim.serial.uart import misread

__all__ = ["Breakage"]

_FLOOD_MOST: Final = 65_536
"""Bytes that one frame is multiplied to at most: a flood shall drown the reader, not the simulator."""
_CHATTER: Final = b"I (%d) sensor: temperature of the die is %d degC\r\n"


class Breakage:
    """Breaks frames; the same seed breaks the same frames in the same way."""

    def __init__(
        self, fault: Callable[[str, str], Settings | None], counts: Counter[str], *, seed: str
    ) -> None:
        """`fault` finds the settings of a fault that is on, for a device; `counts` counts by fault."""
        self._fault = fault
        self._counts = counts
        self._rng = random.Random(seed)  # noqa: S311 - nothing is secret about it
        self._turns: Counter[tuple[str, str]] = Counter()

    def begin(self, fault: str) -> None:
        """A fault has come: the next frame is the first of its turns."""
        for each in [each for each in self._turns if each[0] == fault]:
            del self._turns[each]

    def frames(self, device: str, framing: Framing, payload: bytes) -> Sequence[bytes]:
        """What comes instead of the frame of this payload."""
        if self._hits("stall", device) is not None:
            return ()
        wrong = 0
        if framing.check is not None and self._hits("checksum", device) is not None:
            wrong = self._rng.randrange(1, 1 << 8 * framing.check.size)
        if (overlong := self._hits("overlong", device)) is not None:
            frame = framing.stretched(payload, b"x" * int(overlong["size"]), wrong)
        else:
            frame = framing.frame(payload, wrong)
        if self._hits("merged", device) is not None:
            frame = framing.unended(frame)
        frame = self._spoilt(device, frame)
        frames = [frame] if self._hits("repeated", device) is None else [frame, frame]
        if self._hits("chatter", device) is not None:
            frames.append(_CHATTER % (self._rng.randrange(1_000_000), self._rng.randrange(30, 60)))
        if (flood := self._hits("flood", device)) is not None:
            frames *= max(1, min(int(flood["times"]), _FLOOD_MOST // max(1, sum(map(len, frames)))))
        return frames

    def _spoilt(self, device: str, frame: bytes) -> bytes:
        """The frame as the line brings it."""
        rng = self._rng
        if self._hits("half_frames", device) is not None:
            frame = frame[: rng.randrange(1, max(2, len(frame)))]
        if (dropped := self._hits("dropped", device)) is not None:
            share = float(dropped["share"])
            frame = bytes(byte for byte in frame if rng.random() >= share)
        if (errors := self._hits("bit_errors", device)) is not None:
            share = float(errors["share"])
            frame = bytes(byte ^ 1 << rng.randrange(8) if rng.random() < share else byte for byte in frame)
        if self._hits("noise", device) is not None:
            frame = rng.randbytes(len(frame))
        if (baud := self._hits("wrong_baud", device)) is not None:
            frame = misread(frame, float(baud["ratio"]))
        return frame

    def _hits(self, fault: str, device: str) -> Settings | None:
        """The settings of a fault if it is this frame's turn."""
        settings = self._fault(fault, device)
        if settings is None:
            return None
        turn = self._turns[fault, device]
        self._turns[fault, device] += 1
        if turn % int(settings.get("every", 1)):
            return None
        self._counts[f"serial.{fault}"] += 1
        return settings
