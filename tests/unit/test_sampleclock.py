"""Times from counting: even, where arrivals are not; and anchored anew where a stream breaks."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dxad.ring.sampleclock import NO_TIME, ArrivalClock, CountedClock, DeviceClock
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


def slots_kept(times: np.ndarray, period: int) -> float:
    """The share of the slots between the first and the last sample that have one."""
    slots = np.unique(times // period)
    return len(slots) / (slots[-1] - slots[0] + 1)


@pytest.mark.parametrize("ppm", [0, 200, -200])
@pytest.mark.parametrize("phase", [0, 1, MS // 3, MS - 1])
def test_a_kilohertz_behind_a_slow_timer_fills_its_slots(ppm, phase):
    blocks = list(behind_a_timer(60_000, timer=16 * MS, step=PERIOD * (1 + ppm * 1e-6), phase=phase))
    times = counted(blocks, CountedClock(period=PERIOD, gap=500 * MS))
    assert slots_kept(times, PERIOD) > 0.999
    assert alone(times) > 0.999


@pytest.mark.parametrize("jitter_ms", [1, 5])
@pytest.mark.parametrize("phase", [-1, 0, 1])
def test_arrivals_that_jitter_across_the_border_of_a_slot_fill_every_slot(jitter_ms, phase):
    period = 100 * MS
    rng = np.random.default_rng(5)
    messages = np.arange(5000)
    start = START // period * period + phase * MS
    arrivals = start + messages * period + rng.normal(0, jitter_ms * MS, 5000).astype(np.int64)
    blocks = [(messages[at : at + 1], arrivals[at : at + 1]) for at in messages]
    assert slots_kept(arrivals, period) < 0.9, "which is what the clock is for"
    times = counted(blocks, clock := CountedClock(period=period, gap=2000 * MS))
    assert slots_kept(times, period) == alone(times, period) == 1.0
    assert (clock.slips, clock.shifted) == (0, 0)
    assert np.abs(times - arrivals).max() < period


@pytest.mark.parametrize("ppm", [200, -200, 1000])
def test_a_drifting_device_costs_a_slot_only_when_it_has_drifted_by_one(ppm):
    period = 100 * MS
    rng = np.random.default_rng(5)
    messages = np.arange(30_000)
    taken = START + messages * (period * (1 + ppm * 1e-6))
    arrivals = (taken + rng.normal(0, 2 * MS, len(messages))).astype(np.int64)
    blocks = [(messages[at : at + 1], arrivals[at : at + 1]) for at in messages]
    times = counted(blocks, clock := CountedClock(period=period, gap=2000 * MS))
    drifted = abs(ppm) * 1e-6 * len(messages)
    assert abs(clock.shifted - drifted) <= 1
    assert 1 - slots_kept(times, period) <= (drifted + 1) / len(messages)
    assert (np.diff(times) > 0).all()


# The device's own stamps.

UTC = 1_700_000_000_000_000_000 - START
"""From the stream clock to a device that is right."""


def stamped(stamps, arrivals, first: int = 0) -> np.ndarray:
    samples = block(first + np.arange(len(stamps)), np.asarray(arrivals))
    samples["stamp"] = stamps
    return samples


def delayed(n: int, *, ppm: float = 0.0, seed: int = 0, begin: int = START) -> tuple[np.ndarray, np.ndarray]:
    """When samples were taken, 10 ms apart, and when they arrived: 1 to 30 ms later, in order."""
    rng = np.random.default_rng(seed)
    taken = begin + (np.arange(n) * 10 * MS * (1 + ppm * 1e-6)).astype(np.int64)
    return taken, np.maximum.accumulate(
        taken + (MS + rng.exponential(5 * MS, n).clip(0, 29 * MS)).astype(np.int64)
    )


@given(cuts=st.lists(st.integers(1, 40), min_size=1, max_size=30), ppm=st.sampled_from([-200, 0, 200]))
def test_a_device_s_stamps_become_ours_and_the_cuts_do_not_matter(cuts, ppm):
    n = 600
    taken, arrivals = delayed(n)
    stamps = taken + UTC + (np.arange(n) * 10 * MS * ppm * 1e-6).astype(np.int64)
    whole = DeviceClock().times(stamped(stamps, arrivals))
    clock, pieces, at = DeviceClock(), [], 0
    for cut in [*cuts, n]:
        if at < n:
            pieces.append(clock.times(stamped(stamps[at : at + cut], arrivals[at : at + cut], at)))
            at += cut
    np.testing.assert_array_equal(np.concatenate(pieces), whole)
    assert (whole <= arrivals).all(), "nothing was taken after it arrived"
    assert np.abs(whole - taken)[100:].max() < 5 * MS


def test_a_device_that_drifts_is_followed():
    n = 100_000
    for ppm in (200, -200):
        taken, arrivals = delayed(n)
        stamps = taken + UTC + (np.arange(n) * 10 * MS * ppm * 1e-6).astype(np.int64)
        times = DeviceClock().times(stamped(stamps, arrivals))
        assert np.abs(times - taken)[100:].max() < 5 * MS


def test_a_stamp_far_ahead_is_rejected_one_somewhat_ahead_is_its_arrival_and_neither_moves_anything():
    taken, arrivals = delayed(300)
    stamps = taken + UTC
    calm = DeviceClock().times(stamped(stamps, arrivals))
    stamps[100] += 61_000 * MS
    stamps[200] += 30_000 * MS
    times = DeviceClock().times(stamped(stamps, arrivals))
    assert times[100] == NO_TIME
    assert times[200] == arrivals[200]
    others = np.delete(np.arange(300), [100, 200])
    np.testing.assert_allclose(times[others], calm[others], atol=2 * MS)


def test_old_stamps_that_come_first_of_all_cost_nothing_of_what_comes_after_them():
    taken, arrivals = delayed(300)
    stamps = taken + UTC
    stamps[:20] -= np.arange(20, 0, -1) * 3_600_000 * MS  # twenty values that have not changed for hours
    arrivals[:20] = arrivals[19]
    for cut in (300, 7, 1):
        clock = DeviceClock()
        times = np.concatenate(
            [
                clock.times(stamped(stamps[at : at + cut], arrivals[at : at + cut], at))
                for at in range(0, 300, cut)
            ]
        )
        assert not (times == NO_TIME).any()
        assert np.abs(times - taken)[120:].max() < 5 * MS
        assert clock.resets == 0


def test_once_the_clock_is_known_a_stamp_far_ahead_is_rejected_however_early():
    taken, arrivals = delayed(300)
    stamps = taken + UTC
    stamps[25] += 61_000 * MS
    times = DeviceClock().times(stamped(stamps, arrivals))
    assert np.flatnonzero(times == NO_TIME).tolist() == [25]


def test_a_stamp_that_went_back_or_is_none_is_its_arrival():
    taken, arrivals = delayed(300)
    stamps = taken + UTC
    stamps[100] = 0
    stamps[200] -= 3_600_000 * MS
    times = DeviceClock().times(stamped(stamps, arrivals))
    assert (times[100], times[200]) == (arrivals[100], arrivals[200])
    stamps[:] = 0
    np.testing.assert_array_equal(DeviceClock().times(stamped(stamps, arrivals)), arrivals)


@pytest.mark.parametrize("jump_s", [-1_000_000, -3, 5, 3600])
def test_a_device_whose_clock_is_set_is_mapped_anew_after_a_few_seconds(jump_s):
    taken, arrivals = delayed(2000)
    stamps = taken + UTC
    stamps[500:] += jump_s * 1000 * MS
    times = (clock := DeviceClock()).times(stamped(stamps, arrivals))
    assert clock.resets == 1
    assert np.abs(times - taken)[1100:].max() < 10 * MS
    known = times[times != NO_TIME]
    assert np.abs(known - arrivals[times != NO_TIME]).max() < 40 * MS
    assert np.count_nonzero(times == NO_TIME) == (501 if jump_s == 3600 else 0)


def test_a_backlog_keeps_the_times_at_which_it_was_taken():
    taken, arrivals = delayed(2000)
    arrivals[500:1500] = arrivals[1500]  # ten seconds without a link, then all at once
    times = (clock := DeviceClock()).times(stamped(taken + UTC, arrivals))
    assert np.abs(times - taken)[100:].max() < 15 * MS
    assert clock.resets == 0
