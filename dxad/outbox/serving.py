"""What the sinks get and what they did with it: memory changes at once, the file with the next commit.

If that is lost in a power cut, the sink is offered the same records again.
"""

import logging
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import chain, islice
from typing import Final, TypeVar

from dxad.outbox import replays, segments, tables
from dxad.outbox.boots import Boots
from dxad.outbox.contents import Contents
from dxad.outbox.inspection import LetterWanted, Wanted
from dxad.outbox.leasing import Leasing
from dxad.outbox.places import Place, Places
from dxad.outbox.reading import Reading
from dxad.outbox.replays import Replays
from dxad.outbox.retention import Gone, Span
from dxad.outbox.segments import Segment, Totals
from dxad.outbox.tables import Found, Letter
from dxad.types import UNKNOWN_BOOT, Lane, Record

__all__ = ["Serving"]

log = logging.getLogger(__name__)

T = TypeVar("T")

_DAMAGED: Final = "damaged"
"""The reason, in the dead letters, of a record whose checksum does not fit."""
_LANES: Final = tuple(Lane)
_OLDEST_NS: Final = 250_000_000
"""While much moves, the age of the oldest is looked up no more often."""


class Serving:
    """Knows how far each sink is; each method but the plain ones is given the connection to the file."""

    def __init__(self, boots: Boots, contents: Contents, now_utc: Callable[[], int]) -> None:
        """Serve what `contents` counts.

        Args:
            boots: date the records.
            contents: is told what turned out to be damaged.
            now_utc: the wall time.
        """
        self.places = Places()
        self.reading = Reading(boots)
        self.damaged = 0
        """How many records this run found damaged."""
        self.changes: list[Callable[[sqlite3.Connection], None]] = []
        """What the next commit has to do besides: refusals, dead letters."""
        self._boots = boots
        self._contents = contents
        self._now_utc = now_utc
        self._replays = Replays(self.places, self.reading)
        self._leasing = Leasing(self.places, self.reading, self.changes, sound=self.sound, bury=self._bury)
        self._moved: set[str] = set()  # sinks whose place is not saved yet
        self._trimmed: dict[Lane, int] = {}
        self._floors: dict[Lane, int] = {}
        self._written: dict[str, dict[Lane, int]] = {}
        """By sink that is offered nothing once more, how far it is by the file."""
        self._loaded = False
        self._oldest_at = 0

    # -- sinks --------------------------------------------------------------------------------------------

    def declare(self, sink: str, lanes: frozenset[Lane]) -> None:
        """Keep for this sink what comes in these lanes, and give it all of them that is stored."""
        old = self.places.get(sink, Place({}))
        passed = {lane: old.passed.get(lane, 0) for lane in sorted(lanes)}
        place = Place(passed, refused=old.refused)
        place.replays = {lane: each for lane, each in old.replays.items() if lane in lanes}
        self.places[sink] = place
        self._moved.add(sink)

    def count(self, connection: sqlite3.Connection, sink: str) -> None:
        """Learn how much a sink that has declared itself has before it."""
        self._count_waiting(connection, self.places[sink])
        self._find_oldest(connection, self.places[sink])
        self._replays.passed(connection, sink, ())

    def drop(self, sink: str) -> None:
        """The sink is no more: nothing is kept for it."""
        if self.places.pop(sink, None) is not None:
            self._moved.add(sink)
            self._trimmed.clear()

    def fetch(self, connection: sqlite3.Connection, sink: str, limit: int) -> list[Record]:
        """The next records for a sink: lane by lane, in order within each."""
        place = self.places[sink]
        records: list[Record] = []
        for lane, passed in place.passed.items():
            found = self.sound(
                connection,
                partial(self.reading.following, lane=lane, after=passed, limit=limit - len(records)),
            )
            if found:
                place.offered[lane] = (passed, found[-1].seq, len(found))
                records += found
        if not records and place.replays:
            records = self.sound(connection, partial(self._replays.fetch, sink=sink, limit=limit))
            self._moved.add(sink)
        return records

    def refused(self, connection: sqlite3.Connection, sink: str, limit: int) -> list[Record]:
        """What a sink refused and has to be offered again, the longest refused first."""
        seqs = list(islice(self.places[sink].refused, limit))
        return self.sound(connection, partial(self.reading.these, seqs=seqs))

    def ack(self, connection: sqlite3.Connection, sink: str, records: Sequence[Record]) -> None:
        """The sink has these, and with them all before them in their lanes that it did not refuse."""
        if self.places[sink].refused:
            for each in records:
                self._forgive(sink, each)
        self._advance(connection, sink, records)

    def refuse(
        self, connection: sqlite3.Connection, sink: str, records: Sequence[Record], reason: str, most: int
    ) -> int:
        """The sink refused these: put them by, or bury those that it refused for the `most`-th time.

        Returns:
            How many went to the dead letters.
        """
        refused = self.places[sink].refused
        buried = 0
        for each in records:
            attempts = refused.get(each.seq, 0) + 1
            if attempts >= most:
                self._bury(sink, each, reason, attempts)
                buried += 1
            else:
                refused[each.seq] = attempts
                self.changes.append(
                    partial(tables.refuse, sink=sink, seq=each.seq, attempts=attempts, reason=reason)
                )
        self._advance(connection, sink, records)
        return buried

    def pull(
        self, connection: sqlite3.Connection, sink: str, do: Callable[[Leasing, sqlite3.Connection], T]
    ) -> T:
        """Do something for a pull consumer."""
        done = do(self._leasing, connection)
        self._moved.add(sink)
        self._trimmed.clear()  # what was out may go now
        return done

    def replay(self, connection: sqlite3.Connection, sink: str, wanted: Wanted, *, dry_run: bool) -> int:
        """Offer a sink again what it has had of the records wanted; returns how many they are."""
        records = self._replays.offer(connection, sink, wanted, dry_run=dry_run)
        if records and not dry_run:
            self._moved.add(sink)
        return records

    def retry_letters(
        self, connection: sqlite3.Connection, wanted: LetterWanted
    ) -> tuple[dict[str, int], dict[int, str]]:
        """Offer dead letters to their sinks again; durable when it returns.

        Returns:
            By sink how many, and by number why others stay.
        """
        connection.execute("BEGIN IMMEDIATE")
        back, stay, returned = replays.retry_letters(connection, self.places, wanted)
        connection.execute("COMMIT")
        for sink, seqs in back.items():
            self.places[sink].refused |= dict.fromkeys(seqs, 0)
        for each in returned:
            self._contents.came({each.lane: Totals(1, len(each.body) + tables.ROW_BYTES)})
        self._contents.dead_letters = tables.count_dead_letters(connection)
        return {sink: len(seqs) for sink, seqs in back.items()}, stay

    def _bury(self, sink: str, record: Record, reason: str, attempts: int) -> None:
        letter = Letter(reason, self._now_utc(), self._boots.number(record.boot), attempts)
        self.changes.append(partial(tables.bury, sink=sink, record=record, letter=letter))
        self._forgive(sink, record)

    def _forgive(self, sink: str, record: Record) -> None:
        if self.places[sink].refused.pop(record.seq, None) is not None:
            self.changes.append(partial(tables.forgive, sink=sink, seq=record.seq))
            self._trimmed.pop(record.lane, None)  # it was spared by earlier trims

    def _advance(self, connection: sqlite3.Connection, sink: str, records: Sequence[Record]) -> None:
        place = self.places[sink]
        if place.replays:
            self._replays.passed(connection, sink, records)
            self._moved.add(sink)
        for lane, (after, through) in place.advance(records).items():
            self._moved.add(sink)
            offered_after, offered_through, n = place.offered.get(lane, (0, 0, 0))
            if (offered_after, offered_through) != (after, through):
                n = _count_between(connection, lane, after, through)
            place.waiting[lane] -= n

    # -- the commit ---------------------------------------------------------------------------------------

    @property
    def has_news(self) -> bool:
        """Whether there is something to be saved."""
        return bool(self._moved or self.changes)

    def save(self, connection: sqlite3.Connection) -> None:
        """Write down what the sinks did."""
        for change in self.changes:
            change(connection)
        for sink in self._moved:
            place = self.places.get(sink)
            written = self._written.get(sink)
            if place is None or written is None or place.replays or written.keys() != place.passed.keys():
                tables.save_place(connection, sink, None if place is None else place.passed)
                replays.save(connection, sink, {} if place is None else place.replays)
            else:
                moved = {lane: seq for lane, seq in place.passed.items() if seq != written[lane]}
                tables.move_place(connection, sink, moved)

    def delivered(self) -> Mapping[Lane, int]:
        """By lane, the seq up to which every sink is done."""
        if self._moved or not self._floors:
            self._floors = {lane: self.places.floor(lane) for lane in _LANES}
        return self._floors

    def to_trim(self, floors: Mapping[Lane, int]) -> list[Lane]:
        """The lanes that have something delivered that was not when they were trimmed last."""
        if floors == self._trimmed:
            return []
        return [lane for lane, floor in floors.items() if floor > self._trimmed.get(lane, 0)]

    def saved(
        self, connection: sqlite3.Connection, floors: Mapping[Lane, int], came: Mapping[Lane, int], gone: Gone
    ) -> None:
        """The commit went through: these came, those went."""
        if floors != self._trimmed:
            self._trimmed = dict(floors)
        for sink in self._moved:
            self._written.pop(sink, None)
            place = self.places.get(sink)
            if place is not None:
                place.aged = True
                if not place.replays:
                    self._written[sink] = dict(place.passed)
        self._moved.clear()
        self.changes.clear()
        self.places.came(came)
        self.went(gone)
        self._refresh(connection)

    def went(self, gone: Gone) -> None:
        """These are no more."""
        if gone.spans or gone.replaced:
            for lane, spans in chain(gone.spans.items(), gone.replaced.items()):
                self.places.went(lane, spans)

    def _refresh(self, connection: sqlite3.Connection) -> None:
        """Find out how old the oldest is for whom it may be another now, unless that was done just now."""
        now_utc = self._now_utc()
        recently = abs(now_utc - self._oldest_at) <= _OLDEST_NS
        for place in self.places.values():
            if place.oldest_utc is None or place.aged:
                waiting = sum(place.waiting.values())
                if not waiting:
                    place.oldest_utc, place.aged = None, False
                elif waiting == 1 or place.oldest_utc is None or not recently:
                    self._oldest_at = now_utc
                    self._find_oldest(connection, place)

    def redate(self) -> None:
        """What is known of this boot's clock is something else now."""
        self.reading.forget()
        for place in self.places.values():
            place.aged = True

    # -- the file -----------------------------------------------------------------------------------------

    def start_afresh(self) -> None:
        """What the file held was set aside: what was refused is not in the new one."""
        for place in self.places.values():
            place.refused.clear()
        self.changes.clear()

    def load(self, connection: sqlite3.Connection) -> int:
        """Learn what the file holds; how far the sinks are, memory knows better once it has learnt it.

        Returns:
            The highest seq that any sink has passed.
        """
        if not self._loaded:
            self._load_places(connection)
            self._loaded = True
        self.reading.forget()
        self._moved |= set(self.places)
        self._written.clear()
        self._trimmed.clear()
        for place in self.places.values():
            place.offered.clear()
            self._count_waiting(connection, place)
            self._find_oldest(connection, place)
        return max((seq for each in self.places.values() for seq in each.passed.values()), default=0)

    def _load_places(self, connection: sqlite3.Connection) -> None:
        """Sinks that have declared themselves while the file was closed keep the lanes they declared."""
        declared = set(self.places) | self._moved
        for sink, lane, seq in tables.places(connection):
            if sink not in declared:
                self.places.setdefault(sink, Place({})).passed[lane] = seq
            elif sink in self.places and lane in self.places[sink].passed:
                self.places[sink].passed[lane] = seq
        replays.load(connection, self.places)
        for sink, seq, attempts in tables.refusals(connection):
            if sink in self.places:
                self.places[sink].refused[seq] = attempts

    def _count_waiting(self, connection: sqlite3.Connection, place: Place) -> None:
        for lane, passed in place.passed.items():
            place.waiting[lane] = _count_between(connection, lane, passed)

    def _find_oldest(self, connection: sqlite3.Connection, place: Place) -> None:
        times = (self._oldest_utc(connection, *each) for each in place.passed.items())
        place.oldest_utc = min((each for each in times if each is not None), default=None)
        place.aged = False

    def _oldest_utc(self, connection: sqlite3.Connection, lane: Lane, after: int) -> int | None:
        """When the first record of a lane after a seq happened, as far as its boot is known."""
        row = tables.oldest(connection, lane, after)
        if lane is Lane.BULK:
            head = segments.oldest(connection, after)
            if head is not None and (row is None or head.last < row[0]):
                row = (head.last, head.boot, head.at_ns)
        return None if row is None else self._boots.get(row[1], UNKNOWN_BOOT).offset_ns + row[2]

    def sound(
        self, connection: sqlite3.Connection, query: Callable[[sqlite3.Connection], Found]
    ) -> list[Record]:
        """The records of a query; damaged ones go to the dead letters, and others come in their place."""
        while (found := query(connection)).damaged:
            connection.execute("BEGIN IMMEDIATE")
            gone = [self._give_up(connection, each) for each in found.damaged]
            tables.delete_orphans(connection)
            connection.execute("COMMIT")
            for lane, span, size in gone:
                self._contents.stored[lane] -= span.records
                self._contents.sizes[lane] -= size
                self.places.went(lane, [span])
            damaged = sum(span.records for _, span, _ in gone)
            self._contents.dead_letters += len(gone)
            self.damaged += damaged
            log.error("%d records were damaged on disk: see the dead letters", damaged)
        return found.sound

    def _give_up(self, connection: sqlite3.Connection, damaged: Record | Segment) -> tuple[Lane, Span, int]:
        """Move what is damaged to the dead letters; returns its lane, its seqs and its size."""
        if isinstance(damaged, Record):
            letter = Letter(_DAMAGED, self._now_utc(), self._boots.number(damaged.boot))
            tables.bury(connection, "", damaged, letter)
            tables.delete(connection, [damaged.seq])
            return damaged.lane, Span(damaged.seq, damaged.seq), len(damaged.body) + tables.ROW_BYTES
        letter = Letter(_DAMAGED, self._now_utc(), damaged.boot, records=damaged.count)
        tables.bury(connection, "", _as_record(damaged), letter)
        size = segments.remove(connection, damaged.last)
        return Lane.BULK, Span(damaged.first, damaged.last), size


def _count_between(connection: sqlite3.Connection, lane: Lane, after: int, through: int | None = None) -> int:
    count = tables.count_between(connection, lane, after, through)
    return count + segments.count_between(connection, after, through) if lane is Lane.BULK else count


def _as_record(segment: Segment) -> Record:
    """A damaged segment, as it is buried."""
    id_ = f"{segment.stream}-{segment.ordinal}"
    return Record(id_, Lane.BULK, segment.body, segment.last, at_ns=segment.at_ns)
