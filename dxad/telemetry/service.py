"""The service behind one section of telemetry: sealed rows of rings into bulk records of the outbox.

Of a source that waits for the outbox it takes the samples themselves from their journal, and sooner if the
source cannot wait.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final, Literal, Self

import numpy as np
import numpy.typing as npt

from dxad.join import Feed
from dxad.outbox import Outbox
from dxad.ring.journal import Journal
from dxad.ring.ringbuffer import Reading
from dxad.runtime.clock import Clock
from dxad.runtime.health import Health
from dxad.runtime.metrics import Metrics
from dxad.telemetry.deadband import Deadband, with_gaps
from dxad.telemetry.filled import Filled
from dxad.telemetry.readings import ROWS_MOST, split
from dxad.telemetry.records import About, Records
from dxad.telemetry.samples import split_samples
from dxad.telemetry.vitals import vitals
from dxad.telemetrysection import TelemetrySection
from dxad.types import I8, NS_PER_S, Document

__all__ = ["WAITING_MOST", "Reader", "Telemetry", "rows_at_once"]

_CELLS_MOST: Final[Mapping[str, int]] = {"all": 1 << 16, "deadband": 1 << 14}
"""By mode, looked at one by one at once: some milliseconds for the event loop."""
_ROWS_LEAST: Final = 32
"""At once, however many channels there are: each has its name in each record."""
_SAMPLES_MOST: Final = 4_000
"""Taken from a journal at once, likewise."""
WAITING_MOST: Final = 4 << 20
"""Bytes that may wait for the disk; rows stay in their rings meanwhile."""
_LOOK_NS: Final = NS_PER_S
"""Rows are sealed a little after their time: nobody knows here when."""
_UNTOLD_MOST_NS: Final = 5 * NS_PER_S
"""So long a broker waits to be told: some send again after 20 s, though they had no reason to."""
_NONE: Final[Mapping[str, Journal]] = {}


def rows_at_once(section: TelemetrySection, channels: int, period: int) -> int:
    """How many rows of so many channels are copied out of a ring at once."""
    rows = -(-section.every // period)
    cells = _CELLS_MOST.get(section.mode)
    return rows if cells is None else min(rows, ROWS_MOST, max(_ROWS_LEAST, cells // channels))


@dataclass(slots=True)
class Reader:
    """One ring, and how far it was read."""

    kind: Literal["readings", "scores"]
    name: str
    """The source's or the pipeline's."""
    feed: Feed
    cursor: int | None = None
    """The first slot that was not read yet; None until the service runs."""
    lost: int = 0
    """Rows that were overwritten and that no record has told of."""
    deadband: Deadband | None = None
    """Says what is told, if not all is."""
    filled: Filled | None = None
    """Knows what was filled later, if that is told."""


class Telemetry:
    """Makes the records of one section; rows that it has read once it does not read again."""

    def __init__(
        self,
        name: str,
        section: TelemetrySection,
        feeds: Mapping[str, Feed],
        scores: Mapping[str, Feed],
        *,
        gateway: str,
        outbox: Outbox,
        clock: Clock,
        health: Health,
        metrics: Metrics,
        before: Self | None = None,
        journals: Mapping[str, Journal] = _NONE,
    ) -> None:
        """Read `feeds`, by source, and `scores`, by pipeline; and of some sources the journal.

        It goes on where `before` has ended, which ran with another section.
        """
        self.name = name
        self.feeds = dict(feeds)
        self.scores = dict(scores)
        self.journals = dict(journals)
        self._section = section
        self._clock = clock
        self._before = before
        self._gateway = gateway
        self._health = health
        self._metrics = metrics
        self.readers = [
            *(self._reader("readings", name, feed) for name, feed in feeds.items() if name not in journals),
            *(self._reader("scores", name, feed) for name, feed in scores.items()),
        ]
        self._records = Records(name, gateway=gateway, outbox=outbox, clock=clock, metrics=metrics)
        self._journals_due = self._health_due = 0
        self._lost = metrics.counter("dxad_telemetry_rows_lost_total", telemetry=name)

    def _reader(self, kind: Literal["readings", "scores"], name: str, feed: Feed) -> Reader:
        section, deadband = self._section, None
        if section.mode == "deadband" and section.band is not None:
            deadband = Deadband(
                feed.channels,
                band=section.band,
                kind=section.band_kind,
                most_rows=max(1, section.max_interval // feed.ring.period),
            )
        reader = Reader(kind, name, feed, deadband=deadband)
        if section.mode == "all" and kind == "readings":
            reader.filled = Filled(
                feed, passed=lambda: reader.cursor or 0, on_many=lambda: self._tell_filled(reader)
            )
        return reader

    async def run(self) -> None:
        """Make the records that are due, until cancelled; then one of the rest."""
        self._begin()
        try:
            async with asyncio.TaskGroup() as group:
                for source, journal in self.journals.items():
                    group.create_task(self._follow(source, journal), name=f"telemetry.{self.name}.{source}")
                await self._beat()
        finally:
            self.finish()

    def finish(self) -> None:
        """Make records of all that is there now; again, if more has come since it ended."""
        for reader in self.readers:
            while reader.cursor is not None and self._read(reader, reader.feed.ring.sealed):
                pass
            if reader.filled is not None:
                reader.filled.leave()
                self._tell_filled(reader)
        for source, journal in self.journals.items():
            while self._take(source, journal):
                pass

    async def _beat(self) -> None:
        step = min(self._section.every, _LOOK_NS)
        while True:
            await self._clock.sleep_until((self._clock.now() // step + 1) * step)
            await self.look()

    async def _follow(self, source: str, journal: Journal) -> None:
        """Take what is in a journal as soon as somebody waits, or after a while."""
        while True:
            await journal.wanted.wait()
            journal.wanted.clear()
            await self._empty(source, journal)

    async def _empty(self, source: str, journal: Journal) -> None:
        while self._records.waiting <= WAITING_MOST and self._take(source, journal):  # noqa: ASYNC110
            await asyncio.sleep(0)

    async def look(self) -> None:
        """Make the records of the stretches that have ended."""
        for reader in self.readers:
            ring = reader.feed.ring
            ended = ring.sealed * ring.period // self._section.every
            stop = -(-ended * self._section.every // ring.period)  # the first slot after the stretch
            if ring.sealed - (reader.cursor or 0) > ring.slots // 2:
                stop = ring.sealed  # it holds no whole stretch, or this comes late
            while self._records.waiting <= WAITING_MOST and self._read(reader, stop):  # noqa: ASYNC110
                await asyncio.sleep(0)  # nothing is waited for: others have their turn between two records
            self._tell_filled(reader)
        if self._clock.now() >= self._journals_due:
            for source, journal in self.journals.items():
                await self._empty(source, journal)
            self._plan_journals()
        if self._section.health and self._clock.now() >= self._health_due:
            self._tell_health()

    def _plan_journals(self) -> None:
        """The next time at which they are emptied though nobody is in a hurry."""
        self._journals_due = self._clock.now() + min(self._section.every, _UNTOLD_MOST_NS) - _LOOK_NS // 2

    def _tell_health(self) -> None:
        now, every = self._clock.now(), self._section.every
        self._health_due = (now // every + 1) * every
        if self._records.waiting <= WAITING_MOST:
            self._records.write(About("health", self._gateway, now), [*vitals(self._health, self._metrics)])

    def snapshot(self) -> Document:
        """The state as a JSON object."""
        behind = [
            (each.feed.ring.sealed - each.cursor) * each.feed.ring.period
            for each in self.readers
            if each.cursor is not None
        ]
        return {
            "mode": self._section.mode,
            "channels": sum(len(each.columns) for each in self.feeds.values()),
            "lag_s": round(max(behind, default=0) / NS_PER_S, 3),
            **self._records.snapshot(),
            "rows_lost": self._lost.value,
            "unacknowledged": sum(map(len, self.journals.values())),
        }

    def _begin(self) -> None:
        """Each ring is read from here on, or from where the one before has ended."""
        self._plan_journals()
        known = [] if self._before is None else self._before.readers
        self._before = None
        for reader in self.readers:
            if reader.filled is not None:
                reader.filled.listen()
            if reader.cursor is not None:
                continue
            ring = reader.feed.ring
            before = next((each for each in known if each.feed.ring is ring), None)
            if before is None or before.cursor is None:
                reader.cursor = ring.sealed
            else:
                reader.cursor, reader.lost = before.cursor, before.lost

    def _read(self, reader: Reader, stop: int) -> bool:
        """Make records of the next rows before `stop`, of one stretch; returns whether there were any."""
        assert reader.cursor is not None
        ring, every = reader.feed.ring, self._section.every
        start = max(reader.cursor, ring.start)
        if start >= stop:
            return False
        stop = min(stop, -(-(start * ring.period // every + 1) * every // ring.period))
        rows = rows_at_once(self._section, len(reader.feed.columns), ring.period)
        found = ring.read(start, min(stop, start + rows), reader.feed.chosen)
        reader.cursor = found.first + len(found.values)
        reader.lost += found.lost
        self._lost.add(found.lost)
        self._store(reader, found)
        return True

    def _store(self, reader: Reader, found: Reading) -> None:
        period = reader.feed.ring.period
        told, states = None, found.states
        if reader.deadband is not None:
            states = with_gaps(found.values, states)
            told = reader.deadband.told(found.first, found.values, states)
        parts = split(reader.feed.channels, found.values, states, mode=self._section.mode, told=told)
        contents: list[Document] = []
        for channels in parts:
            contents.append(
                {
                    "mode": self._section.mode,
                    "first": found.first,
                    "rows": len(found.values),
                    "period_ns": period,
                    "lost": reader.lost,
                    "channels": channels,
                }
            )
            reader.lost = 0
        if contents:
            self._records.write(About(reader.kind, reader.name, found.first * period), contents)

    def _take(self, source: str, journal: Journal) -> bool:
        """Make records of the next samples of a journal; returns whether there were any."""
        stretch = journal.take(_SAMPLES_MOST)
        if stretch is None:
            return False
        feed, slots = self.feeds[source], stretch.times // journal.period
        self._tell(feed, source, stretch.samples, slots, partial(journal.settle, stretch))
        return True

    def _tell_filled(self, reader: Reader) -> None:
        """Make records of what was filled in rows that were told before."""
        filled = reader.filled
        while filled is not None and self._records.waiting <= WAITING_MOST:
            found = filled.take()
            if found is None:
                return
            self._lost.add(filled.lost)
            lost, filled.lost = filled.lost, 0
            self._tell(reader.feed, reader.name, found.samples, found.slots, lost=lost, backfilled=True)

    def _tell(
        self,
        feed: Feed,
        source: str,
        samples: npt.NDArray[np.void],
        slots: I8,
        on_settled: Callable[[], None] | None = None,
        **more: object,
    ) -> None:
        """Make records of samples, whose columns are places in the feed, with `more` in their data."""
        first, period = int(slots.min()), feed.ring.period
        contents: list[Document] = [
            {
                "mode": "all",
                "first": first,
                "rows": int(slots.max()) + 1 - first,
                "period_ns": period,
                "lost": 0,
                **more,
                "channels": channels,
            }
            for channels in split_samples(feed.channels, samples, slots - first)
        ]
        self._records.write(About("readings", source, first * period), contents, on_settled)
