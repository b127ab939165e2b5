"""Learning what is normal, in a real process of its own, while the pipeline goes on."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest

from dxad import bundle
from dxad.config import LearnSection
from dxad.errors import ConfigError, ModelError
from dxad.learning import Learning
from dxad.models.tflite import TFLite
from dxad.types import NS_PER_S
from tests.patience import PATIENCE_S


@pytest.fixture
def children(monkeypatch) -> list[asyncio.subprocess.Process]:
    """The processes that were started, in order."""
    started = []
    spawn = asyncio.create_subprocess_exec

    async def spawned(*command, **keys):
        started.append(await spawn(*command, **keys))
        return started[-1]

    monkeypatch.setattr(asyncio, "create_subprocess_exec", spawned)
    return started


class Bench:
    def __init__(
        self,
        plant,
        folder: Path,
        children: list[asyncio.subprocess.Process],
        spare_bytes: int = 0,
        **section,
    ) -> None:
        self.plant = plant
        self.children = children
        self.shelf = folder / "models" / "p"
        self.learning = Learning(
            plant.pipeline,
            LearnSection.model_validate({"span": "20s"} | section),
            self.shelf,
            load=lambda: TFLite.at(self.shelf),
            spare_bytes=spare_bytes,
            clock=plant.clock,
            health=plant.health,
        )

    @property
    def installed(self) -> list[str]:
        return sorted(each.name for each in self.shelf.glob("0*"))

    async def tick(self, times: int = 1) -> None:
        """Let the service look at its recorder."""
        await self.plant.clock.step(times * NS_PER_S // 4)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.learning.run())
        await self.tick()
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])
            assert not list(self.shelf.glob(".learn-*")), "nothing is left of what was not finished"

    async def begun(self, number: int) -> asyncio.subprocess.Process:
        """The process of this number, once the loop has started it."""
        async with asyncio.timeout(PATIENCE_S):
            while len(self.children) < number:
                await asyncio.to_thread(lambda: None)  # a turn that lets others have the processor
        return self.children[number - 1]

    async def fitted(self, number: int = 1) -> None:
        """Wait until the process of this number has ended and the service has seen it."""
        child = await self.begun(number)
        await child.wait()
        async with asyncio.timeout(PATIENCE_S):
            while self.learning.state == "fitting":
                await asyncio.to_thread(lambda: None)


@pytest.fixture
def bench(plant, tmp_path, children) -> Bench:
    return Bench(plant, tmp_path, children)


@pytest.fixture
def make_bench(make_plant, tmp_path, children) -> Callable[..., Bench]:
    def made(**section) -> Bench:
        return Bench(make_plant(), tmp_path, children, **section)

    return made


async def test_the_interpreter_is_built_beside_the_event_loop(bench, normal_rows, monkeypatch):
    threads, load = [], TFLite.load

    def watched(self, *args, **keys):
        threads.append(threading.current_thread())
        return load(self, *args, **keys)

    monkeypatch.setattr(TFLite, "load", watched)
    bench.plant.feed(normal_rows(400))
    await bench.learning.from_history()
    assert threads
    assert threading.main_thread() not in threads
    assert bench.plant.pipeline.has_model


async def test_while_there_is_no_model_it_records_and_learns_and_the_pipeline_swaps(bench, normal_rows):
    plant = bench.plant
    plant.health.raise_condition("model.missing", "p", "learning what is normal")
    async with bench.running():
        assert bench.learning.snapshot() == {"state": "recording", "rows": 0, "of_rows": 200, "error": None}
        plant.feed(normal_rows(150))
        assert bench.learning.snapshot()["rows"] == 150
        plant.feed(normal_rows(100))
        await bench.tick()
        assert bench.learning.state == "fitting"
        plant.feed(normal_rows(50))
        await bench.fitted()
        assert bench.learning.state == "idle"
    assert plant.conditions == {}
    assert plant.pipeline.recorder is None
    (name,) = bench.installed
    made = bundle.read(bench.shelf / name)
    assert made.manifest.trained_rows + made.manifest.calibrated_rows == 200
    plant.feed(normal_rows(10))
    assert plant.pipeline.detector.model.version == made.version
    assert plant.counted("rows_scored") == 10
    assert plant.counted("rows_unscored") == 300


async def test_what_is_on_the_shelf_at_the_start_is_not_learned_anew(bench, make_plant, normal_rows):
    plant = bench.plant
    async with bench.running():
        plant.feed(normal_rows(200))
        await bench.tick()
        await bench.fitted()
    again = Bench(make_plant(), bench.shelf.parent.parent, bench.children)
    again.plant.pipeline.offer(TFLite.at(bench.shelf))
    async with again.running():
        assert again.learning.state == "idle"
        again.plant.feed(normal_rows(300))
        await again.tick()
        assert again.learning.state == "idle"
    assert len(bench.installed) == 1


async def test_a_disk_that_takes_no_model_is_a_condition(bench, normal_rows):
    bench.shelf.parent.write_text("a file where the folder shall be")
    async with bench.running():
        bench.plant.feed(normal_rows(200))
        await bench.tick()
        async with asyncio.timeout(PATIENCE_S):
            while not bench.plant.conditions:
                await asyncio.to_thread(lambda: None)
        assert "models" in bench.plant.conditions["model.failed"]
    bench.shelf.parent.unlink()


def test_a_span_that_memory_has_no_room_for_is_refused(make_bench):
    bench = make_bench(spare_bytes=100 * 3 * 8)
    assert bench.learning.ask(30 * NS_PER_S) == 300
    with pytest.raises(ConfigError, match=r"recording 301 rows .* room for 300, a span of 30s"):
        bench.learning.ask(30 * NS_PER_S + NS_PER_S // 10)
    assert bench.learning.ask() == 200


async def test_it_learns_on_demand_and_again(make_bench, normal_rows):
    bench = make_bench(start="on_demand")
    plant = bench.plant
    async with bench.running():
        plant.feed(normal_rows(100))
        assert bench.learning.state == "idle"
        for n, span in enumerate((15 * NS_PER_S, None), start=1):
            rows = bench.learning.ask(span)
            assert rows == (150 if span else 200)
            await bench.tick()
            plant.feed(normal_rows(rows, seed=n))
            await bench.tick()
            await bench.fitted(n)
            assert len(bench.installed) == n


async def test_to_be_asked_again_while_recording_begins_anew_and_is_no_success(bench, normal_rows):
    plant = bench.plant
    plant.health.raise_condition("model.missing", "p", "learning what is normal")
    async with bench.running():
        plant.feed(normal_rows(150))
        assert bench.learning.ask(10 * NS_PER_S) == 100
        await bench.tick(2)
        assert bench.learning.snapshot() == {"state": "recording", "rows": 0, "of_rows": 100, "error": None}
        assert plant.conditions == {"model.missing": "learning what is normal"}
    assert bench.installed == []


async def test_rows_from_which_nothing_can_be_learned_are_a_condition_and_it_tries_again(bench, normal_rows):
    plant = bench.plant
    async with bench.running():
        plant.feed(np.full((200, 3), 7.0))
        await bench.tick()
        await bench.fitted()
        assert bench.learning.state == "idle"
        await bench.tick(4)
        assert bench.learning.state == "recording", "after a moment"
        why = "no channel varies: there is nothing to learn"
        assert plant.conditions["model.failed"] == f"learning failed: {why}"
        assert bench.learning.error == why
        plant.feed(normal_rows(200))
        await bench.tick()
        await bench.fitted(2)
        assert bench.learning.error is None
    assert plant.conditions == {}
    assert len(bench.installed) == 1


async def test_a_failure_on_demand_leaves_the_old_model_at_work_and_is_not_tried_again(bench, normal_rows):
    plant = bench.plant
    plant.feed(normal_rows(300))
    version = await bench.learning.from_history()
    plant.feed(normal_rows(10))
    async with bench.running():
        assert bench.learning.state == "idle"
        bench.learning.ask()
        await bench.tick()
        plant.feed(np.tile([[7.0], [8.0]], (100, 3)))
        await bench.tick()
        await bench.fitted(2)
    assert "model.failed" in plant.conditions
    assert plant.pipeline.detector.model.version == version
    assert len(bench.installed) == 1


async def test_it_learns_from_what_the_pipeline_remembers(bench, normal_rows):
    rows = normal_rows(300)
    rows[50:60, 1] = np.nan
    bench.plant.feed(rows)
    version = await bench.learning.from_history()
    made = bundle.read(bundle.current(bench.shelf))
    assert made.version == version
    assert made.manifest.trained_rows + made.manifest.calibrated_rows == 290
    assert made.manifest.stuck_rows == {"s.a": 10, "s.b": 10, "s.c": 10}


async def test_too_little_history_says_how_much_it_takes(bench, normal_rows):
    bench.plant.feed(normal_rows(12))
    with pytest.raises(ModelError, match=r"12 rows are too few to learn anything; record at least 15"):
        await bench.learning.from_history()
    assert bench.installed == []


async def test_a_child_that_dies_says_how(bench, normal_rows, monkeypatch):
    bench.plant.feed(normal_rows(300))
    monkeypatch.setattr("dxad.learning.sys.executable", "/bin/false")
    with pytest.raises(ModelError, match="the fit ended with status 1"):
        await bench.learning.from_history()


async def test_a_child_that_takes_too_long_is_killed(bench, normal_rows, monkeypatch):
    bench.plant.feed(normal_rows(300))
    monkeypatch.setattr("dxad.learning._TRIAL_S", 0.01)
    with pytest.raises(ModelError, match=r"longer than 0\.01 s"):
        await bench.learning.from_history()


async def test_a_stop_in_the_middle_of_a_fit_leaves_no_process_and_no_file(bench, normal_rows):
    async with bench.running():
        bench.plant.feed(normal_rows(200))
        await bench.tick()
        child = await bench.begun(1)
        assert child.returncode is None
    assert child.returncode == -9
    assert bench.installed == []
    assert bench.plant.pipeline.recorder is None


def test_it_learns_in_this_very_process_where_the_caller_has_the_time(bench, normal_rows):
    version = bench.learning.learn_here(normal_rows(400))
    assert bench.children == []
    assert bench.installed == [f"0001-{version}"]
    assert bench.plant.pipeline.has_model
    with pytest.raises(ModelError, match="too few"):
        bench.learning.learn_here(normal_rows(3))
    assert list(bench.shelf.glob(".learn-*")) == []
    assert bench.installed == [f"0001-{version}"]


def test_a_model_that_is_there_and_damaged_is_no_reason_to_learn_another_one_unasked(bench):
    assert bench.learning.wanted
    placed = bench.shelf / "0001-abc"
    placed.mkdir(parents=True)
    (placed / "manifest.json").write_text("{")
    (placed / "model.tflite").write_bytes(b"")
    (bench.shelf / "current").symlink_to("0001-abc")
    assert not bench.learning.wanted, "what runs now may not be what is normal: somebody shall look"
    bench.learning.ask()  # and may say so
    assert bench.learning.rows == 200
