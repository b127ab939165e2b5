"""How records get from the event loop into the file: together, and in memory for as long as the disk fails.

Records go to the store thread in batches: within `window_s` (real time: the disk's, not the stream's), at 256
of them, or at once for a critical one; while a commit is under way the next batch gathers. A batch costs the
loop one wake-up.
"""

import asyncio
import secrets
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, TypeVar

from dxad.errors import NotConnected, OutboxFull
from dxad.outbox.drops import Drop, merged
from dxad.outbox.report import Report
from dxad.outbox.standing import Committed, Status
from dxad.outbox.store import Store
from dxad.outbox.unsaved import Batch, Held, Unsaved
from dxad.runtime.backoff import Backoff
from dxad.runtime.clock import Clock
from dxad.runtime.worker import Outcome, Worker
from dxad.types import Boot, Lane, Record

__all__ = ["Commits"]

T = TypeVar("T")

_ROWS_AT_ONCE: Final = 256
_COMMIT_BYTES: Final = 2**19
"""The bodies of single records that one commit takes at most, and those of a segment: the rest waits for the
next one. So a commit fits into a quarter of the log (`space`), and none takes long."""
_HEAL_MOST_S: Final = 5.0
"""The disk is ours: nobody is spared by looking at it less often."""
_MEMORY_MAX: Final = 8 * 2**20
"""Bytes of bodies held while the disk fails; beyond it the oldest of the least important lane goes."""
_STALLED_MAX: Final = 32 * 2**20
"""Bytes of bodies held while a commit hangs; beyond it nothing more is taken."""


