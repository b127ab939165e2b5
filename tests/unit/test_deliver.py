"""What delivery promises, whatever a sink does; the outbox is a real one, in memory."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from itertools import pairwise
from pathlib import Path

import pytest

from dxad.deliver import Deliver
from dxad.errors import Backoff, ConfigError, NotConnected, Rejected
from dxad.fields import SinkSection
from dxad.outbox import Outbox
from dxad.runtime.clock import SteppedClock
from dxad.runtime.health import Health
from dxad.runtime.metrics import Metrics
from dxad.types import NS_PER_S, Lane, Record

Answer = Exception | None


class Peer:
    """A sink that answers each write as the test says, then takes everything."""

    def __init__(self) -> None:
        self.answers: Iterator[Answer] = iter(())
        self.refuses: Callable[[Record], bool] = lambda _: False
        self.connect_errors: list[Exception] = []
        self.written: list[list[str]] = []
        self.taken: list[str] = []
        self.connects = 0
        self.closes = 0
        self.hang = False

    async def connect(self) -> None:
        self.connects += 1
        if self.connect_errors:
            raise self.connect_errors.pop(0)

    async def write(self, records: Sequence[Record]) -> None:
        self.written.append([each.id for each in records])
        if self.hang:
            await asyncio.Event().wait()
        if (answer := next(self.answers, None)) is not None:
            raise answer
        rejected = [place for place, each in enumerate(records) if self.refuses(each)]
        self.taken += [each.id for place, each in enumerate(records) if place not in rejected]
        if rejected:
            raise Rejected(rejected, "not to my taste")

    async def close(self) -> None:
        self.closes += 1


class WatchedClock(SteppedClock):
    def __init__(self) -> None:
        super().__init__()
        self.waits_s: list[float] = []

    async def sleep_until(self, at: int) -> None:
        self.waits_s.append((at - self.now()) / NS_PER_S)
        await super().sleep_until(at)


class World:
    """One delivery with all around it."""

    def __init__(self, path: Path | None = None) -> None:
        self.clock = WatchedClock()
        self.health = Health(self.clock)
        self.metrics = Metrics()
        self.peer = Peer()
        self.box = Outbox(
            path,
            max_bytes=2**24,
            commit_window_s=0.0,
            health=self.health,
            metrics=self.metrics,
            clock=self.clock,
        )

    @asynccontextmanager
    async def delivering(self, **section: object) -> AsyncIterator[Deliver]:
        deliver = Deliver(
            "s",
            self.peer,
            self.box,
            SinkSection(**section),
            clock=self.clock,
            health=self.health,
            metrics=self.metrics,
        )
        async with self.box:
            task = asyncio.create_task(deliver.run())
            try:
                yield deliver
            finally:
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task

    async def append(self, *ids: str, lane: Lane = Lane.CRITICAL) -> None:
        await asyncio.gather(*(self.box.append(Record(each, lane, b"")) for each in ids))

    async def until(self, true: Callable[[], object], *, step_s: float = 0.0) -> None:
        """Let things happen, and time pass, until it is so."""
        async with asyncio.timeout(5):
            while not true():
                await self.clock.step(int(step_s * NS_PER_S))
                await asyncio.sleep(0.001)


@pytest.fixture
def world() -> World:
    return World()


async def test_everything_is_written_once_in_order_and_acked(world):
    async with world.delivering(batch=2):
        await world.append("a", "b", "c")
        await world.until(lambda: world.box.backlog("s").pending == 0)
        assert world.peer.taken == ["a", "b", "c"]
        assert all(len(each) <= 2 for each in world.peer.written)
        assert world.metrics.total("dxad_records_delivered_total", sink="s") == 3
        await world.append("d")
        await world.until(lambda: world.peer.taken == ["a", "b", "c", "d"])


async def test_only_the_lanes_of_the_section_are_carried(world):
    async with world.delivering(lanes=["bulk"]):
        await world.append("c")
        await world.append("b", lane=Lane.BULK)
        await world.until(lambda: world.peer.taken)
        assert world.peer.taken == ["b"]


async def test_a_lost_link_costs_nothing_and_the_same_ids_come_again(world):
    world.peer.answers = iter([NotConnected("gone")] * 3)
    async with world.delivering():
        await world.append("a", "b")
        await world.until(lambda: world.peer.taken, step_s=1)
        assert [each[0] for each in world.peer.written] == ["a"] * 4
        assert world.peer.taken[0] == "a"
        assert (world.peer.connects, world.peer.closes) == (4, 3)


async def test_waits_grow_while_the_peer_is_gone_and_start_small_again(world):
    world.peer.answers = iter([NotConnected("gone")] * 8 + [None, NotConnected("gone")])
    async with world.delivering():
        await world.append("a")
        await world.until(lambda: world.peer.taken, step_s=1)
        await world.append("b")
        await world.until(lambda: len(world.peer.taken) == 2, step_s=1)
    *growing, last = world.clock.waits_s
    assert len(growing) == 8
    assert 0.1 <= growing[0] <= 0.25
    assert all(later > earlier / 2 for earlier, later in pairwise(growing))
    assert 15 <= growing[-1] <= 30
    assert last <= 0.25


async def test_a_peer_that_names_its_time_is_left_alone_so_long(world):
    world.peer.answers = iter([Backoff(90.0, "busy")])
    async with world.delivering():
        await world.append("a")
        await world.until(lambda: world.peer.written)
        await world.clock.step(89 * NS_PER_S)
        assert len(world.peer.written) == 1
        await world.until(lambda: world.peer.taken, step_s=1)


async def test_an_outage_is_said_once_when_it_begins_and_once_when_it_ends(world, caplog):
    caplog.set_level(logging.INFO)
    world.peer.answers = iter([NotConnected("refused by 10.0.0.7")] * 5)
    async with world.delivering() as deliver:
        await world.append("a")
        await world.until(lambda: world.health.active)
        assert deliver.snapshot()["reason"] == "refused by 10.0.0.7"
        (condition,) = world.health.active
        assert (condition.code, condition.subject) == ("sink.down", "s")
        await world.append("b", "c")
        await world.until(lambda: len(world.peer.taken) == 3, step_s=1)
        assert not world.health.active
        await world.until(lambda: deliver.snapshot()["delivered"] == 3)
        assert deliver.snapshot() == {"up": True, "reason": None, "pending": 0, "refused": 0, "delivered": 3}
    lines = [each.message for each in caplog.records if "sink.down" in each.message]
    assert len(lines) == 2
    assert lines[0] == "sink.down s: refused by 10.0.0.7"
    assert lines[1].endswith("3 records were waiting")


async def test_an_idle_sink_that_cannot_connect_is_down_until_it_can(world):
    world.peer.connect_errors = [NotConnected("no"), ConfigError("no token yet")]
    async with world.delivering():
        await world.until(lambda: world.health.active)
        await world.until(lambda: not world.health.active, step_s=1)
        assert world.peer.connects == 3


async def test_a_poison_record_does_not_block_its_neighbours(world):
    world.peer.refuses = lambda each: each.id == "poison"
    async with world.delivering():
        await world.append("a", "poison", "b")
        await world.append("c")
        await world.until(lambda: world.peer.taken == ["a", "b", "c"])
        await world.until(lambda: world.box.backlog("s").pending == world.box.backlog("s").refused == 1)
        assert not world.health.active


async def test_a_poison_record_is_dead_after_so_many_attempts(world, caplog):
    world.peer.refuses = lambda each: each.id == "poison"
    async with world.delivering(max_attempts=4):
        await world.append("a", "poison", "b")
        await world.until(lambda: world.box.snapshot()["dead_letters"], step_s=5)
        assert sum("poison" in each for each in world.peer.written) == 4
        assert world.box.backlog("s").pending == 0
        assert world.metrics.total("dxad_records_dead_total", sink="s") == 1
        assert "dead letters: not to my taste" in caplog.text
        assert world.peer.taken == ["a", "b"]


async def test_a_record_that_was_refused_may_be_taken_later(world):
    world.peer.refuses = lambda each: each.id == "early"
    async with world.delivering():
        await world.append("early")
        await world.until(lambda: world.box.backlog("s").refused == 1)
        world.peer.refuses = lambda _: False
        await world.until(lambda: world.peer.taken == ["early"], step_s=1)
        await world.until(lambda: world.box.backlog("s").pending == 0)


async def test_outages_do_not_count_as_attempts(world):
    world.peer.answers = iter([NotConnected("gone")] * 20)
    async with world.delivering(max_attempts=1):
        await world.append("a")
        await world.until(lambda: world.peer.taken == ["a"], step_s=10)
        assert world.box.snapshot()["dead_letters"] == 0


async def test_a_peer_that_refuses_everything_is_not_flooded(world):
    world.peer.refuses = lambda _: True
    async with world.delivering(batch=100):
        await world.append(*(str(n) for n in range(1000)))
        await world.until(lambda: world.box.backlog("s").refused >= 256)
        await asyncio.sleep(0.02)
        assert world.box.backlog("s").refused <= 356
        assert world.box.backlog("s").pending == 1000


async def test_a_failing_disk_does_not_keep_an_alarm_from_getting_out(tmp_path, monkeypatch):
    world = World(tmp_path / "no such folder" / "outbox.db")
    fetches = 0
    fetch = world.box.fetch

    async def counted(*asked):
        nonlocal fetches
        fetches += 1
        return await fetch(*asked)

    monkeypatch.setattr(world.box, "fetch", counted)
    async with world.delivering():
        assert await world.box.append(Record("alarm", Lane.CRITICAL, b"")) == 0
        assert world.peer.taken == ["alarm"]
        await world.until(lambda: world.box.snapshot()["in_memory"] == 0)
        await asyncio.sleep(0.05)
        assert fetches < 10


async def test_cancelled_in_the_middle_of_a_write_it_closes_and_tries_nothing_more(world):
    world.peer.hang = True
    async with world.delivering():
        await world.append("a")
        await world.until(lambda: world.peer.written)
    assert len(world.peer.written) == 1
    assert (world.peer.connects, world.peer.closes) == (1, 1)


async def test_cancelled_while_the_peer_is_away_it_leaves_no_condition(world):
    world.peer.connect_errors = [NotConnected("no")]
    async with world.delivering():
        await world.until(lambda: world.health.active)
    assert not world.health.active
