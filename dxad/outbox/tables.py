"""What is asked of the tables of single records: each function is one or a few statements.

None ends a transaction.
"""

import sqlite3
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from dxad.outbox.segments import Segment
from dxad.types import UNKNOWN_BOOT, Boot, Lane, Record

__all__ = [
    "ROW_BYTES",
    "SUMMED",
    "Found",
    "Letter",
    "at",
    "bury",
    "checksum",
    "checksum_of",
    "count_between",
    "count_dead_letters",
    "delete",
    "delete_orphans",
    "following",
    "forgive",
    "insert",
    "move_place",
    "newest",
    "oldest",
    "places",
    "refusals",
    "refuse",
    "save_place",
    "totals",
]

_COLUMNS: Final = "seq, lane, id, boot, at_ns, crc, body"
_LANES: Final = {int(lane): lane for lane in Lane}
"""A number that is none of these is damaged, as the record's checksum will say."""
_INSERT: Final = (
    "INSERT INTO records (seq, lane, id, boot, at_ns, size, crc, body) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
    " ON CONFLICT (id) DO NOTHING"
)
ROW_BYTES: Final = 120
"""About what a record takes beside its body: id, numbers and its entries in both indexes."""


@dataclass(frozen=True, slots=True)
class Found:
    """The records of a query, apart from those whose checksum does not fit."""

    sound: list[Record]
    damaged: list[Record | Segment]


@dataclass(frozen=True, slots=True)
class Letter:
    """What the dead letters say of a record, besides what it says itself."""

    reason: str
    at_utc: int
    """When it was given up."""
    boot: int = 0
    attempts: int = 0
    records: int = 1
    """How many it stands for: a damaged segment cannot be taken apart."""


# -- records ----------------------------------------------------------------------------------------------


def insert(connection: sqlite3.Connection, records: Sequence[Record], first: int, boot: int) -> list[int]:
    """Insert records of a boot from seq `first` on.

    Returns:
        Their seqs: the old one where the id is stored already.
    """
    if not records:
        return []
    rows = [_row(each, seq, boot) for seq, each in enumerate(records, first)]
    if len(rows) == 1:
        inserted = connection.execute(_INSERT, rows[0]).rowcount
    else:
        inserted = connection.executemany(_INSERT, rows).rowcount
    if inserted == len(records):
        return list(range(first, first + len(records)))
    return [
        connection.execute("SELECT seq FROM records WHERE id = ?", (each.id,)).fetchone()[0]
        for each in records
    ]


def _row(record: Record, seq: int, boot: int) -> tuple[int, int, str, int, int, int, int, bytes]:
    # sqlite3 takes a plain int as it is, and looks for somebody to adapt each other one.
    lane, id_, at_ns, body = int(record.lane), record.id, record.at_ns, record.body
    return seq, lane, id_, boot, at_ns, len(body), checksum(lane, id_, boot, at_ns, body), body


def following(
    connection: sqlite3.Connection, boots: Mapping[int, Boot], lane: Lane, after: int, limit: int
) -> Found:
    """The records of a lane that come after a seq, in order."""
    return _found(
        connection.execute(
            f"SELECT {_COLUMNS} FROM records WHERE lane = ? AND seq > ? ORDER BY seq LIMIT ?",  # noqa: S608
            (lane, after, limit),
        ),
        boots,
    )


def at(connection: sqlite3.Connection, boots: Mapping[int, Boot], seq: int) -> Found:
    """The record at a seq, if it is still there."""
    return _found(
        connection.execute(f"SELECT {_COLUMNS} FROM records WHERE seq = ?", (seq,)),  # noqa: S608
        boots,
    )


def delete(connection: sqlite3.Connection, seqs: Iterable[int]) -> None:
    """Delete records, and that they were refused."""
    connection.executemany("DELETE FROM records WHERE seq = ?", ((seq,) for seq in seqs))
    delete_orphans(connection)


def totals(connection: sqlite3.Connection) -> dict[Lane, tuple[int, int]]:
    """By lane, how many records are stored and how many bytes they take."""
    counted = connection.execute("SELECT lane, count(*), sum(size) FROM records GROUP BY lane")
    return {Lane(lane): (n, size + n * ROW_BYTES) for lane, n, size in counted}


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
    return _number(
        connection,
        "SELECT max((SELECT coalesce(max(seq), 0) FROM records),"
        " (SELECT coalesce(max(last), 0) FROM segments))",
    )


def oldest(connection: sqlite3.Connection, lane: Lane, after: int) -> tuple[int, int, int] | None:
    """Seq, boot and stream time of the first record of a lane after a seq."""
    row = connection.execute(
        "SELECT seq, boot, at_ns FROM records WHERE lane = ? AND seq > ? ORDER BY seq LIMIT 1", (lane, after)
    ).fetchone()
    return None if row is None else tuple(row)


# -- how far the sinks are, and what they refused ---------------------------------------------------------


