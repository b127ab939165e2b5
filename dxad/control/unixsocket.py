"""The socket file: with the right owner and mode from its first moment, taken over only from the dead."""

import grp
import os
import socket
import stat
from pathlib import Path
from typing import Final

from dxad.control.peer import peer_of
from dxad.errors import ConfigError

__all__ = ["listen", "remove"]

_MODE: Final = 0o660
_OWNER_ONLY: Final = 0o177
_BACKLOG: Final = 64
_PROBE_S: Final = 1.0


def listen(path: Path, *, group: str | None) -> socket.socket:
    """A listening socket at `path` that `group` may open; by default, the daemon's own group.

    Raises:
        ConfigError: another daemon listens there, or it cannot be made.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _clear(path)
        return _bound(path, None if group is None else _gid(path, group))
    except OSError as error:
        raise ConfigError(f"control socket {path}: {error.strerror or error}") from error


def remove(path: Path, listening: os.stat_result) -> None:
    """Remove the file of a socket that was listened at, unless a successor has put another in its place."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return  # Python 3.13's asyncio removes it when it stops listening
    if (found.st_dev, found.st_ino) == (listening.st_dev, listening.st_ino):
        path.unlink()


def _clear(path: Path) -> None:
    """Remove what a daemon has left that was killed; leave alone what lives, or is something else."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise ConfigError(f"control socket {path}: there is something else of this name; it is left alone")
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(_PROBE_S)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
        except BlockingIOError:
            raise ConfigError(f"control socket {path}: another dxad listens there, and is busy") from None
        else:
            pid = peer_of(probe).pid
            raise ConfigError(
                f"control socket {path}: another dxad runs already and listens there, pid {pid}"
            )


def _bound(path: Path, gid: int | None) -> socket.socket:
    """Nobody but the owner may connect until the file has its group."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        before = os.umask(_OWNER_ONLY)
        try:
            listener.bind(str(path))
        finally:
            os.umask(before)
        if gid is not None:
            os.chown(path, -1, gid)
        path.chmod(_MODE)
        listener.listen(_BACKLOG)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener


def _gid(path: Path, group: str) -> int:
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        raise ConfigError(f"control socket {path}: there is no group {group!r}") from None
