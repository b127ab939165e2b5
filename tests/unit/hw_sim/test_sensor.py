"""Each fault of a sensor against its healthy twin, step by step: before it, along its ramp, after it.

The sensor shows the number of the step, of which a hundred make a second; it usually moves by 2, on a range
of 0 to 100.
"""

import math
import random

import numpy as np
import pytest

from hw_sim.catalogue import FAULTS
from hw_sim.sensor import FAULTS as SENSOR
from tests.unit.hw_sim.rig import counting

ONSET, END = 200, 1200
"""Steps."""


def shown(fault, *, steps=1500, step_s=0.01):
    """What the sensor shows at each step, with these settings from 2 s to 12 s."""
    name, _, settings = fault.partition(":")
    bench = counting(f"{name}@2s..12s:channel=count,{settings}".rstrip(","), step_s=step_s)
    readings = [bench.readings["count"]]
    for step in range(1, steps):
        bench.step()
        readings.append(bench.readings["count"])
        assert bench.healthy["count"] == step, "the twin knows nothing of it"
    return np.array(readings)


def truth(steps=1500):
    return np.arange(float(steps))


def since_s(steps=1500):
    return (np.arange(steps) - ONSET) / 100


def ramp(over_s):
    """The share of its full size that it has reached."""
    return np.clip(since_s() / over_s, 0.0, 1.0) if over_s else np.ones(1500)


def pulses(every_s, width_s):
    phase = np.round(since_s() * 100).astype(int) % round(100 * every_s)
    return phase < round(100 * width_s)


def growing(every_s, width_s, over_s):
    """Pulses that get longer within the ramp, each looked at when it would end."""
    phase = np.round(since_s() * 100).astype(int) % round(100 * every_s)
    return phase < np.round(100 * width_s * ramp(over_s), 9)


CASES = {
    "step:size=5": lambda: truth() + 5.0,
    "step:size=-5,ramp=1s": lambda: truth() - 5.0 * ramp(1.0),
    "step": lambda: truth() + 12.0,  # six of its usual deviations
    "drift": lambda: truth() + 12.0 * ramp(60.0),
    "drift:size=1.5sd,ramp=4s": lambda: truth() + 3.0 * ramp(4.0),
    "bias": lambda: truth() * (1 + 0.1 * ramp(1.0)),
    "bias:percent=-50,ramp=0s": lambda: truth() * 0.5,
    "oscillation:size=3,period=500ms,ramp=0s": lambda: truth() + 3 * np.sin(2 * np.pi * since_s() / 0.5),
    "oscillation": lambda: truth() + 8 * ramp(5.0) * np.sin(np.pi * since_s()),
    "stuck": lambda: np.full(1500, ONSET - 1.0),
    "stuck:ramp=5s": lambda: truth() + (ONSET - 1.0 - truth()) * ramp(5.0),
    "sensor_disconnect:ramp=5s": lambda: truth() + (-25.0 - truth()) * ramp(5.0),
    "dropout:every=1s,width=800ms,ramp=8s": lambda: np.where(growing(1.0, 0.8, 8.0), np.nan, truth()),
    "sensor_disconnect": lambda: np.full(1500, -25.0),
    "dropout": lambda: np.where(pulses(5.0, 0.2), np.nan, truth()),
    "dropout:every=100ms,width=30ms": lambda: np.where(pulses(0.1, 0.03), np.nan, truth()),
}


@pytest.mark.parametrize("fault", CASES)
def test_a_fault_shows_exactly_what_its_arithmetic_says_and_only_while_it_is_on(fault):
    readings, expected = shown(fault), CASES[fault]()
    assert np.array_equal(readings[:ONSET], truth()[:ONSET])
    assert readings[ONSET:END] == pytest.approx(expected[ONSET:END], nan_ok=True, abs=1e-9)
    assert np.array_equal(readings[END:], truth()[END:])


def test_a_fault_with_a_ramp_begins_where_the_truth_is():
    assert shown("drift")[ONSET] == ONSET
    assert shown("oscillation")[ONSET] == ONSET


def test_spikes_are_of_their_size_up_or_down_and_as_long_as_they_were_meant_to_be():
    off = (shown("spike:size=7,every=500ms,width=20ms") - truth())[ONSET:END]
    each = off.reshape(20, 50)
    assert np.all(each[:, 2:] == 0)
    assert np.all(each[:, 0] == each[:, 1])
    assert set(each[:, 0]) == {-7.0, 7.0}, "both directions come"


def test_spikes_grow_within_their_ramp():
    off = (shown("spike:size=8,every=1s,width=10ms,ramp=8s") - truth())[ONSET:END]
    assert np.abs(off[::100]) == pytest.approx(np.minimum(np.arange(10), 8.0))


