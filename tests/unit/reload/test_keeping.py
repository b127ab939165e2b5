"""What a pipeline has learned is on disk in time, and nothing that is damaged or foreign is taken up."""

import asyncio
from contextlib import asynccontextmanager

import pytest

from dxad import statefile
from dxad.event import Event
from dxad.keeping import Keeping
from dxad.types import NS_PER_S
from tests.unit.reload.rig import BASE, Rig, edited, running


@asynccontextmanager
async def kept(folder, document=BASE):
    """A rig whose state is kept, as the daemon does it."""
    async with running(folder, document) as rig:
        keeping = Keeping(
            lambda: rig.assembly.pipelines, folder / "pipelines", tell=rig.assembly.tell,
            worker=rig.assembly.worker, clock=rig.clock, health=rig.health, metrics=rig.metrics,
            docket=rig.assembly.docket,
        )  # fmt: skip
        await keeping.restore()
        rig.assembly.listeners.append(keeping.note)
        rig.supervisor.start("keeping", keeping.run)
        yield rig, keeping


def first(folder, name: str = "a") -> float | None:
    """What the file says that the model of a pipeline has learned."""
    found = statefile.read(folder / "pipelines" / f"{name}.state")
    return None if found is None else found["model"]["state"]["first"]


async def seconds(rig: Rig, keeping: Keeping, count: int) -> None:
    """Let time pass, and the disk take what it is given."""
    for _ in range(count):
        await rig.clock.step(NS_PER_S, settle=2)
        while keeping._saving.locked():
            await asyncio.to_thread(lambda: None)


def unsaved(rig: Rig) -> set[str]:
    return {subject for code, subject in rig.conditions if code == "state.unsaved"}


def changed(rig: Rig, value: float) -> None:
    rig.assembly.pipelines["a"].detector.model.first = value


async def test_a_model_that_is_warm_is_saved_at_once_and_then_once_a_minute(tmp_path):
    async with kept(tmp_path) as (rig, keeping):
        await seconds(rig, keeping, 2)
        assert first(tmp_path) is None
        await rig.feed_on()
        await seconds(rig, keeping, 2)
        assert (first(tmp_path), first(tmp_path, "b")) == (0.0, 0.0)
        changed(rig, 1.0)
        await seconds(rig, keeping, 50)
        assert first(tmp_path) == 0.0
        await seconds(rig, keeping, 12)
        assert first(tmp_path) == 1.0


async def test_what_did_not_change_is_not_written_again(tmp_path):
    patient = edited(pipelines__a__alarm__on_delay="10min")  # a silent source is no incident, which were news
    async with kept(tmp_path, patient) as (rig, keeping):
        await rig.feed_on()
        await seconds(rig, keeping, 2)
        (tmp_path / "pipelines" / "a.state").unlink()
        await seconds(rig, keeping, 130)
        assert first(tmp_path) is None
        changed(rig, 2.0)
        await seconds(rig, keeping, 62)
        assert first(tmp_path) == 2.0


async def test_an_incident_that_opens_or_closes_does_not_wait(tmp_path):
    async with kept(tmp_path) as (rig, keeping):
        await rig.feed_on()
        await seconds(rig, keeping, 2)
        for value, bias in ((3.0, 10_000.0), (4.0, 0.0)):
            changed(rig, value)
            rig.bias = bias
            told = len(rig.told)
            while len(rig.told) == told:
                await rig.feed_on()
            await seconds(rig, keeping, 2)
            assert first(tmp_path) == value


async def test_what_people_decide_about_an_alarm_does_not_wait_and_survives(tmp_path):
    def states(rig: Rig) -> dict[str, str]:
        return {each["id"]: each["state"] for each in rig.assembly.pipelines["a"].watch.alarms()}

    async with kept(tmp_path) as (rig, keeping):
        rig.assembly.deciders.append(keeping.want)
        await rig.feed_on()
        await rig.assembly.act("a.score", "shelve", until=rig.clock.now() + 3600 * NS_PER_S)
        await seconds(rig, keeping, 2)
    async with kept(tmp_path) as (rig, keeping):
        assert states(rig)["a.score"] == "shelved"


