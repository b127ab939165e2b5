"""What the store thread does with the file: commit, keep within the quotas, read, survive a bad disk.

Every method runs in the store thread.
"""

import logging
import sqlite3
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

from dxad.errors import NotConnected
from dxad.outbox import database, drops, plausibility, remains, replays, segments, tables
from dxad.outbox.adopting import Adopting
from dxad.outbox.boots import Boots
from dxad.outbox.contents import Contents
from dxad.outbox.database import used_bytes
from dxad.outbox.disk import Disk
from dxad.outbox.drops import Drop
from dxad.outbox.inspection import Inspection, LetterWanted, Wanted
from dxad.outbox.leasing import Leasing
from dxad.outbox.limits import Limits
from dxad.outbox.retention import Gone, Retention
from dxad.outbox.segments import Bulk, Totals
from dxad.outbox.serving import Serving
from dxad.outbox.space import Space
from dxad.outbox.standing import Committed, Status
from dxad.outbox.tables import ROW_BYTES
from dxad.outbox.wear import Wear, written_bytes
from dxad.runtime.clock import Clock
from dxad.types import Boot, Lane, Record

__all__ = ["Store"]

log = logging.getLogger(__name__)

T = TypeVar("T")

_NOTHING: Final = Totals(0, 0)
_COMMIT_BYTES: Final = 12 * 2**10
"""About what a commit writes besides the records: the pages that they are in, and those of the indexes."""
_SURELY_FITS: Final = 0.7
"""The share of the quota up to which it is enough to look each second how much of the file is used."""
_ROOM_BYTES: Final = 64 * 2**10
"""What is freed besides, when the disk is full."""


