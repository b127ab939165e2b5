"""Rows that cannot be true, in a file whose pages are sound: a flash cell forgets single bits.

SQLite's own check knows the shape of pages, and a checksum covers what is delivered. Numbers that are summed
up, compared and counted on before a checksum is looked at are neither's: one lane, seq or size that is out of
this world would keep the file from being opened ever again.
"""

import sqlite3
from typing import Final

from dxad.types import Lane

__all__ = ["clear"]

_MOST: Final = 2**53
"""No seq, count or number of bytes gets there: a million a second would take 285 years."""
_LANES: Final = f"lane NOT IN ({', '.join(str(int(lane)) for lane in Lane)})"
_IMPLAUSIBLE: Final = {
    "records": f"{_LANES} OR seq NOT BETWEEN 1 AND {_MOST}",
    "segments": f"last NOT BETWEEN 1 AND {_MOST} OR count NOT BETWEEN 1 AND last",
    "dead_letters": f"{_LANES} OR number > {_MOST} OR records NOT BETWEEN 0 AND {_MOST}",
    "cursors": f"{_LANES} OR seq NOT BETWEEN 0 AND {_MOST}",  # the sink is offered again what is stored
    "replays": f"{_LANES} OR first NOT BETWEEN 0 AND {_MOST} OR last NOT BETWEEN 0 AND {_MOST}",
    "boots": f"number NOT BETWEEN 0 AND {_MOST}",
    "drops": f"records NOT BETWEEN 0 AND {_MOST} OR bytes NOT BETWEEN 0 AND {_MOST}",
}
_MENDED: Final = {
    "records": (f"size NOT BETWEEN 0 AND {_MOST}", "size = length(body)"),
    "refusals": (f"attempts NOT BETWEEN 0 AND {_MOST}", "attempts = 1"),
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


def _exist(connection: sqlite3.Connection, table: str, when: str) -> bool:
    return bool(connection.execute(f"SELECT EXISTS (SELECT 1 FROM {table} WHERE {when})").fetchone()[0])  # noqa: S608
