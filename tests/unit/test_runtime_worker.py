"""A thread that does one thing after the other, and that a watchdog can look at."""

import asyncio
import threading

import pytest

from dxad.runtime.worker import Worker
from tests.patience import PATIENCE_S


@pytest.fixture
def worker():
    thread = Worker("w")
    yield thread
    thread.close()


async def test_calls_run_in_order_and_give_their_result_or_their_error(worker):
    ran = []
    results = await asyncio.gather(*(worker.run(lambda i=i: ran.append(i) or i) for i in range(5)))
    assert ran == results == [0, 1, 2, 3, 4]
    with pytest.raises(ZeroDivisionError):
        await worker.run(lambda: 1 / 0)


async def test_it_is_busy_while_something_runs_also_after_nobody_waits_for_it_any_more(worker):
    go_on = threading.Event()
    assert worker.busy_s == 0
    task = asyncio.create_task(worker.run(lambda: go_on.wait(5)))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    first = worker.busy_s
    assert worker.busy_s >= first > 0
    go_on.set()
    await worker.run(lambda: None)
    assert worker.busy_s == 0


async def test_many_calls_end_in_order_and_one_that_fails_is_an_answer():
    worker = Worker("test")

    def fails() -> int:
        raise ValueError("no")

    one, error, three = await worker.run_all([lambda: 1, fails, lambda: 3])
    assert (one, three) == (1, 3)
    assert isinstance(error, ValueError)
    (last,) = await worker.run_all([fails])
    assert isinstance(last, ValueError)
    assert await worker.run_all([]) == []
    assert worker.busy_s == 0.0
    worker.close()


async def test_what_became_of_a_call_is_told_to_a_function_in_order(worker):
    told = []
    for each in (lambda: 1, lambda: 1 / 0, lambda: 3):
        worker.start(each, told.append)
    await worker.run(lambda: None)
    assert [type(each.error) for each in told] == [type(None), ZeroDivisionError, type(None)]
    assert (told[0].result(), told[2].result()) == (1, 3)
    with pytest.raises(ZeroDivisionError):
        told[1].result()


async def test_closing_waits_for_what_runs_and_cancels_what_has_not_begun():
    worker = Worker("w")
    began, go_on, told = threading.Event(), threading.Event(), []

    def runs() -> str:
        began.set()
        go_on.wait(PATIENCE_S)
        return "ran"

    worker.start(runs, told.append)
    waits = asyncio.create_task(worker.run(lambda: "never"))
    await asyncio.sleep(0)
    assert began.wait(PATIENCE_S)
    threading.Timer(0.01, go_on.set).start()
    worker.close()
    await asyncio.wait([waits])
    assert waits.cancelled()
    assert [each.result() for each in told] == ["ran"]
    assert worker.busy_s == 0
    worker.close()
    with pytest.raises(RuntimeError, match="closed"):
        worker.start(lambda: None, told.append)
    assert not any(each.name == "w" for each in threading.enumerate())
