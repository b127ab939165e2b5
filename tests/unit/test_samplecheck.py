"""What samples cannot be, or hardly: told one by one, whatever blocks they come in."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from dxad.fields import ChannelSection
from dxad.ring.samplecheck import SampleCheck
from dxad.sources.memory import Config
from dxad.types import NS_PER_S, SAMPLE, Quality, Reason

NAN = float("nan")
PERIOD = NS_PER_S // 10
START = 10**15
GOOD, RATE, STUCK, NOISE, RANGE, TYPE = (
    Reason.NONE, Reason.RATE, Reason.STUCK, Reason.NOISE, Reason.RANGE, Reason.TYPE,
)  # fmt: skip


def section(**keys) -> ChannelSection:
    return ChannelSection.model_validate(keys)


def samples(values, columns=0, quality=Quality.GOOD):
    made = np.zeros(len(values), SAMPLE)
    made["value"], made["column"], made["quality"] = values, columns, quality
    return made


def every(count: int, step: int = PERIOD) -> np.ndarray:
    return START + step * np.arange(count)


def judged(section: ChannelSection, values, times=None, quality=Quality.GOOD) -> list[Reason]:
    check = SampleCheck([section], period=PERIOD)
    times = every(len(values)) if times is None else np.array(times)
    found = check.apply(samples(values, quality=quality), times)
    bad = {Reason.RANGE, Reason.TYPE, Reason.RATE, Reason.STUCK}
    for given_quality, each in zip(np.broadcast_to(quality, len(found)), found, strict=True):
        expected = Quality.BAD if each["reason"] in bad else Quality.UNCERTAIN if each["reason"] else None
        assert each["quality"] == (given_quality if expected is None else expected)
    return [Reason(reason) for reason in found["reason"]]


# Rate.


def test_a_spike_is_too_fast_and_what_comes_after_it_is_not():
    assert judged(section(max_rate=10), [5.0, 5.5, 50.0, 6.0, 5.0]) == [GOOD, GOOD, RATE, GOOD, GOOD]


def test_a_lasting_step_is_believed_once_it_is_slow_enough():
    assert judged(section(max_rate=10), [0.0] + [3.0] * 5) == [GOOD, RATE, RATE, GOOD, GOOD, GOOD]


def test_the_rate_is_one_over_the_time_that_really_passed():
    times = START + np.array([0, PERIOD, 11 * PERIOD])
    assert judged(section(max_rate=1), [0.0, 0.2, 0.9], times) == [GOOD, RATE, GOOD]


def test_samples_that_came_together_may_differ_by_what_a_period_allows():
    times = np.full(4, START)
    assert judged(section(max_rate=10), [0.0, 0.9, 0.1, 2.0], times) == [GOOD, GOOD, GOOD, RATE]


def test_what_is_bad_already_is_no_measure_for_what_follows():
    quality = [Quality.GOOD, Quality.BAD, Quality.GOOD, Quality.GOOD]
    found = judged(section(max_rate=1, range=[0, 10]), [5.0, 9.0, 99.0, 5.1], quality=quality)
    assert found == [GOOD, GOOD, RANGE, GOOD]


# Stuck.


def test_a_value_that_does_not_change_is_stuck_from_when_that_is_known_until_it_changes():
    values = [1.0] + [2.0] * 6 + [2.5, 2.0]
    assert judged(section(stuck_after="500ms"), values) == [GOOD] * 6 + [STUCK, GOOD, GOOD]


def test_nobody_knows_what_a_value_did_in_a_pause():
    times = START + PERIOD * np.array([0, 1, 2, 60, 61, 64, 65])
    assert judged(section(stuck_after="500ms"), [7.0] * 7, times) == [GOOD] * 6 + [STUCK]


def test_a_stuck_sensor_that_is_well_again_is_believed_whatever_it_shows():
    values = [20.0] * 40 + [50.0, 50.1]
    found = judged(section(stuck_after="1s", max_rate=10), values)
    assert found == [GOOD] * 10 + [STUCK] * 30 + [GOOD, GOOD]


# Noise.


def test_a_channel_is_uncertain_after_each_window_that_scattered_too_much():
    rng = np.random.default_rng(1)
    values = np.concatenate([rng.normal(0, sigma, 100) for sigma in (0.1, 1.0, 1.0, 0.1, 0.1)])
    found = judged(section(max_noise=0.3, noise_window="10s"), values, every(500))
    windows = [set(found[begin : begin + 100]) for begin in range(0, 500, 100)]
    assert windows == [{GOOD}, {GOOD}, {NOISE}, {NOISE}, {GOOD}]


def test_the_scatter_is_a_standard_deviation_and_a_trend_is_none():
    rng = np.random.default_rng(2)
    for sigma, expected in ((0.9, GOOD), (1.1, NOISE)):
        values = rng.normal(0, sigma, 2000) + 0.05 * np.arange(2000)
        found = judged(section(max_noise=1.0, noise_window="100s"), values, every(2000))
        assert set(found[1000:]) == {expected}


def test_few_values_tell_no_scatter_and_neither_does_a_window_long_ago():
    loud = [0.0, 9.0] * 5
    check = section(max_noise=1.0, noise_window="1s")
    assert judged(check, [*loud[:7], 0.0], [*every(7), START + NS_PER_S])[-1] == GOOD
    assert judged(check, [*loud, 0.0], [*every(10), START + NS_PER_S])[-1] == NOISE
    assert judged(check, [*loud, 0.0], [*every(10), START + 2 * NS_PER_S])[-1] == GOOD


def test_what_is_bad_stays_bad_and_what_is_uncertain_keeps_its_reason():
    check = SampleCheck([section(max_noise=1.0, noise_window="1s")], period=PERIOD)
    check.apply(samples([0.0, 9.0] * 5), every(10))
    late = samples([1.0, 1.0, NAN], quality=[Quality.UNCERTAIN, Quality.BAD, Quality.GOOD])
    late["reason"] = [Reason.RETAINED, Reason.DEVICE, 0]
    found = check.apply(late, every(3) + NS_PER_S)
    assert found["reason"].tolist() == [Reason.RETAINED, Reason.DEVICE, Reason.TYPE]
    assert found["quality"].tolist() == [Quality.UNCERTAIN, Quality.BAD, Quality.BAD]


# Cuts, order, cost.


def test_a_sample_that_is_older_than_the_one_before_it_is_not_judged():
    times = START + PERIOD * np.array([0, 5, 1, 6])
    assert judged(section(max_rate=10), [0.0, 1.0, 99.0, 1.5], times) == [GOOD] * 4


SECTIONS = [
    section(max_rate=30.0),
    section(stuck_after="300ms"),
    section(max_noise=0.8, noise_window="1s"),
    section(max_rate=20.0, stuck_after="400ms", max_noise=0.5, noise_window="2s", range=[-3, 3]),
    section(),
]


def stream(seed: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Samples of five channels with runs, spikes, gaps, bad ones, and some out of order."""
    rng = np.random.default_rng(seed)
    made = samples(
        rng.choice([0.0, 1.0, 1.5, 4.0], count, p=[0.5, 0.3, 0.15, 0.05]) + rng.choice([0, 0.01], count),
        rng.integers(0, 5, count),
        rng.choice([0, 0, 0, 0, 0, 0, 1, 2], count),
    )
    still = rng.random(count) < 0.2
    made["value"][still & (made["column"] % 2 == 1)] = 1.0
    begin = count // 3
    made["value"][begin : begin + 60] = 1.5
    steps = rng.choice([0, 2_000_000, 20_000_000, 700_000_000], count, p=[0.2, 0.4, 0.38, 0.02])
    times = START + np.cumsum(steps)
    if seed % 2:
        times -= np.where(rng.random(count) < 0.02, 300_000_000, 0)
    made["value"][rng.random(count) < 0.02] = NAN
    return made, times


