"""One serial port on the event loop, opened for us alone."""

import asyncio
import errno
import glob
import os
import termios
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import serial

from dxad.errors import ConfigError, NotConnected
from dxad.links import words

__all__ = ["Flow", "Parity", "SerialLink", "SerialPort"]

Parity = Literal["none", "even", "odd", "mark", "space"]
Flow = Literal["none", "xonxoff", "rtscts", "dsrdtr"]

_READ_MAX: Final = 16_384
"""Bytes in one look: what is more waits in the kernel while others have their turn."""
_FULL: Final = 4095
"""Bytes that a terminal has room for (Linux, N_TTY_BUF_SIZE): where a read brings them all, more may wait."""
_GATHER_S: Final = 0.002
_GATHER_MOST: Final = 65_536
_HINTS: Final[dict[int | None, str]] = {
    errno.EAGAIN: "another program, or another source, has it open",
    errno.EACCES: "permission denied; its group, often dialout, may open it",
}
"""By error number, where the system's own words mislead or do not help."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SerialPort:
    """Which port, and how its bytes are sent."""

    path: str
    """A device file, or a pattern of the names that it may have: `/dev/ttyUSB*`."""
    baudrate: int
    bytesize: int = 8
    parity: Parity = "none"
    stopbits: float = 1
    flow: Flow = "none"

    def found(self) -> str:
        """The device file that is there now.

        Raises:
            NotConnected: the pattern matches none, or several: one of those could be another device.
        """
        if not glob.has_magic(self.path):
            return self.path
        names = sorted(glob.glob(self.path))  # noqa: PTH207 - an absolute pattern, which Path refuses
        if not names:
            raise NotConnected(f"{self.path}: no device has such a name")
        if len(names) > 1:
            raise NotConnected(f"{self.path}: {len(names)} devices have such names: {', '.join(names[:4])}")
        return names[0]

    def opened(self, path: str) -> serial.Serial:
        """Open it, for us alone.

        Raises:
            NotConnected: it is not there, or somebody else has it.
            ConfigError: it cannot be set so.
        """
        # A pseudo-terminal has no bits to be set, and may refuse to be asked for them.
        pseudo = Path(path).resolve().is_relative_to("/dev/pts")
        try:
            return serial.Serial(
                path,
                self.baudrate,
                bytesize=8 if pseudo else self.bytesize,
                parity="N" if pseudo else self.parity[0].upper(),
                stopbits=1 if pseudo else self.stopbits,
                xonxoff=self.flow == "xonxoff",
                rtscts=self.flow == "rtscts" and not pseudo,
                dsrdtr=self.flow == "dsrdtr" and not pseudo,
                timeout=0,
                exclusive=True,
            )
        except (ValueError, termios.error) as error:
            raise ConfigError(f"{path} at {self.baudrate} baud: {error}") from error
        except OSError as error:  # a SerialException is one
            raise NotConnected(f"{path}: {_HINTS.get(error.errno) or words(error)}") from error


class SerialLink:
    """Calls back with bytes as they come; a hang-up is told once, with the reason."""

    def __init__(
        self, port: SerialPort, *, on_data: Callable[[bytes], None], on_lost: Callable[[str], None]
    ) -> None:
        self._port = port
        self._path = port.path
        self._on_data = on_data
        self._on_lost = on_lost
        self._serial: serial.Serial | None = None
        self._gathered: list[bytes] = []
        """Of a flood, what is handed over together: that costs less."""
        self._due: asyncio.TimerHandle | None = None

    def open(self) -> None:
        """Open the port; takes a few milliseconds at most.

        Raises:
            NotConnected: it is not there, or somebody else has it.
            ConfigError: it cannot be set so.
        """
        self._path = self._port.found()
        self._serial = self._port.opened(self._path)
        asyncio.get_running_loop().add_reader(self._serial.fileno(), self._ready)

    def _ready(self) -> None:
        assert self._serial is not None
        try:
            # Not Serial.read: that selects once more per call, and cannot tell a hang-up from nothing.
            data = os.read(self._serial.fileno(), _READ_MAX)
        except BlockingIOError:
            return
        except OSError as error:
            self._hang_up(words(error))
            return
        if not data:
            self._hang_up("the device hung up")
        elif len(data) < _FULL and not self._gathered:
            self._on_data(data)
        else:
            self._gather(data)

    def _gather(self, data: bytes) -> None:
        self._gathered.append(data)
        if len(data) < _FULL or len(self._gathered) * _FULL > _GATHER_MOST:
            self._hand_over()
        elif self._due is None:
            self._due = asyncio.get_running_loop().call_later(_GATHER_S, self._hand_over)

    def _hand_over(self) -> None:
        gathered, due = b"".join(self._gathered), self._due
        self._gathered, self._due = [], None
        if due is not None:
            due.cancel()
        if gathered:
            self._on_data(gathered)

    def hold(self, *, held: bool) -> None:
        """Do not read, or read again."""
        if self._serial is None:
            return
        loop = asyncio.get_running_loop()
        if held:
            loop.remove_reader(self._serial.fileno())
        else:
            loop.add_reader(self._serial.fileno(), self._ready)

    def ask(self, request: bytes) -> None:
        """Send a question, after throwing away what was not read: it answers none that is asked now."""
        if self._serial is None:
            return
        try:
            self._hand_over()
            termios.tcflush(self._serial.fileno(), termios.TCIFLUSH)
            sent = os.write(self._serial.fileno(), request)
        except (OSError, termios.error) as error:
            self._hang_up(words(error) if isinstance(error, OSError) else str(error))
            return
        if sent < len(request):
            self._hang_up("the line takes nothing")

    def _hang_up(self, reason: str) -> None:
        self._hand_over()
        self.close()  # else epoll spins on the dead descriptor
        self._on_lost(f"{self._path}: {reason}")

    def close(self) -> None:
        """Close the port; safe twice."""
        port, self._serial = self._serial, None
        self._gathered.clear()
        if self._due is not None:
            self._due.cancel()
        if port is not None:
            asyncio.get_running_loop().remove_reader(port.fileno())
            port.close()
