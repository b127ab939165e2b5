"""What pull consumers have in the file: like a sink each, whose records all stand aside while they are out.

A consumer NAME is the sink `pull:NAME`. What it is given is passed by its cursor and kept as if it were
refused, with the number of times it was given out: so trimming spares it, and a restart gives it out again.
Who holds what and until when is known in memory only (`dxad.pulling`): after a restart, nobody does.
"""

import sqlite3
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, NamedTuple

import msgpack
import orjson

from dxad.event import decode
from dxad.outbox import tables
from dxad.outbox.places import Places
from dxad.outbox.reading import Reading
from dxad.outbox.tables import Found
from dxad.types import Document, Record

__all__ = ["PREFIX", "Given", "Known", "Leasing", "load_consumers", "save_consumer"]

PREFIX: Final = "pull:"
"""In front of a consumer's name, where sinks have theirs."""
_SCANNED_MOST: Final = 2048
"""Records that one call looks at."""
_AT_ONCE: Final = 256
_EXPIRED: Final = "its leases ended without a word"

Sound = Callable[[sqlite3.Connection, Callable[[sqlite3.Connection], Found]], list[Record]]
Bury = Callable[[str, Record, str, int], None]


class Known(NamedTuple):
    """What the file says of a consumer."""

    name: str
    wants: Document
    silent_ns: int
    """How long it has been silent, when that was last noted."""


@dataclass(frozen=True, slots=True)
class Given:
    """A record that is given out, and for which time."""

    record: Record
    event: Document
    attempts: int


class Leasing:
    """Gives records out and takes them back; runs in the store thread."""

    def __init__(
        self,
        places: Places,
        reading: Reading,
        changes: list[Callable[[sqlite3.Connection], None]],
        *,
        sound: Sound,
        bury: Bury,
    ) -> None:
        """Change `places` and, with the next commit, the file by `changes`.

        Args:
            places: how far consumers are, among the sinks.
            reading: looks records up.
            changes: is added to.
            sound: runs a query, and puts damaged records aside.
            bury: makes a dead letter of a record.
        """
        self._places = places
        self._reading = reading
        self._changes = changes
        self._sound = sound
        self._bury = bury

    def give(
        self,
        connection: sqlite3.Connection,
        sink: str,
        limit: int,
        *,
        held: Collection[int],
        unheard: Collection[int],
        wants: Callable[[Document], bool],
        most: int,
    ) -> tuple[list[Given], int, bool]:
        """Give out what came back, the oldest first, then what is new.

        Args:
            connection: to the file.
            sink: the consumer, as a sink.
            limit: records at most.
            held: the seqs of what somebody has now.
            unheard: the seqs of what was given out last to somebody who never had it: that does not count.
            wants: whether the consumer wants an event; others are passed.
            most: how often a record is given out before it is a dead letter.

        Returns:
            What is given, how many went to the dead letters, and whether there may be more to look at.
        """
        place = self._places[sink]
        given: list[Given] = []
        buried = 0
        back = sorted(seq for seq in place.refused if seq not in held)[: limit + _AT_ONCE]
        for record in self._sound(connection, partial(self._reading.these, seqs=back)):
            attempts = place.refused.get(record.seq, 0) + (record.seq not in unheard)
            if attempts > most:
                self._bury(sink, record, _EXPIRED, attempts - 1)
                buried += 1
            elif len(given) < limit:
                given.append(self._out(sink, record, attempts))
        scanned = 0
        for lane in list(place.passed):
            while len(given) < limit and scanned < _SCANNED_MOST:
                found = self._sound(
                    connection,
                    partial(self._reading.following, lane=lane, after=place.passed[lane], limit=_AT_ONCE),
                )
                for record in found:
                    scanned += 1
                    place.passed[lane] = record.seq
                    place.waiting[lane] -= 1
                    event = _event(record)
                    if wants(event):
                        given.append(self._out(sink, record, 1))
                        if len(given) >= limit:
                            break
                if not found:
                    break
        return given, buried, scanned >= _SCANNED_MOST

    def _out(self, sink: str, record: Record, attempts: int) -> Given:
        self._places[sink].refused[record.seq] = attempts
        self._changes.append(
            partial(tables.refuse, sink=sink, seq=record.seq, attempts=attempts, reason="given out")
        )
        return Given(record, _event(record), attempts)

    def note(self, name: str, known: Known | None, made_utc: int) -> None:
        """Save what is known of a consumer with the next commit."""
        self._changes.append(partial(save_consumer, name=name, known=known, made_utc=made_utc))

    def skip(self, connection: sqlite3.Connection, sink: str) -> None:
        """Pass all that is stored by now."""
        place, newest = self._places[sink], tables.newest(connection)
        for lane in place.passed:
            place.passed[lane] = newest
            place.waiting[lane] = 0

    def settle(self, sink: str, seqs: Sequence[int]) -> None:
        """The consumer is done with these."""
        for seq in seqs:
            if self._places[sink].refused.pop(seq, None) is not None:
                self._changes.append(partial(tables.forgive, sink=sink, seq=seq))

    def give_up(self, connection: sqlite3.Connection, sink: str, seqs: Sequence[int], reason: str) -> int:
        """Make dead letters of these, which the consumer gave back too often; returns how many."""
        out = [seq for seq in seqs if seq in self._places[sink].refused]
        found = self._sound(connection, partial(self._reading.these, seqs=out))
        for record in found:
            self._bury(sink, record, reason, self._places[sink].refused.get(record.seq, 0))
        return len(found)


def load_consumers(connection: sqlite3.Connection) -> list[Known]:
    """The consumers that the file knows."""
    rows = connection.execute("SELECT name, filter, silent_ns FROM consumers ORDER BY name")
    return [Known(name, orjson.loads(wants), silent_ns) for name, wants, silent_ns in rows]


def save_consumer(connection: sqlite3.Connection, name: str, known: Known | None, made_utc: int) -> None:
    """Note what a consumer wants and how long it has been silent; None when it is no more."""
    if known is None:
        connection.execute("DELETE FROM consumers WHERE name = ?", (name,))
        return
    wants = orjson.dumps(known.wants).decode()
    connection.execute(
        "INSERT INTO consumers (name, filter, made_utc, silent_ns, crc) VALUES (?, ?, ?, ?, ?)"
        " ON CONFLICT (name) DO UPDATE SET filter = excluded.filter, silent_ns = excluded.silent_ns,"
        " crc = excluded.crc",
        (name, wants, made_utc, known.silent_ns, tables.checksum_of(name, wants, known.silent_ns)),
    )


def _event(record: Record) -> Document:
    try:
        return decode(record)
    except (ValueError, AssertionError, msgpack.UnpackException):
        return {"id": record.id, "type": "", "unreadable": record.body[:64].hex()}
