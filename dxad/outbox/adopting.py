"""What a fresh file takes over from one that was damaged; runs in the store thread.

What every sink had is left behind, by the cursors of the damaged file; all else is stored under new seqs, but
with its old id: a sink that has had it is offered it again, and knows it by that.
"""

import sqlite3
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from dxad.outbox import salvage
from dxad.outbox.boots import Boots
from dxad.outbox.segments import Bulk, Segment
from dxad.types import UNKNOWN_BOOT, Lane, Record

__all__ = ["Adopting"]


class Adopting:
    """Sorts what one damaged file says."""

    def __init__(self, connection: sqlite3.Connection, aside: Path, boots: Boots) -> None:
        """Take over from the file `aside` to the one that is open."""
        small = salvage.small(aside)
        self._floors = small.floors()
        self._refused = small.refused
        self._boots = boots
        self._bulk = set(connection.execute("SELECT stream, ordinal FROM segments"))
        self.delivered = 0
        """How many records were left behind."""

    def batches(
        self, kind: str, rows: Sequence[Sequence[Any]]
    ) -> Iterator[tuple[list[Record], Bulk | None, int]]:
        """Records or a segment to be stored, and the number of their boot."""
        if kind == "records":
            once = {each[2]: each for each in rows}  # a row may stand in an older page as well
            wanted = [each for each in once.values() if self._is_wanted(each[0], each[1])]
            self.delivered += len(once) - len(wanted)
            for boot, group in groupby(sorted(wanted, key=lambda row: (row[3], row[0])), lambda row: row[3]):
                records = [
                    Record(id_, Lane(lane), body, at_ns=at_ns) for _, lane, id_, _, at_ns, body in group
                ]
                yield records, None, self._number(boot)
        elif kind == "segments":
            for row in rows:
                segment = Segment(*row)
                if (segment.stream, segment.ordinal) in self._bulk:
                    continue
                self._bulk.add((segment.stream, segment.ordinal))
                if not self._is_wanted(segment.last, Lane.BULK) and self._refused.isdisjoint(
                    range(segment.first, segment.last)
                ):
                    self.delivered += segment.count
                    continue
                opened = segment.opened(UNKNOWN_BOOT)
                bulk = Bulk(segment.stream, segment.ordinal, list(opened.bodies), list(opened.at_ns))
                yield [], bulk, self._number(segment.boot)

    def letters(self, connection: sqlite3.Connection, rows: Sequence[Sequence[Any]]) -> None:
        """Take dead letters over; ends no transaction."""
        connection.executemany(
            f"INSERT INTO dead_letters ({salvage.LETTERS}) VALUES ({', '.join('?' * len(rows[0]))})",  # noqa: S608
            rows,
        )

    def _is_wanted(self, seq: int, lane: int) -> bool:
        return seq > self._floors.get(lane, 0) or seq in self._refused

    def _number(self, boot: int) -> int:
        return boot if boot in self._boots else 0
