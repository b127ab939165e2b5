"""Room on the disk that nobody else can take: for the log, and a ballast to throw out.

On a full disk SQLite can neither insert, nor delete, nor fold in its log. So the blocks that the log will
need are taken beforehand (fallocate with FALLOC_FL_KEEP_SIZE: nothing is written, the size stays, SQLite
knows nothing of it; man 2 fallocate), and the file itself is made to grow (`growth`). Pages that are new to
the file stand in the log until it is folded in: room for them, and for a log at a restart, is what the
ballast holds. When it is needed it is removed, and the file grows no more than the disk has room for
(`max_page_count`) until there is enough to make it again.

Where a file system cannot reserve blocks, they are written, a piece at each rest. What is written is random:
some file systems store what is not in less room, and behind SQLite's end of the log nothing is read of it.
"""

import ctypes
import errno
import logging
import os
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dxad.outbox.growth import ENOUGH, Growth
from dxad.outbox.wear import Room

__all__ = ["LOG_MOST", "Space", "Taken"]

log = logging.getLogger(__name__)

LOG_MOST: Final = 16 * 2**20
"""How large the write-ahead log may grow, in bytes."""
_LOG_LEAST: Final = 4 * 2**20
"""Four times what one commit writes at most, see `commits`."""
_MARGIN: Final = 2**20
_PAGE_BYTES: Final = 4096
_NO_END: Final = 2**32 - 2
"""SQLite's own limit of pages."""
_KEEP_SIZE: Final = 1
"""FALLOC_FL_KEEP_SIZE."""
_PIECE_BYTES: Final = 2**18
_UNSUPPORTED: Final = frozenset({errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL})


@dataclass(frozen=True, slots=True)
class Taken:
    """What was taken hold of."""

    reserved: int = 0
    """Bytes that the file can grow to, whatever others do."""
    ballast: int = 0
    short: str | None = None
    """What is missing, in words; None if nothing is."""


