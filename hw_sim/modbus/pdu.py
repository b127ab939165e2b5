"""What a slave answers: request PDU in, answer PDU out (Modbus Application Protocol V1.1b3, section 6).

It is there to be read: functions 1 to 4, and those by which tools find out who is there (8, 17, 43/14). All
others, those that write above all, are an illegal function to it.
"""

import struct
from typing import Final

from hw_sim.modbus.image import Image
from hw_sim.plant import Readings

__all__ = ["EXCEPTION", "GATEWAY_TARGET", "READS", "answer", "asked", "exception"]

EXCEPTION: Final = 0x80
"""The bit of a function code that says that an exception follows."""
READS: Final = range(1, 5)
"""Coils, discrete inputs, holding registers, input registers."""
GATEWAY_TARGET: Final = 0x0B
"""What a gateway says of a slave that does not answer it."""

_ILLEGAL_FUNCTION: Final = 1
_ILLEGAL_ADDRESS: Final = 2
_ILLEGAL_VALUE: Final = 3
_MOST: Final = (2000, 2000, 125, 125)
"""Bits or registers of one request, by function from 1 (6.1 to 6.4)."""
_DIAGNOSTICS, _REPORT_SERVER_ID, _ENCAPSULATED = 8, 17, 43
_RETURN_QUERY_DATA: Final = b"\x00\x00"
_SERVER_ID: Final = b"\x01"
_RUNS: Final = b"\xff"
_IDENTIFICATION: Final = 14
_BASIC: Final = 1
_INDIVIDUAL: Final = 4
_BOTH_ACCESSES: Final = 0x81
"""The conformity level: basic identification, as a stream or object by object."""

_READ: Final = struct.Struct(">BHH")


def exception(function: int, code: int) -> bytes:
    """An exception to a request."""
    return bytes((function & 0x7F | EXCEPTION, code))


def asked(request: bytes) -> tuple[int, int, int] | None:
    """The place of the table in SPACES, the first address and the count, if it is one of the four reads."""
    if len(request) != _READ.size or request[0] not in READS:
        return None
    function, first, count = _READ.unpack(request)
    return function - 1, first, count


def answer(request: bytes, image: Image, readings: Readings, *, name: str) -> bytes:
    """The answer of a slave that is well.

    Args:
        request: function code and what belongs to it; not empty.
        image: its registers.
        readings: what they show.
        name: it is called so when it is asked who it is.
    """
    function = request[0]
    if function in READS:
        return _values(request, image, readings)
    if function == _DIAGNOSTICS and request[1:3] == _RETURN_QUERY_DATA:
        return request
    if function == _REPORT_SERVER_ID:
        told = _SERVER_ID + _RUNS + name.encode()
        return bytes((function, len(told))) + told
    if function == _ENCAPSULATED and request[1:2] == bytes((_IDENTIFICATION,)):
        return _identification(request, name)
    return exception(function, _ILLEGAL_FUNCTION)


def _values(request: bytes, image: Image, readings: Readings) -> bytes:
    """Bits or registers, after the checks in the order that the standard gives."""
    function = request[0]
    block = asked(request)
    if block is None:
        return exception(function, _ILLEGAL_VALUE)
    table, first, count = block
    if not 1 <= count <= _MOST[table]:
        return exception(function, _ILLEGAL_VALUE)
    if not image.has(table, first, count):
        return exception(function, _ILLEGAL_ADDRESS)
    data = image.read(table, first, count, readings)
    return bytes((function, len(data))) + data


def _identification(request: bytes, name: str) -> bytes:
    """Vendor, product and revision (6.21), which always fit into one answer."""
    if len(request) != 4 or request[2] not in {_BASIC, _INDIVIDUAL}:
        return exception(_ENCAPSULATED, _ILLEGAL_VALUE)
    objects = list(enumerate((b"hw_sim", name.encode(), b"1")))
    _, _, access, first = request
    if first >= len(objects):
        if access == _INDIVIDUAL:
            return exception(_ENCAPSULATED, _ILLEGAL_ADDRESS)
        first = 0  # "if the Object Id does not match any known object, the server responds as if object 0"
    told = objects[first : first + 1] if access == _INDIVIDUAL else objects[first:]
    head = bytes((_ENCAPSULATED, _IDENTIFICATION, access, _BOTH_ACCESSES, 0, 0, len(told)))
    return head + b"".join(bytes((number, len(value))) + value for number, value in told)
