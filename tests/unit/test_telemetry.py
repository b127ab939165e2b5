"""Telemetry: sealed rows become bulk records, each sample once, whatever happens in between."""

import asyncio

import msgpack
import numpy as np
import pytest

from dxad import config
from dxad.errors import ConfigError, NotConnected, OutboxFull
from dxad.event import decode
from dxad.join import Feed
from dxad.outbox import Outbox
from dxad.ring.journal import Journal
from dxad.ring.ringbuffer import RingBuffer
from dxad.runtime.clock import SteppedClock
from dxad.runtime.health import Health
from dxad.runtime.metrics import Metrics
from dxad.telemetry import Telemetry, split
from dxad.telemetrysection import TelemetrySection
from dxad.types import NS_PER_S, SAMPLE, Channel, Lane, Quality, State
from tests.patience import PATIENCE_S

CHANNELS = (Channel("plc.a", "bar"), Channel("plc.b"))
G, H, U, B, E = State.GOOD, State.HELD, State.UNCERTAIN, State.BAD, State.EMPTY
VALUES = np.array([[1.0, 5.0], [2.0, np.nan], [3.0, 7.0]])
STATES = np.array([[G, G], [H, B], [G, U]], dtype=np.uint8)


class TestOfTheSamples:
    def said(self, mode: str) -> dict:
        (found,) = split(CHANNELS, VALUES, STATES, mode=mode)
        return found

    def test_all_are_told_with_their_rows_and_states(self):
        assert self.said("all") == {
            "plc.a": {"unit": "bar", "values": [1.0, 3.0], "at": [0, 2]},
            "plc.b": {"values": [5.0, None, 7.0], "uncertain": [2], "bad": [1]},
        }

    def test_the_last_is_told(self):
        assert self.said("last") == {
            "plc.a": {"unit": "bar", "value": 3.0, "at": 2},
            "plc.b": {"value": 7.0, "at": 2, "uncertain": True},
        }

    def test_the_good_ones_are_aggregated(self):
        assert self.said("mean")["plc.a"] == {"unit": "bar", "mean": 2.0, "count": 2}
        assert self.said("minmax")["plc.a"] == {
            "unit": "bar",
            "mean": 2.0,
            "count": 2,
            "min": 1.0,
            "max": 3.0,
        }
        assert self.said("minmax")["plc.b"]["count"] == 1

    def test_nothing_is_told_of_channels_without_any(self):
        nothing = np.full((3, 2), E, dtype=np.uint8)
        assert not [
            *split(CHANNELS, VALUES, nothing, mode="all"),
            *split(CHANNELS, VALUES, nothing, mode="mean"),
        ]

    @pytest.mark.parametrize("mode", ["all", "minmax"])
    def test_records_stay_below_64_kib_and_each_channel_is_in_one(self, mode):
        channels = [Channel(f"plc.{'long' * 10}{n}", "bar") for n in range(700)]
        values = np.random.default_rng(1).normal(size=(100, 700))
        parts = list(split(channels, values, np.full(values.shape, U if mode == "all" else G), mode=mode))
        assert max(len(msgpack.packb(each)) for each in parts) < 64 * 1024 - 1000
        assert [name for each in parts for name in each] == [each.id for each in channels]


