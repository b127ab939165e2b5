"""How a Modbus request stands on the wire, and how its answer is found in what comes: pure bytes.

Only the four reads can be framed. Sources: Modbus Application Protocol V1.1b3, 6.1 to 6.4; Modbus Messaging
on TCP/IP V1.0b, 3.1.3; Modbus over Serial Line V1.02, 2.5.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from dxad.links.modbusurl import Address, Framed

__all__ = ["Line", "Question", "Space", "carried_s", "longer", "question", "tcp_frames", "wire_of"]

Space = Literal["coil", "discrete", "holding", "input"]

_FUNCTIONS: Final[dict[Space, int]] = {"coil": 1, "discrete": 2, "holding": 3, "input": 4}
_READS: Final = frozenset(_FUNCTIONS.values())
_LAST_OF_BITS: Final = 2
"""The functions up to it read bits."""
_REGISTERS_MOST: Final = 125
_BITS_MOST: Final = 2000
"""In one read."""
_ADDRESSES: Final = 65_536
_MBAP_MOST: Final = 254
"""Unit and PDU, bytes."""
_EXCEPTION: Final = 0x80
_BITS_A_CHARACTER: Final = 11
_BAUDRATE: Final = 9600
"""Of a line behind a serial server, at least."""
_OVERHEAD: Final = 13
"""Bytes of a request and of what stands around an answer's data."""
_HELD_MOST: Final = 4096
"""Bytes that may wait to become an answer."""


@dataclass(frozen=True, slots=True)
class Question:
    """One read."""

    unit: int
    function: int
    first: int
    count: int
    size: int
    """Bytes of data that a whole answer has."""
    pdu: bytes


def question(space: Space, first: int, count: int, *, unit: int) -> Question:
    """Ask for consecutive registers or bits."""
    return _asking(_FUNCTIONS[space], first, count, unit)


