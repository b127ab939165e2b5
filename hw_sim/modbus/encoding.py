"""A reading as the bytes of its registers: encodings and the order of bytes.

The order says where the bytes of a value stand on the wire, A being its most significant (of a string: its
first character). For a value of two registers the four letters are its four bytes; one of any other length
follows the same two rules:

    ABCD    the most significant register first, and in each the more significant byte: Modbus as it is meant
    BADC    the two bytes of each register are swapped
    CDAB    the registers come in reverse: four of them as GH EF CD AB; one alone is as in ABCD
    DCBA    both: all bytes in reverse

A reading that is not there (NaN) is NaN in a float, and elsewhere what SunSpec calls "not implemented": the
lowest number of a signed integer, the highest of an unsigned one ("SunSpec Information Model Specification",
version 1.9, table 1). Of bits it is 0. What is out of range becomes the nearest number that is within.
"""

import math
import struct
from collections.abc import Callable
from typing import Final, Literal

__all__ = ["BITS", "Encoding", "Order", "Space", "arrange", "layout", "raw_of", "registers_of"]

Space = Literal["coil", "discrete", "input", "holding"]
Encoding = Literal[
    "bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float16", "float32",
    "float64", "string", "bits",
]  # fmt: skip
Order = Literal["ABCD", "BADC", "CDAB", "DCBA"]

BITS: Final[tuple[Space, ...]] = ("coil", "discrete")
"""The tables of single bits."""

_LAYOUTS: Final[dict[Encoding, str]] = {
    "int8": "xb", "uint8": "xB", "int16": "h", "uint16": "H", "int32": "i", "uint32": "I", "int64": "q",
    "uint64": "Q", "float16": "e", "float32": "f", "float64": "d", "bits": "H",
}  # fmt: skip
"""Of `struct`, big-endian; a byte is the low one of its register, and the high one is 0."""

_LARGEST: Final[dict[Encoding, float]] = {
    "float16": 65504.0,
    "float32": struct.unpack(">f", b"\x7f\x7f\xff\xff")[0],
    "float64": math.inf,
}


def layout(encoding: Encoding, registers: int) -> str:
    """The format of `struct` for a value of so many registers; big-endian."""
    return f"{2 * registers}s" if encoding == "string" else _LAYOUTS[encoding]


def registers_of(encoding: Encoding) -> int:
    """How many registers a number takes; a bool takes one bit of its table."""
    return 1 if encoding == "bool" else struct.calcsize(f">{_LAYOUTS[encoding]}") // 2


def arrange(data: bytes, order: Order) -> bytes:
    """Big-endian bytes as they are on the wire, and back; whole registers."""
    if order == "DCBA":
        return data[::-1]
    registers = [data[at : at + 2] for at in range(0, len(data), 2)]
    if order == "CDAB":
        registers.reverse()
    elif order == "BADC":
        registers = [each[::-1] for each in registers]
    return b"".join(registers)


def raw_of(
    encoding: Encoding, *, scale: float = 1.0, offset: float = 0.0, width: int = 1
) -> Callable[[float], float]:
    """What makes the raw number of a reading: the r of its encoding for which scale * r + offset is nearest.

    Args:
        encoding: any but string.
        scale: not zero.
        offset: in the reading's unit.
        width: of bits, how many.
    """
    plain = (scale, offset) == (1.0, 0.0)
    if encoding in _LARGEST:
        largest = _LARGEST[encoding]

        def as_float(reading: float) -> float:
            raw = reading if plain else (reading - offset) / scale
            return raw if raw != raw else min(max(raw, -largest), largest)  # noqa: PLR0124 - NaN, and fast

        return as_float
    low, high, missing = _range_of(encoding, width)

    def as_integer(reading: float) -> int:
        raw = reading if plain else (reading - offset) / scale
        try:
            return min(max(round(raw), low), high)
        except ValueError:  # NaN
            return missing
        except OverflowError:
            return low if raw < 0 else high

    return as_integer


def _range_of(encoding: Encoding, width: int) -> tuple[int, int, int]:
    """The lowest and the highest number, and the one that says that there is none."""
    if encoding in {"bool", "bits"}:
        return 0, (1 << width) - 1, 0
    bits = int(encoding.removeprefix("u").removeprefix("int"))
    if encoding.startswith("u"):
        return 0, (1 << bits) - 1, (1 << bits) - 1
    return -(1 << bits - 1), (1 << bits - 1) - 1, -(1 << bits - 1)
