"""What may be done with a model by hand: it is tried first, done whole, and whoever asks learns the truth."""

import asyncio
import threading
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dxad import modeldesk
from dxad.bundle import shelf, trial
from dxad.config import Config
from dxad.errors import ConfigError, ModelError
from dxad.modeldesk import ModelDesk
from dxad.models.tflite import TFLite
from dxad.pipeline import Pipeline
from dxad.training import Recording, learn
from dxad.types import NS_PER_S, Document

PERIOD = NS_PER_S // 10
MODEL = {"type": "tflite", "path": "models/p"}


class Bench:
    """A desk over plants whose rows the test seals, with bundles and a shelf on a real disk."""

    def __init__(self, folder: Path, make_plant, normal_rows) -> None:
        self.folder = folder
        self.make_plant = make_plant
        self.normal_rows = normal_rows
        self.plant = make_plant(model=MODEL, promotion={"probation": "200s"})
        self.pipelines: dict[str, Pipeline] = {"p": self.plant.pipeline}
        self.told: list[str] = []
        self.shelf = folder / "models" / "p"
        self.config = Config.model_validate(
            {
                "gateway": {"id": "gw"},
                "state_dir": str(folder),
                "sources": {"s": {"type": "memory", "period": "100ms", "channels": {"a": {}}}},
                "pipelines": {"p": {"channels": ["s.*"], "model": MODEL}},
            }
        )
        self.desk = ModelDesk(
            config=lambda: self.config,
            pipelines=lambda: self.pipelines,
            on_event=lambda event: self.told.append(event.type),
            clock=self.plant.clock,
            health=self.plant.health,
        )

    def bundle(self, name: str, *, period: int = PERIOD) -> Path:
        rows = self.normal_rows(400, seed=sum(name.encode()))
        learn(Recording(self.plant.channels, period, rows, {}), self.folder / name, rows_most=5)
        return self.folder / name

    def feed(self, rows: int = 1) -> None:
        self.plant.feed(self.normal_rows(rows))

    async def fed(self, asked: Coroutine[Any, Any, Document]) -> Document:
        """The answer to what is asked while rows come."""
        task = asyncio.create_task(asked)
        while not task.done():
            self.feed()
            await asyncio.sleep(0.002)
        return await task

    async def install(self, name: str) -> str:
        """The version of a new model that counts now."""
        answer = await self.fed(self.desk.install("p", self.bundle(name)))
        assert answer["in_force"]
        return answer["version"].partition("-")[2]

    @property
    def live(self) -> str:
        assert self.plant.pipeline.detector is not None
        return self.plant.pipeline.detector.model.version

    @property
    def current(self) -> str:
        return next(each.name.partition("-")[2] for each in shelf.versions(self.shelf) if each.current)


@pytest.fixture
def bench(tmp_path, make_plant, normal_rows) -> Bench:
    return Bench(tmp_path, make_plant, normal_rows)


@pytest.fixture
def gate(monkeypatch) -> asyncio.Event:
    """Every trial waits for it; `gate.begun` tells that one does."""
    opened = asyncio.Event()
    opened.begun = asyncio.Event()
    ensure = trial.ensure_tried

    async def waits(path: Path) -> None:
        opened.begun.set()
        await opened.wait()
        await ensure(path)

    monkeypatch.setattr(trial, "ensure_tried", waits)
    return opened


async def test_a_model_that_is_installed_counts_when_the_answer_comes_and_is_current_on_the_shelf(bench):
    first = await bench.install("first")
    assert (bench.live, bench.current) == (first, first)
    second = await bench.install("second")
    assert (bench.live, bench.current) == (second, second)
    assert bench.plant.pipeline.snapshot()["beside"]["version"] == first


async def test_whoever_asks_while_no_row_comes_is_told_that_it_is_still_to_happen(bench, monkeypatch):
    monkeypatch.setattr(modeldesk, "_PATIENCE_S", 0.01)
    answer = await bench.desk.install("p", bench.bundle("first"))
    assert not answer["in_force"]
    assert bench.plant.pipeline.detector is None
    bench.feed()
    assert bench.live in answer["version"]


async def test_a_bundle_for_rows_of_another_period_is_refused_and_comes_on_no_shelf(bench):
    with pytest.raises(ModelError, match=r"rows 60 s apart, those of the pipeline are 0\.1 s apart"):
        await bench.desk.install("p", bench.bundle("slow", period=60 * NS_PER_S))
    assert shelf.versions(bench.shelf) == []
    assert not list(bench.shelf.glob(".install-*"))


async def test_a_folder_that_is_no_bundle_is_refused(bench, tmp_path):
    with pytest.raises(ModelError, match="No such file"):
        await bench.desk.install("p", tmp_path / "nothing")


async def test_an_interpreter_is_built_beside_the_event_loop(bench, monkeypatch):
    threads, load = [], TFLite.load

    def watched(self, *args, **keys):
        threads.append(threading.current_thread())
        return load(self, *args, **keys)

    monkeypatch.setattr(TFLite, "load", watched)
    await bench.install("first")
    assert threads
    assert threading.main_thread() not in threads


async def test_a_shadow_is_promoted_and_the_shelf_follows(bench):
    first = await bench.install("first")
    answer = await bench.fed(bench.desk.install("p", bench.bundle("second"), shadow=True))
    second = answer["version"].partition("-")[2]
    assert (bench.live, bench.current, answer["in_force"]) == (first, first, True)
    assert (await bench.fed(bench.desk.promote("p")))["in_force"]
    assert bench.live == second
    await bench.desk.follow(bench.plant.pipeline)
    assert bench.current == second
    assert bench.told[-1] == "dxad.model.promoted"


