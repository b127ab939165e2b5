"""A dead gateway looks different from a quiet plant: what it tells of itself, when, and how often."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dxad.assembly import Assembly
from dxad.config import Config, parse
from dxad.errors import ConfigError
from dxad.event import Event, decode, utc_ns
from dxad.gatewayevents import GatewayEvents, RunMark, service
from dxad.gatewayevents.holdoff import HoldOff
from dxad.gatewayevents.runmark import Mark, Previous
from dxad.outbox import Outbox
from dxad.runtime.clock import SteppedClock
from dxad.runtime.health import Condition, Health
from dxad.runtime.metrics import Metrics
from dxad.types import NS_PER_S, Document, Lane
from tests.patience import PATIENCE_S

pytestmark = pytest.mark.one_loop

S = NS_PER_S
MINUTE = 60 * S
YEARS = 10 * 365 * 24 * 3600 * S


def config(folder: Path, **gateway: Any) -> Config:
    return parse(
        {
            "gateway": {"id": "gw", **gateway},
            "state_dir": str(folder),
            "sources": {"s": {"type": "memory", "period": "100ms", "channels": {"a": {}}}},
            "sinks": {"hub": {"type": "memory"}},
        }
    )


class Rig:
    """A run of a gateway whose clock a test steps."""

    def __init__(self, folder: Path, clock: SteppedClock, boot: str, **gateway: Any) -> None:
        self.clock = clock
        self.health = Health(clock)
        self.outbox = Outbox(
            None, max_bytes=2**24, commit_window_s=0.0, health=self.health, metrics=Metrics(), clock=clock,
            boot=boot,
        )  # fmt: skip
        self.assembly = Assembly(
            config(folder, **gateway), boot=boot, clock=clock, health=self.health, metrics=Metrics(),
            outbox=self.outbox,
        )  # fmt: skip
        self.told: list[Event] = []
        self.assembly.listeners.append(self.told.append)
        self.events = GatewayEvents(self.assembly, RunMark(folder / "run"), clock=clock)

    def types(self) -> list[str]:
        return [each.type.removeprefix("dxad.gateway.") for each in self.told]

    async def waiting(self) -> list[Document]:
        await self.outbox._commits.commit()
        return [decode(each) for each in await self.outbox.fetch("hub", 1000)]

    async def run_for(self, ns: int) -> None:
        """Look once a second, as the service does."""
        for _ in range(ns // S):
            self.clock.advance(self.clock.now() + S)
            await self.events.look()


@asynccontextmanager
async def running(
    folder: Path, clock: SteppedClock, *, boot: str = "b1", **gateway: Any
) -> AsyncIterator[Rig]:
    rig = Rig(folder, clock, boot, **gateway)
    async with rig.outbox:
        await rig.outbox.subscribe("hub", frozenset(Lane))
        await rig.events.started()
        yield rig
    rig.assembly.close()


@pytest.fixture
def clock() -> SteppedClock:
    return SteppedClock()


# -- starts and stops -------------------------------------------------------------------------------------


async def previous(folder: Path, clock: SteppedClock, *, boot: str = "b1") -> Document:
    async with running(folder, clock, boot=boot) as rig:
        return rig.told[0].data["previous"]


async def test_the_first_start_has_nothing_before_it(tmp_path, clock):
    async with running(tmp_path, clock) as rig:
        (event,) = rig.told
        assert event.type == "dxad.gateway.started"
        assert event.data["previous"]["ended"] == "none"
        assert event.data["heartbeat_s"] == 300
        assert len(event.data["config"]) == 16
        (document,) = await rig.waiting()
    assert utc_ns(document["expiresat"]) - utc_ns(document["time"]) == 750 * S


async def test_a_clean_stop_is_told_and_the_next_start_knows_of_it(tmp_path, clock):
    async with running(tmp_path, clock) as rig:
        await rig.run_for(90 * S)
        await asyncio.gather(rig.events.stopped("SIGTERM"), rig.outbox.unsubscribe("hub"))
    clock.advance(clock.now() + 5 * S)
    found = await previous(tmp_path, clock)
    assert found == {
        "ended": "clean",
        "reason": "SIGTERM",
        "version": found["version"],
        "off_s": 5.0,
        "off_certain": True,
    }


async def test_a_kill_is_known_by_the_boot_that_is_still_the_same(tmp_path, clock):
    async with running(tmp_path, clock) as rig:
        await rig.run_for(100 * S)
    clock.advance(clock.now() + 5 * S)
    found = await previous(tmp_path, clock)
    assert (found["ended"], found["off_s"], found["off_certain"]) == ("killed", 45.0, True)


@pytest.mark.parametrize(("right", "certain"), [(True, True), (False, False)])
async def test_a_power_cut_is_known_by_another_boot_and_how_long_by_the_wall_clock(tmp_path, right, certain):
    async with running(tmp_path, SteppedClock()) as rig:
        await rig.run_for(60 * S)
    after = SteppedClock(start=5 * S, utc_offset=rig.clock.utc(rig.clock.now() + 20 * S), synchronised=right)
    found = await previous(tmp_path, after, boot="b2")
    assert (found["ended"], found["off_s"], found["off_certain"]) == ("power_cut", 25.0, certain)


async def test_off_for_less_than_nothing_is_not_told(tmp_path, clock):
    await previous(tmp_path, clock)
    assert (await previous(tmp_path, SteppedClock(start=1, utc_offset=1), boot="b2"))["off_s"] is None


@pytest.mark.parametrize("block", [b"", b"x" * 512, b"{}".ljust(512), b"[1]".ljust(512), bytes(512)])
async def test_a_mark_that_is_damaged_tells_nothing_and_harms_nothing(tmp_path, clock, block):
    (tmp_path / "run").write_bytes(block)
    assert (await previous(tmp_path, clock))["ended"] == "unknown"
    assert (await previous(tmp_path, clock))["ended"] == "killed"


def test_a_mark_of_other_types_is_none(tmp_path):
    mark = Mark("b", 1, 2, clock_ok=True, version="1")
    file = RunMark(tmp_path / "run")
    file.write(mark)
    assert file.read(mark).ended == "killed"
    block = json.loads((tmp_path / "run").read_bytes()) | {"at_ns": "1"}
    (tmp_path / "run").write_bytes(json.dumps(block).encode().ljust(512))
    assert file.read(mark) == Previous("unknown")


async def test_without_a_place_for_the_mark_the_gateway_runs_all_the_same(tmp_path, clock, caplog):
    (tmp_path / "run").mkdir()
    assert (await previous(tmp_path, clock))["ended"] == "unknown"
    assert "will not know" in caplog.text


async def test_a_stop_waits_for_a_sink_that_takes_what_is_told_and_not_for_one_that_is_gone(
    tmp_path, clock, monkeypatch
):
    monkeypatch.setattr(service, "_DELIVER_S", 2 * PATIENCE_S)
    async with running(tmp_path, clock) as rig:
        stopping = asyncio.create_task(rig.events.stopped("SIGTERM"))
        await asyncio.sleep(0.1)
        assert not stopping.done()
        records = await rig.outbox.fetch("hub", 10)
        assert decode(records[-1])["type"] == "dxad.gateway.stopped"
        await rig.outbox.ack("hub", records)
        await asyncio.wait_for(stopping, PATIENCE_S)
        rig.assembly.delivers["hub"]._note_down("gone", 1.0)
        await rig.outbox.append(records[0])
        await asyncio.wait_for(rig.events.stopped("SIGTERM"), PATIENCE_S)


async def test_a_stop_waits_no_longer_than_it_may_for_a_sink_that_is_silent(tmp_path, clock, monkeypatch):
    monkeypatch.setattr(service, "_DELIVER_S", 0.1)
    async with running(tmp_path, clock) as rig:
        await asyncio.wait_for(rig.events.stopped("SIGTERM"), PATIENCE_S)
        assert [each["type"] for each in await rig.waiting()][-1] == "dxad.gateway.stopped"


# -- heartbeats -------------------------------------------------------------------------------------------


async def test_heartbeats_come_at_their_interval_and_say_when_they_expire(tmp_path, clock):
    async with running(tmp_path, clock, heartbeat="1min") as rig:
        await rig.run_for(185 * S)
        assert rig.types() == ["started", *["heartbeat"] * 3]
        beat = rig.told[-1]
        assert beat.data["uptime_s"] == 180
        assert beat.data["sources"] == {"up": 0, "down": 1}
        assert beat.data["sources_down"] == ["s"]
        assert utc_ns(beat.attributes["expiresat"]) - beat.time_utc == 150 * S
        assert rig.events.snapshot() == {"every_s": 60.0, "last_s": 5.0, "conditions_told": 0}


async def test_of_heartbeats_only_the_newest_waits_and_that_the_others_go_is_no_loss(tmp_path, clock):
    async with running(tmp_path, clock, heartbeat="1min") as rig:
        await rig.run_for(10 * MINUTE)
        waiting = await rig.waiting()
        assert [each["type"] for each in waiting] == ["dxad.gateway.started", "dxad.gateway.heartbeat"]
        assert waiting[-1]["data"]["uptime_s"] == 600
        assert waiting[-1]["data"]["dropped"] == {}
        ids = [each.id for each in rig.told]
    assert len(set(ids)) == len(ids) == 11


@pytest.mark.parametrize("off", ["off", "0s", 0])
async def test_heartbeats_can_be_turned_off(tmp_path, clock, off):
    async with running(tmp_path, clock, heartbeat=off) as rig:
        await rig.run_for(20 * MINUTE)
        assert rig.types() == ["started"]
        assert "expiresat" not in rig.told[0].attributes
        assert rig.events.snapshot()["every_s"] is None


async def test_another_interval_is_told_at_once_by_a_heartbeat(tmp_path, clock):
    async with running(tmp_path, clock) as rig:
        await rig.run_for(10 * S)
        rig.assembly.nodes = replace(rig.assembly.nodes, config=config(tmp_path, heartbeat="30s"))
        await rig.run_for(5 * S)
        assert rig.types() == ["started", "heartbeat"]
        rig.assembly.nodes = replace(rig.assembly.nodes, config=config(tmp_path, heartbeat="off"))
        await rig.run_for(60 * S)
        assert rig.types() == ["started", "heartbeat"]


@pytest.mark.parametrize("step", [-YEARS, YEARS])
async def test_a_clock_that_is_set_by_years_makes_no_heartbeat_early_or_late(tmp_path, clock, step):
    async with running(tmp_path, clock, heartbeat="1min") as rig:
        await rig.run_for(90 * S)
        clock.step_utc(step, synchronised=False)
        await rig.run_for(90 * S)
        assert [each.at - rig.told[0].at for each in rig.told if each.at] == [
            0,
            MINUTE,
            2 * MINUTE,
            3 * MINUTE,
        ]


@pytest.mark.parametrize(
    ("value", "told"), [("500ms", "at least"), (30, "no unit"), ("never", "not a number")]
)
def test_a_wrong_heartbeat_is_refused(tmp_path, value, told):
    with pytest.raises(ConfigError, match=f"gateway.heartbeat: .*{told}"):
        config(tmp_path, heartbeat=value)


# -- conditions -------------------------------------------------------------------------------------------


async def test_what_is_wrong_is_told_once_it_lasts_and_once_it_is_over(tmp_path, clock):
    async with running(tmp_path, clock, heartbeat="off") as rig:
        rig.health.raise_condition("source.down", "s", "refused")
        rig.health.raise_condition("sink.down", "hub", "a warning")
        await rig.run_for(9 * S)
        assert rig.types() == ["started"]
        await rig.run_for(2 * S)
        event = rig.told[-1]
        assert (event.type, event.subject) == ("dxad.gateway.condition", "source.down/s")
        assert (event.data["phase"], event.data["detail"], event.data["times"]) == ("raised", "refused", 1)
        rig.health.clear("source.down", "s")
        await rig.run_for(60 * S)
        assert [each.data["phase"] for each in rig.told[1:]] == ["raised", "cleared"]


@pytest.mark.parametrize(("tell", "codes"), [([], []), (["error", "warning"], ["source.down", "sink.down"])])
async def test_how_bad_it_must_be_is_a_setting(tmp_path, clock, tell, codes):
    async with running(tmp_path, clock, heartbeat="off", tell=tell, tell_after="0s") as rig:
        rig.health.raise_condition("source.down", "s", "refused")
        rig.health.raise_condition("sink.down", "hub", "a warning")
        await rig.run_for(2 * S)
        assert [each.data["code"] for each in rig.told[1:]] == codes


def look(holdoff: HoldOff, now: int, since: int | None, after: int = 10 * S) -> list[str]:
    active = [] if since is None else [Condition("source.down", "s", "", since)]
    return [f"{each.phase} {each.times}" for each in holdoff.look(now, active, after)]


def test_what_flickers_is_not_told():
    holdoff = HoldOff()
    told = [look(holdoff, at * S, at * S if at % 2 else None) for at in range(600)]
    assert not any(told)


def test_what_flaps_slowly_costs_few_events_and_each_tells_how_often():
    holdoff, told, rounds = HoldOff(), [], 24 * 60
    for second in range(rounds * 60):
        begins = second // 60 * 60
        told += look(holdoff, second * S, begins * S if second - begins < 30 else None)
    assert 2 <= len(told) < 5 * 24
    assert told[:2] == ["raised 1", "cleared 0"]
    assert sum(int(each.split()[1]) for each in told) <= rounds


def test_what_is_quiet_for_an_hour_is_told_at_once_again():
    holdoff = HoldOff()
    for at in (0, 4000):
        assert [look(holdoff, (at + k) * S, at * S) for k in (0, 9, 10)] == [[], [], ["raised 1"]]
        assert look(holdoff, (at + 20) * S, None) == []
        assert look(holdoff, (at + 60) * S, None) == ["cleared 0"]
        assert look(holdoff, (at + 3700) * S, None) == []
