"""How the bytes of a serial line are sent: its baud rate, parity and bits, by what makes sense. Pure.

At a wrong rate a receiver sees few different bytes, many of them zero or full of ones, and no message. Seven
bits with a parity look like eight whose highest bit belongs to the others.
"""

from collections import Counter
from dataclasses import dataclass
from typing import Final, Literal

from dxad.commissioning.framings import Cut, best_cut
from dxad.links.serial import Parity

__all__ = ["BAUDS", "Heard", "LineSetting", "heard"]

BAUDS: Final = (9600, 115_200, 19_200, 38_400, 57_600, 4800, 2400, 230_400, 1200, 460_800, 921_600)
"""Those that devices have, the usual ones first."""
_ENOUGH: Final = 12
"""Bytes from which something may be said."""


@dataclass(frozen=True, slots=True)
class LineSetting:
    """How bytes are sent."""

    baudrate: int
    bytesize: Literal[7, 8] = 8
    parity: Parity = "none"

    def __str__(self) -> str:
        return f"{self.baudrate} {self.bytesize}{self.parity[0].upper()}1"


@dataclass(slots=True)
class Heard:
    """What came with a setting, and how much sense it makes."""

    setting: LineSetting
    data: bytes
    """With seven bits a byte, if the setting has them."""
    cut: Cut | None
    worth: float
    """0 to 1."""


def heard(setting: LineSetting, data: bytes) -> Heard:
    """Judge what came with this setting; it may turn out that bytes have seven bits and a parity."""
    if len(data) < _ENOUGH:
        return Heard(setting, data, None, 0.0)
    if setting.bytesize == 8 and setting.parity == "none":
        parity = _seven(data)
        if parity is not None:
            data = bytes(byte & 0x7F for byte in data)
            setting = LineSetting(setting.baudrate, 7, parity)
    cut = best_cut(data)
    worth = cut.worth if cut is not None else 0.0
    return Heard(setting, data, cut, max(worth, 0.3 * _looks_sent(data)))


def _seven(data: bytes) -> Parity | None:
    """The parity that the highest bit is, if the others are text."""
    high = sum(byte >> 7 for byte in data)
    if not high:
        return None
    low = [byte & 0x7F for byte in data]
    text = sum(byte in b"\t\r\n\x02\x03\x04" or 0x20 <= byte < 0x7F for byte in low)
    if text < 0.97 * len(data):
        return None
    ones = [byte.bit_count() & 1 for byte in data]
    if sum(ones) <= 0.02 * len(data):
        return "even"
    if sum(ones) >= 0.98 * len(data):
        return "odd"
    return "mark" if high >= 0.98 * len(data) else None


def _looks_sent(data: bytes) -> float:
    """0 to 1: text looks most like it; zeros, and bytes that are all ones at an end, like a wrong rate."""
    counted = Counter(data)
    text = sum(number for byte, number in counted.items() if byte in b"\t\r\n" or 0x20 <= byte < 0x7F)
    garbled = sum(counted[byte] for byte in (0x00, 0x80, 0xC0, 0xE0, 0xF0, 0xF8, 0xFC, 0xFE, 0xFF))
    return max(0.0, (text - garbled) / len(data))
