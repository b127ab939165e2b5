"""Requests and answers as bytes: MBAP over TCP, RTU, and ASCII.

Sources: "MODBUS Messaging on TCP/IP Implementation Guide V1.0b", 3.1.3, for MBAP; "MODBUS over Serial Line
Specification V1.02", 2.5.1 for RTU, 2.5.2 for ASCII, 6.2 for both checksums.

Each client has a framing of its own, since what it has sent so far may end in the middle of a request. Bytes
that are no request are skipped until one begins, and counted.

On a serial line a request ends with a silence, which neither a terminal nor TCP carries. So the end of an RTU
request is found by its length, which its function gives, and its checksum; that of an unknown function by its
checksum alone, where the bytes at hand end.
"""

import functools
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

__all__ = ["FRAMINGS", "Answer", "Framing", "Request", "crc", "lrc"]


@dataclass(frozen=True, slots=True)
class Request:
    """What a client asks."""

    unit: int
    pdu: bytes
    """Function code and what belongs to it; never empty."""
    wire: bytes
    """All of it, as it came."""
    transaction: int = 0
    """Of TCP framing."""


@dataclass(slots=True)
class Answer:
    """What it is to be answered, and what is wrong with that."""

    unit: int
    pdu: bytes
    transaction: int = 0
    longer: int = 0
    """By how many bytes the length in a header exceeds the truth."""
    flipped: int = 0
    """The bits of the checksum that are wrong."""


class Framing(Protocol):
    """How requests and answers stand on the wire."""

    skipped: int
    """Bytes that were no request."""
    bits_per_byte: float
    """On a serial line, with start, parity and stop."""

    def requests(self, data: bytes) -> list[Request]:
        """The requests that these further bytes complete."""

    def framed(self, answer: Answer) -> bytes:
        """An answer as bytes."""


class Mbap:
    """A header with the transaction, 0 for Modbus, the length of the rest, and the unit."""

    bits_per_byte = 8.0
    _head: Final = struct.Struct(">HHHB")
    _longest: Final = 254

    def __init__(self) -> None:
        self.skipped = 0
        self._rest = b""

    def requests(self, data: bytes) -> list[Request]:
        """The requests that these further bytes complete; after a header that is none, all is skipped."""
        data = self._rest + data if self._rest else data
        found = []
        at = 0
        while len(data) - at >= self._head.size:
            transaction, protocol, length, unit = self._head.unpack_from(data, at)
            if protocol or not 2 <= length <= self._longest:
                self.skipped += len(data) - at
                at = len(data)
                break
            end = at + 6 + length
            if end > len(data):
                break
            found.append(Request(unit, data[at + 7 : end], data[at:end], transaction))
            at = end
        self._rest = data[at:]
        return found

    def framed(self, answer: Answer) -> bytes:
        """An answer as bytes."""
        length = len(answer.pdu) + 1 + answer.longer
        return self._head.pack(answer.transaction, 0, length, answer.unit) + answer.pdu


class Rtu:
    """The unit, the PDU, and a CRC whose low byte comes first."""

    bits_per_byte = 11.0
    _shortest: Final = 4
    _longest: Final = 256
    _lengths: Final = {
        **dict.fromkeys((1, 2, 3, 4, 5, 6, 8), 8), **dict.fromkeys((7, 11, 12, 17), 4), 22: 10, 24: 6, 43: 7,
    }  # fmt: skip
    """Of a whole request, by function (Modbus Application Protocol V1.1b3, section 6)."""
    _counts: Final = {15: 6, 16: 6, 20: 2, 21: 2, 23: 10}
    """Where the number of the bytes stands that follow it, by function."""

    def __init__(self) -> None:
        self.skipped = 0
        self._rest = b""

    def requests(self, data: bytes) -> list[Request]:
        """The requests that these further bytes complete."""
        data = self._rest + data if self._rest else data
        found = []
        at = begin = 0
        while len(data) - begin >= self._shortest:
            end = self._end(data, begin)
            if end is None:
                begin += 1
                continue
            self.skipped += begin - at
            found.append(Request(data[begin], data[begin + 1 : end - 2], data[begin:end]))
            at = begin = end
        kept = max(at, len(data) - self._longest + 1)
        self.skipped += kept - at
        self._rest = data[kept:]
        return found

    def _end(self, data: bytes, begin: int) -> int | None:
        """Where the request ends that begins there, if one does and all of it is there."""
        function = data[begin + 1]
        length = self._lengths.get(function)
        if length is None:
            count = self._counts.get(function)
            if count is None:
                length = len(data) - begin
            elif begin + count >= len(data):
                return None
            else:
                length = count + 1 + data[begin + count] + 2
        end = begin + length
        if end > len(data) or length > self._longest:
            return None
        return None if crc(data[begin:end]) else end

    def framed(self, answer: Answer) -> bytes:
        """An answer as bytes."""
        data = bytes((answer.unit,)) + answer.pdu
        return data + (crc(data) ^ answer.flipped).to_bytes(2, "little")


class Ascii:
    """A colon, the unit, the PDU and an LRC in hexadecimal digits, and CR LF."""

    bits_per_byte = 10.0
    _longest: Final = 513

    def __init__(self) -> None:
        self.skipped = 0
        self._rest = b""

    def requests(self, data: bytes) -> list[Request]:
        """The requests that these further bytes complete."""
        *lines, rest = (self._rest + data).split(b"\n")
        found = []
        for line in lines:
            begin = line.rfind(b":")
            request = _of_ascii(line[begin:]) if begin >= 0 else None
            self.skipped += len(line) + 1 if request is None else begin
            if request is not None:
                found.append(request)
        self._rest = rest[-self._longest :]
        self.skipped += len(rest) - len(self._rest)
        return found

    def framed(self, answer: Answer) -> bytes:
        """An answer as bytes."""
        data = bytes((answer.unit,)) + answer.pdu
        digits = data.hex() + f"{lrc(data) ^ answer.flipped & 0xFF:02x}"
        return b":" + digits.upper().encode() + b"\r\n"


def _of_ascii(line: bytes) -> Request | None:
    """The request of a line that begins with its colon, without the LF."""
    try:
        data = bytes.fromhex(line[1:].decode("ascii"))
    except ValueError:
        return None
    if len(data) < 3 or lrc(data):
        return None
    return Request(data[0], data[1:-1], line + b"\n")


def _crc_table() -> Iterator[int]:
    """Of each byte, with the polynomial x^16 + x^15 + x^2 + 1, reflected."""
    for byte in range(256):
        value = byte
        for _ in range(8):
            value = value >> 1 ^ (0xA001 if value & 1 else 0)
        yield value


_CRC: Final = tuple(_crc_table())


@functools.lru_cache(maxsize=1024)  # requests are always the same, and answers until the next step
def crc(data: bytes) -> int:
    """The checksum of RTU; 0 for data that ends in its own, low byte first."""
    value = 0xFFFF
    table = _CRC
    for byte in data:
        value = value >> 8 ^ table[(value ^ byte) & 0xFF]
    return value


def lrc(data: bytes) -> int:
    """The checksum of ASCII; 0 for data that ends in its own."""
    return -sum(data) & 0xFF


FRAMINGS: Final[Mapping[str, type[Mbap | Rtu | Ascii]]] = {"tcp": Mbap, "rtu": Rtu, "ascii": Ascii}
