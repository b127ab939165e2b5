"""Time is asked of a clock, so that tests can step it; and beats do not drift."""

import asyncio
import contextlib
import errno
import random
import re
import time

import pytest

from dxad.runtime import kerneltime
from dxad.runtime.backoff import Backoff
from dxad.runtime.clock import SteppedClock, SystemClock, boot_id
from dxad.runtime.ticker import Ticker
from dxad.types import NS_PER_S
from tests.pace import REAL_TIME


async def test_sleepers_wake_in_the_order_of_their_times_each_at_its_own():
    clock = SteppedClock(start=100)
    woken: list[tuple[str, int]] = []

    async def sleeper(name: str, at: int) -> None:
        await clock.sleep_until(at)
        woken.append((name, clock.now()))

    async with asyncio.TaskGroup() as group:
        for name, at in (("c", 130), ("a", 110), ("past", 90), ("b", 120), ("b2", 120)):
            group.create_task(sleeper(name, at))
        await asyncio.sleep(0)
        await clock.step(25)
        assert woken == [("past", 100), ("a", 110), ("b", 120), ("b2", 120)]
        assert clock.now() == 125
        await clock.step(5)
    assert woken[-1] == ("c", 130)


async def test_a_sleeper_that_sleeps_again_wakes_again_within_the_same_step():
    clock = SteppedClock(start=0)
    times = []

    async def runner() -> None:
        for _ in range(5):
            await clock.sleep_until(clock.now() + 10)
            times.append(clock.now())

    task = asyncio.create_task(runner())
    await asyncio.sleep(0)
    await clock.step(100)
    assert times == [10, 20, 30, 40, 50]
    assert clock.now() == 100
    await task


async def test_a_sleeper_that_was_cancelled_wakes_nobody():
    clock = SteppedClock(start=0)
    task = asyncio.create_task(clock.sleep_until(10))
    await asyncio.sleep(0)
    task.cancel()
    await clock.step(20)
    assert task.cancelled()


def test_wall_time_is_the_stream_time_and_an_offset():
    assert SteppedClock(start=5, utc_offset=1000).utc(7) == 1007


@pytest.fixture
def real_time(monkeypatch):
    """The machine's own clock as it is, and not as tests have it."""
    for name, method in REAL_TIME.items():
        monkeypatch.setattr(SystemClock, name, method)


async def test_the_machine_s_clock_never_goes_back_and_is_mapped_to_utc(real_time):
    clock = SystemClock()
    before = clock.now()
    await clock.sleep_until(before + 1_000_000)
    assert clock.now() >= before + 1_000_000
    earlier = time.time_ns()
    utc = clock.utc(clock.now())
    assert earlier - 1_000_000 < utc < time.time_ns() + 1_000_000
    assert clock.utc(before) - clock.utc(0) == pytest.approx(before, abs=1_000_000)


def test_whoever_is_held_up_between_the_clocks_is_not_told_that_one_was_set(real_time, monkeypatch):
    clock, held_up = SystemClock(), iter([False, True, *[False] * 6, True, *[False] * 99])
    at, begun = 0, 1_700_000_000 * NS_PER_S

    def looked() -> int:
        nonlocal at
        at += NS_PER_S if next(held_up) else 100
        return at

    monkeypatch.setattr(SystemClock, "now", lambda _: looked())
    monkeypatch.setattr(time, "time_ns", lambda: begun + looked())
    assert [abs(clock.utc(0) - begun) < 1000 for _ in range(3)] == [True] * 3


def test_a_boot_has_an_id():
    assert re.fullmatch("[0-9a-f]{32}", boot_id())
    assert boot_id() == boot_id()


async def test_a_ticker_beats_at_the_multiples_of_its_period_whatever_the_start():
    clock = SteppedClock(start=1037)
    beats: list[tuple[str, int]] = []
    ticker = Ticker(
        clock,
        period=100,
        calls=[lambda now: beats.append(("first", now)), lambda now: beats.append(("second", now))],
    )
    task = asyncio.create_task(ticker.run())
    await clock.step(0)
    await clock.step(300)
    assert beats == [(name, at) for at in (1100, 1200, 1300) for name in ("first", "second")]
    assert ticker.last == 1300
    task.cancel()


async def test_beats_that_were_slept_through_are_not_made_up_for():
    clock = SteppedClock(start=0)
    beats: list[int] = []
    task = asyncio.create_task(Ticker(clock, period=100, calls=[beats.append]).run())
    await clock.step(200)
    clock._now = 1250  # the machine was suspended
    await clock.step(150)
    assert beats == [100, 200, 1250, 1300, 1400]
    task.cancel()


async def test_a_ticker_changes_its_pace_and_what_it_calls_while_it_runs():
    clock = SteppedClock(start=0)
    old: list[int] = []
    new: list[int] = []
    ticker = Ticker(clock, period=100, calls=[old.append])
    task = asyncio.create_task(ticker.run())
    await clock.step(150)
    ticker.adjust(period=20, calls=[new.append])
    await clock.step(110)
    assert (old, new) == ([100], [200, 220, 240, 260])
    task.cancel()


def test_waits_double_up_to_the_most_and_jitter_by_half():
    waits = Backoff(first_s=0.25, most_s=2.0, rng=random.Random(1))
    found = [waits.next_s() for _ in range(8)]
    for wait, ceiling in zip(found, [0.25, 0.5, 1.0, 2.0, 2.0, 2.0, 2.0, 2.0], strict=True):
        assert ceiling / 2 <= wait <= ceiling
    assert len(set(found)) == 8
    waits.reset()
    assert waits.next_s() <= 0.25


def test_waits_stay_at_the_most_for_ever():
    waits = Backoff(first_s=1.0, most_s=30.0)
    assert all(waits.next_s() <= 30.0 for _ in range(5000))


def test_a_stepped_clock_moves_on_without_a_loop_and_never_back():
    clock = SteppedClock(start=100, utc_offset=1000)
    clock.advance(250)
    clock.advance(200)
    assert (clock.now(), clock.utc(clock.now())) == (250, 1250)


def test_the_kernel_is_asked_once_a_second_at_most_whether_the_wall_clock_is_right(monkeypatch):
    answers = iter([False, True])
    clock = SystemClock(synchronised=lambda: next(answers))
    now = 0
    monkeypatch.setattr(clock, "now", lambda: now)
    assert not clock.synchronised
    now = NS_PER_S - 1
    assert not clock.synchronised
    now = NS_PER_S
    assert clock.synchronised
    assert clock.synchronised


def test_the_kernel_s_answer_is_that_of_adjtimex_or_where_it_is_forbidden_a_file_s(monkeypatch, tmp_path):
    with contextlib.suppress(PermissionError):  # in a sandbox
        assert kerneltime.synchronised() is kerneltime.kernel_time().synchronised

    def forbidden() -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    file = tmp_path / "synchronized"
    monkeypatch.setattr(kerneltime, "kernel_time", forbidden)
    monkeypatch.setattr(kerneltime, "_TIMESYNCD", file)
    assert not kerneltime.synchronised()
    file.touch()
    assert kerneltime.synchronised()


def test_somebody_sets_the_wall_clock_and_the_stream_time_goes_on():
    clock = SteppedClock(start=5, utc_offset=1000, synchronised=False)
    clock.step_utc(-300, synchronised=True)
    assert (clock.now(), clock.utc(7), clock.synchronised) == (5, 707, True)
