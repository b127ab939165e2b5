"""A serial line: a pseudo-terminal behind a symbolic link; clients open and close its far end at will."""

import asyncio
import os
import tty
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

__all__ = ["Line"]

_CHUNK: Final = 65_536


class Line:
    """The near end. Each time that it is opened it is a fresh terminal, under the same name."""

    def __init__(self, link: Path, joined: Callable[["Line"], Callable[[bytes], None]]) -> None:
        """Be nowhere yet.

        Args:
            link: where it is found.
            joined: called each time that it is opened; returns what the bytes are for that come.
        """
        self._link = link
        self._joined = joined
        self._received: Callable[[bytes], None] | None = None
        self._near: int | None = None
        self._far: int | None = None
        """Held open, for else each client that leaves would hang up our own end."""
        self._name = ""

    @property
    def is_open(self) -> bool:
        """Whether it is there."""
        return self._near is not None

    @property
    def peers(self) -> Sequence["Line"]:
        """What one can send to: itself, whoever listens."""
        return [self] if self.is_open else []

    async def open(self) -> None:
        """Be there.

        Raises:
            OSError: something that is no link has that name.
        """
        self._plug()

    def _plug(self) -> None:
        if self._link.exists() and not self._link.is_symlink():
            raise FileExistsError(f"{self._link} is there and is no link; it is left alone")
        self._near, self._far = os.openpty()
        tty.setraw(self._far)
        os.set_blocking(self._near, False)
        self._name = os.ttyname(self._far)
        try:
            fresh = self._link.with_name(f"{self._link.name}.{os.getpid()}")
            fresh.symlink_to(self._name)
            fresh.replace(self._link)
        except OSError:
            self._unplug()
            raise
        self._received = self._joined(self)
        asyncio.get_running_loop().add_reader(self._near, self._readable)

    def _readable(self) -> None:
        if self._near is None or self._received is None:
            return
        try:
            data = os.read(self._near, _CHUNK)
        except BlockingIOError:
            return
        self._received(data)

    def send(self, data: bytes) -> bool:
        """Send; whether all of it found room in the terminal. What did not is lost, as on a real line."""
        if self._near is None:
            return False
        try:
            return os.write(self._near, data) == len(data)
        except BlockingIOError:
            return False

    def hang_up(self) -> None:
        """Go, so that clients see a hang-up, and come back at once."""
        self._unplug()
        self._plug()

    async def close(self) -> None:
        """Be gone; safe twice."""
        self._unplug()

    def _unplug(self) -> None:
        near, far = self._near, self._far
        self._near = self._far = self._received = None
        if near is None or far is None:
            return
        asyncio.get_running_loop().remove_reader(near)
        os.close(near)
        os.close(far)
        if self._link.is_symlink() and str(self._link.readlink()) == self._name:
            self._link.unlink()
