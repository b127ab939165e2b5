"""Bearing frequencies against published ones, and a synthetic damage that only the envelope shows."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from dxad.plugin import load
from dxad.signal.bearing import strikes
from dxad.types import Channel, Rows, Schema, State

RATE = 10_000
ROWS = 16_384
GEOMETRY = {"balls": 9, "ball_mm": 7.94, "pitch_mm": 39.04, "shaft_hz": 29.95}


def test_the_frequencies_are_those_published_for_a_known_bearing():
    """SKF 6205-2RS JEM as in the Case Western Reserve University bearing data, multiples of shaft speed.

    There the rolling element's multiple counts both races: twice the spin.
    """
    found = strikes(balls=9, ball_mm=7.940, pitch_mm=39.04, angle_deg=0.0, shaft_hz=1.0)
    assert_allclose(
        [found.bpfi, found.bpfo, found.ftf, 2 * found.bsf], [5.4152, 3.5848, 0.39828, 4.7135], rtol=2e-4
    )


def test_balls_pass_both_races_as_often_as_they_are_many_and_the_cage_carries_them():
    found = strikes(balls=11, ball_mm=6.0, pitch_mm=40.0, angle_deg=25.0, shaft_hz=13.0)
    assert_allclose(found.bpfo + found.bpfi, 11 * 13.0)
    assert_allclose(found.bpfo, 11 * found.ftf)


def damaged(noise: float, strike_hz: float) -> np.ndarray:
    """A shaft's unbalance, noise, and strikes with 1 % of jitter that ring at 3 kHz for a millisecond."""
    rng = np.random.default_rng(7)
    time = np.arange(ROWS) / RATE
    signal = 0.5 * np.sin(2 * np.pi * GEOMETRY["shaft_hz"] * time) + noise * rng.normal(size=ROWS)
    at = 0.0
    while at < time[-1]:
        since = time - at
        ring = np.exp(-np.clip(since, 0, None) / 0.001) * np.sin(2 * np.pi * 3000 * since)
        signal += np.where(since >= 0, ring, 0.0)
        at += (1 + 0.01 * rng.normal()) / strike_hz
    return signal


def spectrum(signal, **keys) -> dict[str, float]:
    schema = Schema((Channel("vib.x", "g"),), 1_000_000_000 // RATE)
    keys = {"type": "spectrum", "every": f"{ROWS * 1_000_000 // RATE}us"} | keys
    plugin = load("transforms", "spectrum")
    transform = plugin.build(plugin.config(**keys))
    declared = transform.outputs(schema)
    made = transform.apply(
        Rows(0, schema.period, signal[:, None], np.full((len(signal), 1), State.GOOD, dtype=np.uint8))
    )
    ids = [channel.id.removeprefix("vib.x.") for channel in declared.channels]
    return dict(zip(ids, made.values[0], strict=True))


BPFO = strikes(**GEOMETRY, angle_deg=0.0).bpfo
ENVELOPE = {"low": 2000, "high": 4000}
LINES = {"outer": {"frequency": BPFO, "count": 3, "tolerance": 2.0}}
BESIDE = {"beside": {"frequency": BPFO * 0.9, "count": 3, "tolerance": 2.0}}


def test_strikes_on_the_outer_race_are_a_line_of_the_envelope_and_not_of_the_signal():
    signal = damaged(noise=0.2, strike_hz=BPFO)
    found = spectrum(signal, envelope=ENVELOPE, harmonics=BESIDE, bearing=GEOMETRY)
    assert_allclose(found["envelope_dominant"], BPFO, rtol=0.01)
    assert found["envelope_bpfo"] > 0.6 * found["envelope_total"]
    assert found["envelope_bpfo"] > 10 * found["envelope_harm_beside"]
    raw = spectrum(signal, harmonics=LINES | BESIDE, bands={"ringing": [2000, 4000]})
    assert_allclose(raw["dominant"], GEOMETRY["shaft_hz"], rtol=0.01)
    assert raw["harm_outer"] < 0.06 * raw["total"]
    assert raw["harm_outer"] < 3 * raw["harm_beside"], "hardly more than where there are no strikes"
    assert raw["band_ringing"] > 0.4 * raw["total"]


@pytest.mark.parametrize("inner", [False, True])
def test_which_race_is_damaged_shows_in_which_frequency_stands_out(inner):
    struck = strikes(**GEOMETRY, angle_deg=0.0)
    found = spectrum(
        damaged(noise=0.2, strike_hz=struck.bpfi if inner else struck.bpfo),
        envelope=ENVELOPE,
        bearing=GEOMETRY | {"tolerance": 2.0},
        stat=[],
    )
    assert sorted(found) == ["envelope_bpfi", "envelope_bpfo", "envelope_bsf", "envelope_ftf"]
    assert max(found, key=found.__getitem__) == ("envelope_bpfi" if inner else "envelope_bpfo")


def test_noise_alone_has_no_line_at_any_strike_frequency():
    signal = np.random.default_rng(8).normal(size=ROWS)
    found = spectrum(signal, envelope=ENVELOPE, bearing=GEOMETRY, harmonics=BESIDE)
    assert max(found[f"envelope_{name}"] for name in ("bpfo", "bpfi")) < 2 * found["envelope_harm_beside"]
