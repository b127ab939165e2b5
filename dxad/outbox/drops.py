"""What was lost, in numbers that add up: kept in the file until an event that tells of it is durable."""

import sqlite3
from collections.abc import Iterable
from typing import Literal, NamedTuple

__all__ = ["Drop", "Why", "load", "merged", "note", "told"]

Why = Literal["quota", "lane_quota", "age", "disk", "memory"]
"""The file's quota, the lane's, its `max_age`, no room on the disk, or in memory while the disk failed."""


class Drop(NamedTuple):
    """Records of one lane that went for one reason."""

    what: str
    """The lane, or `dead_letter`."""
    reason: Why
    records: int
    bytes: int
    oldest_utc: int
    """When the oldest of them happened."""
    newest_utc: int
    since_utc: int
    """When the first of them was dropped."""


def merged(drops: Iterable[Drop]) -> list[Drop]:
    """One for each lane and reason."""
    found: dict[tuple[str, Why], Drop] = {}
    for each in drops:
        old = found.get((each.what, each.reason))
        found[each.what, each.reason] = each if old is None else _both(old, each)
    return list(found.values())


def load(connection: sqlite3.Connection) -> list[Drop]:
    """All that no durable event has told of."""
    rows = connection.execute(
        "SELECT what, reason, records, bytes, oldest_utc, newest_utc, since_utc FROM drops"
        " WHERE records > 0 ORDER BY what, reason"
    )
    return [Drop(*each) for each in rows]


def note(connection: sqlite3.Connection, drops: Iterable[Drop]) -> None:
    """Add to it."""
    connection.executemany(
        "INSERT INTO drops (what, reason, records, bytes, oldest_utc, newest_utc, since_utc)"
        " VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (what, reason) DO UPDATE SET"
        " records = records + excluded.records, bytes = bytes + excluded.bytes,"
        " oldest_utc = min(oldest_utc, excluded.oldest_utc),"
        " newest_utc = max(newest_utc, excluded.newest_utc), since_utc = min(since_utc, excluded.since_utc)",
        list(drops),
    )


def told(connection: sqlite3.Connection, drops: Iterable[Drop]) -> None:
    """An event that is stored now tells of these; what was dropped after it was written stays."""
    for each in drops:
        connection.execute(
            "DELETE FROM drops WHERE what = ? AND reason = ? AND records <= ?",
            (each.what, each.reason, each.records),
        )
        connection.execute(
            "UPDATE drops SET records = records - ?, bytes = bytes - ?, oldest_utc = max(oldest_utc, ?)"
            " WHERE what = ? AND reason = ?",
            (each.records, each.bytes, each.newest_utc, each.what, each.reason),
        )


def _both(one: Drop, other: Drop) -> Drop:
    return Drop(
        one.what,
        one.reason,
        one.records + other.records,
        one.bytes + other.bytes,
        min(one.oldest_utc, other.oldest_utc),
        max(one.newest_utc, other.newest_utc),
        min(one.since_utc, other.since_utc),
    )
