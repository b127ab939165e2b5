"""Durations as people write them: `250ms`, `40s`, `1.5min`, `1h`."""

import re
from typing import Final

__all__ = ["DurationError", "seconds"]

_UNITS: Final = {"ms": 0.001, "s": 1.0, "min": 60.0, "h": 3600.0}
_WRITTEN: Final = re.compile(r"(?P<number>\d+(?:\.\d+)?)(?P<unit>[a-z]*)")


class DurationError(ValueError):
    """A duration that is written wrong."""


def seconds(text: str) -> float:
    """Read a duration.

    Raises:
        DurationError: it is no number with a unit.
    """
    found = _WRITTEN.fullmatch(text)
    if found is None:
        raise DurationError(f"{text!r} is no duration, such as 40s")
    if found["unit"] not in _UNITS:
        wrong = f"no unit {found['unit']!r}; one of {', '.join(_UNITS)}" if found["unit"] else "no unit"
        raise DurationError(f"{text!r} has {wrong}; write {found['number']}s for seconds")
    return round(float(found["number"]) * _UNITS[found["unit"]], 9)
