"""Who is at the other end of the socket, and what they may do.

The kernel vouches for both (`man 7 unix`): SO_PEERCRED and SO_PEERGROUPS are the peer's as it connected. In a
user namespace (systemd's PrivateUsers=) all but root and the daemon's own user look like nobody, 65534.
"""

import grp
import os
import socket
import struct
from dataclasses import dataclass
from typing import Final

__all__ = ["Peer", "peer_of"]

_SO_PEERGROUPS: Final = 59
"""Linux 4.13, asm-generic/socket.h; the socket module has no name for it."""
_CREDENTIALS: Final = struct.Struct("iII")
_GROUPS_BYTES: Final = 1024
"""As much as Python reads; the groups of somebody with more than 256 are not known."""


@dataclass(frozen=True, slots=True)
class Peer:
    """A process that connected."""

    uid: int
    pid: int
    groups: frozenset[int]

    def may_change(self, admin_group: str) -> bool:
        """Root, the daemon's own user and the members of this group may."""
        return self.uid in {0, os.geteuid()} or _gid(admin_group) in self.groups


def peer_of(connection: socket.socket) -> Peer:
    """The process that made this connection."""
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, gid = _CREDENTIALS.unpack(raw)
    return Peer(uid, pid, frozenset({gid, *_supplementary(connection)}))


def _supplementary(connection: socket.socket) -> tuple[int, ...]:
    try:
        raw = connection.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, _GROUPS_BYTES)
    except OSError:
        return ()
    return struct.unpack(f"{len(raw) // 4}I", raw)


def _gid(group: str) -> int | None:
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        return None  # a group that does not exist has no members
