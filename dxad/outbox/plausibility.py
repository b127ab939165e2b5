"""Rows that cannot be true, in a file whose pages are sound: a flash cell forgets single bits.

SQLite's own check knows the shape of pages, and a checksum covers what is delivered. Numbers that are summed
up, compared and counted on before a checksum is looked at are neither's: one lane, seq or size that is out of
this world would keep the file from being opened ever again.
"""

import logging
import sqlite3
from typing import Any, Final

from dxad.outbox import tables
from dxad.types import Lane

__all__ = ["clear", "restore", "rewind"]

log = logging.getLogger(__name__)

_MOST: Final = 2**53
"""No seq, count or number of bytes gets there: a million a second would take 285 years."""
_LANES: Final = f"lane NOT IN ({', '.join(str(int(lane)) for lane in Lane)})"
_IMPLAUSIBLE: Final = {
    "records": f"{_LANES} OR seq NOT BETWEEN 1 AND {_MOST}",
    "segments": f"last NOT BETWEEN 1 AND {_MOST} OR count NOT BETWEEN 1 AND last",
    "dead_letters": f"{_LANES} OR number > {_MOST} OR records NOT BETWEEN 0 AND {_MOST}",
    "replays": f"{_LANES} OR first NOT BETWEEN 0 AND {_MOST} OR last NOT BETWEEN 0 AND {_MOST}",
    "boots": f"number NOT BETWEEN 0 AND {_MOST}",
    "drops": f"records NOT BETWEEN 0 AND {_MOST} OR bytes NOT BETWEEN 0 AND {_MOST}",
}
_MENDED: Final = {
    "records": (f"size NOT BETWEEN 0 AND {_MOST}", "size = length(body)"),
}
"""What can be known better: by table, which rows, and how."""
_LOSSES: Final = frozenset({"records", "segments", "dead_letters"})


def clear(connection: sqlite3.Connection) -> int:
    """Mend or delete rows that cannot be true; where there are none, nothing is written.

    Returns:
        How many records, segments and dead letters were deleted.
    """
    for table, (when, better) in _MENDED.items():
        if _exist(connection, table, when):
            connection.execute(f"UPDATE {table} SET {better} WHERE {when}")  # noqa: S608
    lost = 0
    for table, when in _IMPLAUSIBLE.items():
        if _exist(connection, table, when):
            gone = connection.execute(f"DELETE FROM {table} WHERE {when}").rowcount  # noqa: S608
            lost += gone if table in _LOSSES else 0
    return lost


def rewind(connection: sqlite3.Connection) -> list[str]:
    """Let sinks begin again of whom a place, or what they refused, is not as it was written.

    They begin at the oldest record that is kept. Whose a refusal was cannot be told if its sink is not known:
    then all begin again.

    Returns:
        Which; none, as long as all checksums fit.
    """
    places, refusals = (_damaged(connection, each) for each in ("cursors", "refusals"))
    if not places and not refusals:
        return []
    connection.execute("BEGIN IMMEDIATE")
    for table, rows in (("cursors", places), ("refusals", refusals)):
        connection.executemany(
            f"DELETE FROM {table} WHERE rowid = ?",  # noqa: S608
            ((rowid,) for rowid, *_ in rows),
        )
    for _, sink, lane, _ in places:
        if lane in {*Lane} and "\ufffd" not in sink:
            tables.move_place(connection, sink, {Lane(lane): 0})
    lanes_of: dict[str, list[Lane]] = {}
    for sink, lane, _ in tables.places(connection):
        lanes_of.setdefault(sink, []).append(lane)
    again = {sink for _, sink, *_ in refusals}
    again = again if again <= lanes_of.keys() else {*lanes_of}
    for sink in again:
        tables.move_place(connection, sink, dict.fromkeys(lanes_of[sink], 0))
    connection.execute("COMMIT")
    return sorted(again | {sink for _, sink, *_ in places})


def restore(connection: sqlite3.Connection) -> None:
    """Let consumers whose row is not as it was written want everything, until they say so again."""
    for rowid, name, *_ in _damaged(connection, "consumers"):
        log.error("what consumer %s wants was damaged on disk: it is given everything", name)
        connection.execute(
            "UPDATE consumers SET name = ?, filter = '{}', silent_ns = 0, crc = ? WHERE rowid = ?",
            (name, tables.checksum_of(name, "{}", 0), rowid),
        )


def _damaged(connection: sqlite3.Connection, table: str) -> list[tuple[Any, ...]]:
    """Row id and values of the rows whose checksum does not fit."""
    columns = ", ".join(tables.SUMMED[table])
    rows = connection.execute(f"SELECT rowid, crc, {columns} FROM {table}")  # noqa: S608
    return [(rowid, *values) for rowid, crc, *values in rows if tables.checksum_of(*values) != crc]


def _exist(connection: sqlite3.Connection, table: str, when: str) -> bool:
    return bool(connection.execute(f"SELECT EXISTS (SELECT 1 FROM {table} WHERE {when})").fetchone()[0])  # noqa: S608
