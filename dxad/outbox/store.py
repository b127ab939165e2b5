"""What the store thread does with the file: commit, read, note how far the sinks are, survive a bad disk.

Every method runs in the store thread. What a sink did (`ack`, `refuse` …) changes memory at once and the file
with the next commit: if that is lost in a power cut, the sink is offered the same records again.
"""

import logging
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Final

from dxad.errors import NotConnected
from dxad.outbox import database, tables
from dxad.outbox.places import Backlog, Place, Places
from dxad.outbox.tables import Row
from dxad.runtime.clock import Clock
from dxad.types import Lane, Record

__all__ = ["Committed", "Status", "Store"]

log = logging.getLogger(__name__)

_DAMAGED: Final = "damaged"
"""The reason, in the dead letters, of a record whose checksum does not fit."""


@dataclass(frozen=True, slots=True)
class Status:
    """The store in numbers."""

    stored: Mapping[Lane, int]
    sinks: Mapping[str, Backlog]
    bytes: int
    dead_letters: int
    damaged: int
    """How many records this run found damaged."""
    set_aside: Path | None
    """Where this run put a damaged file."""


@dataclass(frozen=True, slots=True)
class Committed:
    """What a commit did."""

    seqs: Sequence[int | None] = ()
    """The place of each row; None where the quota let it go at once."""
    fresh: Mapping[Lane, int] = field(default_factory=dict)
    """How many rows were not stored before."""
    dropped: Mapping[str, int] = field(default_factory=dict)
    """What went by quota: by lane, and `dead_letter`."""


