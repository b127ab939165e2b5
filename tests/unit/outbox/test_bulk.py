"""Bulk records: many to a row of the file, one by one to whoever reads them."""

from collections.abc import Callable

import pytest

from dxad.outbox import Outbox
from dxad.types import Lane
from tests.unit.outbox.records import codes, ids, record, sql, until

ALL = frozenset(Lane)
MIB = 2**20

Make = Callable[..., Outbox]


def bodies(n: int, first: int = 0) -> list[bytes]:
    return [b"%d" % each for each in range(first, first + n)]


class TestSegments:
    async def test_hold_what_one_commit_brought(self, make, path):
        async with make() as box:
            first, second = box.append_bulk(bodies(10)), box.append_bulk(bodies(5, 10))
            assert (await first, await second) == (10, 15)
            assert sql(path, "SELECT last, count FROM segments") == [(15, 15)]
            assert sql(path, "SELECT count(*) FROM records") == [(0,)]

    async def test_are_read_record_by_record(self, make, clock):
        async with make() as box:
            await box.subscribe("s", ALL)
            await box.append_bulk(bodies(10), at_ns=range(10))
            read = await box.fetch("s", 4)
            await box.ack("s", read)
            assert box.backlog("s").pending == 6
            read += await box.fetch("s", 100)
            assert [each.body for each in read] == bodies(10)
            assert [each.seq for each in read] == list(range(1, 11))
            assert [each.at_ns for each in read] == list(range(10))
            assert len(set(ids(read))) == 10
            assert {each.boot for each in read} == {box.boot}

    async def test_keep_ids_and_places_over_a_restart(self, make):
        async with make() as box:
            await box.subscribe("s", ALL)
            await box.append_bulk(bodies(10))
            await box.ack("s", await box.fetch("s", 4))
            before = await box.fetch("s", 100)
        async with make() as box:
            await box.subscribe("s", ALL)
            assert await box.fetch("s", 100) == before
            assert await box.append_bulk(bodies(1)) == 11
            assert len(set(ids(await box.fetch("s", 100)))) == 7

    async def test_stand_in_order_with_single_records_of_their_lane(self, make):
        async with make() as box:
            await box.subscribe("s", ALL)
            await box.append_bulk(bodies(3))
            await box.append(record("one", Lane.BULK))
            await box.append_bulk(bodies(3, 3))
            await box.append(record("urgent"))
            read = await box.fetch("s", 6)
            assert [each.seq for each in read] == [8, 1, 2, 3, 4, 5]
            assert read[4].id == "one"

    async def test_stand_in_order_with_single_records_of_the_same_commit(self, make):
        async with make(commit_window_s=60.0) as box:
            await box.subscribe("s", ALL)
            stored = []
            for n in range(3):
                stored.append(box.append(record(f"single {n}", Lane.BULK)))
                stored += [box.append_bulk([b"batch %d" % n] * 3) for _ in range(2)]
            stored.append(box.append(record("urgent")))
            assert [await each for each in stored[:-1]] == sorted(each.result() for each in stored[:-1])
            _, *read = await box.fetch("s", 100)
            assert [each.body[:8] for each in read] == [
                body for n in range(3) for body in (b"single %d" % n, *[b"batch %d" % n] * 6)
            ]
            assert [each.result() for each in stored[:3]] == [read[0].seq, read[3].seq, read[6].seq]

    async def test_go_when_all_sinks_are_past_them(self, make, path):
        async with make() as box:
            await box.subscribe("s", ALL)
            await box.append_bulk(bodies(10))
            await box.ack("s", await box.fetch("s", 9))
            await box.append(record("a"))
            assert sql(path, "SELECT count(*) FROM segments") == [(1,)]
            await box.ack("s", await box.fetch("s", 9))
            await until(lambda: sql(path, "SELECT count(*) FROM segments") == [(0,)])
            await until(lambda: not box.snapshot()["stored"]["bulk"])

    async def test_leave_a_refused_record_behind(self, make, path):
        async with make() as box:
            await box.subscribe("s", ALL)
            await box.append_bulk(bodies(10))
            read = await box.fetch("s", 10)
            await box.refuse("s", [read[3]], "no", most=3)
            assert await box.refused("s", 10) == [read[3]]
            await box.ack("s", read[:3] + read[4:])
            await until(lambda: sql(path, "SELECT count(*) FROM segments") == [(0,)])
            assert await box.refused("s", 10) == [read[3]]
            await until(lambda: box.snapshot()["stored"]["bulk"] == 1)
            assert await box.refuse("s", [read[3]], "no", most=2) == 1
            await until(lambda: sql(path, "SELECT id FROM dead_letters") == [(read[3].id,)])

    async def test_that_are_damaged_go_whole(self, make, path, metrics):
        async with make() as box:
            for n in range(3):
                await box.append_bulk(bodies(10, 10 * n))
        sql(path, "UPDATE segments SET body = x'00' WHERE last = 20")
        async with make() as box:
            await box.subscribe("s", ALL)
            assert [each.body for each in await box.fetch("s", 100)] == bodies(10) + bodies(10, 20)
            assert sql(path, "SELECT reason, records FROM dead_letters") == [("damaged", 10)]
            assert box.backlog("s").pending == box.snapshot()["stored"]["bulk"] == 20

    async def test_go_first_by_quota(self, make, health):
        async with make(max_bytes=MIB) as box:
            await box.subscribe("s", ALL)
            for _ in range(30):
                await box.append_bulk([bytes(1000)] * 100)
            await box.append(record("alarm", size=100_000))
            told = box.snapshot()
            assert told["stored"]["critical"] == 1
            assert told["dropped"] == {"bulk": 3000 - told["stored"]["bulk"]}
            assert told["bytes"] <= MIB
            assert box.backlog("s").pending == told["stored"]["bulk"] + 1
            assert codes(health) == {"outbox.full"}


class TestClock:
    async def test_what_was_told_before_it_was_right_is_dated_anew(self, make, clock):
        async with make() as box:
            await box.subscribe("s", ALL)
            await box.append(record("a"))
            await box.append_bulk(bodies(2))
            (old, *_) = await box.fetch("s", 3)
            await box.note_clock(offset_ns=old.boot.offset_ns + 5, clock_ok=True)
            read = await box.fetch("s", 3)
            assert {each.utc_ns for each in read} == {old.utc_ns + 5}
            assert all(each.boot.clock_ok for each in read)
        async with make(boot="another") as box:
            await box.subscribe("s", ALL)
            read = await box.fetch("s", 3)
            assert {each.utc_ns for each in read} == {old.utc_ns + 5}
            assert box.boot.id == "another"


class TestDegraded:
    async def test_bulk_is_served_from_memory_and_stored_later_under_the_same_ids(
        self, make, tmp_path, clock
    ):
        async with make(tmp_path / "gone" / "outbox.db") as box:
            await box.subscribe("s", ALL)
            await box.subscribe("other", ALL)
            stored = box.append_bulk(bodies(10))
            served = await box.fetch("s", 100)
            assert [each.body for each in served] == bodies(10)
            await box.ack("s", served)
            assert not stored.done()
            (tmp_path / "gone").mkdir()
            while not stored.done():
                await clock.step(1_000_000_000)
            assert ids(await box.fetch("other", 100)) == ids(served)

    async def test_closing_loses_what_the_disk_did_not_take(self, make, tmp_path, metrics):
        async with make(tmp_path / "gone" / "outbox.db") as box:
            stored = box.append_bulk(bodies(10))
        with pytest.raises(Exception, match="closed while its disk failed"):
            await stored
        assert metrics.total("dxad_records_dropped_total") == 10
