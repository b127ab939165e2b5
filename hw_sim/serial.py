"""The vibration sensor, on a pseudo-terminal: `x,y,z*HH` a hundred times a second.

HH is the exclusive or of the characters before the `*`, in two hexadecimal digits (NMEA 0183). A symbolic
link points to the terminal, so that the name survives a replug, as one in /dev/serial/by-id does.
"""

import functools
import operator
import os
import tty
from pathlib import Path

from hw_sim.bench import Bench

__all__ = ["SerialWire", "line"]


def line(values: tuple[float, float, float]) -> bytes:
    """One line, checksum and end included."""
    text = ",".join(f"{value:.4f}" for value in values).encode()
    return b"%s*%02X\r\n" % (text, functools.reduce(operator.xor, text))


class SerialWire:
    """The device's end of a pty; down means unplugged."""

    device = "vib"

    def __init__(self, bench: Bench, *, link: Path) -> None:
        self.endpoint = str(link)
        self._bench = bench
        self._link = link
        self._ends: tuple[int, int] | None = None

    async def start(self) -> None:
        """Plug in: a fresh terminal under the same name."""
        master, slave = os.openpty()
        tty.setraw(slave)
        os.set_blocking(master, False)
        fresh = self._link.with_name(self._link.name + ".new")
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(os.ttyname(slave))
        fresh.replace(self._link)
        self._ends = master, slave

    def step(self) -> None:
        """Send one line, or lose it when nobody reads, as a UART does."""
        if self._ends is None:
            return
        readings = self._bench.readings
        try:
            os.write(self._ends[0], line((readings["vib.x"], readings["vib.y"], readings["vib.z"])))
        except BlockingIOError:
            return

    async def stop(self) -> None:
        """Unplug; safe twice."""
        ends, self._ends = self._ends, None
        if ends is not None:
            for end in ends:
                os.close(end)
            self._link.unlink(missing_ok=True)
