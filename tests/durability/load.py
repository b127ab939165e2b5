"""A process that uses an outbox hard, and says on a file beside it what it was promised and what it did.

    python -m tests.durability.load FOLDER --round N --records N [--quota BYTES] [--kill] [--sweep S]

Two sinks take what is appended in three lanes: they ack, lose acks, refuse, and bury what they refused twice.
A pull consumer's two agents lease the same: they ack, give back, ask for time, or are not heard of again.
Each line of `FOLDER/marks` is one write, so that whoever traces the process, or kills it, knows the order of
marks and of what was done to the disk (`ledger.py` reads them):

    began ROUND quota|free   the round's outbox is open
    append NAME …            handed over, not promised yet
    stored SEQ NAME …        their future resolved; the seq is the last one's
    gone NAME …              their future raised OutboxFull
    had SINK NAME=ID …       the sink has these; said before the ack
    refused SINK NAME=ID …   it refused these; said before the outbox is told
    done SINK NAME …         the consumer's ack of these has returned: they do not come again
    dropped N LETTERS        so many records, and dead letters, the round has reported as dropped so far
    tick MS                  the event loop came by so late
    ended ROUND              closed in peace

A record's name stands in its body, since bulk records get their ids from the outbox.
"""

import argparse
import asyncio
import hashlib
import os
import random
import signal
import sqlite3
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final

from dxad.errors import NotConnected, OutboxFull
from dxad.outbox import Outbox
from dxad.outbox.leasing import PREFIX
from dxad.outbox.limits import Limits
from dxad.pulling import Consumers
from dxad.runtime.clock import Clock, SystemClock
from dxad.runtime.health import Health
from dxad.runtime.metrics import Metrics
from dxad.types import Document, Lane, Record

__all__ = ["AGENT", "FILE", "MARKS", "SINKS", "body_of", "make", "name_of"]

FILE: Final = "outbox.db"
MARKS: Final = "marks"
AGENT: Final = "agent"
SINKS: Final = {
    "all": frozenset(Lane),
    "urgent": frozenset({Lane.CRITICAL, Lane.NORMAL}),
    PREFIX + AGENT: frozenset(Lane),
}
ATTEMPTS: Final = 2
_SHARE: Final = {Lane.CRITICAL: 1, Lane.NORMAL: 3, Lane.BULK: 6}
_LEASE_NS: Final = 40_000_000
_CHECKPOINT_PAGES: Final = 60
"""A checkpoint comes after so much: SQLite's thousands would not come within a test."""


def make(path: Path, *, max_bytes: int = 2**30, clock: Clock | None = None, **more) -> Outbox:
    """An outbox as the durability tests use it."""
    clock = clock or SystemClock()
    more = {"health": Health(clock), "metrics": Metrics(), "commit_window_s": 0.003} | more
    return Outbox(path, max_bytes=max_bytes, clock=clock, **more)


