"""Records from the file, whether they stand in rows or in segments."""

import sqlite3
from collections.abc import Iterable, Mapping
from heapq import merge
from itertools import islice
from operator import attrgetter
from typing import Final

from dxad.outbox import segments, tables
from dxad.outbox.segments import Opened, Segment
from dxad.outbox.tables import Found
from dxad.types import UNKNOWN_BOOT, Boot, Lane, Record

__all__ = ["Reading"]

_OPENED_MOST: Final = 4
"""Segments kept open: readers come back for the rest of one."""


class Reading:
    """Looks records up; knows the boots that date them."""

    def __init__(self, boots: Mapping[int, Boot]) -> None:
        self._boots = boots
        self._opened: dict[int, Opened] = {}  # by their last seq, the newest opened last

    def forget(self) -> None:
        """The file, or what is known of a boot, is another now."""
        self._opened.clear()

    def following(self, connection: sqlite3.Connection, lane: Lane, after: int, limit: int) -> Found:
        """The records of a lane that come after a seq, in order; less than `limit` only if there are no more.

        A damaged segment ends the search: without it, there may be more.
        """
        if limit <= 0:
            return Found([], [])
        found = tables.following(connection, self._boots, lane, after, limit)
        if lane is not Lane.BULK:
            return found
        bulk = self._in_segments(connection, after, limit, found.damaged)
        if not bulk:
            return found
        if not found.sound:
            return Found(bulk, found.damaged)
        both = merge(found.sound, bulk, key=attrgetter("seq"))
        return Found(list(islice(both, limit)), found.damaged)

    def these(self, connection: sqlite3.Connection, seqs: Iterable[int]) -> Found:
        """The records at these seqs, as far as they are still there."""
        found = Found([], [])
        for seq in seqs:
            row = tables.at(connection, self._boots, seq)
            if not row.sound and not row.damaged:
                row.sound.extend(
                    each for each in self._in_segments(connection, seq - 1, 1, row.damaged) if each.seq == seq
                )
            found.sound.extend(row.sound)
            found.damaged.extend(row.damaged)
        return found

    def _in_segments(
        self, connection: sqlite3.Connection, after: int, limit: int, damaged: list[Record | Segment]
    ) -> list[Record]:
        records: list[Record] = []
        while len(records) < limit:
            opened = self._open(connection, after + 1, damaged)
            if opened is None:
                break
            records += opened.following(after, limit - len(records))
            after = records[-1].seq
        return records

    def _open(
        self, connection: sqlite3.Connection, seq: int, damaged: list[Record | Segment]
    ) -> Opened | None:
        for opened in self._opened.values():
            if opened.first <= seq <= opened.last:
                return opened
        segment = segments.covering(connection, seq)
        if segment is None:
            return None
        if not segment.sound:
            damaged.append(segment)
            return None
        opened = segment.opened(self._boots.get(segment.boot, UNKNOWN_BOOT))
        while len(self._opened) >= _OPENED_MOST:
            del self._opened[next(iter(self._opened))]
        self._opened[opened.last] = opened
        return opened
