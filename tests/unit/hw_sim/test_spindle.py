import copy
import functools
import itertools
import math

import numpy as np
import pytest

from hw_sim.bearing import Bearing, Defect, Mode
from hw_sim.plant import RACES, Stress
from hw_sim.plants.spindle import BEARING, CHANNELS, Settings, Spindle, Vibration, build, coolant_flow

RATE = 2000
MACHINE_RATE = 1000
"""Where the vibration's spectrum does not matter."""
SPAN_S = 36.0
VIBRATION = ("vib.x", "vib.y", "vib.z")
ANALOG = [name for name, channel in CHANNELS.items() if channel.unit]
RESONANCE_HZ = (600.0, 980.0)


@pytest.fixture
def run(record):
    return functools.partial(record, plant="spindle", rate_hz=MACHINE_RATE)


@functools.cache
def nose(span_s, *, rpm=1200.0, torque=0.0, tool=1, wear=0.0, race="outer", rate=RATE):
    """Acceleration at a constant speed; shape (3, samples)."""
    vibration = Vibration("seed", rate)
    stress = Stress(wear=wear, race=race)
    blocks = [
        vibration.block(speed_rpm=rpm, cut_torque=torque, tool=tool, stress=stress)
        for _ in range(round(span_s * 100))
    ]
    return np.concatenate(blocks, axis=1)


