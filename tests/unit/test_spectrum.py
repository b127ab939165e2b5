"""Spectra against the slow formula, against Parseval, and against signals whose spectrum is known."""

import cmath
import re
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from pydantic import ValidationError

from dxad.errors import ConfigError
from dxad.plugin import load
from dxad.shape import chain
from dxad.signal.fourier import Fourier, centred
from dxad.types import Channel, Rows, Schema, State

MS = 1_000_000
ALL = ["total", "dominant", "amplitude", "centroid"]
PLUGIN = load("transforms", "spectrum")
WINDOWS = ["hann", "flattop", "none"]
every_window = pytest.mark.parametrize("window", WINDOWS)


def rows_of(*columns, first=0, period=MS, states=None) -> Rows:
    values = np.array(columns, dtype=float).T
    if states is None:
        states = np.where(np.isnan(values), State.EMPTY, State.GOOD).astype(np.uint8)
    return Rows(first, period, values, states)


def spectrum(signal, *, states=None, **keys) -> tuple[dict[str, float], set[int]]:
    """The one result at 1 kHz over the whole signal, by name; and its states."""
    transform = PLUGIN.build(PLUGIN.config(type="spectrum", every=f"{len(signal)}ms", **keys))
    declared = transform.outputs(Schema((Channel("vib.x", "g"),), MS))
    made = transform.apply(rows_of(signal, states=states))
    assert len(made) == 1
    ids = [channel.id.removeprefix("vib.x.") for channel in declared.channels]
    return dict(zip(ids, made.values[0], strict=True)), set(made.states[0])


