"""The bench: plants of several beats, their faults, and the twins that have none."""

import math

import numpy as np
import pytest

from hw_sim.bench import Bench, Rig
from hw_sim.catalogue import parse
from hw_sim.plant import HEALTHY, Channel
from hw_sim.plants.pump_skid import CHANNELS
from tests.unit.hw_sim.rig import Counter, counting, known

ONSET_S = 5.0
SEEDS = (1, 2, 3, 4, 5)
MOVING = [name for name, channel in CHANNELS.items() if channel.unit]


def per_second(name, values):
    """What one second of a channel looks like, ten times a second: vibration by its energy."""
    if not name.startswith("vib."):
        return values[::10]
    rms = np.sqrt((values.reshape(-1, 10) ** 2).mean(axis=1))
    return np.convolve(rms, np.full(10, 0.1), mode="valid")


def moved(record, seed, name, fault, since_s):
    """By how many usual deviations a fault has moved a channel, on average over two seconds around then."""
    trace = record(seed, ONSET_S + 40.0, f"{fault}@{ONSET_S}s")
    lag = 10 if name.startswith("vib.") else 0  # a window of one second is named by its end
    actual, healthy = (per_second(name, each[name]) for each in (trace.actual, trace.healthy))
    at = round(10 * (ONSET_S + since_s)) - lag
    usual = per_second(name, record(1, 120.0).actual[name]).std()
    return (actual - healthy)[at - 10 : at + 10].mean() / usual


# --- what the faults of a pump skid do to it ---


@pytest.mark.parametrize("seed", SEEDS)
def test_bearing_wear_shows_after_ten_seconds_and_goes_on(record, seed):
    def worn(since_s):
        return np.mean([moved(record, seed, name, "bearing_wear", since_s) for name in ("vib.x", "vib.y")])

    assert 1.5 < worn(10.0) < 3.0
    assert worn(5.0) < worn(10.0) < worn(15.0) < worn(25.0) < worn(35.0)
    assert 8.0 < worn(25.0) < 15.0


def test_bearing_wear_is_a_matter_of_the_bearings_radial_axes(record):
    for name in MOVING:
        if name not in {"vib.x", "vib.y"}:
            assert abs(moved(record, 1, name, "bearing_wear", 25.0)) < 2.0, name


@pytest.mark.parametrize("seed", SEEDS)
def test_a_blockage_moves_flow_and_pressure_by_many_deviations(record, seed):
    assert moved(record, seed, "plc.flow", "blockage", 15.0) < -5
    assert moved(record, seed, "plc.pressure", "blockage", 15.0) > 4


def test_a_blockage_moves_other_channels_less_than_these_two(record):
    least = min(abs(moved(record, 1, name, "blockage", 15.0)) for name in ("plc.flow", "plc.pressure"))
    for name in MOVING:
        if name not in {"plc.flow", "plc.pressure"}:
            assert abs(moved(record, 1, name, "blockage", 15.0)) < least / 3, name


def test_a_blockage_moves_power_and_current_by_the_same_share(record):
    shares = []
    for name in ("drive.power", "motor.current"):
        trace = record(1, ONSET_S + 40.0, f"blockage@{ONSET_S}s")
        shares.append(trace.actual[name][2000:].mean() / trace.healthy[name][2000:].mean())
    assert shares[0] == pytest.approx(shares[1])
    assert 0.95 < shares[0] < 0.999


# --- twins ---


def test_without_a_fault_the_twin_is_the_plant(record):
    trace = record(1, ONSET_S + 40.0, f"blockage@{ONSET_S}s")
    for name in CHANNELS:
        assert np.array_equal(trace.actual[name][:500], trace.healthy[name][:500])


def test_the_twin_of_a_faulty_plant_is_the_plant_without_the_fault(record):
    trace = record(1, ONSET_S + 40.0, f"blockage@{ONSET_S}s")
    normal = record(1, 120.0)
    for name in CHANNELS:
        assert np.array_equal(trace.healthy[name], normal.actual[name][:4500])


def test_a_plant_recovers_when_its_fault_ends(record):
    trace = record(1, 30.0, "blockage@5s..15s")
    assert trace.actual["plc.flow"][2500:] == pytest.approx(trace.healthy["plc.flow"][2500:], abs=0.1)


def test_a_stuck_sensor_shows_its_last_value_bit_for_bit_and_others_go_on(record):
    trace = record(1, 10.0, "stuck@3s..6s:channel=plc.flow")
    flow, healthy = trace.actual["plc.flow"], trace.healthy["plc.flow"]
    assert set(flow[300:600]) == {healthy[299]}
    assert np.array_equal(flow[600:], healthy[600:])
    assert len(set(trace.actual["plc.pressure"][300:600])) == 300


