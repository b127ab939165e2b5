"""A device's end of a pseudo-terminal, which can be plugged in and pulled out, under a symbolic link.

    reader ══ /dev/pts/N ◀── link      the link keeps its name over a replug, as one in /dev/serial/by-id does

The terminal is raw. Writing never blocks: what the terminal has no room for, some kilobytes after the reader
has gone to sleep, is refused, as a UART's full buffer does; and with nobody there all is.
"""

import asyncio
import errno
import fcntl
import os
import select
import struct
import termios
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

__all__ = ["Tty"]

_LOOK_S: Final = 0.005
"""How often to look whether somebody has come: the terminal itself does not tell."""
_READ_MAX: Final = 4096


class Tty:
    """Made unplugged."""

    def __init__(self, link: Path, *, on_read: Callable[[bytes], None] | None = None) -> None:
        """With `on_read`, plug it in on a running event loop; without, what is written to it gets lost."""
        self.link = link
        self.name = ""
        """The terminal's own, of the last time that it was plugged in."""
        self._on_read = on_read
        self._end: int | None = None
        self._poll = select.poll()
        self._had_reader = False
        self._look: asyncio.TimerHandle | None = None
        self._listening = False

    @property
    def plugged(self) -> bool:
        """Whether it is there."""
        return self._end is not None

    @property
    def heard(self) -> bool:
        """Whether somebody has it open."""
        return self._end is not None and not self._state() & select.POLLHUP

    def plug(self, link: Path | None = None) -> None:
        """Appear, as a terminal of another name than the last; under another link, if one is given.

        Raises:
            OSError: no terminal can be had, or something that is no link has that name.
        """
        link = link or self.link
        if link.exists() and not link.is_symlink():
            raise FileExistsError(errno.EEXIST, "it is there and is no link, so it is left alone", str(link))
        end, name = _terminal(self.name)
        fresh = link.with_name(f".{link.name}.{os.getpid()}.{Path(name).name}")
        try:
            fresh.symlink_to(name)
            fresh.replace(link)
        except OSError:
            os.close(end)
            raise
        self.link, self.name, self._end = link, name, end
        self._poll.register(end, select.POLLIN)
        self._had_reader = False
        if self._on_read is not None:
            self._listen()

    def unplug(self) -> None:
        """Disappear: who has it open sees a hang-up, and the link is gone; safe twice."""
        end, self._end = self._end, None
        if end is None:
            return
        self._deaf(end)
        self._poll.unregister(end)
        os.close(end)
        if self.link.is_symlink() and str(self.link.readlink()) == self.name:
            self.link.unlink()

    def write(self, data: bytes) -> int:
        """Send bytes; returns how many the terminal took."""
        end = self._end
        if end is None:
            return 0
        state = self._state()
        if state & select.POLLHUP:
            self._forget()
            return 0
        self._had_reader = True
        if state and self._on_read is None:
            self._ignore(end)
        try:
            return os.write(end, data)
        except BlockingIOError:
            return 0

    async def writable(self) -> None:
        """Wait until somebody has it open and it takes some bytes, or until it is unplugged."""
        while self._end is not None:
            state = self._state(select.POLLOUT)
            if not state & select.POLLHUP and state & select.POLLOUT:
                return
            await asyncio.sleep(_LOOK_S if state & select.POLLHUP else _LOOK_S / 5)

    async def taken(self) -> None:
        """Wait until the reader has read all, or is gone."""
        while self.heard:
            await asyncio.sleep(_LOOK_S)  # what was just written is on its way within the kernel, unseen
            if not self._unread():
                return

    def _state(self, events: int = 0) -> int:
        """What poll(2) says of our end; it hangs up while nobody has the other open."""
        if events:
            assert self._end is not None
            once = select.poll()
            once.register(self._end, events)
            return next((state for _, state in once.poll(0)), 0)
        return next((state for _, state in self._poll.poll(0)), 0)

    def _unread(self) -> int:
        """How many bytes wait at the other end; 0 as well where a reader lets nobody else open it."""
        with suppress(OSError), self._other_end() as theirs:
            return int(struct.unpack("i", fcntl.ioctl(theirs, termios.FIONREAD, bytes(4)))[0])
        return 0

    def _forget(self) -> None:
        """Once after a reader has gone: the next shall not find what this one has left, as on a real port."""
        if not self._had_reader:
            return
        self._had_reader = False
        assert self._end is not None
        termios.tcflush(self._end, termios.TCIOFLUSH)
        with suppress(OSError), self._other_end() as theirs:
            termios.tcflush(theirs, termios.TCIOFLUSH)

    @contextmanager
    def _other_end(self) -> Iterator[int]:
        theirs = os.open(self.name, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
        try:
            yield theirs
        finally:
            os.close(theirs)

    def _ignore(self, end: int) -> None:
        """Take what was sent and concerns nobody, so that no sender waits for room."""
        try:
            os.read(end, _READ_MAX)
        except OSError:  # there was nothing, or the sender has just gone
            return

    def _listen(self) -> None:
        """Have `on_read` called while somebody is there; else, a terminal would wake us all the time."""
        end = self._end
        if end is None:
            return
        loop = asyncio.get_running_loop()
        state = self._state()
        if state & select.POLLHUP:
            if state & select.POLLIN:
                self._ignore(end)  # whoever sent it has gone before it was read, and waits for no answer
            self._look = loop.call_later(_LOOK_S, self._listen)
        else:
            self._listening, self._look = True, None
            loop.add_reader(end, self._readable, end)

    def _readable(self, end: int) -> None:
        try:
            data = os.read(end, _READ_MAX)
        except BlockingIOError:
            return
        except OSError:  # EIO: the last one who had it open has closed it
            self._deaf(end)
            self._forget()
            self._listen()
            return
        assert self._on_read is not None
        self._on_read(data)

    def _deaf(self, end: int) -> None:
        if self._look is not None:
            self._look.cancel()
            self._look = None
        if self._listening:
            self._listening = False
            asyncio.get_running_loop().remove_reader(end)


def _terminal(unlike: str) -> tuple[int, str]:
    """A fresh pseudo-terminal, raw, of another name than the last: our end, and the name of the other."""
    end, theirs = os.openpty()
    name = os.ttyname(theirs)
    if name == unlike:
        try:
            return _terminal("")
        finally:
            os.close(end)
            os.close(theirs)
    tty.setraw(theirs)
    os.close(theirs)  # while nobody else has it open, poll(2) on our end says so
    os.set_blocking(end, False)
    return end, name
