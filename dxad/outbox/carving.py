"""Rows from the pages of a damaged SQLite file, without its trees: each leaf page is read on its own.

Source: https://www.sqlite.org/fileformat2.html (b-tree pages §1.6, record format §2.1).
Whoever asks must tell by a checksum which rows are sound. Pages that the file calls free are left out, as far
as that list can be read: what stands in them was deleted.
"""

import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from dxad.outbox.frames import Log

__all__ = ["Pages", "rows"]

Value = int | float | str | bytes | None

_LEAF: Final = 0x0D
_HEADER: Final = 100
_INTEGERS: Final = {1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8}
"""By serial type, how many bytes an integer has."""
_LARGEST: Final = 2**28
"""Payloads that claim to be larger are damaged."""


class Pages:
    """The pages of a file, the newer ones from its log."""

    def __init__(self, path: Path) -> None:
        """Read from the file at `path`, and its log beside it."""
        self._data = path.read_bytes()
        size = int.from_bytes(self._data[16:18], "big")
        size = 65536 if size == 1 else size
        self.size = size if size in {512 << n for n in range(8)} else 4096
        log = Log(path.with_name(path.name + "-wal"))
        self._newer = log.pages() if log.page_size == self.size else {}
        self.damaged = log.damaged if log.damage else 0
        """How many frames of the log are damaged."""
        there = len(self._data) // self.size
        self.count = max([there, *self._newer])
        self.missing = max(0, self._said() - there - sum(each > there for each in self._newer))
        """How many pages are gone, as far as the file says how many it had; some may have held nothing."""

    def __getitem__(self, number: int) -> bytes:
        """The page of a number, from 1 on; empty if there is none."""
        if number in self._newer:
            return self._newer[number]
        return self._data[(number - 1) * self.size : number * self.size] if number > 0 else b""

    def _said(self) -> int:
        """How many pages the file had, as it says (§1.3.7 there); 0 where it does not."""
        head = self[1]
        known = len(head) >= _HEADER and head[24:28] == head[92:96]
        return int.from_bytes(head[28:32], "big") if known else 0

    def free(self) -> set[int]:
        """The pages that hold nothing, as far as the list of them can be followed."""
        found: set[int] = set()
        trunk = int.from_bytes(self[1][32:36], "big")
        while 0 < trunk <= self.count and trunk not in found:
            found.add(trunk)
            page = self[trunk]
            length = min(int.from_bytes(page[4:8], "big"), self.size // 4 - 2)
            found.update(struct.unpack_from(f">{length}I", page, 8))
            trunk = int.from_bytes(page[:4], "big")
        return found


def rows(pages: Pages) -> Iterator[tuple[int, Sequence[Value]]]:
    """Row id and values of all rows on leaf pages of tables that look like rows, of each table in order."""
    free = pages.free()
    leaves: list[tuple[int, int]] = []
    for number in range(1, pages.count + 1):
        if number not in free:
            first = next(_cells(pages, number), None)
            leaves += [] if first is None else [(_rowid(pages[number], first), number)]
    for _, number in sorted(leaves):
        for at in _cells(pages, number):
            try:
                yield _row(pages, pages[number], at)
            except (IndexError, ValueError, struct.error):
                continue


def _cells(pages: Pages, number: int) -> Iterator[int]:
    """Where on a page rows begin, if it is a leaf of a table."""
    page = pages[number]
    start = _HEADER if number == 1 else 0
    if len(page) < pages.size or page[start] != _LEAF:
        return
    cells = int.from_bytes(page[start + 3 : start + 5], "big")
    for place in range(min(cells, (pages.size - start - 8) // 2)):
        yield int.from_bytes(page[start + 8 + 2 * place : start + 10 + 2 * place], "big")


def _rowid(page: bytes, at: int) -> int:
    """Of the row that begins there; 0 if there is none."""
    try:
        return _varint(page, _varint(page, at)[1])[0]
    except IndexError:
        return 0


def _row(pages: Pages, page: bytes, at: int) -> tuple[int, Sequence[Value]]:
    length, at = _varint(page, at)
    rowid, at = _varint(page, at)
    if not 0 < length < _LARGEST:
        raise ValueError("no row is so long")
    return rowid, _values(_payload(pages, page, at, length))


def _payload(pages: Pages, page: bytes, at: int, length: int) -> bytes:
    """What stands in the cell, and in the chain of pages that it goes on in."""
    size = pages.size
    most = size - 35
    if length <= most:
        return page[at : at + length]
    least = (size - 12) * 32 // 255 - 23
    local = least + (length - least) % (size - 4)
    local = local if local <= most else least
    parts = [page[at : at + local]]
    left = length - local
    following = int.from_bytes(page[at + local : at + local + 4], "big")
    while left > 0:
        overflow = pages[following]
        if len(overflow) < size:
            raise ValueError("the chain of pages is broken")
        parts.append(overflow[4 : 4 + min(left, size - 4)])
        left -= size - 4
        following = int.from_bytes(overflow[:4], "big")
    return b"".join(parts)


def _values(payload: bytes) -> Sequence[Value]:
    header, at = _varint(payload, 0)
    types: list[int] = []
    while at < header:
        kind, at = _varint(payload, at)
        types.append(kind)
    values: list[Value] = []
    for kind in types:
        if kind in _INTEGERS:
            end = at + _INTEGERS[kind]
            values.append(int.from_bytes(payload[at:end], "big", signed=True))
        elif kind in {0, 8, 9}:
            end = at
            values.append(None if kind == 0 else kind - 8)
        elif kind == 7:
            end = at + 8
            values.append(struct.unpack(">d", payload[at:end])[0])
        else:
            end = at + (kind - 12) // 2
            part = payload[at:end]
            values.append(part.decode() if kind % 2 else part)
        at = end
    if at != len(payload):
        raise ValueError("more or less than its header says")
    return values


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for place in range(9):
        byte = data[at + place]
        if place == 8:
            value = value << 8 | byte
            return value - (1 << 64) if value >= 1 << 63 else value, at + 9
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, at + place + 1
    raise ValueError("unreachable")