def slow_power(signal, weights) -> list[float]:
    """Mean square per line, from the definition of the discrete Fourier transform."""
    n, power = len(signal), []
    level = sum(signal) / n
    for k in range(n // 2 + 1):
        total = sum(
            w * (x - level) * cmath.exp(-2j * cmath.pi * k * i / n)
            for i, (w, x) in enumerate(zip(weights, signal, strict=True))
        )
        sides = 1 if k in (0, n / 2) else 2
        power.append(sides * abs(total) ** 2 / (n * sum(w * w for w in weights)))
    return power


def hann(n):
    return [0.5 - 0.5 * np.cos(2 * np.pi * i / n) for i in range(n)]


@pytest.mark.parametrize("n", [50, 51, 64])
def test_every_number_is_what_its_formula_says(n):
    signal = np.random.default_rng(n).normal(size=n) + 3.0
    power = slow_power(signal, hann(n))
    at = [k * 1000 / n for k in range(len(power))]
    lines = list(zip(at, power, strict=True))
    found, states = spectrum(
        signal,
        stat=ALL,
        bands={"low": [100, 250], "high": [250, 500]},
        harmonics={"gear": {"frequency": 90.0, "count": 4, "tolerance": 15.0}},
    )
    assert states == {State.GOOD}
    assert_allclose(found["total"], np.sqrt(sum(power[1:])))
    assert_allclose(found["centroid"], np.dot(at[1:], power[1:]) / sum(power[1:]))
    assert_allclose(
        found["band_low"], np.sqrt(sum(p for f, p in zip(at, power, strict=True) if 100 <= f < 250))
    )
    assert_allclose(found["band_high"], np.sqrt(sum(p for f, p in lines if f >= 250)))
    near = [p for f, p in lines if any(abs(f - k * 90) <= 15 for k in (1, 2, 3, 4))]
    assert_allclose(found["harm_gear"], np.sqrt(sum(near)))
    strongest = 1 + int(np.argmax(power[1:-1]))
    assert abs(found["dominant"] - at[strongest]) <= 500 / n


@every_window
@pytest.mark.parametrize("n", [64, 81, 1000])
def test_the_lines_add_up_to_the_mean_square_of_the_signal(window, n):
    signal = np.random.default_rng(n).normal(size=(5, n))
    fourier = Fourier(rows=n, rate_hz=1000.0, window=window)
    weights = fourier._weights
    expected = np.sum((weights * signal) ** 2, axis=1) / np.sum(weights**2)
    assert_allclose(fourier.power(signal).sum(axis=1), expected)
    if window == "none":
        assert_allclose(expected, np.mean(signal**2, axis=1))


@pytest.mark.parametrize("n", [999, 1000])
def test_bands_that_adjoin_add_up_to_the_total(n):
    signal = np.random.default_rng(1).normal(size=n)
    edges = [0, 37.5, 111, 250, 490, 500]
    bands = {f"b{low:g}".replace(".", "-"): [low, high] for low, high in pairwise(edges)}
    found, _ = spectrum(signal, stat=["total"], bands=bands)
    total = found.pop("total")
    assert len(found) == 5
    assert_allclose(sum(rms**2 for rms in found.values()), total**2)


@every_window
def test_a_sine_has_its_rms_in_its_band_and_its_amplitude_in_its_line(window):
    sine = 3.0 * np.sin(2 * np.pi * 100.0 * np.arange(1000) / 1000 + 0.3)
    found, _ = spectrum(sine, window=window, stat=ALL, bands={"here": [90, 110], "there": [200, 400]})
    assert_allclose(found["total"], 3 / np.sqrt(2), rtol=1e-9)
    assert_allclose(found["band_here"], 3 / np.sqrt(2), rtol=1e-9)
    assert found["band_there"] < 1e-6
    assert_allclose([found["dominant"], found["centroid"]], 100.0, rtol=1e-4)
    assert_allclose(found["amplitude"], 3.0, rtol=1e-3)


@pytest.mark.parametrize(
    ("window", "hz", "share"), [("hann", 0.02, 0.02), ("flattop", 0.2, 0.001), ("none", 0.2, 0.2)]
)
@pytest.mark.parametrize("beside", [-0.5, -0.3, 0.1, 0.45])
def test_a_sine_between_two_lines_is_found_there(window, hz, share, beside):
    sine = 2.0 * np.sin(2 * np.pi * (100 + beside) * np.arange(1000) / 1000)
    found, _ = spectrum(sine, window=window, stat=ALL)
    assert_allclose(found["dominant"], 100 + beside, atol=hz)
    assert_allclose(found["amplitude"], 2.0, rtol=share)


def test_the_envelope_of_a_modulated_tone_is_its_modulation():
    time = np.arange(2000) / 1000
    modulation = 1 + 0.4 * np.sin(2 * np.pi * 7 * time)
    tone = modulation * np.sin(2 * np.pi * 200 * time) + 5 * np.sin(2 * np.pi * 30 * time)
    found, _ = spectrum(tone, stat=ALL, envelope={"low": 150, "high": 250})
    assert_allclose(found["envelope_dominant"], 7.0, rtol=1e-4)
    assert_allclose(found["envelope_amplitude"], 0.4, rtol=1e-3)
    assert_allclose(found["envelope_total"], 0.4 / np.sqrt(2), rtol=1e-6)
    fourier = Fourier(rows=2000, rate_hz=1000.0, window="hann")
    assert_allclose(fourier.envelope(centred(tone[None]), fourier.lines(150, 250))[0], modulation, rtol=1e-9)


@pytest.mark.parametrize("level", [0.0, 0.1, 1e9 / 3])
def test_a_signal_that_stands_still_has_no_power_and_no_frequency(level):
    found, states = spectrum([level] * 300, stat=ALL, bands={"low": [10, 100]})
    assert (found["total"], found["band_low"]) == (0.0, 0.0)
    assert all(np.isnan(found[stat]) for stat in ("dominant", "amplitude", "centroid"))
    assert states == {State.GOOD, State.EMPTY}


def test_a_few_missing_cells_are_interpolated_and_the_result_is_uncertain():
    sine = np.sin(2 * np.pi * 10 * np.arange(1000) / 1000)
    holes = sine.copy()
    holes[[0, 1, 100, 500, 501, 502, 998, 999]] = np.nan
    whole, good = spectrum(sine, stat=ALL)
    found, uncertain = spectrum(holes, stat=ALL)
    assert (good, uncertain) == ({State.GOOD}, {State.UNCERTAIN})
    assert_allclose(list(found.values()), list(whole.values()), rtol=2e-3)
    assert list(found.values()) != list(whole.values())


def test_a_stretch_with_too_many_missing_cells_has_no_spectrum():
    holes = np.random.default_rng(1).normal(size=1000)
    holes[:50] = np.nan
    assert spectrum(holes)[1] == {State.UNCERTAIN}
    holes[50] = np.nan
    found, states = spectrum(holes)
    assert np.isnan(list(found.values())).all()
    assert states == {State.EMPTY}
    assert spectrum(holes, max_missing=0.1)[1] == {State.UNCERTAIN}


def test_a_held_value_is_no_measurement():
    """Held values are interpolated as missing ones are, and not taken for steps."""
    signal = np.random.default_rng(1).normal(size=400)
    states = np.full((400, 1), State.GOOD, dtype=np.uint8)
    states[77] = State.HELD
    held, missing = signal.copy(), signal.copy()
    held[77], missing[77] = held[76], np.nan
    assert spectrum(held, states=states) == spectrum(missing)
    assert spectrum(held, states=np.full_like(states, State.HELD))[1] == {State.EMPTY}


def test_uncertain_samples_make_an_uncertain_spectrum():
    states = np.full((400, 1), State.GOOD, dtype=np.uint8)
    states[77] = State.UNCERTAIN
    signal = np.random.default_rng(1).normal(size=400)
    assert spectrum(signal, states=states) == (spectrum(signal)[0], {State.UNCERTAIN})


@pytest.mark.parametrize(
    "keys",
    [
        {"every": "64ms", "over": "256ms"},
        {"every": "50ms", "over": "100ms", "window": "flattop"},
        {"over": "37ms", "stat": ["total"], "bands": {"low": [50, 100]}},
        {"every": "100ms", "over": "300ms", "envelope": {"low": 100, "high": 300}, "stat": ALL},
    ],
)
@given(seed=st.integers(0, 2**32), at=st.lists(st.integers(0, 700), max_size=6), first=st.integers(0, 10**9))
@settings(max_examples=25, deadline=None)
def test_no_cut_changes_a_bit_of_a_spectrum(*, keys, seed, at, first):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(3, 700)) * 10.0 ** rng.integers(-3, 4, size=(3, 1))
    values[rng.random((3, 700)) < rng.choice([0.0, 0.01, 0.05])] = np.nan
    given = rows_of(*values, first=first)
    schema = Schema(tuple(Channel(f"vib.{axis}", "g") for axis in "xyz"), MS)
    edges = [0, *sorted(at), 700]
    made = []
    for cuts in ([0, 700], edges):
        transform = PLUGIN.build(PLUGIN.config(type="spectrum", **keys))
        transform.outputs(schema)
        parts = [
            transform.apply(Rows(first + a, MS, given.values[a:b], given.states[a:b]))
            for a, b in pairwise(cuts)
        ]
        made.append((np.concatenate([p.values for p in parts]), np.concatenate([p.states for p in parts])))
    assert_array_equal(made[0][0], made[1][0])
    assert_array_equal(made[0][1], made[1][1])


