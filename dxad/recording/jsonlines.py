"""Recordings as JSON lines: `{"time": …, "channel": value, …}`, one object per row.

A channel that a line does not name, or names with null, did not come then.
"""

import hashlib
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Final

import numpy as np
import orjson

from dxad.errors import ConfigError
from dxad.recording import BAD, CELLS_AT_ONCE, Faults, Piece
from dxad.recording.times import NO_TIME, TIME_NAMES, Stamp

__all__ = ["JsonLinesRecording"]

_COLUMNS_MOST: Final = 10_000
_LINES_AT_ONCE: Final = 4096


class JsonLinesRecording:
    """A JSON lines file."""

    def __init__(self, path: Path, *, period: int | None = None, time: str | None = None) -> None:
        """Read it once, to learn which channels it has; see `open_recording`.

        Raises:
            ConfigError: there is no time in it, or nothing at all.
            OSError: there is no such file.
        """
        self.path = path
        self.faults = Faults()
        self._period = period
        digest = hashlib.blake2b(digest_size=16)
        names: dict[str, None] = {}
        first: dict[str, Any] | None = None
        with path.open("rb") as file:
            for line in file:
                digest.update(line)
                found = _object(line)
                if found is not None and len(names) < _COLUMNS_MOST:
                    first = first or found
                    names.update(dict.fromkeys(found))
        if first is None:
            raise ConfigError(f"{path}: no line of it is a JSON object")
        self.digest = digest.hexdigest()
        self._time = None if period is not None else self._find_time(time, names)
        self._stamp = Stamp(self._time or "", str(first.get(self._time or "", 0)))
        self.columns = tuple(name for name in names if name != self._time)

    def _find_time(self, asked: str | None, names: dict[str, None]) -> str:
        wanted = TIME_NAMES if asked is None else (asked,)
        for name in wanted:
            if name in names:
                return name
        raise ConfigError(
            f"{self.path}: no {' or '.join(wanted[:3])} in it; name the time, or give the rows' period"
        )

    def pieces(self, columns: Sequence[str]) -> Iterator[Piece]:
        """All rows with these columns.

        Raises:
            ConfigError: the file is gone.
        """
        self.faults = Faults()
        at_once = max(1, min(_LINES_AT_ONCE, CELLS_AT_ONCE // max(1, len(self.columns))))
        number = 0
        try:
            with self.path.open("rb") as file:
                while lines := list(islice(file, at_once)):
                    piece = self._piece(lines, number, columns)
                    number += len(lines)
                    if len(piece):
                        yield piece
        except OSError as error:
            raise ConfigError(f"{self.path}: {error.strerror or error}") from error

    def _piece(self, lines: Sequence[bytes], row: int, columns: Sequence[str]) -> Piece:
        times: list[int] = []
        values = np.full((len(lines), len(columns)), np.nan)
        bad = np.zeros(values.shape, dtype=np.bool_)
        for place, line in enumerate(lines):
            if not line.strip():
                continue
            where, found = f"{self.path}:{row + place + 1}", _object(line)
            if found is None:
                self.faults.lines += 1
                self.faults.note(where, "is no JSON object")
                continue
            time = self._time_of(found, row + place)
            if time == NO_TIME:
                self.faults.lines += 1
                self.faults.note(where, f"{found.get(self._time or '')!r} is no time")
                continue
            for column, name in enumerate(columns):
                values[len(times), column], bad[len(times), column] = self._cell(found.get(name), where, name)
            times.append(time)
        n = len(times)
        return Piece(np.array(times, dtype=np.int64), values[:n], bad[:n])

    def _time_of(self, found: dict[str, Any], row: int) -> int:
        if self._period is not None:
            return row * self._period
        assert self._time is not None
        return int(self._stamp.read([str(found.get(self._time, ""))])[0])

    def _cell(self, value: object, where: str, name: str) -> tuple[float, bool]:
        if value is None:
            return np.nan, False
        if isinstance(value, bool | int | float):
            number = float(value)
            return (number, False) if np.isfinite(number) else (np.nan, False)
        if value != BAD:
            self.faults.cells += 1
            self.faults.note(where, f"{name}: {value!r} is no number")
        return np.nan, True


def _object(line: bytes) -> dict[str, Any] | None:
    try:
        found = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    return found if isinstance(found, dict) else None
