import asyncio
import contextlib

import pytest

from hw_sim.tasks import background, end, race
from tests.patience import PATIENCE_S

pytestmark = pytest.mark.one_loop


async def forever():
    await asyncio.Event().wait()


async def fail():
    raise LookupError("a bug")


async def test_end_cancels_and_waits():
    task = asyncio.create_task(forever())
    await end(task)
    assert task.cancelled()


async def test_end_raises_what_the_task_had_failed_with():
    task = asyncio.create_task(fail())
    await asyncio.sleep(0)
    with pytest.raises(LookupError, match="a bug"):
        await end(task)


async def test_end_ends_a_task_that_swallows_a_cancellation(monkeypatch):
    monkeypatch.setattr("hw_sim.tasks._AGAIN_S", 0.01)

    async def stubborn():
        with contextlib.suppress(asyncio.CancelledError):
            await forever()
        await forever()

    task = asyncio.create_task(stubborn())
    await asyncio.sleep(0)
    async with asyncio.timeout(PATIENCE_S):
        await end(task)
    assert task.cancelled()


async def test_a_background_task_that_fails_says_so_at_once(caplog):
    task = background(fail(), name="motor")
    await asyncio.wait([task])
    assert "motor failed" in caplog.text
    assert "LookupError: a bug" in caplog.text


async def test_a_race_ends_with_its_first_job_and_cancels_the_others():
    cancelled = asyncio.Event()

    async def loser():
        try:
            await forever()
        finally:
            cancelled.set()

    await race(asyncio.sleep(0.01), loser())
    assert cancelled.is_set()


async def test_a_race_raises_what_its_first_job_failed_with():
    with pytest.raises(LookupError, match="a bug"):
        await race(fail(), forever())


async def test_a_race_that_is_cancelled_cancels_its_jobs():
    racing = asyncio.create_task(race(forever(), forever()))
    await asyncio.sleep(0)
    await end(racing)
    assert racing.cancelled()