def test_its_channels_say_what_they_are():
    transform = PLUGIN.build(
        PLUGIN.config(
            type="spectrum",
            channels=["vib.*"],
            every="1s",
            stat=ALL,
            bands={"low": [10, 100]},
            harmonics={"gear": {"frequency": 25}},
            envelope={"low": 100, "high": 400},
        )
    )
    declared = transform.outputs(Schema((Channel("vib.x", "mm/s"),), MS))
    assert [(channel.id, channel.unit) for channel in declared.channels] == [
        ("vib.x.envelope_total", "mm/s"),
        ("vib.x.envelope_dominant", "Hz"),
        ("vib.x.envelope_amplitude", "mm/s"),
        ("vib.x.envelope_centroid", "Hz"),
        ("vib.x.envelope_band_low", "mm/s"),
        ("vib.x.envelope_harm_gear", "mm/s"),
    ]
    assert declared.period == 1000 * MS


def test_among_the_transforms_it_leaves_other_channels_as_they_are():
    schema = Schema((Channel("plc.flow"), Channel("vib.x", "g"), Channel("plc.run")), MS)
    section = PLUGIN.config(type="spectrum", channels=["vib.*"], over="16ms", stat=["total"])
    transforms, after = chain([section], schema)
    assert [channel.id for channel in after.channels] == ["plc.flow", "vib.x.total", "plc.run"]
    given = rows_of(np.arange(40.0), np.sin(np.arange(40.0)), np.ones(40))
    made = transforms[0].apply(given)
    assert_array_equal(made.values[:, [0, 2]], given.values[:, [0, 2]])
    assert (made.states[:15, 1] == State.EMPTY).all()
    assert (made.states[15:, 1] == State.GOOD).all()


