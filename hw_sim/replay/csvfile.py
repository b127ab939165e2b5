"""A CSV file as people publish them: delimiter and header are guessed, and every row knows its line.

The dialect is RFC 4180 with any of `,` `;` tab `|` between the cells; a byte order mark, CRLF and empty lines
are passed over, and blanks around a cell are not part of it. A first line of numbers alone is no header: the
columns are then `c0`, `c1`, ….
"""

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TextIO

__all__ = ["DELIMITERS", "FileError", "Table", "number", "read"]

DELIMITERS: Final = (",", ";", "\t", "|")
"""What may stand between two cells."""


class FileError(ValueError):
    """A file that cannot be read as it should be; the message says which, where and why."""


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """The cells of a file, as they were written."""

    path: Path
    columns: Sequence[str]
    """The header, each name once: a second `x` is `x_2`."""
    rows: Sequence[Sequence[str]]
    """By row, as many cells as there are columns."""
    lines: Sequence[int]
    """By row, its line in the file, from 1 on."""

    def index(self, column: str) -> int:
        """The place of a column.

        Raises:
            FileError: there is none of that name.
        """
        if column not in self.columns:
            raise FileError(f"{self.path}: no column {column!r}; there are {', '.join(self.columns)}")
        return self.columns.index(column)


def read(path: Path, delimiter: str = "") -> Table:
    """Read a whole file; without a delimiter, the one that the first line has most of.

    Raises:
        FileError: it is not there, is no text in UTF-8 or no CSV, has no row, or a row is longer or shorter
            than the first.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            return _read(path, file, delimiter)
    except OSError as error:
        raise FileError(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise FileError(f"{path}: no text in UTF-8: {error.reason} at byte {error.start}") from error


def number(cell: str) -> float | None:
    """The number that a cell holds; None where it holds something else."""
    try:
        return None if "_" in cell else float(cell)  # Python's own 1_000 is nobody's else
    except ValueError:
        return None


def _read(path: Path, file: TextIO, delimiter: str) -> Table:
    first = file.readline()
    file.seek(0)
    found = delimiter or max(DELIMITERS, key=first.count)
    lines: list[int] = []
    rows: list[Sequence[str]] = []
    for line, cells in _cells(path, file, found):
        if rows and len(cells) != len(rows[0]):
            raise FileError(f"{path}, line {line}: {len(cells)} cells, but {len(rows[0])} in line {lines[0]}")
        lines.append(line)
        rows.append(cells)
    if rows and any(number(cell) is None for cell in rows[0]):
        columns, rows, lines = _once(rows[0]), rows[1:], lines[1:]
    else:
        columns = [f"c{place}" for place in range(len(rows[0]))] if rows else []
    if not rows:
        raise FileError(f"{path}: no rows")
    return Table(path, columns, rows, lines)


def _cells(path: Path, file: TextIO, delimiter: str) -> Iterator[tuple[int, Sequence[str]]]:
    """Each line that has any, with its number."""
    reader = csv.reader(file, delimiter=delimiter, strict=True)
    try:
        for cells in reader:
            if cells:
                yield reader.line_num, [cell.strip() for cell in cells]
    except csv.Error as error:
        raise FileError(f"{path}, line {reader.line_num}: {error}") from error


def _once(header: Sequence[str]) -> Sequence[str]:
    """Each name once, and each with a name."""
    names: list[str] = []
    for place, written in enumerate(header):
        name, again = written or f"c{place}", 1
        while name in names:
            again += 1
            name = f"{written or f'c{place}'}_{again}"
        names.append(name)
    return names
