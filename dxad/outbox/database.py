"""A connection to the outbox's file that can be trusted: checked, migrated and set to survive power cuts.

Source: https://www.sqlite.org/pragma.html; what WAL with `synchronous=FULL` keeps was measured over 600
simulated power cuts: everything that was acknowledged.
"""

import errno
import os
import sqlite3
import subprocess
import sys
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Final

from dxad.errors import ConfigError
from dxad.outbox.growth import CHUNK_BYTES

__all__ = [
    "SCHEMA_VERSION",
    "check",
    "child",
    "has_damaged_head",
    "is_damage",
    "is_full",
    "is_large",
    "is_passing",
    "memory",
    "open_file",
    "schema_version",
    "used_bytes",
]

SCHEMA_VERSION: Final = 6
"""The number of migrations in `schema.py`, which is not imported here: it would bring sqlite-utils."""

_COLUMNS: Final = {
    "records": "seq, lane, id, at_ns, crc, body, boot, size",
    "segments": "last, count, records_through, bytes_through, boot, at_ns, stream, ordinal, crc, body",
    "cursors": "sink, lane, seq, crc",
    "refusals": "sink, seq, attempts, reason, crc",
    "dead_letters": "number, seq, sink, lane, id, body, reason, at_utc, boot, at_ns, attempts, records",
    "boots": "number, id, offset_ns, clock_ok",
    "consumers": "name, filter, made_utc, silent_ns, crc",
    "leases": "consumer, seq",
    "drops": "what, reason, records, bytes, oldest_utc, newest_utc, since_utc",
    "replays": "sink, lane, first, last",
    "reserve": "number, body",
}
"""What `schema.py` has made."""
_MIGRATIONS: Final = "_sqlite_migrations"
"""Where sqlite-utils lists them."""
_PRAGMAS: Final = (
    "journal_mode=WAL",
    "synchronous=FULL",
    "mmap_size=0",  # an I/O error under a mapping is a SIGBUS
    "cache_size=-4096",  # KiB: ten thousand records of a backlog are deleted without reading them again
    "busy_timeout=2000",  # somebody may look at the file with a shell of their own
)

_TEXT: Final = partial(str, encoding="utf-8", errors="replace")
"""Text that is damaged must be read to be found out: its checksum will not fit."""
_FRAME_BYTES: Final = 4096 + 24
"""What a page takes in the log."""
_PIECE_BYTES: Final = 2**20
_CHECKED_MOST: Final = 8 * 2**20
_DAMAGE: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_PASSING: Final = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})


def is_damage(error: Exception) -> bool:
    """Whether the file itself is broken, so that opening it again would not help.

    What SQLite quotes of a damaged schema may be no text, and so no message of an error.
    """
    return _code(error) in _DAMAGE or isinstance(error, UnicodeError)


def has_damaged_head(path: Path) -> bool:
    """Whether the file says of itself what no SQLite can write: then it is for ever read-only, or unknown.

    Source: https://www.sqlite.org/fileformat2.html#the_database_header. SQLite calls neither damage.
    """
    try:
        with path.open("rb") as file:
            head = file.read(100)
    except OSError:
        return False
    if len(head) < 100:
        return False  # it is not made yet
    return head[18] not in (1, 2) or int.from_bytes(head[44:48]) > 4


def is_passing(error: Exception) -> bool:
    """Whether the connection is still sound; after any other error it must be opened anew.

    Above all after a failed fsync: the kernel reports it once and forgets the pages.
    """
    return _code(error) in _PASSING


def is_full(error: BaseException | None) -> bool:
    """Whether the disk had no room for it."""
    return _code(error) == sqlite3.SQLITE_FULL


def _code(error: BaseException | None) -> int:
    """SQLite's primary result code; 0 for errors that are not SQLite's own."""
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


def open_file(path: Path, *, log_bytes: int = 16 * 2**20) -> sqlite3.Connection:
    """Open the file, or make it; its write-ahead log stays within `log_bytes`, as long as nobody reads long.

    Raises:
        sqlite3.Error: it cannot be used now, or ever (`is_damage`).
        OSError: what stands in its place cannot be used at all.
        ConfigError: a newer dxad has written it.
    """
    _look_at(path)
    if verdict := _log_damage(path):  # before SQLite takes what it holds for the whole, and drops the rest
        raise _damage(verdict)
    with ExitStack() as undo:
        connection = sqlite3.connect(path, isolation_level=None)  # BEGIN and COMMIT are ours
        undo.callback(connection.close)
        connection.text_factory = _TEXT
        if not is_large(path) and (verdict := check(connection)) != "ok":
            raise _damage(verdict)
        _refuse_others(connection, path)
        _write_log_anew(connection, path)
        if schema_version(connection, path) != SCHEMA_VERSION:
            _migrate(path)
        for pragma in _PRAGMAS:
            connection.execute(f"PRAGMA {pragma}")
        _look_for_columns(connection)
        connection.execute(f"PRAGMA wal_autocheckpoint={log_bytes * 3 // 4 // _FRAME_BYTES}")
        connection.execute(f"PRAGMA journal_size_limit={log_bytes}")
        # Another process may have made the tables: who has not read that yet cannot fold the log in.
        connection.execute("SELECT count(*) FROM records WHERE seq < 0").fetchone()
        undo.pop_all()
    return connection


def is_large(path: Path) -> bool:
    """Whether a check of the file takes so long that nothing can wait for it: 2.6 ms a MiB, on a card 50."""
    return path.stat().st_size > _CHECKED_MOST


