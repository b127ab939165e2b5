"""The service behind one section of telemetry: sealed rows of rings into bulk records of the outbox."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, Self

import msgpack

from dxad.errors import NotConnected, OutboxFull
from dxad.event import Told, rfc3339
from dxad.join import Feed
from dxad.outbox import Outbox
from dxad.ring.ringbuffer import Reading
from dxad.runtime.clock import Clock
from dxad.runtime.metrics import Metrics
from dxad.telemetry.readings import ROWS_MOST, split
from dxad.telemetrysection import TelemetrySection
from dxad.types import NS_PER_S, Document

__all__ = ["Reader", "Telemetry"]

_CELLS_MOST: Final = 1 << 18
"""Copied out of a ring at once in mode all."""
_WAITING_MOST: Final = 4 << 20
"""Bytes that may wait for the disk; rows stay in their rings meanwhile."""
_LOOK_NS: Final = NS_PER_S
"""Rows are sealed a little after their time: nobody knows here when."""


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
        metrics: Metrics,
        before: Self | None = None,
    ) -> None:
        """Read `feeds`, by source, and `scores`, by pipeline.

        It goes on where `before` has ended, which ran with another section.
        """
        self.name = name
        self.feeds = dict(feeds)
        self.scores = dict(scores)
        self._section = section
        self._gateway = gateway
        self._outbox = outbox
        self._clock = clock
        self._before = before
        self.readers = [
            *(Reader("readings", source, feed) for source, feed in feeds.items()),
            *(Reader("scores", pipeline, feed) for pipeline, feed in scores.items()),
        ]
        self._waiting = 0
        self._records = metrics.counter("dxad_telemetry_records_total", telemetry=name)
        self._bytes = metrics.counter("dxad_telemetry_bytes_total", telemetry=name)
        self._lost = metrics.counter("dxad_telemetry_rows_lost_total", telemetry=name)
        self._refused = metrics.counter("dxad_telemetry_records_lost_total", telemetry=name)

    async def run(self) -> None:
        """Make the records that are due, until cancelled; then one of the rest."""
        self._begin()
        step = min(self._section.every, _LOOK_NS)
        try:
            while True:
                await self._clock.sleep_until((self._clock.now() // step + 1) * step)
                await self.look()
        finally:
            for reader in self.readers:
                while self._read(reader, reader.feed.ring.sealed):
                    pass

    async def look(self) -> None:
        """Make the records of the stretches that have ended."""
        for reader in self.readers:
            ring = reader.feed.ring
            ended = ring.sealed * ring.period // self._section.every
            stop = -(-ended * self._section.every // ring.period)  # the first slot after the stretch
            if ring.sealed - (reader.cursor or 0) > ring.slots // 2:
                stop = ring.sealed  # it holds no whole stretch, or this comes late
            while self._waiting <= _WAITING_MOST and self._read(reader, stop):  # noqa: ASYNC110
                await asyncio.sleep(0)  # nothing is waited for: others have their turn between two records

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
            "records": self._records.value,
            "bytes": self._bytes.value,
            "waiting_bytes": self._waiting,
            "rows_lost": self._lost.value,
            "records_lost": self._refused.value,
        }

    def _begin(self) -> None:
        """Each ring is read from here on, or from where the one before has ended."""
        known = [] if self._before is None else self._before.readers
        self._before = None
        for reader in self.readers:
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
        if self._section.mode == "all":
            rows = max(1, min(ROWS_MOST, _CELLS_MOST // len(reader.feed.columns)))
            stop = min(stop, start + rows)
        found = ring.read(start, stop, reader.feed.chosen)
        reader.cursor = found.first + len(found.values)
        reader.lost += found.lost
        self._lost.add(found.lost)
        self._store(reader, found)
        return True

    def _store(self, reader: Reader, found: Reading) -> None:
        ring = reader.feed.ring
        parts = list(split(reader.feed.channels, found.values, found.states, mode=self._section.mode))
        if not parts:
            return
        at = found.first * ring.period
        told = Told(self._outbox.boot.id, self._clock.synchronised)
        envelope = {
            "specversion": "1.0",
            "type": f"dxad.telemetry.{reader.kind}",
            "source": f"/{self._gateway}/telemetry/{self.name}",
            "subject": reader.name,
            "time": rfc3339(self._clock.utc(at)),
            "datacontenttype": "application/json",
            **told.attributes(at),
        }
        bodies: list[bytes] = []
        for channels in parts:
            data = {
                "mode": self._section.mode,
                "first": found.first,
                "rows": len(found.values),
                "period_ns": ring.period,
                "lost": reader.lost,
                "channels": channels,
            }
            bodies.append(msgpack.packb({**envelope, "data": data}))
            reader.lost = 0
        size = sum(map(len, bodies))
        self._waiting += size
        stored = self._outbox.append_bulk(bodies, at_ns=[at] * len(bodies))

        def settle(stored: asyncio.Future[Any]) -> None:
            self._waiting -= size
            failed = stored.cancelled() or isinstance(stored.exception(), OutboxFull | NotConnected)
            if failed:
                self._refused.add(len(bodies))
            else:
                self._records.add(len(bodies))
                self._bytes.add(size)

        stored.add_done_callback(settle)