def test_a_noise_burst_has_its_standard_deviation_and_no_mean():
    off = (shown("noise_burst:size=3") - truth())[ONSET:END]
    assert off.std() == pytest.approx(3.0, rel=0.1)
    assert abs(off.mean()) < 0.4
    assert len(set(off)) == 1000


def test_noise_is_the_same_for_the_same_seed():
    assert np.array_equal(shown("noise_burst"), shown("noise_burst"))
    assert np.array_equal(shown("spike"), shown("spike"))


def test_a_stuck_sensor_freezes_bit_for_bit():
    frozen = shown("stuck")[ONSET:END]
    assert {value.hex() for value in frozen.tolist()} == {float(ONSET - 1).hex()}


def test_a_sensor_that_is_stuck_from_the_start_freezes_at_its_first_value():
    bench = counting("stuck@0s..50ms:channel=count")
    seen = [bench.readings["count"]]
    for _ in range(6):
        bench.step()
        seen.append(bench.readings["count"])
    assert seen == [0.0, 0.0, 0.0, 0.0, 0.0, 5.0, 6.0]


def test_a_sensor_that_shows_nothing_when_it_freezes_freezes_at_what_it_shows_next():
    bench = counting("dropout@10ms..30ms:channel=count", "stuck@20ms..60ms:channel=count")
    seen = [bench.readings["count"]]
    for _ in range(6):
        bench.step()
        seen.append(bench.readings["count"])
    assert seen == pytest.approx([0.0, math.nan, math.nan, 3.0, 3.0, 3.0, 6.0], nan_ok=True)


def test_faults_of_one_sensor_add_up_in_their_order():
    bench = counting("step@1s:channel=count,size=10", "bias@2s:channel=count,percent=100,ramp=0s")
    for _ in range(300):
        bench.step()
    assert bench.readings["count"] == (300 + 10) * 2
    assert bench.healthy["count"] == 300


def test_a_fault_of_one_sensor_leaves_the_others_alone():
    bench = counting("step@0s:channel=count,size=10")
    assert bench.readings == {"count": 10.0, "pain": 0.0}


def test_a_slow_plant_has_the_same_faults():
    bench = counting("drift@60s..600s:channel=count,size=10,ramp=100s", step_s=10.0)
    seen = []
    for _ in range(61):
        seen.append(bench.readings["count"] - bench.healthy["count"])
        bench.step()
    ramp_up = [min(10.0, max(0.0, step - 6.0)) for step in range(60)]
    assert seen == pytest.approx([*ramp_up, 0.0])


def of_a_slow_plant(fault, step_s, *, steps=60):
    """By how much it is off, with a fault from the start on a plant whose steps are as long as that."""
    bench = counting(fault, step_s=step_s)
    off = [bench.readings["count"] - bench.healthy["count"]]
    for _ in range(steps):
        bench.step()
        off.append(bench.readings["count"] - bench.healthy["count"])
    return np.array(off)


@pytest.mark.parametrize("step_s", [1.0, 2.0, 1800.0])
def test_a_slow_plant_is_seen_to_swing(step_s):
    off = of_a_slow_plant("oscillation@0s:channel=count,size=10,ramp=0s", step_s)
    assert off[:5] == pytest.approx([10 * math.sin(math.tau * at / 5) for at in range(5)])


@pytest.mark.parametrize(
    ("every", "step_s", "apart"), [("5.5s", 1.0, {5, 6}), ("5s", 1.0, {5}), ("5s", 1800.0, {5})]
)
def test_each_outlier_of_a_slow_plant_is_one_reading(every, step_s, apart):
    for fault in ("spike", "dropout"):
        off = of_a_slow_plant(f"{fault}@0s:channel=count,every={every}", step_s)
        assert set(np.diff(np.flatnonzero(off))) == apart, "a NaN is not zero either"


@pytest.mark.parametrize("kind", SENSOR, ids=lambda kind: kind.name)
def test_each_row_has_a_case_here(kind):
    cases = {case.partition(":")[0] for case in CASES} | {"spike", "noise_burst"}
    assert kind.name in cases
    assert FAULTS[kind.name] is kind
    assert kind.where == "sensor"
    assert kind.distort is not None
    assert "channel" in kind.parameters


@pytest.mark.parametrize("kind", SENSOR, ids=lambda kind: kind.name)
def test_no_fault_makes_a_reading_of_none(kind):
    from hw_sim.plant import Channel

    settings = {key: parameter.read(parameter.default) for key, parameter in kind.parameters.items()}
    distortion = kind.distort(Channel("bar", 0.0, 8.0, 0.5), settings, random.Random(1), math.nan)
    if kind.name == "sensor_disconnect":
        assert distortion(math.nan, 3.0) == -2.0, "the loop has a current of 0 mA, whatever was measured"
    else:
        assert math.isnan(distortion(math.nan, 3.0))
