"""Consumers that come and fetch: an agent leases events, and says when it is done with each.

    lease ─▶ out, for a while ─▶ ack: done
                  │  nack: back at once, or after a delay; too often: a dead letter
                  └─ no word: back when the lease ends

Of one consumer, any number of agents may lease: no event is with two of them at the same time. There is no
order among leased events. Leases run on the boot clock and end with the daemon; how often an event was given
out is remembered.
"""

import asyncio
import logging
import secrets
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final

from dxad.consumersection import ConsumerSection
from dxad.errors import ConfigError, NotConnected
from dxad.event import Event, identity
from dxad.outbox import Outbox
from dxad.outbox.leasing import PREFIX, Given, Known
from dxad.outboxsection import OutboxSection
from dxad.pulling.consumer import Consumer, Lease
from dxad.pulling.wants import ATTEMPTS_MOST, Declared, Wants
from dxad.runtime.clock import Clock
from dxad.runtime.metrics import Metrics
from dxad.runtime.waits import comes_within
from dxad.types import NS_PER_S, Document

__all__ = ["ATTEMPTS_MOST", "Consumers", "Declared", "Wants"]

log = logging.getLogger(__name__)

_CONSUMERS_MOST: Final = 16
_OUT_MOST: Final = 10_000
"""Leases of one consumer at a time."""
_LOOK_NS: Final = 60 * NS_PER_S
_NOTE_NS: Final = 3600 * NS_PER_S
"""How often it is noted how long a consumer has been silent."""
_POLL_S: Final = 1.0


