"""What the store thread does with the file: commit, read, note how far the sinks are, survive a bad disk.

Every method runs in the store thread. What a sink did (`ack`, `refuse` …) changes memory at once and the file
with the next commit: if that is lost in a power cut, the sink is offered the same records again.
"""

import logging
import sqlite3
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Final, TypeVar

from dxad.outbox import database, drops, replays, segments, tables
from dxad.outbox.boots import Boots
from dxad.outbox.disk import Disk
from dxad.outbox.drops import Drop
from dxad.outbox.inspection import Inspection, LetterWanted, Wanted
from dxad.outbox.leasing import Leasing
from dxad.outbox.limits import Limits
from dxad.outbox.places import Place, Places
from dxad.outbox.reading import Reading
from dxad.outbox.replays import Replays
from dxad.outbox.retention import Gone, Retention, Span
from dxad.outbox.segments import Bulk, Segment, Totals
from dxad.outbox.standing import Committed, Status
from dxad.outbox.tables import ROW_BYTES, Found, Letter
from dxad.runtime.clock import Clock
from dxad.types import UNKNOWN_BOOT, Boot, Lane, Record

__all__ = ["Store"]

log = logging.getLogger(__name__)

T = TypeVar("T")

_DAMAGED: Final = "damaged"
"""The reason, in the dead letters, of a record whose checksum does not fit."""


