"""The outbox as the event loop sees it: append and wait, fetch and acknowledge.

While the disk fails, records stay in memory and their futures wait. Sinks are served from there, so that an
alarm does get out; a record that all of them have taken is done.
"""

import asyncio
import sqlite3
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from functools import partial
from itertools import islice
from operator import attrgetter
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from dxad.errors import ConfigError, NotConnected
from dxad.outbox.commits import Commits
from dxad.outbox.inspection import Inspection, LetterWanted, Wanted
from dxad.outbox.leasing import PREFIX, Given, Known, Leasing, load_consumers
from dxad.outbox.limits import Limits
from dxad.outbox.places import Backlog
from dxad.outbox.report import Report
from dxad.outbox.rescue import Rescue
from dxad.outbox.standing import Status
from dxad.outbox.store import Store
from dxad.outbox.unsaved import Held
from dxad.runtime.clock import Clock, boot_id
from dxad.runtime.health import Health
from dxad.runtime.metrics import Metrics
from dxad.runtime.worker import Worker
from dxad.types import Boot, Document, Lane, Record

__all__ = ["Outbox"]

T = TypeVar("T")

_HOUSEKEEPING_S: Final = 1.0
"""Real time: the disk's, not the stream's."""
_NO_LIMITS: Final = Limits()
_SEQ: Final = attrgetter("seq")


