"""What the outbox promises, on real files: what is stored is delivered, in order, within the quota."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from dxad.errors import OutboxFull
from dxad.outbox import Outbox
from dxad.types import Lane
from tests.patience import PATIENCE_S
from tests.unit.outbox.records import codes, fill, ids, record, sql, until

pytestmark = pytest.mark.one_loop

ALL = frozenset(Lane)
MIB = 2**20

Make = Callable[..., Outbox]


class TestAppend:
    async def test_resolves_with_rising_seqs(self, make):
        async with make() as box:
            assert [await box.append(record(each)) for each in "abc"] == [1, 2, 3]

    async def test_what_resolved_is_in_the_file(self, make, path):
        async with make() as box:
            await box.append(record("a"))
            assert sql(path, "SELECT id FROM records") == [("a",)]

    async def test_an_id_is_stored_once(self, make, path):
        async with make() as box:
            first = await box.append(record("a"))
            again, other, twin = box.append(record("a")), box.append(record("b")), box.append(record("b"))
            assert await again == first
            assert await other == await twin
            assert sql(path, "SELECT count(*) FROM records") == [(2,)]

    async def test_an_id_is_stored_once_over_a_restart(self, make):
        async with make() as box:
            first = await box.append(record("a"))
        async with make() as box:
            assert await box.append(record("a")) == first

    async def test_a_normal_record_waits_for_the_window_and_a_critical_one_takes_it_along(self, make):
        async with make(commit_window_s=60) as box:
            normal = box.append(record("n", Lane.NORMAL))
            await asyncio.sleep(0.05)
            assert not normal.done()
            await box.append(record("c"))
            assert normal.done()

    async def test_another_window_counts_from_the_next_record_on(self, make):
        async with make(commit_window_s=60) as box:
            box.adjust(max_bytes=MIB, commit_window_s=0.0)
            assert await box.append(record("n", Lane.NORMAL)) == 1

    async def test_256_records_do_not_wait(self, make):
        async with make(commit_window_s=60) as box:
            await asyncio.gather(*(box.append(record(str(n), Lane.BULK)) for n in range(256)))

    async def test_closing_makes_durable_what_waits(self, make):
        async with make(commit_window_s=60) as box:
            waiting = box.append(record("n", Lane.NORMAL))
            await box.close()
            await box.close()
            assert waiting.result() == 1
            with pytest.raises(RuntimeError, match="not open"):
                box.append(record("late"))

    async def test_a_caller_that_gave_up_does_no_harm(self, make, path):
        async with make(commit_window_s=60) as box:
            box.append(record("n", Lane.NORMAL)).cancel()
            await box.append(record("c"))
            assert sql(path, "SELECT count(*) FROM records") == [(2,)]

    async def test_works_in_memory(self, make):
        async with make(None) as box:
            await box.subscribe("s", ALL)
            await box.append(record("a"))
            assert ids(await box.fetch("s", 10)) == ["a"]

    async def test_leaves_no_thread(self, make):
        async with make() as box:
            assert any(each.name.startswith("store") for each in threading.enumerate())
            await box.close()
            assert not any(each.name.startswith("store") for each in threading.enumerate())


class TestSinks:
    async def test_get_the_most_important_lane_first_and_each_in_order(self, make):
        async with make() as box:
            for n, lane in enumerate([Lane.BULK, Lane.NORMAL, Lane.CRITICAL, Lane.BULK, Lane.CRITICAL]):
                box.append(record(f"{lane.name[0]}{n}", lane))
            await box.subscribe("s", ALL)
            await box.append(record("N5", Lane.NORMAL))
            assert ids(await box.fetch("s", 10)) == ["C2", "C4", "N1", "N5", "B0", "B3"]
            assert ids(await box.fetch("s", 3)) == ["C2", "C4", "N1"]

    async def test_get_the_same_again_until_they_ack(self, make):
        async with make() as box:
            await box.subscribe("s", ALL)
            for each in "abc":
                await box.append(record(each))
            first = await box.fetch("s", 2)
            assert await box.fetch("s", 2) == first
            await box.ack("s", first)
            assert ids(await box.fetch("s", 2)) == ["c"]

    async def test_a_new_one_gets_everything_still_stored(self, make):
        async with make() as box:
            await box.append(record("a"))
            await box.subscribe("late", ALL)
            assert ids(await box.fetch("late", 10)) == ["a"]

    async def test_see_their_lanes_only(self, make):
        async with make() as box:
            await box.subscribe("s", frozenset({Lane.NORMAL}))
            await box.append(record("c"))
            await box.append(record("n", Lane.NORMAL))
            assert ids(await box.fetch("s", 10)) == ["n"]
            assert box.backlog("s").pending == 1

    async def test_keep_their_place_over_a_restart(self, make):
        async with make() as box:
            await box.subscribe("s", ALL)
            await box.subscribe("other", ALL)
            for each in "ab":
                await box.append(record(each))
            await box.ack("s", await box.fetch("s", 1))
        async with make() as box:
            assert box.sinks == {"s", "other"}
            await box.subscribe("s", ALL)
            assert ids(await box.fetch("s", 10)) == ["b"]
            assert (box.backlog("s").pending, box.backlog("other").pending) == (1, 2)

    async def test_free_a_record_when_the_last_of_them_is_past_it(self, make, path):
        async with make() as box:
            await box.subscribe("s", ALL)
            await box.subscribe("slow", ALL)
            await box.append(record("a"))
            await box.ack("s", await box.fetch("s", 1))
            await box.append(record("b"))
            assert sql(path, "SELECT id FROM records") == [("a",), ("b",)]
            await box.ack("slow", await box.fetch("slow", 1))
            await until(lambda: sql(path, "SELECT id FROM records") == [("b",)])

    async def test_hold_nothing_once_unsubscribed(self, make, path):
        async with make() as box:
            await box.subscribe("s", ALL)
            await box.subscribe("gone", ALL)
            await box.append(record("a"))
            await box.ack("s", await box.fetch("s", 1))
            await box.unsubscribe("gone")
            await until(lambda: not sql(path, "SELECT id FROM records"))
        async with make() as box:
            assert box.sinks == {"s"}

    async def test_that_drop_a_lane_free_it(self, make, path):
        async with make() as box:
            await box.subscribe("s", ALL)
            await box.subscribe("other", ALL)
            await box.append(record("b", Lane.BULK))
            await box.ack("other", await box.fetch("other", 1))
            await box.subscribe("s", frozenset({Lane.CRITICAL}))
            await until(lambda: not sql(path, "SELECT id FROM records"))

    async def test_none_at_all_means_that_records_stay(self, make):
        async with make() as box:
            await box.append(record("a"))
        async with make() as box:
            assert box.snapshot()["stored"]["critical"] == 1

    async def test_seqs_do_not_go_back_when_everything_is_gone(self, make, path):
        async with make() as box:
            await box.subscribe("s", ALL)
            last = await box.append(record("a"))
            await box.ack("s", await box.fetch("s", 1))
            await until(lambda: not sql(path, "SELECT id FROM records"))
        async with make() as box:
            await box.subscribe("s", ALL)
            assert await box.append(record("b")) > last
            assert ids(await box.fetch("s", 1)) == ["b"]

    async def test_wait_without_polling(self, make):
        async with make() as box:
            await box.subscribe("s", ALL)
            assert await box.fetch("s", 10) == []
            waiting = asyncio.create_task(box.wait("s"))
            await asyncio.sleep(0.02)
            assert not waiting.done()
            box.append(record("a"))
            await waiting
            assert ids(await box.fetch("s", 10)) == ["a"]

    async def test_do_not_miss_what_comes_between_fetch_and_wait(self, make):
        async with make() as box:
            await box.subscribe("s", ALL)
            assert await box.fetch("s", 10) == []
            await box.append(record("a"))
            await asyncio.wait_for(box.wait("s"), PATIENCE_S)

    async def test_backlog_tells_how_much_and_how_old(self, make, clock):
        async with make() as box:
            await box.subscribe("s", ALL)
            await box.append(record("a"))
            await clock.step(7_000_000_000)
            await box.append(record("b"))
            told = box.snapshot()["sinks"]["s"]
            assert (told["pending"], told["oldest_s"]) == (2, 7.0)
            await box.ack("s", await box.fetch("s", 10))
            await box.append(record("c"))
            told = box.snapshot()["sinks"]["s"]
            assert (told["pending"], told["oldest_s"]) == (1, 0.0)

    async def test_backlog_is_as_old_as_the_clock_says_now(self, make):
        async with make() as box:
            await box.subscribe("s", ALL)
            await box.append(record("a"))
            before = box.backlog("s").oldest_utc
            await box.note_clock(offset_ns=box.boot.offset_ns + 10**10, clock_ok=True)
            await box.append(record("b"))
            assert box.backlog("s").oldest_utc == before + 10**10

    async def test_how_far_a_sink_is_is_known_after_a_restart_in_each_lane_it_has_moved_in(self, make):
        async with make() as box:
            await box.subscribe("s", ALL)
            for lane in Lane:
                await box.append(record(lane.name, lane))
                await box.ack("s", await box.fetch("s", 10))
                await box.append(record(f"{lane.name} 2", lane))
        async with make() as box:
            await box.subscribe("s", ALL)
            assert ids(await box.fetch("s", 10)) == ["BULK 2"]

    @pytest.mark.parametrize("ack_first", [True, False])
    async def test_backlog_is_the_newest_that_the_store_has_told(self, make, ack_first):
        async with make(commit_window_s=60) as box:
            await box.subscribe("s", ALL)
            await box.append(record("a"))
            (a,) = await box.fetch("s", 1)
            acked = asyncio.create_task(box.ack("s", [a]))
            if ack_first:
                await asyncio.sleep(0)
            appended = box.append(record("b"))
            for _ in range(3):  # both are with the store thread
                await asyncio.sleep(0)
            done = threading.Event()
            box._commits.thread.start(done.set, lambda _: None)
            assert done.wait(PATIENCE_S)  # and the loop hears of both at once
            await asyncio.gather(appended, acked)
            assert box.backlog("s").pending == 1


class TestRefused:
    @staticmethod
    @asynccontextmanager
    async def three(make) -> AsyncIterator[Outbox]:
        async with make() as box:
            await box.subscribe("s", ALL)
            for each in ("a", "poison", "c"):
                await box.append(record(each))
            yield box

    async def test_stands_aside_and_blocks_nobody(self, make):
        async with self.three(make) as box:
            a, poison, c = await box.fetch("s", 10)
            await box.refuse("s", [poison], "no", most=3)
            await box.ack("s", [a, c])
            assert await box.fetch("s", 10) == []
            assert await box.refused("s", 10) == [poison]
            assert (box.backlog("s").pending, box.backlog("s").refused) == (1, 1)

    async def test_last_of_a_batch_does_not_come_twice(self, make):
        async with self.three(make) as box:
            a, b, c = await box.fetch("s", 10)
            await box.refuse("s", [c], "no", most=3)
            await box.ack("s", [a, b])
            assert await box.fetch("s", 10) == []

    async def test_is_kept_until_it_is_taken(self, make, path):
        async with self.three(make) as box:
            a, poison, c = await box.fetch("s", 10)
            await box.refuse("s", [poison], "no", most=3)
            await box.ack("s", [a, c])
            await until(lambda: sql(path, "SELECT id FROM records") == [("poison",)])
            await box.ack("s", await box.refused("s", 10))
            assert box.backlog("s").pending == 0
            await until(lambda: not sql(path, "SELECT id FROM records"))

    async def test_goes_to_the_dead_letters_after_so_many_times_also_over_a_restart(
        self, make, path, metrics
    ):
        async with self.three(make) as box:
            a, poison, c = await box.fetch("s", 10)
            assert await box.refuse("s", [poison], "once", most=3) == 0
            await box.ack("s", [a, c])
        async with make() as box:
            await box.subscribe("s", ALL)
            assert await box.refuse("s", await box.refused("s", 10), "twice", most=3) == 0
            assert await box.refuse("s", await box.refused("s", 10), "thrice", most=3) == 1
            await until(lambda: box.snapshot()["dead_letters"] == 1)
            assert sql(path, "SELECT id, sink, reason FROM dead_letters") == [("poison", "s", "thrice")]
            assert not sql(path, "SELECT id FROM records")
            assert metrics.total("dxad_records_dead_total", sink="s") == 1

    async def test_by_one_sink_is_still_due_to_the_others(self, make, path):
        async with self.three(make) as box:
            await box.subscribe("other", ALL)
            a, poison, c = await box.fetch("s", 10)
            await box.refuse("s", [poison], "no", most=1)
            await box.ack("s", [a, c])
            assert ids(await box.fetch("other", 10)) == ["a", "poison", "c"]
            await box.ack("other", await box.fetch("other", 10))
            await until(lambda: not sql(path, "SELECT id FROM records"))


class TestQuota:
    async def test_takes_the_oldest_of_the_least_important_lane(self, make, health, metrics):
        async with make(max_bytes=MIB) as box:
            await fill(box, "c", Lane.CRITICAL, 200)
            await fill(box, "n", Lane.NORMAL, 200)
            await fill(box, "b", Lane.BULK, 1000)
            told = box.snapshot()
            assert told["stored"]["critical"] == told["stored"]["normal"] == 200
            assert told["dropped"] == {"bulk": 1000 - told["stored"]["bulk"]}
            assert MIB * 0.9 < told["bytes"] <= MIB
            await box.subscribe("s", frozenset({Lane.BULK}))
            left = await box.fetch("s", 1000)
            assert ids(left) == [f"b{n}" for n in range(1000 - len(left), 1000)]
            (full,) = health.active
            assert full.code == "outbox.full"
            assert f"{metrics.total('dxad_records_dropped_total', lane='bulk')} bulk" in full.detail

    async def test_another_one_holds_from_the_next_commit_on(self, make, health):
        async with make(max_bytes=4 * MIB) as box:
            await fill(box, "c", Lane.CRITICAL, 1200)
            assert box.snapshot()["bytes"] > MIB
            box.adjust(max_bytes=MIB, commit_window_s=0.0)
            await box.append(record("last"))
            told = box.snapshot()
            assert told["bytes"] <= told["max_bytes"] == MIB
            assert codes(health) == {"outbox.full"}

    async def test_takes_critical_ones_only_when_there_is_nothing_else(self, make):
        async with make(max_bytes=MIB) as box:
            await fill(box, "n", Lane.NORMAL, 300)
            await fill(box, "c", Lane.CRITICAL, 1500)
            told = box.snapshot()
            assert told["stored"]["normal"] == 0
            assert told["dropped"] == {"normal": 300, "critical": 1500 - told["stored"]["critical"]}

    async def test_refuses_bulk_when_all_else_is_more_important(self, make):
        async with make(max_bytes=MIB) as box:
            await fill(box, "c", Lane.CRITICAL, 1200)
            with pytest.raises(OutboxFull):
                await box.append(record("b", Lane.BULK, 40_000))

    async def test_is_no_condition_any_more_when_there_is_room(self, make, health):
        async with make(max_bytes=MIB) as box:
            await box.subscribe("s", ALL)
            await fill(box, "n", Lane.NORMAL, 1200)
            assert codes(health) == {"outbox.full"}
            await box.ack("s", await box.fetch("s", 1000))
            await until(lambda: not health.active)

    async def test_takes_dead_letters_first(self, make, metrics):
        async with make(max_bytes=MIB) as box:
            await box.subscribe("s", ALL)
            await fill(box, "p", Lane.NORMAL, 500)
            await box.refuse("s", await box.fetch("s", 1000), "no", most=1)
            await fill(box, "b", Lane.BULK, 400)
            assert box.snapshot()["stored"]["bulk"] == 400
            assert box.snapshot()["dead_letters"] < 500
            assert set(metrics.by_label("dxad_records_dropped_total", "lane")) == {"dead_letter"}

    async def test_takes_from_a_sinks_backlog_what_it_drops(self, make):
        async with make(max_bytes=MIB) as box:
            await box.subscribe("s", ALL)
            await fill(box, "n", Lane.NORMAL, 1500)
            assert box.backlog("s").pending == box.snapshot()["stored"]["normal"] < 1000


class TestOnlyTheNewestOfAKind:
    async def test_replaces_those_that_still_wait_and_that_is_no_loss(self, make, metrics):
        async with make() as box:
            await box.subscribe("sink", ALL)
            for name in ("hb-1", "other", "hb-2", "hb-3"):
                await box.append(record(name), replaces="hb-" if name != "other" else "")
            assert ids(await box.fetch("sink", 10)) == ["other", "hb-3"]
            snapshot = box.snapshot()
            assert (snapshot["stored"]["critical"], snapshot["dropped"]) == (2, {})
            assert box.backlog("sink").pending == 2

    async def test_spares_what_every_sink_has_and_does_not_move_the_others(self, make, path):
        async with make() as box:
            await box.subscribe("fast", ALL)
            await box.subscribe("slow", ALL)
            await box.append(record("hb-1"), replaces="hb-")
            await box.ack("fast", await box.fetch("fast", 10))
            await box.append(record("hb-2"), replaces="hb-")
            assert ids(await box.fetch("fast", 10)) == ids(await box.fetch("slow", 10)) == ["hb-2"]
            assert box.backlog("fast").pending == box.backlog("slow").pending == 1

    async def test_forgets_that_an_older_one_was_refused(self, make):
        async with make() as box:
            await box.subscribe("sink", ALL)
            await box.append(record("hb-1"), replaces="hb-")
            await box.refuse("sink", await box.fetch("sink", 10), "400", most=5)
            await box.append(record("hb-2"), replaces="hb-")
            assert await box.refused("sink", 10) == []
            assert box.backlog("sink").refused == 0
            assert ids(await box.fetch("sink", 10)) == ["hb-2"]

    async def test_holds_in_memory_too_while_the_disk_fails(self, make):
        async with make() as box:
            await box.subscribe("sink", ALL)
            box._commits.degrade("a test says so")
            replaced = box.append(record("hb-1"), replaces="hb-")
            box.append(record("hb-2"), replaces="hb-")
            assert await replaced == 0
            assert ids(await box.fetch("sink", 10)) == ["hb-2"]
