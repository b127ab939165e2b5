"""Values as they stand in a message: OPC-UA's binary encoding of what comes by the thousand.

    PublishResponse ─▶ Publication ─▶ (client handle, value, status, stamp) …

asyncua makes three objects of each notification, field by field: 13 µs. Nearly all of them are a number with
a status and times, whose bytes one `unpack_from` reads; whatever else comes is left to asyncua's own reader.
Sources: OPC 10000-6, 5.2.2.17 (DataValue), 5.2.2.16 (Variant), 5.2.2.9 (NodeId), 5.2.2.15 (ExtensionObject);
OPC 10000-4, 7.26 (NotificationMessage), 7.25.2 (DataChangeNotification).
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from asyncua import ua
from asyncua.common.utils import Buffer
from asyncua.ua.object_ids import ObjectIds
from asyncua.ua.ua_binary import struct_from_binary, variant_from_binary

__all__ = ["Item", "Past", "Publication", "data_value", "history_answers", "publication", "read_answers"]

Item = tuple[int, object, int, int]
"""Client handle, value or None, status code, the device's own time in UTC ns or 0."""

_NUMBERS: Final = {
    1: "?", 2: "b", 3: "B", 4: "h", 5: "H", 6: "i", 7: "I", 8: "q", 9: "Q", 10: "f", 11: "d",
}  # fmt: skip
"""By the built-in type's number, from Boolean to Double, their letters for `struct`."""
_VALUE, _STATUS, _SOURCE, _SERVER, _SOURCE_PICO, _SERVER_PICO = 1, 2, 4, 8, 16, 32
_EPOCH: Final = 116_444_736_000_000_000
"""1970 in the 100 ns since 1601."""
_DATA_CHANGE: Final = ObjectIds.DataChangeNotification_Encoding_DefaultBinary
_STATUS_CHANGE: Final = ObjectIds.StatusChangeNotification_Encoding_DefaultBinary
_PUBLISH: Final = ObjectIds.PublishResponse_Encoding_DefaultBinary
_READ: Final = ObjectIds.ReadResponse_Encoding_DefaultBinary

_HISTORY: Final = ObjectIds.HistoryReadResponse_Encoding_DefaultBinary
_HISTORY_DATA: Final = ObjectIds.HistoryData_Encoding_DefaultBinary

_U4: Final = struct.Struct("<I")
_I4: Final = struct.Struct("<i")
_HEAD: Final = struct.Struct("<qII")
_MESSAGE: Final = struct.Struct("<?Iqi")
_RESULT: Final = struct.Struct("<Ii")
_ITEM: Final = struct.Struct("<IBB")


@cache
def _layout(mask: int, kind: int, *, handled: bool) -> tuple[struct.Struct, int, int] | None:
    """How a value of this kind stands there; and where, among what is read, its status and time are, or -1.

    None where it is no plain number.
    """
    letter = _NUMBERS.get(kind)
    if letter is None or not mask & _VALUE or mask & 0xC0:
        return None
    letters = ("<I" if handled else "<") + "BB" + letter
    at = 4 if handled else 3
    status = time = -1
    for bit, each in (
        (_STATUS, "I"), (_SOURCE, "q"), (_SOURCE_PICO, "H"), (_SERVER, "q"), (_SERVER_PICO, "H")
    ):  # fmt: skip
        if mask & bit:
            letters += each
            if bit == _STATUS:
                status = at
            elif bit == _SOURCE:
                time = at
            at += 1
    return struct.Struct(letters), status, time


@dataclass(frozen=True, slots=True)
class Publication:
    """What a server tells at once."""

    subscription: int
    sequence: int
    """Its number, to acknowledge; 0 where there is nothing to."""
    items: list[Item]
    ended: int
    """The status by which the subscription ends, or 0."""


def publication(body: Buffer) -> Publication:
    """Read a PublishResponse.

    Raises:
        UaError: the server refuses, or it is none.
        struct.error, IndexError, ValueError: it is damaged.
    """
    data = bytes(body)
    at = _header(data, _PUBLISH)
    (subscription,) = _U4.unpack_from(data, at)
    (available,) = _I4.unpack_from(data, at + 4)
    at += 8 + 4 * max(0, available)
    _, sequence, _, parts = _MESSAGE.unpack_from(data, at)
    at += _MESSAGE.size
    items: list[Item] = []
    ended = 0
    for _ in range(parts):
        kind, begin, at = _extension(data, at)
        if kind == _DATA_CHANGE:
            items += _items(data, begin)
        elif kind == _STATUS_CHANGE:
            (ended,) = _U4.unpack_from(data, begin)
    return Publication(subscription, sequence if parts > 0 else 0, items, ended)


def read_answers(body: Buffer) -> list[tuple[object, int, int]]:
    """Read a ReadResponse: value, status and time of each node that was asked for.

    Raises:
        UaError: the server refuses, or it is none.
        struct.error, IndexError, ValueError: it is damaged.
    """
    data = bytes(body)
    at = _header(data, _READ)
    (count,) = _I4.unpack_from(data, at)
    at += 4
    found = []
    for _ in range(count):
        value, status, time, at = data_value(data, at)
        found.append((value, status, time))
    return found