BEARING = {"balls": 9, "ball_mm": 7.94, "pitch_mm": 39.04, "shaft_hz": 12.5}


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (
            {"bands": {"high": [400, 800]}},
            "bands.high: 800 Hz lies above the Nyquist frequency of the rows, 500 Hz",
        ),
        (
            {"bands": {"fine": [95, 96]}},
            "bands.fine: 95 to 96 Hz is less than two lines are apart, 10 Hz: make `over` 1s",
        ),
        (
            {"envelope": {"low": 100, "high": 600}},
            "envelope: 600 Hz lies above the Nyquist frequency of the rows, 500 Hz",
        ),
        (
            {"envelope": {"low": 100, "high": 105}},
            "envelope: 100 to 105 Hz is less than two lines are apart, 10 Hz",
        ),
        (
            {"envelope": {"low": 100, "high": 200}, "bands": {"a": [50, 120]}},
            "bands.a: 120 Hz lies above 100 Hz: an envelope's frequencies reach as far as its band is wide",
        ),
        (
            {"harmonics": {"gear": {"frequency": 120, "count": 5, "tolerance": 10}}},
            "harmonics.gear: 610 Hz lies above the Nyquist frequency of the rows, 500 Hz",
        ),
        (
            {"harmonics": {"gear": {"frequency": 120, "tolerance": 2.0}}},
            "harmonics.gear: 358 to 362 Hz is less than two lines are apart, 10 Hz: make `over` 0.25s or",
        ),
        (
            {"harmonics": {"slow": {"frequency": 3.0, "tolerance": 2.0}}},
            "harmonics.slow: a tolerance of 2 Hz cannot tell multiples of 3 Hz apart",
        ),
        (
            {"bearing": BEARING, "envelope": {"low": 100, "high": 200}, "every": "2s"},
            "bearing: bpfo: 135.429 Hz lies above 100 Hz",
        ),
        ({"every": "5ms"}, "a spectrum of 5 rows; 8 at least: make `over` longer"),
    ],
)
def test_what_the_rows_cannot_show_is_refused_with_the_numbers(keys, message):
    section = PLUGIN.config(**{"type": "spectrum", "every": "100ms"} | keys)
    with pytest.raises(ConfigError, match=re.escape(message)):
        PLUGIN.build(section).outputs(Schema((Channel("vib.x", "g"),), MS))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"bearing": BEARING}, "bearing needs envelope"),
        ({"stat": []}, "give at least one of stat, bands, harmonics and bearing"),
        ({"bands": {"a": [20, 10]}}, "bands.a: 20 to 10 Hz is no band"),
        ({"bands": {"a b": [10, 20]}}, "a name has letters, digits"),
        ({"envelope": {"low": 20, "high": 10}}, "low 20 is not below high 10"),
        (
            {"envelope": {"low": 1, "high": 9}, "bearing": BEARING | {"ball_mm": 50}},
            "ball_mm 50 is not below",
        ),
        ({"windw": "hann"}, "did you mean 'window'"),
    ],
)
def test_what_makes_no_sense_is_refused_as_it_is_read(keys: dict[str, Any], message):
    with pytest.raises(ValidationError, match=message):
        PLUGIN.config(type="spectrum", **keys)