class Store:
    """The outbox's file, or a database in memory."""

    def __init__(
        self, path: Path | None, *, max_bytes: int, clock: Clock, boot: Boot, limits: Limits
    ) -> None:
        self.max_bytes = max_bytes
        """The quota, from the next commit on."""
        self.limits = limits
        """Likewise."""
        self._clock = clock
        self._disk = Disk(path, clock=clock, on_open=self._load, on_fresh=self._start_afresh)
        self._loaded = False
        self._next_seq = 1
        self._places = Places()
        self._boot = boot
        self.known_before: Boot | None = None
        """What the file knew of this boot before it was opened the first time."""
        self._boot_saved = False
        self._boots = Boots()
        self._reading = Reading(self._boots)
        self._replays = Replays(self._places, self._reading)
        self._moved: set[str] = set()  # sinks whose place is not saved yet
        self._changes: list[Callable[[sqlite3.Connection], None]] = []  # refusals, dead letters: likewise
        self._trimmed: dict[Lane, int] = {}
        self._stored: Counter[Lane] = Counter()
        self._sizes: Counter[Lane] = Counter()
        self._leasing = Leasing(
            self._places, self._reading, self._changes, sound=self._sound, bury=self._bury
        )
        self._untold: list[Drop] = []
        self._dead_letters = 0
        self._damaged = 0
        self._bytes = 0

    def status(self) -> Status:
        """Everything in numbers, from memory."""
        return Status(
            dict(self._stored),
            dict(self._sizes),
            {name: place.backlog() for name, place in self._places.items()},
            self._bytes,
            self._dead_letters,
            self._damaged,
            self._disk.set_aside,
            self._untold,
            self._boot,
        )

    def close(self) -> None:
        """Let go of the file, its log folded in."""
        self._disk.close()

    def commit(
        self,
        records: Sequence[Record],
        bulk: Bulk | None = None,
        *,
        lost: Sequence[Drop] = (),
        told: Sequence[Drop] = (),
        replacing: Collection[str] = (),
        tidy: bool = False,
    ) -> Committed:
        """Make the records durable, and what the sinks did since the last commit; open the file if need be.

        Args:
            records: are stored as rows.
            bulk: is stored as a segment.
            lost: what was dropped before it came here.
            told: of these drops, one of the records tells.
            replacing: how the ids begin of which only the newest is wanted.
            tidy: look for what is too old as well.

        Raises:
            NotConnected: the disk does not take it; everything is as it was before.
            ConfigError: the file is of a newer dxad.
        """
        with self._disk.use(reopen=True) as connection:
            noted = self._moved or self._changes or not self._boot_saved or lost
            if not (records or bulk or noted or tidy):
                return Committed()
            connection.execute("BEGIN IMMEDIATE")
            boot = self._boots.number(self._boot)
            if not self._boot_saved:
                boot = self._boots.save(connection, self._boot)
            seqs = tables.insert(connection, records, self._next_seq, boot)
            next_seq = max(self._next_seq, max(seqs, default=0) + 1)
            fresh = _fresh(records, seqs, self._next_seq)
            if bulk is not None:
                size = segments.insert(connection, bulk, next_seq, boot)
                fresh[Lane.BULK] = fresh.get(Lane.BULK, Totals(0, 0)) + Totals(len(bulk.bodies), size)
                next_seq += len(bulk.bodies)
            for change in self._changes:
                change(connection)
            for sink in self._moved:
                place = self._places.get(sink)
                tables.save_place(connection, sink, None if place is None else place.passed)
                replays.save(connection, sink, {} if place is None else place.replays)
            floors = {lane: self._places.floor(lane) for lane in Lane}
            gone = self._retain(connection, floors, fresh, replacing, tidy=tidy)
            drops.note(connection, [*lost, *gone.drops])
            drops.told(connection, told)
            if self._changes or gone.drops:
                self._dead_letters = tables.count_dead_letters(connection)
            if told or lost or gone.drops:
                self._untold = drops.load(connection)
            connection.execute("COMMIT")

            self._next_seq = next_seq
            self._boot_saved = True
            self._trimmed = floors
            self._bytes = gone.used_bytes
            for lane, each in fresh.items():
                self._stored[lane] += each.records
                self._sizes[lane] += each.bytes
            self._places.came({lane: each.records for lane, each in fresh.items()})
            self._stored.subtract(gone.records)
            self._sizes.subtract(gone.bytes)
            for lane, spans in chain(gone.spans.items(), gone.replaced.items()):
                self._places.went(lane, spans)
            self._moved.clear()
            self._changes.clear()
            self._find_oldest(connection)
        return _committed(seqs, 0 if bulk is None else next_seq - 1, fresh, gone)

    def tidy(self) -> Committed:
        """Let go of what is too old.

        Raises:
            NotConnected: the disk does not take it.
        """
        return self.commit((), tidy=True)

    def _retain(
        self,
        connection: sqlite3.Connection,
        floors: Mapping[Lane, int],
        fresh: Mapping[Lane, Totals],
        replacing: Collection[str],
        *,
        tidy: bool,
    ) -> Gone:
        retention = Retention(connection, self._boots, floors, self._boot, self._clock.now())
        for start in replacing:
            retention.replace(start)
        if not self.limits.keep_ns:
            for lane, floor in floors.items():
                if floor > self._trimmed.get(lane, 0):
                    retention.trim(lane)
        if tidy:
            retention.expire(self.limits)
        sizes = {lane: self._sizes[lane] + fresh.get(lane, Totals(0, 0)).bytes for lane in Lane}
        retention.fit(sizes, self.limits, self.max_bytes)
        return retention.gone

    @property
    def boot(self) -> Boot:
        """What is known now of the boot that the records come from."""
        return self._boot

    def note_clock(self, boot: Boot) -> None:
        """This is known now of the boot that the records come from."""
        self._boot = boot
        self._boot_saved = False
        number = self._boots.number(boot)
        if number:
            self._boots[number] = boot
        self._reading.forget()

    # -- sinks --------------------------------------------------------------------------------------------

    def subscribe(self, sink: str, lanes: frozenset[Lane]) -> None:
        """Keep for this sink what comes in these lanes, and give it all of them that is stored."""
        old = self._places.get(sink, Place({}))
        place = Place({lane: old.passed.get(lane, 0) for lane in sorted(lanes)}, refused=old.refused)
        place.replays = {lane: each for lane, each in old.replays.items() if lane in lanes}
        self._places[sink] = place
        self._moved.add(sink)
        with self._disk.use() as connection:
            self._count_waiting(connection, place)
            self._find_oldest(connection)
            self._replays.passed(connection, sink, ())

    def unsubscribe(self, sink: str) -> None:
        """The sink is no more: nothing is kept for it."""
        if self._places.pop(sink, None) is not None:
            self._moved.add(sink)
            self._trimmed.clear()

    def fetch(self, sink: str, limit: int) -> list[Record]:
        """The next records for a sink: lane by lane, in order within each."""
        records: list[Record] = []
        with self._disk.use() as connection:
            for lane, passed in self._places[sink].passed.items():
                records += self._sound(
                    connection,
                    partial(self._reading.following, lane=lane, after=passed, limit=limit - len(records)),
                )
            if not records and self._places[sink].replays:
                records = self._sound(connection, partial(self._replays.fetch, sink=sink, limit=limit))
                self._moved.add(sink)
        return records

    def refused(self, sink: str, limit: int) -> list[Record]:
        """What a sink refused and has to be offered again, the longest refused first."""
        seqs = list(islice(self._places[sink].refused, limit))
        with self._disk.use() as connection:
            return self._sound(connection, partial(self._reading.these, seqs=seqs))

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
                self._bury(sink, each, reason, attempts)
                buried += 1
            else:
                refused[each.seq] = attempts
                self._changes.append(
                    partial(tables.refuse, sink=sink, seq=each.seq, attempts=attempts, reason=reason)
                )
        self._advance(sink, records)
        return buried

    # -- looking, and offering again ----------------------------------------------------------------------

    def look(self, ask: Callable[[Inspection], T]) -> T:
        """What an inspection says of the file."""
        with self._disk.use() as connection:
            return ask(Inspection(connection))

    def pull(self, sink: str, do: Callable[[Leasing, sqlite3.Connection], T]) -> T:
        """Do something for a pull consumer; it is saved with the next commit."""
        with self._disk.use() as connection:
            done = do(self._leasing, connection)
        self._moved.add(sink)
        self._trimmed.clear()  # what was out may go now
        return done

    def replay(self, sink: str, wanted: Wanted, *, dry_run: bool) -> int:
        """Offer a sink again what it has had of the records wanted; returns how many they are."""
        with self._disk.use() as connection:
            records = self._replays.offer(connection, sink, wanted, dry_run=dry_run)
        if records and not dry_run:
            self._moved.add(sink)
        return records

    def retry_letters(self, wanted: LetterWanted) -> tuple[dict[str, int], dict[int, str]]:
        """Offer dead letters to their sinks again; durable when it returns.

        Returns:
            By sink how many, and by number why others stay.
        """
        with self._disk.use() as connection:
            connection.execute("BEGIN IMMEDIATE")
            back, stay, returned = replays.retry_letters(connection, self._places, wanted)
            connection.execute("COMMIT")
            for sink, seqs in back.items():
                self._places[sink].refused |= dict.fromkeys(seqs, 0)
            for each in returned:
                self._stored[each.lane] += 1
                self._sizes[each.lane] += len(each.body) + ROW_BYTES
            self._dead_letters = tables.count_dead_letters(connection)
        return {sink: len(seqs) for sink, seqs in back.items()}, stay

    def drop_letters(self, wanted: LetterWanted) -> int:
        """Delete dead letters for good; durable when it returns."""
        with self._disk.use() as connection:
            connection.execute("BEGIN IMMEDIATE")
            dropped = replays.drop_letters(connection, wanted)
            connection.execute("COMMIT")
            self._dead_letters -= dropped
        return dropped

    def _bury(self, sink: str, record: Record, reason: str, attempts: int) -> None:
        letter = Letter(reason, self._utc(), self._boots.number(record.boot), attempts)
        self._changes.append(partial(tables.bury, sink=sink, record=record, letter=letter))
        self._forgive(sink, record)

    def _forgive(self, sink: str, record: Record) -> None:
        if self._places[sink].refused.pop(record.seq, None) is not None:
            self._changes.append(partial(tables.forgive, sink=sink, seq=record.seq))
            self._trimmed.pop(record.lane, None)  # it was spared by earlier trims

    def _advance(self, sink: str, records: Sequence[Record]) -> None:
        place = self._places[sink]
        if place.replays:
            with self._disk.use() as connection:
                self._replays.passed(connection, sink, records)
            self._moved.add(sink)
        stretches = place.advance(records)
        if stretches:
            self._moved.add(sink)
            with self._disk.use() as connection:
                for lane, (after, through) in stretches.items():
                    place.waiting[lane] -= _count_between(connection, lane, after, through)

    def _count_waiting(self, connection: sqlite3.Connection, place: Place) -> None:
        for lane, passed in place.passed.items():
            place.waiting[lane] = _count_between(connection, lane, passed)

    def _find_oldest(self, connection: sqlite3.Connection) -> None:
        for place in self._places.values():
            times = (self._oldest_utc(connection, *each) for each in place.passed.items())
            place.oldest_utc = min((each for each in times if each is not None), default=None)

    def _oldest_utc(self, connection: sqlite3.Connection, lane: Lane, after: int) -> int | None:
        """When the first record of a lane after a seq happened, as far as its boot is known."""
        row = tables.oldest(connection, lane, after)
        if lane is Lane.BULK:
            head = segments.oldest(connection, after)
            if head is not None and (row is None or head.last < row[0]):
                row = (head.last, head.boot, head.at_ns)
        return None if row is None else self._boots.get(row[1], UNKNOWN_BOOT).offset_ns + row[2]

    def _sound(
        self, connection: sqlite3.Connection, query: Callable[[sqlite3.Connection], Found]
    ) -> list[Record]:
        """The records of a query; damaged ones go to the dead letters, and others come in their place."""
        while (found := query(connection)).damaged:
            damaged = 0
            connection.execute("BEGIN IMMEDIATE")
            for each in found.damaged:
                record = _as_record(each) if isinstance(each, Segment) else each
                count = each.count if isinstance(each, Segment) else 1
                damaged += count
                boot = each.boot if isinstance(each, Segment) else self._boots.number(each.boot)
                letter = Letter(_DAMAGED, self._utc(), boot, records=count)
                tables.bury(connection, "", record, letter)
                if isinstance(each, Segment):
                    size = segments.remove(connection, each.last)
                else:
                    tables.delete(connection, [each.seq])
                    size = len(each.body) + ROW_BYTES
                self._stored[record.lane] -= count
                self._sizes[record.lane] -= size
                self._places.went(record.lane, [Span(record.seq - count + 1, record.seq)])
            tables.delete_orphans(connection)
            connection.execute("COMMIT")
            self._dead_letters += len(found.damaged)
            self._damaged += damaged
            log.error("%d records were damaged on disk: see the dead letters", damaged)
        return found.sound

    def _utc(self) -> int:
        """As this boot is dated, whatever the wall clock has been set to."""
        return self._boot.offset_ns + self._clock.now()

    # -- the file -----------------------------------------------------------------------------------------

    @property
    def _connection(self) -> sqlite3.Connection | None:
        return self._disk.connection

    def _start_afresh(self) -> None:
        """What the file held was set aside: what was refused is not in the new one."""
        for place in self._places.values():
            place.refused.clear()
        self._changes.clear()

    def _load(self, connection: sqlite3.Connection) -> None:
        """Learn what the file holds; how far the sinks are, memory knows better once it has learnt it."""
        self._boots.load(connection)
        if not self._loaded:
            self._load_places(connection)
            self._load_boot()
            self._loaded = True
        self._reading.forget()
        self._boot_saved = False
        self._moved |= set(self._places)
        self._trimmed.clear()
        passed = (seq for each in self._places.values() for seq in each.passed.values())
        self._next_seq = max(self._next_seq, 1 + max(passed, default=0), 1 + tables.newest(connection))
        contents = {lane: Totals(*each) for lane, each in tables.totals(connection).items()}
        contents[Lane.BULK] = contents.get(Lane.BULK, Totals(0, 0)) + segments.totals(connection)
        self._stored = Counter({lane: each.records for lane, each in contents.items()})
        self._sizes = Counter({lane: each.bytes for lane, each in contents.items()})
        self._untold = drops.load(connection)
        self._dead_letters = tables.count_dead_letters(connection)
        self._bytes = database.used_bytes(connection)
        for place in self._places.values():
            self._count_waiting(connection, place)
        self._find_oldest(connection)

    def _load_boot(self) -> None:
        """An offset of an earlier run in this boot, when the clock was right, is better than a guess."""
        self.known_before = self._boots.get(self._boots.number(self._boot) or -1)
        if self.known_before is not None and self.known_before.clock_ok and not self._boot.clock_ok:
            self._boot = self.known_before

    def _load_places(self, connection: sqlite3.Connection) -> None:
        """Sinks that have declared themselves while the file was closed keep the lanes they declared."""
        declared = set(self._places) | self._moved
        for sink, lane, seq in tables.places(connection):
            if sink not in declared:
                self._places.setdefault(sink, Place({})).passed[lane] = seq
            elif sink in self._places and lane in self._places[sink].passed:
                self._places[sink].passed[lane] = seq
        replays.load(connection, self._places)
        for sink, seq, attempts in tables.refusals(connection):
            if sink in self._places:
                self._places[sink].refused[seq] = attempts


