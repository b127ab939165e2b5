"""When a link's socket is looked at: so seldom that a look brings much, since wake-ups are what it costs.

    network ─▶ listen ─▶ data ─▶ later ─▶ look ─▶ data ─▶ later …
                  ▲                         └ nothing ─┐
                  └────────────────────────────────────┘

While a link is busy its socket stays outside the event loop's selector, and is read when its time has come:
to put it back and take it out again are two system calls and much Python.

A peer whose Nagle algorithm is on sends one small message and keeps the next ones until we have
acknowledged it, which the kernel does when we read it (RFC 896; `man 7 tcp`, TCP_QUICKACK). So most of what
there is comes after the first read: over loopback at once, from another machine a round trip later. A look
whose second read brings nothing is therefore followed by a glance.
"""

import asyncio
import os
import socket
from collections.abc import Callable
from functools import partial
from typing import Final

from dxad.links import words
from dxad.runtime.clock import Clock
from dxad.types import NS_PER_S

__all__ = ["Looks", "until_beat"]

_CHUNK: Final = 65_536
"""Bytes of one read; who gets as many has more to read."""

_ROUND_TRIP_S: Final = 0.001
"""In a plant's network, and on the safe side."""


def until_beat(clock: Clock, period_s: float) -> Callable[[], float]:
    """Tells the seconds until the next multiple of `period_s` on the stream clock.

    All that waits so wakes up at once, and with the ticker.
    """
    period = round(period_s * NS_PER_S)
    return lambda: (period - clock.now() % period) / NS_PER_S


class Looks:
    """Pauses a transport's reading, and reads its socket instead, some time later."""

    def __init__(
        self,
        transport: asyncio.Transport,
        take: Callable[[bytes], None],
        fail: Callable[[str], None],
        until: Callable[[], float] | None,
    ) -> None:
        """Give what comes to `take`, as the transport does.

        Args:
            transport: of the socket, or in front of that which is.
            take: may ask for anything here; an error of it ends the connection.
            fail: ends it, for this reason.
            until: tells how many seconds later the next look is; None, as soon as something comes.
        """
        self._transport = transport
        self._socket: socket.socket = transport.get_extra_info("socket")
        self._take = take
        self._fail = fail
        self._until = until
        self._loop = asyncio.get_running_loop()
        self._next: asyncio.Handle | None = None
        self._owed = False
        """Whether what was kept back until the last look may be on its way."""
        self._decided = True
        """Whether somebody has said how it goes on."""

    def listen(self) -> None:
        """Let the network wake us."""
        self._cancel()
        if not self._transport.is_closing():
            self._transport.resume_reading()

    def later(self) -> None:
        """Let what comes wait for the next look."""
        if self._until is None:
            if not self._transport.is_closing():  # else the peer's Nagle algorithm waits for up to 40 ms
                self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
            self.listen()
        elif self._next is None and not self._transport.is_closing():
            self._decided = True
            self._transport.pause_reading()
            wait_s = min(_ROUND_TRIP_S, self._until()) if self._owed else self._until()
            self._next = self._loop.call_later(wait_s, self._look)

    def stop(self) -> None:
        """Leave what comes in the network until something else is said."""
        self._cancel()
        if not self._transport.is_closing():
            self._transport.pause_reading()

    def after_others(self, go_on: Callable[[], None]) -> None:
        """Read no more before others had their turn, and this was done."""
        self.stop()
        self._next = self._loop.call_soon(self._go_on, go_on)

    def _cancel(self) -> None:
        self._decided = True
        if self._next is not None:
            self._next.cancel()
            self._next = None

    def _go_on(self, go_on: Callable[[], None]) -> None:
        self._next = None
        self._guarded(go_on)

    def _look(self) -> None:
        self._next = None
        if self._transport.is_closing():
            return
        try:
            data = self._read()
        except OSError as error:
            self._fail(f"connection lost: {words(error)}")
            return
        if not data:  # if it is the end, the transport sees it again
            self._transport.resume_reading()
            return
        self._decided = False
        self._guarded(partial(self._take, data))
        if not self._decided:  # it was too little to say anything of
            self.later()

    def _read(self) -> bytes:
        """What has come, and what comes for the acknowledgement of that; b"" where it is nothing, or over.

        Raises:
            OSError: the connection is broken.
        """
        fd = self._socket.fileno()
        first = _read(fd)
        if len(first) >= _CHUNK:
            return first
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        second = _read(fd)
        self._owed = bool(first) and not second and not self._owed  # after a glance, nothing is
        return first + second

    def _guarded(self, call: Callable[[], None]) -> None:
        """End the connection if this fails; asyncio does so only where it has called."""
        whole = False
        try:
            call()
            whole = True
        finally:
            if not whole:
                self._fail("a message could not be taken in")


def _read(fd: int) -> bytes:
    try:
        return os.read(fd, _CHUNK)
    except BlockingIOError:
        return b""