async def test_what_was_replaced_is_called_back_during_its_probation_and_the_shelf_follows(bench):
    first = await bench.install("first")
    await bench.install("second")
    assert await bench.fed(bench.desk.roll_back("p")) == {"pipeline": "p", "version": first, "in_force": True}
    await bench.desk.follow(bench.plant.pipeline)
    assert (bench.live, bench.current) == (first, first)
    assert bench.told[-1] == "dxad.model.rolled_back"


async def test_a_rollback_that_comes_as_the_probation_ends_takes_the_version_from_the_shelf(bench):
    first = await bench.install("first")
    await bench.install("second")
    asked = asyncio.create_task(bench.desk.roll_back("p"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    succession = bench.plant.pipeline.succession
    succession.dismiss()
    succession._wishes.rotate(1)  # the probation ends before the wish is looked at
    assert (await bench.fed(asked_for(asked)))["in_force"]
    assert (bench.live, bench.current) == (first, first)


async def asked_for(task: asyncio.Task[Document]) -> Document:
    return await task


async def test_a_version_that_is_named_counts_again(bench):
    first = await bench.install("first")
    for name in ("second", "third"):
        await bench.install(name)
    answer = await bench.fed(bench.desk.roll_back("p", "1"))
    assert answer == {"pipeline": "p", "version": f"0001-{first}", "in_force": True}
    assert (bench.live, bench.current) == (first, first)


async def test_a_rollback_that_is_broken_off_or_refused_in_its_trial_leaves_the_shelf_as_it_was(bench, gate):
    gate.set()
    await bench.install("first")
    second = await bench.install("second")
    gate.clear()
    gate.begun.clear()
    asked = asyncio.create_task(bench.desk.roll_back("p", "1"))
    await gate.begun.wait()
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    assert (bench.live, bench.current) == (second, second)

    gate.set()
    (next(bench.shelf.glob("0001-*")) / "model.tflite").write_bytes(b"damaged")
    with pytest.raises(ModelError, match="sha256"):
        await bench.desk.roll_back("p", "1")
    assert (bench.live, bench.current) == (second, second)


async def test_a_model_goes_to_the_pipeline_that_runs_when_its_trial_is_over(bench, gate):
    old = bench.plant
    asked = asyncio.create_task(bench.desk.install("p", bench.bundle("first")))
    await gate.begun.wait()
    bench.plant = bench.make_plant(model=MODEL, window="1s")  # a reload has rebuilt it
    bench.pipelines["p"] = bench.plant.pipeline
    gate.set()
    answer = await bench.fed(asked_for(asked))
    assert answer["in_force"]
    assert bench.live in answer["version"]
    assert not old.pipeline.has_model


async def test_a_pipeline_that_goes_while_its_wish_waits_hands_it_to_the_one_in_its_place(bench):
    asked = asyncio.create_task(bench.desk.install("p", bench.bundle("first")))
    old = bench.plant
    while not old.pipeline.has_model:
        await asyncio.to_thread(lambda: None)
    bench.plant = bench.make_plant(model=MODEL)
    bench.pipelines["p"] = bench.plant.pipeline
    old.pipeline.succession.close()
    assert (await bench.fed(asked_for(asked)))["in_force"]
    assert bench.live == bench.current


async def test_a_model_is_scored_as_the_pipeline_is_configured_when_its_trial_is_over(bench, gate):
    asked = asyncio.create_task(bench.desk.install("p", bench.bundle("first")))
    await gate.begun.wait()
    bench.plant.pipeline.adjust(bench.plant.section.model_copy(update={"hop": 5}))
    gate.set()
    await bench.fed(asked_for(asked))
    before = bench.plant.counted("rows_scored")
    bench.feed(50)
    assert bench.plant.counted("rows_scored") == before + 10


async def test_a_pipeline_that_is_gone_when_the_trial_is_over_gets_no_model(bench, gate):
    asked = asyncio.create_task(bench.desk.install("p", bench.bundle("first")))
    await gate.begun.wait()
    del bench.pipelines["p"]
    gate.set()
    with pytest.raises(ModelError, match="'p' is there no more"):
        await asked
    assert shelf.versions(bench.shelf) == []


async def test_what_is_not_there_is_not_promoted_rolled_back_or_dismissed(bench):
    with pytest.raises(ModelError, match="no shadow to promote"):
        await bench.desk.promote("p")
    with pytest.raises(ModelError, match="no model beside its live one"):
        await bench.desk.dismiss("p")
    with pytest.raises(ModelError, match="no version before the current one"):
        await bench.desk.roll_back("p")


async def test_a_shadow_is_let_go_and_told_of(bench):
    first = await bench.install("first")
    await bench.fed(bench.desk.install("p", bench.bundle("second"), shadow=True))
    assert (await bench.fed(bench.desk.dismiss("p")))["in_force"]
    await bench.desk.follow(bench.plant.pipeline)
    assert bench.plant.pipeline.snapshot()["beside"] is None
    assert bench.live == first
    assert bench.told == ["dxad.model.dismissed"]


async def test_a_kind_of_model_without_versions_has_no_shelf(bench, make_plant):
    pipelines = {"p": bench.config.pipelines["p"].model_copy(update={"model": make_plant().section.model})}
    bench.config = bench.config.model_copy(update={"pipelines": pipelines})
    with pytest.raises(ConfigError, match="has no versions"):
        await bench.desk.roll_back("p")


async def test_scores_go_on_across_every_change(bench):
    await bench.install("first")
    await bench.install("second")
    before = bench.plant.counted("rows_unscored")
    await bench.fed(bench.desk.roll_back("p"))
    assert bench.plant.counted("rows_unscored") == before
    raw = bench.plant.pipeline.scores.read(bench.plant.ring.sealed - 5, bench.plant.ring.sealed).values[:, 0]
    assert np.isfinite(raw).all()
