"""One task's waits end when they have taken too long, as with `asyncio.timeout`."""

import asyncio

import pytest

from dxad.runtime.deadline import Patience

pytestmark = pytest.mark.one_loop


@pytest.fixture
async def patience():
    made = Patience()
    yield made
    made.close()


async def test_a_wait_that_takes_too_long_is_a_timeout(patience):
    begun = asyncio.get_running_loop().time()
    with pytest.raises(TimeoutError), patience.of(0.02):
        await asyncio.Event().wait()
    assert asyncio.get_running_loop().time() - begun >= 0.02
    assert not asyncio.current_task().cancelling()


async def test_each_wait_has_its_own_time(patience):
    for _ in range(8):
        with patience.of(0.03):
            await asyncio.sleep(0.01)
    with pytest.raises(TimeoutError), patience.of(0.03):
        await asyncio.sleep(1)


async def test_a_shorter_wait_after_a_longer_one_ends_in_time(patience):
    with patience.of(60):
        pass
    with pytest.raises(TimeoutError), patience.of(0.01):
        await asyncio.sleep(1)


async def test_between_two_waits_nobody_is_cancelled(patience):
    with patience.of(0.01):
        pass
    await asyncio.sleep(0.03)
    with patience.of(1):
        await asyncio.sleep(0)


async def test_whoever_is_cancelled_from_without_is_cancelled(patience):
    async def work():
        with patience.of(0.02):
            await asyncio.sleep(1)

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_an_error_of_what_is_waited_for_is_passed_on(patience):
    with pytest.raises(ZeroDivisionError), patience.of(1):
        raise ZeroDivisionError
