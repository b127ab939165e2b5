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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Final

from dxad.errors import ConfigError, NotConnected
from dxad.event import Event, identity
from dxad.outbox import Outbox
from dxad.outbox.leasing import PREFIX, Given, Known
from dxad.runtime.clock import Clock
from dxad.runtime.metrics import Metrics
from dxad.types import NS_PER_S, Document, Lane

__all__ = ["ATTEMPTS_MOST", "Consumers", "Wants"]

log = logging.getLogger(__name__)

_CONSUMERS_MOST: Final = 16
_OUT_MOST: Final = 10_000
"""Leases of one consumer at a time."""
_LOOK_NS: Final = 60 * NS_PER_S
_NOTE_NS: Final = 3600 * NS_PER_S
"""How often it is noted how long a consumer has been silent."""
_POLL_S: Final = 1.0
ATTEMPTS_MOST: Final = 10
"""How often an event is given out before it is a dead letter."""


@dataclass(frozen=True, slots=True)
class Wants:
    """Which events a consumer is given."""

    lanes: tuple[str, ...] = ("critical", "normal")
    types: tuple[str, ...] = ("*",)
    severities: tuple[str, ...] = ()
    pipelines: tuple[str, ...] = ()

    @property
    def lane_set(self) -> frozenset[Lane]:
        """The lanes as the outbox names them."""
        return frozenset(Lane[each.upper()] for each in self.lanes)

    def takes(self, event: Document) -> bool:
        """Whether it is one of them."""
        if not any(fnmatchcase(str(event.get("type", "")), each) for each in self.types):
            return False
        data = event.get("data")
        found: Document = data if isinstance(data, dict) else {}
        if self.severities and found.get("severity") not in self.severities:
            return False
        if not self.pipelines:
            return True
        _, _, pipeline = str(event.get("source", "")).partition("/pipelines/")
        return any(fnmatchcase(pipeline, each) for each in self.pipelines)

    def document(self) -> Document:
        """As a JSON object."""
        return {
            "lanes": list(self.lanes),
            "types": list(self.types),
            "severities": list(self.severities),
            "pipelines": list(self.pipelines),
        }

    @classmethod
    def of(cls, document: Document) -> "Wants":
        """What `document` has made of it."""
        return cls(**{key: tuple(value) for key, value in document.items()})


@dataclass(slots=True)
class _Lease:
    seq: int
    id: str
    until: int
    """The stream time it ends; of one that was given back, when it may be given out again."""
    attempts: int


