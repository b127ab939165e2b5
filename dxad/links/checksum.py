"""Checksums of frames, where they stand, and how they are written.

xor            exclusive or of all bytes (NMEA 0183, section 5.3)
sum8, sum16    the low 8 or 16 bits of the sum of all bytes
lrc            two's complement of sum8: all bytes and it sum up to zero (Modbus over serial line, 2.5.2.2)
fletcher16     two sums modulo 255, the second in the high byte (J. Fletcher, IEEE Trans. Comm. 30, 1982)
fletcher8-256  the same modulo 256, as u-blox receivers have it (RFC 1145, its 8-bit algorithm)
adler32        RFC 1950, section 9
crc…           the CRCs of the RevEng catalogue that `fastcrc` has, by width and name, such as crc16-modbus;
               those with a shorter name are in `SHORT`
"""

import difflib
import functools
import itertools
import operator
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Final, Literal

from dxad.errors import ConfigError, DecodeError

__all__ = ["SHORT", "Check", "Endian", "Over", "Place", "algorithm"]

Endian = Literal["big", "little"]
Place = Literal["end", "start", "behind"]
"""At the end of the frame's content, at its start, or behind what ends the frame."""
Over = Literal["payload", "frame", "after_start"]
"""The payload alone; all that stands around it, too; the same without the mark in front of the frame."""

_SIZES: Final = {"crc8": 1, "crc16": 2, "crc32": 4, "crc64": 8}

SHORT: Final[Mapping[str, str]] = {
    "crc8": "crc8-smbus",
    "crc8-maxim": "crc8-maxim-dow",
    "crc16": "crc16-arc",
    "crc16-ccitt": "crc16-ibm-3740",
    "crc16-ccitt-false": "crc16-ibm-3740",
    "crc16-x25": "crc16-ibm-sdlc",
    "crc32": "crc32-iso-hdlc",
    "crc32c": "crc32-iscsi",
    "crc64": "crc64-ecma-182",
}
"""What people call some CRCs, and their names in the catalogue. `crc16-ccitt` names several: here, the one
that begins with 0xFFFF; `crc16-xmodem` begins with zero, and `crc16-kermit` is the reflected one."""

_Function = Callable[[bytes], int]


def _xor(data: bytes) -> int:
    return functools.reduce(operator.xor, data, 0)


def _sum8(data: bytes) -> int:
    return sum(data) & 0xFF


def _sum16(data: bytes) -> int:
    return sum(data) & 0xFFFF


def _lrc(data: bytes) -> int:
    return -sum(data) & 0xFF


def _fletcher(data: bytes, modulus: int) -> int:
    return sum(itertools.accumulate(data)) % modulus << 8 | sum(data) % modulus


_SUMS: Final[Mapping[str, tuple[_Function, int]]] = {
    "xor": (_xor, 1),
    "sum8": (_sum8, 1),
    "sum16": (_sum16, 2),
    "lrc": (_lrc, 1),
    "fletcher16": (functools.partial(_fletcher, modulus=255), 2),
    "fletcher8-256": (functools.partial(_fletcher, modulus=256), 2),
    "adler32": (zlib.adler32, 4),
}


def algorithm(name: str) -> tuple[_Function, int]:
    """The function of a checksum, and how many bytes its result takes.

    Raises:
        ConfigError: there is none of that name.
    """
    if name in _SUMS:
        return _SUMS[name]
    family, _, variant = SHORT.get(name, name).partition("-")
    known = [*_SUMS, *SHORT]
    if family in _SIZES:
        library = import_module(f"fastcrc.{family}")
        available = sorted(each.replace("_", "-") for each in library.algorithms_available)
        if variant in available:
            function: _Function = getattr(library, variant.replace("-", "_"))
            return function, _SIZES[family]
        known += [f"{family}-{each}" for each in available]
    close = difflib.get_close_matches(name, known, 1)
    hint = f"did you mean {close[0]!r}?" if close else f"known: none, {', '.join(known)}"
    raise ConfigError(f"no checksum {name!r}, {hint}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """A checksum, where it stands, and how it is written."""

    value: _Function
    size: int
    """Of the value, in bytes."""
    endian: Endian = "big"
    """The order of its bytes, in either writing."""
    mark: bytes | None = None
    """What stands before its hexadecimal digits; None for a checksum that is written as bytes."""
    at: Place = "end"
    over: Over = "payload"
    unsummed: bytes = b""
    """Bytes that the checksum leaves out, if one of them comes first."""

    @property
    def written_size(self) -> int:
        """How many bytes it takes in a frame."""
        return self.size if self.mark is None else len(self.mark) + 2 * self.size

    def stripped(self, body: bytes, *, start: bytes = b"", front: bytes = b"", end: bytes = b"") -> bytes:
        """The payload of a frame: its body without the checksum.

        Args:
            body: the frame's content; of a checksum behind its end, with that at the end of the content.
            start: what marks the frame's start.
            front: what stands between that and the content, such as a length.
            end: what ends the frame, if the checksum stands behind it.

        Raises:
            DecodeError: it has no checksum, or the wrong one.
        """
        payload, written = self._parted(body)
        if self.over == "payload":
            summed = payload[1:] if payload[:1] and payload[:1] in self.unsummed else payload
        else:
            summed = (start if self.over == "frame" else b"") + front + payload + end
        value = self.value(summed).to_bytes(self.size, self.endian)
        if self.mark is None:
            if written != value:
                raise DecodeError(f"checksum {written.hex()}, but the frame gives {value.hex()}")
        elif (found := value.hex().upper().encode()) != written.upper():
            raise DecodeError(
                f"checksum {written.decode(errors='replace')!r}, but it gives {found.decode()!r}"
            )
        return payload

    def _parted(self, body: bytes) -> tuple[bytes, bytes]:
        """The payload, and the checksum as it is written, without its mark."""
        if self.mark:
            payload, mark, digits = body.rpartition(self.mark)
            if not mark or len(digits) != 2 * self.size:
                raise DecodeError("no checksum at the end of the frame")
            return payload, digits
        if len(body) < self.written_size:
            raise DecodeError(f"{len(body)} bytes are too few for a checksum")
        if self.at == "start":
            return body[self.written_size :], body[: self.written_size]
        at = len(body) - self.written_size
        return body[:at], body[at:]