class Commits:
    """Holds what is not durable yet, and has it stored; begins when it is given a thread."""

    def __init__(
        self,
        store: Store,
        report: Report,
        *,
        window_s: float,
        clock: Clock,
        boot: Boot,
        tell_sinks: Callable[[set[Lane]], None],
    ) -> None:
        """Store records in `store`.

        Args:
            store: the file, which is asked on a thread of its own.
            report: is told what became of the records.
            window_s: how long a record that is not critical waits for company.
            clock: dates.
            boot: of the records.
            tell_sinks: is called when something is new in these lanes.
        """
        self.window_s = window_s
        self.boot = boot
        self.thread: Worker | None = None
        self.degraded: str | None = None
        """Why the disk takes nothing; None while it does."""
        self.unsaved = Unsaved(secrets.token_hex(8))
        self._store = store
        self._report = report
        self._clock = clock
        self._tell_sinks = tell_sinks
        self._timer: asyncio.TimerHandle | None = None
        self._under_way: asyncio.Future[None] | None = None
        self._again = False
        self._healing: asyncio.Task[None] | None = None
        self._lost: list[Drop] = []  # and the file does not know of it yet
        self._telling: tuple[str, Sequence[Drop]] | None = None

    # -- in -----------------------------------------------------------------------------------------------

    def append(self, record: Record, *, replaces: str = "") -> asyncio.Future[int]:
        """Have a record stored; see `Outbox.append`."""
        future = self._future()
        at_ns = record.at_ns or self._clock.now()
        held = Record(record.id, record.lane, record.body, 0, self.boot, at_ns)
        self.unsaved.add(held, future, replaces=replaces)
        if replaces and self._under_way is None:
            self.unsaved.drop_replaced(held, replaces)
        if self.degraded is not None:
            self._shed()
            self._tell_sinks({record.lane})
        elif record.lane is Lane.CRITICAL or len(self.unsaved) >= _ROWS_AT_ONCE:
            self._start()
        else:
            self.schedule()
        return future

    def append_bulk(self, bodies: Sequence[bytes], at_ns: Sequence[int] | None) -> asyncio.Future[int]:
        """Have many stored; see `Outbox.append_bulk`."""
        future = self._future()
        if not bodies:
            raise ValueError("no records to append")
        if self.unsaved.body_bytes > _STALLED_MAX:
            future.set_exception(OutboxFull("the disk is slower than what comes"))
            future.exception()
            self._count_lost(Lane.BULK, len(bodies), sum(map(len, bodies)))
            return future
        self.unsaved.add_batch(bodies, at_ns or [self._clock.now()] * len(bodies), future)
        if self.degraded is not None:
            self.unsaved.take_apart(self.boot)
            self._shed()
            self._tell_sinks({Lane.BULK})
        elif len(self.unsaved) >= _ROWS_AT_ONCE:
            self._start()
        else:
            self.schedule()
        return future

    def tell(self, record: Record, drops: Sequence[Drop]) -> asyncio.Future[int]:
        """Have an event stored that tells of losses: they need not be told of again."""
        self._telling = (record.id, drops)
        return self.append(record)

    def tell_news(self) -> None:
        """There may be something new in any lane."""
        self._tell_sinks(set(Lane))

    @property
    def is_telling(self) -> bool:
        """Whether such an event waits to be stored."""
        return self._telling is not None

    def forget(self, held: Held) -> None:
        """Every sink has had this from memory: it needs no disk, unless that has it at this moment."""
        if self._under_way is None:
            self.unsaved.remove(held)
            held.resolve(0)

    def _future(self) -> asyncio.Future[int]:
        if self.thread is None:
            raise RuntimeError("the outbox is not open")
        return asyncio.get_running_loop().create_future()

    # -- committing ---------------------------------------------------------------------------------------

    def schedule(self) -> None:
        """Commit when the window is over."""
        if self._timer is None and self.degraded is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(self.window_s, self._start)

    async def commit(self) -> None:
        """Commit all that is held, and wait until nothing is under way."""
        self._start()
        while self._under_way is not None:
            await asyncio.wait([self._under_way])

    async def close(self) -> None:
        """Commit what is waiting, trying twice; what the disk does not take is lost."""
        await self.commit()
        if self.degraded is not None:
            await self.commit()
        if self._healing is not None:
            self._healing.cancel()
            await asyncio.wait([self._healing])
        self._stop_timer()

    def lose_all(self) -> None:
        """The outbox is closed: whoever waits for a record is told that the disk did not take it."""
        for each in list(self.unsaved):
            self._lose(each, NotConnected(f"the outbox was closed while its disk failed: {self.degraded}"))

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _start(self) -> None:
        """Hand over all that is held: now, or when the commit under way has ended."""
        self._stop_timer()
        if self._under_way is not None:
            self._again = True
            return
        thread = self._thread
        singles, batches = self._next()
        lost = list(self._lost)
        told: Sequence[Drop] = ()
        if self._telling is not None and any(each.record.id == self._telling[0] for each in singles):
            told = self._telling[1]
        commit = partial(
            self._store.commit,
            [each.record for each in singles],
            self.unsaved.bulk(batches),
            lost=lost,
            told=told,
            replacing={each.replaces for each in singles if each.replaces},
        )
        self._under_way = asyncio.get_running_loop().create_future()
        thread.start(
            lambda: (commit(), self._store.status()), partial(self._end, singles, batches, lost, told)
        )

    def _next(self) -> tuple[Sequence[Held], Sequence[Batch]]:
        """What the next commit takes."""
        if not self.unsaved.batches and self.unsaved.body_bytes <= _COMMIT_BYTES:
            return list(self.unsaved), ()  # an event alone: all that is done here delays it
        singles, batches = self.unsaved.in_order(self._next_singles())
        batches = self._first(batches)
        self._again |= len(singles) + sum(len(each.bodies) for each in batches) < len(self.unsaved)
        return singles, batches

    def _next_singles(self) -> list[Held]:
        """Those of the most important lane first."""
        if self.unsaved.body_bytes <= _COMMIT_BYTES:
            return list(self.unsaved)
        found: list[Held] = []
        size = 0
        for each in self.unsaved:
            if found and size + len(each.record.body) > _COMMIT_BYTES:
                break
            found.append(each)
            size += len(each.record.body)
        return found

    def _first(self, batches: Sequence[Batch]) -> list[Batch]:
        """What goes into the next segment; the rest waits for the one after it."""
        found: list[Batch] = []
        size = 0
        for each in batches:
            if found and size + each.body_bytes > _COMMIT_BYTES:
                break
            each.under_way = True
            found.append(each)
            size += each.body_bytes
        return found

    def _end(
        self,
        singles: Sequence[Held],
        batches: Sequence[Batch],
        lost: Sequence[Drop],
        told: Sequence[Drop],
        done: Outcome[tuple[Committed, Status]],
    ) -> None:
        if self._under_way is not None:
            self._under_way.set_result(None)
            self._under_way = None
        for batch in batches:
            batch.under_way = False
        error = done.error
        try:
            if isinstance(error, NotConnected):
                self._again = False  # when to look again is for `_heal` to say
                self.degrade(str(error))
            elif error is not None:
                for each in singles:
                    self._lose(each, error)
                for batch in batches:
                    self._lose_batch(batch, error)
                raise error  # a bug; the loop logs it
            else:
                committed, status = done.result()
                del self._lost[: len(lost)]
                if told:
                    self._telling = None
                self._report.adopt(status)
                self.settle(singles, batches, committed)
        finally:
            if self._again:
                self._again = False
                self._start()

    def settle(self, singles: Sequence[Held], batches: Sequence[Batch], committed: Committed) -> None:
        """These have been stored: tell whoever waits."""
        for each, seq in zip(singles, committed.seqs, strict=True):
            self.unsaved.remove(each)
            if seq is None:
                each.fail(_no_room())
            else:
                each.resolve(seq)
        self._settle_bulk(batches, committed.bulk_seq)
        self._report.count_stored(committed.fresh)
        self._report.count_lost(committed.dropped)
        self._tell_sinks(set(committed.fresh))
        if self.degraded is not None:
            self.degraded = None
            self._report.healed(len(singles))
            self._tell_sinks(set(Lane))

    def _settle_bulk(self, batches: Sequence[Batch], last: int | None) -> None:
        for batch in reversed(batches):
            self.unsaved.remove_batch(batch)
            if last is None:
                batch.fail(_no_room())
            else:
                batch.resolve(last)
                last -= len(batch.bodies)

    # -- while the disk fails -----------------------------------------------------------------------------

    def degrade(self, reason: str) -> None:
        """The disk takes nothing: hold everything in memory, and look again and again."""
        self._report.degraded(reason)
        if self.degraded is None:
            self._tell_sinks(set(Lane))
        self.degraded = reason
        if self._healing is None or self._healing.done():
            self._healing = asyncio.create_task(self._heal(), name="outbox heal")
        self._stop_timer()
        self.unsaved.take_apart(self.boot)
        self._shed()

    async def _heal(self) -> None:
        waits = Backoff(most_s=_HEAL_MOST_S)
        while self.degraded is not None:
            await self._clock.sleep_until(self._clock.now() + int(waits.next_s() * 1e9))
            await self.commit()

    def _shed(self) -> None:
        """Keep what is held in memory within its bounds."""
        while self.unsaved.body_bytes > _MEMORY_MAX and self._under_way is None:
            victim = self.unsaved.oldest_of_the_least()
            self._lose(victim, OutboxFull(f"the disk fails and memory is full: {self.degraded}"))

    def _lose(self, held: Held, error: BaseException) -> None:
        self.unsaved.remove(held)
        held.fail(error)
        self._count_lost(held.record.lane, 1, len(held.record.body), held.record.at_ns)

    def _lose_batch(self, batch: Batch, error: BaseException) -> None:
        self.unsaved.remove_batch(batch)
        batch.fail(error)
        self._count_lost(Lane.BULK, len(batch.bodies), batch.body_bytes, batch.at_ns[0])

    def _count_lost(self, lane: Lane, records: int, size: int, at_ns: int | None = None) -> None:
        now_utc = self.boot.offset_ns + self._clock.now()
        at_utc = now_utc if at_ns is None else self.boot.offset_ns + at_ns
        lost = [Drop(lane.name.lower(), "memory", records, size, at_utc, at_utc, now_utc)]
        self._report.count_lost(lost)
        if self._under_way is None:
            self._lost = merged([*self._lost, *lost])
        else:
            self._lost += lost  # the commit under way has those before

    # -- the store thread ---------------------------------------------------------------------------------

    async def ask(self, ask: Callable[[], T]) -> T | None:
        """Ask the store; None while the disk fails."""
        try:
            return await self.ask_or_raise(ask)
        except NotConnected:
            return None

    async def ask_or_raise(self, ask: Callable[[], T]) -> T:
        """Ask the store.

        Raises:
            NotConnected: the disk fails.
        """
        try:
            answer, status = await self.in_thread(ask)
        except NotConnected as error:
            if self.degraded is None:
                self.degrade(str(error))
                raise
            raise NotConnected(self.degraded) from error  # why, and not that its file is closed therefore
        self._report.adopt(status)
        return answer

    async def in_thread(self, ask: Callable[[], T]) -> tuple[T, Status]:
        """Ask the store, and for its state besides."""
        return await self._thread.run(lambda: (ask(), self._store.status()))

    @property
    def _thread(self) -> Worker:
        if self.thread is None:
            raise RuntimeError("the outbox is not open")
        return self.thread


def _no_room() -> OutboxFull:
    return OutboxFull("everything stored is more important")