def test_faults_add_up(record):
    both = record(1, 20.0, "blockage@5s", "stuck@12s:channel=plc.flow")
    assert len(set(both.actual["plc.flow"][1200:])) == 1
    assert both.actual["plc.pressure"][1500:].mean() > both.healthy["plc.pressure"][1500:].mean() + 0.3


def test_the_stresses_of_a_plant_add_up():
    bench = counting(
        "bearing_wear@0s:size=2,ramp=1s", "blockage@0s:size=3,ramp=1s", "blockage@0s:size=1,ramp=1s"
    )
    for _ in range(100):
        bench.step()
    assert bench.readings["pain"] == pytest.approx(2 + 4 * 2 - 1), "wear adds, restrictions multiply"
    assert bench.healthy["pain"] == 0
    bench = counting("leak@0s:size=0.5,ramp=1s", "leak@0s:size=0.5,ramp=1s")
    for _ in range(100):
        bench.step()
    assert bench.readings["pain"] == pytest.approx(0.75), "a leak of what the other has left"


# --- when ---


def test_a_source_is_down_while_its_fault_is_on():
    bench = counting("source_down@50ms..100ms:device=plc", "source_down@70ms:device=vib")
    seen = []
    for _ in range(12):
        seen.append(bench.down)
        bench.step()
    assert seen == [set()] * 5 + [{"plc"}] * 2 + [{"plc", "vib"}] * 3 + [{"vib"}] * 2


@pytest.mark.parametrize("step_s", [0.0005, 0.001, 0.003, 0.01, 0.07, 0.1, 1.0, 30.0])
def test_a_fault_is_on_from_the_first_step_at_or_after_its_onset_until_before_its_end(step_s):
    onset_s, end_s = 40 * step_s, 90.5 * step_s
    bench = counting(f"step@{onset_s:.9f}s..{end_s:.9f}s:channel=count,size=0.5", step_s=step_s)
    on = []
    for step in range(120):
        if bench.readings["count"] != step:
            on.append(step)
        bench.step()
    assert on == list(range(40, 91))


def test_a_fault_can_come_and_go_by_hand():
    bench = counting()
    fault = parse("stuck@0s:channel=count", known())
    for _ in range(5):
        bench.step()
    bench.add(fault)
    assert bench.active == (fault,)
    bench.step()
    bench.step()
    assert (bench.readings["count"], bench.healthy["count"]) == (5.0, 7.0), (
        "it freezes at what it showed then"
    )
    bench.end(fault)
    assert bench.active == ()
    bench.step()
    assert bench.readings["count"] == 8.0
    with pytest.raises(ValueError, match="not in list"):
        bench.end(fault)


def test_a_fault_that_is_over_is_forgotten():
    bench = counting("stuck@10ms..20ms", "stuck@1h")
    for _ in range(5):
        bench.step()
    assert [fault.onset_s for fault in bench.faults] == [3600.0]


# --- several plants ---


class Slow(Counter):
    """Another machine, of other channels."""

    channels = {"slow": Channel("K")}  # noqa: RUF012
    shows = {}  # noqa: RUF012

    def step(self, stress=HEALTHY):
        return {"slow": super().step(stress)["count"]}


def test_each_plant_keeps_its_own_beat():
    bench = Bench([Rig("fast", Counter(0.01)), Rig("slow", Slow(0.05))], seed=1)
    assert bench.step_s == 0.01
    seen = []
    for _ in range(11):
        seen.append((bench.readings["count"], bench.readings["slow"], len(bench.stepped)))
        bench.step()
    assert seen == [(n, n // 5, 1 + (n % 5 == 0)) for n in range(11)]
    assert bench.at_s == 0.11


def test_a_distortion_of_a_slow_plant_is_not_applied_again_between_its_steps():
    wide = known()
    wide = type(wide)({**wide.channels, "slow": Channel("K")}, wide.plants)
    fault = parse("step@0s:channel=slow,size=10", wide)
    bench = Bench([Rig("fast", Counter(0.01)), Rig("slow", Slow(0.05))], seed=1, faults=[fault])
    seen = []
    for _ in range(10):
        seen.append((bench.readings["slow"], bench.healthy["slow"]))
        bench.step()
    assert seen == [(10.0, 0.0)] * 5 + [(11.0, 1.0)] * 5


def test_two_plants_of_a_kind_are_told_apart_by_their_prefix():
    bench = Bench([Rig("a", Counter(), prefix="a."), Rig("b", Counter(), prefix="b.")], seed=1)
    assert list(bench.channels) == ["a.count", "a.pain", "b.count", "b.pain"]
    assert bench.rigs[1].shows["wear"] == ("b.pain",)


def test_time_does_not_drift():
    bench = counting(step_s=0.1)
    for _ in range(12345):
        bench.step()
    assert bench.at_s == 1234.5
    assert math.isclose(bench.time_of(10**9), 1e8)