@dataclass(frozen=True, slots=True)
class Past:
    """What a server says of one node's past."""

    status: int
    more: bytes
    """By which the rest can be asked for; empty where there is none."""
    values: list[tuple[object, int, int]]
    """Value, status and time, the oldest first."""


def history_answers(body: Buffer) -> list[Past]:
    """Read a HistoryReadResponse (OPC 10000-4, 5.10.3; OPC 10000-11, 6.6.2).

    Raises:
        UaError: the server refuses, or it is none.
        struct.error, IndexError, ValueError: it is damaged.
    """
    data = bytes(body)
    at = _header(data, _HISTORY)
    (count,) = _I4.unpack_from(data, at)
    at += 4
    found = []
    for _ in range(count):
        status, length = _RESULT.unpack_from(data, at)
        at += 8
        more = data[at : at + max(0, length)]
        kind, begin, at = _extension(data, at + max(0, length))
        values = []
        if kind == _HISTORY_DATA and begin < at:
            (number,) = _I4.unpack_from(data, begin)
            place = begin + 4
            for _ in range(number):
                value, quality, time, place = data_value(data, place)
                values.append((value, quality, time))
        found.append(Past(status, more, values))
    return found


def _header(data: bytes, kind: int) -> int:
    """Pass over the type and the ResponseHeader (OPC 10000-4, 7.33); returns where the rest begins."""
    if data[:2] == b"\x01\x00" and data[2:4] == kind.to_bytes(2, "little"):
        _, _, result = _HEAD.unpack_from(data, 4)
        if result == 0 and data[20:28] == b"\x00\x00\x00\x00\x00\x00\x00\x00":
            return 28  # no diagnostics, an empty table of strings, no additional header
        if result == 0 and data[20:28] == b"\x00\xff\xff\xff\xff\x00\x00\x00":
            return 28
    rest = Buffer(data)
    rest.skip(_type_id_size(data))
    header = struct_from_binary(ua.ResponseHeader, rest)
    header.ServiceResult.check()
    return rest.cur_pos


def _type_id_size(data: bytes) -> int:
    return {0: 2, 1: 4, 2: 7}[data[0] & 0x3F]


def _extension(data: bytes, at: int) -> tuple[int, int, int]:
    """Type, where the body begins, and where it ends, of an ExtensionObject."""
    encoding = data[at] & 0x3F
    if encoding == 1:
        kind = data[at + 2] | data[at + 3] << 8
    elif encoding == 2:
        (kind,) = _U4.unpack_from(data, at + 3)
    else:
        kind = data[at + 1]
    at += _type_id_size(data[at : at + 1])
    if not data[at]:
        return kind, at + 1, at + 1
    (length,) = _I4.unpack_from(data, at + 1)
    begin = at + 5
    return kind, begin, begin + max(0, length)


def _items(data: bytes, at: int) -> Iterator[Item]:
    """The notifications of a DataChangeNotification."""
    (count,) = _I4.unpack_from(data, at)
    at += 4
    for _ in range(count):
        handle, mask, kind = _ITEM.unpack_from(data, at)
        found = _layout(mask, kind, handled=True)
        if found is None:
            value, status, time, at = data_value(data, at + 4)
            yield handle, value, status, time
            continue
        layout, status_at, time_at = found
        read = layout.unpack_from(data, at)
        at += layout.size
        yield (
            handle,
            read[3],
            read[status_at] if status_at > 0 else 0,
            (read[time_at] - _EPOCH) * 100 if time_at > 0 else 0,
        )


def data_value(data: bytes, at: int) -> tuple[object, int, int, int]:
    """A DataValue: value, status, time, and where it ends.

    Raises:
        UaError, struct.error, IndexError, ValueError: it is damaged.
    """
    mask = data[at]
    found = _layout(mask, data[at + 1], handled=False) if mask & _VALUE else None
    if found is not None:
        layout, status_at, time_at = found
        read = layout.unpack_from(data, at)
        return (
            read[2],
            read[status_at] if status_at > 0 else 0,
            (read[time_at] - _EPOCH) * 100 if time_at > 0 else 0,
            at + layout.size,
        )
    at += 1
    value: Any = None
    if mask & _VALUE:
        rest = Buffer(data, at)
        value = variant_from_binary(rest).Value
        at = rest.cur_pos
    status = time = 0
    if mask & _STATUS:
        (status,) = _U4.unpack_from(data, at)
        at += 4
    if mask & _SOURCE:
        (ticks,) = struct.unpack_from("<q", data, at)
        time = (ticks - _EPOCH) * 100
        at += 8
    at += 2 * bool(mask & _SOURCE_PICO) + 8 * bool(mask & _SERVER) + 2 * bool(mask & _SERVER_PICO)
    return value, status, time, at
