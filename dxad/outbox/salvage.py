"""What can be read of a damaged outbox, on standard output: run as `python -m dxad.outbox.salvage FILE`.

It works in a process of its own, which may take its time and memory, and may fail. It says msgpack pairs of a
kind and rows: dead letters, by SQL as far as that goes; then records and segments whose checksum is right,
page by page; at the end `done` with how many of each were found, and how much of the file is gone.
What stands in small tables is read by `small`, at once.
"""

import os
import sqlite3
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import msgpack

from dxad.outbox import carving, segments, tables
from dxad.types import Lane

__all__ = ["LETTERS", "Small", "said", "small"]

_SMALL: Final = {
    "boots": "number, id, offset_ns, clock_ok",
    "cursors": "sink, lane, seq, crc",
    "consumers": "name, filter, made_utc, silent_ns, crc",
    "drops": "what, reason, records, bytes, oldest_utc, newest_utc, since_utc",
}
"""The tables that a fresh file takes over at once, as far as SQL can read them, and their columns."""
LETTERS: Final = "seq, sink, lane, id, body, reason, at_utc, boot, at_ns, attempts, records"
_BATCH_BYTES: Final = 2**18
_RECORD: Final = (int, str, int, int, bytes, int, int)
_RECORD_1: Final = (int, str, int, int, bytes)
"""What stands in a row of the first version, besides its seq."""
_SEGMENT: Final = (int, int, int, int, int, str, int, int, bytes)


@dataclass(slots=True)
class Small:
    """What the small tables of a damaged file say."""

    rows: dict[str, list[Sequence[Any]]]
    refused: frozenset[int]
    """The seqs of records that stand aside for some sink."""
    whole: bool
    """Whether all places and refusals were read, and are as they were written."""

    @property
    def boots(self) -> dict[int, str]:
        """The ids of boots, by their numbers in that file."""
        return {number: id_ for number, id_, _, _ in self.rows.get("boots", [])}

    def floors(self) -> dict[int, int]:
        """By lane, the seq up to which every sink had everything, but for what was refused."""
        found: dict[int, int] = {}
        if not self.whole:
            return found
        for _, lane, seq, _ in self.rows["cursors"]:
            found[lane] = min(found.get(lane, seq), seq)
        return found

    def put(self, connection: sqlite3.Connection) -> None:
        """Let a fresh file know it."""
        connection.execute("BEGIN IMMEDIATE")
        for table, rows in self.rows.items():
            if rows:
                marks = ", ".join("?" * len(rows[0]))
                connection.executemany(
                    f"INSERT OR IGNORE INTO {table} ({_SMALL[table]}) VALUES ({marks})",  # noqa: S608
                    rows,
                )
        connection.execute("COMMIT")


def small(path: Path) -> Small:
    """What a damaged file's small tables say, as far as SQL can read them."""
    read = {table: _read(path, f"SELECT {columns} FROM {table}") for table, columns in _SMALL.items()}  # noqa: S608
    refusals, to_the_end = _read(path, f"SELECT {', '.join(tables.SUMMED['refusals'])}, crc FROM refusals")  # noqa: S608
    rows = {table: found for table, (found, _) in read.items()}
    rows["cursors"] = [each for each in rows["cursors"] if tables.checksum_of(*each[:-1]) == each[-1]]
    whole = (
        to_the_end
        and all(tables.checksum_of(*each[:-1]) == each[-1] for each in refusals)
        and read["cursors"] == (rows["cursors"], True)
    )
    return Small(rows, frozenset(seq for _, seq, *_ in refusals), whole)


def said(path: Path) -> Iterator[tuple[str, Any]]:
    """All else that can be read of the file at `path`, in order."""
    pages = carving.Pages(path)
    letters, _ = _read(path, f"SELECT {LETTERS} FROM dead_letters")  # noqa: S608
    for start in range(0, len(letters), 100):
        yield "letters", letters[start : start + 100]
    counts = {"records": 0, "segments": 0, "damaged": 0, "frames": pages.damaged}
    counts["missing_bytes"] = pages.missing * pages.size
    batches: dict[str, list[Sequence[Any]]] = {"records": [], "segments": []}
    size = 0
    for rowid, values in carving.rows(pages):
        kind, row = _sound(rowid, values)
        counts[kind] = counts.get(kind, 0) + 1
        if kind in batches and row is not None:
            batches[kind].append(row)
            size += len(row[-1]) + 100
        if size > _BATCH_BYTES:
            yield from _emptied(batches)
            size = 0
    yield from _emptied(batches)
    counts.pop("", None)
    yield "done", counts


def _emptied(batches: dict[str, list[Sequence[Any]]]) -> Iterator[tuple[str, Any]]:
    for kind, rows in batches.items():
        if rows:
            yield kind, list(rows)
            rows.clear()


def _sound(rowid: int, values: Sequence[Any]) -> tuple[str, Sequence[Any] | None]:
    """Of which kind a row is, and what it is; the kind is empty for rows of other tables."""
    kinds = tuple(map(type, values[1:]))
    if kinds == _SEGMENT:
        count, _, _, boot, at_ns, stream, ordinal, crc, body = values[1:]
        segment = segments.Segment(rowid, count, boot, at_ns, stream, ordinal, crc, body)
        return ("segments", _as_said(segment)) if segment.sound else ("damaged", None)
    if kinds in {_RECORD, _RECORD_1} and values[1] in {*Lane}:
        lane, id_, at_ns, crc, body = values[1:6]
        boot = values[6] if kinds == _RECORD else 0
        if tables.checksum(lane, id_, boot, at_ns, body) == crc:
            return "records", (rowid, lane, id_, boot, at_ns, body)
        return "damaged", None
    return "", None


def _as_said(segment: segments.Segment) -> Sequence[Any]:
    """As it is said."""
    return (
        segment.last, segment.count, segment.boot, segment.at_ns, segment.stream, segment.ordinal,
        segment.crc, segment.body,
    )  # fmt: skip


def _read(path: Path, statement: str) -> tuple[list[Sequence[Any]], bool]:
    """The rows of a table, up to the first that cannot be read; and whether there was none."""
    rows: list[Sequence[Any]] = []
    if not path.stat().st_size:
        return rows, False  # SQLite, even one that may only read, would delete the log beside it
    try:
        # Who could write would fold in what it takes for the log, and delete the rest.
        with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True)) as connection:
            connection.text_factory = partial(str, encoding="utf-8", errors="replace")
            rows.extend(connection.execute(statement))
    except (sqlite3.Error, UnicodeError):  # see `is_damage`
        return rows, False
    return rows, True


def _main() -> None:
    os.nice(19)
    for each in said(Path(sys.argv[1])):
        sys.stdout.buffer.write(msgpack.packb(each))
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    _main()
