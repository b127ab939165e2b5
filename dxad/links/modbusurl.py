"""Where Modbus devices are: the four kinds of url, and what they say of the line.

tcp://host:port                          Modbus TCP; 502 without a port
rtu+tcp://host:port                      RTU frames through a serial server
rtu:///dev/ttyUSB0?baudrate=19200        RTU; parity=N|E|O and stopbits=1|2 besides, 19200 8E1 by default
ascii:///dev/ttyUSB0?baudrate=9600       ASCII; bytesize=7|8 besides
"""

from dataclasses import dataclass
from typing import Any, Final, Literal
from urllib.parse import parse_qsl, urlsplit

__all__ = ["Address", "Framed", "address_of"]

Framed = Literal["tcp", "rtu", "ascii"]

_PORT: Final = 502
_KINDS: Final[dict[str, tuple[Framed, bool]]] = {
    "tcp": ("tcp", True), "rtu+tcp": ("rtu", True), "rtu": ("rtu", False), "ascii": ("ascii", False),
}  # fmt: skip
"""By scheme: how frames stand on the wire, and whether that is a network's."""
_CHOICES: Final[dict[str, tuple[str, ...]]] = {
    "parity": ("N", "E", "O"), "stopbits": ("1", "2"), "bytesize": ("7", "8"),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Address:
    """One physical link."""

    framing: Framed
    host: str = ""
    port: int = 0
    tty: str = ""
    """The terminal's path; empty for a network."""
    baudrate: int = 19_200
    parity: str = "E"
    stopbits: int = 1
    bytesize: int = 8

    @property
    def place(self) -> str:
        """What two sources must not disagree about: `host:port`, or the terminal."""
        return self.tty or f"{self.host}:{self.port}"

    def __str__(self) -> str:
        if self.tty:
            return f"{self.framing}://{self.tty}"
        return f"{'tcp' if self.framing == 'tcp' else f'{self.framing}+tcp'}://{self.place}"


def address_of(url: str) -> Address:
    """Read a url.

    Raises:
        ValueError: it is none of the four, or says something of the line that cannot be.
    """
    split = urlsplit(url)
    if split.scheme not in _KINDS:
        raise ValueError(
            f"{url!r} is not tcp://host:port, rtu+tcp://host:port, rtu:///dev/… or ascii:///dev/…"
        )
    framing, network = _KINDS[split.scheme]
    if network:
        if not split.hostname or split.port == 0 or split.query or split.path.strip("/"):
            raise ValueError(f"{url!r} is not {split.scheme}://host:port")
        return Address(framing, host=split.hostname, port=split.port or _PORT)
    if split.netloc or len(split.path) < 2:
        raise ValueError(f"{url!r} is not {split.scheme}:///dev/…: three slashes, then the device's path")
    line: dict[str, Any] = {}
    for key, value in parse_qsl(split.query, keep_blank_values=True):
        if key == "baudrate":
            if not value.isdecimal() or not 50 <= int(value) <= 4_000_000:
                raise ValueError(f"baudrate={value} is no number from 50 to 4000000")
            line[key] = int(value)
        elif key not in _CHOICES or (key == "bytesize" and framing == "rtu"):
            raise ValueError(f"{key!r} says nothing of this line; known: baudrate, {', '.join(_CHOICES)}")
        elif value not in _CHOICES[key]:
            raise ValueError(f"{key}={value} is none of {', '.join(_CHOICES[key])}")
        else:
            line[key] = value if key == "parity" else int(value)
    return Address(framing, tty=split.path, **line)
