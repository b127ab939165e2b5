"""Consumers that lease events: nothing is with two at a time, and nothing is lost with whoever had it."""

import asyncio
from typing import Self

import msgpack
import pytest

from dxad.consumersection import ConsumerSection
from dxad.errors import ConfigError, NotConnected
from dxad.outbox import Limits, Outbox
from dxad.outboxsection import OutboxSection
from dxad.pulling import ATTEMPTS_MOST, Consumers, Declared, Wants
from dxad.runtime.clock import SteppedClock
from dxad.runtime.health import Health
from dxad.runtime.metrics import Metrics
from dxad.types import NS_PER_S, Lane, Record
from tests.patience import PATIENCE_S
from tests.unit.outbox.records import file_size_limit, sql, until

pytestmark = pytest.mark.one_loop

S = NS_PER_S
DAY = 86_400 * S


def event(id_: str, lane: Lane = Lane.CRITICAL, type_: str = "dxad.incident.opened", **data) -> Record:
    document = {"specversion": "1.0", "id": id_, "type": type_, "source": "/g/pipelines/pump", "data": data}
    return Record(id_, lane, msgpack.packb(document))


class Rig:
    """An outbox and its consumers, which can be started anew."""

    def __init__(self, path, **declared) -> None:
        self.path = path
        self.declared = declared
        self.clock = SteppedClock()
        self.health = Health(self.clock)
        self.told = []

    async def __aenter__(self) -> Self:
        metrics = Metrics()
        self.box = Outbox(
            self.path, max_bytes=2**24, commit_window_s=60.0, health=self.health, metrics=metrics,
            clock=self.clock, limits=Limits(),
        )  # fmt: skip
        await self.box.open()
        self.consumers = Consumers(
            self.box,
            gateway="g",
            clock=self.clock,
            metrics=metrics,
            ttl=7 * DAY,
            tell=self.told.append,
            **self.declared,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.box.close()

    async def pass_a_day(self) -> None:
        """Who looks after the consumers looks once, when it is over."""
        self.clock.advance(self.clock.now() + DAY - 60 * S)
        await self.clock.step(60 * S, settle=50)

    async def append(self, *ids: str, **more) -> None:
        await asyncio.gather(*(self.box.append(event(each, **more)) for each in ids))

    async def lease(self, name: str = "agent", limit: int = 10, lease_s: float = 30, **more):
        return await self.consumers.lease(name, limit=limit, lease_ns=int(lease_s * S), **more)


@pytest.fixture
async def rig():
    """In memory: what has to do with no file costs a tenth so."""
    async with Rig(None) as made:
        yield made


@pytest.fixture
async def on_disk(tmp_path):
    async with Rig(tmp_path / "outbox.db") as made:
        yield made


def fails(*_: object, **__: object) -> None:
    raise NotConnected("no disk")


def ids(leased) -> list[str]:
    return [each["event"]["id"] for each in leased]


def tokens(leased) -> list[str]:
    return [each["lease"] for each in leased]


async def test_an_event_is_with_one_agent_at_a_time_and_is_gone_when_it_is_acked(on_disk):
    await on_disk.append("a", "b", "c")
    one, other = await on_disk.lease(limit=2), await on_disk.lease(limit=2)
    assert (ids(one), ids(other), ids(await on_disk.lease())) == (["a", "b"], ["c"], [])
    assert await on_disk.consumers.ack("agent", tokens(one)) == {"acked": 2, "stale": []}
    await on_disk.clock.step(31 * S)
    again = await on_disk.lease()
    assert [(each["event"]["id"], each["attempts"]) for each in again] == [("c", 2)]
    await on_disk.consumers.ack("agent", tokens(again))
    assert sql(on_disk.path, "SELECT count(*) FROM records") == [(0,)]


async def test_two_agents_at_once_get_different_events(rig):
    await rig.append(*(f"e{n}" for n in range(40)))
    found = await asyncio.gather(*(rig.lease(limit=5) for _ in range(10)))
    all_ids = [each for some in found for each in ids(some)]
    assert sorted(all_ids) == sorted(set(all_ids))
    assert len(all_ids) == 40


async def test_a_lease_that_has_ended_is_stale_and_the_others_count(rig):
    await rig.append("a", "b")
    (first,) = await rig.lease(limit=1, lease_s=10)
    (second,) = await rig.lease(limit=1, lease_s=60)
    await rig.clock.step(11 * S)
    assert await rig.consumers.ack("agent", tokens([first, second])) == {
        "acked": 1,
        "stale": [first["lease"]],
    }
    (again,) = await rig.lease()
    assert (again["event"]["id"], again["attempts"]) == ("a", 2)
    assert (await rig.consumers.ack("agent", ["nonsense"]))["stale"] == ["nonsense"]


async def test_an_extended_lease_lasts(rig):
    await rig.append("a")
    (mine,) = await rig.lease(lease_s=10)
    await rig.clock.step(8 * S)
    assert rig.consumers.extend("agent", [mine["lease"], "x"], 30 * S) == {"extended": 1, "stale": ["x"]}
    await rig.clock.step(25 * S)
    assert await rig.lease() == []
    assert (await rig.consumers.ack("agent", [mine["lease"]]))["acked"] == 1


async def test_an_ack_that_the_disk_does_not_take_is_asked_again(rig, monkeypatch):
    await rig.append("a")
    mine = await rig.lease(lease_s=10**6)
    with monkeypatch.context() as patched:
        patched.setattr(rig.box._store, "commit", fails)
        with pytest.raises(NotConnected, match="no disk"):
            await rig.consumers.ack("agent", tokens(mine))
    while rig.box.snapshot()["degraded"]:
        await rig.clock.step(S)
    assert await rig.lease() == []  # it is still its own
    assert await rig.consumers.ack("agent", tokens(mine)) == {"acked": 1, "stale": []}


async def test_what_is_given_back_comes_at_once_or_after_its_delay(rig):
    await rig.append("a", "b")
    mine = await rig.lease()
    await rig.consumers.nack("agent", tokens(mine)[:1], reason="busy", delay_ns=0)
    await rig.consumers.nack("agent", tokens(mine)[1:], reason="busy", delay_ns=60 * S)
    assert ids(await rig.lease(lease_s=3600)) == ["a"]
    await rig.clock.step(61 * S)
    assert ids(await rig.lease()) == ["b"]


async def test_what_is_given_back_too_often_is_a_dead_letter_with_the_reason(on_disk):
    await on_disk.append("poison", "fine")
    for attempt in range(1, ATTEMPTS_MOST + 1):
        mine = [each for each in await on_disk.lease() if each["event"]["id"] == "poison"]
        assert mine[0]["attempts"] == attempt
        done = await on_disk.consumers.nack("agent", tokens(mine), reason="it makes me ill", delay_ns=0)
    assert done["dead_letters"] == 1
    assert sql(on_disk.path, "SELECT sink, id, reason FROM dead_letters") == [
        ("pull:agent", "poison", "it makes me ill")
    ]
    await on_disk.clock.step(31 * S)
    assert ids(await on_disk.lease()) == ["fine"]


async def test_what_nobody_ever_answers_for_is_a_dead_letter_too(on_disk):
    await on_disk.append("a")
    for _ in range(ATTEMPTS_MOST):
        assert ids(await on_disk.lease(lease_s=1)) == ["a"]
        await on_disk.clock.step(2 * S)
    assert await on_disk.lease() == []
    await on_disk.append("b")
    assert sql(on_disk.path, "SELECT id, attempts FROM dead_letters") == [("a", ATTEMPTS_MOST)]


async def test_after_a_restart_nobody_holds_anything_and_attempts_are_known(tmp_path):
    async with Rig(tmp_path / "outbox.db") as rig:
        await rig.append("a", "b")
        mine = await rig.lease(lease_s=3600)
        await rig.consumers.ack("agent", tokens(mine)[:1])
    async with Rig(tmp_path / "outbox.db") as rig:
        again = await rig.lease()
        assert [(each["event"]["id"], each["attempts"]) for each in again] == [("b", 2)]
        assert (await rig.consumers.ack("agent", tokens(mine)))["stale"] == tokens(mine)


async def test_what_is_wanted_is_given_and_stays_wanted_over_a_restart(tmp_path):
    wants = {"types": ["dxad.incident.*"], "severities": ["high"], "pipelines": ["pu*"]}
    async with Rig(tmp_path / "outbox.db") as rig:
        await rig.append("a", severity="low")
        await rig.append("b", severity="high")
        await rig.append("c", type_="dxad.gateway.heartbeat")
        assert ids(await rig.lease(limit=1, wants=wants)) == ["b"]
    async with Rig(tmp_path / "outbox.db") as rig:
        await rig.append("d", severity="low")
        await rig.append("e", severity="high")
        assert ids(await rig.lease()) == ["b", "e"]


async def test_bulk_records_are_leased_one_by_one(rig):
    body = msgpack.packb({"specversion": "1.0", "type": "dxad.telemetry.readings", "source": "/g"})
    bulk = rig.box.append_bulk([body] * 5)
    await rig.append("critical")  # it has all committed that waits
    await bulk
    mine = await rig.lease(limit=3, wants={"lanes": ["bulk"]})
    await rig.consumers.ack("agent", tokens(mine))
    assert len(await rig.lease()) == 2


async def test_a_new_consumer_may_begin_with_what_comes(rig):
    await rig.append("old")
    assert await rig.lease(oldest=False) == []
    await rig.append("new")
    assert ids(await rig.lease()) == ["new"]


async def test_who_waits_gets_what_comes_and_nothing_when_the_time_is_over(rig):
    waiting = asyncio.create_task(rig.lease(wait_ns=20 * S))
    for _ in range(5):
        await rig.clock.step(S // 10, settle=20)
        await asyncio.sleep(0.005)
    assert not waiting.done()
    await rig.append("a")
    async with asyncio.timeout(PATIENCE_S):
        assert ids(await waiting) == ["a"]
    waiting = asyncio.create_task(rig.lease(wait_ns=2 * S))
    while not waiting.done():
        await rig.clock.step(S, settle=20)
        await asyncio.sleep(0.005)
    assert waiting.result() == []


async def test_whoever_stops_waiting_leaves_nothing(rig):
    waiting = asyncio.create_task(rig.lease(wait_ns=20 * S))
    await asyncio.sleep(0.02)
    waiting.cancel()
    await asyncio.wait([waiting])
    await rig.append("a")
    assert ids(await rig.lease()) == ["a"]


async def test_a_consumer_that_is_silent_is_dropped_and_that_is_told(rig):
    await rig.lease("idle")
    await rig.lease("busy")
    await rig.append("a")
    running = asyncio.create_task(rig.consumers.run())
    for _ in range(8):
        await rig.lease("busy", lease_s=1)
        await rig.pass_a_day()
        await asyncio.sleep(0.02)
    for _ in range(200):
        if len(rig.consumers.snapshot()) == 1:
            break
        await rig.clock.step(60 * S, settle=50)
        await asyncio.sleep(0.01)
    running.cancel()
    await asyncio.wait([running])
    assert [each["name"] for each in rig.consumers.snapshot()] == ["busy"]
    assert [(each.type, each.subject, each.data["waiting"]) for each in rig.told] == [
        ("dxad.outbox.consumer.dropped", "idle", 1)
    ]
    assert "pull:idle" not in rig.box.sinks


async def test_silence_is_counted_over_a_restart(tmp_path):
    async with Rig(tmp_path / "outbox.db") as rig:
        await rig.lease("idle")
        running = asyncio.create_task(rig.consumers.run())
        await asyncio.sleep(0.02)
        for _ in range(4):
            await rig.pass_a_day()
            await asyncio.sleep(0.02)
        running.cancel()
        await asyncio.wait([running])
    async with Rig(tmp_path / "outbox.db") as rig:
        await rig.lease("other")
        silent = {each["name"]: each["silent_s"] for each in rig.consumers.snapshot()}
        assert silent["idle"] > 3 * 86_400


async def test_too_many_consumers_and_leases_are_refused_with_the_number(rig):
    for n in range(16):
        await rig.lease(f"c{n}")
    with pytest.raises(ConfigError, match="16 consumers already"):
        await rig.lease("one more")
    with pytest.raises(ConfigError, match="no consumer 'nobody'"):
        await rig.consumers.ack("nobody", ["x"])
    await rig.consumers.drop("c0")
    await rig.lease("one more")


async def test_who_waits_when_its_consumer_is_dropped_is_told(rig):
    waiting = asyncio.create_task(rig.lease(wait_ns=20 * S))
    await asyncio.sleep(0.02)
    await rig.consumers.drop("agent")
    while not waiting.done():
        await rig.clock.step(S, settle=20)
        await asyncio.sleep(0.005)
    with pytest.raises(ConfigError, match="somebody has dropped it"):
        waiting.result()


async def test_for_a_declared_consumer_events_are_kept_before_it_has_ever_come_and_however_long_it_is_silent(
    tmp_path,
):
    declared = {"agent": Declared(Wants(types=("dxad.incident.*",)))}
    async with Rig(tmp_path / "outbox.db", declared=declared) as rig:
        running = asyncio.create_task(rig.consumers.run())
        await asyncio.sleep(0.05)
        await rig.append("a")
        await rig.append("b", type_="dxad.gateway.started")
        for _ in range(9):
            await rig.pass_a_day()
            await asyncio.sleep(0.01)
        running.cancel()
        await asyncio.wait([running])
        assert rig.told == []
        (shown,) = rig.consumers.snapshot()
        assert (shown["name"], shown["declared"], shown["waiting"]) == ("agent", True, 2)
        assert ids(await rig.lease()) == ["a"]


async def test_what_a_declared_consumer_wants_is_said_in_the_configuration_alone(tmp_path):
    async with Rig(tmp_path / "outbox.db") as rig:
        await rig.lease(wants={"types": ["dxad.gateway.*"]})
    async with Rig(tmp_path / "outbox.db", declared={"agent": Declared()}) as rig:
        await rig.append("a")
        with pytest.raises(ConfigError, match=r"is set in \[consumers.agent\]"):
            await rig.lease(wants={"types": ["dxad.gateway.*"]})
        with pytest.raises(ConfigError, match=r"take \[consumers.agent\] out"):
            await rig.consumers.drop("agent")
        assert ids(await rig.lease(wants=Wants().document())) == ["a"]


async def test_where_consumers_are_declared_nobody_else_leases(tmp_path):
    async with Rig(tmp_path / "outbox.db", declared={"agent": Declared()}, declared_only=True) as rig:
        assert await rig.lease() == []
        with pytest.raises(ConfigError, match=r"add \[consumers.other\]"):
            await rig.lease("other")


async def test_what_is_given_back_with_a_delay_rests_while_another_becomes_a_dead_letter(rig):
    await rig.append("a")
    for _ in range(ATTEMPTS_MOST - 1):
        await rig.consumers.nack("agent", tokens(await rig.lease()), reason="busy", delay_ns=0)
    await rig.append("b")
    both = await rig.lease()
    assert [each["attempts"] for each in both] == [ATTEMPTS_MOST, 1]
    told, found = await asyncio.gather(
        rig.consumers.nack("agent", tokens(both), reason="busy", delay_ns=60 * S), rig.lease()
    )
    assert (told["dead_letters"], ids(found)) == (1, [])


class TestADeclaredConsumersAttempts:
    async def test_an_event_is_a_dead_letter_as_soon_as_the_configuration_says(self):
        declared = {"agent": Declared(max_attempts=2)}
        async with Rig(None, declared=declared) as rig:
            await rig.append("a")
            told = [
                await rig.consumers.nack("agent", tokens(await rig.lease()), reason="no", delay_ns=0)
                for _ in range(2)
            ]
            assert [each["dead_letters"] for each in told] == [0, 1]
            assert rig.consumers.snapshot()[0]["max_attempts"] == 2

    async def test_and_so_when_its_leases_end_without_a_word(self):
        async with Rig(None, declared={"agent": Declared(max_attempts=1)}) as rig:
            await rig.append("a")
            assert ids(await rig.lease(lease_s=1)) == ["a"]
            await rig.clock.step(2 * S)
            assert await rig.lease() == []
            await rig.append("b")  # a commit
            assert rig.box.snapshot()["dead_letters"] == 1


class TestWhoeverHangsUp:
    async def test_what_nobody_has_heard_of_was_never_given(self, rig):
        await rig.append("a")
        for _ in range(ATTEMPTS_MOST + 2):
            (given,) = await rig.lease()
            assert given["attempts"] == 1
            rig.consumers.release("agent", [given["lease"]])
        assert (await rig.consumers.ack("agent", [given["lease"]]))["stale"] == [given["lease"]]

    async def test_nor_what_was_on_its_way_when_the_call_ended(self, rig):
        await rig.lease()
        await rig.append("a")
        leasing = asyncio.create_task(rig.lease())
        while not rig.consumers._all["agent"].giving.locked():  # noqa: ASYNC110 - a lock tells nobody
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        leasing.cancel()
        await asyncio.wait([leasing])
        assert leasing.cancelled()
        (given,) = await rig.lease()
        assert given["attempts"] == 1

    async def test_somebody_who_waits_gets_it_at_once(self, rig):
        await rig.append("a")
        (given,) = await rig.lease()
        waiting = asyncio.create_task(rig.lease(wait_ns=60 * S))
        await asyncio.sleep(0.05)
        rig.consumers.release("agent", tokens([given]))
        async with asyncio.timeout(PATIENCE_S):  # the clock stands still
            assert ids(await waiting) == ["a"]


class TestTheFirstCall:
    async def test_of_two_at_once_that_want_what_is_new_none_is_given_what_is_old(self, rig):
        await rig.append("old")
        first = asyncio.create_task(rig.lease(oldest=False))
        second = asyncio.create_task(rig.lease(oldest=False))
        assert [await first, await second] == [[], []]
        await rig.append("new")
        assert ids(await rig.lease()) == ["new"]

    async def test_it_is_said_once_whose_it_is(self, rig, caplog):
        caplog.set_level("INFO", "dxad.pulling")
        for uid in (1000, 1000, 1001):
            await rig.lease(uid=uid)
        said = [each.message for each in caplog.records if "for the first time" in each.message]
        assert [each.split()[1] for each in said] == ["1000", "1001"]
        assert rig.consumers.snapshot()[0]["uids"] == [1000, 1001]


async def test_subjects_and_sources_are_chosen_too(rig):
    await rig.append("a", "b")
    wants = {"sources": ["/g/pipelines/fan"]}
    assert ids(await rig.lease("fans", wants=wants)) == []
    assert ids(await rig.lease("pumps", wants={"sources": ["/g/*"], "subjects": ["?*"]})) == []
    assert ids(await rig.lease("all", wants={"sources": ["/g/*"]})) == ["a", "b"]


async def test_while_the_disk_takes_nothing_an_ack_is_refused_and_works_when_it_is_said_again(on_disk):
    await on_disk.append("a")
    (given,) = await on_disk.lease()
    with file_size_limit(4096):
        for _ in range(2):
            with pytest.raises(NotConnected, match="disk I/O error"):
                await on_disk.consumers.ack("agent", [given["lease"]])
        assert on_disk.consumers.extend("agent", [given["lease"]], 60 * S)["stale"] == []
    for _ in range(50):
        await on_disk.clock.step(S)
        try:
            done = await on_disk.consumers.ack("agent", [given["lease"]])
        except NotConnected:
            await asyncio.sleep(0.01)
        else:
            break
    assert done == {"acked": 1, "stale": []}


async def test_what_is_declared_changes_while_it_runs(rig):
    running = asyncio.create_task(rig.consumers.run())
    try:
        await rig.append("old")
        agent = ConsumerSection(types=["dxad.incident.*"], max_attempts=2)
        rig.consumers.adjust(OutboxSection(consumers="declared"), {"agent": agent})
        await until(rig.consumers.snapshot)
        (shown,) = rig.consumers.snapshot()
        assert (shown["name"], shown["declared"], shown["max_attempts"]) == ("agent", True, 2)
        with pytest.raises(ConfigError, match=r"add \[consumers.other\]"):
            await rig.lease("other")
        rig.consumers.adjust(OutboxSection(), {"agent": ConsumerSection(types=["dxad.model.*"])})
        assert await rig.lease() == []
        await rig.append("new", type_="dxad.model.promoted")
        assert ids(await rig.lease()) == ["new"]
        rig.consumers.adjust(OutboxSection(consumer_ttl="1h"), {})
        assert rig.consumers.snapshot()[0]["declared"] is False
        await rig.clock.step(2 * 3600 * S)
        await until(lambda: rig.told)
    finally:
        running.cancel()
        await asyncio.wait([running])