SUMMED: Final = {
    "cursors": ("sink", "lane", "seq"),
    "refusals": ("sink", "seq", "attempts", "reason"),
    "consumers": ("name", "filter", "silent_ns"),
}
"""Tables besides those of records whose rows have a checksum, and what it is made of."""


def checksum_of(*values: str | int) -> int:
    """A row's, of one of these tables."""
    return zlib.crc32(repr(values).encode())


def places(connection: sqlite3.Connection) -> list[tuple[str, Lane, int]]:
    """How far each sink is in each lane it carries."""
    rows = connection.execute("SELECT sink, lane, seq FROM cursors ORDER BY sink, lane")
    return [(sink, Lane(lane), seq) for sink, lane, seq in rows]


def save_place(connection: sqlite3.Connection, sink: str, passed: Mapping[Lane, int] | None) -> None:
    """Note how far a sink is, in all lanes that it carries; None when it is no more."""
    connection.execute("DELETE FROM cursors WHERE sink = ?", (sink,))
    if passed is None:
        connection.execute("DELETE FROM refusals WHERE sink = ?", (sink,))
    else:
        move_place(connection, sink, passed)


def move_place(connection: sqlite3.Connection, sink: str, passed: Mapping[Lane, int]) -> None:
    """Note how far a sink is in these of its lanes."""
    for lane, seq in passed.items():
        connection.execute(
            "INSERT INTO cursors (sink, lane, seq, crc) VALUES (?, ?, ?, ?)"
            " ON CONFLICT (sink, lane) DO UPDATE SET seq = excluded.seq, crc = excluded.crc",
            (sink, int(lane), seq, checksum_of(sink, int(lane), seq)),
        )


def refusals(connection: sqlite3.Connection) -> list[tuple[str, int, int]]:
    """Sink, seq and how often, of every record that is to be offered again."""
    return connection.execute("SELECT sink, seq, attempts FROM refusals").fetchall()


def refuse(connection: sqlite3.Connection, sink: str, seq: int, attempts: int, reason: str) -> None:
    """A sink has refused a record so often now."""
    connection.execute(
        "INSERT INTO refusals (sink, seq, attempts, reason, crc) VALUES (?, ?, ?, ?, ?)"
        " ON CONFLICT (sink, seq)"
        " DO UPDATE SET attempts = excluded.attempts, reason = excluded.reason, crc = excluded.crc",
        (sink, seq, attempts, reason, checksum_of(sink, seq, attempts, reason)),
    )


def forgive(connection: sqlite3.Connection, sink: str, seq: int) -> None:
    """The sink need not be offered the record again."""
    connection.execute("DELETE FROM refusals WHERE sink = ? AND seq = ?", (sink, seq))


def bury(connection: sqlite3.Connection, sink: str, record: Record, letter: Letter) -> None:
    """Copy a record to the dead letters, if it is still there."""
    connection.execute(
        "INSERT INTO dead_letters"
        " (seq, sink, lane, id, body, reason, at_utc, boot, at_ns, attempts, records)"
        " SELECT ?1, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?"
        " WHERE EXISTS (SELECT 1 FROM records WHERE seq = ?1)"
        " OR ?1 > (SELECT last - count FROM segments WHERE last >= ?1 ORDER BY last LIMIT 1)",
        (
            record.seq, sink, record.lane, record.id, record.body, letter.reason, letter.at_utc,
            letter.boot, record.at_ns, letter.attempts, letter.records,
        ),
    )  # fmt: skip


def count_dead_letters(connection: sqlite3.Connection) -> int:
    """How many there are."""
    return _number(connection, "SELECT count(*) FROM dead_letters")


def delete_orphans(connection: sqlite3.Connection) -> None:
    """Forget refusals and leases of rows that are no more."""
    for table in ("refusals", "leases"):
        connection.execute(
            f"DELETE FROM {table} WHERE seq NOT IN (SELECT seq FROM records) AND NOT coalesce("  # noqa: S608
            f"seq > (SELECT last - count FROM segments WHERE last >= {table}.seq ORDER BY last LIMIT 1), 0)"
        )


def _found(rows: Iterable[tuple[int, int, str, int, int, int, bytes]], boots: Mapping[int, Boot]) -> Found:
    found = Found([], [])
    for seq, lane, id_, boot, at_ns, crc, body in rows:
        record = Record(id_, _LANES.get(lane, Lane.BULK), body, seq, boots.get(boot, UNKNOWN_BOOT), at_ns)
        (found.sound if checksum(lane, id_, boot, at_ns, body) == crc else found.damaged).append(record)
    return found


def checksum(lane: int, id_: str, boot: int, at_ns: int, body: bytes) -> int:
    """A record's; those of the first version, without a boot, are made of less."""
    date = f"/{boot}/{at_ns}" if boot else ""
    return zlib.crc32(body, zlib.crc32(f"{id_}{date}".encode(), lane))


def _number(connection: sqlite3.Connection, sql: str, *values: object) -> int:
    return int(connection.execute(sql, values).fetchone()[0])
