"""What is asked of the outbox's tables: each function is one or a few statements, none ends a transaction."""

import sqlite3
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from dxad.outbox.database import used_bytes
from dxad.types import Lane, Record

__all__ = [
    "Dropped",
    "Found",
    "Row",
    "apply_quota",
    "bury",
    "count_between",
    "count_dead_letters",
    "count_records",
    "delete",
    "following",
    "forgive",
    "insert",
    "newest",
    "oldest_utc",
    "places",
    "refusals",
    "refuse",
    "save_place",
    "these",
    "trim",
]

_COLUMNS: Final = "seq, lane, id, crc, body"
_CHUNK: Final = 256
"""How many rows one step of the quota looks at."""
_ROW_BYTES: Final = 120
"""About what a record takes beside its body: id, numbers and its entries in both indexes."""


@dataclass(frozen=True, slots=True)
class Row:
    """A record to be stored, with the wall time it was appended."""

    record: Record
    stored_utc: int


@dataclass(frozen=True, slots=True)
class Found:
    """The records of a query, apart from those whose checksum does not fit."""

    sound: list[Record]
    damaged: list[Record]


@dataclass(frozen=True, slots=True)
class Dropped:
    """What the quota took, and what is left."""

    records: dict[Lane, list[int]]
    """By lane, the seqs."""
    dead_letters: int
    used_bytes: int


# -- records ----------------------------------------------------------------------------------------------


def insert(connection: sqlite3.Connection, rows: Sequence[Row], first: int) -> list[int]:
    """Insert the rows from seq `first` on; returns their seqs: the old one where the id is stored already."""
    if not rows:
        return []
    inserted = connection.executemany(
        "INSERT INTO records (seq, lane, id, stored_utc, crc, body) VALUES (?, ?, ?, ?, ?, ?)"
        " ON CONFLICT (id) DO NOTHING",
        (
            (seq, each.record.lane, each.record.id, each.stored_utc, _crc(each.record), each.record.body)
            for seq, each in enumerate(rows, first)
        ),
    ).rowcount
    if inserted == len(rows):
        return list(range(first, first + len(rows)))
    return [
        connection.execute("SELECT seq FROM records WHERE id = ?", (each.record.id,)).fetchone()[0]
        for each in rows
    ]


def following(connection: sqlite3.Connection, lane: Lane, after: int, limit: int) -> Found:
    """The records of a lane that come after a seq, in order."""
    return _found(
        connection.execute(
            f"SELECT {_COLUMNS} FROM records WHERE lane = ? AND seq > ? ORDER BY seq LIMIT ?",  # noqa: S608
            (lane, after, limit),
        )
    )


def these(connection: sqlite3.Connection, seqs: Iterable[int]) -> Found:
    """The records at these seqs, as far as they are still there."""
    rows = (
        connection.execute(f"SELECT {_COLUMNS} FROM records WHERE seq = ?", (seq,)).fetchone()  # noqa: S608
        for seq in seqs
    )
    return _found(row for row in rows if row is not None)


def delete(connection: sqlite3.Connection, seqs: Iterable[int]) -> None:
    """Delete records, and that they were refused."""
    connection.executemany("DELETE FROM records WHERE seq = ?", ((seq,) for seq in seqs))
    _delete_orphans(connection)


def trim(connection: sqlite3.Connection, lane: Lane, floor: int) -> int:
    """Delete the records of a lane up to a seq, but for those that a sink refused; returns how many."""
    return connection.execute(
        "DELETE FROM records WHERE lane = ? AND seq <= ? AND seq NOT IN (SELECT seq FROM refusals)",
        (lane, floor),
    ).rowcount


def apply_quota(connection: sqlite3.Connection, max_bytes: int) -> Dropped:
    """Delete the oldest of the least important until the rest fits: dead letters, bulk, normal, critical."""
    records: dict[Lane, list[int]] = {}
    letters = 0
    while (used := used_bytes(connection)) > max_bytes:
        found = connection.execute(
            "DELETE FROM dead_letters"
            " WHERE number IN (SELECT number FROM dead_letters ORDER BY number LIMIT ?)",
            (_CHUNK,),
        ).rowcount
        letters += found
        if not found and not _drop_oldest(connection, used - max_bytes, records):
            break
    return Dropped(records, letters, used)


def _drop_oldest(connection: sqlite3.Connection, excess: int, dropped: dict[Lane, list[int]]) -> bool:
    """Delete about `excess` bytes of the least important lane that has any; False if none has."""
    for lane in reversed(Lane):
        rows = connection.execute(
            "SELECT seq, length(body) FROM records WHERE lane = ? ORDER BY seq LIMIT ?", (lane, _CHUNK)
        ).fetchall()
        if not rows:
            continue
        going = dropped.setdefault(lane, [])
        freed = 0
        for seq, size in rows:
            going.append(seq)
            freed += size + _ROW_BYTES
            if freed >= excess:
                break
        connection.execute("DELETE FROM records WHERE lane = ? AND seq <= ?", (lane, going[-1]))
        _delete_orphans(connection)
        return True
    return False


