"""A query of a SQLite file, opened for reading alone."""

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from dxad.errors import ConfigError, NotConnected
from dxad.links import words

__all__ = ["SqliteTable"]


class SqliteTable:
    """Blocking; all but `interrupt` is called on one thread."""

    def __init__(self, path: Path, query: str, cursor: str, *, timeout_s: float) -> None:
        """Query `path`; a writer's lock is waited for so long."""
        self._path = path
        self._query = query
        self._cursor = cursor
        self._timeout_s = timeout_s
        self._database: sqlite3.Connection | None = None
        self._inode = 0

    def open(self) -> Sequence[str]:
        """The names of the query's columns.

        Raises:
            NotConnected: the file is not there, or cannot be read now.
            ConfigError: the query is wrong.
        """
        try:
            self._database = sqlite3.connect(
                f"file:{quote(str(self._path))}?mode=ro",
                uri=True,
                timeout=self._timeout_s,
                isolation_level=None,
                check_same_thread=False,
            )
            self._inode = self._path.stat().st_ino
            self._database.execute("PRAGMA query_only = 1")
            found = self._database.execute(f"SELECT * FROM ({self._query}) LIMIT 0").description  # noqa: S608
        except (OSError, sqlite3.Error) as error:
            raise self._explained(error) from error
        return [column[0] for column in found]

    def last(self) -> Any:
        """The cursor's greatest value; None of a table without rows.

        Raises:
            NotConnected: the file cannot be read now.
        """
        assert self._database is not None
        most = f'SELECT MAX("{self._cursor}") FROM ({self._query})'  # noqa: S608
        try:
            return self._database.execute(most).fetchone()[0]
        except sqlite3.Error as error:
            raise self._explained(error) from error

    def since(self, cursor: Any, most: int) -> Sequence[Sequence[Any]]:
        """The next rows behind this value; all fetched, so that no reader holds the log of a writer.

        Raises:
            NotConnected: the file has gone, or is locked for too long.
        """
        assert self._database is not None
        try:
            there = self._path.stat().st_ino == self._inode
        except OSError:
            there = False
        if not there:  # the open one lives on without its name
            raise NotConnected(f"{self._path}: the file has gone, or is another one now")
        behind = "" if cursor is None else f'WHERE "{self._cursor}" > ?'
        text = f'SELECT * FROM ({self._query}) {behind} ORDER BY "{self._cursor}" LIMIT ?'  # noqa: S608
        try:
            return self._database.execute(text, [most] if cursor is None else [cursor, most]).fetchall()
        except sqlite3.Error as error:
            raise NotConnected(f"{self._path}: {error}") from error

    def _explained(self, error: Exception) -> NotConnected | ConfigError:
        """Whether trying again can help."""
        if isinstance(error, OSError):
            return NotConnected(f"{self._path}: {words(error)}")
        said = f"{self._path}: {error}"
        later = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_IOERR}
        later |= {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_SCHEMA}
        later |= {sqlite3.SQLITE_INTERRUPT}
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_IOERR) & 0xFF
        if code in later or str(error).startswith("no such table"):  # which its program may make later
            return NotConnected(said)
        return ConfigError(f"{said}; the query is: {self._query}")

    def interrupt(self) -> None:
        """End the query that runs; from any thread."""
        if self._database is not None:
            self._database.interrupt()

    def close(self) -> None:
        """Close the file; safe twice."""
        if self._database is not None:
            self._database.close()
            self._database = None
