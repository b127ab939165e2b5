"""What a sink is offered once more: what it has had since a time, and its dead letters."""

import asyncio

from dxad.outbox import Limits
from dxad.outbox.inspection import LetterWanted, Wanted
from dxad.types import Lane
from tests.patience import PATIENCE_S
from tests.unit.outbox.records import record, sql

EVENTS = frozenset({Lane.CRITICAL, Lane.NORMAL})
DAY = 86_400 * 1_000_000_000
KEPT = Limits(keep_ns=DAY)


async def taken(box, sink: str, limit: int = 100) -> list[str]:
    """What the sink is offered next, which it takes."""
    records = await box.fetch(sink, limit)
    await box.ack(sink, records)
    return [each.id for each in records]


async def stored(box, *names: str, lane: Lane = Lane.NORMAL) -> None:
    await asyncio.gather(*(box.append(record(name, lane)) for name in names))


async def test_what_a_sink_has_had_is_offered_again_after_what_is_new(make):
    async with make(limits=KEPT) as box:
        await box.subscribe("sink", EVENTS)
        await stored(box, "a", "b", "c")
        assert await taken(box, "sink") == ["a", "b", "c"]
        assert await box.replay("sink", Wanted(), dry_run=True) == 3
        assert await taken(box, "sink") == []
        assert await box.replay("sink", Wanted()) == 3
        assert box.backlog("sink").replayed == 3
        await stored(box, "new")
        assert await taken(box, "sink") == ["new"]
        assert await taken(box, "sink", 2) == ["a", "b"]
        assert box.backlog("sink").replayed == 1
        assert await taken(box, "sink") == ["c"]
        assert await taken(box, "sink") == []
        assert (box.backlog("sink").pending, box.backlog("sink").replayed) == (0, 0)


async def test_since_a_time_and_of_one_lane_alone(make, clock):
    async with make(limits=KEPT) as box:
        await box.subscribe("sink", frozenset(Lane))
        begun = clock.utc(clock.now())
        for name in ("a", "b", "c"):
            await stored(box, name)
            await stored(box, f"critical {name}", lane=Lane.CRITICAL)
            await box.append_bulk([b"x", b"y"])
            await clock.step(1_000_000_000)
        await taken(box, "sink")
        since = begun + 1_000_000_000
        wanted = Wanted(lanes=frozenset({Lane.NORMAL}), since_utc=since)
        assert await box.replay("sink", wanted) == 2
        assert await taken(box, "sink") == ["b", "c"]
        assert await box.replay("sink", Wanted(lanes=frozenset({Lane.BULK}), since_utc=since)) == 4
        assert len(await taken(box, "sink", 3)) == 3
        assert len(await taken(box, "sink", 3)) == 1


async def test_it_survives_a_restart_and_nothing_of_it_is_trimmed_meanwhile(make):
    async with make(limits=KEPT) as box:
        await box.subscribe("sink", EVENTS)
        await stored(box, "a", "b", "c")
        await taken(box, "sink")
        await box.replay("sink", Wanted())
        assert await taken(box, "sink", 1) == ["a"]
    async with make(limits=Limits(keep_ns=0)) as box:
        await box.subscribe("sink", EVENTS)
        await stored(box, "d")
        assert await taken(box, "sink", 1) == ["d"]
        assert await taken(box, "sink") == ["b", "c"]


async def test_another_sink_is_not_concerned(make):
    async with make(limits=KEPT) as box:
        await box.subscribe("one", EVENTS)
        await box.subscribe("other", EVENTS)
        await stored(box, "a")
        await taken(box, "one")
        await taken(box, "other")
        await box.replay("one", Wanted())
        assert await taken(box, "other") == []
        assert await taken(box, "one") == ["a"]


async def test_what_is_refused_when_it_is_offered_again_stands_aside_as_usual(make):
    async with make(limits=KEPT) as box:
        await box.subscribe("sink", EVENTS)
        await stored(box, "a", "b")
        await taken(box, "sink")
        await box.replay("sink", Wanted())
        records = await box.fetch("sink", 1)
        await box.refuse("sink", records, "no", most=2)
        assert await taken(box, "sink") == ["b"]
        assert [each.id for each in await box.refused("sink", 9)] == ["a"]


async def test_a_waiting_sink_hears_of_it(make):
    async with make(limits=KEPT) as box:
        await box.subscribe("sink", EVENTS)
        await stored(box, "a")
        await taken(box, "sink")
        await taken(box, "sink")
        waiting = asyncio.create_task(box.wait("sink"))
        await asyncio.sleep(0)
        assert not waiting.done()
        await box.replay("sink", Wanted())
        await asyncio.wait_for(waiting, PATIENCE_S)


async def test_a_dead_letter_is_offered_again_to_its_sink_alone_though_its_record_has_left(make, path):
    async with make() as box:
        await box.subscribe("sink", EVENTS)
        await box.subscribe("other", EVENTS)
        await stored(box, "a", "b")
        records = await box.fetch("sink", 9)
        await box.refuse("sink", records[:1], "400", most=1)
        await box.ack("sink", records)
        await taken(box, "other")
        await stored(box, "c")
        assert sql(path, "SELECT id FROM records") == [("c",)]
        assert await box.retry_letters(LetterWanted()) == (1, {})
        assert sql(path, "SELECT count(*) FROM dead_letters") == [(0,)]
        assert [each.id for each in await box.refused("sink", 9)] == ["a"]
        assert await taken(box, "other") == ["c"]
        assert box.backlog("sink").pending == 2
        again = await box.refused("sink", 9)
        assert again[0].body == record("a", Lane.NORMAL).body
        await box.ack("sink", again)
        assert await taken(box, "sink") == ["c"]
        await stored(box, "d")
        assert sql(path, "SELECT id FROM records") == [("d",)]


async def test_a_dead_letter_that_was_retried_is_offered_after_a_restart_too(make):
    async with make() as box:
        await box.subscribe("sink", EVENTS)
        await stored(box, "a")
        await box.refuse("sink", await box.fetch("sink", 9), "400", most=1)
        await stored(box, "b")
        await box.retry_letters(LetterWanted(numbers=(1,)))
    async with make() as box:
        await box.subscribe("sink", EVENTS)
        assert [each.id for each in await box.refused("sink", 9)] == ["a"]


async def test_letters_of_a_sink_that_is_no_more_and_damaged_ones_stay_with_the_reason(make, path):
    async with make() as box:
        await box.subscribe("gone", EVENTS)
        await stored(box, "a", "b")
        await box.refuse("gone", (await box.fetch("gone", 9))[:1], "400", most=1)
        await stored(box, "c")
        await box.unsubscribe("gone")
        sql(path, "UPDATE records SET body = x'00' WHERE id = 'b'")
        await box.subscribe("sink", EVENTS)
        await taken(box, "sink")
        retried, stay = await box.retry_letters(LetterWanted())
        assert retried == 0
        assert sorted(stay.values()) == [
            "it was damaged on disk: there is nothing to offer",
            "there is no sink gone any more",
        ]
        assert await box.drop_letters(LetterWanted(sink="gone")) == 1
        assert await box.drop_letters(LetterWanted()) == 1
        assert box.snapshot()["dead_letters"] == 0