@dataclass(slots=True)
class _Consumer:
    wants: Wants
    seen: int
    """The stream time it last said anything."""
    noted: int
    leases: dict[str, _Lease] = field(default_factory=dict)
    """By token."""
    resting: dict[int, int] = field(default_factory=dict)
    """By seq of what was given back with a delay: until when it stays here."""
    giving: asyncio.Lock = field(default_factory=asyncio.Lock)
    """One agent after the other: what one is given, the next one is not."""
    acked: int = 0
    nacked: int = 0
    expired: int = 0
    given: int = 0

    def held(self, now: int) -> set[int]:
        """The seqs that nobody else may have now; leases that have ended are over."""
        for token, lease in [each for each in self.leases.items() if each[1].until <= now]:
            del self.leases[token]
            self.expired += 1
            log.debug("lease of %s has ended", lease.id)
        for seq in [seq for seq, until in self.resting.items() if until <= now]:
            del self.resting[seq]
        return {each.seq for each in self.leases.values()} | self.resting.keys()

    def next_back(self) -> int | None:
        """The stream time at which something comes back by itself."""
        times = [*(each.until for each in self.leases.values()), *self.resting.values()]
        return min(times, default=None)


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
        declared: Mapping[str, Wants] | None = None,
        declared_only: bool = False,
    ) -> None:
        """Serve from `outbox`; drop consumers that are silent for `ttl` nanoseconds, and tell of it.

        Those `declared` in the configuration are there from the start, are never dropped and always want
        what is declared; with `declared_only` nobody else may lease.
        """
        self._declared = declared or {}
        self._declared_only = declared_only
        self.ttl = ttl
        self._tell = tell
        self._outbox = outbox
        self._gateway = gateway
        self._clock = clock
        self._counts = {
            what: metrics.counter(f"dxad_events_{what}_total") for what in ("leased", "acked", "nacked")
        }
        self._all: dict[str, _Consumer] = {}
        self._loaded = False

    async def run(self) -> None:
        """Know the consumers of before, and drop those that are silent for too long; wait for a disk."""
        while True:
            try:
                await self._load()
                await self._look()
            except NotConnected:  # the outbox says so, and mends it
                await self._clock.sleep_until(self._clock.now() + NS_PER_S)
            else:
                await self._clock.sleep_until(self._clock.now() + _LOOK_NS)

    async def _load(self) -> None:
        if self._loaded:
            return
        now = self._clock.now()
        for known in await self._outbox.consumers():
            if known.name not in self._all:
                wants = Wants.of(known.wants)
                self._all[known.name] = _Consumer(wants, now - known.silent_ns, now)
                await self._outbox.subscribe(PREFIX + known.name, wants.lane_set)
        for name, wants in self._declared.items():
            there = self._all.get(name)
            if there is None or there.wants != wants:
                await self._want(name, there, wants)
        self._loaded = True

    async def _look(self) -> None:
        now = self._clock.now()
        for name, each in list(self._all.items()):
            if now - each.seen > self.ttl and name not in self._declared:
                await self._gone(name, each, f"it was silent for {(now - each.seen) / NS_PER_S / 3600:.1f} h")
            elif now - each.noted > _NOTE_NS:
                each.noted = now
                await self._outbox.note_consumer(name, Known(name, each.wants.document(), now - each.seen))

    async def _gone(self, name: str, consumer: _Consumer, why: str) -> None:
        waiting = self._outbox.backlog(PREFIX + name).pending
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

        Returns:
            `lease` (a token), `until_s` from now, `attempts`, `event`.

        Raises:
            ConfigError: there are too many consumers, or too many leases out.
            NotConnected: the disk fails.
        """
        await self._load()
        consumer = await self._known(name, None if wants is None else Wants.of(wants), oldest=oldest)
        deadline = self._clock.now() + wait_ns
        while True:
            async with consumer.giving:
                if self._all.get(name) is not consumer:
                    raise ConfigError(f"no consumer {name!r} any more: somebody has dropped it")
                consumer.seen = now = self._clock.now()
                held = consumer.held(now)
                if len(consumer.leases) + limit > _OUT_MOST:
                    raise ConfigError(f"{len(consumer.leases)} leases are out, {_OUT_MOST} at most: ack some")
                given, _, more = await self._outbox.lease(
                    PREFIX + name, limit, held=held, wants=consumer.wants.takes, most=ATTEMPTS_MOST
                )
                if given:
                    return self._leased(consumer, given, lease_ns)
            if not more:
                left = deadline - self._clock.now()
                if left <= 0:
                    return []
                await self._news(name, consumer, left)

    def _leased(self, consumer: _Consumer, given: Sequence[Given], lease_ns: int) -> list[Document]:
        until = self._clock.now() + lease_ns
        told: list[Document] = []
        for each in given:
            token = secrets.token_urlsafe(12)
            consumer.leases[token] = _Lease(each.record.seq, each.record.id, until, each.attempts)
            told.append(
                {"lease": token, "for_s": lease_ns / NS_PER_S, "attempts": each.attempts, "event": each.event}
            )
        consumer.given += len(told)
        self._counts["leased"].add(len(told))
        return told

    async def _news(self, name: str, consumer: _Consumer, left: int) -> None:
        """Wait for something new, or for something to come back, a second at most."""
        back = consumer.next_back()
        wait_ns = min(left, int(_POLL_S * NS_PER_S))
        if back is not None:
            wait_ns = min(wait_ns, max(0, back - self._clock.now()) + 1)
        news = asyncio.create_task(self._outbox.wait(PREFIX + name), name=f"{name} waits")
        timer = asyncio.create_task(
            self._clock.sleep_until(self._clock.now() + wait_ns), name=f"{name} waits no longer"
        )
        try:
            await asyncio.wait([news, timer], return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in (news, timer):
                each.cancel()
            await asyncio.wait([news, timer])

    async def _known(self, name: str, wants: Wants | None, *, oldest: bool) -> _Consumer:
        consumer = self._all.get(name)
        if self._declared_only and name not in self._declared:
            raise ConfigError(
                f"no consumer {name!r} is declared, and only those may lease: add [consumers.{name}], or set "
                'consumers = "any" in [outbox]'
            )
        if name in self._declared and wants not in (None, self._declared[name]):
            raise ConfigError(f"what consumer {name} wants is set in [consumers.{name}] of the configuration")
        now = self._clock.now()
        if consumer is None:
            if len(self._all) >= _CONSUMERS_MOST:
                raise ConfigError(
                    f"there are {_CONSUMERS_MOST} consumers already: {', '.join(self._all)}; drop one first"
                )
            consumer = self._all[name] = _Consumer(wants or Wants(), now, now)
            await self._outbox.subscribe(PREFIX + name, consumer.wants.lane_set)
            if not oldest:
                await self._outbox.skip(PREFIX + name)
            log.info("consumer %s is new: it is given %s", name, consumer.wants)
        elif wants is not None and wants != consumer.wants:
            consumer.wants = wants
            await self._outbox.subscribe(PREFIX + name, wants.lane_set)
        else:
            return consumer
        await self._outbox.note_consumer(name, Known(name, consumer.wants.document(), 0))
        return consumer

    async def _want(self, name: str, consumer: _Consumer | None, wants: Wants) -> None:
        """Keep for a declared consumer what it is declared to want, from now on."""
        if consumer is None:
            now = self._clock.now()
            consumer = self._all[name] = _Consumer(wants, now, now)
        consumer.wants = wants
        await self._outbox.subscribe(PREFIX + name, wants.lane_set)
        await self._outbox.note_consumer(
            name, Known(name, wants.document(), self._clock.now() - consumer.seen)
        )

    async def ack(self, name: str, tokens: Sequence[str]) -> Document:
        """The consumer is done with these; durable when it returns: `acked`, and those that were `stale`."""
        consumer, leases, stale = self._leases(name, tokens)
        await self._outbox.settle(PREFIX + name, [each.seq for each in leases])
        consumer.acked += len(leases)
        self._counts["acked"].add(len(leases))
        return {"acked": len(leases), "stale": stale}

    async def nack(self, name: str, tokens: Sequence[str], *, reason: str, delay_ns: int) -> Document:
        """The consumer cannot do these: they are given out again after the delay, or become dead letters."""
        consumer, leases, stale = self._leases(name, tokens)
        over = [each.seq for each in leases if each.attempts >= ATTEMPTS_MOST]
        until = self._clock.now() + delay_ns
        for each in leases:  # before anything is waited for: meanwhile another agent may lease
            if delay_ns and each.seq not in over:
                consumer.resting[each.seq] = until
        buried = await self._outbox.give_up(PREFIX + name, over, reason) if over else 0
        consumer.nacked += len(leases)
        self._counts["nacked"].add(len(leases))
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

    def _leases(self, name: str, tokens: Sequence[str]) -> tuple[_Consumer, list[_Lease], list[str]]:
        """Take these leases away; those that are over, or somebody else's, are stale."""
        consumer = self._consumer(name)
        consumer.seen = now = self._clock.now()
        consumer.held(now)
        stale = [each for each in tokens if each not in consumer.leases]
        return consumer, [consumer.leases.pop(each) for each in tokens if each in consumer.leases], stale

    def _consumer(self, name: str) -> _Consumer:
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
