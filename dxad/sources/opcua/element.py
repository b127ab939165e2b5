"""Which elements of an array are channels: `2`, `"0:3"`, or in a matrix `"1,0:3"`.

They are written as a NumericRange (OPC 10000-4, 7.27), and picked here, of the whole array: a server that
knows of no ranges sends all of it without a word, and then nothing tells which part has come.
"""

import itertools
import re
from typing import Final

__all__ = ["Element", "elements_of", "picked"]

Element = tuple[int, ...]
"""Its place, from 0, in each dimension."""

_RANGE: Final = re.compile(r"(\d{1,9})(?::(\d{1,9}))?")
_MOST: Final = 1000
_DEEP_MOST: Final = 8


def elements_of(index: int | str) -> list[Element]:
    """The places that an index names, the last dimension the fastest.

    Raises:
        ValueError: it is none, or names too many.
    """
    parts = str(index).split(",")
    found = [_RANGE.fullmatch(part) for part in parts]
    if not all(found) or len(parts) > _DEEP_MOST:
        raise ValueError(f'{index!r} is no index: 2, "0:3", or in a matrix "1,2" or "1,0:3", all from 0')
    ranges = []
    number = 1
    for each in found:
        assert each is not None
        low = int(each[1])
        high = low if each[2] is None else int(each[2])
        if each[2] is not None and high <= low:
            raise ValueError(f"{index!r}: {each[0]} does not go upwards")
        number *= high - low + 1
        if number > _MOST:
            raise ValueError(f"{index!r}: names more than {_MOST} elements")
        ranges.append(range(low, high + 1))
    return list(itertools.product(*ranges))


def picked(value: object, element: Element) -> object:
    """What stands there; None where there is no such place."""
    for at in element:
        if not isinstance(value, list) or at >= len(value):
            return None
        value = value[at]
    return value
