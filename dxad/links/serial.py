"""One serial port on the event loop, opened for us alone."""

import asyncio
import os
from collections.abc import Callable

import serial

from dxad.errors import NotConnected

__all__ = ["SerialLink"]

_READ_MAX = 65_536


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
        """
        try:
            self._serial = serial.Serial(self._port, self._baudrate, timeout=0, exclusive=True)
        except (serial.SerialException, OSError) as error:
            raise NotConnected(f"{self._port}: {error}") from error
        asyncio.get_running_loop().add_reader(self._serial.fileno(), self._ready)

    def _ready(self) -> None:
        assert self._serial is not None
        try:
            # Not Serial.read: that selects once more per call, and cannot tell a hang-up from nothing.
            data = os.read(self._serial.fileno(), _READ_MAX)
        except BlockingIOError:
            return
        except OSError as error:
            self._hang_up(error.strerror or str(error))
            return
        if data:
            self._on_data(data)
        else:
            self._hang_up("the device hung up")

    def _hang_up(self, reason: str) -> None:
        self.close()  # else epoll spins on the dead descriptor
        self._on_lost(f"{self._port}: {reason}")

    def close(self) -> None:
        """Close the port; safe twice."""
        port, self._serial = self._serial, None
        if port is not None:
            asyncio.get_running_loop().remove_reader(port.fileno())
            port.close()