class Space:
    """Takes hold of room for one file; with `reserve` 0 it takes none."""

    def __init__(self, path: Path, *, reserve: int, max_bytes: int) -> None:
        """Keep room beside the file at `path`.

        Args:
            path: of the database.
            reserve: bytes that it shall be able to grow to in any case.
            max_bytes: its quota: more is of no use.
        """
        self.taken = Taken()
        self._path = path
        self._log = path.with_name(path.name + "-wal")
        self._ballast = path.with_name(path.name + "-ballast")
        self._reserve = min(reserve, max_bytes)
        self._log_bytes = max(_LOG_LEAST, min(LOG_MOST, max_bytes // 16))
        self._short: set[str] = set()
        self._grown = 0
        self._writes = False
        """Whether room has to be taken by writing."""
        self._capped = _NO_END
        self.growth = Growth(self._reserve)
        """Of the file."""
        self.room = Room()
        """What taking it has written."""

    @property
    def log_bytes(self) -> int:
        """How large the log may grow."""
        return self._log_bytes

    @property
    def ballast_bytes(self) -> int:
        """How large the ballast is to be."""
        return 2 * self._log_bytes

    def make_way(self) -> None:
        """Before the file is opened: throw the ballast out if there is no room for it."""
        if not self._reserve:
            return
        if self._free() < self._log_bytes + _MARGIN and self._ballast.exists():
            log.warning("the disk is full: %s is given up, so that the outbox can be opened", self._ballast)
            self._ballast.unlink()

    def take_log(self, connection: sqlite3.Connection) -> None:
        """After the file was opened: take the log's room; then the ballast's, if enough is left."""
        if self._reserve:
            self._take("log", self._log, self._log_bytes)
            self._capped = _NO_END
            if not self._ballast.exists():
                self.fold(connection)
            self.look_after_ballast(connection)

    def look_after_ballast(self, connection: sqlite3.Connection) -> None:
        """Make the ballast, or make it again, if that leaves some room to others."""
        if not self._reserve:
            return
        if self._writes:
            self._take("log", self._log, self._log_bytes)
        missing = self.ballast_bytes - self._blocks(self._ballast)
        if missing > 0:
            if self._free() >= missing + self._log_bytes + _MARGIN:
                self._take("ballast", self._ballast, self.ballast_bytes)
            else:
                self._short.add("ballast")
        self._cap(connection)
        self._sum_up()

    def fold(self, connection: sqlite3.Connection) -> None:
        """Fold the log in; on a full disk it stays, and takes what comes while it has room."""
        with self.room.folded():
            try:
                connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode != sqlite3.SQLITE_FULL:
                    raise
                self._short.add("file")

    def throw_out_ballast(self, connection: sqlite3.Connection) -> bool:
        """The disk is full: fold the log in with the ballast's room; returns whether there was any."""
        if not self._ballast.exists():
            return False
        log.warning("the disk is full: %s is given up", self._ballast)
        self._ballast.unlink()
        self._short.add("ballast")
        connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        self._cap(connection)
        self._sum_up()
        return True

    def _cap(self, connection: sqlite3.Connection) -> None:
        """Let the file grow into half of what is free, as long as there is no ballast; without end, else."""
        pages = _NO_END
        if "ballast" in self._short:
            spare = max(0, self._free() - _MARGIN) // 2
            pages = (self._path.stat().st_size + spare) // _PAGE_BYTES
        if pages != self._capped:
            connection.execute(f"PRAGMA max_page_count={max(1, pages)}")
            self._capped = pages

    def grow(self, connection: sqlite3.Connection) -> None:
        """Let the file grow a little, if it has to, and the disk has room for that and for the log."""
        if not self._reserve:
            return
        if self._free() < self._log_bytes + _MARGIN:
            self.growth.give_up()
        elif "file" in self._short:
            self.growth.look_again()
        with self.room.taken(by_log=True):
            more = self.growth.step(connection)
        self._grown = self.growth.reached(connection)
        if more or self._grown >= self._reserve * ENOUGH:
            self._short.discard("file")
        else:
            self._short.add("file")
        self._sum_up()

    def _sum_up(self) -> None:
        ballast = min(self._blocks(self._ballast), self.ballast_bytes)
        short = f"no room for {', '.join(sorted(self._short))}" if self._short else None
        self.taken = Taken(self._grown, ballast, short)

    def _take(self, what: str, path: Path, size: int) -> None:
        """Take hold of the blocks of a file's first `size` bytes."""
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            self._reserve_blocks(descriptor, size)
        except OSError as error:
            if error.errno not in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
                raise
            self._short.add(what)
        else:
            self._short.discard(what)
        finally:
            os.close(descriptor)

    def _reserve_blocks(self, descriptor: int, size: int) -> None:
        if not self._writes:
            try:
                _fallocate(descriptor, size)
            except OSError as error:
                if error.errno not in _UNSUPPORTED:
                    raise
                log.info("%s: room is written, this file system cannot reserve it", self._path.parent)
                self._writes = True
            else:
                return
        at = os.fstat(descriptor).st_size
        if at < size:
            with self.room.taken(by_log=False):
                os.pwrite(descriptor, os.urandom(min(_PIECE_BYTES, size - at)), at)
            os.fdatasync(descriptor)

    def _free(self) -> int:
        """Bytes that are free to us on the disk."""
        found = os.statvfs(self._path.parent)
        return found.f_bavail * found.f_frsize

    @staticmethod
    def _blocks(path: Path) -> int:
        """Bytes of the disk that a file holds."""
        try:
            return path.stat().st_blocks * 512
        except FileNotFoundError:
            return 0


def _fallocate(descriptor: int, size: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    call = getattr(libc, "fallocate64", None) or libc.fallocate  # 64-bit sizes on 32-bit machines, too
    call.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
    if call(descriptor, _KEEP_SIZE, 0, size):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
