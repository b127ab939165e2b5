"""One source into its ring, for life.

    connect ──▶ read ──▶ check ──▶ Sealer ──▶ ring        and, at each tick, seal what is due
       ▲          │
       └─ back off ◀─ not connected, silent

The source raises, this decides: it retries, counts, and says when the link breaks and when it heals, once.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Final

import numpy as np
import numpy.typing as npt

from dxad.errors import Backoff as BackoffAsked
from dxad.errors import ConfigError, DecodeError, NotConnected
from dxad.fields import ChannelSection, SourceSection
from dxad.ring.ringbuffer import RingBuffer
from dxad.ring.samplecheck import SampleCheck
from dxad.ring.sampleclock import NO_TIME, ArrivalClock, CountedClock, DeviceClock, SampleClock
from dxad.ring.sealer import Sealer
from dxad.runtime.backoff import Backoff
from dxad.runtime.clock import Clock
from dxad.runtime.health import Health
from dxad.runtime.ledger import Ledger
from dxad.runtime.metrics import Metrics
from dxad.types import NS_PER_S, Block, Document, Quality, Reason, Source

__all__ = ["Ingest", "waiting_most"]

log = logging.getLogger(__name__)

_SESSION: Final = -1
"""The hold of a column that stays valid while the source's session is proved alive."""
_CONNECT_TIMEOUT_S: Final = 20.0
_POLL_LATENESS_MOST_NS: Final = NS_PER_S
_BUFFERED_NS: Final = 50_000_000
"""So long a USB adapter's timer, and the ones behind it, may keep what a device sends."""
_GAP_LEAST_NS: Final = NS_PER_S // 2
_WAITING_LEAST: Final = 10_000
_SKEW_NS: Final = 2 * NS_PER_S
_LATE_BLOCKS: Final = 10
_REJECTING_CLEARS_NS: Final = 10 * NS_PER_S


