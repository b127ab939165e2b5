"""The bytes of a Modbus link: a TCP connection, or a terminal that is ours alone."""

import asyncio
import os
import socket
import termios
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol

import serial

from dxad.errors import ConfigError, NotConnected
from dxad.links import words
from dxad.links.modbusurl import Address

__all__ = ["Port", "open_port"]

_READ_MAX: Final = 4096
_UNACKED_MS: Final = 10_000
"""TCP_USER_TIMEOUT: a peer that acknowledges nothing for so long is gone."""


class Port(Protocol):
    """Somewhere to write to; `on_data` and, once, `on_lost` are called by it."""

    def write(self, data: bytes) -> None:
        """Send a frame."""

    def close(self) -> None:
        """Let go, and say nothing more."""


class _Tcp(asyncio.BufferedProtocol):
    """Buffered, since asyncio reads into fresh 256 KiB for any other protocol."""

    def __init__(self, on_data: Callable[[bytes], None], on_lost: Callable[[str], None]) -> None:
        self._on_data = on_data
        self._on_lost: Callable[[str], None] | None = on_lost
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray(_READ_MAX)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        sock = transport.get_extra_info("socket")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _UNACKED_MS)

    def get_buffer(self, sizehint: int) -> bytearray:  # noqa: ARG002 - as asyncio calls it
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        self._on_data(bytes(self._buffer[:nbytes]))

    def connection_lost(self, error: Exception | None) -> None:
        told, self._on_lost = self._on_lost, None
        if told is not None:
            why = f" ({words(error)})" if isinstance(error, OSError) else ""
            told(f"the device closed the connection{why}")

    def write(self, data: bytes) -> None:
        assert self._transport is not None
        self._transport.write(data)

    def close(self) -> None:
        self._on_lost = None
        if self._transport is not None:
            self._transport.abort()


class _Tty:
    def __init__(
        self, tty: serial.Serial, on_data: Callable[[bytes], None], on_lost: Callable[[str], None]
    ) -> None:
        self._tty = tty
        self._on_data = on_data
        self._on_lost = on_lost
        asyncio.get_running_loop().add_reader(tty.fileno(), self._ready)

    def _ready(self) -> None:
        try:
            data = os.read(self._tty.fileno(), _READ_MAX)
        except BlockingIOError:
            return
        except OSError as error:
            self._lose(words(error))
            return
        if data:
            self._on_data(data)
        else:
            self._lose("the line hung up")

    def _lose(self, reason: str) -> None:
        self.close()  # else epoll spins on the dead descriptor
        self._on_lost(reason)

    def write(self, data: bytes) -> None:
        try:
            sent = os.write(self._tty.fileno(), data)
        except OSError as error:
            self._lose(words(error))
            return
        if sent < len(data):
            self._lose("the line takes nothing")

    def close(self) -> None:
        if self._tty.is_open:
            asyncio.get_running_loop().remove_reader(self._tty.fileno())
            self._tty.close()


def _opened(address: Address) -> serial.Serial:
    parity = address.parity
    if Path(address.tty).resolve().is_relative_to("/dev/pts"):
        parity = "N"  # a pseudo-terminal has none, and may refuse to be asked for it
    return serial.Serial(
        address.tty, address.baudrate, bytesize=address.bytesize, parity=parity, stopbits=address.stopbits,
        timeout=0, exclusive=True,
    )  # fmt: skip


async def open_port(
    address: Address, *, timeout_s: float, on_data: Callable[[bytes], None], on_lost: Callable[[str], None]
) -> Port:
    """Open a link.

    Raises:
        NotConnected: nobody listens there, or the terminal is not there or somebody else's.
        ConfigError: the terminal cannot be set so.
    """
    if address.tty:
        try:
            tty = _opened(address)
        except (ValueError, termios.error) as error:
            raise ConfigError(f"{address}: the line cannot be set so: {error}") from error
        except OSError as error:  # a SerialException is one
            raise NotConnected(f"{address}: {words(error)}") from error
        return _Tty(tty, on_data, on_lost)
    try:
        async with asyncio.timeout(timeout_s):
            _, port = await asyncio.get_running_loop().create_connection(
                lambda: _Tcp(on_data, on_lost), address.host, address.port
            )
    except TimeoutError as error:
        raise NotConnected(f"{address}: no connection within {timeout_s:g} s") from error
    except OSError as error:
        raise NotConnected(f"{address}: {words(error)}") from error
    return port