@given(st.integers(0, 20), st.lists(st.integers(1, 90), max_size=12))
def test_the_verdict_is_the_same_however_samples_are_cut_into_blocks(seed, cuts):
    made, times = stream(seed, 600)
    whole = SampleCheck(SECTIONS, period=PERIOD).apply(made, times)
    singly = SampleCheck(SECTIONS, period=PERIOD)
    parts, begin = [], 0
    for cut in [*cuts, 600]:
        parts.append(singly.apply(made[begin : begin + cut], times[begin : begin + cut]))
        begin += cut
        if begin >= 600:
            break
    assert np.concatenate(parts).tobytes() == whole.tobytes()


def test_one_by_one_is_the_same_as_all_at_once():
    found = set()
    for seed in range(4):
        made, times = stream(seed, 400)
        whole = SampleCheck(SECTIONS, period=PERIOD).apply(made, times)
        single = SampleCheck(SECTIONS, period=PERIOD)
        parts = [single.apply(made[at : at + 1], times[at : at + 1]) for at in range(len(made))]
        assert np.concatenate(parts).tobytes() == whole.tobytes()
        found |= {Reason(each) for each in whole["reason"]}
    assert found == {GOOD, RATE, STUCK, NOISE, RANGE, TYPE}


def test_good_samples_are_handed_on_without_a_copy():
    made = samples(np.arange(10.0))
    assert SampleCheck([section()], period=PERIOD).apply(made, every(10)) is made
    assert SampleCheck([section(max_rate=100)], period=PERIOD).apply(made, every(10)) is made


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"stuck_after": "1s"}, "channels.x.stuck_after: wants to be longer than the source's period"),
        ({"max_noise": 1, "noise_window": "7s"}, "channels.x.noise_window: .* 8 of the source's periods"),
        ({"max_rate": 0}, "greater than 0"),
        ({"stuck_after": 5}, "no unit"),
    ],
)
def test_what_cannot_be_judged_is_refused(keys, told):
    with pytest.raises(ValidationError, match=told):
        Config.model_validate({"type": "memory", "period": "1s", "channels": {"x": keys}})
