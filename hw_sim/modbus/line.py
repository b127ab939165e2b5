"""A serial line: a pseudo-terminal behind a symbolic link; clients open and close its far end at will."""

from collections.abc import Callable, Sequence
from pathlib import Path

from hw_sim.tty import Tty

__all__ = ["Line"]


class Line:
    """The near end. Each time that it is opened it is a fresh terminal, under the same name."""

    def __init__(self, link: Path, joined: Callable[["Line"], Callable[[bytes], None]]) -> None:
        """Be nowhere yet.

        Args:
            link: where it is found.
            joined: called each time that it is opened; returns what the bytes are for that come.
        """
        self._joined = joined
        self._received: Callable[[bytes], None] | None = None
        self._tty = Tty(link, on_read=self._read)

    @property
    def is_open(self) -> bool:
        """Whether it is there."""
        return self._tty.plugged

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

    def send(self, data: bytes) -> bool:
        """Send; whether all of it found room in the terminal.

        What did not is lost, as on a real line, and so is all while nobody has the far end open.
        """
        return self._tty.write(data) == len(data)

    def hang_up(self) -> None:
        """Go, so that clients see a hang-up, and come back at once."""
        self._tty.unplug()
        self._plug()

    async def close(self) -> None:
        """Be gone; safe twice."""
        self._tty.unplug()

    def _plug(self) -> None:
        self._received = self._joined(self)
        self._tty.plug()

    def _read(self, data: bytes) -> None:
        if self._received is not None:
            self._received(data)