def waiting_most(section: SourceSection) -> int:
    """How many samples of a source may wait for their slots to end."""
    return max(2 * section.queue, _WAITING_LEAST)


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
    ) -> None:
        """Feed `ring`; `on_rows` is called when a block sealed rows between two ticks."""
        self.name = name
        self.ring = ring
        self.source = source
        self._section = section
        self._clock = clock
        self._health = health
        self._metrics = metrics
        self._backoff = backoff or Backoff()
        self._on_rows = on_rows
        period = ring.period
        self._by_message = section.period is None
        self._lateness = self._default_lateness() if section.lateness is None else section.lateness
        holds_ns = [self._hold_ns(each) for each in self._sections]
        self._silence_ns = section.max_silence or max(10 * period, 5 * NS_PER_S, *holds_ns)
        self._sealer = Sealer(
            ring,
            folds=[each.fold for each in self._sections],
            holds_ns=holds_ns,
            waiting_most=waiting_most(section),
        )
        self._sample_clock = self._made_clock()
        self._check = SampleCheck(self._sections, period=period)
        self.connected = False
        self._down_since: int | None = None
        self._newest: int | None = None
        self._rejected_at: int | None = None
        self._overflowed = 0
        self._overflowed_at: int | None = None
        self._late_blocks = 0
        self._count = {
            name: metrics.counter(f"dxad_{name}_total", source=self.name)
            for name in (
                "samples_received", "samples_late", "samples_backfilled", "samples_folded",
                "messages_rejected", "rows_sealed", "connects", "disconnects",
            )
        }  # fmt: skip
        self.ledger = Ledger(metrics, f"sources.{name}")

    @property
    def _sections(self) -> list[ChannelSection]:
        return list(self._section.channel_sections().values())

    def _made_clock(self) -> SampleClock:
        section, period = self._section, self.ring.period
        if self._by_message or section.clock == "arrival":
            return ArrivalClock()
        if section.clock == "device":
            return DeviceClock()
        return CountedClock(period=period, gap=section.gap or max(20 * period, _GAP_LEAST_NS))

    def _default_lateness(self) -> int:
        if self._section.polled:  # only a poll that still waits for its answers makes a slot wait
            return min(self.ring.period, _POLL_LATENESS_MOST_NS)
        if self._section.clock == "counted":  # what it sends waits in buffers, and arrives together
            return max(self.ring.period, _BUFFERED_NS)
        return 0 if self._by_message else self.ring.period

    def _hold_ns(self, channel: ChannelSection) -> int:
        hold = channel.hold if channel.hold is not None else self._section.hold
        if hold == "session":
            return _SESSION
        return 2 * self.ring.period if hold is None else hold

    async def run(self) -> None:
        """Keep the source connected and its samples coming, until cancelled or at the end of the stream."""
        try:
            while True:
                wait_s = await self._served()
                await self.source.close()
                await self._clock.sleep_until(self._clock.now() + int(wait_s * NS_PER_S))
        finally:
            self.connected = False
            await self.source.close()

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
            async with asyncio.timeout(_CONNECT_TIMEOUT_S):
                await self.source.connect()
        except TimeoutError as error:
            raise NotConnected(f"no connection within {_CONNECT_TIMEOUT_S:g} s") from error
        self._count["connects"].add()
        self.connected = True
        while True:
            try:
                async with asyncio.timeout(None if self._by_message else self._silence_ns / NS_PER_S):
                    block = await self.source.read()
            except TimeoutError as error:
                if self._section.max_silence is None and self._alive_until > self._clock.now():
                    continue  # there was nothing to say, and the session is proved alive
                raise NotConnected(f"no data for {self._silence_ns / NS_PER_S:g} s") from error
            except DecodeError as error:
                self._count["messages_rejected"].add(error.rejected)
                self._rejected_at = self._clock.now()
                self._health.raise_condition("source.rejecting", self.name, str(error))
            else:
                self._healed()
                self.accept(block)

    def _broke(self, reason: str) -> None:
        self._count["disconnects"].add()
        self.connected = False
        if self._down_since is None:
            self._down_since = self._clock.now()
        self._health.raise_condition("source.down", self.name, reason)

    def _healed(self) -> None:
        """The proof of a healthy link is data."""
        self._backoff.reset()
        if self._down_since is not None:
            missed = (self._clock.now() - self._down_since) // self.ring.period
            self._down_since = None
            self._health.clear("source.down", self.name, f"{missed} rows without data")

    def accept(self, block: Block) -> None:
        """Stage a block's samples; a block of a finished poll also seals what it completes."""
        samples = block.samples
        self._count["samples_received"].add(len(samples))
        self._newest = self._clock.now()
        self._take(samples)
        if self._by_message:
            self._seal(int(samples["message"][-1]) + 1)
        elif block.through is not None:
            self._seal(block.through)

    def _take(self, samples: npt.NDArray[np.void]) -> None:
        """Give samples their times, judge them, and hand them on; write down what becomes of the others."""
        times = self._sample_clock.times(samples)
        timed = times != NO_TIME
        if not timed.all():
            self.ledger.lose("ahead", int(np.count_nonzero(~timed)))
            samples, times = samples[timed], times[timed]
        samples = self._check.apply(samples, times)
        self._count_doubted(samples)
        accepted = self._sealer.accept(samples, samples["message"] if self._by_message else times)
        late = accepted.after_sealing
        if late or accepted.waiting:
            self._count["samples_late"].add(late)
            self._count["samples_backfilled"].add(accepted.backfilled)
            self._count["samples_folded"].add(accepted.folded)
            self.ledger.lose("late", accepted.late)
            self.ledger.lose("too_old", accepted.too_old)
            self.ledger.lose("waiting", accepted.waiting)
        self._note_late(all_late=late == len(samples) > 0)

    def _count_doubted(self, samples: npt.NDArray[np.void]) -> None:
        """Count all that is BAD, or UNCERTAIN, by its reason."""
        quality = samples["quality"]
        if not quality.any():
            return
        for name, kind in (("rejected", Quality.BAD), ("doubted", Quality.UNCERTAIN)):
            reasons = samples["reason"][quality == kind]
            for reason in np.unique(reasons):
                self._metrics.counter(
                    f"dxad_samples_{name}_total", source=self.name, reason=Reason(reason).name.lower()
                ).add(int(np.count_nonzero(reasons == reason)))

    def _note_skew(self, now: int) -> None:
        """The device's clock against ours, once it is known."""
        offset = getattr(self._sample_clock, "offset", None)
        if offset is None:
            return
        skew = (now - self._clock.utc(now)) - offset
        if abs(skew) > _SKEW_NS:
            detail = f"the device's clock is {abs(skew) / NS_PER_S:.1f} s {'ahead' if skew > 0 else 'behind'}"
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
        self._note_overflow(now)
        self._note_skew(now)
        if self._rejected_at is not None and now - self._rejected_at > _REJECTING_CLEARS_NS:
            self._rejected_at = None
            self._health.clear("source.rejecting", self.name)

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
        self._sample_clock = ArrivalClock()

    @property
    def lateness(self) -> int:
        """Nanoseconds that a slot waits after its end."""
        return self._lateness

    @property
    def _alive_until(self) -> int:
        """The stream time up to which the source's session is proved alive, where it can be."""
        until: int = getattr(self.source, "alive_until", 0)
        return until

    def _seal(self, until: int) -> None:
        sealed = self._sealer.seal(until, valid_until=self._alive_until)
        if sealed.rows:
            self._count["rows_sealed"].add(sealed.rows)
            self._count["samples_folded"].add(sealed.folded)
            self._count["samples_late"].add(sealed.late)
            self.ledger.lose("too_old", sealed.late)
            if self._on_rows is not None and self._by_message:
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

    def snapshot(self) -> Document:
        """What there is to know about the source now."""
        count = {name: counter.value for name, counter in self._count.items()}
        return {
            "connected": self.connected,
            "age_s": None if self.age_s is None else round(self.age_s, 3),
            "channels": [channel.id for channel in self.ring.channels],
            "period_ms": None if self._by_message else self.ring.period / 1e6,
            "rows": count["rows_sealed"],
            "samples": count["samples_received"],
            "folded": count["samples_folded"],
            "late": count["samples_late"],
            "backfilled": count["samples_backfilled"],
            "lost": self.ledger.snapshot(),
            "rejected": self._metrics.by_label("dxad_samples_rejected_total", "reason", source=self.name),
            "doubted": self._metrics.by_label("dxad_samples_doubted_total", "reason", source=self.name),
            "messages_rejected": count["messages_rejected"],
            "overflowed": self.overflowed,
            "skipped": getattr(self.source, "skipped", 0),
            "slips": getattr(self._sample_clock, "slips", 0),
            "faults": dict(getattr(self.source, "faults", {})),
            "connects": count["connects"],
            "disconnects": count["disconnects"],
        }