async def test_an_incident_that_is_open_when_the_power_goes_goes_on_under_its_id(tmp_path):
    async with kept(tmp_path) as (rig, keeping):
        await rig.feed_on()
        rig.bias = 10_000.0
        await rig.feed_on()
        (before,) = rig.assembly.pipelines["a"].snapshot()["incidents"]
        await seconds(rig, keeping, 1)
    async with kept(tmp_path) as (rig, keeping):
        after = rig.assembly.pipelines["a"].snapshot()["incidents"]
        assert before["id"] in {each["id"] for each in after}, (
            "beside one for the second in which nothing came"
        )
        assert rig.told == []
        while ("a", "dxad.incident.closed") not in rig.told:
            await rig.feed_on()
        assert {phase for name, phase in rig.told if name == "a"} == {"dxad.incident.closed"}


def budget(folder) -> dict:
    return statefile.read(folder / "incidents.state")


def admitted(rig: Rig, count: int) -> list[bool]:
    """Whether each of so many further incidents may be told."""
    at = rig.clock.now()
    docket = rig.assembly.docket
    return [docket.admit("a", "process", "low", at=at, utc=rig.clock.utc(at)) for _ in range(count)]


FEW = edited(incidents__budget_per_hour=3, incidents__critical_per_hour=3)


async def test_the_summary_of_an_hour_is_told_under_the_same_id_after_a_kill(tmp_path):
    ids = []
    async with kept(tmp_path, FEW) as (rig, keeping):
        rig.clock.advance(rig.clock.now() + 17 * NS_PER_S)
        admitted(rig, 4)
        await keeping.save()
        later = rig.clock.now() + 3600 * NS_PER_S
        ids += [each.id for each in rig.assembly.docket.due(later, rig.clock.utc(later))]
    async with kept(tmp_path, FEW) as (rig, _):  # it died before it could note that it had told
        ids += [each.id for each in rig.assembly.docket.due(later, rig.clock.utc(later))]
    assert len(ids) == 2
    assert len(set(ids)) == 1


async def test_a_restart_is_no_new_hour_of_incidents(tmp_path):
    async with kept(tmp_path, FEW) as (rig, keeping):
        assert admitted(rig, 4) == [True, True, True, False]
        await keeping.save()
    async with kept(tmp_path, FEW) as (rig, keeping):
        assert admitted(rig, 1) == [False]
        later = rig.clock.now() + 3600 * NS_PER_S
        (flood,) = rig.assembly.docket.due(later, rig.clock.utc(later))
        assert (flood.data["told"], flood.data["merged"]) == (3, 2)
        assert budget(tmp_path)["merged"] == [["a", "process", "low", 1]]
        await keeping.save()
        assert budget(tmp_path) == {"version": 1, "begins_utc_ns": 0, "told": 0, "summed": 0, "merged": []}
    async with kept(tmp_path, FEW) as (rig, keeping):
        assert rig.assembly.docket.due(later, rig.clock.utc(later)) == [], "it is told once"
        assert admitted(rig, 1) == [True]


@pytest.mark.parametrize("late_s", [-36_000, 3600, 10 * 365 * 86_400])
async def test_whatever_the_wall_clock_does_over_a_restart_no_hour_lasts_longer_than_one(tmp_path, late_s):
    async with kept(tmp_path, FEW) as (rig, keeping):
        admitted(rig, 4)
        await keeping.save()
    async with kept(tmp_path, FEW) as (rig, keeping):
        docket, now = rig.assembly.docket, rig.clock.now()
        docket._boot = "another"  # in the same one, the wall clock is not asked
        docket.restore(budget(tmp_path), now=now, utc=rig.clock.utc(now) + late_s * NS_PER_S)
        assert len(docket.due(now, rig.clock.utc(now))) == (late_s > 0)
        later = now + 3600 * NS_PER_S
        assert docket.admit("a", "process", "low", at=later, utc=rig.clock.utc(later))


async def test_the_budget_is_written_when_something_was_told_and_not_again(tmp_path):
    patient = edited(pipelines__a__alarm__on_delay="10min", pipelines__b__alarm__on_delay="10min")
    path = tmp_path / "incidents.state"
    async with kept(tmp_path, patient) as (rig, keeping):
        await rig.feed_on()
        await seconds(rig, keeping, 2)
        assert not path.exists()
        admitted(rig, 1)
        keeping.note(Event("1", "dxad.incident.opened", "/gw", 0, {"pipeline": "a"}))
        await seconds(rig, keeping, 2)
        assert budget(tmp_path)["told"] == 1
        path.unlink()
        rig.clock._utc_offset += 5_000  # clocks drift
        await seconds(rig, keeping, 61)
        assert not path.exists()


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"?", "damaged"),
        (statefile.encode({"version": 1}), "foreign"),
        (statefile.encode({"version": 7}), "foreign"),
    ],
)
async def test_a_budget_that_is_damaged_or_foreign_is_counted_and_begins_anew(tmp_path, raw, reason):
    (tmp_path / "incidents.state").write_bytes(raw)
    async with kept(tmp_path, FEW) as (rig, _):
        assert rig.metrics.by_label("dxad_states_rejected_total", "reason") == {reason: 1}
        assert admitted(rig, 1) == [True]


