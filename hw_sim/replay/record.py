"""A recorded data set: what its sensors showed row by row, at which times, and what was wrong then.

What is not told is guessed from the file:

    times     the first column with a name such as `timestamp`, else the first whose cells are dates
    labels    columns with a name such as `anomaly`, `changepoint` or `Label`
    values    all other columns in which most cells are numbers
    period    the median of the differences of the times; without times, a second

A time is a date of ISO 8601, a number of seconds, or of milli-, micro- or nanoseconds since 1970 where it is
that large. Rows count from 0. A cell that is empty or no number is NaN, and counted.

Labels may also come from a file of windows, as the Numenta Anomaly Benchmark has them (numenta/NAB,
labels/combined_windows.json: by path of a series, pairs of times, both within the window), or be given as
rows; either makes a label `anomaly`.
"""

import json
import math
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from hw_sim.replay.csvfile import FileError, Table, number

__all__ = [
    "ANOMALY",
    "Record",
    "Span",
    "identifier",
    "label_columns",
    "of",
    "span",
    "time_column",
    "value_columns",
]

ANOMALY: Final = "anomaly"
"""The label of windows and of rows that were named."""

_TIME: Final = re.compile(
    r"@?((date|time|datetime|date[ _]?time|timestamp)s?|ts|epoch|(t|time|timestamp)_?s)", re.IGNORECASE
)
_LABEL: Final = re.compile(
    r"((is_?)?(anomaly|anomalous|outlier|attack)|change[ _]?points?|(anomaly_?)?labels?|normal/attack)",
    re.IGNORECASE,
)
_EPOCHS: Final = ((1e17, 1e-9), (1e14, 1e-6), (1e11, 1e-3))
"""From which size on a number counts which part of a second since 1970: each limit is 3 March 1973."""
_OFF: Final = frozenset({"", "false", "no", "none", "normal", "ok"})
"""What a label column says, besides 0, where nothing is wrong."""
_SPAN: Final = re.compile(r"(\d+)?\.\.(\d+)?")
_DATES_TRIED: Final = 20
"""Rows that are looked at to see whether a column without a telling name has dates."""

Span = tuple[int, int | None]
"""Rows: the first, and the first one after, or none for all that follow."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Record:
    """A data set, or those of its rows that are asked for."""

    path: Path
    columns: Mapping[str, str]
    """By channel, its column."""
    values: NDArray[np.float64]
    """Of shape (rows, channels); NaN where there was none."""
    first: int
    """The number in the file of the first row."""
    times: Sequence[str]
    """By row, the time as it was written; empty without times."""
    seconds: NDArray[np.float64] | None
    """And in seconds since 1970, or since whenever its numbers count from."""
    labels: Mapping[str, Sequence[str]]
    """By label, what it says of each row; empty where nothing was wrong."""
    period_s: float
    """From one row to the next."""
    assumed: bool
    """Whether the period is neither told nor to be seen from times."""
    holes: int
    """Cells that had no value."""
    bad: Sequence[str]
    """Cells among them that had something which is no number: line, column and content."""


def span(text: str) -> Span:
    """Read rows `START..END`, from 0 on and without the last; either may be left out.

    Raises:
        ValueError: it is written wrong, or is empty.
    """
    found = _SPAN.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is not START..END, such as 100..400 or 160..")
    start, end = int(found[1] or 0), int(found[2]) if found[2] else None
    if end is not None and end <= start:
        raise ValueError(f"{text!r} ends before it begins")
    return start, end


def identifier(name: str) -> str:
    """A name of letters, digits and underscores: `Volume Flow RateRMS` is Volume_Flow_RateRMS."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    word = re.sub(r"[^A-Za-z0-9]+", "_", plain).strip("_")
    return f"_{word}" if not word or word[0].isdigit() else word


