"""One source into its ring, for life.

    connect ──▶ read ──▶ Admission ──▶ ring        and, at each tick, seal what is due
       ▲          │
       └─ back off ◀─ not connected, silent

The source raises, this decides: it retries, counts, and says when the link breaks and when it heals, once.
The proof of a healthy link is data, or, where there is nothing to say, the session's own sign of life.
Nothing that a source does is waited for without end.
"""

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from typing import Final

from dxad.errors import Backoff as BackoffAsked
from dxad.errors import ConfigError, DecodeError, NotConnected
from dxad.fields import SourceSection
from dxad.ring.admission import Admission, waiting_most
from dxad.ring.journal import Confirming, Journal
from dxad.ring.promises import Promises
from dxad.ring.ringbuffer import RingBuffer
from dxad.runtime.backoff import Backoff
from dxad.runtime.clock import Clock
from dxad.runtime.deadline import Patience, within
from dxad.runtime.health import Health
from dxad.runtime.ledger import Ledger
from dxad.runtime.metrics import Metrics
from dxad.types import NS_PER_S, Block, Document, Grouped, Source

__all__ = ["Ingest", "waiting_most"]

_CONNECT_TIMEOUT_S: Final = 20.0
_CLOSE_TIMEOUT_S: Final = 6.0
_LAST_CLOSE_TIMEOUT_S: Final = 2.5
"""At the end, when whoever stops us waits as well."""
_OVERDUE_NS: Final = 5 * NS_PER_S
"""So much later than its timeout, a read is cancelled again: some library has swallowed the first."""
_RECOVERY_MOST_NS: Final = 60 * NS_PER_S
"""So long a source may mend itself, whatever it says."""
_LASTING_NS: Final = 10 * NS_PER_S
"""Data for so long, and the next attempt after a break is an early one again."""
_LAST_STORING_TIMEOUT_S: Final = 1.0
"""Likewise, for samples that the outbox shall have before their broker is left."""
_STANDS_NS: Final = 15 * NS_PER_S
"""So long no sample of a source that waits for the outbox was stored: its disk fails, or it hangs."""
_SKEW_NS: Final = 2 * NS_PER_S
_LATE_BLOCKS: Final = 10
_REJECTING_CLEARS_NS: Final = 10 * NS_PER_S
_NOTED_NS: Final = NS_PER_S // 10
"""From one look at what is to be said of the source to the next."""


