"""Checksums of frames, and how they are written: as hexadecimal digits in text, as bytes in binary.

xor            exclusive or of all bytes (NMEA 0183, section 5.3)
sum8, sum16    the low 8 or 16 bits of the sum of all bytes
lrc            two's complement of sum8: all bytes and it sum up to zero (Modbus over serial line, 2.5.2.2)
fletcher16     two sums modulo 255, the second in the high byte (J. Fletcher, IEEE Trans. Comm. 30, 1982)
fletcher8-256  the same modulo 256, as u-blox receivers have it (RFC 1145, its 8-bit algorithm)
adler32        RFC 1950, section 9
crc…           the CRCs of the RevEng catalogue, as `crc16-modbus`: their width, and their name there with
               hyphens. Those with a shorter name are in `SHORT`.
"""

import functools
import itertools
import operator
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from fastcrc import crc8, crc16, crc32, crc64

__all__ = ["ALGORITHMS", "SHORT", "Check", "Endian", "algorithm"]

Endian = Literal["big", "little"]

_CRCS: Final = {"crc8": (crc8, 1), "crc16": (crc16, 2), "crc32": (crc32, 4), "crc64": (crc64, 8)}

SHORT: Final[Mapping[str, str]] = {
    "crc8": "crc8-smbus",
    "crc8-maxim": "crc8-maxim-dow",
    "crc16": "crc16-arc",
    "crc16-ccitt": "crc16-ibm-3740",
    "crc16-ccitt-false": "crc16-ibm-3740",
    "crc16-x25": "crc16-ibm-sdlc",
    "crc32": "crc32-iso-hdlc",
    "crc32-bzip2": "crc32-bzip2",
    "crc32c": "crc32-iscsi",
    "crc64": "crc64-ecma-182",
}
"""What people call some CRCs, and their names in the catalogue. `crc16-ccitt` names several: here,
the one that begins with 0xFFFF; `crc16-xmodem` begins with zero, and `crc16-kermit` is the reflected one."""


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


def _crcs() -> dict[str, tuple[Callable[[bytes], int], int]]:
    return {
        f"{width}-{name.replace('_', '-')}": (getattr(library, name), size)
        for width, (library, size) in _CRCS.items()
        for name in sorted(library.algorithms_available)
    }


ALGORITHMS: Final[Mapping[str, tuple[Callable[[bytes], int], int]]] = {
    "xor": (_xor, 1),
    "sum8": (_sum8, 1),
    "sum16": (_sum16, 2),
    "lrc": (_lrc, 1),
    "fletcher16": (functools.partial(_fletcher, modulus=255), 2),
    "fletcher8-256": (functools.partial(_fletcher, modulus=256), 2),
    "adler32": (zlib.adler32, 4),
    **_crcs(),
}
"""By name, the function of the bytes, and how many bytes its result takes."""


def algorithm(name: str) -> tuple[Callable[[bytes], int], int]:
    """The function of a checksum, and how many bytes its result takes.

    Raises:
        ValueError: there is none of that name.
    """
    found = ALGORITHMS.get(SHORT.get(name, name))
    if found is None:
        known = [each for each in ALGORITHMS if not each.startswith("crc")]
        raise ValueError(
            f"no checksum {name!r}; there are none, {', '.join([*known, *SHORT])}, and the others of the "
            "catalogue of CRCs by width and name, such as crc16-modbus"
        )
    return found


@dataclass(frozen=True, slots=True)
class Check:
    """A checksum, and how it is written."""

    value: Callable[[bytes], int]
    size: int
    """Of the value, in bytes."""
    endian: Endian = "big"
    """The order of its bytes, in either writing."""
    mark: bytes | None = None
    """What stands before its hexadecimal digits; None for a checksum that is written as bytes."""
    front: bool = False
    """Whether it counts what stands in front of the payload, such as a length, as well."""

    @property
    def written_size(self) -> int:
        """How many bytes it takes in a frame."""
        return self.size if self.mark is None else len(self.mark) + 2 * self.size

    def written(self, data: bytes, wrong: int = 0) -> bytes:
        """The checksum of these bytes as it stands in a frame; the bits of `wrong` are flipped in it."""
        value = (self.value(data) ^ wrong).to_bytes(self.size, self.endian)
        return value if self.mark is None else self.mark + value.hex().upper().encode()
