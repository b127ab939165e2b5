"""What is kept after delivery, what quotas and ages take, and that the numbers of what was lost add up."""

import asyncio
from collections import Counter
from collections.abc import Callable
from itertools import pairwise

import pytest

from dxad.event import decode
from dxad.outbox import LaneLimits, Limits, Outbox
from dxad.types import Lane
from tests.unit.outbox.records import codes, fill, ids, record, sql

pytestmark = pytest.mark.one_loop

ALL = frozenset(Lane)
MIB = 2**20
HOUR_NS = 3600 * 10**9

Make = Callable[..., Outbox]


async def take_all(box: Outbox) -> list[str]:
    taken: list[str] = []
    while records := await box.fetch("s", 1000):
        await box.ack("s", records)
        taken += ids(records)
    return taken


def limited(lane: Lane, **limits: int) -> Limits:
    return Limits(lanes={lane: LaneLimits(**limits)})


class TestKept:
    async def test_what_was_delivered_stays_for_a_while(self, make, path, clock):
        async with make(limits=Limits(keep_ns=HOUR_NS)) as box:
            await box.subscribe("s", ALL)
            await box.append(record("a"))
            await box.append_bulk([b"b"] * 3)
            await take_all(box)
            await clock.step(HOUR_NS // 2)
            await box.append(record("c"))
            await take_all(box)
            await box._tidy()
            assert sum(box.snapshot()["stored"].values()) == 5
            await clock.step(HOUR_NS // 2 + 1)
            await box._tidy()
            assert sql(path, "SELECT id FROM records") == [("c",)]
            assert sql(path, "SELECT count(*) FROM segments") == [(0,)]
            assert box.snapshot()["dropped"] == {}

    async def test_it_goes_first_and_is_no_loss(self, make, health):
        async with make(max_bytes=MIB, limits=Limits(keep_ns=HOUR_NS)) as box:
            await box.subscribe("s", ALL)
            await fill(box, "c", Lane.CRITICAL, 400)
            await take_all(box)
            await fill(box, "b", Lane.BULK, 600)
            told = box.snapshot()
            assert told["stored"]["bulk"] == 600
            assert 0 < told["stored"]["critical"] < 400
            assert told["dropped"] == {}
            assert not health.active

    async def test_it_spares_what_was_refused(self, make, path):
        async with make(max_bytes=MIB, limits=Limits(keep_ns=HOUR_NS)) as box:
            await box.subscribe("s", ALL)
            await box.append(record("poison"))
            await box.append_bulk([b"poison"])
            poison = await box.fetch("s", 2)
            await box.refuse("s", poison, "no", most=9)
            for _ in range(30):
                await box.append_bulk([bytes(1000)] * 100)
                await take_all(box)
            assert await box.refused("s", 9) == poison
            assert box.snapshot()["dropped"] == {}


class TestFull:
    async def test_of_bulk_a_little_more_goes_than_has_to_so_that_not_each_commit_is_late(self, make):
        async with make(max_bytes=2 * MIB) as box:
            await box.subscribe("s", ALL)
            sizes, losses = [3_000] * 90 + [100_000] * 16 + [3_000] * 60, []
            for size in sizes:
                await box.append_bulk([bytes(size)])
                losses.append(box.snapshot()["dropped"].get("bulk", 0))
            full = [after > before for before, after in pairwise(losses[-20:])]
            assert 0 < 2 * sum(full) <= len(full)
            told = box.snapshot()
            assert told["bytes"] > 0.98 * 2 * MIB
            assert told["stored"]["bulk"] + told["dropped"]["bulk"] == len(sizes)


class TestLaneLimits:
    async def test_a_lane_stays_within_its_own_quota(self, make):
        async with make(limits=limited(Lane.BULK, max_bytes=100_000)) as box:
            await box.subscribe("s", ALL)
            await fill(box, "n", Lane.NORMAL, 200)
            await fill(box, "b", Lane.BULK, 200)
            for _ in range(10):
                await box.append_bulk([bytes(1000)] * 20)
            told = box.snapshot()
            assert told["stored"]["normal"] == 200
            assert 80_000 < told["lane_bytes"]["bulk"] <= 100_000
            assert told["dropped"] == {"bulk": 400 - told["stored"]["bulk"]}
            assert told["dropped_for"] == [
                {"lane": "bulk", "reason": "lane_quota", "records": told["dropped"]["bulk"]}
            ]
            assert len(await take_all(box)) == 200 + told["stored"]["bulk"]

    async def test_what_is_too_old_goes(self, make, clock):
        async with make(limits=limited(Lane.NORMAL, max_age_ns=HOUR_NS)) as box:
            await box.subscribe("s", ALL)
            await fill(box, "n", Lane.NORMAL, 600)
            await box.append(record("c"))
            await clock.step(HOUR_NS + 1)
            await box.append(record("new", Lane.NORMAL))
            await box._tidy()
            assert await take_all(box) == ["c", "new"]
            assert box.backlog("s").pending == 0
            assert box.snapshot()["dropped_for"] == [{"lane": "normal", "reason": "age", "records": 600}]

    async def test_numbers_are_right_after_a_restart(self, make):
        limits = limited(Lane.BULK, max_bytes=100_000)
        async with make(limits=limits) as box:
            await box.subscribe("s", ALL)
            await fill(box, "b", Lane.BULK, 30)
            await box.append_bulk([bytes(1000)] * 20)
            await box.ack("s", await box.fetch("s", 20))
            await box.append(record("n", Lane.NORMAL))
            before = box.snapshot()
        async with make(limits=limits) as box:
            after = box.snapshot()
            assert (after["stored"], after["lane_bytes"]) == (before["stored"], before["lane_bytes"])


class TestTold:
    @pytest.fixture(autouse=True)
    def nobody_keeps_house(self, monkeypatch):
        monkeypatch.setattr("dxad.outbox.front._HOUSEKEEPING_S", 60)

    async def tell(self, box: Outbox) -> None:
        telling = box._report.telling()
        assert telling
        await box._commits.tell(*telling)

    async def test_an_episode_is_one_event_whose_numbers_add_up(self, make, health, metrics):
        async with make(max_bytes=MIB, gateway="gw") as box:
            await box.subscribe("s", ALL)
            await fill(box, "p", Lane.NORMAL, 300)
            await box.refuse("s", await box.fetch("s", 1000), "no", most=1)
            await fill(box, "n", Lane.NORMAL, 700)
            stored = [box.append_bulk([bytes(1000)] * 50) for _ in range(20)]
            await asyncio.gather(*stored, return_exceptions=True)
            assert box._report.telling() is None
            read = await box.fetch("s", 5000)
            await box.ack("s", read)
            await box.append(record("room"))
            assert not health.active
            await self.tell(box)
            (report,) = [each for each in await box.fetch("s", 10) if each.id != "room"]
            assert report.lane is Lane.CRITICAL
            told = decode(report)
            assert (told["type"], told["source"]) == ("dxad.outbox.dropped", "/gw/outbox")
            by_lane = Counter({each["lane"]: each["records"] for each in told["data"]["dropped"]})
            assert by_lane == metrics.by_label("dxad_records_dropped_total", "lane")
            left = Counter(each.lane.name.lower() for each in read)
            assert by_lane["normal"] + left["normal"] == 700
            assert by_lane["bulk"] + left["bulk"] == 1000
            assert by_lane["dead_letter"] <= 300
            assert told["data"]["records"] == by_lane.total()
            assert box._report.telling() is None

    async def test_what_was_lost_before_a_restart_is_told_after_it(self, make):
        async with make(max_bytes=MIB, gateway="gw") as box:
            await fill(box, "n", Lane.NORMAL, 1500)
            lost = box.snapshot()["dropped"]["normal"]
        async with make(max_bytes=MIB, gateway="gw") as box:
            await box.subscribe("s", ALL)
            await self.tell(box)
            (report, *_) = await box.fetch("s", 1)
            assert decode(report)["data"]["records"] == lost

    async def test_an_episode_that_lasts_is_told_of_once_a_day(self, make, clock, health):
        async with make(max_bytes=MIB, gateway="gw") as box:
            await fill(box, "n", Lane.NORMAL, 1500)
            await clock.step(23 * HOUR_NS)
            await fill(box, "m", Lane.NORMAL, 20)
            assert box._report.telling() is None
            await clock.step(HOUR_NS)
            await self.tell(box)
            await fill(box, "o", Lane.NORMAL, 20)
            assert codes(health) == {"outbox.full"}

    async def test_losses_from_memory_are_told_as_well(self, make, tmp_path, clock, monkeypatch):
        monkeypatch.setattr("dxad.outbox.commits._MEMORY_MAX", 5_000)
        async with make(tmp_path / "gone" / "outbox.db") as box:
            last = [box.append(record(f"b{n}", Lane.BULK, 1000)) for n in range(12)][-1]
            (tmp_path / "gone").mkdir()
            while not last.done():
                await clock.step(10**9)
            await box.append(record("after"))
            assert sql(tmp_path / "gone" / "outbox.db", "SELECT what, reason, records, bytes FROM drops") == [
                ("bulk", "memory", 7, 7000)
            ]


@pytest.mark.parametrize("gateway", ["gw", None])
async def test_housekeeping_does_it_by_itself(make, monkeypatch, gateway, path):
    monkeypatch.setattr("dxad.outbox.front._HOUSEKEEPING_S", 0.01)
    async with make(max_bytes=MIB, gateway=gateway) as box:
        await box.subscribe("s", ALL)
        await fill(box, "n", Lane.NORMAL, 1500)
        read = await take_all(box)
        told = [each for each in read if not each.startswith("n")]
        for _ in range(200):
            told += [each for each in await take_all(box) if not each.startswith("n")]
            if told:
                break
            await asyncio.sleep(0.005)
        assert bool(told) == bool(gateway)
