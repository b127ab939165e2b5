"""Durations and sizes as they are written in configurations: a number and a unit."""

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from dxad.types import NS_PER_S

__all__ = ["UNITS_BYTES", "UNITS_NS", "bounded", "quantity", "written_in"]

UNITS_NS: Final = {
    "ns": 1,
    "us": 1_000,
    "ms": 1_000_000,
    "s": NS_PER_S,
    "min": 60 * NS_PER_S,
    "h": 3600 * NS_PER_S,
    "d": 86_400 * NS_PER_S,
}
UNITS_BYTES: Final = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}

_WRITTEN: Final = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]+)\s*")
_LARGEST: Final = 2.0**61
"""Nanoseconds or bytes: sums of a few of these still fit into 64 bits."""


def quantity(value: Any, units: Mapping[str, int], examples: tuple[str, str]) -> int:
    """The smallest units that a text stands for.

    Raises:
        ValueError: it is none; `examples` of units are told.
    """
    if isinstance(value, str):
        found = _WRITTEN.fullmatch(value)
        if found and found[2] in units:
            amount = float(found[1]) * units[found[2]]
            if amount > _LARGEST:
                raise ValueError(f"{value!r} is too large")
            return round(amount)
        raise ValueError(f"{value!r} is not a number and one of the units {', '.join(units)}")
    if isinstance(value, int | float) and not isinstance(value, bool):
        raise ValueError(f'{value} has no unit; write "{value}{examples[0]}" or "{value}{examples[1]}"')  # noqa: TRY004 - pydantic collects ValueErrors
    raise ValueError(f'expected a string with a unit, such as "100{examples[0]}"')


def written_in(units: Mapping[str, int]) -> Callable[[int], str]:
    """Back to the string: in the largest unit that leaves no fraction."""

    def written(value: int) -> str:
        name, size = max((each for each in units.items() if value % each[1] == 0), key=lambda each: each[1])
        return f"{value // size}{name}"

    return written


def bounded(text: str, bound: int) -> str | None:
    """A bound in the units of what was written instead; None if that is neither a duration nor a size."""
    found = _WRITTEN.fullmatch(text)
    for units in (UNITS_NS, UNITS_BYTES):
        if found and found[2] in units:
            return written_in(units)(bound) if bound else f"0{found[2]}"
    return None
