"""Bulk records, many to a row: one segment is what one commit brought of them.

The seqs in a segment are contiguous and end with its `last`; the ids are STREAM-ORDINAL, counted on from the
first. The body is msgpack: a pair of the stream times (one for each record, or none if all have the
segment's) and the bodies. The functions are one or a few statements each; none ends a transaction.
"""

import sqlite3
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import repeat
from typing import Final, NamedTuple

import msgpack

from dxad.types import Boot, Lane, Record

__all__ = [
    "SEGMENT_BYTES",
    "Bulk",
    "Extent",
    "Head",
    "Opened",
    "Segment",
    "Totals",
    "count_between",
    "covering",
    "extent",
    "ids_behind",
    "insert",
    "oldest",
    "remove",
    "totals",
]

SEGMENT_BYTES: Final = 100
"""About what a segment takes beside its body."""
_COLUMNS: Final = "last, count, boot, at_ns, stream, ordinal, crc, body"


@dataclass(slots=True)
class Bulk:
    """Bulk records on their way into one segment."""

    stream: str
    ordinal: int
    """Of the first: the ids are STREAM-ORDINAL."""
    bodies: list[bytes] = field(default_factory=list)
    at_ns: list[int] = field(default_factory=list)
    """Stream times, one for each."""


@dataclass(frozen=True, slots=True)
class Segment:
    """One that was read, its checksum not yet looked at."""

    last: int
    count: int
    boot: int
    at_ns: int
    stream: str
    ordinal: int
    crc: int
    body: bytes

    @property
    def first(self) -> int:
        """The seq of its first record."""
        return self.last - self.count + 1

    @property
    def sound(self) -> bool:
        """Whether it is as it was written."""
        return self.crc == _crc(
            (self.last, self.count, self.boot, self.at_ns, self.stream, self.ordinal), self.body
        )

    def opened(self, boot: Boot) -> "Opened":
        """Its records, to be taken out one stretch after the other."""
        at_ns, bodies = msgpack.unpackb(self.body)
        times = at_ns or [self.at_ns] * self.count
        return Opened(self.first, self.stream, self.ordinal, boot, times, bodies)


@dataclass(frozen=True, slots=True)
class Opened:
    """The records of a sound segment."""

    first: int
    stream: str
    ordinal: int
    boot: Boot
    at_ns: Sequence[int]
    bodies: Sequence[bytes]

    @property
    def last(self) -> int:
        """The seq of the last record."""
        return self.first + len(self.bodies) - 1

    def following(self, after: int, limit: int) -> list[Record]:
        """Those that come after a seq, in order."""
        start = max(0, after + 1 - self.first)
        stop = min(len(self.bodies), start + limit)
        # Mapped, not looped over: a backlog of telemetry is read by the ten thousand.
        return list(
            map(
                Record,
                map(f"{self.stream}-".__add__, map(str, range(self.ordinal + start, self.ordinal + stop))),
                repeat(Lane.BULK),
                self.bodies[start:stop],
                range(self.first + start, self.first + stop),
                repeat(self.boot),
                self.at_ns[start:stop],
            )
        )


class Head(NamedTuple):
    """What a segment is, without what is in it."""

    first: int
    """The seq of its first record."""
    last: int
    boot: int
    at_ns: int
    bytes: int


class Extent(NamedTuple):
    """Consecutive segments."""

    first: int
    """The seq of the first record."""
    last: int
    records: int
    bytes: int


@dataclass(slots=True)
class Totals:
    """How many records, and how many bytes they take."""

    records: int
    bytes: int

    def __add__(self, other: "Totals") -> "Totals":
        return Totals(self.records + other.records, self.bytes + other.bytes)

    def __sub__(self, other: "Totals") -> "Totals":
        return Totals(self.records - other.records, self.bytes - other.bytes)


