"""The outbox's file and its one connection: opened, given up when it fails, set aside when it is damaged."""

import logging
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final

from dxad.errors import NotConnected
from dxad.outbox import database, growth, remains, salvage
from dxad.outbox.space import Space, Taken
from dxad.runtime.clock import Clock

__all__ = ["Disk"]

log = logging.getLogger(__name__)

_FOLDED_AT: Final = 2**20
"""Bytes in the log: to fold in so few takes hardly longer than a commit, which may have to wait for it."""
_BUSY_BYTES: Final = 2**20
"""When so much was committed since the last rest, the file grows by itself, or shall later."""


class Disk:
    """The outbox's file, or a database in memory; everything here runs in the store thread."""

    def __init__(
        self,
        path: Path | None,
        *,
        clock: Clock,
        on_open: Callable[[sqlite3.Connection], None],
        on_fresh: Callable[[], None],
        space: Space | None = None,
    ) -> None:
        """Use the file at `path`, or memory.

        Args:
            path: the file; None for memory.
            clock: dates what is set aside.
            on_open: is told of each new connection.
            on_fresh: is told when what the file held was set aside, before the new one is opened.
            space: keeps room for the file.
        """
        self.connection: sqlite3.Connection | None = None
        self.set_aside: Path | None = None
        """Where this run put a damaged file."""
        self.verdicts: dict[Path, str] = {}
        """What was wrong with each file that this run has set aside."""
        self._path = path
        self._clock = clock
        self._on_open = on_open
        self._on_fresh = on_fresh
        self._broken = ""
        self._space = space
        self._unfolded = 0
        self._at_rest = 0

    @contextmanager
    def use(self, *, reopen: bool = False) -> Iterator[sqlite3.Connection]:
        """The open database; its errors become NotConnected, and no transaction outlives the block."""
        try:
            if self.connection is None and reopen:
                self.connection = self._open_and_tell()
            if self.connection is None:
                raise NotConnected("the outbox's file is closed")
            yield self.connection
        except (sqlite3.Error, OSError, UnicodeError) as error:
            if self._is_damage(error):
                self._broken = self._broken or str(error)
            if not database.is_passing(error):
                self._drop_connection()
            told = getattr(error, "strerror", None) or str(error)  # without its number, [Errno 21]
            raise NotConnected(told) from error
        finally:
            if self.connection is not None and self.connection.in_transaction:
                self.connection.execute("ROLLBACK")

    def wrote(self, size: int) -> None:
        """A commit has put about so many bytes into the log."""
        self._unfolded += size

    def rest(self) -> None:
        """Nothing is waiting: fold the log in before a commit has to, and look after the room that is kept.

        Raises:
            NotConnected: the disk fails.
        """
        if self._space is None or self.connection is None:
            return
        with self.use() as connection:
            if self._unfolded > _FOLDED_AT:
                self._space.fold(connection)
                self._unfolded = 0
            self._space.look_after_ballast(connection)
            if self._unfolded - self._at_rest < _BUSY_BYTES:
                self._space.grow(connection)
            self._at_rest = self._unfolded

    def throw_out_ballast(self) -> bool:
        """The disk is full: give up what was kept for that; returns whether there was anything.

        Raises:
            NotConnected: it does not help.
        """
        if self._space is None:
            return False
        with self.use() as connection:
            return growth.yield_all(connection) or self._space.throw_out_ballast(connection)

    @property
    def room_bytes(self) -> int:
        """What was written to take room, once, and says nothing of a day."""
        return 0 if self._space is None else self._space.room.bytes

    @property
    def taken(self) -> Taken:
        """The room that is kept."""
        return Taken() if self._space is None else self._space.taken

    def condemn(self, verdict: str) -> None:
        """The file is damaged, as a check says that took its time: it is set aside at the next commit.

        Raises:
            NotConnected: always.
        """
        self._broken = verdict
        self._drop_connection()
        raise NotConnected(f"the outbox's file is damaged: {verdict}")

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
            if self._space is not None:
                self._space.take_log(connection)
            self._on_open(connection)
            undo.pop_all()
        return connection

    def _open(self) -> sqlite3.Connection:
        if self._path is None:
            return database.memory()
        if not self._broken:
            try:
                return self._open_file(self._path)
            except (sqlite3.DatabaseError, UnicodeError) as error:
                if not self._is_damage(error):
                    raise
                self._broken = str(error)
        small = salvage.small(self._path)
        self.set_aside = remains.set_aside(self._path, self._clock.utc(self._clock.now()))
        self.verdicts[self.set_aside] = self._broken
        log.error("%s is damaged (%s); it was set aside as %s", self._path, self._broken, self.set_aside)
        self._broken = ""
        self._on_fresh()
        connection = self._open_file(self._path)
        small.put(connection)
        return connection

    def _open_file(self, path: Path) -> sqlite3.Connection:
        if self._space is None:
            return database.open_file(path)
        self._space.make_way()
        return database.open_file(path, log_bytes=self._space.log_bytes)