def time_column(table: Table) -> str | None:
    """The column that looks like times, if any does."""
    for column in table.columns:
        if _TIME.fullmatch(column):
            return column
    return next((column for column in table.columns if _are_dates(_cells(table, column))), None)


def label_columns(table: Table) -> Sequence[str]:
    """The columns whose names say that they are labels."""
    return [column for column in table.columns if _LABEL.fullmatch(column)]


def value_columns(table: Table, beside: Iterable[str]) -> Mapping[str, str]:
    """All other columns in which most cells are numbers, by names that are identifiers.

    Raises:
        FileError: there are none.
    """
    taken, names = set(beside), {}
    for column in table.columns:
        written = [cell for cell in _cells(table, column) if not _is_hole(cell)]
        if column in taken or sum(number(cell) is None for cell in written) * 2 >= len(written):
            continue
        name, again = identifier(column), 1
        while name in names:
            again += 1
            name = f"{identifier(column)}_{again}"
        names[name] = column
    if not names:
        raise FileError(f"{table.path}: no column of numbers; there are {', '.join(table.columns)}")
    return names


def of(
    table: Table,
    *,
    columns: Mapping[str, str] | None = None,
    time: str | None = None,
    time_format: str = "",
    labels: Sequence[str] | None = None,
    period_s: float | None = None,
    rows: Span = (0, None),
    windows: Path | None = None,
    labelled: Sequence[Span] = (),
) -> Record:
    """Make a record of a table; a time column of "" is none, and labels of [] are none.

    Raises:
        FileError: a column is not there or holds something else, the rows are not there, times do not say
            how long a row is, or the windows' file is none or does not have this file.
    """
    first, table = rows[0], _cut(table, rows)
    time = time_column(table) if time is None else time
    labels = label_columns(table) if labels is None else labels
    columns = columns or value_columns(table, (*labels, *([time] if time else ())))
    seconds = _seconds(table, time, time_format) if time else None
    values, holes, bad = _values(table, columns)
    told: dict[str, Sequence[str]] = {
        label: [_told(cell) for cell in _cells(table, label)] for label in labels
    }
    if windows is not None:
        _mark(told, _within(table.path, windows, seconds))
    if labelled:
        numbers = np.arange(first, first + len(table.rows))
        hit = [(numbers >= start) & (numbers < (end or np.inf)) for start, end in labelled]
        _mark(told, np.logical_or.reduce(hit))
    return Record(
        path=table.path,
        columns=columns,
        values=values,
        first=first,
        times=_cells(table, time) if time else (),
        seconds=seconds,
        labels=told,
        period_s=period_s or _period(table, time or "", seconds),
        assumed=period_s is None and (seconds is None or len(seconds) == 1),
        holes=holes,
        bad=bad,
    )


def _cut(table: Table, rows: Span) -> Table:
    start, end = rows
    if start >= len(table.rows):
        raise FileError(f"{table.path}: no row {start}; its {len(table.rows)} rows count from 0")
    return Table(table.path, table.columns, table.rows[start:end], table.lines[start:end])


def _cells(table: Table, column: str) -> Sequence[str]:
    place = table.index(column)
    return [row[place] for row in table.rows]


def _is_hole(cell: str) -> bool:
    return cell.lower() in {"", "nan", "null", "none", "na", "n/a", "?"}


def _values(table: Table, columns: Mapping[str, str]) -> tuple[NDArray[np.float64], int, Sequence[str]]:
    """The values of these columns, how many are none, and which of those are wrong."""
    values = np.empty((len(table.rows), len(columns)))
    bad: list[str] = []
    for at, column in enumerate(columns.values()):
        cells = _cells(table, column)
        try:
            values[:, at] = cells
        except ValueError:
            read = [number(cell) for cell in cells]
            values[:, at] = [math.nan if value is None else value for value in read]
            wrong = [
                f"line {table.lines[row]}, column {column!r}: {cell!r} is no number"
                for row, cell in enumerate(cells)
                if read[row] is None and not _is_hole(cell)
            ]
            if wrong and all(value is None for value in read):
                raise FileError(f"{table.path}, {wrong[0]}, nor is any other of this column") from None
            bad += wrong
    values[~np.isfinite(values)] = np.nan
    return values, int(np.isnan(values).sum()), bad


