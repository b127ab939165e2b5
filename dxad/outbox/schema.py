"""The tables of the outbox, and how the file of an older dxad becomes one of this.

A daemon runs it as `python -m dxad.outbox.schema FILE` in a process of its own: sqlite-utils costs 96 ms and
27 MB, too much to carry for years for what happens once in the life of a file.
"""

import sqlite3
import sys

import sqlite_utils
from sqlite_utils.db import Table
from sqlite_utils.migrations import Migrations

from dxad.outbox import tables

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


@migrations()
def m002_segments_boots_consumers(database: sqlite_utils.Database) -> None:
    """Add segments of bulk records, what dates a record, quotas that know sizes, and pull consumers.

    A record of the first version has no boot: number 0, whose offset of 0 makes the wall time that it was
    appended the time it happened.
    """
    for statement in (
        "ALTER TABLE records RENAME COLUMN stored_utc TO at_ns",
        "ALTER TABLE records ADD COLUMN boot INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE records ADD COLUMN size INTEGER NOT NULL DEFAULT 0",
        "UPDATE records SET size = length(body)",
        "DROP INDEX idx_records_lane_seq",
        "ALTER TABLE dead_letters ADD COLUMN boot INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE dead_letters ADD COLUMN at_ns INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE dead_letters ADD COLUMN attempts INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE dead_letters ADD COLUMN records INTEGER NOT NULL DEFAULT 1",
        "UPDATE dead_letters SET at_ns = at_utc",
    ):
        database.execute(statement)
    records = database.table("records")
    assert isinstance(records, Table)
    records.create_index(["lane", "seq", "size"])  # counting and summing up read the index alone
    _create(
        database,
        "segments",
        {
            "last": int,  # the seqs of the records in it are contiguous and end with this one
            "count": int,
            "records_through": int,  # of all segments ever, up to and with this one: two of them tell
            "bytes_through": int,  # what lies between without looking there
            "boot": int,
            "at_ns": int,  # of the first record
            "stream": str,  # the ids are STREAM-ORDINAL
            "ordinal": int,  # of the first record
            "crc": int,
            "body": bytes,  # last: what comes before it stands in the first page of the row
        },
        pk="last",
    )
    boots = _create(
        database, "boots", {"number": int, "id": str, "offset_ns": int, "clock_ok": int}, pk="number"
    )
    boots.create_index(["id"], unique=True)
    boots.insert({"number": 0, "id": "", "offset_ns": 0, "clock_ok": 0})
    _create(
        database,
        "consumers",  # pull consumers; how far they are stands in cursors, under "pull:NAME"
        {"name": str, "filter": str, "made_utc": int, "seen_utc": int},
        pk="name",
    )
    _create(
        database,
        "leases",  # what pull consumers have out or gave back: trimming spares it, like refusals
        {
            "consumer": str,
            "seq": int,
            "state": str,  # leased, returned
            "boot": int,
            "until_ns": int,  # stream time of that boot
            "attempts": int,
            "token": str,
            "reason": str,
        },
        pk=("consumer", "seq"),
    )
    _create(
        database,
        "drops",  # what the quota took and no stored event has told of yet
        {
            "what": str,  # a lane, or dead_letter
            "reason": str,  # quota, age
            "records": int,
            "bytes": int,
            "oldest_utc": int,  # when the oldest of them happened
            "newest_utc": int,
            "since_utc": int,  # when the first of them was dropped
        },
        pk=("what", "reason"),
    )


@migrations()
def m003_replays(database: sqlite_utils.Database) -> None:
    """Add what a sink is to be offered once more."""
    _create(
        database,
        "replays",
        {"sink": str, "lane": int, "first": int, "last": int},
        pk=("sink", "lane"),
    )


@migrations()
def m004_consumers(database: sqlite_utils.Database) -> None:
    """A consumer's silence is counted by no clock that can be set; its records are out like refused ones."""
    database.execute("ALTER TABLE consumers RENAME COLUMN seen_utc TO silent_ns")


@migrations()
def m005_reserve(database: sqlite_utils.Database) -> None:
    """Add rows of zeros, which make the file grow before it has to."""
    _create(database, "reserve", {"number": int, "body": bytes}, pk="number")


@migrations()
def m006_checksums(database: sqlite_utils.Database) -> None:
    """Add checksums of how far sinks are, of what they refused, and of what consumers want."""
    for table, columns in tables.SUMMED.items():
        database.execute(f"ALTER TABLE {table} ADD COLUMN crc INTEGER NOT NULL DEFAULT 0")
        rows = database.execute(f"SELECT rowid, {', '.join(columns)} FROM {table}").fetchall()  # noqa: S608
        for rowid, *values in rows:
            crc = tables.checksum_of(*values)
            database.execute(f"UPDATE {table} SET crc = ? WHERE rowid = ?", (crc, rowid))  # noqa: S608


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