class Rig:
    def __init__(self) -> None:
        self.clock, self.metrics = SteppedClock(), Metrics()
        self.box = Outbox(
            None, max_bytes=2**24, commit_window_s=0.0, health=Health(self.clock), metrics=self.metrics,
            clock=self.clock,
        )  # fmt: skip
        self.ring = RingBuffer(CHANNELS, period=NS_PER_S // 10, slots=100, start=1000)
        self.next = 0.0
        self.stored: list[int] = []
        """The tickets of blocks that were told to be stored."""

    def telemetry(self, before: Telemetry | None = None, **keys: object) -> Telemetry:
        section = TelemetrySection.model_validate(
            {"channels": ["plc.*"], "every": "1s", "mode": "all", **keys}
        )
        return Telemetry(
            "plant", section, {"plc": Feed(self.ring, (0, 1))}, {}, gateway="gw", outbox=self.box,
            clock=self.clock, metrics=self.metrics, before=before,
        )  # fmt: skip

    def journaled(self, **keys: object) -> tuple[Telemetry, Journal]:
        """Of a source that waits for the outbox."""
        journal = Journal(CHANNELS, period=self.ring.period, capacity=100_000)
        journal.on_stored = self.stored.append
        section = TelemetrySection.model_validate(
            {"channels": ["plc.*"], "every": "1h", "mode": "all", **keys}
        )
        made = Telemetry(
            "plant", section, {"plc": Feed(self.ring, (0, 1))}, {}, gateway="gw", outbox=self.box,
            clock=self.clock, metrics=self.metrics, journals={"plc": journal},
        )  # fmt: skip
        return made, journal

    def rows(self, n: int) -> None:
        values = self.next + np.arange(n, dtype=float)
        self.next += n
        self.ring.append(self.ring.sealed, np.column_stack((values, values)), np.full((n, 2), G, np.uint8))

    async def records(self) -> list[dict]:
        return [decode(each) for each in await self.box.fetch("s", 1000)]


@pytest.fixture
async def rig():
    rig = Rig()
    async with rig.box:
        await rig.box.subscribe("s", frozenset({Lane.BULK}))
        yield rig


def sent(records: list[dict]) -> list[float]:
    return [value for each in records for value in each["data"]["channels"]["plc.a"]["values"]]


async def stopped(run: "asyncio.Task[None]", telemetry: Telemetry) -> None:
    """It has ended, and what it made is stored."""
    run.cancel()
    await asyncio.wait([run])
    async with asyncio.timeout(PATIENCE_S):
        while telemetry.snapshot()["waiting_bytes"]:  # noqa: ASYNC110 - settled in a thread
            await asyncio.sleep(0.005)


async def begun(telemetry: Telemetry) -> "asyncio.Task[None]":
    run = asyncio.create_task(telemetry.run())
    await asyncio.sleep(0)
    return run


class TestOfTheRows:
    async def test_each_stretch_that_has_ended_is_one_record_and_the_rest_comes_at_the_end(self, rig):
        telemetry = rig.telemetry()
        run = await begun(telemetry)
        rig.rows(25)
        await telemetry.look()
        await stopped(run, telemetry)
        found = await rig.records()
        assert [each["data"]["rows"] for each in found] == [10, 10, 5]
        assert [each["data"]["first"] for each in found] == [1000, 1010, 1020]
        assert sent(found) == [float(n) for n in range(25)]
        assert found[1]["source"] == "/gw/telemetry/plant"
        assert found[1]["boottime"] == str(101 * NS_PER_S)
        assert len({each["id"] for each in found}) == 3
        assert telemetry.snapshot()["records"] == 3

    async def test_rows_that_were_overwritten_are_counted_and_told(self, rig):
        telemetry = rig.telemetry()
        run = await begun(telemetry)
        rig.rows(130)
        await telemetry.look()
        await stopped(run, telemetry)
        found = await rig.records()
        assert found[0]["data"]["lost"] == 30
        assert sum(each["data"]["lost"] for each in found) == telemetry.snapshot()["rows_lost"] == 30
        assert sent(found) == [float(n) for n in range(30, 130)]

    async def test_another_section_goes_on_where_the_one_before_has_ended(self, rig):
        first = rig.telemetry()
        run = await begun(first)
        rig.rows(15)
        await stopped(run, first)
        rig.rows(3)
        second = rig.telemetry(first, every="2s")
        run = await begun(second)
        rig.rows(22)
        await second.look()
        await stopped(run, second)
        assert sent(await rig.records()) == [float(n) for n in range(40)]


def block(*samples: tuple[int, float, float], stamp_us: int = 0, quality: Quality = Quality.GOOD):
    """Samples as (column, value, seconds on the stream clock), and their times."""
    found = np.zeros(len(samples), SAMPLE)
    found["column"] = [column for column, _, _ in samples]
    found["value"] = [value for _, value, _ in samples]
    found["quality"] = quality
    found["stamp"] = stamp_us * 1000
    return found, np.array([round(at * NS_PER_S) for _, _, at in samples])


async def condition(holds) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not holds():  # noqa: ASYNC110 - settled in a thread
            await asyncio.sleep(0.005)


class TestOfAJournal:
    async def test_each_sample_is_told_also_those_that_share_a_row(self, rig):
        telemetry, journal = rig.journaled()
        run = await begun(telemetry)
        journal.add(*block((0, 1.0, 100.0), (1, 7.0, 100.0), (0, 2.0, 100.05), (0, 3.0, 100.3)))
        journal.add(*block((0, np.nan, 99.9), quality=Quality.BAD, stamp_us=5))
        await stopped(run, telemetry)
        (found,) = await rig.records()
        data = found["data"]
        assert (data["mode"], data["first"], data["rows"]) == ("all", 999, 5)
        assert data["channels"] == {
            "plc.a": {
                "unit": "bar", "values": [None, 1.0, 2.0, 3.0], "at": [0, 1, 1, 4], "bad": [0],
                "stamps_us": [5, 0, 0, 0],
            },
            "plc.b": {"values": [7.0], "at": [1]},
        }  # fmt: skip
        assert found["boottime"] == str(999 * rig.ring.period)

    async def test_a_block_is_stored_once_its_record_is(self, rig):
        telemetry, journal = rig.journaled()
        run = await begun(telemetry)
        journal.add(*block((0, 1.0, 100.0)))
        journal.mark(1, pressed=False)
        await rig.clock.step(4 * NS_PER_S)
        assert rig.stored == [], "nobody is in a hurry"
        await rig.clock.step(2 * NS_PER_S)
        await condition(lambda: rig.stored == [1])
        journal.add(*block((0, 2.0, 106.0)))
        journal.mark(2, pressed=True)
        await condition(lambda: rig.stored == [1, 2])
        await stopped(run, telemetry)
        assert sent(await rig.records()) == [1.0, 2.0]

    async def test_many_samples_come_in_records_below_64_kib_each_once(self, rig):
        telemetry, journal = rig.journaled()
        run = await begun(telemetry)
        numbers = np.random.default_rng(3).normal(size=12_000)
        for part in np.split(numbers, 12):
            samples = [(n % 2, value, 100.0 + n) for n, value in enumerate(part)]
            journal.add(*block(*samples, stamp_us=1))
        await stopped(run, telemetry)
        records = await rig.box.fetch("s", 1000)
        assert max(len(each.body) for each in records) < 64 * 1024
        told = [
            value
            for each in map(decode, records)
            for channel in each["data"]["channels"].values()
            for value in channel["values"]
        ]
        assert sorted(told) == sorted(numbers)

    async def test_while_the_disk_fails_nothing_is_stored_and_then_all_is(self, rig):
        telemetry, journal = rig.journaled()
        run = await begun(telemetry)
        rig.box._commits.degrade("a test says so")
        journal.add(*block((0, 1.0, 100.0)))
        journal.mark(1, pressed=True)
        await condition(lambda: telemetry.snapshot()["waiting_bytes"])
        await rig.clock.step(0)
        assert rig.stored == []
        await rig.clock.step(10 * NS_PER_S)  # it looks again
        await condition(lambda: rig.stored == [1])
        await stopped(run, telemetry)

    async def test_what_the_quota_lets_go_is_counted_and_waited_for_no_more(self, rig):
        telemetry, journal = rig.journaled()
        run = await begun(telemetry)
        full = asyncio.get_running_loop().create_future()
        full.set_exception(OutboxFull("everything stored is more important"))
        rig.box.append_bulk = lambda *_, **__: full
        journal.add(*block((0, 1.0, 100.0)))
        journal.mark(1, pressed=True)
        await condition(lambda: rig.stored == [1])
        assert telemetry.snapshot()["records_lost"] == 1
        await stopped(run, telemetry)

    async def test_what_the_outbox_did_not_store_before_it_was_closed_is_not(self, rig):
        telemetry, journal = rig.journaled()
        run = await begun(telemetry)
        rig.box._commits.degrade("a test says so")
        rig.box._store.commit = lambda *_, **__: (_ for _ in ()).throw(NotConnected("it fails"))
        journal.add(*block((0, 1.0, 100.0)))
        journal.mark(1, pressed=True)
        await condition(lambda: telemetry.snapshot()["waiting_bytes"])
        run.cancel()
        await asyncio.wait([run])
        await rig.box.close()
        await condition(lambda: telemetry.snapshot()["records_lost"] == 1)
        assert rig.stored == []


DOCUMENT = {
    "sources": {"plc": {"type": "memory", "period": "1s", "channels": {"a": {}}}},
    "pipelines": {},
}


ACKNOWLEDGED = {
    "type": "mqtt", "url": "mqtt://127.0.0.1:1883", "topic": "t", "period": "1s", "ack": "outbox",
    "session": "1h", "client_id": "gw", "channels": {"a": {}, "b": {}},
}  # fmt: skip


class TestTheConfiguration:
    @pytest.mark.parametrize(
        ("section", "key", "text"),
        [
            ({"channels": ["plc.x"]}, "telemetry.t.channels.0", "no channel 'plc.x', did you mean 'plc.a'?"),
            ({"channels": ["plc.*"], "every": "1h"}, "telemetry.t.every", "more than half of the 600 s"),
            ({"pipelines": ["pump"]}, "telemetry.t.pipelines.0", "no pipeline 'pump'"),
            ({}, "telemetry.t", 'pipelines = ["*"]'),
            ({"channels": ["plc.*"], "mode": "median"}, "telemetry.t.mode", "'minmax'"),
        ],
    )
    def test_mistakes_are_told_with_what_is_right(self, section, key, text):
        with pytest.raises(ConfigError) as error:
            config.parse({**DOCUMENT, "telemetry": {"t": section}})
        (problem,) = error.value.problems
        assert problem.key == key
        assert text in str(problem)

    @pytest.mark.parametrize(
        "telemetry",
        [
            {},
            {"t": {"channels": ["plc.*"], "mode": "mean"}},
            {"t": {"channels": ["plc.a"], "mode": "all"}},
        ],
    )
    def test_a_source_that_waits_for_the_outbox_wants_all_of_it_there(self, telemetry):
        with pytest.raises(ConfigError) as error:
            config.parse({"sources": {"plc": ACKNOWLEDGED}, "telemetry": telemetry})
        (problem,) = error.value.problems
        assert problem.key == "sources.plc.ack"
        assert '[telemetry.NAME] with channels = ["plc.*"] and mode = "all"' in str(problem)

    def test_telemetry_of_all_its_samples_is_what_it_waits_for(self):
        telemetry = {"t": {"channels": ["plc.*"], "mode": "all"}}
        found = config.parse({"sources": {"plc": ACKNOWLEDGED}, "telemetry": telemetry})
        assert found.sources["plc"].awaits_outbox

    def test_telemetry_that_no_sink_carries_is_warned_of(self):
        sinks = {"log": {"type": "memory", "lanes": ["bulk"]}}
        document = {**DOCUMENT, "telemetry": {"t": {"channels": ["plc.*"]}}}
        (found,) = config.warnings(config.parse(document))
        assert "bulk" in str(found)
        assert config.warnings(config.parse({**document, "sinks": sinks})) == []