def spectrum(signal, rate=RATE, span_s=2.0):
    """A function that tells by how much a line stands out of its surroundings (Welch, amplitudes)."""
    size = min(round(span_s * rate), len(signal))
    parts = np.lib.stride_tricks.sliding_window_view(signal - signal.mean(), size)[:: size // 2]
    amplitudes = np.sqrt((np.abs(np.fft.rfft(parts * np.hanning(size))) ** 2).mean(axis=0))

    def stands_out(hz, around_hz=10.0):
        at, wide = round(hz * size / rate), round(around_hz * size / rate)
        floor = np.median(amplitudes[max(at - wide, 2) : at + wide + 1])
        return amplitudes[at - 1 : at + 2].max() / floor

    return stands_out


def envelope(signal, band_hz=RESONANCE_HZ, rate=RATE):
    """The amplitude of what rings in a band: the absolute value of its analytic signal (Randall, §3.3)."""
    bins = np.fft.fft(signal)
    frequencies = np.fft.fftfreq(len(signal), 1 / rate)
    bins[(frequencies < band_hz[0]) | (frequencies > band_hz[1])] = 0.0
    return np.abs(np.fft.ifft(2 * bins))


def rms(values):
    return math.sqrt(np.mean(np.square(values)))


# the bearing


def test_defect_frequencies_are_those_of_the_geometry():
    orders = Bearing(balls=9, ball_mm=7.94, pitch_mm=39.04).orders  # a 6205's, as published
    assert orders["outer"] == pytest.approx(3.585, abs=0.001)
    assert orders["inner"] == pytest.approx(5.415, abs=0.001)
    assert orders["ball"] == pytest.approx(2 * 2.357, abs=0.001)
    assert orders["cage"] == pytest.approx(0.398, abs=0.001)


def test_a_ball_passes_either_the_outer_race_with_the_cage_or_the_inner_against_it():
    orders = BEARING.orders
    assert orders["outer"] + orders["inner"] == pytest.approx(BEARING.balls)
    assert orders["outer"] == pytest.approx(BEARING.balls * orders["cage"])


@pytest.mark.parametrize("race", RACES)
@pytest.mark.parametrize("turns_hz", [15.0, 20.0, 30.0])
@pytest.mark.parametrize("rate", [1000, 8000])
def test_a_defect_has_a_mean_square_of_one(race, turns_hz, rate):
    modes = [Mode(410.0, 0.08, 1.0), Mode(3100.0, 0.03, 3.0)][: 1 if rate == 1000 else 2]
    defect = Defect("seed", BEARING, modes, rate_hz=rate, samples=rate // 100, full_hz=10.0)
    signal = np.concatenate([defect.block(turns_hz, race) for _ in range(1000)])
    assert np.mean(signal**2) == pytest.approx(1.0, abs=0.2)


def test_the_balls_slip_by_one_to_two_per_cent():
    defect = Defect("seed", BEARING, [Mode(410.0, 0.08, 1.0)], rate_hz=RATE, samples=20, full_hz=10.0)
    at_s = [block / 100 + at for block in range(1000) for at, _ in defect._next(20.0, "outer")]
    between = np.diff(at_s)
    assert between.mean() == pytest.approx(1 / (20.0 * BEARING.orders["outer"]), rel=0.003)
    assert 0.01 < between.std() / between.mean() < 0.02


# the vibration


@pytest.mark.parametrize("torque", [0.0, 20.0])
@pytest.mark.parametrize("race", ["outer", "inner"])
@pytest.mark.parametrize("wear", [0.2, 1.0])
def test_wear_says_by_how_much_the_root_mean_square_rises(torque, race, wear):
    healthy, worn = (nose(20.0, torque=torque, wear=w, race=race) for w in (0.0, wear))
    rises = [rms(worn[axis]) / rms(healthy[axis]) - 1 for axis in range(3)]
    assert rises[0] == pytest.approx(wear, rel=0.2)
    assert rises[1] == pytest.approx(wear, rel=0.2)
    assert rises[2] < 0.4 * wear


def test_the_shaft_shows_at_its_harmonics_and_with_the_square_of_its_speed():
    stands_out = spectrum(nose(20.0, rpm=1230.0)[0])
    assert all(stands_out(order * 20.5) > 4 for order in (1, 2, 3))
    slow, fast = (first_order(nose(20.0, rpm=rpm)[0], rpm) for rpm in (900.0, 1800.0))
    assert fast / slow == pytest.approx(4.0, rel=0.03)


def first_order(signal, rpm):
    """The amplitude at one a turn."""
    turns = np.exp(-2j * np.pi * rpm / 60 * np.arange(len(signal)) / RATE)
    return abs((signal * turns).mean())


@pytest.mark.parametrize(("tool", "teeth"), [(1, 4), (2, 3), (3, 2)])
def test_the_teeth_show_while_they_cut_with_the_side_bands_of_the_run_out(tool, teeth):
    cutting = spectrum(nose(20.0, rpm=1230.0, torque=15.0, tool=tool)[0])
    assert all(cutting(order * teeth * 20.5) > 5 for order in (1, 2, 3, 4))
    assert all(cutting((2 * teeth + side) * 20.5) > 3 for side in (-1, 1))
    idle = spectrum(nose(20.0, rpm=1230.0, tool=tool)[0])
    assert idle(4 * teeth * 20.5) < 1.6


@pytest.mark.parametrize("race", ["outer", "inner", "ball"])
def test_a_worn_part_shows_in_the_plain_spectrum_at_harmonics_of_its_defect_frequency(race):
    defect_hz = 20.5 * BEARING.orders[race]
    healthy, worn = (spectrum(nose(20.0, rpm=1230.0, wear=wear, race=race)[0]) for wear in (0.0, 0.5))
    for order in (1, 2, 3):
        assert worn(order * defect_hz) > 4
        assert healthy(order * defect_hz) < 1.6


@pytest.mark.parametrize("torque", [0.0, 15.0])
@pytest.mark.parametrize("race", RACES)
def test_the_envelope_shows_the_worn_part_clearly(race, torque):
    defect_hz = 20.5 * BEARING.orders[race]
    healthy, worn = (
        spectrum(envelope(nose(20.0, rpm=1230.0, torque=torque, wear=wear, race=race)[0]))
        for wear in (0.0, 0.5)
    )
    assert worn(defect_hz) > 6
    assert healthy(defect_hz) < 1.6
    others = [other for other in ("outer", "inner", "ball") if other != race != "cage"]  # BPFO is 13 FTF
    assert all(worn(20.5 * BEARING.orders[other]) < 2 for other in others)


@pytest.mark.parametrize("race", RACES)
def test_the_envelope_of_the_high_mode_shows_the_harmonics_too(race):
    signal = nose(10.0, rpm=1230.0, wear=0.5, race=race, rate=8000)[0]
    stands_out = spectrum(envelope(signal, (2600.0, 3600.0), 8000), 8000)
    defect_hz = 20.5 * BEARING.orders[race]
    assert all(stands_out(order * defect_hz) > least for order, least in ((1, 6), (2, 4), (3, 2.5)))


def test_a_worn_inner_race_has_side_bands_at_the_shaft_and_a_ball_at_the_cage():
    shaft_hz, cage_hz = 20.5, 20.5 * BEARING.orders["cage"]
    for race, around_hz in (("inner", shaft_hz), ("ball", cage_hz)):
        defect_hz = 20.5 * BEARING.orders[race]
        stands_out = spectrum(envelope(nose(20.0, rpm=1230.0, wear=0.5, race=race)[0]))
        assert stands_out(around_hz) > 8
        assert all(stands_out(defect_hz + side * around_hz) > 4 for side in (-1, 1)), race
    outer = spectrum(envelope(nose(20.0, rpm=1230.0, wear=0.5, race="outer")[0]))
    assert all(outer(20.5 * (BEARING.orders["outer"] + side)) < 1.6 for side in (-1, 1))


def test_a_defect_moves_with_the_speed():
    stands_out = spectrum(envelope(nose(20.0, rpm=1800.0, wear=0.5)[0]))
    assert stands_out(30.0 * BEARING.orders["outer"]) > 8
    assert stands_out(20.5 * BEARING.orders["outer"]) < 1.6


def test_a_faster_sensor_sees_the_high_mode_too():
    bands = {}
    for rate in (2000, 8000):
        bins = np.abs(np.fft.rfft(nose(10.0, wear=1.0, rate=rate)[0])) ** 2
        hz = np.fft.rfftfreq(10 * rate, 1 / rate)
        bands[rate] = bins[(hz > 2900) & (hz < 3300)].sum() / bins[hz > 300].sum()
    assert bands[2000] == 0.0
    assert bands[8000] > 0.2


# the machine


def test_power_is_torque_times_speed(run):
    actual = run(1, SPAN_S).actual
    omega = actual["spindle.speed"] / 60 * math.tau
    expected_kw = (actual["spindle.torque"] * omega / 0.9 + 250.0) / 1000
    assert np.abs(actual["spindle.power"] - expected_kw).max() < 0.2
    assert actual["spindle.power"].mean() == pytest.approx(expected_kw.mean(), rel=0.01)


def test_a_cut_takes_the_power_of_what_it_removes(run):
    actual = run(1, SPAN_S).actual
    settled = held(actual["tool.cutting"] > 0, 0.6)
    for number, section_mm2, kc in ((1, 112.0, 1900.0), (2, 96.0, 2100.0), (3, 154.0, 2300.0)):
        rows = settled & (actual["tool.number"] == number)
        cut_w = kc * section_mm2 * actual["axis.feed"][rows].mean() / 60 / 1000
        omega = actual["spindle.speed"][rows].mean() / 60 * math.tau
        friction = 1.1 + 0.002 * omega
        assert (actual["spindle.torque"][rows].mean() - friction) * omega == pytest.approx(cut_w, rel=0.1)


def test_the_motor_draws_the_current_of_its_torque(run):
    actual = run(1, SPAN_S).actual
    expected = np.hypot(5.0, actual["spindle.torque"] / 1.6)
    assert np.abs(actual["spindle.current"] - expected).max() < 0.8


def held(mask, since_s, rate=MACHINE_RATE):
    """Where something has been so for a while."""
    steps = round(since_s * rate)
    seen = np.convolve(mask, np.ones(steps), mode="full")[: len(mask)]
    return seen > steps - 0.5


def test_a_tool_is_changed_at_a_standstill_and_cuts_at_its_speed(run):
    actual = run(1, SPAN_S).actual
    changes = np.flatnonzero(np.diff(actual["tool.number"]))
    assert len(changes) >= 4
    assert set(actual["tool.number"]) == {1.0, 2.0, 3.0}
    for change in changes[:-1]:
        assert np.abs(actual["spindle.speed"][change : change + 2 * MACHINE_RATE]).min() < 3.0
    cutting = actual["tool.cutting"] > 0
    assert actual["spindle.speed"][cutting].min() > 850.0
    assert not np.any(actual["axis.feed"][held(cutting, 0.5)] > 900.0)


def test_no_cut_is_twice_alike(run):
    actual = run(1, SPAN_S).actual
    cutting = actual["tool.cutting"]
    edges = np.flatnonzero(np.diff(cutting))
    cuts = [
        (end - begin, actual["spindle.torque"][begin + MACHINE_RATE // 2 : end].mean())
        for begin, end in itertools.pairwise(edges)
        if cutting[begin + 1] > 0
    ]
    assert len(cuts) >= 8
    assert len({length for length, _ in cuts}) > len(cuts) - 2
    assert len({round(torque, 1) for _, torque in cuts}) > len(cuts) - 2


def test_vibration_is_loud_while_cutting_and_silent_at_a_standstill(run):
    actual = run(1, SPAN_S).actual
    cutting, still = held(actual["tool.cutting"] > 0, 0.5), held(np.abs(actual["spindle.speed"]) < 5.0, 0.2)
    idle = held((actual["tool.cutting"] == 0) & (actual["spindle.speed"] > 850.0), 0.4)
    for name in VIBRATION:
        loud, quiet, silent = (rms(actual[name][rows]) for rows in (cutting, idle, still))
        assert loud > 2.5 * quiet > 10 * silent, name


@pytest.mark.parametrize("seed", [1, 2])
def test_the_bearing_is_warm_at_the_start_and_does_not_drift(seed):
    spindle = Spindle(f"{seed}", rate_hz=1000)
    temperature = np.array([spindle.step()["spindle.temperature"] for _ in range(80_000)])
    parts = temperature.reshape(4, -1).mean(axis=1)
    assert np.ptp(parts) < 0.6
    assert 35.0 < temperature.min() < temperature.max() < 45.0


def test_channels_move_as_far_as_they_say(run):
    actual = run(1, SPAN_S).actual
    for name in ANALOG:
        assert CHANNELS[name].usual == pytest.approx(actual[name].std(), rel=0.3), name
        assert CHANNELS[name].low - 8 <= actual[name].min(), name
        assert actual[name].max() <= CHANNELS[name].high, name


# the coolant


@pytest.mark.parametrize("restriction", [1.0, 2.2])
@pytest.mark.parametrize("leak", [0.0, 0.15, 0.9])
def test_at_the_duty_point_the_pump_gives_what_the_circuit_takes(restriction, leak):
    flow = coolant_flow(12.2, restriction, leak)
    assert 8.0 - 0.0022 * flow**2 == pytest.approx(restriction * ((1 - leak) * flow / 12.2) ** 2)


def test_a_clogged_filter_means_less_flow_more_pressure_and_a_warmer_bearing(run):
    trace = run(1, SPAN_S, "blockage@2s")
    rows = trace.rows(14.0, SPAN_S)
    rises = {name: (trace.actual[name] - trace.healthy[name])[rows] for name in ANALOG}
    assert rises["coolant.flow"].max() < -1.0
    assert rises["coolant.pressure"].min() > 0.05
    assert rises["spindle.temperature"][-1] > 0.3


def test_lost_coolant_means_less_flow_and_less_pressure(run):
    trace = run(1, SPAN_S, "leak@2s")
    rows = trace.rows(14.0, SPAN_S)
    assert (trace.actual["coolant.flow"] - trace.healthy["coolant.flow"])[rows].max() < -0.1
    assert (trace.actual["coolant.pressure"] - trace.healthy["coolant.pressure"])[rows].max() < -0.05


# what all plants promise


def test_the_same_seed_gives_the_same_numbers_and_another_others(run):
    again = run(1, SPAN_S).actual
    spindle = build(Settings(rate_hz=MACHINE_RATE), "1")
    for at in range(3000):
        readings = spindle.step()
        assert all(readings[name] == again[name][at] for name in CHANNELS)
    other = build(Settings(rate_hz=MACHINE_RATE), "2/spindle")
    assert all(other.step()[name] != again[name][0] for name in ANALOG)


@pytest.mark.parametrize("rate", [1000, 2000, 20_000])
def test_a_step_is_a_sample(rate):
    spindle = build(Settings(rate_hz=rate), "1")
    assert spindle.step_s == 1 / rate
    seen = [spindle.step() for _ in range(rate // 10)]
    assert len({readings["vib.x"] for readings in seen}) > 0.9 * len(seen)
    assert len({readings["spindle.current"] for readings in seen}) == 10


@pytest.mark.parametrize("rate", [900, 1050, 20_100])
def test_a_rate_is_whole_hundreds_up_to_20_kilohertz(rate):
    with pytest.raises(ValueError, match="rate_hz"):
        Settings(rate_hz=rate)


def test_a_stress_shows_at_latest_ten_milliseconds_after_its_onset():
    spindle = build(Settings(), "1")
    for _ in range(1007):
        spindle.step()
    twin = copy.deepcopy(spindle)
    pairs = [(spindle.step(Stress(restriction=2.0)), twin.step()) for _ in range(20)]
    assert any(now["coolant.flow"] != truth["coolant.flow"] for now, truth in pairs)


@pytest.mark.parametrize("fault", ["bearing_wear", "blockage", "leak"])
def test_the_twin_of_a_stressed_spindle_is_the_spindle_without_the_stress(run, fault):
    trace, normal = run(1, SPAN_S, f"{fault}@2s"), run(1, SPAN_S)
    before = trace.rows(0.0, 2.0)
    for name in CHANNELS:
        assert np.array_equal(trace.actual[name][before], normal.actual[name][before])
        assert np.array_equal(trace.healthy[name], normal.actual[name])


@pytest.mark.parametrize(
    ("fault", "strains"), [("bearing_wear", "wear"), ("blockage", "restriction"), ("leak", "leak")]
)
def test_a_stress_shows_first_where_the_spindle_says_and_little_elsewhere(run, fault, strains):
    trace = run(1, SPAN_S, f"{fault}@2s")
    rows = trace.rows(12.0, 20.0)
    moved = {}
    for name in ANALOG:
        now, truth = trace.actual[name][rows], trace.healthy[name][rows]
        if name in VIBRATION:
            moved[name] = abs(rms(now) / rms(truth) - 1)
        else:
            moved[name] = np.abs(now - truth).mean() / np.abs(truth).mean()
    first = Spindle.shows[strains]
    others = {name: each for name, each in moved.items() if name not in first}
    assert min(moved[name] for name in first) > 0.03
    assert min(moved[name] for name in first) > 2 * max(others.values()), others


def test_a_worn_part_can_be_told_in_the_readings_of_one_cut(record):
    actual = record(1, 25.0, "bearing_wear@0s:ramp=5s,size=0.3,race=inner", plant="spindle").actual
    begin, end = longest(held(actual["tool.cutting"] > 0, 0.3, RATE))
    turns_hz = actual["spindle.speed"][begin:end].mean() / 60
    stands_out = spectrum(envelope(actual["vib.x"][begin:end]), span_s=1.0)
    assert stands_out(turns_hz * BEARING.orders["inner"], around_hz=15.0) > 3
    assert stands_out(turns_hz * BEARING.orders["outer"], around_hz=15.0) < 2


def longest(mask):
    """Begin and end of the longest stretch where it holds."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]])))
    return max(zip(edges[::2], edges[1::2], strict=True), key=lambda each: each[1] - each[0])
