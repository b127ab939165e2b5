import numpy as np
import pytest

from hw_sim.bench import Bench
from hw_sim.fault import parse
from hw_sim.plant import CHANNELS

ONSET_S = 5.0
SEEDS = (1, 2, 3, 4, 5)
MOVING = [name for name, unit in CHANNELS.items() if unit]


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
            assert abs(moved(record, 1, name, "bearing_wear", 25.0)) < 1.5, name


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
    trace = record(1, 10.0, "sensor_stuck@3s..6s:channel=plc.flow")
    flow, healthy = trace.actual["plc.flow"], trace.healthy["plc.flow"]
    assert set(flow[300:600]) == {healthy[299]}
    assert np.array_equal(flow[600:], healthy[600:])
    assert len(set(trace.actual["plc.pressure"][300:600])) == 300


def test_a_source_is_down_while_its_fault_is_on():
    bench = Bench(1, [parse("source_down@50ms..100ms:device=plc"), parse("source_down@70ms:device=vib")])
    seen = []
    for _ in range(12):
        seen.append(bench.down)
        bench.step()
    assert seen == [set()] * 5 + [{"plc"}] * 2 + [{"plc", "vib"}] * 3 + [{"vib"}] * 2


def test_faults_add_up(record):
    both = record(1, 20.0, "blockage@5s", "sensor_stuck@12s:channel=plc.flow")
    assert len(set(both.actual["plc.flow"][1200:])) == 1
    assert both.actual["plc.pressure"][1500:].mean() > both.healthy["plc.pressure"][1500:].mean() + 0.3