class Store:
    """The outbox's file, or a database in memory."""

    def __init__(
        self, path: Path | None, *, max_bytes: int, clock: Clock, boot: Boot, limits: Limits
    ) -> None:
        self.max_bytes = max_bytes
        """The quota, from the next commit on."""
        self.limits = limits
        """Likewise."""
        self._path = path
        self._clock = clock
        self._told = 0
        """How often it has told its status."""
        self._wear = Wear()
        self._written_per_day: int | None = None
        self._adopting: Adopting | None = None
        self._next_seq = 1
        self.rewound: list[str] = []
        """Sinks that begin again, since their place was damaged on disk, and of whom nobody was told yet."""
        self._survived: dict[str, int] = {}  # seqs by ids of bulk that a commit stored and told as failed
        self._boot = boot
        self.known_before: Boot | None = None
        """What the file knew of this boot before it was opened the first time."""
        self._loaded = False
        self._boot_saved = False
        self._boots = Boots()
        self._contents = Contents()
        self._serving = Serving(self._boots, self._contents, self._utc)
        self._disk = Disk(
            path,
            clock=clock,
            on_open=self._load,
            on_fresh=self._serving.start_afresh,
            space=None if path is None else Space(path, reserve=limits.reserve_bytes, max_bytes=max_bytes),
        )

    def status(self) -> Status:
        """Everything in numbers, from memory."""
        contents = self._contents
        self._told += 1
        return Status(
            dict(contents.stored),
            dict(contents.sizes),
            {name: place.backlog() for name, place in self._serving.places.items()},
            contents.used_bytes,
            contents.dead_letters,
            self._serving.damaged,
            self._disk.set_aside,
            contents.untold,
            self._boot,
            self._disk.taken,
            self._written_per_day,
            self._told,
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
        commit = partial(self._commit, records, bulk, lost=lost, told=told, replacing=replacing, tidy=tidy)
        dropped: Sequence[Drop] | None = None
        while True:
            try:
                done = commit()
            except NotConnected as error:
                if not database.is_full(error.__cause__):
                    raise
                if self._disk.throw_out_ballast():
                    continue
                if dropped is not None or (dropped := self._make_room(records, bulk)) is None:
                    raise
            else:
                return done if not dropped else replace(done, dropped=[*dropped, *done.dropped])

    def _commit(
        self,
        records: Sequence[Record],
        bulk: Bulk | None,
        *,
        lost: Sequence[Drop],
        told: Sequence[Drop],
        replacing: Collection[str],
        tidy: bool,
        boot: int | None = None,
    ) -> Committed:
        with self._disk.use(reopen=True) as connection:
            noted = self._serving.has_news or not self._boot_saved or lost
            if not (records or bulk or noted or tidy):
                return Committed()
            connection.execute("BEGIN IMMEDIATE")
            if not self._boot_saved:
                self._boots.save(connection, self._boot)
            boot = self._boots.number(self._boot) if boot is None else boot
            next_seq = self._next_seq
            seqs, fresh = self._insert(connection, records, boot), {}
            if seqs:
                fresh = _fresh(records, seqs, next_seq)
                next_seq = max(next_seq, max(seqs) + 1)
            if bulk is not None:
                size = segments.insert(connection, bulk, next_seq, boot)
                fresh[Lane.BULK] = fresh.get(Lane.BULK, _NOTHING) + Totals(len(bulk.bodies), size)
                next_seq += len(bulk.bodies)
            self._serving.save(connection)
            floors = self._serving.delivered()
            gone = self._retain(connection, floors, fresh, replacing, tidy=tidy)
            if lost or gone.drops or told:
                drops.note(connection, [*lost, *gone.drops])
                drops.told(connection, told)
            letters = self._serving.changes or any(each.what == "dead_letter" for each in gone.drops)
            dead_letters = tables.count_dead_letters(connection) if letters else self._contents.dead_letters
            untold = drops.load(connection) if told or lost or gone.drops else self._contents.untold
            connection.execute("COMMIT")

            self._next_seq = next_seq
            self._boot_saved = True
            self._contents.came(fresh)
            self._contents.went(gone)
            self._contents.dead_letters, self._contents.untold = dead_letters, untold
            came = {lane: each.records for lane, each in fresh.items()}
            self._disk.wrote(_COMMIT_BYTES + sum(each.bytes for each in fresh.values()))
            self._serving.saved(connection, floors, came, gone)
        return _committed(seqs, 0 if bulk is None else next_seq - 1, came, gone)

    def _insert(self, connection: sqlite3.Connection, records: Sequence[Record], boot: int) -> Sequence[int]:
        """Store records as rows, but for those that are there; returns the place of each."""
        if not self._survived:
            return tables.insert(connection, records, self._next_seq, boot)
        missing = [each for each in records if each.id not in self._survived]
        seqs = iter(tables.insert(connection, missing, self._next_seq, boot))
        return [self._survived.get(each.id) or next(seqs) for each in records]

    def tidy(self) -> Committed:
        """Let go of what is too old, and use the pause for what a commit would else have to do.

        Raises:
            NotConnected: the disk does not take it.
        """
        done = self.commit((), tidy=True)
        self._disk.rest()
        written = written_bytes()
        if written is not None and self._path is not None:
            now = self._clock.now()
            self._wear.note(written - self._disk.room_bytes, now)
            self._written_per_day = self._wear.per_day(now)
        return done

    # -- after damage -------------------------------------------------------------------------------------

    def condemn(self, verdict: str) -> None:
        """The file is damaged, as a check says that took its time.

        Raises:
            NotConnected: always; the next commit begins a fresh file.
        """
        self._disk.condemn(verdict)

    def begin_rescue(self, aside: Path) -> None:
        """Take over from a damaged file what `adopt` is given."""
        with self._disk.use() as connection:
            self._adopting = Adopting(connection, aside, self._boots)

    def verdict(self, aside: Path) -> str:
        """What is wrong with a file, if this run has set it aside."""
        return self._disk.verdicts.get(aside, "")

    def clear_remains(self) -> Sequence[tuple[Path, str]]:
        """Delete damaged files that were taken over long ago; returns which, and why."""
        if self._path is None:
            return ()
        return remains.clear(
            self._path,
            keep_ns=self.limits.keep_damaged_ns,
            most_bytes=self.max_bytes,
            now_utc=self._utc(),
        )

    def adopt(self, kind: str, rows: Sequence[Sequence[Any]]) -> tuple[dict[str, int], Sequence[Drop]]:
        """Store what was read of a damaged file.

        Returns:
            How many were taken over and how many left behind, and what the quota took meanwhile.
        """
        adopting = self._adopting
        assert adopting is not None
        taken_over, delivered = 0, adopting.delivered
        dropped: list[Drop] = []
        if kind == "letters":
            with self._disk.use() as connection:
                connection.execute("BEGIN IMMEDIATE")
                adopting.letters(connection, rows)
                connection.execute("COMMIT")
                self._contents.dead_letters = tables.count_dead_letters(connection)
        for records, bulk, boot in adopting.batches(kind, rows):
            done = self._commit(records, bulk, lost=(), told=(), replacing=(), tidy=False, boot=boot)
            taken_over += sum(done.fresh.values())
            dropped += done.dropped
        return {"taken_over": taken_over, "delivered": adopting.delivered - delivered}, dropped

    def _retain(
        self,
        connection: sqlite3.Connection,
        floors: Mapping[Lane, int],
        fresh: Mapping[Lane, Totals],
        replacing: Collection[str],
        *,
        tidy: bool,
    ) -> Gone:
        limits = self.limits
        trims = [] if limits.keep_ns else self._serving.to_trim(floors)
        used = self._contents.used_bytes + sum(each.bytes for each in fresh.values())
        full = tidy or bool(self._serving.changes) or used > _SURELY_FITS * self.max_bytes
        if not (replacing or trims or full or limits.lanes):
            return Gone(used_bytes=used)
        retention = Retention(connection, self._boots, floors, self._boot, self._clock.now())
        for start in replacing:
            retention.replace(start)
        for lane in trims:
            retention.trim(lane)
        if tidy:
            retention.expire(limits)
        if limits.lanes:
            sizes = {lane: self._contents.sizes[lane] + fresh.get(lane, _NOTHING).bytes for lane in Lane}
            retention.fit_lanes(sizes, limits)
        if full:
            retention.fit(self.max_bytes)
        else:
            retention.gone.used_bytes = max(0, used - sum(retention.gone.bytes.values()))
        return retention.gone

    def _make_room(self, records: Sequence[Record], bulk: Bulk | None) -> Sequence[Drop] | None:
        """The disk is full, but not the file's quota: delete what makes room for these in the file itself.

        Returns:
            What was lost by it; None if that would not help, or they are less important than all there is.
        """
        size = sum(len(each.body) + ROW_BYTES for each in records) + sum(
            map(len, bulk.bodies if bulk else ())
        )
        needed = 2 * size + _ROOM_BYTES
        most = min((each.lane for each in records), default=Lane.BULK)
        if sum(self._contents.sizes[lane] for lane in Lane if lane >= most) < needed:
            return None
        with self._disk.use() as connection:
            connection.execute("BEGIN IMMEDIATE")
            floors = self._serving.delivered()
            retention = Retention(connection, self._boots, floors, self._boot, self._clock.now())
            retention.fit(used_bytes(connection) - needed, why="disk", most=most)
            gone = retention.gone
            drops.note(connection, gone.drops)
            untold = drops.load(connection)
            connection.execute("COMMIT")
            self._contents.went(gone)
            self._contents.untold = untold
            self._serving.went(gone)
        return gone.drops

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
        self._serving.redate()

    # -- sinks --------------------------------------------------------------------------------------------

    def subscribe(self, sink: str, lanes: frozenset[Lane]) -> None:
        """Keep for this sink what comes in these lanes, and give it all of them that is stored."""
        self._serving.declare(sink, lanes)
        with self._disk.use() as connection:
            self._serving.count(connection, sink)

    def unsubscribe(self, sink: str) -> None:
        """The sink is no more: nothing is kept for it."""
        self._serving.drop(sink)

    def fetch(self, sink: str, limit: int) -> list[Record]:
        """The next records for a sink: lane by lane, in order within each."""
        with self._disk.use() as connection:
            return self._serving.fetch(connection, sink, limit)

    def refused(self, sink: str, limit: int) -> list[Record]:
        """What a sink refused and has to be offered again, the longest refused first."""
        with self._disk.use() as connection:
            return self._serving.refused(connection, sink, limit)

    def ack(self, sink: str, records: Sequence[Record]) -> None:
        """The sink has these, and with them all before them in their lanes that it did not refuse."""
        if records:
            with self._disk.use() as connection:
                self._serving.ack(connection, sink, records)

    def refuse(self, sink: str, records: Sequence[Record], reason: str, most: int) -> int:
        """The sink refused these: put them by, or bury those that it refused for the `most`-th time.

        Returns:
            How many went to the dead letters.
        """
        if not records:
            return 0
        with self._disk.use() as connection:
            return self._serving.refuse(connection, sink, records, reason, most)

    def pull(self, sink: str, do: Callable[[Leasing, sqlite3.Connection], T]) -> T:
        """Do something for a pull consumer; it is saved with the next commit."""
        with self._disk.use() as connection:
            return self._serving.pull(connection, sink, do)

    # -- looking, and offering again ----------------------------------------------------------------------

    @property
    def newest(self) -> int:
        """The seq that was given last; 0 before any."""
        return self._next_seq - 1

    def look(self, ask: Callable[[Inspection], T]) -> T:
        """What an inspection says of the file."""
        with self._disk.use() as connection:
            return ask(Inspection(connection))

    def replay(self, sink: str, wanted: Wanted, *, dry_run: bool) -> int:
        """Offer a sink again what it has had of the records wanted; returns how many they are."""
        with self._disk.use() as connection:
            return self._serving.replay(connection, sink, wanted, dry_run=dry_run)

    def retry_letters(self, wanted: LetterWanted) -> tuple[dict[str, int], dict[int, str]]:
        """Offer dead letters to their sinks again; durable when it returns.

        Returns:
            By sink how many, and by number why others stay.
        """
        with self._disk.use() as connection:
            return self._serving.retry_letters(connection, wanted)

    def drop_letters(self, wanted: LetterWanted) -> int:
        """Delete dead letters for good; durable when it returns."""
        with self._disk.use() as connection:
            connection.execute("BEGIN IMMEDIATE")
            dropped = replays.drop_letters(connection, wanted)
            connection.execute("COMMIT")
            self._contents.dead_letters -= dropped
        return dropped

    def _utc(self) -> int:
        """As this boot is dated, whatever the wall clock has been set to."""
        return self._boot.offset_ns + self._clock.now()

    # -- the file -----------------------------------------------------------------------------------------

    @property
    def _connection(self) -> sqlite3.Connection | None:
        return self._disk.connection

    def _load(self, connection: sqlite3.Connection) -> None:
        """Learn what the file holds."""
        if untrue := plausibility.clear(connection):
            self._serving.damaged += untrue
            log.error("%d rows of the outbox could not be true, and were deleted", untrue)
        if not self._loaded:  # later on, memory knows better
            plausibility.restore(connection)
            self.rewound += plausibility.rewind(connection)
        self._boots.load(connection)
        if not self._loaded:
            self._load_boot()
            self._loaded = True
        self._boot_saved = False
        self._contents.load(connection)
        passed = self._serving.load(connection)
        self._survived = segments.ids_behind(connection, self._next_seq - 1) if self._next_seq > 1 else {}
        self._next_seq = max(self._next_seq, 1 + passed, 1 + tables.newest(connection))

    def _load_boot(self) -> None:
        """An offset of an earlier run in this boot, when the clock was right, is better than a guess."""
        self.known_before = self._boots.get(self._boots.number(self._boot) or -1)
        if self.known_before is not None and self.known_before.clock_ok and not self._boot.clock_ok:
            self._boot = self.known_before


def _fresh(records: Sequence[Record], seqs: Sequence[int], first: int) -> dict[Lane, Totals]:
    """What of these was not stored before."""
    found: dict[Lane, Totals] = {}
    for each, seq in zip(records, seqs, strict=True):
        if seq >= first:
            totals = found.get(each.lane)
            if totals is None:
                totals = found[each.lane] = Totals(0, 0)
            totals.records += 1
            totals.bytes += len(each.body) + ROW_BYTES
    return found


def _committed(seqs: Sequence[int], bulk_seq: int, came: Mapping[Lane, int], gone: Gone) -> Committed:
    if not gone.spans:
        return Committed(seqs, bulk_seq, came, gone.drops, gone.more)
    spans = [span for each in gone.spans.values() for span in each]

    def left(seq: int) -> int | None:
        return None if any(each.first <= seq <= each.last for each in spans) else seq

    return Committed([*map(left, seqs)], left(bulk_seq), came, gone.drops, gone.more)
