"""One serial port on the event loop, opened for us alone."""

import asyncio
import errno
import os
from collections.abc import Callable
from typing import Final

import serial

from dxad.errors import ConfigError, NotConnected
from dxad.links import words

__all__ = ["SerialLink"]

_READ_MAX: Final = 65_536
_HINTS: Final[dict[int | None, str]] = {
    errno.EAGAIN: "another program has it open",
    errno.EACCES: "permission denied; its group, often dialout, may open it",
}
"""By error number, where the system's own words mislead or do not help."""


class SerialLink:
    """Calls back with bytes as they come; a hang-up is told once, with the reason."""

    def __init__(
        self, port: str, baudrate: int, *, on_data: Callable[[bytes], None], on_lost: Callable[[str], None]
    ) -> None:
        self._port = port
        self._baudrate = baudrate
        self._on_data = on_data
        self._on_lost = on_lost
        self._serial: serial.Serial | None = None

    def open(self) -> None:
        """Open the port; takes a few milliseconds at most.

        Raises:
            NotConnected: it is not there, or somebody else has it.
            ConfigError: it cannot be set to this baud rate.
        """
        try:
            self._serial = serial.Serial(self._port, self._baudrate, timeout=0, exclusive=True)
        except ValueError as error:
            raise ConfigError(f"{self._port} at {self._baudrate} baud: {error}") from error
        except OSError as error:  # a SerialException is one
            raise NotConnected(f"{self._port}: {_HINTS.get(error.errno) or words(error)}") from error
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
        if data:
            self._on_data(data)
        else:
            self._hang_up("the device hung up")

    def hold(self, *, held: bool) -> None:
        """Do not read, or read again."""
        if self._serial is None:
            return
        loop = asyncio.get_running_loop()
        if held:
            loop.remove_reader(self._serial.fileno())
        else:
            loop.add_reader(self._serial.fileno(), self._ready)

    def _hang_up(self, reason: str) -> None:
        self.close()  # else epoll spins on the dead descriptor
        self._on_lost(f"{self._port}: {reason}")

    def close(self) -> None:
        """Close the port; safe twice."""
        port, self._serial = self._serial, None
        if port is not None:
            asyncio.get_running_loop().remove_reader(port.fileno())
            port.close()
