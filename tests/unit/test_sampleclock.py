"""Times from counting: even, where arrivals are not; and anchored anew where a stream breaks."""

import numpy as np
import pytest

from dxad.sampleclock import ArrivalClock, CountedClock
from dxad.types import SAMPLE

MS = 1_000_000
PERIOD = MS
START = 10_000_000 * MS
"""Nearly three hours after boot."""


def block(messages: np.ndarray, arrivals: np.ndarray, columns: int = 1) -> np.ndarray:
    samples = np.zeros(len(messages) * columns, dtype=SAMPLE)
    samples["message"] = np.repeat(messages, columns)
    samples["arrival"] = np.repeat(arrivals, columns)
    samples["column"] = np.tile(np.arange(columns), len(messages))
    return samples


def behind_a_timer(n: int, *, timer: int, step: float = PERIOD, phase: int = 0, first: int = 0):
    """Blocks of messages that were taken each `step` and arrive together when a timer fires."""
    messages = np.arange(first, first + n)
    taken = START + phase + messages * step
    fired = (taken // timer + 1).astype(np.int64) * timer
    for at in np.unique(fired):
        yield messages[fired == at], np.full(np.count_nonzero(fired == at), at)


def counted(blocks, clock: CountedClock, columns: int = 1) -> np.ndarray:
    return np.concatenate([clock.times(block(*each, columns))[::columns] for each in blocks])


def alone(times: np.ndarray, period: int = PERIOD) -> float:
    """The share of samples that have a slot to themselves."""
    slots, counts = np.unique(times // period, return_counts=True)
    return float(np.count_nonzero(counts == 1) / len(times)) if len(slots) else 0.0


def test_an_arrival_is_believed_to_the_nanosecond():
    arrivals = np.array([START, START + 7, START + 7])
    np.testing.assert_array_equal(ArrivalClock().times(block(np.arange(3), arrivals)), arrivals)


@pytest.mark.parametrize("phase", [0, MS // 2, MS - 1])
def test_a_waveform_behind_a_slow_timer_keeps_its_samples_apart(phase):
    blocks = list(behind_a_timer(20_000, timer=16 * MS, phase=phase))
    times = counted(blocks, CountedClock(period=PERIOD, gap=500 * MS))
    arrivals = np.concatenate([each[1] for each in blocks])
    assert alone(arrivals) < 0.1, "which is what makes the clock necessary"
    assert alone(times) > 0.99
    assert (np.diff(times) > 0).all()


def test_all_samples_of_a_message_have_its_time():
    clock = CountedClock(period=PERIOD, gap=500 * MS)
    times = clock.times(block(np.arange(4), np.full(4, START), columns=3)).reshape(4, 3)
    assert (times == times[:, :1]).all()
    np.testing.assert_array_equal(np.diff(times[:, 0]), [PERIOD] * 3)


@pytest.mark.parametrize("ppm", [-500, 200, 1000])
def test_a_device_whose_clock_is_off_is_followed(ppm):
    step = PERIOD * (1 + ppm * 1e-6)
    blocks = list(behind_a_timer(50_000, timer=16 * MS, step=step))
    times = counted(blocks, clock := CountedClock(period=PERIOD, gap=500 * MS))
    taken = START + np.arange(50_000) * step
    behind = (times - taken)[25_000:]
    assert clock.slips == 0
    assert np.abs(behind - behind.mean()).max() < 2 * PERIOD
    assert np.diff(times[25_000:]).mean() == pytest.approx(step, rel=5e-5)


def test_a_pause_longer_than_the_gap_starts_the_count_anew():
    clock = CountedClock(period=PERIOD, gap=500 * MS)
    counted(behind_a_timer(2000, timer=16 * MS), clock)
    later = START + 2000 * PERIOD + 3_000 * MS
    times = clock.times(block(np.arange(2000, 2016), np.full(16, later)))
    assert clock.slips == 1
    assert abs(times[-1] - later) <= PERIOD
    np.testing.assert_allclose(np.diff(times), PERIOD, rtol=0.002)


def test_lost_messages_leave_a_hole_in_time():
    clock = CountedClock(period=PERIOD, gap=500 * MS)
    before = counted(behind_a_timer(2000, timer=16 * MS), clock)
    after = counted(behind_a_timer(2000, timer=16 * MS, first=2100), clock)
    assert after[0] - before[-1] == pytest.approx(101 * PERIOD, rel=0.02)
    assert clock.slips == 0


@pytest.mark.parametrize("phase", [0.0, 0.25, 0.5])
def test_jitter_of_a_third_of_a_period_does_not_reach_the_grid(phase):
    rng = np.random.default_rng(1)
    messages = np.arange(10_000)
    taken = START + (phase + messages) * PERIOD
    arrivals = np.maximum.accumulate(taken + np.abs(rng.normal(0, 0.3 * PERIOD, 10_000))).astype(np.int64)
    blocks = [(messages[at : at + 1], arrivals[at : at + 1]) for at in messages]
    assert alone(counted(blocks, CountedClock(period=PERIOD, gap=500 * MS))) > 0.999


def test_the_grid_is_met_after_years_of_uptime():
    five_years = 5 * 365 * 86_400 * 1_000_000_000 // PERIOD * PERIOD
    clock = CountedClock(period=PERIOD, gap=500 * MS)
    messages = np.arange(1000)
    blocks = [(messages[n : n + 1], np.array([five_years + n * PERIOD + PERIOD // 2])) for n in messages]
    assert alone(counted(blocks, clock)) == 1.0
