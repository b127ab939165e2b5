"""The file is made as large as it may need to be before it is, so that a disk filled by others stops nothing.

SQLite keeps the pages that rows leave, and takes new ones from them first. So rows of zeros are put in, one
at a time while nothing else is to be done, until the file is large enough; then they are deleted. Blocks
that are taken behind SQLite's back would not last: each checkpoint cuts the file to its size, and them off.
"""

import sqlite3
from typing import Final

__all__ = ["CHUNK_BYTES", "ENOUGH", "Growth", "yield_all"]

CHUNK_BYTES: Final = 2**16
"""How large one row of zeros is: what one step writes."""
_DELETED_AT_ONCE: Final = 64
ENOUGH: Final = 0.95
"""With this share of what it was to have the file is large enough: to grow, its free pages must be filled."""


class Growth:
    """Makes the file grow step by step; runs in the store thread."""

    def __init__(self, target: int) -> None:
        """Have the file grow to `target` bytes; 0 for not at all."""
        self._target = target
        self._growing: bool | None = None

    def step(self, connection: sqlite3.Connection) -> bool:
        """Do a little; returns whether there is more to do. It is a transaction of its own.

        Raises:
            sqlite3.Error: the disk does not take it.
        """
        size = _size(connection)
        if self._growing is None:
            self._growing = size < ENOUGH * self._target
        connection.execute("BEGIN IMMEDIATE")
        if self._growing and size < self._target:
            connection.execute("INSERT INTO reserve (body) VALUES (zeroblob(?))", (CHUNK_BYTES,))
            more = True
        else:
            self._growing = False
            more = _shrink(connection)
        connection.execute("COMMIT")
        return more

    def give_up(self) -> None:
        """There is no room: free what was taken, and look again when asked to."""
        self._growing = False

    def look_again(self) -> None:
        """There may be room now."""
        self._growing = None

    def reached(self, connection: sqlite3.Connection) -> int:
        """How large the file is, as far as it was to be."""
        return min(_size(connection), self._target)


def yield_all(connection: sqlite3.Connection) -> bool:
    """Records need the room now: delete all rows of zeros, if there are any."""
    return connection.execute("DELETE FROM reserve").rowcount > 0


def _shrink(connection: sqlite3.Connection) -> bool:
    deleted = connection.execute(
        "DELETE FROM reserve WHERE number IN (SELECT number FROM reserve LIMIT ?)", (_DELETED_AT_ONCE,)
    ).rowcount
    return deleted == _DELETED_AT_ONCE


def _size(connection: sqlite3.Connection) -> int:
    pages, size = (connection.execute(f"PRAGMA {each}").fetchone()[0] for each in ("page_count", "page_size"))
    return int(pages) * int(size)
