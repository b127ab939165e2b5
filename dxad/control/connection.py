"""One client, held to its deadlines.

aiohttp 3.13 waits for ever for the head of a request, and takes any number of clients; so its protocol is
wrapped in one that does neither. There is one deadline at any time, and missing it ends the connection.
"""

import asyncio
import json
from collections.abc import Callable
from typing import cast

from dxad.control.limits import Limits
from dxad.control.peer import Peer, peer_of
from dxad.control.problem import CONTENT_TYPE, Refusal

__all__ = ["Connection"]


class Connection(asyncio.Protocol):
    """Hands what a client sends to a protocol of HTTP, if there is room for the client."""

    peer: Peer
    """Who it is; known once connected."""

    def __init__(
        self, http: Callable[[], asyncio.Protocol], clients: set["Connection"], limits: Limits
    ) -> None:
        """Be one of `clients` while it lasts; `http` makes the protocol that answers."""
        self.gone = asyncio.Event()
        self._make_http = http
        self._clients = clients
        self._limits = limits

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the client in, or turn it away."""
        self._transport = cast("asyncio.Transport", transport)
        if len(self._clients) >= self._limits.clients:
            self._transport.write(_turned_away(self._limits.clients))
            self._transport.close()
            return
        self._clients.add(self)
        self.peer = peer_of(transport.get_extra_info("socket"))
        self._deadline = asyncio.get_running_loop().call_later(self._limits.head_s, self.abort)
        self._http = self._make_http()
        self._http.connection_made(transport)

    def connection_lost(self, error: Exception | None) -> None:
        """Leave nothing behind."""
        if self in self._clients:
            self._clients.remove(self)
            self._deadline.cancel()
            self._http.connection_lost(error)
        self.gone.set()

    def extend(self, seconds: float) -> None:
        """The client has kept its deadline; the next one is so many seconds away."""
        self._deadline.cancel()
        self._deadline = asyncio.get_running_loop().call_later(seconds, self.abort)

    def abort(self) -> None:
        """End the connection at once."""
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        """Pass it on."""
        self._http.data_received(data)

    def eof_received(self) -> bool | None:
        """Pass it on."""
        return self._http.eof_received()

    def pause_writing(self) -> None:
        """Pass it on."""
        self._http.pause_writing()

    def resume_writing(self) -> None:
        """Pass it on."""
        self._http.resume_writing()


def _turned_away(clients: int) -> bytes:
    refusal = Refusal(503, f"{clients} clients are connected already, and that is all there may be")
    body = json.dumps(refusal.document()).encode()
    head = (
        f"HTTP/1.1 503 {refusal.status.phrase}\r\nContent-Type: {CONTENT_TYPE}\r\n"
        f"Content-Length: {len(body)}\r\nRetry-After: 1\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + body