def _asking(function: int, first: int, count: int, unit: int) -> Question:
    size = -(-count // 8) if function <= _LAST_OF_BITS else 2 * count
    pdu = bytes((function, first >> 8, first & 255, count >> 8, count & 255))
    return Question(unit, function, first, count, size, pdu)


def longer(asked: Question, more: int) -> Iterator[Question]:
    """The same question, and those whose answers are longer, one after another; `more` addresses at most."""
    bits = asked.function <= _LAST_OF_BITS
    most = min(asked.count + more, _BITS_MOST if bits else _REGISTERS_MOST, _ADDRESSES - asked.first)
    for count in range(asked.count, most + 1, 8 if bits else 1):
        yield asked if count == asked.count else _asking(asked.function, asked.first, count, asked.unit)


def carried_s(address: Address, asked: Question) -> float | None:
    """How long a question and its answer take to be carried, in seconds; None where that takes no time."""
    if address.framing == "tcp":
        return None
    baudrate = address.baudrate if address.tty else _BAUDRATE
    bytes_a_byte = 2 if address.framing == "ascii" else 1
    return bytes_a_byte * (asked.size + _OVERHEAD) * _BITS_A_CHARACTER / baudrate


def _crc_table() -> tuple[int, ...]:
    table = []
    for start in range(256):
        crc = start
        for _ in range(8):
            crc = crc >> 1 ^ (0xA001 if crc & 1 else 0)
        table.append(crc)
    return tuple(table)


_CRC: Final = _crc_table()


def _crc(data: bytes | bytearray) -> bytes:
    crc = 0xFFFF
    for byte in data:
        crc = crc >> 8 ^ _CRC[(crc ^ byte) & 255]
    return crc.to_bytes(2, "little")


def wire_of(framing: Framed, asked: Question, transaction: int) -> bytes:
    """The frame of a request."""
    if framing == "tcp":
        return (
            transaction.to_bytes(2) + b"\0\0" + (len(asked.pdu) + 1).to_bytes(2)
            + bytes((asked.unit,)) + asked.pdu
        )  # fmt: skip
    data = bytes((asked.unit,)) + asked.pdu
    if framing == "rtu":
        return data + _crc(data)
    return b":" + (data + bytes((-sum(data) & 255,))).hex().upper().encode() + b"\r\n"


def tcp_frames(data: bytearray) -> Iterator[tuple[int, int, bytes]]:
    """Take the whole frames that have come: transaction, unit and PDU of each.

    What is no header lets go of all: nobody knows where the next one is.
    """
    while len(data) >= 7:
        length = data[4] << 8 | data[5]
        if data[2] or data[3] or not 2 <= length <= _MBAP_MOST:
            data.clear()
            return
        if len(data) < 6 + length:
            return
        pdu = bytes(data[7 : 6 + length])
        transaction, unit = data[0] << 8 | data[1], data[6]
        del data[: 6 + length]
        if _is_whole(pdu):
            yield transaction, unit, pdu


def _is_whole(pdu: bytes) -> bool:
    """Whether it is an exception, or as long as it says."""
    if len(pdu) < 2 or pdu[0] & 0x7F not in _READS:
        return False
    return len(pdu) == 2 if pdu[0] & _EXCEPTION else pdu[1] == len(pdu) - 2


class Line:
    """What has come over a line without transactions, and the answers in it.

    Only an answer of the same id, function and length is one. Noise in front of it, an echo of the request,
    and answers of others are skipped.
    """

    def __init__(self, framing: Framed) -> None:
        self.garbled = False
        """What began as the answer to the first question, and was as long, had a wrong checksum."""
        self._ascii = framing == "ascii"
        self._held = bytearray()

    def clear(self) -> None:
        """Forget what has come."""
        self._held.clear()
        self.garbled = False

    def add(self, data: bytes) -> None:
        """More has come."""
        self._held += data
        if len(self._held) > _HELD_MOST:
            del self._held[:-_HELD_MOST]

    def take(self, asked: Sequence[Question]) -> tuple[Question, bytes] | None:
        """The answer that came first to any of the questions, and its PDU."""
        return self._in_ascii(asked) if self._ascii else self._in_rtu(asked)

    def _in_rtu(self, asked: Sequence[Question]) -> tuple[Question, bytes] | None:
        data, found, begun, ended = self._held, None, len(self._held), 0
        echoes = [each.pdu for each in asked]
        for each in asked:
            if each.unit not in data:
                continue
            for begin, end in _places(data, each):
                if begin >= begun:
                    continue
                frame = data[begin:end]
                if frame[1:-2] in echoes or len(frame) < end - begin:
                    continue
                if frame[-2:] == _crc(frame[:-2]):
                    found, begun, ended = (each, bytes(frame[1:-2])), begin, end
                elif each is asked[0]:
                    self.garbled = True
        del data[:ended]
        return found

    def _in_ascii(self, asked: Sequence[Question]) -> tuple[Question, bytes] | None:
        data = self._held
        while (end := data.find(b"\n")) >= 0:
            line = bytes(data[:end])
            del data[: end + 1]
            written = line[line.rfind(b":") + 1 :].rstrip(b"\r")
            try:
                frame = bytes.fromhex(written.decode("ascii"))
            except ValueError:
                frame = b""
            if len(frame) < 4 or sum(frame) & 255:
                self.garbled |= bool(asked) and _starts(written, asked[0])
                continue
            for each in asked:
                pdu = frame[1:-1]
                whole = pdu[0] == each.function and pdu[1] == each.size == len(pdu) - 2
                refused = pdu[0] == each.function | _EXCEPTION and len(pdu) == 2
                if frame[0] == each.unit and pdu != each.pdu and (whole or refused):
                    return each, pdu
        return None


def _places(data: bytearray, asked: Question) -> Iterator[tuple[int, int]]:
    """Where its answer, or a refusal, may begin and end."""
    heads = (
        (bytes((asked.unit, asked.function, asked.size)), asked.size + 5),
        (bytes((asked.unit, asked.function | _EXCEPTION)), 5),
    )
    for head, length in heads:
        at = data.find(head)
        while at >= 0:
            yield at, at + length
            at = data.find(head, at + 1)


def _starts(written: bytes, asked: Question) -> bool:
    heads = (bytes((asked.unit, function)) for function in (asked.function, asked.function | _EXCEPTION))
    return written[:4].upper() in [head.hex().upper().encode() for head in heads]
