"""How numbers are packed in messages of one length: which letters of `struct`, and in which order of bytes.

A number that a sensor shows changes little from one message to the next against what its type could hold, and
a float has a magnitude that makes sense. Each way to cut a message is judged by how many of its bytes are
explained so. It is a guess, and a poor one where there are few messages. Pure.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

__all__ = ["Layout", "layout_of"]

_KINDS: Final = {"f": "f4", "d": "f8", "h": "i2", "H": "u2", "i": "i4", "I": "u4", "B": "u1"}
_FLOATS: Final = "fd"
_SMALLEST, _LARGEST = 1e-4, 1e7
_WORTH: Final = {"d": 0.93, "f": 0.95, "i": 0.72, "I": 0.72, "h": 0.75, "H": 0.74, "B": 0.3}
"""Of each byte that a type explains: the fewer patterns it takes, the more it says."""
_STEADY: Final = 0.02
"""How far a whole number may go from message to message, of all that its type holds."""
_MESSAGES_MOST: Final = 200
_SIZE_MOST: Final = 256


@dataclass(frozen=True, slots=True)
class Layout:
    """How a message may be cut."""

    format: str
    """As Python's `struct` has it."""
    worth: float
    """0 to 1: how much of it is explained."""

    @property
    def numbers(self) -> int:
        """How many it has."""
        letters = re.findall(r"(\d*)([a-zA-Z?])", self.format)
        return sum(int(count or 1) for count, letter in letters if letter != "x")


def layout_of(messages: Sequence[bytes]) -> Layout:
    """The best cut of these messages, which have one length of at least one byte."""
    size = len(messages[0])
    if size > _SIZE_MOST:
        return Layout(f"<{size}B", 0.0)
    data = np.frombuffer(b"".join(messages[:_MESSAGES_MOST]), np.uint8).reshape(-1, size)
    cuts = [_cut(data, order) for order in "<>"]
    return max(cuts, key=lambda cut: cut.worth)


def _cut(data: npt.NDArray[np.uint8], order: str) -> Layout:
    """The best cut in one order of bytes, found from the end to the front."""
    size = data.shape[1]
    best: list[tuple[float, str]] = [(0.0, "")] * (size + 1)
    for at in range(size - 1, -1, -1):
        choices = []
        for letter, kind in _KINDS.items():
            width = np.dtype(kind).itemsize
            if at + width <= size:
                numbers = np.ascontiguousarray(data[:, at : at + width]).view(order + kind)[:, 0]
                worth, rest = _worth(letter, numbers), best[at + width]
                choices.append((worth * width + rest[0], letter + rest[1]))
        best[at] = max(choices, key=lambda choice: choice[0])
    worth, letters = best[0]
    return Layout(order + letters, worth / size)


def _worth(letter: str, numbers: npt.NDArray[np.generic]) -> float:
    """0 to 1: how much sense a number makes that was this, in one message after the other."""
    with np.errstate(all="ignore"):
        values = numbers.astype(np.float64)
        if letter in _FLOATS:
            size = np.abs(values)
            sound = np.isfinite(values) & ((values == 0) | ((size >= _SMALLEST) & (size < _LARGEST)))
            if not sound.all() or not values.any():
                return 0.1 * _WORTH[letter]
            return _WORTH[letter]
        if letter == "B":
            return _WORTH[letter]
        span = 256.0**numbers.dtype.itemsize
        steps = np.abs(np.diff(values)) if len(values) > 1 else np.array([span])
        quiet = float(np.sort(steps)[(9 * len(steps) - 9) // 10]) / span
        if quiet > _STEADY:
            return 0.1
        worth = _WORTH[letter]
        if len(values) > 1 and not steps.any():
            worth *= 0.95 if values.any() and values[0] != -1 else 0.3  # a constant says little, nothing less
        if numbers.dtype.itemsize == 4 and np.abs(values).max() < 2**15:
            worth *= 0.9  # its upper half is nothing, and may be another number's
        return worth