def check(connection: sqlite3.Connection) -> str:
    """What is wrong with the file, or `ok`."""
    return str(connection.execute("PRAGMA quick_check(1)").fetchone()[0])


def schema_version(connection: sqlite3.Connection, path: Path) -> int:
    """How many migrations the file has had; 0 if its number of them is damaged.

    There are two copies of it: the second one is the list of those that were applied.

    Raises:
        ConfigError: a newer dxad has written it.
    """
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    if version <= SCHEMA_VERSION:
        return version
    listed = connection.execute(f"SELECT count(*) FROM {_MIGRATIONS} WHERE migration_set = 'outbox'")  # noqa: S608
    if listed.fetchone()[0] <= SCHEMA_VERSION:
        return 0
    raise ConfigError(f"{path} has schema {version}, this dxad knows {SCHEMA_VERSION}: update dxad")


def memory() -> sqlite3.Connection:
    """A database that goes with the process."""
    from dxad.outbox import schema  # noqa: PLC0415 - sqlite-utils, which the daemon never asks for

    connection = sqlite3.connect(":memory:", isolation_level=None)
    schema.apply(connection)
    return connection


def used_bytes(connection: sqlite3.Connection) -> int:
    """What the pages in use take; the file keeps those that were freed, and rows of zeros, for later."""
    pages, free, size = (
        connection.execute(f"PRAGMA {each}").fetchone()[0]
        for each in ("page_count", "freelist_count", "page_size")
    )
    (zeros,) = connection.execute("SELECT count(*) FROM reserve").fetchone()
    return int((pages - free) * size - zeros * CHUNK_BYTES)


def _look_for_columns(connection: sqlite3.Connection) -> None:
    """See whether everything has its name: a schema that is damaged there is none that SQLite calls so.

    Raises:
        sqlite3.DatabaseError: something has not.
    """
    for table, columns in _COLUMNS.items():
        try:
            connection.execute(f"SELECT {columns} FROM {table} LIMIT 0")  # noqa: S608
        except sqlite3.OperationalError as error:
            if _code(error) == sqlite3.SQLITE_ERROR:
                raise _damage(str(error)) from error
            raise


def _damage(verdict: str) -> sqlite3.DatabaseError:
    error = sqlite3.DatabaseError(verdict)
    error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
    return error


def _look_at(path: Path) -> None:
    """See whether the file may be opened: SQLite says of all that can be wrong there that it is unable to.

    Raises:
        OSError: it may not.
    """
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644))
    except OSError as error:
        raise OSError(error.errno, f"{path}: {error.strerror}") from error


def _refuse_others(connection: sqlite3.Connection, path: Path) -> None:
    """Leave a database alone that has tables, and none of an outbox: it is another program's.

    Raises:
        OSError: it is.
    """
    names = {
        str(name) for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")
    }
    if names and names.isdisjoint({*_COLUMNS, _MIGRATIONS}):
        told = f"{path} is no outbox, but another program's database ({', '.join(sorted(names))})"
        raise OSError(errno.EEXIST, f"{told}: move it away, or set another path in [outbox]")


def _log_damage(path: Path) -> str:
    """What is damaged of the log that was left beside the file; empty if nothing is."""
    log = path.with_name(path.name + "-wal")
    if not log.exists() or not log.stat().st_size:
        return ""
    if not path.stat().st_size:  # SQLite would take the file for a new one, and the log for nothing
        return "the file is empty, its log is not"
    from dxad.outbox import frames  # noqa: PLC0415 - numpy, which whoever only looks does not need

    return frames.Log(log).damage


def _write_log_anew(connection: sqlite3.Connection, path: Path) -> None:
    """Have what stands in the log written to the disk once more, before more is promised.

    A sync that failed is told once: the kernel then holds the pages for clean, though they may not be on the
    disk, and the next sync of the same pages is a lie. SQLite, opened again, finds its frames in memory and
    appends behind them; a power cut would then end the log where they should be. Pages that are written again
    are dirty again. The same is true of a process that was killed before it could do this.

    Source: "PostgreSQL's fsync() surprise", https://lwn.net/Articles/752063/.

    Raises:
        OSError: the disk still fails.
    """
    log = path.with_name(path.name + "-wal")
    if not log.exists() or not log.stat().st_size or not os.access(log, os.W_OK):
        return
    connection.execute("BEGIN IMMEDIATE")  # nobody else appends meanwhile
    descriptor = os.open(log, os.O_RDWR | os.O_CLOEXEC)
    try:
        offset = 0
        while data := os.pread(descriptor, _PIECE_BYTES, offset):
            offset += os.pwrite(descriptor, data, offset)
        os.fdatasync(descriptor)
    except OSError as error:
        if error.errno != errno.EROFS:  # else nothing will be promised either, and it can be read
            raise
    finally:
        os.close(descriptor)
        connection.execute("ROLLBACK")


def child(module: str, path: Path) -> tuple[list[str], dict[str, str]]:
    """Command and environment to run one of our modules on a file, in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}  # it finds what we found
    quiet = "ignore::RuntimeWarning:runpy"  # that the package has imported the module as well
    return [sys.executable, "-P", "-W", quiet, "-m", module, str(path)], environment


def _migrate(path: Path) -> None:
    command, environment = child("dxad.outbox.schema", path)
    try:
        subprocess.run(  # noqa: S603 - our own module, by the interpreter that runs us
            command, env=environment, capture_output=True, check=True, text=True, timeout=600
        )
    except subprocess.SubprocessError as error:
        told = (getattr(error, "stderr", None) or str(error)).strip().splitlines()[-1]
        raise sqlite3.OperationalError(f"migration of {path} failed: {told}") from error
