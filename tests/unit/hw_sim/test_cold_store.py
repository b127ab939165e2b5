import functools
import itertools

import numpy as np
import pytest

from hw_sim.plants.cold_store import (
    CHANNELS,
    ColdStore,
    Settings,
    build,
    cooling,
    cop,
    saturation_bar,
)

DAY_S = 86_400
DAYS = 2
ANALOG = [name for name, channel in CHANNELS.items() if channel.unit]
FAULT_S = 2 * 3600.0


@pytest.fixture
def run(record):
    return functools.partial(record, plant="cold_store")


@pytest.fixture(scope="module")
def days():
    """What the sensors of two days show, from midnight on."""
    store = build(Settings(start="00:00"), "1/cold_store")
    rows = [tuple(store.step().values()) for _ in range(DAYS * DAY_S)]
    return dict(zip(CHANNELS, np.array(rows).T, strict=True))


def saturation_degc(bar):
    """The inverse of the pressure's law."""
    return 2163.2 / (9.933 - np.log(bar)) + 29.0 - 273.15


def held(mask, steps):
    """Where something has been so for a while."""
    return np.convolve(mask, np.ones(steps), mode="full")[: len(mask)] > steps - 0.5


# the refrigerant and the compressor


@pytest.mark.parametrize(
    ("degc", "kilopascal"),
    [(-30, 84.38), (-20, 132.73), (0, 292.80), (20, 571.71), (40, 1016.6), (60, 1681.8)],
)
def test_r134a_boils_at_the_pressures_of_its_table(degc, kilopascal):
    assert saturation_bar(degc) * 100 == pytest.approx(kilopascal, rel=0.003)


def test_the_compressor_gives_half_of_what_carnot_allows():
    for suction, condensing in ((-15.0, 30.0), (-8.0, 38.0), (-5.0, 55.0)):
        assert cop(suction, condensing) == pytest.approx(0.5 * (suction + 273.15) / (condensing - suction))


def test_it_cools_less_the_thinner_the_vapour_and_the_higher_the_pressure_behind_it():
    assert cooling(2.0, 10.0) < cooling(2.5, 10.0)
    assert cooling(2.0, 14.0) < cooling(2.0, 10.0)
    assert cooling(saturation_bar(-8.0), saturation_bar(38.0)) == pytest.approx(4000.0)


def test_pressures_and_power_belong_together(days):
    rows = held(days["compressor.running"] > 0, 120)
    suction, discharge = days["suction.pressure"][rows], days["discharge.pressure"][rows]
    taken_w = np.array([cooling(*each) for each in zip(suction[::50], discharge[::50], strict=True)])
    cops = [
        cop(*each)
        for each in zip(saturation_degc(suction[::50]), saturation_degc(discharge[::50]), strict=True)
    ]
    expected_kw = taken_w / cops / 1000
    assert days["compressor.power"][rows][::50] == pytest.approx(expected_kw, rel=0.06)


def test_what_comes_in_is_taken_out(days):
    """The first law, over two days: walls, door, fan and light against the compressor."""
    running = days["compressor.running"] > 0
    warmer = days["outdoor.temperature"] - days["room.temperature"]
    gained_w = (60.0 + 250.0 * days["door.open"]) * warmer + 300.0 + 250.0 * running
    pressures = zip(days["suction.pressure"][running], days["discharge.pressure"][running], strict=True)
    taken_j = sum(cooling(*each) for each in pressures)
    assert taken_j == pytest.approx(gained_w.sum(), rel=0.06)


def test_at_rest_the_pressures_are_those_of_coil_and_weather(days):
    rows = held((days["compressor.running"] == 0) & (days["defrost.active"] == 0), 1200)
    assert rows.sum() > 1000
    coil, weather = days["evaporator.temperature"][rows], days["outdoor.temperature"][rows]
    assert np.abs(saturation_degc(days["suction.pressure"][rows]) - coil).max() < 1.0
    assert np.abs(saturation_degc(days["discharge.pressure"][rows]) - weather).max() < 1.5


def test_while_it_runs_heat_flows_down_from_the_room_and_up_to_the_weather(days):
    rows = held(days["compressor.running"] > 0, 180)
    boiling = saturation_degc(days["suction.pressure"][rows])
    condensing = saturation_degc(days["discharge.pressure"][rows])
    assert np.all(boiling < days["evaporator.temperature"][rows])
    assert np.all(days["evaporator.temperature"][rows] < days["room.temperature"][rows])
    assert np.all(condensing > days["outdoor.temperature"][rows] + 5.0)
    assert np.all(days["discharge.temperature"][rows] > condensing - 15.0)


