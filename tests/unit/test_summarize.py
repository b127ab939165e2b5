"""Statistics of stretches of rows: what they are worth at the edges, and what happens to other channels."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from pydantic import ValidationError

from dxad.errors import ConfigError
from dxad.plugin import load
from dxad.shape import chain
from dxad.types import Channel, Rows, Schema, State

MS = 1_000_000
RATIOS = ("crest_factor", "shape_factor", "impulse_factor", "skewness", "kurtosis")


def section(**keys):
    return load("transforms", "summarize").config(type="summarize", **keys)


def rows_of(*columns, first=0, period=10 * MS) -> Rows:
    values = np.array(columns, dtype=float).T
    states = np.where(np.isnan(values), State.EMPTY, State.GOOD).astype(np.uint8)
    return Rows(first, period, values, states)


def summarized(values, stats, **keys) -> dict[str, float]:
    """The one result over all the values, by statistic."""
    over = f"{len(values) * 10}ms"
    schema = Schema((Channel("vib.x", "g"),), 10 * MS)
    (transform,) = (load("transforms", "summarize").build(section(stat=stats, every=over, **keys)),)
    transform.outputs(schema)
    made = transform.apply(rows_of(values))
    assert len(made) == 1
    unknown = made.states[0] == State.EMPTY
    assert_array_equal(np.isnan(made.values[0]), unknown)
    return dict(zip(stats, made.values[0], strict=True))


def test_the_known_values_of_a_sine():
    sine = np.sin(2 * np.pi * np.arange(1000) / 100)
    found = summarized(sine, (*RATIOS, "rms", "std"))
    assert_allclose(found["rms"], np.sqrt(0.5))
    assert_allclose(found["std"], np.sqrt(0.5))
    assert_allclose(found["crest_factor"], np.sqrt(2))
    assert_allclose(found["shape_factor"], np.pi / np.sqrt(8), rtol=1e-3)
    assert_allclose(found["impulse_factor"], np.pi / 2, rtol=1e-3)
    assert_allclose(found["kurtosis"], 1.5)
    assert abs(found["skewness"]) < 1e-12


def test_kurtosis_is_pearson_s_so_noise_has_three():
    noise = np.random.default_rng(1).normal(size=50_000)
    assert_allclose(summarized(noise, ("kurtosis",))["kurtosis"], 3.0, atol=0.1)


@pytest.mark.parametrize("level", [0.1, 1e9 / 3, -1e-9 / 7])
def test_a_channel_that_stands_still_has_no_spread_and_no_moments_to_speak_of(level):
    found = summarized([level] * 777, ("std", "variance", "peak_to_peak", "skewness", "kurtosis", "mean"))
    assert (found["std"], found["variance"], found["peak_to_peak"]) == (0.0, 0.0, 0.0)
    assert np.isnan(found["skewness"])
    assert np.isnan(found["kurtosis"])
    assert_allclose(found["mean"], level, rtol=1e-14)


def test_a_channel_that_is_zero_throughout_has_no_ratios():
    found = summarized([0.0] * 50, (*RATIOS, "rms", "count"))
    assert found["rms"] == 0.0
    assert found["count"] == 50.0
    assert all(np.isnan(found[stat]) for stat in RATIOS)


def test_a_small_spread_far_from_zero_is_not_lost():
    noise = np.random.default_rng(2).normal(size=4096)
    near, far = (summarized(noise + offset, ("variance", "kurtosis")) for offset in (0.0, 1e7))
    assert_allclose(far["variance"], near["variance"], rtol=1e-8)
    assert_allclose(far["kurtosis"], near["kurtosis"], rtol=1e-6)


def test_what_is_too_large_to_be_squared_is_not_known_rather_than_infinite():
    found = summarized([1e200, -1e200] * 10, ("rms", "peak"))
    assert np.isnan(found["rms"])
    assert found["peak"] == 1e200


def test_a_stretch_beside_one_with_holes_has_the_same_bits():
    rng = np.random.default_rng(3)
    stats = (*RATIOS, "rms", "mean", "median", "std", "min", "max", "count")
    schema = Schema((Channel("vib.x"), Channel("vib.y")), 10 * MS)
    whole = rng.normal(size=640) * 10.0 ** rng.integers(-3, 4, size=640)
    holes = np.where(rng.random(640) < 0.2, np.nan, whole)
    made = []
    for beside in (whole, holes):
        transform = load("transforms", "summarize").build(section(stat=stats, every="640ms"))
        transform.outputs(schema)
        made.append(transform.apply(rows_of(whole, beside)).values[:, : len(stats)])
    assert_array_equal(made[0], made[1])


def test_a_rolling_statistic_leaves_the_other_channels_as_they_are_and_where_they_are():
    schema = Schema(
        (Channel("plc.flow", "l/min", (0.0, 9.0)), Channel("vib.x", "g"), Channel("plc.run")), 100 * MS
    )
    transforms, after = chain([section(channels=["vib.*"], stat=["std", "variance"], over="300ms")], schema)
    assert after.channels == (
        schema.channels[0], Channel("vib.x.std", "g"), Channel("vib.x.variance", "g²"), schema.channels[2],
    )  # fmt: skip
    flow, run = np.arange(8.0), np.array([1.0, np.nan] * 4)
    given = rows_of(flow, [1.0, 2.0, 6.0, np.nan, 1.0, 1.0, 1.0, 1.0], run, first=40, period=100 * MS)
    made = transforms[0].apply(given)
    assert (made.first, len(made), made.period) == (40, 8, 100 * MS)
    assert_array_equal(made.values[:, [0, 3]], given.values[:, [0, 2]])
    assert_array_equal(made.states[:, [0, 3]], given.states[:, [0, 2]])
    assert_allclose(made.values[:, 1], [np.nan, 0.5, np.std([1, 2, 6]), 2.0, 2.5, 0.0, 0.0, 0.0])


def test_one_statistic_may_be_written_without_a_list():
    assert section(stat="rms") == section(stat=["rms"])
    with pytest.raises(ValidationError, match="crest"):
        section(stat=["rms", "crest"])
    with pytest.raises(ValidationError, match="at least 1 item"):
        section(stat=[])


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"stat": ["rms", "rms"]}, "there would be two channels 'vib.x.rms'"),
        ({"channels": ["vib.x"]}, "there would be two channels 'vib.x.rms'"),
        ({"every": "50s", "channels": ["*.x*", "g*.*"]}, "5000 rows of 1002 channels; 838 channels at most"),
    ],
)
def test_what_cannot_be_is_refused_before_any_data(keys, message):
    others = tuple(Channel(f"g{number}.z") for number in range(1000))
    schema = Schema((Channel("vib.x"), Channel("vib.x.rms"), *others), 10 * MS)
    with pytest.raises(ConfigError, match=message):
        load("transforms", "summarize").build(section(**keys)).outputs(schema)


@pytest.mark.parametrize(("every", "over"), [(1, 40), (7, 3000), (9000, 2), (20_000, 20_000), (3, 1)])
def test_many_rows_at_once_are_the_same_as_a_few_at_a_time(every, over):
    rng = np.random.default_rng(4)
    schema = Schema((Channel("vib.x"), Channel("vib.y")), MS)
    given = rows_of(*rng.normal(size=(2, 45_000)), first=123, period=MS)
    made = []
    for batch in (45_000, 977):
        keys = {"stat": ["rms", "kurtosis"], "every": f"{every}ms", "over": f"{over}ms"}
        transform = load("transforms", "summarize").build(section(**keys))
        transform.outputs(schema)
        parts = [
            transform.apply(Rows(123 + at, MS, given.values[at : at + batch], given.states[at : at + batch]))
            for at in range(0, 45_000, batch)
        ]
        made.append(np.concatenate([part.values for part in parts]))
    assert len(made[0]) == (45_000 + 123) // every - 123 // every
    assert_array_equal(made[0], made[1])


def test_nothing_from_before_a_gap_is_mixed_with_what_comes_after():
    schema = Schema((Channel("vib.x"),), 10 * MS)
    transform = load("transforms", "summarize").build(section(stat="max", over="100ms"))
    transform.outputs(schema)
    transform.apply(rows_of([9.0] * 20, first=100))
    after = transform.apply(rows_of([1.0] * 20, first=500))
    assert_array_equal(after.values[:, 0], [np.nan] * 4 + [1.0] * 16)


@pytest.mark.parametrize("stat", ["rms", "count"])
def test_a_long_outage_is_the_same_at_once_and_in_pieces(stat):
    outage = np.concatenate((np.ones(300), np.full(20_000, np.nan), np.ones(300)))
    made = []
    for batch in (len(outage), 37):
        transform = load("transforms", "summarize").build(section(stat=stat, over="1s"))
        transform.outputs(Schema((Channel("vib.x"),), 10 * MS))
        parts = [
            transform.apply(rows_of(outage[at : at + batch], first=at)) for at in range(0, len(outage), batch)
        ]
        made.append(np.concatenate([part.values for part in parts]))
    assert_array_equal(made[0], made[1])
    assert_array_equal(np.isnan(made[0][400:20_300, 0]), stat == "rms")
