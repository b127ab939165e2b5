"""What a sink is offered once more: stretches of what it has had, and dead letters that get another try.

A stretch stands beside the sink's cursor, lane by lane; it is offered after all that is new. The functions
are one or a few statements each; none ends a transaction.
"""

import sqlite3
from collections.abc import Iterable, Mapping
from typing import Final

from dxad.outbox import segments, tables
from dxad.outbox.inspection import Inspection, LetterWanted, Wanted
from dxad.outbox.places import Place, Places
from dxad.outbox.reading import Reading
from dxad.outbox.retention import Span
from dxad.outbox.tables import Found
from dxad.types import Boot, Lane, Record

__all__ = ["Replays", "count", "drop_letters", "load", "retry_letters", "save"]

_COLUMNS: Final = "number, sink, seq, lane, id, boot, at_ns, records, body, reason"


class Replays:
    """What sinks are offered once more."""

    def __init__(self, places: Places, reading: Reading) -> None:
        self._places = places
        self._reading = reading

    def offer(self, connection: sqlite3.Connection, sink: str, wanted: Wanted, *, dry_run: bool) -> int:
        """Offer a sink again what it has had of the records wanted, by lane from the first to the last.

        Returns:
            How many they are.
        """
        place, inspection = self._places[sink], Inspection(connection)
        stretches = {
            lane: Span(*found)
            for lane, passed in place.passed.items()
            if lane in wanted.lanes and (found := inspection.span(wanted, lane, passed)) is not None
        }
        if not dry_run:
            for lane, stretch in stretches.items():
                old = place.replays.get(lane, stretch)
                place.replays[lane] = Span(min(old.first, stretch.first), max(old.last, stretch.last))
            self._count(connection, place)
        return count(connection, stretches.items())

    def fetch(self, connection: sqlite3.Connection, sink: str, limit: int) -> Found:
        """What a sink is offered once more; stretches in which nothing is left end."""
        place = self._places[sink]
        for lane, stretch in list(place.replays.items()):
            found = self._reading.following(connection, lane, stretch.first - 1, limit)
            records = [each for each in found.sound if each.seq <= stretch.last]
            if records or found.damaged:
                return Found(records, found.damaged)
            del place.replays[lane]
            self._count(connection, place)
        return Found([], [])

    def passed(self, connection: sqlite3.Connection, sink: str, records: Iterable[Record]) -> None:
        """A sink has these, or has refused them."""
        place = self._places[sink]
        place.advance_replays(records)
        self._count(connection, place)

    def _count(self, connection: sqlite3.Connection, place: Place) -> None:
        place.replaying = count(connection, place.replays.items())


def load(connection: sqlite3.Connection, places: Places) -> None:
    """Let the sinks know what they are yet to be offered again."""
    for sink, lane, first, last in connection.execute("SELECT sink, lane, first, last FROM replays"):
        if sink in places and Lane(lane) in places[sink].passed:
            places[sink].replays[Lane(lane)] = Span(first, last)


def save(connection: sqlite3.Connection, sink: str, stretches: Mapping[Lane, Span]) -> None:
    """Note what a sink is yet to be offered again."""
    connection.execute("DELETE FROM replays WHERE sink = ?", (sink,))
    connection.executemany(
        "INSERT INTO replays (sink, lane, first, last) VALUES (?, ?, ?, ?)",
        [(sink, lane, each.first, each.last) for lane, each in stretches.items()],
    )


def retry_letters(
    connection: sqlite3.Connection, places: Places, wanted: LetterWanted
) -> tuple[dict[str, list[int]], dict[int, str], list[Record]]:
    """Put dead letters back for their sinks, which have refused them as good as never.

    A record that has left the outbox meanwhile comes back at its old place, which all others have passed.

    Returns:
        By sink, the seqs that it is to be offered; by number, why a letter stays; and the records that have
        come back.
    """
    where, values = wanted.where
    rows = connection.execute(
        f"SELECT {_COLUMNS} FROM dead_letters WHERE {where} ORDER BY number",  # noqa: S608
        values,
    ).fetchall()
    back: dict[str, list[int]] = {}
    stay: dict[int, str] = {}
    returned: list[Record] = []
    for number, sink, seq, lane, id_, boot, at_ns, records, body, reason in rows:
        if not sink or records > 1:
            stay[number] = "it was damaged on disk: there is nothing to offer"
            continue
        if sink not in places:
            stay[number] = f"there is no sink {sink} any more"
            continue
        record = Record(id_, Lane(lane), body, seq, Boot("", 0, False), at_ns)
        place = seq
        if not _is_stored(connection, seq):
            (place,) = tables.insert(connection, [record], seq, boot)
            returned.append(record)
        tables.refuse(connection, sink, place, 0, reason)
        back.setdefault(sink, []).append(place)
        connection.execute("DELETE FROM dead_letters WHERE number = ?", (number,))
    return back, stay, returned


def drop_letters(connection: sqlite3.Connection, wanted: LetterWanted) -> int:
    """Delete dead letters for good; returns how many."""
    where, values = wanted.where
    return connection.execute(f"DELETE FROM dead_letters WHERE {where}", values).rowcount  # noqa: S608


def count(connection: sqlite3.Connection, stretches: Iterable[tuple[Lane, Span]]) -> int:
    """How many records there are in these stretches."""
    total = 0
    for lane, each in stretches:
        total += tables.count_between(connection, lane, each.first - 1, each.last)
        if lane is Lane.BULK:
            total += segments.count_between(connection, each.first - 1, each.last)
    return total


def _is_stored(connection: sqlite3.Connection, seq: int) -> bool:
    if connection.execute("SELECT 1 FROM records WHERE seq = ?", (seq,)).fetchone():
        return True
    segment = segments.covering(connection, seq)
    return segment is not None and segment.first <= seq
