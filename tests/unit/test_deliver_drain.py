"""How delivery lets go what has gathered, what overtakes it, what it leaves out, what it says of itself."""

import asyncio

import pytest

from dxad.deliver import Deliver
from dxad.errors import Backoff, NotConnected
from dxad.event import Event, to_record
from dxad.sinksection import SinkSection
from dxad.types import NS_PER_S, Lane, Record
from tests.deliveries import Peer, World

pytestmark = pytest.mark.one_loop


@pytest.fixture
def world() -> World:
    return World()


def incident(id_: str, type_: str, **data: object) -> Record:
    return to_record(Event(id_, type_, "/gw/pipelines/p", 1, data, lane=Lane.NORMAL))


def ids(count: int, letter: str = "b") -> list[str]:
    return [f"{letter}{n:04}" for n in range(count)]


async def fill(world: World, count: int, lane: Lane = Lane.NORMAL, letter: str = "b") -> list[str]:
    named = ids(count, letter)
    await world.append(*named, lane=lane)
    return named


class TestProbe:
    async def test_a_peer_that_was_away_is_offered_one_then_twice_as_many_each_time(self, world):
        world.peer.answers = iter([NotConnected("gone")] * 3)
        async with world.delivering(batch=8, drain_rate=0):
            named = await fill(world, 40)
            await world.until(lambda: len(world.peer.taken) == 40, step_s=1)
        sizes = [len(each) for each in world.peer.written]
        assert sizes[2:8] == [1, 1, 2, 4, 8, 8]
        assert world.peer.taken == named

    async def test_an_answer_that_was_lost_has_the_same_batch_again_first(self, world):
        async with world.delivering(batch=8, drain_rate=0):
            await fill(world, 20, letter="a")
            await world.until(lambda: len(world.peer.taken) == 20)
            world.peer.written.clear()
            world.peer.answers = iter([NotConnected("lost")])
            await fill(world, 8)
            await world.until(lambda: len(world.peer.taken) == 28, step_s=1)
        lost, again, *_ = world.peer.written
        assert lost == again

    async def test_a_peer_that_takes_long_gets_smaller_batches(self, world):
        async with world.delivering(batch=64, drain_rate=0) as deliver:
            await fill(world, 64, letter="a")
            await world.until(lambda: len(world.peer.taken) == 64)
            assert deliver.snapshot()["batch"] == 64

            async def slow(records):
                await world.clock.sleep_until(world.clock.now() + 3 * NS_PER_S)
                world.peer.taken.extend(each.id for each in records)

            world.peer.write = slow
            await fill(world, 200)
            await world.until(lambda: deliver.snapshot()["batch"] <= 8, step_s=1)