class Ingest:
    """The service of one source."""

    def __init__(
        self,
        name: str,
        source: Source,
        section: SourceSection,
        ring: RingBuffer,
        *,
        clock: Clock,
        health: Health,
        metrics: Metrics,
        backoff: Backoff | None = None,
        on_rows: Callable[[], None] | None = None,
        journal: Journal | None = None,
    ) -> None:
        """Feed `ring`, and `journal` where the source waits for the outbox.

        `on_rows` is called when a block sealed rows between two ticks.
        """
        self.name = name
        self.ring = ring
        self.source = source
        self._section = section
        self._clock = clock
        self._health = health
        self._backoff = backoff or Backoff()
        self._on_rows = on_rows
        self.journal = journal
        if journal is not None:
            assert isinstance(source, Confirming)
            journal.on_stored = source.confirm
        period = ring.period
        self._by_message = section.period is None
        self._lateness = section.slot_lateness(period)
        self._admission = Admission(
            name,
            section,
            ring,
            metrics=metrics,
            devices=(lambda: source.devices) if isinstance(source, Grouped) else None,
            journal=journal,
        )
        self._silence_ns = section.max_silence or max(10 * period, 5 * NS_PER_S, *self._admission.holds_ns)
        self._promises = Promises(section, ring.channels)
        self._advises = hasattr(type(source), "advice")
        self._may_misanswer = hasattr(type(source), "misanswers")
        self.connected = False
        self._task: asyncio.Task[None] | None = None
        self._overdue_at: int | None = None
        """When the read that is under way will be cancelled again."""
        self._recancelled = False
        self._patience = Patience()
        self._down_since: int | None = None
        self._well_since: int | None = None
        """When data began to come over this connection."""
        self._lost_before = 0
        """Samples that had been lost when the link broke."""
        self._newest: int | None = None
        self._rejected_at: int | None = None
        self._overflowed = 0
        self._overflowed_at: int | None = None
        self._late_blocks = 0
        self._noted_at: int | None = None
        self._count = {
            name: metrics.counter(f"dxad_{name}_total", source=self.name)
            for name in ("messages_rejected", "connects", "disconnects", "timeouts")
        }

    @property
    def ledger(self) -> Ledger:
        """What was lost of its samples."""
        return self._admission.ledger

    async def run(self) -> None:
        """Keep the source connected and its samples coming, until cancelled or at the end of the stream."""
        self._task = asyncio.current_task()
        try:
            while True:
                wait_s = await self._served()
                await self._close(_CLOSE_TIMEOUT_S)
                await self._clock.sleep_until(self._clock.now() + int(wait_s * NS_PER_S))
        finally:
            self.connected = False
            self._task = self._overdue_at = None
            self._patience.close()
            if self.journal is not None:
                with contextlib.suppress(TimeoutError):  # then it comes a second time
                    await within(
                        _LAST_STORING_TIMEOUT_S, self.journal.emptied(), name=f"ingest.{self.name}.store"
                    )
            await self._close(_LAST_CLOSE_TIMEOUT_S)

    async def _close(self, timeout_s: float) -> None:
        """Close the source, or give up to: the next connection may find what this one has left."""
        try:
            await within(timeout_s, self.source.close(), name=f"ingest.{self.name}.close")
        except TimeoutError:
            self._count["timeouts"].add()
            self._health.raise_condition(
                "source.down", self.name, f"closing it took longer than {timeout_s:g} s"
            )

    async def _served(self) -> float:
        """Serve until something breaks; returns the seconds to wait before the next attempt."""
        try:
            await self._serve()
        except BackoffAsked as asked:
            self._broke(str(asked))
            return asked.seconds
        except (NotConnected, ConfigError) as error:
            # Even what is configured wrong may heal: a secret's file appears, a server learns a node.
            self._broke(str(error))
        return self._backoff.next_s()

    async def _serve(self) -> None:
        """Connect and read until something breaks."""
        try:
            await within(_CONNECT_TIMEOUT_S, self.source.connect(), name=f"ingest.{self.name}.connect")
        except TimeoutError as error:
            self._count["timeouts"].add()
            raise NotConnected(f"no connection within {_CONNECT_TIMEOUT_S:g} s") from error
        self._count["connects"].add()
        self.connected = True
        self._promises.begin(self._clock.now())
        while True:
            if self.journal is not None:
                await self.journal.room()
            try:
                block = await self._read()
            except TimeoutError as error:
                if self._may_be_silent():
                    if self._alive_until > self._clock.now():
                        self._healed()
                    continue
                self._count["timeouts"].add()
                why = f"; {self._advice}" if self._advice else ""
                raise NotConnected(f"no data for {self._silence_ns / NS_PER_S:g} s{why}") from error
            except DecodeError as error:
                self._count["messages_rejected"].add(error.rejected)
                self._rejected_at = self._clock.now()
                self._health.raise_condition("source.rejecting", self.name, str(error))
            else:
                self._healed()
                self.accept(block)

    async def _read(self) -> Block:
        """The next block.

        Raises:
            TimeoutError: nothing came for so long that it may mean something.
        """
        if self._by_message:
            return await self.source.read()
        self._overdue_at = self._clock.now() + self._silence_ns + _OVERDUE_NS
        try:
            with self._patience.of(self._silence_ns / NS_PER_S):
                return await self.source.read()
        except asyncio.CancelledError:
            if not self._recancelled or self._task is None:
                raise
            self._recancelled = False
            while self._task.cancelling():  # the timeout's, which was swallowed, and ours
                self._task.uncancel()
            raise TimeoutError from None
        finally:
            self._overdue_at = None

    def _may_be_silent(self) -> bool:
        """Whether nothing has come for a while, and the connection is to be kept all the same."""
        now = self._clock.now()
        if self.journal is not None and len(self.journal):
            self.journal.wanted.set()  # perhaps it waits for us
            return True
        recovering: int = getattr(self.source, "recovering_until", 0)
        if recovering > now:  # it knows better than we what is to be done; though not for ever
            return now - (self._newest or now) < self._silence_ns + _RECOVERY_MOST_NS
        if self._promises.all_broken(now):
            return False
        return self._section.max_silence is None and self._alive_until > now

    def _broke(self, reason: str) -> None:
        self._count["disconnects"].add()
        self.connected = False
        self._well_since = None
        if self._down_since is None:
            self._down_since = self._clock.now()
            self._lost_before = self.ledger.total
        self._health.raise_condition("source.down", self.name, reason)
        self._health.clear("source.silent", self.name, "now all of the source is")

    def _healed(self) -> None:
        """The proof of a healthy link is data, and of a lasting one, lasting data."""
        now = self._clock.now()
        if self._well_since is None:
            self._well_since = now
        elif now - self._well_since >= _LASTING_NS:
            self._backoff.reset()
        if self._down_since is not None:
            missed = (now - self._down_since) // self.ring.period
            self._down_since = None
            lost = self.ledger.total - self._lost_before
            cost = {"rows without data": missed, "samples lost": lost}
            self._health.clear("source.down", self.name, cost=cost)

    def accept(self, block: Block) -> None:
        """Stage a block's samples; a block of a finished poll also seals what it completes."""
        samples = block.samples
        self._newest = self._clock.now()
        if self._promises.any:
            self._promises.note(samples, self._newest)
        self._note_late(all_late=self._admission.take(samples))
        if self.journal is not None:
            self.journal.mark(block.ticket, pressed=getattr(self.source, "pressed", False))
        if self._by_message:
            self._seal(int(samples["message"][-1]) + 1)
        elif block.through is not None:
            self._seal(block.through)

    def _note_skew(self, now: int) -> None:
        """The device's clock against ours, once it is known; of several the one that is off most."""
        offsets: Mapping[str, int] = getattr(self._admission.clock, "offsets", {})
        if not offsets:
            return
        ours = now - self._clock.utc(now)
        name, offset = max(offsets.items(), key=lambda each: abs(ours - each[1]))
        skew = ours - offset
        if abs(skew) > _SKEW_NS:
            whose = f"the clock of {name}" if name else "the device's clock"
            detail = f"{whose} is {abs(skew) / NS_PER_S:.1f} s {'ahead' if skew > 0 else 'behind'}"
            self._health.raise_condition("source.clock_skew", self.name, detail)
        else:
            self._health.clear("source.clock_skew", self.name)

    def _note_late(self, *, all_late: bool) -> None:
        self._late_blocks = self._late_blocks + 1 if all_late else 0
        if self._late_blocks >= _LATE_BLOCKS:
            detail = "all samples come after their slots; give it a longer period, or more lateness"
            self._health.raise_condition("source.late", self.name, detail)
        elif not all_late:
            self._health.clear("source.late", self.name)

    def tick(self, now: int) -> None:
        """Seal every slot whose time has passed, also when nothing came."""
        if not self._by_message:
            self._seal(now - self._lateness)
        if self._noted_at is None or now - self._noted_at >= _NOTED_NS:
            self._noted_at = now
            self._note(now)
        if self._overdue_at is not None and now > self._overdue_at and self._task is not None:
            self._overdue_at, self._recancelled = now + _OVERDUE_NS, True
            self._health.raise_condition("source.down", self.name, "its read does not end")
            self._task.cancel()

    def _note(self, now: int) -> None:
        """Say what is to be said of the source."""
        self._note_overflow(now)
        self._note_skew(now)
        if self.journal is not None:
            self._note_unstored(self.journal, now)
        if self._promises.any or self._advises:
            self._note_silent(now)
        if self._may_misanswer:
            self._note_misanswers()
        if self._rejected_at is not None and now - self._rejected_at > _REJECTING_CLEARS_NS:
            self._rejected_at = None
            self._health.clear("source.rejecting", self.name)

    def _note_unstored(self, journal: Journal, now: int) -> None:
        """Say so when the outbox takes nothing: its peer is told of nothing meanwhile."""
        stands_ns = journal.stands_for(now)
        if stands_ns > _STANDS_NS:
            detail = f"{len(journal)} samples wait for the outbox, for {stands_ns / NS_PER_S:.0f} s now"
            self._health.raise_condition("source.unacknowledged", self.name, detail)
        else:
            self._health.clear("source.unacknowledged", self.name)

    def _note_silent(self, now: int) -> None:
        """Say which channels are silent while the connection is there, or why all may be."""
        heard_of = self.connected and self._down_since is None
        silent = (self._promises.broken(now) or self._advice) if heard_of else ""
        if silent:
            self._health.raise_condition("source.silent", self.name, silent)
        else:
            self._health.clear("source.silent", self.name)

    def _note_misanswers(self) -> None:
        """Say so when answers come that are not what was asked, until it has been over for a while."""
        detail: str = getattr(self.source, "misanswers", "")
        if detail:
            self._health.raise_condition("source.out_of_step", self.name, detail)
        elif self.connected:
            self._health.clear("source.out_of_step", self.name)

    def _note_overflow(self, now: int) -> None:
        """Say so when samples come faster than they are taken in, until it has been over for a while."""
        overflowed = self.overflowed
        if overflowed > self._overflowed:
            self.ledger.follow("queue", overflowed)
            self._overflowed, self._overflowed_at = overflowed, now
            detail = f"its queue of {self._section.queue} samples was full; lost so far: {overflowed}"
            self._health.raise_condition("source.overflow", self.name, detail)
        elif self._overflowed_at is not None and now - self._overflowed_at > _REJECTING_CLEARS_NS:
            self._overflowed_at = None
            self._health.clear("source.overflow", self.name)

    def believe_arrivals(self) -> None:
        """Samples arrive at their own times, whatever clock is configured: so do rows of the past."""
        self._admission.believe_arrivals()

    @property
    def lateness(self) -> int:
        """Nanoseconds that a slot waits after its end."""
        return self._lateness

    @property
    def _advice(self) -> str:
        """Why nothing may come of a source that is connected, and what to do, where it knows; or nothing."""
        advice: str = getattr(self.source, "advice", "")
        return advice

    @property
    def _alive_until(self) -> int:
        """The stream time up to which the source's session is proved alive, where it can be."""
        until: int = getattr(self.source, "alive_until", 0)
        return until

    def _seal(self, until: int) -> None:
        if until // self.ring.period <= self.ring.sealed and self.ring.newest is None:
            return
        rows = self._admission.seal(until, valid_until=self._alive_until)
        if rows and self._on_rows is not None and self._by_message:
            self._on_rows()

    @property
    def overflowed(self) -> int:
        """Samples that the source dropped because nobody read them in time."""
        dropped: int = getattr(self.source, "overflowed", 0)
        return dropped

    @property
    def age_s(self) -> float | None:
        """Seconds since the newest sample came; None before the first."""
        return None if self._newest is None else (self._clock.now() - self._newest) / NS_PER_S

    @property
    def devices(self) -> dict[str, Document]:
        """What became of the samples of each device, where the source has several."""
        return self._admission.devices

    def snapshot(self) -> Document:
        """What there is to know about the source now."""
        count = {name: counter.value for name, counter in self._count.items()}
        devices = self.devices
        return {
            "connected": self.connected,
            "age_s": None if self.age_s is None else round(self.age_s, 3),
            "channels": [channel.id for channel in self.ring.channels],
            "period_ms": None if self._by_message else self.ring.period / 1e6,
            **self._admission.snapshot(),
            "messages_rejected": count["messages_rejected"],
            "overflowed": self.overflowed,
            "skipped": getattr(self.source, "skipped", 0),
            "slips": getattr(self._admission.clock, "slips", 0),
            "faults": dict(getattr(self.source, "faults", {})),
            "wire": dict(getattr(self.source, "traffic", {})),
            "connects": count["connects"],
            "disconnects": count["disconnects"],
            "timeouts": count["timeouts"],
            **({"devices": devices} if devices else {}),
        }
