"""What can be read of a damaged file, put into one that can be looked at: each row at its old place.

Nothing is written beside the damaged file: a copy of it is read.
"""

import shutil
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dxad.outbox import salvage, schema, tables

__all__ = ["recovered"]


def recovered(path: Path, folder: Path) -> tuple[sqlite3.Connection, int]:
    """A database in `folder` with what can be read of the file at `path`.

    Returns:
        Its connection, and how many rows and frames of the log were damaged.
    """
    copy = folder / path.name
    for suffix in ("", "-wal"):
        source = path.with_name(path.name + suffix)
        if source.exists():
            shutil.copyfile(source, copy.with_name(copy.name + suffix))
    small = salvage.small(copy)
    connection = sqlite3.connect(folder / "recovered.db", isolation_level=None)
    schema.apply(connection)
    small.put(connection)
    damaged = 0
    connection.execute("BEGIN")
    for kind, said in salvage.said(copy):
        if kind == "done":
            damaged = said["damaged"] + said["frames"]
        else:
            _put(connection, kind, said)
    connection.execute("COMMIT")
    return connection, damaged


def _put(connection: sqlite3.Connection, kind: str, rows: Sequence[Sequence[Any]]) -> None:
    """A row that stands in an older page as well is put once."""
    match kind:
        case "records":
            connection.executemany(
                "INSERT OR IGNORE INTO records (seq, lane, id, boot, at_ns, body, size, crc)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                [(*each, len(each[-1]), tables.checksum(*each[1:])) for each in rows],
            )
        case "segments":
            connection.executemany(
                "INSERT OR IGNORE INTO segments (last, count, boot, at_ns, stream, ordinal, crc, body,"
                " records_through, bytes_through) VALUES (?, ?, ?, ?, ?, ?, ?, ?, 0, 0)",
                rows,
            )
        case "letters":
            connection.executemany(
                f"INSERT INTO dead_letters ({salvage.LETTERS}) VALUES ({', '.join('?' * len(rows[0]))})",  # noqa: S608
                rows,
            )