def body_of(name: str) -> bytes:
    """What the record of this name holds, whoever asks: up to some 2500 bytes."""
    seed = hashlib.blake2b(name.encode()).digest()
    size = 40 + int.from_bytes(seed[:2]) % (2460 if seed[2] % 4 == 0 else 300)
    return name.encode() + b" " + (seed * (1 + size // len(seed)))[:size]


def name_of(body: bytes) -> str:
    """Whose body it is, or was."""
    return body.split(b" ", 1)[0].decode(errors="replace")


class Load:
    """One round."""

    def __init__(self, folder: Path, round_: int, records: int, quota: int | None) -> None:
        self._round = round_
        self._left = records
        self._quota = quota
        self._rng = random.Random(round_)
        self._marks = os.open(folder / MARKS, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        self._metrics = Metrics()
        limits = Limits(keep_ns=300_000_000, reserve_bytes=2**20)
        self._box = make(folder / FILE, max_bytes=quota or 2**30, metrics=self._metrics, limits=limits)
        self._consumers = Consumers(
            self._box,
            gateway="gw",
            clock=SystemClock(),
            metrics=self._metrics,
            ttl=10**15,
            tell=lambda _: None,
        )
        self._pending: set[asyncio.Future[int]] = set()
        self._over = False

    def mark(self, *words: object) -> None:
        os.write(self._marks, (" ".join(map(str, words)) + "\n").encode())

    async def run(self, *, kill: bool) -> None:
        async with self._box as box:
            for sink, lanes in SINKS.items():
                await box.subscribe(sink, lanes)
            with suppress(NotConnected):
                await self._lease(1)
            with suppress(AttributeError):
                connection: sqlite3.Connection = box._store._connection
                await box._in_thread(
                    lambda: connection.execute(f"PRAGMA wal_autocheckpoint={_CHECKPOINT_PAGES}")
                )
            self.mark("began", self._round, "quota" if self._quota else "free")
            sinks = [each for each in SINKS if not each.startswith(PREFIX)]
            others = [
                asyncio.create_task(each)
                for each in (self._tick(), self._pull("one"), self._pull("two"), *map(self._consume, sinks))
            ]
            await self._produce()
            if kill:
                # On the store's thread: no write is under way of which nobody knows whether it was done.
                await box._in_thread(lambda: os.kill(os.getpid(), signal.SIGKILL))
            await asyncio.gather(*self._pending, return_exceptions=True)
            self._over = True
            await asyncio.gather(*others)
        self._tell_dropped()
        self.mark("ended", self._round)

    # -- in -----------------------------------------------------------------------------------------------

    async def _produce(self) -> None:
        number = 0
        while number < self._left:
            burst = self._rng.choice((1, 1, 2, 5, 20, 60))
            lanes = self._rng.choices(list(_SHARE), list(_SHARE.values()), k=burst)
            names = [f"{self._round}-{lane.name}-{number + k}" for k, lane in enumerate(lanes)]
            self.mark("append", *names)
            last = [self._append(name, lane) for name, lane in zip(names, lanes, strict=True)][-1]
            number += burst
            if self._rng.random() < 0.3:
                many = [f"{self._round}-BULK-{number + k}-m" for k in range(self._rng.choice((1, 30, 100)))]
                self.mark("append", *many)
                self._await(self._box.append_bulk([body_of(each) for each in many]), *many)
                number += len(many)
            if self._rng.random() < 0.3:
                await asyncio.wait([last])
            else:
                await asyncio.sleep(self._rng.uniform(0, 0.004))
            self._tell_dropped()

    def _append(self, name: str, lane: Lane) -> asyncio.Future[int]:
        future = self._box.append(Record(name, lane, body_of(name)))
        self._await(future, name)
        return future

    def _await(self, future: asyncio.Future[int], *names: str) -> None:
        self._pending.add(future)
        future.add_done_callback(lambda done: self._done(done, names))

    def _done(self, done: asyncio.Future[int], names: Iterable[str]) -> None:
        self._pending.discard(done)
        error = done.exception()
        if error is None:
            self.mark("stored", done.result(), *names)
        elif isinstance(error, OutboxFull):
            self.mark("gone", *names)

    def _tell_dropped(self) -> None:
        dropped = self._metrics.by_label("dxad_records_dropped_total", "lane")
        letters = int(dropped.pop("dead_letter", 0))
        self.mark("dropped", int(sum(dropped.values())), letters)

    # -- out ----------------------------------------------------------------------------------------------

    async def _consume(self, sink: str) -> None:
        """Like a sink that is a little slow and not always pleased."""
        rng = random.Random(f"{sink} {self._round}")
        while not self._over:
            records = await self._box.fetch(sink, rng.choice((1, 7, 40)))
            await self._take(sink, records, rng)
            if rng.random() < 0.2:
                await self._take(sink, await self._box.refused(sink, 10), rng)
            await asyncio.sleep(rng.uniform(0, 0.012 if sink == "all" else 0.005))

    async def _take(self, sink: str, records: list[Record], rng: random.Random) -> None:
        if not records:
            return
        refused = [each for each in records if rng.random() < 0.08]
        taken = [each for each in records if each not in refused]
        if taken:
            self.mark("had", sink, *told(taken))
        if rng.random() < 0.1:
            return  # the answer is lost: all come again
        if refused:
            self.mark("refused", sink, *told(refused))
            await self._box.refuse(sink, refused, "not to my taste", most=ATTEMPTS)
        await self._box.ack(sink, taken)

    async def _pull(self, agent: str) -> None:
        """Like an agent that does not always come back."""
        rng = random.Random(f"{agent} {self._round}")
        while not self._over:
            with suppress(NotConnected):
                await self._work(await self._lease(rng.choice((1, 5, 30))), rng)
            await asyncio.sleep(rng.uniform(0, 0.008))

    async def _lease(self, limit: int) -> list[Document]:
        lanes = [each.name.lower() for each in Lane]
        return await self._consumers.lease(AGENT, limit=limit, lease_ns=_LEASE_NS, wants={"lanes": lanes})

    async def _work(self, leases: list[Document], rng: random.Random) -> None:
        """Do what is leased, give some of it back, forget some."""
        names = {each["lease"]: _leased_name(each) for each in leases}
        ids = {each["lease"]: each["event"]["id"] for each in leases}
        lots = {each: rng.random() for each in names}
        if rng.random() < 0.1:
            self._consumers.extend(AGENT, list(names), _LEASE_NS)
        back = [each for each, lot in lots.items() if lot < 0.1 or _is_hard(names[each])]
        if back:
            self.mark("refused", PREFIX + AGENT, *(f"{names[each]}={ids[each]}" for each in back))
            await self._consumers.nack(AGENT, back, reason="cannot", delay_ns=0)
        took = [each for each, lot in lots.items() if lot >= 0.2 and each not in back]
        if took:
            self.mark("had", PREFIX + AGENT, *(f"{names[each]}={ids[each]}" for each in took))
            stale = (await self._consumers.ack(AGENT, took))["stale"]
            done = [names[each] for each in took if each not in stale]
            if done:
                self.mark("done", PREFIX + AGENT, *done)

    async def _tick(self) -> None:
        """Whether the loop runs while the disk does not."""
        worst = 0.0
        while not self._over:
            before = time.monotonic()
            await asyncio.sleep(0.01)
            late = time.monotonic() - before - 0.01
            if late > worst:
                worst = late
                self.mark("tick", round(late * 1000))


def _leased_name(lease: Document) -> str:
    return name_of(bytes.fromhex(lease["event"]["unreadable"]))


def _is_hard(name: str) -> bool:
    """Whether it is given back each time, until it is buried."""
    return hashlib.blake2b(name.encode()).digest()[3] < 4


def told(records: Iterable[Record]) -> list[str]:
    return [f"{name_of(each.body)}={each.id}" for each in records]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--round", type=int, default=0)
    parser.add_argument("--records", type=int, default=500)
    parser.add_argument("--quota", type=int)
    parser.add_argument("--kill", action="store_true", help="end by SIGKILL, in the middle of it all")
    asked = parser.parse_args()
    asyncio.run(Load(asked.folder, asked.round, asked.records, asked.quota).run(kill=asked.kill))


if __name__ == "__main__":
    main()