class Consumers:
    """All pull consumers."""

    def __init__(
        self,
        outbox: Outbox,
        *,
        gateway: str,
        clock: Clock,
        metrics: Metrics,
        ttl: int,
        tell: Callable[[Event], None],
        declared: Mapping[str, Declared] | None = None,
        declared_only: bool = False,
    ) -> None:
        """Serve from `outbox`; drop consumers that are silent for `ttl` nanoseconds, and tell of it.

        Those `declared` in the configuration are there from the start, are never dropped and always want
        what is declared; with `declared_only` nobody else may lease.
        """
        self._declared = dict(declared or {})
        self._declared_only = declared_only
        self.ttl = ttl
        self._tell = tell
        self._outbox = outbox
        self._gateway = gateway
        self._clock = clock
        self._counts = {
            what: metrics.counter(f"dxad_events_{what}_total") for what in ("leased", "acked", "nacked")
        }
        self._all: dict[str, Consumer] = {}
        self._loaded = False
        self._kept: Mapping[str, Declared] | None = None
        """What is declared and known to keep events for."""
        self._changed = asyncio.Event()

    def adjust(self, section: OutboxSection, declared: Mapping[str, ConsumerSection]) -> None:
        """The configuration is another one: those no longer declared stay for as long as others do."""
        self.ttl = section.consumer_ttl
        self._declared_only = section.consumers == "declared"
        self._declared = {name: Declared.of(each) for name, each in declared.items()}
        self._changed.set()

    async def run(self) -> None:
        """Know the consumers of before, and drop those that are silent for too long; wait for a disk."""
        while True:
            try:
                await self._load()
                await self._look()
            except NotConnected:  # the outbox says so, and mends it
                await self._clock.sleep_until(self._clock.now() + NS_PER_S)
            else:
                if await comes_within(self._changed.wait(), _LOOK_NS, self._clock, "consumers"):
                    self._changed.clear()

    async def _load(self) -> None:
        if not self._loaded:
            now = self._clock.now()
            for known in await self._outbox.consumers():
                if known.name not in self._all:
                    wants = Wants.of(known.wants)
                    self._all[known.name] = Consumer(wants, now - known.silent_ns, now)
                    await self._outbox.subscribe(PREFIX + known.name, wants.lane_set)
            self._loaded = True
        declared = self._declared
        if self._kept is declared:
            return
        for name, each in declared.items():
            there = self._all.get(name)
            if there is None or there.wants != each.wants:
                await self._want(name, there, each.wants)
        self._kept = declared

    async def _look(self) -> None:
        now = self._clock.now()
        for name, each in list(self._all.items()):
            if now - each.seen > self.ttl and name not in self._declared:
                await self._gone(name, each, f"it was silent for {(now - each.seen) / NS_PER_S / 3600:.1f} h")
            elif now - each.noted > _NOTE_NS:
                each.noted = now
                await self._outbox.note_consumer(name, Known(name, each.wants.document(), now - each.seen))

    async def _gone(self, name: str, consumer: Consumer, why: str) -> None:
        waiting = self._outbox.backlog(PREFIX + name).pending
        consumer.dropped = True
        del self._all[name]
        await self._outbox.unsubscribe(PREFIX + name)
        await self._outbox.note_consumer(name, None)
        log.warning("consumer %s is dropped: %s; %d events waited for it alone", name, why, waiting)
        now = self._clock.now()
        event = Event(
            identity("consumer dropped", self._gateway, self._outbox.boot.id, name, consumer.seen),
            "dxad.outbox.consumer.dropped",
            f"/{self._gateway}/outbox",
            self._outbox.boot.offset_ns + now,
            {"consumer": name, "reason": why, "waiting": waiting},
            subject=name,
        )
        self._tell(event)

    # -- what agents ask ----------------------------------------------------------------------------------

    async def lease(
        self,
        name: str,
        *,
        limit: int,
        lease_ns: int,
        wait_ns: int = 0,
        wants: Document | None = None,
        oldest: bool = True,
        uid: int | None = None,
    ) -> list[Document]:
        """Give out events, as soon as there are any within `wait_ns`; the consumer is made at its first call.

        Args:
            name: the consumer.
            limit: events at most.
            lease_ns: how long they are its own.
            wait_ns: how long to wait for the first.
            wants: which it is given from now on, see `Wants`; None: as before, or all of the lanes critical
                and normal.
            oldest: a new consumer begins with the oldest event that is stored; False: with the next one.
            uid: whose call it is, for the log.

        Returns:
            `lease` (a token), `for_s`, `attempts`, `event`.

        Raises:
            ConfigError: there are too many consumers, or too many leases out.
            NotConnected: the disk fails.
        """
        await self._load()
        asked = None if wants is None else Wants.of(wants)
        consumer = await self._known(name, asked, oldest=oldest)
        if uid is not None and uid not in consumer.uids:
            consumer.uids.add(uid)
            log.info("uid %d leases events as consumer %s, for the first time in this run", uid, name)
        deadline = self._clock.now() + wait_ns
        while True:
            async with consumer.giving:
                if self._all.get(name) is not consumer:
                    if consumer.dropped:
                        raise ConfigError(f"no consumer {name!r} any more: somebody has dropped it")
                    consumer = await self._known(name, asked, oldest=oldest)  # making it has failed
                    continue
                consumer.seen = now = self._clock.now()
                held = consumer.held(now)
                if len(consumer.leases) + limit > _OUT_MOST:
                    raise ConfigError(f"{len(consumer.leases)} leases are out, {_OUT_MOST} at most: ack some")
                given, more = await self._give(name, consumer, limit, held)
                if given:
                    return self._leased(consumer, given, lease_ns)
            if not more:
                left = deadline - self._clock.now()
                if left <= 0:
                    return []
                await self._news(name, consumer, left)

    async def _give(
        self, name: str, consumer: Consumer, limit: int, held: Collection[int]
    ) -> tuple[list[Given], bool]:
        """What is given out, and whether there may be more; whoever hangs up meanwhile has had nothing."""
        giving = asyncio.create_task(
            self._outbox.lease(
                PREFIX + name,
                limit,
                held=held,
                unheard=frozenset(consumer.unheard),
                wants=consumer.wants.selection.takes,
                most=self._most(name),
            ),
            name=f"{name} leases",
        )
        try:
            given, _, more = await asyncio.shield(giving)
        except asyncio.CancelledError:
            await asyncio.wait([giving])
            if not giving.cancelled() and giving.exception() is None:
                consumer.unheard |= {each.record.seq for each in giving.result()[0]}
            raise
        return given, more

    def _most(self, name: str) -> int:
        return self._declared[name].max_attempts if name in self._declared else ATTEMPTS_MOST

    def release(self, name: str, tokens: Sequence[str]) -> None:
        """Nobody has heard of these leases: they were never given, and are there for the next one."""
        consumer = self._all.get(name)
        if consumer is None:
            return
        leases = [consumer.leases.pop(each) for each in tokens if each in consumer.leases]
        consumer.given -= len(leases)
        consumer.unheard |= {each.seq for each in leases}
        log.debug("consumer %s hung up before it had %d events: they are free again", name, len(leases))
        self._outbox.wake(PREFIX + name)

    def _leased(self, consumer: Consumer, given: Sequence[Given], lease_ns: int) -> list[Document]:
        until = self._clock.now() + lease_ns
        told: list[Document] = []
        for each in given:
            token = secrets.token_hex(12)  # never begins with -, which a command line takes for an option
            consumer.unheard.discard(each.record.seq)
            consumer.leases[token] = Lease(each.record.seq, each.record.id, until, each.attempts)
            told.append(
                {"lease": token, "for_s": lease_ns / NS_PER_S, "attempts": each.attempts, "event": each.event}
            )
        consumer.given += len(told)
        self._counts["leased"].add(len(told))
        return told

    async def _news(self, name: str, consumer: Consumer, left: int) -> None:
        """Wait for something new, or for something to come back, a second at most."""
        back = consumer.next_back()
        wait_ns = min(left, int(_POLL_S * NS_PER_S))
        if back is not None:
            wait_ns = min(wait_ns, max(0, back - self._clock.now()) + 1)
        await comes_within(self._outbox.wait(PREFIX + name), wait_ns, self._clock, name)

    async def _known(self, name: str, wants: Wants | None, *, oldest: bool) -> Consumer:
        consumer = self._all.get(name)
        if self._declared_only and name not in self._declared:
            raise ConfigError(
                f"no consumer {name!r} is declared, and only those may lease: add [consumers.{name}], or set "
                'consumers = "any" in [outbox]'
            )
        if name in self._declared and wants not in (None, self._declared[name].wants):
            raise ConfigError(f"what consumer {name} wants is set in [consumers.{name}] of the configuration")
        if consumer is None:
            return await self._new(name, wants or Wants(), oldest=oldest)
        if wants is not None and wants != consumer.wants:
            consumer.wants = wants
            await self._outbox.subscribe(PREFIX + name, wants.lane_set)
            await self._outbox.note_consumer(name, Known(name, wants.document(), 0))
        return consumer

    async def _new(self, name: str, wants: Wants, *, oldest: bool) -> Consumer:
        """Make a consumer, wholly or not at all; nobody is given anything before it is made."""
        if len(self._all) >= _CONSUMERS_MOST:
            raise ConfigError(
                f"there are {_CONSUMERS_MOST} consumers already: {', '.join(self._all)}; drop one first"
            )
        now = self._clock.now()
        consumer = self._all[name] = Consumer(wants, now, now)
        async with consumer.giving:
            try:
                await self._outbox.subscribe(PREFIX + name, wants.lane_set)
                if not oldest:
                    await self._outbox.skip(PREFIX + name)
                await self._outbox.note_consumer(name, Known(name, wants.document(), 0))
            except (NotConnected, asyncio.CancelledError):
                del self._all[name]
                await self._outbox.unsubscribe(PREFIX + name)
                raise
        log.info("consumer %s is new: it is given %s", name, wants.words())
        return consumer

    async def _want(self, name: str, consumer: Consumer | None, wants: Wants) -> None:
        """Keep for a declared consumer what it is declared to want, from now on."""
        if consumer is None:
            now = self._clock.now()
            consumer = self._all[name] = Consumer(wants, now, now)
        consumer.wants = wants
        await self._outbox.subscribe(PREFIX + name, wants.lane_set)
        await self._outbox.note_consumer(
            name, Known(name, wants.document(), self._clock.now() - consumer.seen)
        )

    async def ack(self, name: str, tokens: Sequence[str]) -> Document:
        """The consumer is done with these; durable when it returns: `acked`, and those that were `stale`."""
        consumer, leases, stale = self._leases(name, tokens)
        await self._outbox.settle(PREFIX + name, [each.seq for each in leases.values()])
        acked = consumer.end(leases)  # not before: if the disk fails, they may be acked again
        consumer.acked += acked
        self._counts["acked"].add(acked)
        return {"acked": len(leases), "stale": stale}

    async def nack(self, name: str, tokens: Sequence[str], *, reason: str, delay_ns: int) -> Document:
        """The consumer cannot do these: they are given out again after the delay, or become dead letters."""
        consumer, leases, stale = self._leases(name, tokens)
        most = self._most(name)
        over = [each.seq for each in leases.values() if each.attempts >= most]
        buried = await self._outbox.give_up(PREFIX + name, over, reason) if over else 0
        if delay_ns:
            until = self._clock.now() + delay_ns
            consumer.resting |= {each.seq: until for each in leases.values() if each.seq not in over}
        nacked = consumer.end(leases)
        consumer.nacked += nacked
        self._counts["nacked"].add(nacked)
        self._outbox.wake(PREFIX + name)
        return {"nacked": len(leases), "dead_letters": buried, "stale": stale}

    def extend(self, name: str, tokens: Sequence[str], lease_ns: int) -> Document:
        """The consumer needs longer: the leases end so much later than now."""
        consumer = self._consumer(name)
        consumer.seen = now = self._clock.now()
        consumer.held(now)
        known = [token for token in tokens if token in consumer.leases]
        for token in known:
            consumer.leases[token].until = now + lease_ns
        return {"extended": len(known), "stale": [each for each in tokens if each not in consumer.leases]}

    def _leases(self, name: str, tokens: Sequence[str]) -> tuple[Consumer, dict[str, Lease], list[str]]:
        """These leases; those that are over, or somebody else's, are stale."""
        consumer = self._consumer(name)
        consumer.seen = now = self._clock.now()
        consumer.held(now)
        stale = [each for each in tokens if each not in consumer.leases]
        return consumer, {each: consumer.leases[each] for each in tokens if each in consumer.leases}, stale

    def _consumer(self, name: str) -> Consumer:
        if name not in self._all:
            there = f"there are {', '.join(self._all)}" if self._all else "there are none"
            raise ConfigError(f"no consumer {name!r}; {there}")
        return self._all[name]

    async def drop(self, name: str) -> Document:
        """The consumer is no more: what waited for it alone is dropped."""
        consumer = self._consumer(name)
        if name in self._declared:
            raise ConfigError(
                f"consumer {name} is declared: take [consumers.{name}] out of the configuration"
            )
        await self._gone(name, consumer, "somebody has dropped it")
        return {"dropped": name}

    def snapshot(self) -> list[Document]:
        """All consumers."""
        now = self._clock.now()
        return [
            {
                "name": name,
                "wants": each.wants.document(),
                "declared": name in self._declared,
                "max_attempts": self._most(name),
                "uids": sorted(each.uids),
                "out": len(each.leases),
                "waiting": self._outbox.backlog(PREFIX + name).pending - len(each.leases),
                "silent_s": round((now - each.seen) / NS_PER_S, 3),
                "given": each.given,
                "acked": each.acked,
                "nacked": each.nacked,
                "expired": each.expired,
            }
            for name, each in self._all.items()
        ]
