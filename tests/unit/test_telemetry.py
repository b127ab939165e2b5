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
from dxad.runtime.metrics import Metrics, Sample
from dxad.sizes import memory
from dxad.telemetry import Telemetry, split
from dxad.telemetry.deadband import Deadband
from dxad.telemetry.vitals import vitals
from dxad.telemetrysection import TelemetrySection
from dxad.types import NS_PER_S, SAMPLE, Channel, Lane, Quality, State
from tests.patience import PATIENCE_S

pytestmark = pytest.mark.one_loop

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
        self.health = Health(self.clock)
        self.box = Outbox(
            None, max_bytes=2**24, commit_window_s=0.0, health=self.health, metrics=self.metrics,
            clock=self.clock,
        )  # fmt: skip
        self.ring = RingBuffer(CHANNELS, period=NS_PER_S // 10, slots=100, start=1000)
        self.next = 0.0
        self.stored: list[int] = []
        """The tickets of blocks that were told to be stored."""

    def telemetry(self, before: Telemetry | None = None, *, columns=(0, 1), **keys: object) -> Telemetry:
        section = TelemetrySection.model_validate(
            {"channels": ["plc.*"], "every": "1s", "mode": "all", **keys}
        )
        return Telemetry(
            "plant", section, {"plc": Feed(self.ring, columns)}, {}, gateway="gw", outbox=self.box,
            clock=self.clock, health=self.health, metrics=self.metrics, before=before,
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
            clock=self.clock, health=self.health, metrics=self.metrics, journals={"plc": journal},
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


class TestOfWhatWasFilledLater:
    def fill(self, rig, *cells: tuple[int, int, float, State]) -> None:
        slots, columns, values, states = zip(*cells, strict=True)
        rig.ring.fill(np.array(slots), np.array(columns), np.array(values), np.array(states, dtype=np.uint8))

    def gap(self, rig, rows: int) -> None:
        """Rows without any sample."""
        rig.ring.append(rig.ring.sealed, np.full((rows, 2), np.nan), np.full((rows, 2), E, np.uint8))

    async def test_in_rows_that_were_told_it_is_told_once_and_in_others_with_them(self, rig):
        telemetry = rig.telemetry(columns=(0,))
        run = await begun(telemetry)
        self.gap(rig, 15)
        await telemetry.look()
        self.fill(rig, (1002, 0, 5.0, G), (1004, 0, 6.0, U), (1003, 1, 9.0, G), (1012, 0, 7.0, G))
        await stopped(run, telemetry)
        rest, late = (each["data"] for each in await rig.records())
        assert (rest["first"], rest["rows"]) == (1010, 5)
        assert rest["channels"]["plc.a"]["values"] == [7.0]
        assert "backfilled" not in rest
        assert (late["first"], late["rows"], late["backfilled"], late["lost"]) == (1002, 3, True, 0)
        assert late["channels"] == {
            "plc.a": {"unit": "bar", "values": [5.0, 6.0], "at": [0, 2], "uncertain": [1]}
        }
        assert rig.ring.on_filled == []

    async def test_means_are_not_told_again(self, rig):
        telemetry = rig.telemetry(mode="mean")
        run = await begun(telemetry)
        self.gap(rig, 10)
        await telemetry.look()
        self.fill(rig, (1002, 0, 5.0, G))
        await stopped(run, telemetry)
        assert await rig.records() == []

    async def test_much_does_not_wait_and_what_finds_no_room_is_counted(self, rig, monkeypatch):
        monkeypatch.setattr("dxad.telemetry.filled._MANY", 4)
        monkeypatch.setattr("dxad.telemetry.filled._CELLS_MOST", 6)
        telemetry = rig.telemetry()
        run = await begun(telemetry)
        self.gap(rig, 20)
        await telemetry.look()
        self.fill(rig, *((1000 + n, 0, n, G) for n in range(5)))
        assert telemetry.snapshot()["waiting_bytes"], "it was written at once"
        monkeypatch.setattr("dxad.telemetry.service.WAITING_MOST", -1)
        self.fill(rig, *((1005 + n, 0, n, G) for n in range(3)))
        self.fill(rig, *((1008 + n // 2, n % 2, n, G) for n in range(4)))
        monkeypatch.undo()
        await stopped(run, telemetry)
        first, second = (each["data"] for each in await rig.records())
        assert (first["lost"], second["lost"]) == (0, 2)
        assert telemetry.snapshot()["rows_lost"] == 2


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


class TestOfWhatHasMoved:
    def told(self, *cells, most_rows=1000, first=10, **keys):
        """The rows of one channel that are told, of cells that are values, or of another state."""
        channels = (Channel("plc.a", range=(0.0, 50.0)),)
        deadband = Deadband(channels, **{"band": 1.0, "kind": "absolute", **keys}, most_rows=most_rows)
        states = np.array([[each if isinstance(each, State) else G] for each in cells], dtype=np.uint8)
        values = np.array([[np.nan if isinstance(each, State) else each] for each in cells])
        whole = np.flatnonzero(deadband.told(first, values, states)[:, 0]).tolist()
        deadband = Deadband(channels, **{"band": 1.0, "kind": "absolute", **keys}, most_rows=most_rows)
        parts = [
            row
            for row in range(len(cells))
            if deadband.told(first + row, values[row : row + 1], states[row : row + 1])[0, 0]
        ]
        assert parts == whole, "however the rows are cut"
        return whole

    def test_a_value_is_told_when_it_is_more_than_the_band_from_the_last_one_told(self):
        assert self.told(5.0, 5.5, 6.0, 6.1, 5.2, 5.0, 7.0) == [0, 3, 5, 6]

    def test_the_band_may_be_a_share_of_the_range_or_of_the_value(self):
        assert self.told(5.0, 5.9, 6.1, band=2.0, kind="percent") == [0, 2]
        assert self.told(10.0, 10.9, 11.1, 12.0, 12.3, -1.0, -1.05, band=10.0, kind="relative") == [
            0,
            2,
            4,
            5,
        ]
        assert self.told(0.0, 0.0, 1e-9, band=10.0, kind="relative") == [0, 2]

    def test_another_quality_is_told_and_that_there_is_no_value_any_more(self):
        assert self.told(E, 5.0, 5.0, B, B, 5.0, E, E, 5.0) == [1, 3, 5, 6, 8]
        assert self.told(5.0, U, U, 5.0) == [0, 1, 3]

    def test_what_is_held_is_told_only_when_nothing_was_for_long(self):
        assert self.told(5.0, *[H] * 8, most_rows=3) == [0, 3, 6]
        assert self.told(5.0, 5.1, 5.2, 5.3, 5.4, most_rows=3) == [0, 3]
        assert self.told(5.0, E, E, E, E, most_rows=3) == [0, 1, 4]

    async def test_records_have_it_with_the_marks_and_of_scores_what_was_not_scored(self, rig):
        telemetry = rig.telemetry(mode="deadband", band=1.5, max_interval="1s")
        run = await begun(telemetry)
        values = np.array([[1.0, 5.0], [2.0, 5.0], [3.0, np.nan], [3.0, np.nan], [9.0, 5.0]])
        states = np.array([[G, G], [G, U], [G, G], [B, H], [G, G]], dtype=np.uint8)
        rig.ring.append(1000, values, states)
        await stopped(run, telemetry)
        (found,) = await rig.records()
        assert found["data"]["mode"] == "deadband"
        assert found["data"]["channels"] == {
            "plc.a": {"unit": "bar", "values": [1.0, 3.0, 3.0, 9.0], "at": [0, 2, 3, 4], "bad": [2]},
            "plc.b": {
                "values": [5.0, 5.0, None, 5.0], "at": [0, 1, 2, 4], "uncertain": [1], "missing": [2],
            },
        }  # fmt: skip


class TestOfTheGateway:
    async def test_its_conditions_and_numbers_are_told_each_time_that_every_is_over(self, rig):
        telemetry = rig.telemetry(channels=[], health=True, every="10s")
        rig.health.raise_condition("sink.down", "log", "nobody there")
        rig.metrics.counter("dxad_connects_total", source="plc").add(3)
        rig.metrics.gauges = lambda: [Sample("dxad_uptime_seconds", 2.5)]
        run = await begun(telemetry)
        await rig.clock.step(25 * NS_PER_S, settle=50)
        await stopped(run, telemetry)
        first, *others = await rig.records()
        assert first["type"] == "dxad.telemetry.health"
        assert first["subject"] == "gw"
        assert first["data"]["metrics"]['dxad_connects_total{source="plc"}'] == 3
        assert first["data"]["metrics"]["dxad_uptime_seconds"] == 2.5
        assert [each["code"] for each in first["data"]["conditions"]] == ["sink.down"]
        assert others

    def test_many_numbers_come_in_several_records_each_once(self):
        health, metrics = Health(SteppedClock()), Metrics()
        health.raise_condition("sink.down", "log", "nobody there")
        for number in range(3000):
            metrics.counter("dxad_connects_total", source=f"a source with a long name, {number}").add(number)
        parts = list(vitals(health, metrics))
        assert max(len(msgpack.packb(each)) for each in parts) < 64 * 1024 - 500
        assert sum(len(each["metrics"]) for each in parts) == 3000
        assert [len(each["conditions"]) for each in parts] == [1, *[0] * (len(parts) - 1)]


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
            ({"channels": ["plc.*"], "mode": "deadband"}, "telemetry.t", "how far a value may move"),
            ({"channels": ["plc.*"], "band": 1.0}, "telemetry.t", 'band: is of mode = "deadband"'),
            (
                {"channels": ["plc.*"], "mode": "deadband", "band": 1.0, "band_kind": "percent"},
                "telemetry.t.band_kind",
                "'plc.a' has no range to take percents of",
            ),
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

    @pytest.mark.parametrize("mode", ["all", "mean"])
    def test_the_memory_it_takes_is_known(self, mode):
        channels = {f"c{number}": {} for number in range(200)}
        sources = {"plc": {"type": "memory", "period": "10ms", "channels": channels}}
        sized = [
            memory(config.parse({"sources": sources, "telemetry": {"t": section}}))["telemetry.t"]
            for section in (
                {"channels": ["plc.c1"], "mode": mode},
                {"channels": ["plc.*"], "mode": mode},
                {"channels": ["plc.*"], "mode": mode, "every": "60s"},
            )
        ]
        assert sized[0] < sized[1] <= sized[2] < 2**26

    def test_telemetry_that_no_sink_carries_is_warned_of(self):
        sinks = {"log": {"type": "memory", "lanes": ["bulk"]}}
        document = {**DOCUMENT, "telemetry": {"t": {"channels": ["plc.*"]}}}
        (found,) = config.warnings(config.parse(document))
        assert "bulk" in str(found)
        assert config.warnings(config.parse({**document, "sinks": sinks})) == []