class TestPace:
    async def test_what_gathered_goes_no_faster_than_it_may_and_in_order(self, world):
        world.peer.connect_errors = [NotConnected("away")]
        async with world.delivering(batch=10, drain_rate=50) as deliver:
            named = await fill(world, 500)
            await world.until(lambda: deliver.snapshot()["up"], step_s=0.1)
            began = world.clock.now()
            await world.until(lambda: len(world.peer.taken) == 500, step_s=0.1)
            took_s = (world.clock.now() - began) / NS_PER_S
        assert world.peer.taken == named
        assert 7 < took_s < 27  # 10 s at 50 a second and a quarter, after a head start of up to 10 s

    async def test_a_fleet_does_not_begin_as_one(self):
        firsts = []
        for _ in range(4):
            world = World()
            world.peer.connect_errors = [NotConnected("away")]
            async with world.delivering(batch=10, drain_rate=50):
                await fill(world, 500)
                await world.until(lambda w=world: len(w.peer.taken) > 1, step_s=0.1)
                firsts.append(world.clock.now())
        assert max(firsts) - min(firsts) > NS_PER_S

    async def test_what_is_critical_and_new_overtakes_old_bulk(self, world):
        world.peer.connect_errors = [NotConnected("away")]
        async with world.delivering(batch=10, drain_rate=10, lanes=["critical", "bulk"]):
            await fill(world, 500, lane=Lane.BULK)
            await world.until(lambda: len(world.peer.taken) > 20, step_s=0.2)
            before = len(world.peer.taken)
            await world.append("alarm")
            await world.until(lambda: "alarm" in world.peer.taken, step_s=0.01)
        assert world.peer.taken.index("alarm") <= before + 10

    async def test_old_critical_ones_keep_the_pace_as_well(self, world):
        world.peer.connect_errors = [NotConnected("away")]
        async with world.delivering(batch=10, drain_rate=50) as deliver:
            await fill(world, 300, lane=Lane.CRITICAL)
            await world.until(lambda: deliver.snapshot()["up"], step_s=0.1)
            began = world.clock.now()
            await world.until(lambda: len(world.peer.taken) == 300, step_s=0.1)
            assert (world.clock.now() - began) / NS_PER_S > 4

    async def test_more_that_comes_meanwhile_makes_it_faster_so_that_it_ends(self, world):
        world.peer.connect_errors = [NotConnected("away")]
        async with world.delivering(batch=20, drain_rate=20) as deliver:
            await fill(world, 100)
            for tenth in range(250):
                await world.append(*ids(4, f"n{tenth}-"), lane=Lane.NORMAL)
                await world.clock.step(NS_PER_S // 10)
            await world.until(lambda: deliver.snapshot()["pending"] <= 20, step_s=0.02)

    async def test_without_an_outage_nothing_waits(self, world):
        async with world.delivering(batch=10, drain_rate=1):
            await world.until(lambda: world.peer.connects)
            await asyncio.sleep(0.01)
            await fill(world, 200)
            await world.until(lambda: len(world.peer.taken) == 200)


class TestSections:
    async def test_an_event_that_is_not_carried_is_done_and_counted(self, world):
        async with world.delivering(types=["dxad.incident.*"], severities=["high"]) as deliver:
            for each in (
                incident("no type", "dxad.model.promoted", severity="high"),
                incident("yes", "dxad.incident.opened", severity="high"),
                incident("low", "dxad.incident.opened", severity="low"),
                incident("none", "dxad.incident.flood"),
                incident("too", "dxad.incident.closed", severity="high"),
            ):
                await world.box.append(each)
            await world.until(lambda: deliver.snapshot()["delivered"] == 2)
            await world.until(lambda: world.box.backlog("s").pending == 0)
            assert world.peer.taken == ["yes", "too"]
            assert deliver.snapshot()["filtered"] == 3
            assert world.metrics.total("dxad_records_filtered_total", sink="s") == 3

    async def test_one_that_is_left_out_never_passes_one_that_is_not_delivered(self, world):
        world.peer.answers = iter([NotConnected("gone")] * 4)
        async with world.delivering(types=["dxad.incident.*"]):
            await world.box.append(incident("yes", "dxad.incident.opened"))
            await world.box.append(incident("no", "dxad.model.promoted"))
            await world.until(lambda: len(world.peer.written) >= 3, step_s=1)
            assert world.box.backlog("s").pending == 2
            await world.until(lambda: world.box.backlog("s").pending == 0, step_s=1)
            assert world.peer.taken == ["yes"]

    async def test_one_that_is_no_event_is_left_to_the_sink_to_refuse(self, world):
        async with world.delivering(types=["dxad.incident.*"]):
            await world.append("no event")
            await world.until(lambda: world.peer.taken == ["no event"])

    def test_types_are_patterns_and_all_are_carried_by_default(self):
        event = {"type": "dxad.incident.opened", "data": {"severity": "low"}}
        assert SinkSection().selection.takes(event)
        assert not SinkSection().selection.picks
        assert SinkSection(types=["*.opened"]).selection.takes(event)
        assert not SinkSection(types=["dxad.model.*"]).selection.takes(event)
        assert not SinkSection(severities=["high"]).selection.takes({"type": "x", "data": [1]})


class TestPartOfABatch:
    @pytest.mark.parametrize("error", [NotConnected("cut", taken=3), Backoff(1.0, "busy", taken=3)])
    async def test_what_the_peer_has_of_a_batch_is_not_sent_again(self, world, error):
        async with world.delivering(batch=8, drain_rate=0):
            await fill(world, 20, letter="a")
            await world.until(lambda: len(world.peer.taken) == 20)
            world.peer.answers = iter([error])
            world.peer.written.clear()
            await fill(world, 8)
            await world.until(lambda: world.box.backlog("s").pending == 0, step_s=1)
        assert world.peer.written[0] == ids(8)
        assert [each for batch in world.peer.written[1:] for each in batch] == ids(8)[3:]

    async def test_a_peer_that_names_its_time_keeps_its_connection(self, world):
        world.peer.answers = iter([Backoff(1.0, "busy")])
        async with world.delivering():
            await world.append("a")
            await world.until(lambda: world.peer.taken, step_s=1)
            assert world.peer.closes == 0


class TestLink:
    async def test_a_link_that_ends_while_there_is_nothing_to_write_is_made_anew(self, world):
        ended = asyncio.Event()

        class LinkedPeer(Peer):
            async def lost(self) -> None:
                await ended.wait()
                ended.clear()
                raise NotConnected("the broker closed the connection")

        world.peer = LinkedPeer()
        async with world.delivering() as deliver:
            await world.until(lambda: world.peer.connects == 1)
            ended.set()
            await world.until(lambda: world.peer.connects == 2, step_s=0.1)
            await world.until(lambda: deliver.snapshot()["up"])


class TestNeighbours:
    async def test_a_slow_sink_costs_the_others_nothing(self, world):
        slow = Peer()
        slow.hang = True
        other = Deliver(
            "slow", slow, world.box, SinkSection(),
            clock=world.clock, health=world.health, metrics=world.metrics,
        )  # fmt: skip
        async with world.delivering() as deliver:
            task = asyncio.create_task(other.run())
            await fill(world, 100)
            await world.until(lambda: deliver.snapshot()["delivered"] == 100, step_s=0.1)
            await world.until(lambda: deliver.snapshot()["pending"] == 0)
            assert other.snapshot()["pending"] == 100
            task.cancel()
            await asyncio.wait([task])


class TestWords:
    async def test_it_says_why_it_waits(self, world):
        world.peer.answers = iter([NotConnected("no route")])
        async with world.delivering(batch=10, drain_rate=10) as deliver:
            assert deliver.snapshot()["waits_for"] is None
            world.peer.hang = True
            await world.append("a")
            await world.until(lambda: world.peer.written)
            await world.clock.step(2 * NS_PER_S)
            assert deliver.snapshot()["waits_for"] == "the peer's answer to 1 record, for 2.0 s"

    async def test_it_says_that_the_peer_is_gone_and_when_it_tries_again(self, world):
        world.peer.answers = iter([Backoff(90.0, "503 busy")])
        async with world.delivering() as deliver:
            await world.append("a")
            await world.until(lambda: not deliver.snapshot()["up"])
            assert deliver.snapshot()["waits_for"] == "the peer, which is tried again in 90.0 s: 503 busy"

    async def test_it_says_that_refused_ones_are_all_there_is(self, world):
        world.peer.refuses = lambda _: True
        async with world.delivering() as deliver:
            await world.append("a")
            await world.until(lambda: world.box.backlog("s").refused == 1)
            await world.until(lambda: "refused" in (deliver.snapshot()["waits_for"] or ""))
            assert deliver.snapshot()["refusals"] == 1
            assert "1 record that it refused (" in deliver.snapshot()["waits_for"]

    async def test_it_says_how_long_a_drain_will_take(self, world):
        world.peer.connect_errors = [NotConnected("away")]
        async with world.delivering(batch=10, drain_rate=100) as deliver:
            await fill(world, 2000)
            assert deliver.snapshot()["drained_in_s"] is None
            await world.until(lambda: len(world.peer.taken) > 500, step_s=0.1)
            told = deliver.snapshot()
            assert told["waits_for"] is None or "100 records a second after an outage" in told["waits_for"]
            left = told["pending"] / 100
            assert left * 0.6 < told["drained_in_s"] < left * 4  # the disk takes its own time
            await world.until(lambda: deliver.snapshot()["pending"] == 0, step_s=0.1)
            assert deliver.snapshot()["drained_in_s"] == 0.0
