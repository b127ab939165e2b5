"""Outbox to sink: the service that connects, batches, retries and acknowledges, so that a sink need not.

    outbox ── fetch ──▶ write ──▶ ack          taken: next batch
                          │
                          ├─ Rejected ──▶ refuse   the peer will not take some: they stand aside, are offered
                          │                        again at growing intervals, and end as dead letters
                          └─ NotConnected, Backoff ──▶ close, wait, connect, fetch the same again

A write that reached the peer but whose answer was lost is repeated with the same ids.
"""

import asyncio
import logging
from collections.abc import Coroutine, Sequence
from typing import Any, Final, NoReturn

from dxad import errors
from dxad.errors import ConfigError, NotConnected, Rejected
from dxad.fields import SinkSection
from dxad.outbox import Outbox
from dxad.runtime.backoff import Backoff
from dxad.runtime.clock import Clock
from dxad.runtime.health import Health
from dxad.runtime.metrics import Metrics
from dxad.types import Record, Sink

__all__ = ["Deliver"]

log = logging.getLogger(__name__)

_REFUSED_MOST: Final = 256
"""With so many refused the peer itself may be at fault: nothing new is offered until they are gone."""


class Deliver:
    """Carries the records of a sink's lanes to it."""

    def __init__(
        self,
        name: str,
        sink: Sink,
        outbox: Outbox,
        section: SinkSection,
        *,
        clock: Clock,
        health: Health,
        metrics: Metrics,
    ) -> None:
        self._name = name
        self._sink = sink
        self._outbox = outbox
        self._section = section
        self._clock = clock
        self._health = health
        self._delivered = metrics.counter("dxad_records_delivered_total", sink=name)
        self._connects = metrics.counter("dxad_connects_total", sink=name)
        self._disconnects = metrics.counter("dxad_disconnects_total", sink=name)
        self._waits = Backoff()
        self._down: str | None = None
        self._refused_waits = Backoff(first_s=1.0, most_s=60.0)
        self._refused_at = 0
        """When those that were refused are offered again."""

    async def run(self) -> None:
        """Deliver until cancelled."""
        await self._outbox.subscribe(self._name, self._section.lane_set())
        try:
            while True:
                away_s = await self._serve()
                await self._sink.close()
                await self._clock.sleep_until(self._clock.now() + int(away_s * 1e9))
        finally:
            await self._sink.close()
            self._health.clear("sink.down", self._name, "no longer tried")

    def snapshot(self) -> dict[str, Any]:
        """The state as a JSON object."""
        backlog = self._outbox.backlog(self._name)
        return {
            "up": self._down is None,
            "reason": self._down,
            "pending": backlog.pending,
            "refused": backlog.refused,
            "delivered": self._delivered.value,
        }

    async def _serve(self) -> float:
        """Connect, and forward until the peer is gone; returns how many seconds to stay away."""
        try:
            await self._sink.connect()
            self._connects.add()
            await self._forward()
        except errors.Backoff as error:
            self._note_down(str(error))
            return max(error.seconds, self._waits.next_s())
        except (NotConnected, ConfigError) as error:
            # Even what is configured wrong may heal: a secret's file appears. The records wait anyway.
            self._note_down(str(error))
            return self._waits.next_s()

    async def _forward(self) -> NoReturn:
        while True:
            records = await self._next()
            try:
                await self._sink.write(records)
            except Rejected as error:
                self._note_up()
                records = await self._put_by(records, error)
            else:
                self._note_up()
            await self._outbox.ack(self._name, records)
            self._delivered.add(len(records))

    async def _next(self) -> Sequence[Record]:
        """The next records to offer, as soon as there are any: refused ones when due, else new ones."""
        limit = self._section.batch
        while True:
            refused = self._outbox.backlog(self._name).refused
            if refused and self._clock.now() >= self._refused_at:
                self._schedule_refused()
                if records := await self._outbox.refused(self._name, limit):
                    return records
            if refused < _REFUSED_MOST and (records := await self._outbox.fetch(self._name, limit)):
                return records
            if not refused:
                self._refused_waits.reset()
                self._note_up()
            await self._more(refused)

    async def _more(self, refused: int) -> None:
        """Wait for new records, or until refused ones are due."""
        events: list[Coroutine[Any, Any, None]] = []
        if refused < _REFUSED_MOST:
            events.append(self._outbox.wait(self._name))
        if refused:
            events.append(self._clock.sleep_until(self._refused_at))
        tasks = [asyncio.create_task(each, name=f"{self._name} waits") for each in events]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in tasks:
                each.cancel()
            await asyncio.wait(tasks)

    async def _put_by(self, records: Sequence[Record], error: Rejected) -> list[Record]:
        """Have the rejected ones offered again or buried; returns the others."""
        indices = frozenset(error.indices)
        rejected = [each for place, each in enumerate(records) if place in indices]
        buried = await self._outbox.refuse(
            self._name, rejected, error.reason, most=self._section.max_attempts
        )
        if buried:
            log.warning("%s: %d records went to the dead letters: %s", self._name, buried, error.reason)
        if self._refused_at <= self._clock.now():
            self._schedule_refused()
        return [each for place, each in enumerate(records) if place not in indices]

    def _schedule_refused(self) -> None:
        self._refused_at = self._clock.now() + int(self._refused_waits.next_s() * 1e9)

    def _note_down(self, reason: str) -> None:
        self._disconnects.add()
        self._down = reason
        self._health.raise_condition("sink.down", self._name, reason)

    def _note_up(self) -> None:
        """The peer takes records, or there are none to offer."""
        self._waits.reset()
        self._down = None
        waiting = self._outbox.backlog(self._name).pending
        self._health.clear("sink.down", self._name, f"{waiting} records were waiting")
