"""Listens to a serial port: first in which setting it makes sense, then to what comes. Sends nothing, ever.

each usual rate, for a while ─▶ what makes sense at once ends the search ─▶ the rest of the time: messages
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

from dxad.commissioning import Patience, Watcher
from dxad.commissioning.bauds import BAUDS, Heard, LineSetting, heard
from dxad.errors import ConfigError, NotConnected
from dxad.links.serial import Parity, SerialLink, SerialPort

__all__ = ["Capture", "Wire", "capture", "is_pseudo", "opener", "port_of", "rates", "search", "stable_name"]

_FIRST_S: Final = 2.5
"""To wait at each rate for something to come; and then, for more."""
_WITH_PARITY: Final = 5
"""Rates that are tried with a parity, too."""
_LISTEN_S: Final = 10.0
"""To wait, once the setting is known, before there may be enough."""
_ENOUGH: Final = 1200
"""Bytes that are enough to judge."""
_SURE: Final = 0.85
_LOOK_S: Final = 0.05
_MOST: Final = 1024 * 1024
"""Bytes that are kept."""
_LIVE: Final = 6
"""Messages shown of what comes."""
_SERIAL: Final = "serial://"


@dataclass(slots=True)
class Capture:
    """What came, and when the loop's time was then."""

    data: bytearray = field(default_factory=bytearray)
    arrivals: list[tuple[float, int]] = field(default_factory=list)
    """After each piece: the time, and how many bytes there were."""
    lost: str = ""

    def take(self, piece: bytes) -> None:
        """More came."""
        if len(self.data) < _MOST:
            self.data += piece
            self.arrivals.append((asyncio.get_running_loop().time(), len(self.data)))

    def lose(self, reason: str) -> None:
        """The line is gone."""
        self.lost = self.lost or reason


class Wire(Protocol):
    """Opens the port with a setting; what comes goes into the capture."""

    def __call__(self, setting: LineSetting, into: Capture) -> SerialLink:
        """Open it.

        Raises:
            NotConnected: it is not there, or somebody else has it.
            ConfigError: it cannot be set so.
        """
        ...


def port_of(url: str) -> str:
    """The device file of `serial:///dev/…`.

    Raises:
        ConfigError: it is none.
    """
    path = url.removeprefix(_SERIAL)
    if not url.startswith(_SERIAL) or not path.startswith("/") or "?" in path:
        raise ConfigError(f"{url!r} is not serial:///dev/…: three slashes, then the device's path")
    return path


def is_pseudo(port: str) -> bool:
    """Whether it is a pseudo-terminal, where no bits are sent."""
    return Path(port).resolve().is_relative_to("/dev/pts")


def stable_name(port: str) -> str:
    """The name in /dev/serial/by-id that a re-plugged device keeps; the port itself where there is none."""
    try:
        real = Path(port).resolve()
        names = sorted(each for each in Path("/dev/serial/by-id").iterdir() if each.resolve() == real)
    except OSError:
        return port
    return str(names[0]) if names else port


def opener(port: str) -> Wire:
    """Opens a real port."""

    def open_it(setting: LineSetting, into: Capture) -> SerialLink:
        where = SerialPort(
            path=port, baudrate=setting.baudrate, bytesize=setting.bytesize, parity=setting.parity
        )
        link = SerialLink(where, on_data=into.take, on_lost=into.lose)
        link.open()
        return link

    return open_it


@asynccontextmanager
async def _opened(wire: Wire, setting: LineSetting) -> AsyncIterator[Capture]:
    into = Capture()
    link = wire(setting, into)
    try:
        yield into
    finally:
        link.close()


async def search(
    wire: Wire, settings: Sequence[LineSetting], *, patience: Patience, watcher: Watcher
) -> Heard | None:
    """The setting that makes most sense; None where nothing came in any.

    Raises:
        NotConnected: the port is not there, somebody else has it, or it is gone.
        ConfigError: none of the settings can be had.
    """
    best: Heard | None = None
    refused: ConfigError | None = None
    for place, setting in enumerate(settings):
        if patience.over:
            break
        part = patience.part(1 / (len(settings) - place))
        try:
            found = heard(setting, await _listened(wire, setting, part, watcher))
        except ConfigError as error:  # a port that cannot send at this rate
            refused = error
            continue
        if found.data:
            sense = found.cut.framing["kind"] if found.cut is not None else "no sense"
            watcher.seen(f"{found.setting}: {len(found.data)} bytes, {sense}")
        if found.data and (best is None or found.worth > best.worth):
            best = found
        if found.worth >= _SURE:
            break
    if best is None and refused is not None:
        raise refused
    return best


async def _listened(wire: Wire, setting: LineSetting, patience: Patience, watcher: Watcher) -> bytes:
    """What comes with a setting, until that is enough or the time is over."""
    loop = asyncio.get_running_loop()
    async with _opened(wire, setting) as into:
        begin = loop.time()
        while not patience.over and len(into.data) < _ENOUGH:
            watcher.doing(f"{setting}: {len(into.data)} bytes")
            await asyncio.sleep(_LOOK_S)
            if into.lost:
                raise NotConnected(into.lost)
            first = into.arrivals[0][0] if into.arrivals else begin + _FIRST_S
            if loop.time() >= first + (_FIRST_S if into.arrivals else 0.0):
                break
        return bytes(into.data)


def rates(known: int | None, *, parity: bool) -> list[LineSetting]:
    """What to try: all usual rates without a parity, and then with one; or a known rate alone."""
    bauds = BAUDS if known is None else (known,)
    found = [LineSetting(baud) for baud in bauds]
    if parity:
        parities: tuple[Parity, ...] = ("even", "odd")
        found += [LineSetting(baud, 8, each) for baud in bauds[:_WITH_PARITY] for each in parities]
    return found


async def capture(
    wire: Wire,
    setting: LineSetting,
    *,
    patience: Patience,
    watcher: Watcher,
    shown: Callable[[bytes], Sequence[str]],
    enough: Callable[[bytes], bool],
) -> Capture:
    """What comes until the time is over, or there is enough; `shown` makes lines of pieces.

    Raises:
        NotConnected: the port is gone.
        ConfigError: it cannot be set so.
    """
    async with _opened(wire, setting) as into:
        told = 0
        seen = 0
        asked_at = asyncio.get_running_loop().time() + _LISTEN_S
        while not patience.over and len(into.data) < _MOST:
            await asyncio.sleep(_LOOK_S)
            if asyncio.get_running_loop().time() >= asked_at:
                if enough(bytes(into.data)):
                    break
                asked_at += _LISTEN_S
            if into.lost:
                if into.data:
                    break
                raise NotConnected(into.lost)
            watcher.doing(f"{setting}: {len(into.data)} bytes")
            if told < _LIVE and len(into.data) > seen:
                for line in shown(bytes(into.data[seen:]))[: _LIVE - told]:
                    watcher.seen(line)
                    told += 1
                seen = len(into.data)
        return into
