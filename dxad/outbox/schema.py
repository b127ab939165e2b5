"""The tables of the outbox, and how the file of an older dxad becomes one of this.

A daemon runs it as `python -m dxad.outbox.schema FILE` in a process of its own: sqlite-utils costs 96 ms and
27 MB, too much to carry for years for what happens once in the life of a file.
"""

import sqlite3
import sys

import sqlite_utils
from sqlite_utils.db import Table
from sqlite_utils.migrations import Migrations

__all__ = ["apply", "migrations"]

migrations = Migrations("outbox")


def apply(connection: sqlite3.Connection) -> None:
    """Bring a database up to date; `PRAGMA user_version` is the number of migrations it has had."""
    migrations.apply(sqlite_utils.Database(connection))
    connection.execute(f"PRAGMA user_version={len(migrations.applied(sqlite_utils.Database(connection)))}")


@migrations()
def m001_store_and_forward(database: sqlite_utils.Database) -> None:
    """Create all that the first version had."""
    records = _create(
        database,
        "records",
        {"seq": int, "lane": int, "id": str, "stored_utc": int, "crc": int, "body": bytes},
        pk="seq",
    )
    records.create_index(["lane", "seq"])
    records.create_index(["id"], unique=True)
    _create(database, "cursors", {"sink": str, "lane": int, "seq": int}, pk=("sink", "lane"))
    _create(
        database,
        "refusals",
        {"sink": str, "seq": int, "attempts": int, "reason": str},
        pk=("sink", "seq"),
    )
    dead_letters = _create(
        database,
        "dead_letters",
        {
            "number": int,
            "seq": int,
            "sink": str,
            "lane": int,
            "id": str,
            "body": bytes,
            "reason": str,
            "at_utc": int,
        },
        pk="number",
    )
    dead_letters.create_index(["id"])


def _create(
    database: sqlite_utils.Database, name: str, columns: dict[str, type], *, pk: str | tuple[str, str]
) -> Table:
    table = database.table(name)
    assert isinstance(table, Table)
    return table.create(columns, pk=pk, not_null=set(columns), strict=True)


def _main() -> None:
    connection = sqlite3.connect(sys.argv[1])
    try:
        apply(connection)
    except sqlite3.Error as error:
        sys.exit(str(error))
    finally:
        connection.close()


if __name__ == "__main__":
    _main()
