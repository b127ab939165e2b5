"""The inference thread's service: what a batch found is told, however the batch or the service ends."""

import asyncio
import threading
from types import SimpleNamespace

import pytest

from dxad.runtime.clock import SteppedClock
from dxad.runtime.health import Health
from dxad.runtime.worker import Worker
from dxad.scoring import Scoring
from tests.patience import PATIENCE_S


@pytest.fixture
def worker():
    thread = Worker("inference")
    yield thread
    thread.close()


@pytest.fixture
def health():
    return Health(SteppedClock())


def _pipeline(step, name="p", untold=()):
    return SimpleNamespace(due=True, step=step, name=name, untold=lambda: list(untold))


async def _turns(until) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not until():
            await asyncio.to_thread(lambda: None)


async def test_a_stop_in_the_middle_of_a_batch_loses_nothing_of_it(worker, health):
    begun, go_on, told = threading.Event(), threading.Event(), []

    def slow():
        begun.set()
        go_on.wait(5)
        return ["an incident"]

    scoring = Scoring([_pipeline(slow)], worker, health=health, on_event=told.append)
    task = asyncio.create_task(scoring.run())
    scoring.wake()
    await _turns(begun.is_set)
    task.cancel()
    go_on.set()
    await asyncio.wait([task])
    assert task.cancelled()
    assert told == ["an incident"]


async def test_a_pipeline_that_breaks_does_not_stop_the_others_and_is_given_up_in_the_end(worker, health):
    told, broke = [], []

    def broken():
        broke.append(1)
        raise ZeroDivisionError

    pipelines = [_pipeline(broken, "bad"), _pipeline(lambda: ["an incident"], "good")]
    scoring = Scoring(pipelines, worker, health=health, on_event=told.append)
    task = asyncio.create_task(scoring.run())
    for batch in range(1, 8):
        scoring.wake()
        await _turns(lambda batch=batch: len(told) == batch)
    task.cancel()
    await asyncio.wait([task])
    assert len(broke) == 5
    assert [(each.code, each.subject) for each in health.active] == [("service.failed", "pipeline bad")]


async def test_between_two_batches_nothing_is_stepped_and_what_waits_is_stepped_afterwards(worker, health):
    begun, go_on, told = threading.Event(), threading.Event(), []

    def slow():
        begun.set()
        go_on.wait(5)
        return ["old"]

    scoring = Scoring([_pipeline(slow)], worker, health=health, on_event=told.append)
    task = asyncio.create_task(scoring.run())
    scoring.wake()
    await _turns(begun.is_set)
    asyncio.get_running_loop().call_later(0.05, go_on.set)
    async with scoring.between_batches():
        assert told == ["old"]
        scoring.wake()
        scoring.replace([_pipeline(lambda: ["new"])])
        for _ in range(5):
            await asyncio.to_thread(lambda: None)
        assert told == ["old"]
    await _turns(lambda: told == ["old", "new"])
    task.cancel()
    await asyncio.wait([task])


async def test_it_steps_only_when_something_is_due(worker, health):
    steps = []
    pipeline = SimpleNamespace(due=False, step=lambda: steps.append(1) or [], name="p")
    scoring = Scoring([pipeline], worker, health=health, on_event=lambda _: None)
    task = asyncio.create_task(scoring.run())
    scoring.tick(0)
    await asyncio.sleep(0)
    assert not steps
    pipeline.due = True
    scoring.tick(0)
    await _turns(lambda: len(steps) == 1)
    task.cancel()
    await asyncio.wait([task])


async def test_what_a_step_found_before_it_broke_is_told_and_good_steps_are_forgiving(worker, health):
    told, steps = [], []

    def sometimes():
        steps.append(1)
        if len(steps) % 200 == 0:
            raise ZeroDivisionError
        return ["step"]

    pipeline = _pipeline(sometimes, untold=["before it broke"])
    scoring = Scoring([pipeline], worker, health=health, on_event=told.append)
    for _ in range(2000):
        await scoring.finish([pipeline])
    assert len(steps) == 2000, "ten failures, far apart, do not end it"
    assert told.count("before it broke") == 10
    assert health.active == ()
