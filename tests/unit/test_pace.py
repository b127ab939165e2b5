"""The time of the tests, which every other test goes by."""

import asyncio
import threading
import time

import pytest

from dxad.runtime.clock import SteppedClock, SystemClock
from dxad.runtime.worker import Worker
from dxad.types import NS_PER_S
from tests.pace import Watch


async def test_it_stands_still_while_the_machine_does_and_goes_on_with_it():
    loop, clock = asyncio.get_running_loop(), SystemClock()
    before = loop.time(), clock.now()
    time.sleep(0.3)  # noqa: ASYNC251 - as if the machine had stopped
    assert loop.time() - before[0] < 0.1
    assert clock.now() - before[1] < NS_PER_S // 10
    await asyncio.sleep(0.02)
    assert loop.time() - before[0] >= 0.02
    assert clock.now() - before[1] >= 0.02 * NS_PER_S


async def test_a_limit_does_not_pass_while_the_machine_stands_still():
    asyncio.get_running_loop().call_later(0.01, time.sleep, 0.3)
    async with asyncio.timeout(0.1):
        await asyncio.sleep(0.05)


@pytest.mark.one_loop
async def test_where_all_are_in_one_loop_it_goes_on_to_what_is_due_next():
    loop, real = asyncio.get_running_loop(), time.monotonic()
    began, waking = loop.time(), []
    for hours in (3, 1, 2):
        loop.call_later(hours * 3600, waking.append, hours)
    await asyncio.sleep(4 * 3600)
    assert waking == [1, 2, 3]
    assert 4 * 3600 <= loop.time() - began < 4 * 3600 + 1
    assert time.monotonic() - real < 3600


@pytest.mark.one_loop
async def test_and_not_before_a_thread_has_answered():
    loop = asyncio.get_running_loop()
    began = loop.time()
    async with asyncio.timeout(0.05):
        await asyncio.to_thread(time.sleep, 0.2)
    assert loop.time() - began < 0.05


async def test_a_stepped_clock_waits_for_a_thread_that_was_asked():
    clock, worker, done = SteppedClock(), Worker("slow"), []
    worker.start(lambda: time.sleep(0.1), done.append)
    await clock.step(NS_PER_S)
    assert len(done) == 1
    worker.close()


def test_a_watch_sees_how_long_the_machine_stood_still():
    with Watch() as machine:
        lock = threading.Lock()
        with lock:
            time.sleep(0.05)
    assert 0 <= machine.longest_s <= machine.stood_s
