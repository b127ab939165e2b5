"""The outbox as the event loop sees it: futures, waiting, and what to do while the disk takes nothing.

Records go to the store thread in batches: within `commit_window_s` (real time: the disk's, not the stream's),
at 256 of them, or at once for a critical one; while a commit is under way the next batch gathers. A batch
costs the loop one wake-up.

While the disk fails, records stay in memory and their futures wait. Sinks are served from there, so that an
alarm does get out; a record that all of them have taken is done.
"""

import asyncio
import secrets
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from dxad.errors import ConfigError, NotConnected, OutboxFull
from dxad.outbox.limits import Limits
from dxad.outbox.places import Backlog
from dxad.outbox.report import Report
from dxad.outbox.store import Committed, Status, Store
from dxad.outbox.unsaved import Batch, Held, Unsaved
from dxad.runtime.backoff import Backoff
from dxad.runtime.clock import Clock, boot_id
from dxad.runtime.health import Health
from dxad.runtime.metrics import Metrics
from dxad.runtime.worker import Worker
from dxad.types import Boot, Lane, Record

__all__ = ["Outbox"]

T = TypeVar("T")

_ROWS_AT_ONCE: Final = 256
_HEAL_MOST_S: Final = 5.0
"""The disk is ours: nobody is spared by looking at it less often."""
_MEMORY_MAX: Final = 8 * 2**20
"""Bytes of bodies held while the disk fails; beyond it the oldest of the least important lane goes."""