class Outbox:
    """Stores records durably, hands them to sinks at their own pace, stays within its quota."""

    def __init__(
        self,
        path: Path | None,
        *,
        max_bytes: int,
        commit_window_s: float,
        health: Health,
        metrics: Metrics,
        clock: Clock,
        boot: str | None = None,
        limits: Limits = _NO_LIMITS,
        gateway: str | None = None,
    ) -> None:
        """Use the file at `path`, or memory if it is None.

        Args:
            path: the file.
            max_bytes: the quota of the whole file.
            commit_window_s: how long a record that is not critical waits for company.
            health: is told what is wrong.
            metrics: count.
            clock: dates what is appended.
            boot: the id of this boot; None for the machine's own.
            limits: what else is kept, and for how long.
            gateway: who tells of what was lost; None to keep it in numbers and conditions only.
        """
        now = clock.now()
        known = Boot(boot_id() if boot is None else boot, clock.utc(now) - now, clock_ok=False)
        self._store = Store(path, max_bytes=max_bytes, clock=clock, boot=known, limits=limits)
        self._report = Report(
            gateway, max_bytes=max_bytes, limits=limits, health=health, metrics=metrics, clock=clock
        )
        self._commits = Commits(
            self._store,
            self._report,
            window_s=commit_window_s,
            clock=clock,
            boot=known,
            tell_sinks=self._tell_sinks,
        )
        self._clock = clock
        self._rescue = Rescue(path, self._commits, self._store, self._report, tell=self._commits.append)
        self._guesses_taken = False
        self._housekeeping: asyncio.Task[None] | None = None
        self._lanes: dict[str, frozenset[Lane]] = {}  # by sink
        self._news: dict[str, asyncio.Event] = {}  # by sink
        self._closing = False
        self._watching: dict[asyncio.Event, frozenset[Lane]] = {}

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def open(self) -> None:
        """Open the file, make it, or set a damaged one aside; without a usable disk, begin degraded.

        Raises:
            ConfigError: the file is of a newer dxad.
        """
        thread = self._commits.thread = Worker("store")
        self._closing = False
        try:
            committed = await self._commits.ask(partial(self._store.commit, ()))
        except ConfigError:
            self._commits.thread = None
            thread.close()
            raise
        if committed is not None:
            self._commits.boot = self._store.boot
            self._commits.settle((), (), committed)
        self._rescue.note_opened()
        self._housekeeping = asyncio.create_task(self._keep_house(), name="outbox housekeeping")

    async def close(self) -> None:
        """Commit what is waiting, and let go of the file; safe twice.

        Records that the disk did not take are lost: their futures raise NotConnected.
        """
        thread = self._commits.thread
        if thread is None:
            return
        self._closing = True
        self._tell_sinks(frozenset(Lane))
        if self._housekeeping is not None:
            self._housekeeping.cancel()
            await asyncio.wait([self._housekeeping])
        await self._rescue.close()
        await self._commits.close()
        await thread.run(self._store.close)
        thread.close()
        self._commits.thread = None
        self._commits.lose_all()

    # -- in -----------------------------------------------------------------------------------------------

    def append(self, record: Record, *, replaces: str = "") -> asyncio.Future[int]:
        """Store a record; call it on the event loop.

        Args:
            record: its seq and its boot are given here.
            replaces: how its id begins and those of all that it makes void: of them only the newest waits
                for sinks, and that the others go is no loss.

        Returns:
            What resolves with the record's seq once it is durable: the old one, if a record of this id is
            stored already; 0, if the disk failed but every sink that carries the lane has taken it.
            It raises OutboxFull if the quota let the record go at once.
        """
        return self._commits.append(record, replaces=replaces)

    def append_bulk(
        self, bodies: Sequence[bytes], *, at_ns: Sequence[int] | None = None
    ) -> asyncio.Future[int]:
        """Store many records of the bulk lane at once; call it on the event loop.

        Each is one row's share of what it would cost alone. Their ids are made here.

        Args:
            bodies: CloudEvents in msgpack without an `id`; at least one.
            at_ns: the stream time each happened; None for now.

        Returns:
            As `append` does; the seq is the last one's.
        """
        return self._commits.append_bulk(bodies, at_ns)

    async def note_clock(self, *, offset_ns: int, clock_ok: bool) -> None:
        """The UTC time of this boot's stream times is `offset_ns` more, by what is known now.

        All records of this boot are dated anew when they are read.
        """
        self._commits.boot = Boot(self.boot.id, offset_ns, clock_ok)
        self._commits.unsaved.date(self.boot)
        await self._note(partial(self._store.note_clock, self.boot))

    @property
    def boot(self) -> Boot:
        """The boot that records are appended in."""
        return self._commits.boot

    @property
    def known_before(self) -> Boot | None:
        """What an earlier run in this boot has left in the file; None if there was none."""
        return self._store.known_before

    @property
    def guesses_taken(self) -> bool:
        """Whether anybody may have taken records of this boot while its clock was not right."""
        return self._guesses_taken or self.known_before is not None

    # -- out ----------------------------------------------------------------------------------------------

    async def subscribe(self, sink: str, lanes: frozenset[Lane]) -> None:
        """Keep for this sink what comes in these lanes; how far it is, is remembered over restarts.

        A new sink, and a lane new to it, begins with the oldest record still stored.
        """
        self._lanes[sink] = lanes
        self._news.setdefault(sink, asyncio.Event()).set()
        await self._note(partial(self._store.subscribe, sink, lanes))

    async def unsubscribe(self, sink: str) -> None:
        """Keep nothing for this sink any more."""
        self._lanes.pop(sink, None)
        self._news.pop(sink, None)
        await self._note(partial(self._store.unsubscribe, sink))

    @property
    def sinks(self) -> frozenset[str]:
        """All sinks that records are kept for, those of an earlier configuration included."""
        return frozenset(self._report.status.sinks)

    def backlog(self, sink: str) -> Backlog:
        """What this sink has before it."""
        return self._report.status.sinks.get(sink, Backlog(0, 0, None))

    async def wait(self, sink: str) -> None:
        """Wait until there may be something that the last `fetch` did not see."""
        await self._news[sink].wait()

    async def fetch(self, sink: str, limit: int) -> list[Record]:
        """The next records for a sink; the same ones again until it acks them.

        The most important lane first, in order within each. While the disk fails, those in memory follow,
        with seq 0.
        """
        self._news[sink].clear()
        records = await self._commits.ask(partial(self._store.fetch, sink, limit)) or []
        if self._commits.degraded is not None:
            records += islice(self._commits.unsaved.owed(sink, self._lanes[sink]), limit - len(records))
        return records

    async def refused(self, sink: str, limit: int) -> list[Record]:
        """What a sink refused and shall be offered again, the longest refused first."""
        return await self._commits.ask(partial(self._store.refused, sink, limit)) or []

    async def ack(self, sink: str, records: Sequence[Record]) -> None:
        """The sink has these, and with them all before them in their lanes that it did not refuse."""
        self._guesses_taken |= not self.boot.clock_ok
        if len(self._commits.unsaved):
            for each in map(self._commits.unsaved.find, records):
                if each is not None:
                    self._take(sink, each)
        await self._note(partial(self._store.ack, sink, _stored(records)))

    async def refuse(self, sink: str, records: Sequence[Record], reason: str, *, most: int) -> int:
        """The sink refused these: they stand aside for `refused`; the `most`-th time, they are dead letters.

        Like `ack` it passes all before them: ack the others of the batch as well.

        Returns:
            How many went to the dead letters.
        """
        self._put_by(sink, records)
        buried = await self._note(partial(self._store.refuse, sink, _stored(records), reason, most))
        self._report.count_dead(buried or 0, sink=sink, reason="refused")
        return buried or 0

    # -- pull consumers, see dxad.pulling -----------------------------------------------------------------

    async def consumers(self) -> list[Known]:
        """The pull consumers that the file knows.

        Raises:
            NotConnected: the disk fails; so for the following.
        """
        return await self._commits.ask_or_raise(
            partial(self._store.pull, "", lambda _, connection: load_consumers(connection))
        )

    async def note_consumer(self, name: str, known: Known | None) -> None:
        """Save what is known of a pull consumer; None when it is no more."""
        utc = self.boot.offset_ns + self._clock.now()

        def note(leasing: Leasing, _: object) -> None:
            leasing.note(name, known, utc)

        await self._commits.ask_or_raise(partial(self._store.pull, PREFIX + name, note))
        self._commits.schedule()

    async def skip(self, sink: str) -> None:
        """Give a new pull consumer nothing of what is stored by now."""
        await self._commits.ask_or_raise(
            partial(self._store.pull, sink, lambda leasing, connection: leasing.skip(connection, sink))
        )

    async def lease(
        self,
        sink: str,
        limit: int,
        *,
        held: Collection[int],
        unheard: Collection[int],
        wants: Callable[[Document], bool],
        most: int,
    ) -> tuple[list[Given], int, bool]:
        """Give out records to a pull consumer, see `Leasing.give`."""
        self._guesses_taken |= not self.boot.clock_ok
        self._news[sink].clear()

        def give(leasing: Leasing, connection: sqlite3.Connection) -> tuple[list[Given], int, bool]:
            return leasing.give(connection, sink, limit, held=held, unheard=unheard, wants=wants, most=most)

        given, buried, more = await self._commits.ask_or_raise(partial(self._store.pull, sink, give))
        self._report.count_dead(buried, sink=sink, reason="expired")
        self._commits.schedule()
        return given, buried, more

    async def settle(self, sink: str, seqs: Sequence[int]) -> None:
        """A pull consumer is done with these; durable when it returns."""
        await self._commits.ask_or_raise(
            partial(self._store.pull, sink, lambda leasing, _: leasing.settle(sink, seqs))
        )
        await self._commit()

    async def give_up(self, sink: str, seqs: Sequence[int], reason: str) -> int:
        """A pull consumer cannot do these: they are dead letters; returns how many."""

        def do(leasing: Leasing, connection: sqlite3.Connection) -> int:
            return leasing.give_up(connection, sink, seqs, reason)

        buried = await self._commits.ask_or_raise(partial(self._store.pull, sink, do))
        await self._commit()
        self._report.count_dead(buried, sink=sink, reason="refused")
        return buried

    async def _commit(self) -> None:
        """Have it on disk.

        Raises:
            NotConnected: it is in memory only, for as long as the disk fails.
        """
        await self._commits.commit()
        if self._commits.degraded is not None:
            raise NotConnected(self._commits.degraded)

    def wake(self, sink: str) -> None:
        """There may be something again."""
        self._tell_sink(sink)

    # -- looking, and offering again ----------------------------------------------------------------------

    async def look(self, ask: Callable[[Inspection], T]) -> T:
        """What an inspection says, in the store thread.

        Raises:
            NotConnected: the disk fails; so for the following.
        """
        return await self._commits.ask_or_raise(partial(self._store.look, ask))

    @contextmanager
    def watching(self, lanes: frozenset[Lane]) -> Iterator[asyncio.Event]:
        """What is set whenever there may be something new in these lanes, and when the outbox is closed."""
        news = asyncio.Event()
        self._watching[news] = lanes
        try:
            yield news
        finally:
            del self._watching[news]

    def held(self, lanes: AbstractSet[Lane]) -> tuple[str | None, list[Record]]:
        """Why the disk takes nothing, and what of these lanes is in memory alone therefore."""
        why, unsaved = self._commits.degraded, self._commits.unsaved
        return why, [each.record for each in unsaved if each.record.lane in lanes] if why else []

    @property
    def is_open(self) -> bool:
        """Whether it can be asked."""
        return self._commits.thread is not None and not self._closing

    @property
    def newest(self) -> int:
        """The seq that was given last; of use in `look` alone, where nothing is given meanwhile."""
        return self._store.newest

    async def replay(self, sink: str, wanted: Wanted, *, dry_run: bool = False) -> int:
        """Offer a sink again what it has had of the records wanted, after all that is new to it.

        Returns:
            How many they are, those between them included.
        """
        records = await self._commits.ask_or_raise(partial(self._store.replay, sink, wanted, dry_run=dry_run))
        if records and not dry_run:
            await self._commits.commit()
            self._tell_sink(sink)
        return records

    async def retry_letters(self, wanted: LetterWanted) -> tuple[int, dict[int, str]]:
        """Offer dead letters to their sinks again, as if they had never refused them.

        Returns:
            How many, and by number why others stay.
        """
        back, stay = await self._commits.ask_or_raise(partial(self._store.retry_letters, wanted))
        for sink in back:
            self._tell_sink(sink)
        return sum(back.values()), stay

    async def drop_letters(self, wanted: LetterWanted) -> int:
        """Delete dead letters for good; returns how many."""
        return await self._commits.ask_or_raise(partial(self._store.drop_letters, wanted))

    # -- numbers ------------------------------------------------------------------------------------------

    @property
    def busy_s(self) -> float:
        """For how long the store thread has been at what it does now: a disk may hang."""
        return 0.0 if self._commits.thread is None else self._commits.thread.busy_s

    def snapshot(self) -> dict[str, Any]:
        """The state as a JSON object."""
        return {
            **self._report.snapshot(),
            "in_memory": len(self._commits.unsaved),
            "degraded": self._commits.degraded,
        }

    def adjust(self, *, max_bytes: int, commit_window_s: float, limits: Limits = _NO_LIMITS) -> None:
        """From the next commit on, other limits and another patience."""
        self._store.max_bytes = max_bytes
        self._store.limits = limits
        self._report.limits = limits
        self._report.max_bytes = max_bytes
        self._commits.window_s = commit_window_s

    # -- inside -------------------------------------------------------------------------------------------

    def _tell_sink(self, sink: str) -> None:
        if sink in self._news:
            self._news[sink].set()

    def _tell_sinks(self, lanes: AbstractSet[Lane]) -> None:
        for sink, carried in self._lanes.items():
            if carried & lanes:
                self._news[sink].set()
        for news, watched in self._watching.items():
            if watched & lanes:
                news.set()

    def _take(self, sink: str, held: Held) -> None:
        """A sink has had this from memory; once all have, it needs no disk."""
        held.taken_by |= {sink}
        carriers = {name for name, lanes in self._lanes.items() if held.record.lane in lanes}
        if carriers <= held.taken_by:
            self._commits.forget(held)

    def _put_by(self, sink: str, records: Iterable[Record]) -> None:
        """A sink refused these; what is in memory only, it will be offered when it is on disk."""
        for each in map(self._commits.unsaved.find, records):
            if each is not None:
                each.refused_by |= {sink}

    async def _keep_house(self) -> None:
        """Let go of what is too old, and tell of what was lost."""
        while True:
            await asyncio.sleep(_HOUSEKEEPING_S)
            if self._commits.degraded is None:
                await self._tidy()
            self._rescue.look()
            if not self._commits.is_telling:
                telling = self._report.telling()
                if telling is not None:
                    self._commits.tell(*telling)

    async def _tidy(self) -> None:
        while True:
            done = await self._commits.ask(self._store.tidy)
            if done is not None:
                self._report.count_lost(done.dropped)
            if done is None or not done.more:
                return

    async def _note(self, ask: Callable[[], T]) -> T | None:
        """Tell the store what a sink did; it is saved with the next commit."""
        answer = await self._commits.ask(ask)
        self._commits.schedule()
        return answer

    async def _in_thread(self, ask: Callable[[], T]) -> tuple[T, Status]:
        return await self._commits.in_thread(ask)


def _stored(records: Sequence[Record]) -> Sequence[Record]:
    """Those that are on disk."""
    return records if all(map(_SEQ, records)) else [each for each in records if each.seq]
