import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hw_sim.plants.pump_skid import CHANNELS, PumpSkid, duty_flow, pump_head, shaft_power

SEEDS = (1, 2, 3)
ANALOG = [name for name, channel in CHANNELS.items() if channel.unit and name != "drive.setpoint"]


def rms(values):
    """Root mean square of each 100 ms."""
    return np.sqrt((values.reshape(-1, 10) ** 2).mean(axis=1))


def watched_of(name, values):
    """A channel as a detector sees it, ten times a second: vibration by its energy."""
    return rms(values) if name.startswith("vib.") else values[::10]


def watched(trace, name):
    return watched_of(name, trace.actual[name])


def test_the_same_seed_gives_the_same_numbers(record):
    again = record.__wrapped__(1, 10.0)  # past the cache
    for name, values in record(1, 10.0).actual.items():
        assert np.array_equal(values, again.actual[name])


@pytest.mark.parametrize("name", ANALOG)
def test_another_seed_gives_other_numbers(record, name):
    assert not np.any(record(1, 10.0).actual[name] == record(2, 10.0).actual[name])


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", ANALOG)
def test_any_twenty_seconds_look_like_any_other(record, name, seed):
    values = watched(record(seed, 120.0), name)
    spans = values.reshape(-1, 200)
    assert np.ptp(spans.mean(axis=1)) < 0.5 * values.std()
    assert spans.std(axis=1).max() < 1.35 * spans.std(axis=1).min()


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", ["motor.winding_temperature", "plc.level"])
def test_what_is_slow_is_warm_at_the_start_and_does_not_drift(record, name, seed):
    values = record(seed, 120.0).actual[name]
    drift = np.polyfit(np.arange(len(values)) / 6000, values, 1)[0]
    assert abs(drift) < 0.25 * values.std(), "per minute"
    assert abs(values[:500].mean() - values.mean()) < 0.5 * values.std()


@pytest.mark.parametrize("seed", SEEDS)
def test_twenty_seconds_show_the_range_of_the_next_minutes(record, seed):
    for name in ANALOG:
        values = watched(record(seed, 120.0), name)
        beyond = np.maximum(values[200:] - values[:200].max(), values[:200].min() - values[200:])
        assert beyond.max() < 2.0 * values.std(), name


def test_no_cycle_is_slower_than_five_seconds(record):
    setpoint = record(1, 120.0).actual["drive.setpoint"]
    above = setpoint > 1450.0
    rises = np.flatnonzero(above[1:] & ~above[:-1])
    assert len(rises) >= 120 / 5 - 1


def test_the_set_point_moves_now_and_then_in_steps(record):
    setpoint = record(1, 120.0).actual["drive.setpoint"]
    assert 0.005 < np.mean(np.diff(setpoint) != 0) < 0.03
    assert not np.any(setpoint % 5)


@pytest.mark.parametrize(("name", "scale"), [("plc.pressure", 100), ("plc.valve", 10)])
def test_a_scaled_register_changes_at_nearly_every_poll(record, name, scale):
    counts = np.round(record(1, 120.0).actual[name][::10] * scale)
    assert np.mean(np.diff(counts) != 0) > 0.9


speed_ratios = st.floats(0.5, 1.2)
flows = st.floats(0.004, 0.02)


@given(flow=flows, ratio=speed_ratios)
def test_affinity_head_goes_with_the_square_and_power_with_the_cube_of_speed(flow, ratio):
    assert pump_head(flow * ratio, ratio) == pytest.approx(pump_head(flow, 1.0) * ratio**2)
    assert shaft_power(flow * ratio, ratio) == pytest.approx(shaft_power(flow, 1.0) * ratio**3)


@given(
    ratio=st.floats(0.6, 1.2),
    valve=st.floats(20.0, 100.0),
    restriction=st.floats(1.0, 5.0),
    leak=st.floats(0.0, 0.9),
)
def test_at_the_duty_point_the_pump_gives_what_the_system_takes(ratio, valve, restriction, leak):
    flow = duty_flow(ratio, valve, restriction, leak)
    taken = 12.0 + 75_000.0 * restriction * (62.0 / valve) ** 2 * ((1 - leak) * flow) ** 2
    assert pump_head(flow, ratio) == pytest.approx(taken)


def test_more_restriction_means_less_flow_and_more_pressure():
    flows = [duty_flow(1.0, restriction=restriction) for restriction in (1.0, 1.5, 2.2)]
    assert flows == sorted(flows, reverse=True)
    heads = [pump_head(flow, 1.0) for flow in flows]
    assert heads == sorted(heads)


def test_a_leak_means_more_flow_from_the_pump_less_at_the_end_and_less_pressure():
    flows = [duty_flow(1.0, leak=leak) for leak in (0.0, 0.15, 0.5)]
    assert flows == sorted(flows)
    arriving = [(1 - leak) * flow for leak, flow in zip((0.0, 0.15, 0.5), flows, strict=True)]
    assert arriving == sorted(arriving, reverse=True)
    heads = [pump_head(flow, 1.0) for flow in flows]
    assert heads == sorted(heads, reverse=True)


def test_channels_of_one_machine_move_together(record):
    actual = record(1, 120.0).actual

    def correlation(one, other):
        return np.corrcoef(actual[one], actual[other])[0, 1]

    assert correlation("motor.current", "drive.power") > 0.95
    assert correlation("motor.speed", "drive.power") > 0.85
    assert correlation("motor.speed", "plc.flow") > 0.7
    assert correlation("plc.valve", "plc.flow") > 0.3
    assert correlation("plc.valve", "plc.pressure") < -0.3


def test_the_motor_draws_the_current_of_its_power(record):
    actual = record(1, 120.0).actual
    volts = 1000 * actual["drive.power"] / actual["motor.current"] / math.sqrt(3) / 0.84
    assert volts.mean() == pytest.approx(400.0, rel=0.01)


def test_hydraulic_power_is_the_shafts_times_a_plausible_efficiency(record):
    actual = record(1, 120.0).actual
    hydraulic_kw = actual["plc.flow"] / 60_000 * actual["plc.pressure"] * 100
    efficiency = hydraulic_kw / (0.9 * actual["drive.power"])
    assert 0.6 < efficiency.mean() < 0.8


def test_vibration_turns_with_the_shaft_and_grows_with_its_load(record):
    actual = record(1, 120.0).actual
    spectrum = np.abs(np.fft.rfft(actual["vib.x"][:2000] * np.hanning(2000)))
    strongest_hz = np.fft.rfftfreq(2000, 0.01)[spectrum.argmax()]
    assert strongest_hz == pytest.approx(actual["motor.speed"][:2000].mean() / 60, abs=1.0)
    energy = rms(actual["vib.x"]).reshape(-1, 10).mean(axis=1)
    load = actual["drive.power"].reshape(-1, 100).mean(axis=1)
    assert np.corrcoef(energy, load)[0, 1] > 0.5


def test_every_stress_shows_first_where_the_plant_says(record):
    normal = record(1, 45.0)
    for fault, strains in (("bearing_wear", "wear"), ("blockage", "restriction"), ("leak", "leak")):
        trace = record(1, 45.0, f"{fault}@5s")
        rows = trace.rows(20.0, 45.0)
        moved = {}
        for name in ANALOG:
            now, truth = (watched_of(name, each[name][rows]) for each in (trace.actual, trace.healthy))
            moved[name] = abs(now.mean() - truth.mean()) / watched_of(name, normal.actual[name]).std()
        first = PumpSkid.shows[strains]
        others = max(each for name, each in moved.items() if name not in first)
        assert min(moved[name] for name in first) > 1.5 * others, fault
