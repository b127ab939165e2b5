"""What becomes of each sample of a source: timed, judged, and a cell of its ring; or else counted.

    samples ─▶ clock ─▶ duplicates ─▶ SampleCheck ─▶ Sealer ─▶ ring
                 │          │                           │
                ahead    duplicate       late, too_old, waiting, folded

Nothing is lost uncounted. At any time

    received = stored + folded + duplicate + ahead + late + too_old + waiting + pending

where `stored` are cells that are made of a sample, good or not, and `pending` are samples whose slots have
not ended yet; `ahead`, `late`, `too_old` and `waiting` are what the ledger calls lost. What was rejected or
doubted is so by quality: it is among the stored and the others all the same. What was lost before it was
received, since a source's queue was full, is `queue` in the ledger: it has decoded received + queue samples.
"""

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from dxad.fields import SourceSection
from dxad.ring.duplicates import Duplicates
from dxad.ring.journal import Journal
from dxad.ring.ringbuffer import RingBuffer
from dxad.ring.samplecheck import SampleCheck
from dxad.ring.sampleclock import NO_TIME, ArrivalClock, CountedClock, DeviceClock, DeviceClocks, SampleClock
from dxad.ring.sealer import Sealer
from dxad.ring.tally import Tally
from dxad.runtime.ledger import Ledger
from dxad.runtime.metrics import Metrics
from dxad.types import I8, NS_PER_S, Document, Quality, Reason

__all__ = ["Admission", "waiting_most"]

_SESSION: Final = -1
"""The hold of a column that stays valid while the source's session is proved alive."""
_GAP_LEAST_NS: Final = NS_PER_S // 2
_WAITING_LEAST: Final = 10_000
_COUNTERS: Final = (
    "samples_received", "samples_stored", "samples_folded", "samples_duplicate", "samples_late",
    "samples_backfilled", "rows_sealed",
)  # fmt: skip


def waiting_most(section: SourceSection) -> int:
    """How many samples of a source may wait for their slots to end."""
    return max(2 * section.queue, _WAITING_LEAST)