def _count_between(connection: sqlite3.Connection, lane: Lane, after: int, through: int | None = None) -> int:
    count = tables.count_between(connection, lane, after, through)
    return count + segments.count_between(connection, after, through) if lane is Lane.BULK else count


def _as_record(segment: Segment) -> Record:
    """A damaged segment, as it is buried."""
    id_ = f"{segment.stream}-{segment.ordinal}"
    return Record(id_, Lane.BULK, segment.body, segment.last, at_ns=segment.at_ns)


def _fresh(records: Sequence[Record], seqs: Sequence[int], first: int) -> dict[Lane, Totals]:
    """What of these was not stored before."""
    found: dict[Lane, Totals] = {}
    for each, seq in zip(records, seqs, strict=True):
        if seq >= first:
            found[each.lane] = found.get(each.lane, Totals(0, 0)) + Totals(1, len(each.body) + ROW_BYTES)
    return found


def _committed(seqs: Sequence[int], bulk_seq: int, fresh: Mapping[Lane, Totals], gone: Gone) -> Committed:
    spans = [span for each in gone.spans.values() for span in each]

    def left(seq: int) -> int | None:
        return None if any(each.first <= seq <= each.last for each in spans) else seq

    return Committed(
        [*map(left, seqs)] if spans else list(seqs),
        left(bulk_seq),
        {lane: each.records for lane, each in fresh.items()},
        gone.drops,
        gone.more,
    )
