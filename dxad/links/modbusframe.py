"""How a Modbus request stands on the wire, and how its answer is found in what comes: pure bytes.

Only the four reads can be framed. Sources: Modbus Application Protocol V1.1b3, 6.1 to 6.4; Modbus Messaging
on TCP/IP V1.0b, 3.1.3; Modbus over Serial Line V1.02, 2.5.
"""

from dataclasses import dataclass
from typing import Final, Literal

from dxad.links.modbusurl import Framed

__all__ = ["Question", "Space", "answer_in", "question", "wire_of"]

Space = Literal["coil", "discrete", "holding", "input"]

_FUNCTIONS: Final[dict[Space, int]] = {"coil": 1, "discrete": 2, "holding": 3, "input": 4}
_READS: Final = frozenset(_FUNCTIONS.values())
_BITS: Final = ("coil", "discrete")
_MBAP_MOST: Final = 254
"""Unit and PDU, bytes."""
_EXCEPTION: Final = 0x80


@dataclass(frozen=True, slots=True)
class Question:
    """One read."""

    unit: int
    function: int
    size: int
    """Bytes of data that a whole answer has."""
    pdu: bytes


def question(space: Space, first: int, count: int, *, unit: int) -> Question:
    """Ask for consecutive registers or bits."""
    function = _FUNCTIONS[space]
    size = -(-count // 8) if space in _BITS else 2 * count
    return Question(unit, function, size, bytes((function, first >> 8, first & 255, count >> 8, count & 255)))


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


def answer_in(framing: Framed, data: bytearray, asked: Question, transaction: int) -> bytes | None:
    """The PDU that answers the question; None while it has not come. What cannot belong to it is let go of.

    RTU and ASCII have no transaction: there only an answer of the same id, function and length is one.
    """
    if framing == "tcp":
        return _in_tcp(data, asked, transaction)
    return _in_rtu(data, asked) if framing == "rtu" else _in_ascii(data, asked)


def _in_tcp(data: bytearray, asked: Question, transaction: int) -> bytes | None:
    while len(data) >= 7:
        length = data[4] << 8 | data[5]
        if data[2] or data[3] or not 2 <= length <= _MBAP_MOST:
            data.clear()  # this is no header: nobody knows where the next one is
            return None
        if len(data) < 6 + length:
            return None
        mine = (data[0] << 8 | data[1]) == transaction and data[6] == asked.unit
        pdu = bytes(data[7 : 6 + length])
        del data[: 6 + length]
        if mine and _is_whole(pdu):
            return pdu
    return None


def _is_whole(pdu: bytes) -> bool:
    """Whether it is an exception, or as long as it says."""
    if len(pdu) < 2 or pdu[0] & 0x7F not in _READS:
        return False
    return len(pdu) == 2 if pdu[0] & _EXCEPTION else pdu[1] == len(pdu) - 2


def _in_rtu(data: bytearray, asked: Question) -> bytes | None:
    """Noise in front of an answer, an echo of the request, and answers of others are skipped."""
    head = bytes((asked.unit, asked.function, asked.size))
    refused = bytes((asked.unit, asked.function | _EXCEPTION))
    for begin, end in (
        *((at, at + asked.size + 5) for at in _places(data, head)),
        *((at, at + 5) for at in _places(data, refused)),
    ):
        frame = data[begin:end]
        if len(frame) == end - begin and frame[-2:] == _crc(frame[:-2]) and frame[1:-2] != asked.pdu:
            del data[:end]
            return bytes(frame[1:-2])
    return None


def _places(data: bytearray, head: bytes) -> list[int]:
    found, at = [], data.find(head)
    while at >= 0:
        found.append(at)
        at = data.find(head, at + 1)
    return found


def _in_ascii(data: bytearray, asked: Question) -> bytes | None:
    while (end := data.find(b"\n")) >= 0:
        line = bytes(data[:end])
        del data[: end + 1]
        try:
            frame = bytes.fromhex(line[line.rfind(b":") + 1 :].decode("ascii"))
        except ValueError:
            continue
        if len(frame) < 4 or sum(frame) & 255 or frame[0] != asked.unit:
            continue
        pdu = frame[1:-1]
        whole = pdu[0] == asked.function and pdu[1] == asked.size == len(pdu) - 2
        if pdu != asked.pdu and (whole or (pdu[0] == asked.function | _EXCEPTION and len(pdu) == 2)):
            return pdu
    return None
