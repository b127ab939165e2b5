"""The file of a daemon that does not run, to be looked at and never written.

Whoever looks may be another user: no file is made beside the database, since the daemon could not open one of
root's. What stands in a log that a crash has left is read from a copy.
"""

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import quote

from dxad.errors import ConfigError
from dxad.outbox.database import SCHEMA_VERSION, check, schema_version
from dxad.outbox.inspection import Inspection

__all__ = ["looking", "saving"]


@contextmanager
def looking(path: Path) -> Iterator[Inspection]:
    """An inspection of the file at `path`, as it is now.

    Raises:
        ConfigError: it is not there, is no outbox, is damaged, or of a newer dxad.
    """
    with ExitStack() as stack:
        try:
            yield Inspection(_opened(path, stack))
        except (sqlite3.Error, UnicodeError) as error:
            told = f"{path}: cannot be read: {error}; `dxad outbox export --file {path}` saves what can be"
            raise ConfigError(told) from error
        except OSError as error:
            raise ConfigError(f"{path}: {error.strerror or error}") from error


@contextmanager
def saving(path: Path) -> Iterator[tuple[Inspection, int]]:
    """Likewise of a file that may be damaged: what can be read of it, and how much was passed over.

    Raises:
        ConfigError: it is not there, is no outbox, or of a newer dxad.
    """
    with ExitStack() as stack:
        try:
            connection, damaged = _sound(path, stack), 0
            if connection is None:
                from dxad.outbox.recovered import recovered  # noqa: PLC0415 - for damaged files alone

                folder = Path(stack.enter_context(TemporaryDirectory(prefix="dxad-outbox-")))
                connection, damaged = recovered(path, folder)
                stack.callback(connection.close)
            yield Inspection(connection), damaged
        except (sqlite3.Error, UnicodeError) as error:
            raise ConfigError(f"{path}: cannot be read: {error}") from error
        except OSError as error:
            raise ConfigError(f"{path}: {error.strerror or error}") from error


def _sound(path: Path, stack: ExitStack) -> sqlite3.Connection | None:
    try:
        connection = _opened(path, stack)
        return connection if check(connection) == "ok" else None
    except (sqlite3.Error, UnicodeError):
        return None


def _opened(path: Path, stack: ExitStack) -> sqlite3.Connection:
    if path.is_dir():
        raise ConfigError(f"{path}: this is no outbox, but a directory")
    if not path.is_file():
        raise ConfigError(f"{path}: there is no such file")
    # Whether we may, before SQLite says that it is "unable to open database file".
    with path.open("rb") as file:
        if not file.read(1):  # SQLite, even one that may only read, would delete the log beside it
            raise ConfigError(f"{path}: this is no outbox, the file is empty")
    log, index = (path.with_name(path.name + suffix) for suffix in ("-wal", "-shm"))
    connection: sqlite3.Connection | None = None
    if index.exists():
        connection = _connected(path, "mode=ro", stack)
    elif not log.exists() or not log.stat().st_size:
        connection = _connected(path, "immutable=1", stack)
    if connection is None or _version(connection, path) < SCHEMA_VERSION:
        from dxad.outbox import schema  # noqa: PLC0415 - sqlite-utils, for files of an older dxad alone

        copy = Path(stack.enter_context(TemporaryDirectory(prefix="dxad-outbox-"))) / path.name
        shutil.copyfile(path, copy)
        if log.exists():
            shutil.copyfile(log, copy.with_name(copy.name + "-wal"))
        connection = sqlite3.connect(copy, isolation_level=None)
        stack.callback(connection.close)
        if _version(connection, path) < SCHEMA_VERSION:
            schema.apply(connection)
    return connection


def _connected(path: Path, how: str, stack: ExitStack) -> sqlite3.Connection | None:
    """A connection that was seen to read; None if it cannot be had like this."""
    connection = sqlite3.connect(f"file:{quote(str(path.absolute()))}?{how}", uri=True, isolation_level=None)
    stack.callback(connection.close)
    try:
        connection.execute("PRAGMA query_only=1")
        connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    except sqlite3.OperationalError:
        return None
    return connection


def _version(connection: sqlite3.Connection, path: Path) -> int:
    """The schema's.

    Raises:
        ConfigError: it is no outbox, or of a newer dxad.
    """
    version = schema_version(connection, path)
    if not connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'records'").fetchone():
        raise ConfigError(f"{path}: this is no outbox")
    return version
