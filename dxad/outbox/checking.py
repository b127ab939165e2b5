"""Whether an outbox's file is sound: run as `python -m dxad.outbox.checking FILE`, it says `ok` or what not.

A daemon asks it of a large file after its start, which need not wait for that: each record has a checksum.
"""

import os
import sqlite3
import sys
from contextlib import closing

from dxad.outbox import database

__all__ = ["verdict"]


def verdict(path: str) -> str:
    """What SQLite says; `ok` as well if it cannot be asked now."""
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
            return database.check(connection)
    except (sqlite3.Error, UnicodeError) as error:
        return str(error) if database.is_damage(error) else "ok"


if __name__ == "__main__":
    os.nice(19)
    sys.stdout.write(verdict(sys.argv[1]))
