"""Recordings as CSV: a header, one row per line, cells parted by comma, semicolon, tab or bar.

Blocks of lines are parsed by numpy's own C reader. Where it stumbles, empty cells are filled in and it tries
again; where it stumbles again, that block is read cell by cell, and what is wrong is told by its line.
"""

import csv
import hashlib
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Final, TextIO

import numpy as np

from dxad.errors import ConfigError
from dxad.recording import BAD, CELLS_AT_ONCE, Faults, Piece
from dxad.recording.times import NO_TIME, TIME_NAMES, Stamp, unit_ns
from dxad.types import F8, I8

__all__ = ["CsvRecording"]

_SEPARATORS: Final = ",;\t|"
_MISSING: Final = frozenset({"", "nan", "na", "n/a", "null", "none"})
_HEAD_LINES: Final = 2


class CsvRecording:
    """A CSV file."""

    def __init__(self, path: Path, *, period: int | None = None, time: str | None = None) -> None:
        """Read the header and the first row; see `open_recording`.

        Raises:
            ConfigError: there is no header, or no time.
            OSError: there is no such file.
        """
        self.path = path
        self.faults = Faults()
        self._period = period
        with path.open("rb") as file:
            self.digest = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
        with self._open() as file:
            head = [line.rstrip("\r\n") for line in islice(file, _HEAD_LINES)]
        if not head or not head[0].strip():
            raise ConfigError(f"{path}: is empty; a header with the names of the columns comes first")
        self._separator = max(_SEPARATORS, key=head[0].count)
        self._header = [name.strip() for name in self._split(head[0])]
        if len(set(self._header)) != len(self._header):
            twice = sorted({name for name in self._header if self._header.count(name) > 1})
            raise ConfigError(f"{path}:1: column {twice[0]!r} stands there twice")
        first = self._split(head[1]) if len(head) > 1 else []
        self._time = None if period is not None else self._find_time(time, first)
        stamped = self._time is not None and self._time < len(first)
        self._stamp = Stamp(self._header[self._time or 0], first[self._time or 0] if stamped else "0")
        self.columns = tuple(name for place, name in enumerate(self._header) if place != self._time)

    def _open(self) -> TextIO:
        return self.path.open(encoding="utf-8-sig", errors="replace", newline="")

    def _split(self, line: str) -> list[str]:
        if '"' not in line:
            return line.split(self._separator)
        return next(csv.reader([line], delimiter=self._separator))

    def _find_time(self, asked: str | None, first: Sequence[str]) -> int:
        """The place of the column that holds the time.

        Raises:
            ConfigError: there is none.
        """
        if asked is not None:
            if asked in self._header:
                return self._header.index(asked)
            raise ConfigError(f"{self.path}: no column {asked!r}; there are {', '.join(self._header)}")
        lower = [name.lower() for name in self._header]
        for name in TIME_NAMES:
            if name in lower:
                return lower.index(name)
        if first and unit_ns("", first[0]) is None and Stamp("", first[0]).read(first[:1])[0] != NO_TIME:
            return 0
        raise ConfigError(
            f"{self.path}: no column of times, such as {', '.join(TIME_NAMES[:3])}; "
            'name it, or give the period of the rows ("1s")'
        )

    def pieces(self, columns: Sequence[str]) -> Iterator[Piece]:
        """All rows with these columns.

        Raises:
            ConfigError: the file is gone.
        """
        places = [self._header.index(name) for name in columns]
        self.faults = Faults()
        at_once = max(1, CELLS_AT_ONCE // max(1, len(self._header)))
        number, row = 1, 0
        try:
            with self._open() as file:
                next(file, None)
                while lines := list(islice(file, at_once)):
                    first, number = number + 1, number + len(lines)
                    piece = self._piece(lines, first, row, places)
                    row += len(lines)
                    if len(piece):
                        yield piece
        except OSError as error:
            raise ConfigError(f"{self.path}: {error.strerror or error}") from error

    def _piece(self, lines: list[str], first: int, row: int, places: list[int]) -> Piece:
        """Some lines, of which the first has number `first` in the file and is row `row` of the data."""
        try:
            values = self._parsed(lines, places)
            times = self._times(lines, row)
        except (ValueError, IndexError):
            return self._by_cell(lines, first, row, places)
        return Piece(times, values)

    def _parsed(self, lines: list[str], places: list[int]) -> F8:
        """By numpy.

        Raises:
            ValueError: some cell is no number, or some line is blank or has another number of cells.
        """
        separator, cells = self._separator, len(self._header) - 1
        if any(line.count(separator) != cells for line in lines):
            raise ValueError("lines of different lengths")
        if not places:
            return np.empty((len(lines), 0))
        try:
            found = np.loadtxt(lines, delimiter=separator, usecols=places, comments=None, ndmin=2)
        except ValueError:
            filled = [_filled(line, separator) for line in lines]
            found = np.loadtxt(filled, delimiter=separator, usecols=places, comments=None, ndmin=2)
        found[np.isinf(found)] = np.nan
        return found

    def _times(self, lines: list[str], row: int) -> I8:
        """Of each line.

        Raises:
            ValueError: one has none.
        """
        if self._period is not None:
            return np.arange(row, row + len(lines), dtype=np.int64) * self._period
        assert self._time is not None
        if any('"' in line for line in lines):
            raise ValueError("quoted cells")
        place, separator = self._time, self._separator
        cells = [line.split(separator, place + 1)[place].strip() for line in lines]
        times = self._stamp.read(cells)
        if (times == NO_TIME).any():
            raise ValueError("a row without a time")
        return times

    def _by_cell(self, lines: list[str], first: int, row: int, places: list[int]) -> Piece:
        """The slow way, which knows what is wrong and where."""
        times: list[int] = []
        values: list[list[float]] = []
        bad: list[list[bool]] = []
        for number, line in enumerate(lines):
            text = line.rstrip("\r\n")
            if not text.strip():
                continue
            where, cells = f"{self.path}:{first + number}", self._split(text)
            if len(cells) != len(self._header):
                self.faults.lines += 1
                self.faults.note(where, f"has {len(cells)} cells, the header {len(self._header)}")
                continue
            if self._period is not None:
                time = (row + number) * self._period
            else:
                assert self._time is not None
                time = int(self._stamp.read([cells[self._time].strip()])[0])
            if time == NO_TIME:
                self.faults.lines += 1
                self.faults.note(where, f"{cells[self._time or 0]!r} is no time")
                continue
            times.append(time)
            read = [self._cell(cells[place].strip(), where, self._header[place]) for place in places]
            values.append([value for value, _ in read])
            bad.append([wrong for _, wrong in read])
        shape = (len(times), len(places))
        return Piece(
            np.array(times, dtype=np.int64),
            np.array(values, dtype=np.float64).reshape(shape),
            np.array(bad, dtype=np.bool_).reshape(shape),
        )

    def _cell(self, text: str, where: str, column: str) -> tuple[float, bool]:
        """A cell's value, and whether it is bad."""
        if text.lower() in _MISSING:
            return np.nan, False
        try:
            value = float(text)
        except ValueError:
            if text.lower() != BAD:
                self.faults.cells += 1
                self.faults.note(where, f"{column}: {text!r} is no number")
            return np.nan, True
        return (value, False) if np.isfinite(value) else (np.nan, False)


def _filled(line: str, separator: str) -> str:
    """The line with `nan` in its empty cells."""
    gap = separator + separator
    filled = line.strip(" \r\n").replace(gap, f"{separator}nan{separator}")
    filled = filled.replace(gap, f"{separator}nan{separator}")  # every other one of a row of them
    if filled.startswith(separator):
        filled = "nan" + filled
    return filled + "nan" if filled.endswith(separator) else filled