class Admission:
    """The way of one source's samples into its ring."""

    def __init__(
        self,
        name: str,
        section: SourceSection,
        ring: RingBuffer,
        *,
        metrics: Metrics,
        devices: Callable[[], Sequence[str]] | None,
        journal: Journal | None = None,
    ) -> None:
        """Write `ring`, and `journal` where the source waits for the outbox.

        `devices` tells, where the source has several, by column the device it is of.
        """
        channels = list(section.channel_sections().values())
        self._name = name
        self._ring = ring
        self._metrics = metrics
        self._devices = devices
        self._journal = journal
        self._by_message = section.period is None
        holds = [section.hold if each.hold is None else each.hold for each in channels]
        self.holds_ns = [
            _SESSION if hold == "session" else 2 * ring.period if hold is None else hold for hold in holds
        ]
        """By column; below zero, a value holds as long as the session is proved alive."""
        self._sealer = Sealer(
            ring,
            folds=[each.fold for each in channels],
            holds_ns=self.holds_ns,
            waiting_most=waiting_most(section),
        )
        self.clock = self._made_clock(section)
        """When samples were taken."""
        self._check = SampleCheck(channels, period=ring.period)
        self._duplicates = None
        if isinstance(self.clock, DeviceClock | DeviceClocks):
            # What is held by session is told again by the next one, with the stamp it had.
            self._duplicates = Duplicates(np.array(self.holds_ns) >= 0)
        self._tally = Tally(len(channels)) if devices is not None else None
        self.count = {each: metrics.counter(f"dxad_{each}_total", source=name) for each in _COUNTERS}
        self.ledger = Ledger(metrics, f"sources.{name}")

    def _made_clock(self, section: SourceSection) -> SampleClock:
        period = self._ring.period
        if self._by_message or section.clock == "arrival":
            return ArrivalClock()
        if section.clock == "device":
            return DeviceClock() if self._devices is None else DeviceClocks(self._devices)
        return CountedClock(period=period, gap=section.gap or max(20 * period, _GAP_LEAST_NS))

    def believe_arrivals(self) -> None:
        """Samples arrive at their own times, whatever clock is configured: so do rows of the past."""
        self.clock = ArrivalClock()

    @property
    def pending(self) -> int:
        """Samples that wait for their slots to end."""
        return self._sealer.waiting

    def take(self, samples: npt.NDArray[np.void]) -> bool:
        """Take consecutive samples of dtype `SAMPLE`; returns whether each came after its slot was sealed."""
        self.count["samples_received"].add(len(samples))
        if self._tally is not None:
            self._tally.receive(samples)
        samples, times = self._timed(samples)
        samples, times = self._first_time(samples, times)
        samples = self._check.apply(samples, times)
        self._count_doubted(samples)
        if self._by_message:
            times = samples["message"].astype(np.int64)
        if self._journal is not None:
            self._journal.add(samples, times)
        sealed_ns = self._ring.sealed * self._ring.period
        accepted = self._sealer.accept(samples, times)
        late = accepted.after_sealing
        self.count["samples_folded"].add(accepted.merged)
        if late or accepted.waiting:
            self.count["samples_late"].add(late)
            self.count["samples_backfilled"].add(accepted.backfilled)
            self.count["samples_stored"].add(accepted.backfilled)
            self.count["samples_folded"].add(accepted.folded)
            self.ledger.lose("late", accepted.late)
            self.ledger.lose("too_old", accepted.too_old)
            self.ledger.lose("waiting", accepted.waiting)
            if late and self._tally is not None:
                self._tally.count("late", samples[times < sealed_ns])
        return late == len(samples) > 0

    def _timed(self, samples: npt.NDArray[np.void]) -> tuple[npt.NDArray[np.void], I8]:
        """Those that have a time, with their times."""
        times = self.clock.times(samples)
        if isinstance(self.clock, ArrivalClock):
            return samples, times
        timed = times != NO_TIME
        if timed.all():
            return samples, times
        self.ledger.lose("ahead", int(np.count_nonzero(~timed)))
        if self._tally is not None:
            self._tally.count("ahead", samples[~timed])
        return samples[timed], times[timed]

    def _first_time(self, samples: npt.NDArray[np.void], times: I8) -> tuple[npt.NDArray[np.void], I8]:
        """Those that have not come before."""
        again = None if self._duplicates is None else self._duplicates.among(samples)
        if again is None:
            return samples, times
        self.count["samples_duplicate"].add(int(np.count_nonzero(again)))
        if self._tally is not None:
            self._tally.count("duplicate", samples[again])
        return samples[~again], times[~again]

    def _count_doubted(self, samples: npt.NDArray[np.void]) -> None:
        """Count all that is BAD, or UNCERTAIN, by its reason."""
        quality = samples["quality"]
        if not np.count_nonzero(quality):
            return
        for name, kind in (("rejected", Quality.BAD), ("doubted", Quality.UNCERTAIN)):
            reasons = samples["reason"][quality == kind]
            for reason in np.unique(reasons):
                self._metrics.counter(
                    f"dxad_samples_{name}_total", source=self._name, reason=Reason(reason).name.lower()
                ).add(int(np.count_nonzero(reasons == reason)))
        if self._tally is not None:
            self._tally.reject(samples)

    def seal(self, until: int, *, valid_until: int) -> int:
        """Seal the slots that end at or before the stream time `until`; returns how many.

        `valid_until` is the stream time up to which the source's session is proved alive.
        """
        sealed = self._sealer.seal(until, valid_until=valid_until)
        if sealed.rows:
            self.count["rows_sealed"].add(sealed.rows)
            self.count["samples_stored"].add(sealed.stored)
            self.count["samples_folded"].add(sealed.folded)
            self.count["samples_late"].add(sealed.late)
            self.ledger.lose("too_old", sealed.late)
        return sealed.rows

    @property
    def devices(self) -> dict[str, Document]:
        """What became of each device's samples, by its name; empty where it is the only one."""
        if self._tally is None or self._devices is None:
            return {}
        names = self._devices()
        return self._tally.by_device(names) if len(set(names) - {""}) > 1 else {}

    def snapshot(self) -> Document:
        """What there is to know about the samples now."""
        count = {name: counter.value for name, counter in self.count.items()}
        return {
            "rows": count["rows_sealed"],
            "samples": count["samples_received"],
            "stored": count["samples_stored"],
            "folded": count["samples_folded"],
            "duplicate": count["samples_duplicate"],
            "pending": self.pending,
            "late": count["samples_late"],
            "backfilled": count["samples_backfilled"],
            "lost": self.ledger.snapshot(),
            "overwritten": self._ring.overwritten,
            "rejected": self._metrics.by_label("dxad_samples_rejected_total", "reason", source=self._name),
            "doubted": self._metrics.by_label("dxad_samples_doubted_total", "reason", source=self._name),
        }