def test_power_and_vibration_are_the_running_compressors(days):
    running = held(days["compressor.running"] > 0, 60)
    rest = held(days["compressor.running"] == 0, 3)
    assert days["compressor.power"][running].min() > 0.7
    assert days["compressor.power"][rest].max() < 0.1
    assert days["vib.rms"][running].min() > 1.2
    assert days["vib.rms"][rest].max() < 0.1


# the room


def test_the_room_stays_within_the_hysteresis_but_for_defrosts_and_doors(days):
    room = days["room.temperature"]
    assert room.min() > 2.0 - 0.3
    assert np.quantile(room, 0.99) < 4.0 + 0.3
    assert room.max() < 4.0 + 1.5


@pytest.mark.parametrize(("setpoint", "hysteresis"), [(-2.0, 1.0), (6.0, 4.0)])
def test_the_thermostat_does_as_it_is_set(setpoint, hysteresis):
    store = build(Settings(setpoint=setpoint, hysteresis=hysteresis, start="23:00"), "1")
    room = np.array([store.step()["room.temperature"] for _ in range(4 * 3600)])
    assert room.min() == pytest.approx(setpoint - hysteresis / 2, abs=0.3)
    assert np.quantile(room, 0.97) == pytest.approx(setpoint + hysteresis / 2, abs=0.4)


def test_the_compressor_has_its_rest(days):
    edges = np.flatnonzero(np.diff(days["compressor.running"]))
    assert 60 < len(edges) / 2 < 180
    defrosts = days["defrost.active"]
    for begin, end in itertools.pairwise(edges):
        assert end - begin >= 120 or defrosts[end + 1]


def test_the_duty_is_shorter_in_the_night(days):
    by_hour = days["compressor.running"].reshape(DAYS, 24, 3600).mean(axis=2)
    night, day = by_hour[:, 0:6].mean(axis=1), by_hour[:, 10:18].mean(axis=1)
    assert np.all(night < 0.7 * day)
    assert np.all(night > 0.05)
    assert np.all(day < 0.7)


def test_it_is_warmest_in_the_afternoon_and_coldest_before_dawn(days):
    by_hour = days["outdoor.temperature"].reshape(DAYS, 24, 3600).mean(axis=2)
    assert all(11 <= hour <= 18 for hour in by_hour.argmax(axis=1))
    assert np.all(by_hour[:, 14:17].mean(axis=1) > by_hour[:, 2:5].mean(axis=1) + 5.0)


def test_the_door_is_used_by_day(days):
    openings = (np.diff(days["door.open"], prepend=0.0) > 0).reshape(DAYS, 24, 3600).sum(axis=2)
    assert np.all(openings[:, 6:19].sum(axis=1) > 40)
    assert np.all(openings[:, :6].sum(axis=1) + openings[:, 19:].sum(axis=1) < 10)


def test_an_open_door_warms_the_room(days):
    rows = (days["compressor.running"] == 0) & (days["defrost.active"] == 0)
    rises = np.diff(days["room.temperature"], append=np.nan)[:-1]
    opened, shut = rows & (days["door.open"] > 0), rows & (days["door.open"] == 0)
    assert rises[opened[:-1]].mean() > 3 * rises[shut[:-1]].mean() > 0.0


def test_a_defrost_comes_four_times_a_day_and_melts_the_ice(days):
    begins = np.flatnonzero(np.diff(days["defrost.active"][:-1], prepend=0.0) > 0)
    assert [round(begin / 3600) for begin in begins] == [6 * turn for turn in range(4 * DAYS)]
    ends = np.flatnonzero(np.diff(days["defrost.active"]) < 0)
    assert np.all(days["evaporator.temperature"][ends] > 7.0)
    assert np.all(days["compressor.running"][days["defrost.active"] > 0] == 0.0)
    melting = days["evaporator.temperature"][begins[2] : ends[2]]
    assert np.mean(np.abs(melting) < 0.3) > 0.2, "the coil waits at 0 degC until its ice is gone"


def test_defrosts_can_be_rarer():
    store = build(Settings(defrost_every="12h", start="05:50"), "1")
    assert not any(store.step()["defrost.active"] for _ in range(1200))


