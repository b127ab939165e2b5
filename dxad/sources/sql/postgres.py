"""A query of PostgreSQL, in a session that can only read."""

import os
import socket
from collections.abc import Callable, Sequence
from typing import Any, Final
from urllib.parse import urlsplit

import psycopg

from dxad.errors import ConfigError, NotConnected

__all__ = ["PostgresTable"]

_CONNECT_LEAST_S: Final = 2
_KEEPALIVE_S: Final = 5
"""A dead link is noticed while nothing is asked, too (PostgreSQL, 34.1.2)."""


class PostgresTable:
    """Blocking; all but `interrupt` is called on one thread."""

    def __init__(
        self, url: str, query: str, cursor: str, *, timeout_s: float, password: Callable[[], str | None]
    ) -> None:
        """Query `url`; a statement may take so long, by the server's own clock."""
        self._url = url
        self._where = urlsplit(url).netloc.rpartition("@")[2] or "the local socket"
        self._query = query
        self._cursor = cursor
        self._timeout_s = timeout_s
        self._password = password
        self._connection: psycopg.Connection[tuple[Any, ...]] | None = None

    def open(self) -> Sequence[str]:
        """The names of the query's columns.

        Raises:
            NotConnected: the server is not there, lets nobody in, or does not answer.
            ConfigError: the query is wrong, or there is no password.
        """
        timeout_ms = int(self._timeout_s * 1000)
        settings = {
            "default_transaction_read_only": "on",
            "statement_timeout": timeout_ms,
            "lock_timeout": timeout_ms,
        }
        password = self._password()
        try:
            self._connection = psycopg.connect(
                self._url,
                autocommit=True,
                application_name="dxad",
                connect_timeout=max(_CONNECT_LEAST_S, round(self._timeout_s)),
                options=" ".join(f"-c {name}={value}" for name, value in settings.items()),
                tcp_user_timeout=timeout_ms,
                password=password,
                keepalives_idle=_KEEPALIVE_S,
                keepalives_interval=_KEEPALIVE_S,
                keepalives_count=2,
            )
        except psycopg.Error as error:
            raise NotConnected(f"{self._where}: {_said(error)}") from error
        found = self._run(f"SELECT * FROM ({self._query}) AS asked LIMIT 0").description  # noqa: S608
        return [column.name for column in found or ()]

    def last(self) -> Any:
        """The cursor's greatest value; None of a table without rows.

        Raises:
            NotConnected: the server does not answer.
            ConfigError: the cursor has no greatest value.
        """
        found = self._run(f'SELECT MAX("{self._cursor}") FROM ({self._query}) AS asked').fetchone()  # noqa: S608
        return None if found is None else found[0]

    def since(self, cursor: Any, most: int) -> Sequence[Sequence[Any]]:
        """The next rows behind this value.

        Raises:
            NotConnected: the server does not answer.
        """
        behind = "" if cursor is None else f'WHERE "{self._cursor}" > %s'
        query = self._query.replace("%", "%%")
        text = f'SELECT * FROM ({query}) AS asked {behind} ORDER BY "{self._cursor}" LIMIT %s'  # noqa: S608
        return self._run(text, [most] if cursor is None else [cursor, most]).fetchall()

    def _run(self, text: str, given: Sequence[Any] | None = None) -> psycopg.Cursor[tuple[Any, ...]]:
        assert self._connection is not None
        try:
            # The query is the configuration's own; all it can do is read.
            return self._connection.execute(text.encode(), given)
        except psycopg.errors.UndefinedTable as error:  # which its program may make later
            raise NotConnected(f"{self._where}: {_said(error)}") from error
        except (psycopg.ProgrammingError, psycopg.errors.ReadOnlySqlTransaction) as error:
            raise ConfigError(f"{self._where}: {_said(error)}; the query is: {self._query}") from error
        except psycopg.Error as error:
            raise NotConnected(f"{self._where}: {_said(error)}") from error

    def interrupt(self) -> None:
        """End whatever is waited for, by hanging up: a server that is gone would never say so."""
        connection = self._connection
        if connection is None or connection.closed:
            return
        with socket.socket(fileno=os.dup(connection.fileno())) as line:
            try:
                line.shutdown(socket.SHUT_RDWR)
            except OSError:  # it has hung up itself
                return

    def close(self) -> None:
        """End the session; safe twice."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _said(error: psycopg.Error) -> str:
    """The first line of what the server or libpq says."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
