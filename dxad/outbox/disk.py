"""The outbox's file and its one connection: opened, given up when it fails, set aside when it is damaged."""

import logging
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from dxad.errors import NotConnected
from dxad.outbox import database
from dxad.runtime.clock import Clock

__all__ = ["Disk"]

log = logging.getLogger(__name__)


class Disk:
    """The outbox's file, or a database in memory; everything here runs in the store thread."""

    def __init__(
        self,
        path: Path | None,
        *,
        clock: Clock,
        on_open: Callable[[sqlite3.Connection], None],
        on_fresh: Callable[[], None],
    ) -> None:
        """Use the file at `path`, or memory.

        Args:
            path: the file; None for memory.
            clock: dates what is set aside.
            on_open: is told of each new connection.
            on_fresh: is told when what the file held was set aside, before the new one is opened.
        """
        self.connection: sqlite3.Connection | None = None
        self.set_aside: Path | None = None
        """Where this run put a damaged file."""
        self._path = path
        self._clock = clock
        self._on_open = on_open
        self._on_fresh = on_fresh
        self._broken = False

    @contextmanager
    def use(self, *, reopen: bool = False) -> Iterator[sqlite3.Connection]:
        """The open database; its errors become NotConnected, and no transaction outlives the block."""
        try:
            if self.connection is None and reopen:
                self.connection = self._open_and_tell()
            if self.connection is None:
                raise NotConnected("the outbox's file is closed")
            yield self.connection
        except (sqlite3.Error, OSError) as error:
            self._broken = self._broken or self._is_damage(error)
            if not database.is_passing(error):
                self._drop_connection()
            raise NotConnected(str(error)) from error
        finally:
            if self.connection is not None and self.connection.in_transaction:
                self.connection.execute("ROLLBACK")

    def close(self) -> None:
        """Let go of the file, its log folded in."""
        if self.connection is not None:
            with suppress(sqlite3.Error):
                self.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            self.connection.close()
            self.connection = None

    def _is_damage(self, error: Exception) -> bool:
        if self._path is not None and isinstance(error, sqlite3.OperationalError):
            return database.is_damage(error) or database.has_damaged_head(self._path)
        return database.is_damage(error)

    def _drop_connection(self) -> None:
        if self.connection is not None:
            with suppress(sqlite3.Error):
                self.connection.close()
            self.connection = None

    def _open_and_tell(self) -> sqlite3.Connection:
        with ExitStack() as undo:
            connection = self._open()
            undo.callback(connection.close)
            self._on_open(connection)
            undo.pop_all()
        return connection

    def _open(self) -> sqlite3.Connection:
        if self._path is None:
            return database.memory()
        if not self._broken:
            try:
                return database.open_file(self._path)
            except sqlite3.DatabaseError as error:
                if not self._is_damage(error):
                    raise
        now = datetime.fromtimestamp(self._clock.utc(self._clock.now()) / 1e9, UTC)
        self.set_aside = database.set_aside(self._path, now.strftime("%Y%m%dT%H%M%SZ"))
        self._broken = False
        log.error("%s is damaged; it was set aside as %s", self._path, self.set_aside)
        self._on_fresh()
        return database.open_file(self._path)
