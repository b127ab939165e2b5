"""The vibration sensor, on a pseudo-terminal: `x,y,z*HH` a hundred times a second, in mm/s.

HH is the exclusive or of the characters before the `*`, in two hexadecimal digits (NMEA 0183). A symbolic
link points to the terminal, so that the name survives a replug, as one in /dev/serial/by-id does.
"""

import functools
import operator
import os
import select
import tty
from pathlib import Path

from hw_sim.bench import Bench
from hw_sim.wire import Wire

__all__ = ["SerialWire", "encode"]


def encode(x: float, y: float, z: float) -> bytes:
    """One line, checksum and end included."""
    text = f"{x:.4f},{y:.4f},{z:.4f}".encode()
    return b"%s*%02X\r\n" % (text, functools.reduce(operator.xor, text))


class SerialWire(Wire):
    """The device's end of a pty; away means unplugged: readers see a hang-up, and the link is gone."""

    device = "vib"
    about = "lines x,y,z*HH at 100 Hz"

    def __init__(self, bench: Bench, *, link: Path) -> None:
        self.endpoint = str(link)
        self._bench = bench
        self._link = link
        self._end: int | None = None
        self._name = ""
        self._poll = select.poll()

    async def start(self) -> None:
        """Plug in: a fresh terminal under the same name.

        Raises:
            OSError: something that is no link has that name.
        """
        if self._link.exists() and not self._link.is_symlink():
            raise FileExistsError(f"{self._link} is there and is no link; it is left alone")
        self._end, theirs = os.openpty()
        tty.setraw(theirs)
        self._name = os.ttyname(theirs)
        os.close(theirs)  # while nobody else has it open, poll() on our end says so
        os.set_blocking(self._end, False)
        self._poll.register(self._end, 0)
        fresh = self._link.with_name(f"{self._link.name}.{os.getpid()}")
        fresh.symlink_to(self._name)
        fresh.replace(self._link)

    def step(self) -> None:
        """Send one line, or lose it when nobody listens or the listener sleeps, as a UART does."""
        if self._end is None or self._poll.poll(0):
            return
        readings = self._bench.readings
        try:
            os.write(self._end, encode(readings["vib.x"], readings["vib.y"], readings["vib.z"]))
        except BlockingIOError:
            return

    async def stop(self) -> None:
        """Unplug."""
        end, self._end = self._end, None
        if end is None:
            return
        self._poll.unregister(end)
        os.close(end)
        if self._link.is_symlink() and str(self._link.readlink()) == self._name:
            self._link.unlink()
