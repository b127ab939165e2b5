"""Outbox to sink: the service that connects, batches, retries and acknowledges, so that a sink need not.

    outbox ── fetch ──▶ write ──▶ ack          taken: next batch
                          │
                          ├─ Rejected ──▶ refuse   the peer will not take some: they stand aside, are offered
                          │                        again at growing intervals, and end as dead letters
                          └─ NotConnected, Backoff ──▶ close, wait, connect, fetch the same again

A write that reached the peer but whose answer was lost is repeated with the same ids. A peer that was away is
offered one record first, then twice as many each time; what has gathered goes at a pace with some jitter, and
what is critical and new overtakes it.
"""

import asyncio
import logging
from collections.abc import Coroutine, Sequence
from typing import Any, Final, NoReturn

from dxad import errors, event
from dxad.errors import ConfigError, NotConnected, Rejected
from dxad.outbox import Outbox
from dxad.runtime.backoff import Backoff
from dxad.runtime.clock import Clock
from dxad.runtime.health import Health
from dxad.runtime.metrics import Metrics
from dxad.runtime.pace import Flow, Pace, Stride
from dxad.runtime.turns import in_turns
from dxad.sinksection import SinkSection
from dxad.types import NS_PER_S, Document, Lane, Linked, Record, Sink

__all__ = ["Deliver"]

log = logging.getLogger(__name__)