def _told(cell: str) -> str:
    """What a label says; the empty string for nothing."""
    value = number(cell)
    if value is not None:
        return "" if value == 0 or math.isnan(value) else f"{value:.12g}"
    return "" if cell.lower() in _OFF else cell


def _mark(labels: dict[str, Sequence[str]], hit: Iterable[bool]) -> None:
    """Say of these rows, besides what is said already, that something was wrong."""
    rows = list(hit)
    before = labels.get(ANOMALY, [""] * len(rows))
    labels[ANOMALY] = [each or ("1" if now else "") for each, now in zip(before, rows, strict=True)]


def _within(path: Path, windows: Path, seconds: NDArray[np.float64] | None) -> NDArray[np.bool_]:
    """Which rows lie in the windows of a file."""
    if seconds is None:
        raise FileError(f"{path}: windows are times, and this file has none")
    name = "/".join(path.absolute().parts[-2:])
    try:
        spans = json.loads(windows.read_text("utf-8"))[name]
        limits = [(_iso(start), _iso(end)) for start, end in spans]
    except OSError as error:
        raise FileError(f"{windows}: {error.strerror}") from error
    except KeyError:
        raise FileError(
            f"{windows}: has no {name!r}; a series is found by the last two parts of its path"
        ) from None
    except (TypeError, ValueError) as error:
        raise FileError(f"{windows}: not by file a list of pairs of times: {error}") from error
    hit = np.zeros(len(seconds), dtype=bool)
    for start_s, end_s in limits:
        hit |= (seconds >= start_s) & (seconds <= end_s)
    return hit


def _iso(text: str) -> float:
    """Seconds since 1970 of a date; one without a zone is taken as UTC, since only differences count."""
    read = datetime.fromisoformat(text)
    return (read if read.tzinfo else read.replace(tzinfo=UTC)).timestamp()


def _are_dates(cells: Sequence[str]) -> bool:
    try:
        for cell in cells[:_DATES_TRIED]:
            _iso(cell)
    except ValueError:
        return False
    return not all(number(cell) is not None for cell in cells[:_DATES_TRIED])


def _seconds(table: Table, column: str, form: str) -> NDArray[np.float64]:
    cells = _cells(table, column)
    plain = [number(cell) for cell in cells]
    if not form and plain[0] is not None:
        largest = max(abs(value) for value in plain if value is not None)
        factor = next((factor for limit, factor in _EPOCHS if largest > limit), 1.0)
        read = [None if value is None or not math.isfinite(value) else value * factor for value in plain]
    else:
        read = [_date(cell, form) for cell in cells]
    if None in read:
        row = read.index(None)
        hint = (
            f"not as {form!r} says"
            if form
            else "neither a date of ISO 8601 nor a number; say its time_format"
        )
        raise FileError(
            f"{table.path}, line {table.lines[row]}, column {column!r}: {cells[row]!r} is no time: {hint}"
        )
    return np.array(read, dtype=float)


def _date(cell: str, form: str) -> float | None:
    try:
        return _iso(datetime.strptime(cell, form).isoformat() if form else cell)  # noqa: DTZ007 - _iso's matter
    except ValueError:
        return None


def _period(table: Table, column: str, seconds: NDArray[np.float64] | None) -> float:
    if seconds is None or len(seconds) == 1:
        return 1.0
    period_s = round(float(np.median(np.diff(seconds))), 9)
    if period_s <= 0:
        raise FileError(
            f"{table.path}: the times of column {column!r} mostly do not rise, so they do not say how long"
            " a row is; say its period"
        )
    return period_s