class Store:
    """The outbox's file, or a database in memory."""

    def __init__(self, path: Path | None, *, max_bytes: int, clock: Clock) -> None:
        self._path = path
        self.max_bytes = max_bytes
        """The quota, from the next commit on."""
        self._clock = clock
        self._connection: sqlite3.Connection | None = None
        self._broken = False
        self._loaded = False
        self._next_seq = 1
        self._places = Places()
        self._moved: set[str] = set()  # sinks whose place is not saved yet
        self._changes: list[Callable[[sqlite3.Connection], None]] = []  # refusals, dead letters: likewise
        self._trimmed: dict[Lane, int] = {}
        self._stored: Counter[Lane] = Counter()
        self._dead_letters = 0
        self._damaged = 0
        self._bytes = 0
        self._set_aside: Path | None = None

    def status(self) -> Status:
        """Everything in numbers, from memory."""
        return Status(
            dict(self._stored),
            {name: place.backlog() for name, place in self._places.items()},
            self._bytes,
            self._dead_letters,
            self._damaged,
            self._set_aside,
        )

    def close(self) -> None:
        """Let go of the file, its log folded in."""
        if self._connection is not None:
            with suppress(sqlite3.Error):
                self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            self._connection.close()
            self._connection = None

    def commit(self, rows: Sequence[Row]) -> Committed:
        """Make the rows durable, and what the sinks did since the last commit; open the file if need be.

        Raises:
            NotConnected: the disk does not take it; everything is as it was before.
            ConfigError: the file is of a newer dxad.
        """
        with self._file(reopen=True) as connection:
            if not (rows or self._moved or self._changes):
                return Committed()
            connection.execute("BEGIN IMMEDIATE")
            seqs = tables.insert(connection, rows, self._next_seq)
            for change in self._changes:
                change(connection)
            for sink in self._moved:
                place = self._places.get(sink)
                tables.save_place(connection, sink, None if place is None else place.passed)
            floors = {lane: self._places.floor(lane) for lane in Lane}
            trimmed = {
                lane: tables.trim(connection, lane, floor)
                for lane, floor in floors.items()
                if floor > self._trimmed.get(lane, 0)
            }
            dropped = tables.apply_quota(connection, self.max_bytes)
            if self._changes or dropped.dead_letters:
                self._dead_letters = tables.count_dead_letters(connection)
            connection.execute("COMMIT")

            fresh = Counter(
                row.record.lane for row, seq in zip(rows, seqs, strict=True) if seq >= self._next_seq
            )
            self._next_seq = max(self._next_seq, *(seq + 1 for seq in seqs)) if seqs else self._next_seq
            self._stored.update(fresh)
            self._stored.subtract(trimmed)
            self._trimmed = floors
            self._places.came(fresh)
            for lane, gone in dropped.records.items():
                self._forget(lane, gone)
            self._bytes = dropped.used_bytes
            self._moved.clear()
            self._changes.clear()
            self._find_oldest(connection)
        return _committed(seqs, fresh, dropped)

    # -- sinks --------------------------------------------------------------------------------------------

    def subscribe(self, sink: str, lanes: frozenset[Lane]) -> None:
        """Keep for this sink what comes in these lanes, and give it all of them that is stored."""
        old = self._places.get(sink, Place({}))
        place = Place({lane: old.passed.get(lane, 0) for lane in sorted(lanes)}, refused=old.refused)
        self._places[sink] = place
        self._moved.add(sink)
        with self._file() as connection:
            self._count_waiting(connection, place)
            self._find_oldest(connection)

    def unsubscribe(self, sink: str) -> None:
        """The sink is no more: nothing is kept for it."""
        if self._places.pop(sink, None) is not None:
            self._moved.add(sink)
            self._trimmed.clear()

    def fetch(self, sink: str, limit: int) -> list[Record]:
        """The next records for a sink: lane by lane, in order within each."""
        records: list[Record] = []
        with self._file() as connection:
            for lane, passed in self._places[sink].passed.items():
                records += self._sound(
                    connection,
                    partial(tables.following, lane=lane, after=passed, limit=limit - len(records)),
                )
        return records

    def refused(self, sink: str, limit: int) -> list[Record]:
        """What a sink refused and has to be offered again, the longest refused first."""
        seqs = list(islice(self._places[sink].refused, limit))
        with self._file() as connection:
            return self._sound(connection, partial(tables.these, seqs=seqs))

    def ack(self, sink: str, records: Sequence[Record]) -> None:
        """The sink has these, and with them all before them in their lanes that it did not refuse."""
        for each in records:
            self._forgive(sink, each)
        self._advance(sink, records)

    def refuse(self, sink: str, records: Sequence[Record], reason: str, most: int) -> int:
        """The sink refused these: put them by, or bury those that it refused for the `most`-th time.

        Returns:
            How many went to the dead letters.
        """
        refused = self._places[sink].refused
        buried = 0
        for each in records:
            attempts = refused.get(each.seq, 0) + 1
            if attempts >= most:
                self._bury(sink, each, reason)
                buried += 1
            else:
                refused[each.seq] = attempts
                self._changes.append(
                    partial(tables.refuse, sink=sink, seq=each.seq, attempts=attempts, reason=reason)
                )
        self._advance(sink, records)
        return buried

    def _bury(self, sink: str, record: Record, reason: str) -> None:
        now = self._clock.utc(self._clock.now())
        self._changes.append(partial(tables.bury, sink=sink, seq=record.seq, reason=reason, at_utc=now))
        self._forgive(sink, record)

    def _forgive(self, sink: str, record: Record) -> None:
        if self._places[sink].refused.pop(record.seq, None) is not None:
            self._changes.append(partial(tables.forgive, sink=sink, seq=record.seq))
            self._trimmed.pop(record.lane, None)  # it was spared by earlier trims

    def _advance(self, sink: str, records: Sequence[Record]) -> None:
        place = self._places[sink]
        stretches = place.advance(records)
        if stretches:
            self._moved.add(sink)
            with self._file() as connection:
                for lane, (after, through) in stretches.items():
                    place.waiting[lane] -= tables.count_between(connection, lane, after, through)

    def _count_waiting(self, connection: sqlite3.Connection, place: Place) -> None:
        for lane, passed in place.passed.items():
            place.waiting[lane] = tables.count_between(connection, lane, passed)

    def _find_oldest(self, connection: sqlite3.Connection) -> None:
        for place in self._places.values():
            place.oldest_utc = tables.oldest_utc(connection, place.passed)

    def _forget(self, lane: Lane, seqs: Sequence[int]) -> None:
        self._stored[lane] -= len(seqs)
        self._places.went(lane, seqs)

    def _sound(
        self, connection: sqlite3.Connection, query: Callable[[sqlite3.Connection], tables.Found]
    ) -> list[Record]:
        """The records of a query; damaged ones go to the dead letters, and others come in their place."""
        while (found := query(connection)).damaged:
            now = self._clock.utc(self._clock.now())
            connection.execute("BEGIN IMMEDIATE")
            for each in found.damaged:
                tables.bury(connection, "", each.seq, _DAMAGED, now)
            tables.delete(connection, [each.seq for each in found.damaged])
            connection.execute("COMMIT")
            for each in found.damaged:
                self._forget(each.lane, [each.seq])
            self._dead_letters += len(found.damaged)
            self._damaged += len(found.damaged)
            log.error("%d records were damaged on disk: see the dead letters", len(found.damaged))
        return found.sound

    # -- the file -----------------------------------------------------------------------------------------

    @contextmanager
    def _file(self, *, reopen: bool = False) -> Iterator[sqlite3.Connection]:
        """The open database; its errors become NotConnected, and no transaction outlives the block."""
        try:
            if self._connection is None and reopen:
                self._connection = self._open_and_load()
            if self._connection is None:
                raise NotConnected("the outbox's file is closed")
            yield self._connection
        except (sqlite3.Error, OSError) as error:
            self._broken = self._broken or database.is_damage(error)
            if not database.is_passing(error):
                self._drop_connection()
            raise NotConnected(str(error)) from error
        finally:
            if self._connection is not None and self._connection.in_transaction:
                self._connection.execute("ROLLBACK")

    def _open_and_load(self) -> sqlite3.Connection:
        with ExitStack() as undo:
            connection = self._open()
            undo.callback(connection.close)
            self._load(connection)
            undo.pop_all()
        return connection

    def _drop_connection(self) -> None:
        if self._connection is not None:
            with suppress(sqlite3.Error):
                self._connection.close()
            self._connection = None

    def _open(self) -> sqlite3.Connection:
        if self._path is None:
            return database.memory()
        if not self._broken:
            try:
                return database.open_file(self._path)
            except sqlite3.DatabaseError as error:
                if not database.is_damage(error):
                    raise
        now = datetime.fromtimestamp(self._clock.utc(self._clock.now()) / 1e9, UTC)
        self._set_aside = database.set_aside(self._path, now.strftime("%Y%m%dT%H%M%SZ"))
        self._broken = False
        log.error("%s is damaged; it was set aside as %s", self._path, self._set_aside)
        for place in self._places.values():
            place.refused.clear()
        self._changes.clear()
        return database.open_file(self._path)

    def _load(self, connection: sqlite3.Connection) -> None:
        """Learn what the file holds; how far the sinks are, memory knows better once it has learnt it."""
        if not self._loaded:
            self._load_places(connection)
            self._loaded = True
        self._moved |= set(self._places)
        self._trimmed.clear()
        passed = (seq for each in self._places.values() for seq in each.passed.values())
        self._next_seq = max(self._next_seq, 1 + max(passed, default=0), 1 + tables.newest(connection))
        self._stored = tables.count_records(connection)
        self._dead_letters = tables.count_dead_letters(connection)
        self._bytes = database.used_bytes(connection)
        for place in self._places.values():
            self._count_waiting(connection, place)
        self._find_oldest(connection)

    def _load_places(self, connection: sqlite3.Connection) -> None:
        """Sinks that have declared themselves while the file was closed keep the lanes they declared."""
        declared = set(self._places) | self._moved
        for sink, lane, seq in tables.places(connection):
            if sink not in declared:
                self._places.setdefault(sink, Place({})).passed[lane] = seq
            elif sink in self._places and lane in self._places[sink].passed:
                self._places[sink].passed[lane] = seq
        for sink, seq, attempts in tables.refusals(connection):
            if sink in self._places:
                self._places[sink].refused[seq] = attempts


def _committed(seqs: Iterable[int], fresh: Mapping[Lane, int], dropped: tables.Dropped) -> Committed:
    gone = {seq for each in dropped.records.values() for seq in each}
    lost = {lane.name.lower(): len(each) for lane, each in dropped.records.items()}
    if dropped.dead_letters:
        lost["dead_letter"] = dropped.dead_letters
    return Committed([None if seq in gone else seq for seq in seqs], fresh, lost)
