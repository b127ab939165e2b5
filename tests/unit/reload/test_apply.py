"""A reload swaps what changed, and nothing else: no row, no detector, no alarm of anything else is lost."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from dxad.assembly import PROFILES
from dxad.errors import ConfigError
from dxad.runtime.supervisor import Supervisor
from dxad.sources.memory import Memory
from tests.patience import PATIENCE_S
from tests.unit.reload.rig import BASE, Counting, CountingConfig, Rig, detectors, edited, running

SOURCE = {"type": "memory", "period": "10ms", "lateness": "0ms", "channels": {"x": {}}}
PIPELINE = {"channels": ["c.*"], "model": {"type": "counting"}}


@asynccontextmanager
async def fed(folder: Path) -> AsyncIterator[Rig]:
    """A rig that has seen fifty rows."""
    async with running(folder) as rig:
        await rig.feed_on()
        yield rig


def model(rig: Rig, name: str) -> Counting:
    return rig.assembly.pipelines[name].detector.model


LEARNS = {
    "channels": ["b.*"],
    "model": {"type": "tflite", "path": "models/c"},
    "learn": {"span": "60s"},
}
EDITS = {
    "a source added": {"sources__c": SOURCE},
    "a source and its pipeline removed": {"sources__b": None, "pipelines__b": None},
    "a source changed": {"sources__b__keep": "30s"},
    "a pipeline added": {"pipelines__c": {**PIPELINE, "channels": ["b.*"]}},
    "a pipeline that learns added": {"pipelines__c": LEARNS},
    "a pipeline removed": {"pipelines__b": None},
    "a pipeline's rows changed": {"pipelines__b__transforms": [{"type": "scale", "factor": 2.0}]},
    "a pipeline's model changed": {"pipelines__b__model__limit": 9.0},
    "a pipeline's alarm changed": {"pipelines__b__alarm__severity": "low"},
    "a sink added": {"sinks__two": {"type": "memory"}},
    "a sink removed": {"sinks__one": None},
    "a sink changed": {"sinks__one__batch": 7},
    "the profile changed": {"profile": "low_latency"},
    "the quota changed": {"outbox__max_size": "2MiB"},
    "everything else changed": {
        "sources__c": SOURCE, "pipelines__c": PIPELINE, "sources__b": None, "pipelines__b": None,
        "sinks__one": None, "sinks__two": {"type": "memory"}, "profile": "sd_card",
    },
}  # fmt: skip


@pytest.mark.parametrize("edits", EDITS.values(), ids=EDITS)
async def test_a_pipeline_that_did_not_change_misses_no_row_and_stays_the_same_object(tmp_path, edits):
    async with fed(tmp_path) as rig:
        before, ingest = detectors(rig.assembly.pipelines["a"]), rig.assembly.ingests["a"]
        await rig.feed_while(asyncio.create_task(rig.reload(**edits)))
        assert detectors(rig.assembly.pipelines["a"]) == before
        assert rig.assembly.ingests["a"] is ingest
        assert rig.missed_none("a")
        assert rig.assembly.pipelines["a"].snapshot()["lost"] == 0
        assert rig.assembly.config == rig.config(edited(**edits))


@pytest.mark.parametrize("edits", EDITS.values(), ids=EDITS)
async def test_what_runs_afterwards_is_what_a_fresh_start_would_run(tmp_path, edits):
    async with fed(tmp_path) as rig:
        await rig.reload(**edits)
        async with running(tmp_path, edited(**edits)) as fresh:
            assert set(rig.supervisor.running) == set(fresh.supervisor.running)
            assert list(rig.assembly.services()) == list(fresh.assembly.services())
        await rig.feed_on()
        for name, pipeline in rig.assembly.pipelines.items():
            assert pipeline.section == rig.assembly.config.pipelines[name]
            assert rig.seen(name)[-1] in {rig.pushed - 1.0, 2.0 * (rig.pushed - 1.0)}  # one edit scales
        async with asyncio.timeout(PATIENCE_S):  # the store tells of it a moment after it has done it
            while rig.outbox.sinks != rig.assembly.delivers.keys():
                await asyncio.to_thread(lambda: None)


async def test_edits_one_after_the_other_lead_to_the_same_and_back(tmp_path):
    async with fed(tmp_path) as rig:
        for edits in EDITS.values():
            await rig.reload(**edits)
            await rig.feed(3)
        await rig.reload()
        await rig.feed_on()
        assert rig.assembly.config == rig.config(BASE)
        assert rig.missed_none("a")
        assert set(rig.supervisor.running) == set(rig.assembly.services())


async def test_nothing_changed_touches_nothing(tmp_path):
    async with fed(tmp_path) as rig:
        before = rig.assembly.nodes
        prepared = rig.assembly.prepare(rig.config(BASE))
        assert not prepared.changes
        assert prepared.built.nodes == before
        assert str(prepared.changes) == "nothing changed; 5 nodes untouched"


class TestTheAlarm:
    async def test_another_limit_keeps_model_rings_and_the_incident_that_is_open(self, tmp_path):
        async with fed(tmp_path) as rig:
            rig.bias = 1000.0
            await rig.feed_on()
            before, told = detectors(rig.assembly.pipelines["a"]), list(rig.told)
            opened = rig.assembly.pipelines["a"].snapshot()["incidents"]
            assert told == [("a", "dxad.incident.opened")]
            await rig.feed_while(asyncio.create_task(rig.reload(pipelines__a__alarm__limit=700.0)))
            assert detectors(rig.assembly.pipelines["a"]) == before
            assert rig.assembly.pipelines["a"].limit == 700.0
            assert rig.assembly.pipelines["a"].snapshot()["incidents"][0]["id"] == opened[0]["id"]
            await rig.reload(pipelines__a__alarm__limit=1e9)
            await rig.feed_on()
            assert rig.told == [*told, ("a", "dxad.incident.closed")]

    async def test_another_delay_and_severity_count_from_the_next_row_on(self, tmp_path):
        async with fed(tmp_path) as rig:
            await rig.reload(
                pipelines__a__alarm={"on_delay": "200ms", "off_delay": "50ms", "severity": "low"},
            )
            rig.bias = 1000.0
            await rig.feed(15)
            await rig.idle()
            assert rig.told == []
            await rig.feed_on()
            assert rig.told == [("a", "dxad.incident.opened")]
            assert rig.assembly.pipelines["a"].snapshot()["incidents"][0]["severity"] == "low"

    async def test_an_incident_of_a_pipeline_that_goes_is_closed(self, tmp_path):
        async with fed(tmp_path) as rig:
            rig.bias = 1000.0
            await rig.feed_on()
            await rig.reload(pipelines__a=None)
            assert rig.told == [("a", "dxad.incident.opened"), ("a", "dxad.incident.closed")]


class TestTheModel:
    async def test_another_one_takes_over_between_two_rows_of_the_same_pipeline(self, tmp_path):
        async with fed(tmp_path) as rig:
            pipeline, old = rig.assembly.pipelines["a"], model(rig, "a")
            await rig.feed_while(asyncio.create_task(rig.reload(pipelines__a__model__limit=9.0)))
            assert rig.assembly.pipelines["a"] is pipeline
            assert model(rig, "a") is not old
            beside = rig.assembly.pipelines["a"].succession.beside
            assert beside.model is old  # for its successor's probation
            assert not old.closed
            assert rig.rows("a") == rig.pushed
            assert model(rig, "a").first > 0.0  # it was configured otherwise: nothing was handed over

    async def test_what_it_has_learned_goes_to_the_one_in_its_place(self, tmp_path):
        async with fed(tmp_path) as rig:
            old = model(rig, "a")
            await rig.feed_while(asyncio.create_task(rig.reload(sources__a__keep="30s")))
            assert model(rig, "a") is not old
            assert model(rig, "a").first == old.first == 0.0
            assert old.closed

    async def test_the_window_changes_and_what_was_learned_stays(self, tmp_path):
        async with fed(tmp_path) as rig:
            pipeline = rig.assembly.pipelines["a"]
            await rig.feed_while(asyncio.create_task(rig.reload(pipelines__a__hop=2)))
            assert rig.assembly.pipelines["a"] is pipeline
            assert model(rig, "a").first == 0.0

    @pytest.mark.parametrize(
        "edit",
        [
            {"pipelines__b__required": ["b.x"]},
            {"pipelines__b__transforms": [{"type": "scale", "factor": 2.0}]},
        ],
    )
    async def test_a_shadow_that_has_to_go_with_the_one_it_was_beside_is_told_of(self, tmp_path, edit):
        async with fed(tmp_path) as rig:
            shadow = Counting(CountingConfig(type="counting"))
            pipeline = rig.assembly.pipelines["b"]
            pipeline.succession.shadow(pipeline.fitted(shadow))
            await rig.feed_on()
            await rig.reload(**edit)
            await rig.feed_on()
            assert shadow.closed
            async with asyncio.timeout(PATIENCE_S):  # the desk tells of it when it looks the next time
                while ("b", "dxad.model.dismissed") not in rig.told:
                    await rig.feed_on()

    async def test_one_that_is_refused_is_no_reason_to_lose_the_old_one(self, tmp_path):
        async with fed(tmp_path) as rig:
            nodes = rig.assembly.nodes
            with pytest.raises(ConfigError, match="lose the one it has: this model is for nobody"):
                await rig.reload(pipelines__a__model__refuse=True)
            assert rig.assembly.nodes is nodes

    async def test_a_new_pipeline_may_wait_for_one(self, tmp_path):
        async with fed(tmp_path) as rig:
            await rig.reload(
                pipelines__c={"channels": ["b.*"], "model": {"type": "counting", "refuse": True}}
            )
            assert rig.conditions == {("model.missing", "c")}
            await rig.reload()
            assert rig.conditions == set()


class TestLearning:
    @pytest.mark.parametrize(
        "edits",
        [
            {"sources__c": SOURCE},
            {"pipelines__c": {**LEARNS, "alarm": {"severity": "low"}}},
            {"sources__a": None, "pipelines__a": None},
        ],
    )
    async def test_goes_on_recording_through_a_reload_of_something_else(self, tmp_path, edits):
        async with fed(tmp_path) as rig:
            await rig.reload(pipelines__c=LEARNS)
            await rig.feed_on()
            learning, recorder = rig.assembly.learnings["c"], rig.assembly.pipelines["c"].recorder
            recorded = recorder.rows
            assert recorded >= 50
            await rig.reload(**{"pipelines__c": LEARNS, **edits})
            await rig.feed_on()
            assert rig.assembly.learnings["c"] is learning
            assert rig.assembly.pipelines["c"].recorder is recorder
            assert recorder.rows == recorded + 50
            assert rig.conditions == {("model.missing", "c")}

    async def test_of_another_span_begins_anew_over_the_same_rows(self, tmp_path):
        async with fed(tmp_path) as rig:
            await rig.reload(pipelines__c=LEARNS)
            await rig.feed_on()
            pipeline = rig.assembly.pipelines["c"]
            await rig.reload(pipelines__c={**LEARNS, "learn": {"span": "30s"}})
            await rig.feed_on()
            assert rig.assembly.pipelines["c"] is pipeline
            assert pipeline.recorder.wanted == 3000
            assert 0 < pipeline.recorder.rows <= 50

    async def test_ends_with_its_section(self, tmp_path):
        async with fed(tmp_path) as rig:
            await rig.reload(pipelines__c=LEARNS)
            await rig.feed_on()
            await rig.reload(pipelines__c={key: each for key, each in LEARNS.items() if key != "learn"})
            assert "learning.c" not in rig.supervisor.running
            assert rig.assembly.pipelines["c"].recorder is None


async def test_a_pipeline_whose_rows_change_begins_where_the_old_one_ended(tmp_path):
    async with fed(tmp_path) as rig:
        edits = {"pipelines__a__transforms": [{"type": "scale", "channels": ["a.*"], "factor": -1.0}]}
        await rig.feed_while(asyncio.create_task(rig.reload(**edits)))
        assert rig.rows("a") == rig.pushed
        assert rig.seen("a")[-1] == -(rig.pushed - 1.0)


async def test_rows_that_come_between_the_build_and_the_swap_are_not_called_lost(tmp_path):
    async with fed(tmp_path) as rig:
        edits = {"pipelines__b__transforms": [{"type": "scale", "factor": 2.0}]}
        prepared = rig.assembly.prepare(rig.config(edited(**edits)))
        await rig.feed(100)
        await rig.idle()
        await rig.assembly.apply(prepared, rig.supervisor)
        await rig.feed_on()
        assert rig.rows("b") == rig.pushed
        found = rig.assembly.pipelines["b"].snapshot()
        assert (found["lost"], found["lost_by"]) == (0, {})


async def test_counters_of_what_is_gone_go_with_it(tmp_path):
    async with fed(tmp_path) as rig:
        before = len(list(rig.metrics.samples()))
        for number in range(5):
            added = {f"pipelines__n{number}": {**PIPELINE, "channels": ["b.*"]}}
            await rig.reload(**added)
            await rig.feed_on()
        await rig.reload()
        assert len(list(rig.metrics.samples())) <= before + 5


async def test_conditions_of_what_is_gone_are_over(tmp_path):
    async with fed(tmp_path) as rig:
        rig.health.raise_condition("source.down", "b", "gone")
        rig.health.raise_condition("pipeline.blind", "b", "gone")
        rig.health.raise_condition("source.down", "a", "gone")
        await rig.reload(sources__b=None, pipelines__b=None)
        assert rig.conditions == {("source.down", "a")}


class TestBeforeTheSwap:
    @pytest.mark.parametrize(
        ("edits", "message"),
        [
            ({"memory_max": "16KiB"}, "memory_max: allows 0.0 MiB, the buffers need"),
            ({"gateway__id": "other"}, "gateway.id: cannot change while dxad runs"),
            ({"control__admin_group": "wheel"}, "control.admin_group: cannot change"),
            ({"outbox__path": "other.db"}, "outbox.path: cannot change"),
        ],
    )
    async def test_a_mistake_changes_nothing(self, tmp_path, edits, message):
        async with fed(tmp_path) as rig:
            nodes, running_before = rig.assembly.nodes, rig.supervisor.running
            with pytest.raises(ConfigError, match=message):
                await rig.reload(sources__c=SOURCE, **edits)
            assert rig.assembly.nodes is nodes
            assert rig.supervisor.running == running_before
            assert rig.conditions == set()

    async def test_a_plug_in_that_refuses_its_section_changes_nothing(self, tmp_path, monkeypatch):
        async with fed(tmp_path) as rig:

            def refuse(_self, name, _config, *, clock):
                raise ConfigError(f"{name}: no such device")

            nodes = rig.assembly.nodes
            monkeypatch.setattr(Memory, "__init__", refuse)
            with pytest.raises(ConfigError, match="c: no such device"):
                await rig.reload(sources__c=SOURCE)
            assert rig.assembly.nodes is nodes


class Failing(Supervisor):
    """Cannot start one service, the first time."""

    fails = "ingest.c"

    def start(self, name, run):
        if name == self.fails and not hasattr(self, "failed"):
            self.failed = True
            raise OSError("no more tasks")
        super().start(name, run)


MANY = {
    "sources__c": SOURCE, "sources__b__keep": "30s", "sinks__one__batch": 7, "profile": "low_latency",
    "pipelines__a__alarm__limit": 77.0, "pipelines__b__model__limit": 9.0,
}  # fmt: skip


class TestDuringTheSwap:
    async def test_a_service_that_does_not_start_puts_everything_back(self, tmp_path):
        async with running(tmp_path, supervisor=Failing) as rig:
            await rig.feed_on()
            nodes, kept = rig.assembly.nodes, detectors(rig.assembly.pipelines["a"])
            others = detectors(rig.assembly.pipelines["b"])
            doing = asyncio.create_task(rig.reload(**MANY))
            await rig.feed_while(doing)
            assert isinstance(doing.exception(), OSError)
            assert rig.assembly.nodes is nodes
            assert set(rig.supervisor.running) == set(rig.assembly.services())
            assert detectors(rig.assembly.pipelines["a"]) == kept
            assert detectors(rig.assembly.pipelines["b"]) == others
            assert rig.assembly.pipelines["a"].limit == 500.0
            assert not model(rig, "b").closed
            await rig.feed_on()
            assert rig.missed_none("a")
            assert rig.seen("b")[-1] == rig.pushed - 1.0
            await rig.reload(**MANY)  # and it can be tried again
            assert rig.assembly.pipelines["a"].limit == 77.0
            assert "ingest.c" in rig.supervisor.running

    async def test_a_bug_in_a_model_that_takes_over_puts_everything_back(self, tmp_path):
        async with fed(tmp_path) as rig:
            nodes = rig.assembly.nodes
            broken = edited(pipelines__a__model__fail_at_restore=True)
            async with running(rig.folder, broken) as other:
                await other.feed(5)
                await other.idle()
                before = other.assembly.nodes
                prepared = other.assembly.prepare(other.config(edited(broken, sources__a__keep="30s")))
                with pytest.raises(ZeroDivisionError):
                    await other.assembly.apply(prepared, other.supervisor)
                assert other.assembly.nodes is before
                assert set(other.supervisor.running) == set(other.assembly.services())
                assert prepared.built.detectors["a"].model.closed
                await other.feed_on()
                assert other.seen("a")[-1] == other.pushed - 1.0
            assert rig.assembly.nodes is nodes


async def test_a_pipeline_that_was_given_up_gets_another_chance_when_it_is_changed(tmp_path, monkeypatch):
    async with fed(tmp_path) as rig:

        def broken():
            raise ZeroDivisionError

        monkeypatch.setattr(rig.assembly.pipelines["b"], "step", broken)
        await rig.feed(60)
        async with asyncio.timeout(PATIENCE_S):
            while not rig.conditions:
                await rig.feed(5)
        assert rig.conditions == {("service.failed", "pipeline b")}
        await rig.reload(sinks__one__batch=7)
        assert rig.conditions == {("service.failed", "pipeline b")}
        await rig.reload(pipelines__b__transforms=[{"type": "scale", "factor": 2.0}])
        assert rig.conditions == set()
        await rig.feed_on()
        assert rig.seen("b")[-1] == 2.0 * (rig.pushed - 1)


async def test_how_long_messages_wait_to_be_read_together_follows_from_the_profile(tmp_path):
    broker = {
        "type": "mqtt",
        "url": "mqtt://127.0.0.1:1",
        "topic": "t",
        "period": "1s",
        "channels": {"x": {}},
    }
    async with running(tmp_path, edited(sources__m=broker)) as rig:
        source = rig.assembly.ingests["m"].source
        for profile in ("sd_card", "low_latency"):
            await rig.reload(sources__m=broker, profile=profile)
            wanted = PROFILES[profile]
            assert (source.coalesce_s, source.patience_s) == (wanted.coalesce_s, wanted.patience_s)
        assert rig.assembly.ingests["m"].source is source