def count_records(connection: sqlite3.Connection) -> Counter[Lane]:
    """How many are stored, by lane."""
    counted = connection.execute("SELECT lane, count(*) FROM records GROUP BY lane")
    return Counter({Lane(lane): n for lane, n in counted})


def count_between(connection: sqlite3.Connection, lane: Lane, after: int, through: int | None = None) -> int:
    """How many records of a lane come after one seq, up to and with another."""
    return _number(
        connection,
        "SELECT count(*) FROM records WHERE lane = ? AND seq > ? AND seq <= coalesce(?, seq)",
        lane,
        after,
        through,
    )


def newest(connection: sqlite3.Connection) -> int:
    """The highest seq there is; 0 without any."""
    return _number(connection, "SELECT coalesce(max(seq), 0) FROM records")


def oldest_utc(connection: sqlite3.Connection, passed: Mapping[Lane, int]) -> int | None:
    """When the oldest record was appended that comes after these seqs in these lanes."""
    heads = (
        connection.execute(
            "SELECT stored_utc FROM records WHERE lane = ? AND seq > ? ORDER BY seq LIMIT 1", each
        ).fetchone()
        for each in passed.items()
    )
    return min((head[0] for head in heads if head is not None), default=None)


# -- how far the sinks are, and what they refused ---------------------------------------------------------


def places(connection: sqlite3.Connection) -> list[tuple[str, Lane, int]]:
    """How far each sink is in each lane it carries."""
    rows = connection.execute("SELECT sink, lane, seq FROM cursors ORDER BY sink, lane")
    return [(sink, Lane(lane), seq) for sink, lane, seq in rows]


def save_place(connection: sqlite3.Connection, sink: str, passed: Mapping[Lane, int] | None) -> None:
    """Note how far a sink is; None when it is no more."""
    connection.execute("DELETE FROM cursors WHERE sink = ?", (sink,))
    if passed is None:
        connection.execute("DELETE FROM refusals WHERE sink = ?", (sink,))
    else:
        connection.executemany(
            "INSERT INTO cursors (sink, lane, seq) VALUES (?, ?, ?)",
            [(sink, lane, seq) for lane, seq in passed.items()],
        )


def refusals(connection: sqlite3.Connection) -> list[tuple[str, int, int]]:
    """Sink, seq and how often, of every record that is to be offered again."""
    return connection.execute("SELECT sink, seq, attempts FROM refusals").fetchall()


def refuse(connection: sqlite3.Connection, sink: str, seq: int, attempts: int, reason: str) -> None:
    """A sink has refused a record so often now."""
    connection.execute(
        "INSERT INTO refusals (sink, seq, attempts, reason) VALUES (?, ?, ?, ?) ON CONFLICT (sink, seq)"
        " DO UPDATE SET attempts = excluded.attempts, reason = excluded.reason",
        (sink, seq, attempts, reason),
    )


def forgive(connection: sqlite3.Connection, sink: str, seq: int) -> None:
    """The sink need not be offered the record again."""
    connection.execute("DELETE FROM refusals WHERE sink = ? AND seq = ?", (sink, seq))


def bury(connection: sqlite3.Connection, sink: str, seq: int, reason: str, at_utc: int) -> None:
    """Copy a record to the dead letters, if it is still there."""
    connection.execute(
        "INSERT INTO dead_letters (seq, sink, lane, id, body, reason, at_utc)"
        " SELECT seq, ?, lane, id, body, ?, ? FROM records WHERE seq = ?",
        (sink, reason, at_utc, seq),
    )


def count_dead_letters(connection: sqlite3.Connection) -> int:
    """How many there are."""
    return _number(connection, "SELECT count(*) FROM dead_letters")


def _delete_orphans(connection: sqlite3.Connection) -> None:
    connection.execute("DELETE FROM refusals WHERE seq NOT IN (SELECT seq FROM records)")


def _found(rows: Iterable[tuple[int, int, str, int, bytes]]) -> Found:
    found = Found([], [])
    for seq, lane, id_, crc, body in rows:
        record = Record(id_, Lane(lane), body, seq)
        (found.sound if _crc(record) == crc else found.damaged).append(record)
    return found


def _crc(record: Record) -> int:
    return zlib.crc32(record.body, zlib.crc32(record.id.encode(), record.lane))


def _number(connection: sqlite3.Connection, sql: str, *values: object) -> int:
    return int(connection.execute(sql, values).fetchone()[0])
