"""Times as people and programs write them: ISO 8601, or a number since 1970 in s, ms, us or ns.

A time without a zone is taken as UTC.
"""

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

import numpy as np

from dxad.types import I8, NS_PER_S

__all__ = ["NO_TIME", "TIME_NAMES", "Stamp", "moment", "unit_ns"]

NO_TIME: Final = np.iinfo(np.int64).min
"""Stands where a time could not be read; numpy's NaT."""

TIME_NAMES: Final = (
    "time", "timestamp", "datetime", "time_ns", "time_us", "time_ms", "time_s", "date", "ts", "t_s", "utc",
    "epoch",
)  # fmt: skip
"""Columns that hold the time, if they are there."""

_UNITS_NS: Final = {"ns": 1, "us": 1_000, "ms": 1_000_000, "s": NS_PER_S}
_NUMBER: Final = re.compile(r"\s*[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?\s*")
_DAY_ONLY: Final = 8
"""20200208 is a day in ISO 8601's basic format, but nobody's 233 days since 1970: numbers are numbers."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def unit_ns(name: str, first: str) -> int | None:
    """What the numbers of a column of times count, in nanoseconds; None where they are dates.

    The column's name says it (`time_ms`), or else the size of its first number: seconds since 1970 have ten
    digits these days, milliseconds thirteen, and so on.
    """
    if not _NUMBER.fullmatch(first):
        return None
    suffix = name.rpartition("_")[2].lower()
    if "_" in name and suffix in _UNITS_NS:
        return _UNITS_NS[suffix]
    size = abs(float(first))
    for unit, least in (("ns", 1e17), ("us", 1e14), ("ms", 1e11)):
        if size >= least:
            return _UNITS_NS[unit]
    return NS_PER_S


class Stamp:
    """Reads the cells of one column of times."""

    def __init__(self, name: str, first: str) -> None:
        """Read as `unit_ns` understands the column's name and first cell."""
        self._unit_ns = unit_ns(name, first)

    def read(self, cells: Sequence[str]) -> I8:
        """UTC nanoseconds, (n,); `NO_TIME` where a cell is no time."""
        try:
            return self._read_all(cells)
        except ValueError:
            return np.array([self._read_one(each) for each in cells], dtype=np.int64)

    def _read_all(self, cells: Sequence[str]) -> I8:
        if self._unit_ns is None:
            bare = [each.removesuffix("Z") for each in cells]
            if any(each.find("+", 10) >= 0 or each.find("-", 10) >= 0 for each in bare):
                raise ValueError("a zone, which numpy does not know")
            found: I8 = np.array(bare, dtype="datetime64[ns]").astype(np.int64)
            return found
        if all(each.isdecimal() for each in cells):
            whole: I8 = np.array(cells).astype(np.int64) * self._unit_ns
            return whole
        return np.array([self._read_one(each) for each in cells], dtype=np.int64)

    def _read_one(self, cell: str) -> int:
        try:
            return moment(cell) if self._unit_ns is None else _scaled(cell, self._unit_ns)
        except ValueError:
            return int(NO_TIME)


def _scaled(cell: str, unit: int) -> int:
    """A decimal number times `unit`, exact to the nanosecond for as many digits as it has."""
    if not _NUMBER.fullmatch(cell):
        raise ValueError(f"{cell!r} is no number")
    if "e" in cell.lower():
        return round(float(cell) * unit)
    text = cell.strip()
    whole, _, fraction = text.lstrip("+-").partition(".")
    size = int(whole or "0") * unit + int(fraction or "0") * unit // int("1" + "0" * len(fraction))
    return -size if text.startswith("-") else size


def moment(text: str) -> int:
    """One time, UTC nanoseconds.

    Raises:
        ValueError: it is none.
    """
    text = text.strip()
    if _NUMBER.fullmatch(text) and len(text) != _DAY_ONLY:
        unit = unit_ns("", text)
        assert unit is not None
        return _scaled(text, unit)
    found = datetime.fromisoformat(text)
    utc = found.replace(tzinfo=UTC) if found.tzinfo is None else found
    since = utc - _EPOCH
    return ((since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds) * 1_000