_NO_LIMITS: Final = Limits()


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
        """
        now = clock.now()
        self._boot = Boot(boot_id() if boot is None else boot, clock.utc(now) - now, clock_ok=False)
        self._store = Store(path, max_bytes=max_bytes, clock=clock, boot=self._boot, limits=limits)
        self._report = Report(max_bytes=max_bytes, health=health, metrics=metrics, clock=clock)
        self._commit_window_s = commit_window_s
        self._clock = clock
        self._thread: Worker | None = None
        self._unsaved = Unsaved(secrets.token_hex(8))
        self._timer: asyncio.TimerHandle | None = None
        self._committing: asyncio.Task[tuple[Committed, Status]] | None = None
        self._commit_again = False
        self._degraded: str | None = None
        self._healing: asyncio.Task[None] | None = None
        self._lanes: dict[str, frozenset[Lane]] = {}  # by sink
        self._news: dict[str, asyncio.Event] = {}  # by sink

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
        self._thread = Worker("store")
        try:
            committed = await self._ask(partial(self._store.commit, ()))
        except ConfigError:
            self._thread.close()
            self._thread = None
            raise
        if committed is not None:
            self._settle((), (), committed)

    async def close(self) -> None:
        """Commit what is waiting, and let go of the file; safe twice.

        Records that the disk did not take are lost: their futures raise NotConnected.
        """
        if self._thread is None:
            return
        await self._commit()
        if self._healing is not None:
            self._healing.cancel()
            await asyncio.wait([self._healing])
        self._stop_timer()
        await self._thread.run(self._store.close)
        self._thread.close()
        self._thread = None
        for each in list(self._unsaved):
            self._lose(each, NotConnected(f"the outbox was closed while its disk failed: {self._degraded}"))

    # -- in -----------------------------------------------------------------------------------------------

    def append(self, record: Record) -> asyncio.Future[int]:
        """Store a record; call it on the event loop.

        Returns:
            What resolves with the record's seq once it is durable: the old one, if a record of this id is
            stored already; 0, if the disk failed but every sink that carries the lane has taken it.
            It raises OutboxFull if the quota let the record go at once.
        """
        if self._thread is None:
            raise RuntimeError("the outbox is not open")
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        at_ns = record.at_ns or self._clock.now()
        self._unsaved.add(Record(record.id, record.lane, record.body, 0, self._boot, at_ns), future)
        if self._degraded is not None:
            self._shed()
            self._tell_sinks({record.lane})
        elif record.lane is Lane.CRITICAL or len(self._unsaved) >= _ROWS_AT_ONCE:
            self._start_commit()
        else:
            self._schedule_commit()
        return future

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
        if self._thread is None:
            raise RuntimeError("the outbox is not open")
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._unsaved.add_batch(bodies, at_ns or [self._clock.now()] * len(bodies), future)
        if self._degraded is not None:
            self._unsaved.take_apart(self._boot)
            self._shed()
            self._tell_sinks({Lane.BULK})
        elif len(self._unsaved) >= _ROWS_AT_ONCE:
            self._start_commit()
        else:
            self._schedule_commit()
        return future

    async def note_clock(self, *, offset_ns: int, clock_ok: bool) -> None:
        """The UTC time of this boot's stream times is `offset_ns` more, by what is known now.

        All records of this boot are dated anew when they are read.
        """
        self._boot = Boot(self._boot.id, offset_ns, clock_ok)
        await self._note(partial(self._store.note_clock, self._boot))

    @property
    def boot(self) -> Boot:
        """The boot that records are appended in."""
        return self._boot

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
        records = await self._ask(partial(self._store.fetch, sink, limit)) or []
        if self._degraded is not None:
            records += islice(self._unsaved.owed(sink, self._lanes[sink]), limit - len(records))
        return records

    async def refused(self, sink: str, limit: int) -> list[Record]:
        """What a sink refused and shall be offered again, the longest refused first."""
        return await self._ask(partial(self._store.refused, sink, limit)) or []

    async def ack(self, sink: str, records: Sequence[Record]) -> None:
        """The sink has these, and with them all before them in their lanes that it did not refuse."""
        for each in map(self._unsaved.find, records):
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

    # -- numbers ------------------------------------------------------------------------------------------

    @property
    def busy_s(self) -> float:
        """For how long the store thread has been at what it does now: a disk may hang."""
        return 0.0 if self._thread is None else self._thread.busy_s

    def snapshot(self) -> dict[str, Any]:
        """The state as a JSON object."""
        return {**self._report.snapshot(), "in_memory": len(self._unsaved), "degraded": self._degraded}

    def adjust(self, *, max_bytes: int, commit_window_s: float, limits: Limits = _NO_LIMITS) -> None:
        """From the next commit on, other limits and another patience."""
        self._store.max_bytes = max_bytes
        self._store.limits = limits
        self._report.max_bytes = max_bytes
        self._commit_window_s = commit_window_s

    # -- committing ---------------------------------------------------------------------------------------

    def _schedule_commit(self) -> None:
        if self._timer is None and self._degraded is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(self._commit_window_s, self._start_commit)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _start_commit(self) -> None:
        """Hand over all that is held: now, or when the commit under way has ended."""
        self._stop_timer()
        if self._committing is not None:
            self._commit_again = True
            return
        singles, batches = list(self._unsaved), list(self._unsaved.batches)
        bulk = self._unsaved.bulk(batches)
        for each in batches:
            each.under_way = True
        commit = partial(self._store.commit, [held.record for held in singles], bulk)
        self._committing = asyncio.create_task(self._in_thread(commit), name="outbox commit")
        self._committing.add_done_callback(partial(self._end_commit, singles, batches))

    def _end_commit(
        self,
        singles: Sequence[Held],
        batches: Sequence[Batch],
        done: asyncio.Task[tuple[Committed, Status]],
    ) -> None:
        self._committing = None
        for batch in batches:
            batch.under_way = False
        error = done.exception()
        try:
            if isinstance(error, NotConnected):
                self._degrade(str(error))
            elif error is not None:
                for each in singles:
                    self._lose(each, error)
                for batch in batches:
                    self._lose_batch(batch, error)
                raise error  # a bug; the loop logs it
            else:
                committed, status = done.result()
                self._report.adopt(status)
                self._settle(singles, batches, committed)
        finally:
            if self._commit_again:
                self._commit_again = False
                self._start_commit()

    async def _commit(self) -> None:
        """Commit all that is held, and wait until nothing is under way."""
        self._start_commit()
        while self._committing is not None:
            await asyncio.wait([self._committing])

    def _settle(self, singles: Sequence[Held], batches: Sequence[Batch], committed: Committed) -> None:
        for each, seq in zip(singles, committed.seqs, strict=True):
            self._unsaved.remove(each)
            if seq is None:
                each.fail(_no_room())
            else:
                each.resolve(seq)
        after = 0 if committed.bulk_seq is None else committed.bulk_seq
        for batch in reversed(batches):
            self._unsaved.remove_batch(batch)
            if committed.bulk_seq is None:
                batch.fail(_no_room())
            else:
                batch.resolve(after)
                after -= len(batch.bodies)
        self._report.count_stored(committed.fresh)
        self._report.count_lost(committed.dropped)
        self._tell_sinks(set(committed.fresh))
        if self._degraded is not None:
            self._degraded = None
            self._report.healed(len(singles))
            self._tell_sinks(set(Lane))

    def _tell_sinks(self, lanes: set[Lane]) -> None:
        for sink, carried in self._lanes.items():
            if carried & lanes:
                self._news[sink].set()

    # -- while the disk fails -----------------------------------------------------------------------------

    def _degrade(self, reason: str) -> None:
        self._report.degraded(reason)
        if self._degraded is None:
            self._tell_sinks(set(Lane))
        self._degraded = reason
        if self._healing is None or self._healing.done():
            self._healing = asyncio.create_task(self._heal(), name="outbox heal")
        self._stop_timer()
        self._unsaved.take_apart(self._boot)
        self._shed()

    async def _heal(self) -> None:
        waits = Backoff(most_s=_HEAL_MOST_S)
        while self._degraded is not None:
            await self._clock.sleep_until(self._clock.now() + int(waits.next_s() * 1e9))
            await self._commit()

    def _shed(self) -> None:
        """Keep what is held in memory within its bounds."""
        while self._unsaved.body_bytes > _MEMORY_MAX and self._committing is None:
            victim = self._unsaved.oldest_of_the_least()
            self._lose(victim, OutboxFull(f"the disk fails and memory is full: {self._degraded}"))

    def _lose(self, held: Held, error: BaseException) -> None:
        self._unsaved.remove(held)
        held.fail(error)
        self._report.count_lost({held.record.lane.name.lower(): 1})

    def _lose_batch(self, batch: Batch, error: BaseException) -> None:
        self._unsaved.remove_batch(batch)
        batch.fail(error)
        self._report.count_lost({Lane.BULK.name.lower(): len(batch.bodies)})

    def _take(self, sink: str, held: Held) -> None:
        """A sink has had this from memory; once all have, it needs no disk."""
        held.taken_by.add(sink)
        lane = held.record.lane
        carriers = {name for name, lanes in self._lanes.items() if lane in lanes}
        if carriers <= held.taken_by and self._committing is None:
            self._unsaved.remove(held)
            held.resolve(0)

    def _put_by(self, sink: str, records: Iterable[Record]) -> None:
        """A sink refused these; what is in memory only, it will be offered when it is on disk."""
        for each in map(self._unsaved.find, records):
            if each is not None:
                each.refused_by.add(sink)

    # -- the store thread ---------------------------------------------------------------------------------

    async def _note(self, ask: Callable[[], T]) -> T | None:
        """Tell the store what a sink did; it is saved with the next commit."""
        answer = await self._ask(ask)
        self._schedule_commit()
        return answer

    async def _ask(self, ask: Callable[[], T]) -> T | None:
        """Ask the store; None while the disk fails."""
        try:
            answer, status = await self._in_thread(ask)
        except NotConnected as error:
            self._degrade(str(error))
            return None
        self._report.adopt(status)
        return answer

    async def _in_thread(self, ask: Callable[[], T]) -> tuple[T, Status]:
        if self._thread is None:
            raise RuntimeError("the outbox is not open")
        return await self._thread.run(lambda: (ask(), self._store.status()))


def _no_room() -> OutboxFull:
    return OutboxFull("everything stored is more important")


def _stored(records: Iterable[Record]) -> list[Record]:
    """Those that are on disk."""
    return [each for each in records if each.seq]