async def test_a_clean_stop_saves_everything(tmp_path):
    async with kept(tmp_path) as (rig, keeping):
        await rig.feed_on()
        changed(rig, 7.0)
        await keeping.save()
    assert first(tmp_path) == 7.0


async def test_after_a_restart_the_first_row_is_scored_with_what_was_known(tmp_path):
    async with kept(tmp_path) as (rig, keeping):
        await rig.feed_on()
        changed(rig, -400.0)
        await keeping.save()
    async with kept(tmp_path) as (rig, keeping):
        assert rig.assembly.pipelines["a"].state() == statefile.read(tmp_path / "pipelines" / "a.state")
        await rig.feed_on()
        scores = rig.assembly.pipelines["a"].scores
        assert scores.read(scores.oldest, scores.oldest + 1).values[0, 0] == 400.0


@pytest.mark.parametrize(
    "edits",
    [
        {"pipelines__a__model__limit": 9.0},
        {"pipelines__a__channels": ["b.*"]},
        {"pipelines__a__window": "20ms"},
        {"pipelines__a__period": "20ms"},
    ],
)
async def test_another_model_or_other_channels_begin_anew(tmp_path, edits):
    async with kept(tmp_path) as (rig, keeping):
        await rig.feed_on()
        await keeping.save()
    async with kept(tmp_path, edited(**edits)) as (rig, keeping):
        assert rig.assembly.pipelines["a"].state() == {}
        assert rig.assembly.pipelines["b"].state() != {}
        assert rig.metrics.by_label("dxad_states_rejected_total", "reason") == {"foreign": 1}


@pytest.mark.parametrize("raw", [b"", b"\x00" * 500, b"dxad-state 2 crc32=00000000 bytes=0\n"])
async def test_a_damaged_file_is_set_aside_told_and_counted(tmp_path, caplog, raw):
    path = tmp_path / "pipelines" / "a.state"
    path.parent.mkdir()
    path.write_bytes(raw)
    async with kept(tmp_path) as (rig, keeping):
        assert rig.metrics.by_label("dxad_states_rejected_total", "reason") == {"damaged": 1}
        assert "a begins anew" in caplog.text
        assert path.with_name("a.state.damaged").read_bytes() == raw
        await rig.feed_on()
        await seconds(rig, keeping, 2)
        assert first(tmp_path) == 0.0


async def test_a_disk_that_fails_is_a_condition_until_it_heals(tmp_path):
    (tmp_path / "pipelines").write_text("in the way")
    async with running(tmp_path) as rig:
        keeping = Keeping(
            lambda: rig.assembly.pipelines, tmp_path / "pipelines", tell=rig.assembly.tell,
            worker=rig.assembly.worker, clock=rig.clock, health=rig.health, metrics=rig.metrics,
        )  # fmt: skip
        rig.supervisor.start("keeping", keeping.run)
        await rig.feed_on()
        await seconds(rig, keeping, 2)
        assert unsaved(rig) == {"a", "b"}
        (tmp_path / "pipelines").unlink()
        await seconds(rig, keeping, 2)
        assert unsaved(rig) == set()
        assert first(tmp_path) == 0.0


async def test_a_pipeline_that_comes_back_by_a_reload_takes_up_what_it_has_left(tmp_path):
    async with kept(tmp_path) as (rig, keeping):
        await rig.feed_on()
        changed(rig, -9.0)
        await keeping.save()
        await rig.reload(pipelines__a=None)
        prepared = rig.assembly.prepare(rig.config(BASE))
        await rig.assembly.apply(prepared, rig.supervisor, saved={"a": keeping.read("a")})
        assert rig.assembly.pipelines["a"].state()["model"]["state"] == {"first": -9.0}
