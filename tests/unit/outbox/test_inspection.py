"""What can be seen of the outbox while it works: events, who lacks them, dead letters, and all in numbers."""

import asyncio

import msgpack
import pytest

from dxad.outbox.inspection import Inspection, LetterWanted, Wanted
from dxad.selection import Selection
from dxad.types import Lane, Record
from tests.unit.outbox.records import sql

S = 1_000_000_000
EVENTS = frozenset({Lane.CRITICAL, Lane.NORMAL})


def event(id_: str, lane: Lane = Lane.NORMAL, type_: str = "dxad.incident.opened", at_ns: int = 0) -> Record:
    document = {"specversion": "1.0", "id": id_, "type": type_, "source": "/g", "data": {"n": 1}}
    return Record(id_, lane, msgpack.packb(document), at_ns=at_ns)


def telemetry(n: int) -> list[bytes]:
    return [
        msgpack.packb({"type": "dxad.telemetry.readings", "source": "/g", "data": {"n": k}}) for k in range(n)
    ]


async def page(box, wanted=None, **how):
    return await box.look(lambda inspection: inspection.page(wanted or Wanted(), **how))


def ids(found) -> list[str]:
    return [each["id"] for each in found.found]


async def test_events_come_in_the_order_they_were_stored_whatever_their_lane(make):
    async with make() as box:
        for id_, lane in (("a", Lane.NORMAL), ("b", Lane.CRITICAL), ("c", Lane.BULK), ("d", Lane.NORMAL)):
            await box.append(event(id_, lane))
        assert ids(await page(box)) == ["a", "b", "c", "d"]
        assert ids(await page(box, after=2)) == ["c", "d"]
        assert ids(await page(box, after=-1)) == ["d"]


async def test_a_page_ends_at_its_limit_and_says_where_to_go_on(make):
    async with make() as box:
        await asyncio.gather(*(box.append(event(f"e{n}")) for n in range(7)))
        first = await page(box, limit=5)
        assert (len(first.found), first.next) == (5, 5)
        rest = await page(box, after=first.next, limit=5)
        assert (ids(rest), rest.next) == (["e5", "e6"], None)


async def test_a_page_looks_at_a_bounded_number_of_records(make):
    async with make() as box:
        await box.append_bulk(telemetry(3_000))
        await box.append(event("last"))
        found, steps, after = [], 0, 0
        while after is not None:
            step = await page(box, Wanted(selection=Selection(types=("dxad.incident.*",))), after=after)
            found, steps, after = found + ids(step), steps + 1, step.next
        assert (found, steps) == (["last"], 2)


async def test_records_of_a_segment_are_found_one_by_one_and_by_id(make):
    async with make() as box:
        last = await box.append_bulk(telemetry(600))
        found = await page(box, Wanted(lanes=frozenset({Lane.BULK})), after=297, limit=3, whole=True)
        assert [each["event"]["data"]["n"] for each in found.found] == [297, 298, 299]
        whole = await box.look(lambda inspection: inspection.record(found.found[0]["id"]))
        assert (whole["seq"], whole["event"]["data"], last) == (298, {"n": 297}, 600)
        assert await box.look(lambda inspection: inspection.record("nothing-7")) is None
        assert await box.look(lambda inspection: inspection.record("nothing")) is None


async def test_what_is_wanted_is_told_by_lane_type_and_time(make, clock):
    async with make() as box:
        begin = clock.utc(clock.now())
        for n in range(4):
            await box.append(event(f"e{n}", type_="dxad.incident.opened" if n % 2 else "dxad.x"))
            await clock.step(S)
        at = [each["time"] for each in (await page(box)).found]
        assert at == sorted(at)
        assert ids(await page(box, Wanted(selection=Selection(types=("dxad.incident.*", "none"))))) == [
            "e1",
            "e3",
        ]
        spans = Wanted.of(since=begin + S, until=begin + 3 * S, now_utc=0)
        assert ids(await page(box, spans)) == ["e1", "e2"]
        ago = Wanted.of(since=-2 * S, now_utc=clock.utc(clock.now()))
        assert ids(await page(box, ago)) == ["e2", "e3"]


async def test_who_lacks_an_event_is_told_and_how_that_stands(make):
    async with make() as box:
        await box.subscribe("fast", EVENTS)
        await box.subscribe("slow", EVENTS)
        await asyncio.gather(*(box.append(event(f"e{n}")) for n in range(3)))
        records = await box.fetch("fast", 10)
        await box.ack("fast", records[:1])
        await box.refuse("fast", records[1:2], "no", most=9)
        await box.append(event("later"))  # what sinks did is saved with the next commit
        found = await page(box)
        assert [each["owed"] for each in found.found][:2] == [
            {"slow": "waiting"},
            {"fast": "refused", "slow": "waiting"},
        ]
        assert ids(await page(box, Wanted(sink="fast"))) == ["e2", "later"]
        told = await box.look(lambda inspection: inspection.overview())
        assert told["sinks"]["fast"]["pending"] == 3
        assert told["sinks"]["fast"]["refused"] == 1
        assert told["sinks"]["slow"]["pending"] == 4
        assert told["lanes"]["normal"]["stored"] == 4


async def test_damaged_records_are_passed_over_and_counted(make, path):
    async with make() as box:
        await asyncio.gather(*(box.append(event(f"e{n}")) for n in range(3)))
        await box.append_bulk(telemetry(10))
        await box.append(event("after"))
    sql(path, "UPDATE records SET body = x'00' WHERE id = 'e1'")
    sql(path, "UPDATE segments SET body = x'00'")
    async with make() as box:
        found = await page(box)
        assert (ids(found), found.damaged) == (["e0", "e2", "after"], 11)


async def test_dead_letters_are_told_with_their_reasons(make):
    async with make() as box:
        await box.subscribe("sink", EVENTS)
        await asyncio.gather(*(box.append(event(f"e{n}")) for n in range(3)))
        records = await box.fetch("sink", 10)
        await box.refuse("sink", records[:2], "400 Bad Request", most=1)
        await box.refuse("sink", records[2:], "413 Too Large", most=1)
        await box.append(event("later"))

        async def letters(**wanted):
            return await box.look(lambda inspection: inspection.letters(LetterWanted(**wanted), limit=2))

        found, following = await letters()
        assert ([each["id"] for each in found], following) == (["e0", "e1"], 2)
        assert [each["type"] for each in found] == ["dxad.incident.opened"] * 2
        found, following = await letters(reason="too large")
        assert ([(each["id"], each["attempts"]) for each in found], following) == ([("e2", 1)], None)
        assert (await letters(sink="other"))[0] == []
        told = (await box.look(lambda inspection: inspection.overview()))["dead_letters"]
        assert [(each["reason"], each["records"]) for each in told] == [
            ("400 Bad Request", 2),
            ("413 Too Large", 1),
        ]


async def test_a_body_that_is_no_event_is_told_as_such(make):
    async with make() as box:
        await box.append(Record("odd", Lane.NORMAL, b"\xc1"))
        (found,) = (await page(box, whole=True)).found
        assert found["event"]["unreadable"] == "c1"


@pytest.mark.parametrize("lane", Lane)
async def test_nothing_there_is_nothing_told(make, lane):
    async with make() as box:
        assert ids(await page(box, Wanted(lanes=frozenset({lane})))) == []

        def span(inspection: Inspection):
            return inspection.span(Wanted(), lane, 100)

        assert await box.look(span) is None