_REFUSED_MOST: Final = 256
"""With so many refused the peer itself may be at fault: nothing new is offered until they are gone."""
_WRITE_MOST_S: Final = 1.0
"""A batch that takes longer is followed by a smaller one: what is critical waits for its end."""
_LOOK_NS: Final = 50_000_000
"""So often somebody who waits for its turn looks whether something critical has come."""


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
        self._filtered = metrics.counter("dxad_records_filtered_total", sink=name)
        self._refusals = metrics.counter("dxad_records_refused_total", sink=name)
        self._connects = metrics.counter("dxad_connects_total", sink=name)
        self._disconnects = metrics.counter("dxad_disconnects_total", sink=name)
        self._waits = Backoff()
        self._down: str | None = None
        self._again_at = 0
        """When a peer that is gone is tried again."""
        self._stride = Stride(section.batch, takes_most_s=_WRITE_MOST_S)
        self._pace = Pace(section.drain_rate)
        self._overtaking = False
        """Whether what was critical before is gone, so that any that there is has come since."""
        self._flow = Flow()
        self._answers = False
        """Whether the peer has answered since we have connected."""
        self._failures = 0
        """In a row."""
        self._writing: tuple[int, int] | None = None
        """How many records are being written, and since when."""
        self._refused_waits = Backoff(first_s=1.0, most_s=60.0)
        self._refused_at = 0
        """When those that were refused are offered again."""
        self._refusal = ""
        """Why, the last time; a restart forgets it."""

    async def run(self) -> None:
        """Deliver until cancelled."""
        await self._outbox.subscribe(self._name, self._section.lane_set())
        try:
            while True:
                await self._serve()
                await self._clock.sleep_until(self._again_at)
        finally:
            await self._sink.close()
            for code in ("sink.down", "sink.refusing"):
                self._health.clear(code, self._name, "no longer tried")

    @property
    def up(self) -> bool:
        """Whether the peer takes records, as far as is known."""
        return self._down is None

    def snapshot(self) -> Document:
        """The state as a JSON object."""
        backlog = self._outbox.backlog(self._name)
        coming, going = self._rates()
        left_s = self._left_s(backlog.pending, going - coming)
        return {
            "up": self.up,
            "reason": self._down,
            "waits_for": self._waits_for(backlog.pending, backlog.refused),
            "pending": backlog.pending,
            "refused": backlog.refused,
            "delivered": self._delivered.value,
            "filtered": self._filtered.value,
            "refusals": self._refusals.value,
            "batch": self._stride.size,
            "coming_per_s": round(coming, 3),
            "going_per_s": round(going, 3),
            "drained_in_s": None if left_s is None else round(left_s, 1),
        }

    def _left_s(self, pending: int, gaining_per_s: float) -> float | None:
        """In how many seconds nothing will be pending, as it goes; None where nobody can tell."""
        if not pending:
            return 0.0
        if self._down is not None:
            return None
        waits_s = 0.0
        if self._pace.active and not gaining_per_s:
            waits_s = max(0, self._pace.due - self._clock.now()) / NS_PER_S
            gaining_per_s = self._pace.rate_per_s
        return waits_s + pending / gaining_per_s if gaining_per_s > 0 else None

    def _waits_for(self, pending: int, refused: int) -> str | None:
        """Why what is pending is not with the peer yet, in words; None if nothing is."""
        now = self._clock.now()
        if self._down is not None:
            again = f", which is tried again in {_seconds(self._again_at - now)}"
            return f"the peer{again if self._again_at > now else ', which is being tried'}: {self._down}"
        if self._writing is not None:
            count, since = self._writing
            return f"the peer's answer to {_records(count)}, for {_seconds(now - since)}"
        if not pending:
            return None
        if self._pace.active and self._pace.due > now:
            return f"its turn: {self._pace.rate_per_s:g} records a second after an outage"
        if refused and (refused >= _REFUSED_MOST or refused == pending):
            most = ", before which nothing new is" if refused >= _REFUSED_MOST else ""
            in_s = _seconds(self._refused_at - now)
            why = f" ({self._refusal})" if self._refusal else ""
            return f"the peer to take {_records(refused)} that it refused{why}: offered again in {in_s}{most}"
        return "the store, to be read"

    # -- the peer -----------------------------------------------------------------------------------------

    async def _serve(self) -> None:
        """Connect, and forward until the peer is gone; then say when to try again, and why not now."""
        try:
            await self._sink.connect()
            self._connects.add()
            self._answers = False
            await self._forward()
        except errors.Backoff as error:  # the link may stay
            self._note_down(str(error), max(error.seconds, self._waits.next_s()))
        except (NotConnected, ConfigError) as error:
            # Even what is configured wrong may heal: a secret's file appears. The records wait anyway.
            self._note_down(str(error), self._waits.next_s())
            await self._sink.close()

    async def _forward(self) -> NoReturn:
        while True:
            fetched = await self._next()
            carried = await self._carried(fetched)
            if len(carried) > self._stride.size:
                fetched = fetched[: carried[self._stride.size]]
                carried = carried[: self._stride.size]
            taken = await self._offer(fetched, carried) if carried else []
            offered = frozenset(carried)
            left_out = [each for place, each in enumerate(fetched) if place not in offered]
            await self._outbox.ack(self._name, left_out + taken)
            self._delivered.add(len(taken))
            self._filtered.add(len(left_out))
            self._note_flow()

    async def _carried(self, records: Sequence[Record]) -> list[int]:
        """The places of those that the configuration does not leave out; the others are done."""
        if not self._section.selection.picks:
            return list(range(len(records)))
        return [place async for place, each in in_turns(enumerate(records)) if self._carries(each)]

    def _carries(self, record: Record) -> bool:
        try:
            return self._section.selection.takes(event.decode(record))
        except (KeyError, TypeError, ValueError):  # no event: the sink says what is wrong with it
            return True

    async def _offer(self, fetched: Sequence[Record], carried: Sequence[int]) -> list[Record]:
        """Write those that are carried of what was fetched; returns what the peer has."""
        records = [fetched[place] for place in carried]
        started = self._clock.now()
        self._writing = len(records), started
        try:
            await self._sink.write(records)
        except Rejected as error:
            self._note_taken(records, started)
            records = await self._put_by(records, error)
        except (NotConnected, errors.Backoff) as error:
            if error.taken:
                self._waits.reset()
                # Up to the first that it does not have, so that none before it is passed over.
                await self._outbox.ack(self._name, fetched[: carried[error.taken]])
                self._delivered.add(error.taken)
                self._filtered.add(carried[error.taken] - error.taken)
            self._stride.again(len(records))
            raise
        else:
            self._note_taken(records, started)
        finally:
            self._writing = None
        return records

    def _note_taken(self, records: Sequence[Record], started: int) -> None:
        """The peer has answered."""
        now = self._clock.now()
        self._stride.took(len(records), (now - started) / NS_PER_S)
        if self._pace.active:
            self._pace.spend(now, len(records), coming_per_s=self._rates()[0])
        self._note_up()

    # -- what to offer ------------------------------------------------------------------------------------

    async def _next(self) -> Sequence[Record]:
        """The next records to offer, as soon as there are any: refused ones when due, else new ones."""
        while True:
            # Of those that the configuration leaves out, more are looked at than may be written at once.
            limit = self._section.batch if self._section.selection.picks else self._stride.size
            refused = self._outbox.backlog(self._name).refused
            if refused and self._clock.now() >= self._refused_at:
                self._schedule_refused()
                if records := await self._outbox.refused(self._name, limit):
                    return records
            if refused < _REFUSED_MOST and (records := await self._outbox.fetch(self._name, limit)):
                if records := await self._in_turn(records):
                    return records
                continue
            if not refused:
                self._refused_waits.reset()
                self._note_up()
                self._health.clear("sink.refusing", self._name, "it has taken them, or they are dead letters")
            await self._more(refused)

    async def _in_turn(self, records: list[Record]) -> list[Record]:
        """Those whose turn it is: all, or what is critical and new; waits a little where there is none."""
        now = self._clock.now()
        critical = [each for each in records if each.lane is Lane.CRITICAL]
        self._overtaking = self._overtaking or not critical
        if not self._answers or not self._pace.active or self._pace.due <= now:
            return records
        if self._outbox.backlog(self._name).pending <= self._section.batch:
            self._pace.end()
            return records
        if critical and self._overtaking:
            return critical
        await self._clock.sleep_until(min(self._pace.due, now + _LOOK_NS))
        return []

    async def _more(self, refused: int) -> None:
        """Wait for new records, or until refused ones are due.

        Raises:
            NotConnected: the link has ended meanwhile.
        """
        events: list[Coroutine[Any, Any, None]] = []
        if refused < _REFUSED_MOST:
            events.append(self._outbox.wait(self._name))
        if refused:
            events.append(self._clock.sleep_until(self._refused_at))
        if isinstance(self._sink, Linked):
            events.append(self._sink.lost())
        tasks = [asyncio.create_task(each, name=f"{self._name} waits") for each in events]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in tasks:
                each.cancel()
            await asyncio.wait(tasks)
        for each in done:
            each.result()

    async def _put_by(self, records: Sequence[Record], error: Rejected) -> list[Record]:
        """Have the rejected ones offered again or buried; returns the others."""
        indices = frozenset(error.indices)
        rejected = [each for place, each in enumerate(records) if place in indices]
        self._refusals.add(len(rejected))
        self._refusal = error.reason
        buried = await self._outbox.refuse(
            self._name, rejected, error.reason, most=self._section.max_attempts
        )
        if buried:
            log.warning("%s: %s went to the dead letters: %s", self._name, _records(buried), error.reason)
        if self._refused_at <= self._clock.now():
            self._schedule_refused()
        if self._outbox.backlog(self._name).refused >= _REFUSED_MOST:
            self._health.raise_condition("sink.refusing", self._name, error.reason)
        return [each for place, each in enumerate(records) if place not in indices]

    def _schedule_refused(self) -> None:
        self._refused_at = self._clock.now() + int(self._refused_waits.next_s() * NS_PER_S)

    # -- what is noted ------------------------------------------------------------------------------------

    def _note_down(self, reason: str, away_s: float) -> None:
        self._again_at = self._clock.now() + int(away_s * NS_PER_S)
        self._disconnects.add()
        self._failures += 1
        if self._failures > 1:  # the first time may be an answer that was lost: the same batch again
            self._stride.probe()
        self._pace.end()
        self._flow.forget()
        self._down = reason
        self._health.raise_condition("sink.down", self._name, reason)

    def _note_up(self) -> None:
        """The peer takes records, or there are none to offer."""
        self._waits.reset()
        self._failures = 0
        self._down = None
        waiting = self._outbox.backlog(self._name).pending
        if not self._answers:
            self._answers = True
            if waiting > self._section.batch:
                self._pace.begin(self._clock.now(), waiting)
                self._flow.forget()
                self._overtaking = False
        self._health.clear("sink.down", self._name, f"{waiting} records were waiting")

    def _note_flow(self) -> None:
        if self._pace.active and not self._pace.started:  # its head start is no measure
            return
        waiting = self._outbox.backlog(self._name).pending
        self._flow.note(self._clock.now(), gone=self._gone, waiting=waiting)

    @property
    def _gone(self) -> int:
        return self._delivered.value + self._filtered.value

    def _rates(self) -> tuple[float, float]:
        """How many records come and how many go, a second."""
        waiting = self._outbox.backlog(self._name).pending
        return self._flow.rates(self._clock.now(), gone=self._gone, waiting=waiting)


def _seconds(ns: int) -> str:
    return f"{max(0, ns) / NS_PER_S:.1f} s"


def _records(count: int) -> str:
    return "1 record" if count == 1 else f"{count} records"
