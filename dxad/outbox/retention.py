"""What leaves the file: what is delivered, too old, or too much; none of these ends a transaction."""

import sqlite3
from dataclasses import dataclass, field
from typing import Final

from dxad.outbox import segments, tables
from dxad.outbox.database import used_bytes
from dxad.types import UNKNOWN_BOOT, Lane

__all__ = ["Dropped", "Span", "apply_quota", "trim"]

_CHUNK: Final = 256
"""How many rows one step of the quota looks at."""


@dataclass(frozen=True, slots=True)
class Span:
    """Records that went, with all seqs between two; a single one is a span, too."""

    first: int
    last: int

    def __len__(self) -> int:
        return self.last - self.first + 1


@dataclass(slots=True)
class Dropped:
    """What the quota took, and what is left."""

    records: dict[Lane, list[Span]] = field(default_factory=dict)
    """By lane; those in one segment are one span."""
    bytes: dict[Lane, int] = field(default_factory=dict)
    dead_letters: int = 0
    used_bytes: int = 0


def trim(connection: sqlite3.Connection, lane: Lane, floor: int) -> tuple[int, int]:
    """Delete the records of a lane up to a seq, but for those that were refused or are out on lease.

    Returns:
        How many went, and how many bytes.
    """
    gone = connection.execute(
        "DELETE FROM records WHERE lane = ? AND seq <= ? AND seq NOT IN (SELECT seq FROM refusals)"
        " AND seq NOT IN (SELECT seq FROM leases) RETURNING size",
        (lane, floor),
    ).fetchall()
    records, size = len(gone), sum(each for (each,) in gone) + len(gone) * tables.ROW_BYTES
    if lane is Lane.BULK:
        left = _delete_segments(connection, floor)
        records, size = records + left.records, size + left.bytes
    return records, size


def _delete_segments(connection: sqlite3.Connection, floor: int) -> segments.Totals:
    """Delete the segments that end at or before a seq; refused and leased records in them stay, as rows.

    Returns:
        What went.
    """
    oldest = segments.oldest(connection)
    if oldest is None or oldest.last > floor:
        return segments.Totals(0, 0)
    (last,) = connection.execute("SELECT max(last) FROM segments WHERE last <= ?", (floor,)).fetchone()
    spared = connection.execute(
        "SELECT seq FROM refusals WHERE seq BETWEEN ?1 AND ?2"
        " UNION SELECT seq FROM leases WHERE seq BETWEEN ?1 AND ?2",
        (oldest.first, last),
    ).fetchall()
    kept = [size for (seq,) in spared if (size := _take_out(connection, seq))]
    gone = segments.through(connection, last)
    connection.execute("DELETE FROM segments WHERE last <= ?", (last,))
    return segments.Totals(gone.records - len(kept), gone.bytes - sum(kept))


def _take_out(connection: sqlite3.Connection, seq: int) -> int:
    """Make one record of a segment a row; returns how many bytes that takes, 0 if it is in none."""
    segment = segments.covering(connection, seq)
    if segment is None or seq < segment.first or not segment.sound:
        return 0
    (record,) = segment.opened(UNKNOWN_BOOT).following(seq - 1, 1)
    tables.insert(connection, [record], seq, segment.boot)
    return len(record.body) + tables.ROW_BYTES


def apply_quota(connection: sqlite3.Connection, max_bytes: int) -> Dropped:
    """Delete the oldest of the least important until the rest fits: dead letters, bulk, normal, critical."""
    dropped = Dropped()
    while (used := used_bytes(connection)) > max_bytes:
        found = connection.execute(
            "DELETE FROM dead_letters"
            " WHERE number IN (SELECT number FROM dead_letters ORDER BY number LIMIT ?)",
            (_CHUNK,),
        ).rowcount
        dropped.dead_letters += found
        if not found and not any(
            _drop_oldest(connection, lane, used - max_bytes, dropped) for lane in reversed(Lane)
        ):
            break
    dropped.used_bytes = used
    return dropped


def _drop_oldest(connection: sqlite3.Connection, lane: Lane, excess: int, dropped: Dropped) -> bool:
    """Delete about `excess` bytes of a lane, the oldest first; False if it has none."""
    segment = segments.oldest(connection) if lane is Lane.BULK else None
    rows = connection.execute(
        "SELECT seq, size FROM records WHERE lane = ? AND seq < ? ORDER BY seq LIMIT ?",
        (lane, segment.last if segment else 2**63 - 1, _CHUNK),
    ).fetchall()
    if not rows and segment is None:
        return False
    spans = dropped.records.setdefault(lane, [])
    freed = 0
    for seq, size in rows:
        spans.append(Span(seq, seq))
        freed += size + tables.ROW_BYTES
        if freed >= excess:
            break
    if rows:
        connection.execute("DELETE FROM records WHERE lane = ? AND seq <= ?", (lane, spans[-1].last))
    elif segment is not None:
        spans.append(Span(segment.first, segment.last))
        freed = segment.bytes
        segments.remove(connection, segment.last)
    tables.delete_orphans(connection)
    dropped.bytes[lane] = dropped.bytes.get(lane, 0) + freed
    return True