def insert(connection: sqlite3.Connection, bulk: Bulk, first: int, boot: int) -> int:
    """Insert a segment whose first record has seq `first`; returns how many bytes it takes."""
    count = len(bulk.bodies)
    last = first + count - 1
    at_ns = bulk.at_ns[0]
    alike = bulk.at_ns.count(at_ns) == count
    body: bytes = msgpack.packb(([] if alike else bulk.at_ns, bulk.bodies))
    size = len(body) + SEGMENT_BYTES
    head = (last, count, boot, at_ns, bulk.stream, bulk.ordinal)
    before = _through(connection, None)
    connection.execute(
        "INSERT INTO segments (last, count, boot, at_ns, stream, ordinal, records_through, bytes_through,"
        " crc, body) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (*head, before.records + count, before.bytes + size, _crc(head, body), body),
    )
    return size


def covering(connection: sqlite3.Connection, seq: int) -> Segment | None:
    """The segment with the record of this seq, or else the first one after it."""
    row = connection.execute(
        f"SELECT {_COLUMNS} FROM segments WHERE last >= ? ORDER BY last LIMIT 1",  # noqa: S608
        (seq,),
    ).fetchone()
    return None if row is None else Segment(*row)


def ids_behind(connection: sqlite3.Connection, seq: int) -> dict[str, int]:
    """The seqs of all records in the segments that begin behind a seq, by their ids."""
    rows = connection.execute(
        "SELECT last - count + 1, last, stream, ordinal FROM segments WHERE last > ?1 AND last - count >= ?1",
        (seq,),
    ).fetchall()
    return {
        f"{stream}-{ordinal + at - first}": at
        for first, last, stream, ordinal in rows
        for at in range(first, last + 1)
    }


def oldest(connection: sqlite3.Connection, after: int = 0) -> Head | None:
    """The oldest segment with records after a seq."""
    row = connection.execute(
        "SELECT last - count + 1, last, boot, at_ns, length(body) + ? FROM segments WHERE last > ?"
        " ORDER BY last LIMIT 1",
        (SEGMENT_BYTES, after),
    ).fetchone()
    return None if row is None else Head(*row)


def extent(connection: sqlite3.Connection, through: int) -> Extent | None:
    """What the segments are that end at or before a seq; None if there are none."""
    row = connection.execute(
        "SELECT min(last - count + 1), max(last), sum(count), sum(length(body)) + count(*) * ? FROM segments"
        " WHERE last <= ?",
        (SEGMENT_BYTES, through),
    ).fetchone()
    return None if row[0] is None else Extent(*row)


def totals(connection: sqlite3.Connection) -> Totals:
    """What all segments hold."""
    return _through(connection, None) - _through(connection, 0)


def count_between(connection: sqlite3.Connection, after: int, through: int | None = None) -> int:
    """How many records in segments come after one seq, up to and with another."""
    return _through(connection, through).records - _through(connection, after).records


def remove(connection: sqlite3.Connection, last: int) -> int:
    """Delete one segment from among the others; returns how many bytes it took."""
    count, size = connection.execute(
        "SELECT count, length(body) FROM segments WHERE last = ?", (last,)
    ).fetchone()
    connection.execute("DELETE FROM segments WHERE last = ?", (last,))
    connection.execute(
        "UPDATE segments SET records_through = records_through - ?, bytes_through = bytes_through - ?"
        " WHERE last > ?",
        (count, size + SEGMENT_BYTES, last),
    )
    return int(size) + SEGMENT_BYTES


def _through(connection: sqlite3.Connection, seq: int | None) -> Totals:
    """What all segments there ever were held, up to and with a seq, or to the end."""
    if seq is not None:
        row = connection.execute(
            "SELECT last, count, records_through, bytes_through, length(body) FROM segments WHERE last >= ?"
            " ORDER BY last LIMIT 1",
            (seq,),
        ).fetchone()
        if row is not None:
            last, count, records, size, own = row
            return Totals(
                records - min(last - seq, count), size if seq == last else size - own - SEGMENT_BYTES
            )
    row = connection.execute(
        "SELECT records_through, bytes_through FROM segments ORDER BY last DESC LIMIT 1"
    ).fetchone()
    return Totals(0, 0) if row is None else Totals(*row)


def _crc(head: tuple[int, int, int, int, str, int], body: bytes) -> int:
    return zlib.crc32(body, zlib.crc32(repr(head).encode()))
