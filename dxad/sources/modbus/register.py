"""Where a value stands in a Modbus device, as people write it.

holding:12        table and address, from 0, as they are on the wire; also 0x hex
holding:12.3      a bit of that register, 0 is the last
holding:12.3..7   five bits as a number
40013, 400013     Modicon's numbers of 5 or 6 digits: the table, and the address from 1
"""

import re
from dataclasses import dataclass
from typing import Final

from dxad.links.modbus import Space

__all__ = ["PATTERN", "TABLES", "Place", "place_of"]

TABLES: Final[dict[str, Space]] = {"0": "coil", "1": "discrete", "3": "input", "4": "holding"}
"""By the first digit of Modicon's numbers."""
_SPACES: Final[dict[str, Space]] = {space: space for space in TABLES.values()}
PATTERN: Final = (
    r"^((coil|discrete|input|holding):(\d{1,5}|0[xX][0-9A-Fa-f]{1,4})|[0134]\d{4,5})"
    r"(\.\d{1,2}(\.\.\d{1,2})?)?$"
)
_ADDRESSES: Final = 65_536
_WORD: Final = 16


@dataclass(frozen=True, slots=True)
class Place:
    """A register, a bit of coils or discrete inputs, or some bits of a register."""

    space: Space
    first: int
    bit: int | None = None
    """The lowest."""
    width: int = 1


def place_of(text: str) -> Place:
    """Read it.

    Raises:
        ValueError: it is nowhere.
    """
    if not re.fullmatch(PATTERN, text):
        raise ValueError(
            f"{text!r} is no register: write holding:12 (coil, discrete, input or holding, and the address "
            "from 0), 40013 or 400013 (from 1), and .3 or .3..7 behind it for bits of a register"
        )
    where, _, bits = text.partition(".")
    table, _, number = where.partition(":")
    if number:
        space, first = _SPACES[table], int(number, 16 if number[:2] in {"0x", "0X"} else 10)
    else:
        space, first = TABLES[table[0]], int(table[1:]) - 1
    if not 0 <= first < _ADDRESSES:
        raise ValueError(f"{text}: addresses are 0 to {_ADDRESSES - 1}")
    if not bits:
        return Place(space, first)
    low, _, high = bits.partition("..")
    if space in {"coil", "discrete"}:
        raise ValueError(f"{text}: a {space} is one bit")
    if not int(low) <= int(high or low) < _WORD:
        raise ValueError(f"{text}: bits are 0 to {_WORD - 1}, the lower one first")
    return Place(space, first, int(low), int(high or low) - int(low) + 1)
