"""Incidents that end together, at a stop or by a reload, leave all their evidence behind."""

import threading

from dxad.pipeline import Pipeline
from dxad.types import Document
from tests.unit.reload.rig import BASE, Rig, edited, running

NAMES = [f"p{n}" for n in range(12)]
LIMIT: Document = {"channel": "a.x", "high": 1e6, "on_delay": "0s"}
MANY = edited(
    pipelines={name: {"channels": ["a.*"], "model": None, "alarms": [LIMIT]} for name in NAMES},
)


async def upset(rig: Rig) -> set[str]:
    """An incident in each pipeline; returns their ids."""
    await rig.feed_on()
    rig.bias = 1e9
    await rig.feed_on()
    opened = [
        each for pipeline in rig.assembly.pipelines.values() for each in pipeline.snapshot()["incidents"]
    ]
    assert len(opened) == len(NAMES)
    return {each["id"] for each in opened}


def stored(rig: Rig) -> set[str]:
    return {path.name.removesuffix(".window")[-32:] for path in (rig.folder / "evidence").glob("*.window")}


async def test_a_stop_stores_the_rows_around_every_incident(tmp_path):
    async with running(tmp_path, MANY) as rig:
        opened = await upset(rig)
        await rig.supervisor.stop(*reversed(rig.supervisor.names))
        rig.assembly.interrupt()
        assert stored(rig) == opened
        assert rig.metrics.total("dxad_evidence_lost_total") == 0


async def test_pipelines_that_a_reload_takes_away_end_on_the_inference_thread_and_store_theirs(
    tmp_path, monkeypatch
):
    ended_on = []
    interrupt = Pipeline.interrupt

    def noted(self):
        ended_on.append(threading.current_thread().name)
        return interrupt(self)

    monkeypatch.setattr(Pipeline, "interrupt", noted)
    async with running(tmp_path, MANY) as rig:
        opened = await upset(rig)
        config = rig.config({**BASE, "pipelines": {}})
        await rig.assembly.apply(rig.assembly.prepare(config), rig.supervisor)
        assert len(ended_on) == len(NAMES)
        assert {name.partition("_")[0] for name in ended_on} == {"inference"}
        assert stored(rig) == opened
        closed = {each["incident"] for each in rig.assembly.docket.closed}
        assert closed == opened