def test_the_product_is_slower_than_the_air(days):
    room, product = days["room.temperature"], days["product.temperature"]
    assert np.ptp(product) < 0.15 * np.ptp(room)
    room_by_hour, product_by_hour = (values.reshape(-1, 3600).mean(axis=1) for values in (room, product))
    assert np.abs(np.diff(product_by_hour)).max() < 0.1 * np.abs(np.diff(room_by_hour)).max()
    assert abs(product.mean() - room.mean()) < 0.1


@pytest.mark.parametrize("name", ["room.temperature", "product.temperature"])
def test_nothing_drifts_over_the_days(days, name):
    means = days[name].reshape(DAYS, -1).mean(axis=1)
    assert np.ptp(means) < 0.05
    assert abs(days[name][:7200].mean() - days[name].mean()) < 0.15


def test_a_hot_summer_is_more_work():
    shares = []
    for outdoor in (10.0, 30.0):
        store = build(Settings(outdoor=outdoor, start="12:00"), "1")
        shares.append(np.mean([store.step()["compressor.running"] for _ in range(3 * 3600)]))
    assert shares[1] > 1.8 * shares[0]


def test_channels_move_as_far_as_they_say(days):
    for name in ANALOG:
        assert CHANNELS[name].usual == pytest.approx(days[name].std(), rel=0.35), name
        assert CHANNELS[name].low - 0.1 <= days[name].min(), name
        assert days[name].max() <= CHANNELS[name].high, name


# what all plants promise


@pytest.mark.parametrize("start", ["24:00", "8", "8:61", "morning", ":30"])
def test_a_time_of_day_is_hours_and_minutes(start):
    with pytest.raises(ValueError, match="no time of day"):
        Settings(start=start)


def test_the_same_seed_gives_the_same_numbers_and_another_others(days):
    store = build(Settings(start="00:00"), "1/cold_store")
    for at in range(2000):
        readings = store.step()
        assert all(readings[name] == days[name][at] for name in CHANNELS)
    other = build(Settings(start="00:00"), "2/cold_store")
    seen = [other.step() for _ in range(1000)]
    for name in ANALOG:
        assert np.mean([each[name] != days[name][at] for at, each in enumerate(seen)]) > 0.5, name


@pytest.mark.parametrize("fault", ["bearing_wear", "blockage", "leak"])
def test_the_twin_of_a_stressed_store_is_the_store_without_the_stress(run, fault):
    trace, normal = run(1, FAULT_S, f"{fault}@10min"), run(1, FAULT_S)
    for name in CHANNELS:
        assert np.array_equal(trace.actual[name][:600], normal.actual[name][:600])
        assert np.array_equal(trace.healthy[name], normal.actual[name])


@pytest.mark.parametrize(
    ("fault", "strains"), [("bearing_wear", "wear"), ("blockage", "restriction"), ("leak", "leak")]
)
def test_a_stress_shows_first_where_the_store_says(run, fault, strains):
    settings = ":size=0.5,ramp=2h" if fault == "bearing_wear" else ""
    trace = run(1, FAULT_S, f"{fault}@10min{settings}")
    moved = {}
    for name in ANALOG:
        running, spread = [], 1.0
        for each in (trace.actual, trace.healthy):
            rows = held(each["compressor.running"] > 0, 180)
            rows[:1800] = False
            running.append(each[name][rows].mean())
            spread = each[name][rows].std()
        moved[name] = (running[0] - running[1]) / spread
    first = ColdStore.shows[strains]
    least = min(abs(moved[name]) for name in first)
    assert least > 1.0, moved
    assert all(moved[name] < 0.0 if name == "suction.pressure" else moved[name] > 0.0 for name in first)
    beside = ("room.temperature", "outdoor.temperature", "product.temperature", "evaporator.temperature")
    assert all(abs(moved[name]) < least for name in beside), moved


def test_a_fouled_condenser_costs_power_and_a_lost_charge_time(run):
    normal = run(1, FAULT_S).actual
    fouled, leaky = (run(1, FAULT_S, fault).actual for fault in ("blockage@10min", "leak@10min:size=0.3"))
    assert fouled["compressor.power"].sum() > 1.15 * normal["compressor.power"].sum()
    assert leaky["compressor.running"].mean() > 1.03 * normal["compressor.running"].mean()
