"""What delivery promises, whatever a sink does; the outbox is a real one, in memory."""

import asyncio
import logging
from itertools import pairwise

import pytest

from dxad.errors import Backoff, ConfigError, NotConnected
from dxad.types import NS_PER_S, Lane, Record
from tests.deliveries import World

pytestmark = pytest.mark.one_loop


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
        assert [each[0] for each in world.peer.written[:4]] == ["a"] * 4
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
        snapshot = deliver.snapshot()
        assert (snapshot["up"], snapshot["reason"], snapshot["waits_for"]) == (True, None, None)
        assert (snapshot["pending"], snapshot["refused"], snapshot["delivered"]) == (0, 0, 3)
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
        await world.until(lambda: world.box.backlog("s").refused >= 256, step_s=0.05)  # it has its pace
        await asyncio.sleep(0.02)
        assert world.box.backlog("s").refused <= 356
        assert world.box.backlog("s").pending == 1000
        (condition,) = world.health.active
        assert (condition.code, condition.detail) == ("sink.refusing", "not to my taste")
        world.peer.refuses = lambda _: False
        await world.until(lambda: world.box.backlog("s").pending == 0, step_s=1)
        await world.until(lambda: not world.health.active, step_s=1)


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
