"""What every transform keeps to; one of a new type needs a few configurations here, and nothing else."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dxad import plugin
from dxad.errors import ConfigError
from dxad.types import Channel, Rows, Schema, State, Transform

MS = 1_000_000
PERIOD = 10 * MS
INPUTS = Schema(
    (
        Channel("vib.x", "mm/s", (-50.0, 50.0)),
        Channel("vib.y", "mm/s"),
        Channel("plc.flow", "l/min", (0.0, 400.0)),
    ),
    PERIOD,
)

CASES: dict[str, list[dict[str, Any]]] = {
    "call": [
        {"function": "power", "name": "plc.power", "unit": "W"},
        {"function": "power", "name": "plc.power", "range": [0, 1e3], "keep": False},
        {"function": "broken", "name": "plc.power", "channels": ["plc.*"]},
        {"function": "greedy", "name": "plc.power"},
    ],
    "clip": [
        {"low": -0.5, "high": 20},
        {"low": 0.1, "channels": ["vib.*"]},
        {"high": 3, "outside": "bad", "channels": ["*.x", "plc.flow"]},
    ],
    "deadband": [
        {"band": 0.3},
        {"band": 2, "kind": "percent", "channels": ["*.x", "plc.flow"]},
    ],
    "difference": [
        {},
        {"lag": "70ms", "channels": ["vib.*"], "keep": True},
    ],
    "encode": [
        {"values": [0, 1]},
        {"values": [-1, 0.5, 2], "unseen": "bad", "channels": ["vib.*"], "keep": True},
    ],
    "expression": [
        {"name": "plc.ratio", "formula": "vib.x / (plc.flow - plc.flow // 1)"},
        {"name": "plc.guarded", "formula": "vib.y if isnan(vib.x) else vib.x ** 2", "range": [0, 9]},
        {"name": "plc.high", "formula": "vib.x > 0 and exp(vib.y) < 2 or not plc.flow", "keep": False},
    ],
    "integrate": [
        {},
        {"channels": ["plc.flow"], "per": "1min", "unit": "l", "leak": "100ms", "keep": False},
        {"channels": ["vib.*"], "reset": "plc.flow > 0.1"},
    ],
    "rate": [
        {},
        {"lag": "70ms", "channels": ["vib.*"], "keep": True},
    ],
    "resample": [
        {"every": every, "method": method}
        for every, method in [
            ("10ms", "last"),
            ("50ms", "last"),
            ("30ms", "mean"),
            ("70ms", "min"),
            ("20ms", "max"),
            ("5ms", "last"),
            ("2ms", "linear"),
        ]
    ],
    "swinging_door": [
        {"band": 0.3},
        {"band": 2, "kind": "percent", "channels": ["*.x", "plc.flow"]},
        {"band": 20, "yields": "pivot"},
    ],
    "validate": [
        {"low": -1, "high": 10},
        {"max_rate": 1000, "channels": ["vib.*"]},
        {"stuck": "20ms"},
        {"high": 100, "max_rate": 300, "stuck": "10ms"},
    ],
    "scale": [{"factor": 0.06, "offset": 1.0, "unit": "m3/h"}, {"factor": -2.0, "channels": ["vib.*"]}],
    "smooth": [
        {"span": "10ms"},
        {"span": "70ms", "channels": ["vib.*"]},
        {"span": "1s", "channels": ["plc.flow"]},
        {"span": "30ms", "method": "ewma"},
        {"span": "1s", "method": "ewma", "channels": ["vib.*"]},
        {"span": "50ms", "method": "median"},
        {"span": "40ms", "method": "median", "channels": ["vib.*"]},
    ],
    "summarize": [
        {"stat": stat, "every": every, "over": over}
        for stat, every, over in [
            ("rms", "10ms", "10ms"),
            ("rms", "50ms", "50ms"),
            ("mean", "30ms", "100ms"),
            ("min", "50ms", "20ms"),
            ("max", "20ms", "70ms"),
            ("peak", "40ms", "40ms"),
        ]
    ]
    + [{"channels": ["vib.*"]}]
    + [
        {
            "stat": ["mean", "median", "peak_to_peak", "variance", "std", "count"],
            "every": "30ms",
            "over": "70ms",
        },
        {"stat": ["skewness", "kurtosis"], "every": "110ms"},
        {"stat": ["crest_factor", "shape_factor", "impulse_factor"], "channels": ["*.x"], "over": "130ms"},
    ],
    "spectrum": [
        {"every": "80ms", "max_missing": 0.5, "stat": ["total", "dominant", "amplitude", "centroid"]},
        {"every": "30ms", "over": "110ms", "max_missing": 0.5, "bands": {"low": [5, 20], "high": [30, 50]}},
        {"channels": ["*.x"], "over": "150ms", "max_missing": 0.5, "window": "none"},
        {
            "every": "100ms",
            "over": "200ms",
            "max_missing": 0.5,
            "window": "flattop",
            "stat": ["amplitude"],
            "envelope": {"low": 10, "high": 50},
            "harmonics": {"gear": {"frequency": 11.0, "count": 3, "tolerance": 2.5}},
        },
        {"every": "160ms", "channels": ["vib.*"]},
    ],
    "classify": [
        {"channels": ["vib.*"], "standard": "iso20816-3", "group": 1, "support": "flexible"},
        {"channels": ["*.y"], "limits": [0.1, 1, 10], "hysteresis": 0.7},
    ],
}


def cases() -> Iterator[Any]:
    for kind in plugin.names("transforms"):
        for keys in CASES.get(kind, [{}]):
            yield pytest.param(kind, keys, id=f"{kind}-{'-'.join(map(str, keys.values()))}")


every_case = pytest.mark.parametrize(("kind", "keys"), list(cases()))
every_kind = pytest.mark.parametrize("kind", plugin.names("transforms"))


def make(kind: str, keys: dict[str, Any]) -> Transform:
    found = plugin.load("transforms", kind)
    transform: Transform = found.build(found.config(type=kind, **keys))
    return transform


def random_rows(seed: int, n: int, first: int) -> Rows:
    """Rows with holes of every kind, and numbers whose sums depend on their order."""
    rng = np.random.default_rng(seed)
    width = len(INPUTS.channels)
    values = rng.normal(size=(n, width)) * 10.0 ** rng.integers(-3, 4, size=(n, width))
    states = rng.choice(
        [State.GOOD, State.GOOD, State.GOOD, State.HELD, State.UNCERTAIN, State.BAD, State.EMPTY],
        size=(n, width),
    ).astype(np.uint8)
    gone = rng.random(n) < rng.choice([0.0, 0.3, 0.9])
    states[gone] = State.EMPTY
    values[np.isin(states, (State.BAD, State.EMPTY))] = np.nan
    return Rows(first, PERIOD, values, states)


def cut(rows: Rows, *at: int) -> Iterator[Rows]:
    edges = [0, *sorted(min(each, len(rows)) for each in at), len(rows)]
    for begin, end in pairwise(edges):
        yield Rows(rows.first + begin, rows.period, rows.values[begin:end], rows.states[begin:end])


def test_every_transform_is_tried():
    assert set(CASES) == set(plugin.names("transforms")), (
        "a new transform wants configurations to be tried in"
    )


@every_case
def test_it_makes_the_rows_that_it_declares(kind, keys):
    transform = make(kind, keys)
    declared = transform.outputs(INPUTS)
    made = transform.apply(random_rows(1, 200, first=1000))
    assert made.period == declared.period
    assert made.values.shape == made.states.shape == (len(made), len(declared.channels))
    assert made.values.dtype == np.float64
    assert made.states.dtype == np.uint8
    ended = [1000 * PERIOD // declared.period, 1200 * PERIOD // declared.period]
    assert [made.first, made.first + len(made)] == ended, "one row for each of its slots that has ended"
    assert len({channel.id for channel in declared.channels}) == len(declared.channels)


@every_case
@given(
    seed=st.integers(0, 2**32),
    n=st.integers(0, 60),
    first=st.integers(0, 10**10),
    at=st.lists(st.integers(0, 60), max_size=8),
)
@settings(max_examples=60, deadline=None)
def test_no_cut_of_the_rows_changes_a_bit(*, kind, keys, seed, n, first, at):
    rows = random_rows(seed, n, first)
    whole, pieces = make(kind, keys), make(kind, keys)
    whole.outputs(INPUTS)
    pieces.outputs(INPUTS)
    expected = whole.apply(rows)
    found = [pieces.apply(piece) for piece in cut(rows, *at)]
    np.testing.assert_array_equal(np.concatenate([each.values for each in found]), expected.values)
    np.testing.assert_array_equal(np.concatenate([each.states for each in found]), expected.states)
    slots = np.concatenate([each.first + np.arange(len(each)) for each in found])
    np.testing.assert_array_equal(slots, expected.first + np.arange(len(expected)))


@every_case
def test_a_value_is_known_where_the_state_says_so_and_nowhere_else(kind, keys):
    transform = make(kind, keys)
    transform.outputs(INPUTS)
    made = transform.apply(random_rows(2, 500, first=0))
    np.testing.assert_array_equal(np.isnan(made.values), np.isin(made.states, (State.BAD, State.EMPTY)))


@every_case
def test_the_rows_it_was_given_stay_as_they_were(kind, keys):
    transform = make(kind, keys)
    transform.outputs(INPUTS)
    rows = random_rows(3, 100, first=7)
    values, states = rows.values.copy(), rows.states.copy()
    made = transform.apply(rows)
    np.testing.assert_array_equal(rows.values, values)
    np.testing.assert_array_equal(rows.states, states)
    assert not np.shares_memory(made.values, rows.values)


@every_kind
def test_channels_that_are_not_there_are_refused_before_any_data(kind):
    keys = CASES[kind][0] | {"channels": ["pump.*"]}
    with pytest.raises(ConfigError, match=r"no channel matches pump\.\*"):
        make(kind, keys).outputs(INPUTS)


@pytest.mark.parametrize(
    ("kind", "keys", "message"),
    [
        ("scale", {"factor": 0.0}, "factor 0 would erase the channel"),
        ("smooth", {"span": "15ms"}, "span is no multiple of the rows' period, 10 ms"),
        ("smooth", {"span": "5ms"}, "span is no multiple"),
        ("smooth", {"span": "1h"}, "span is 360000 rows; 10000 at most"),
        ("summarize", {"every": "1h"}, "a result is made of 360000 rows; 65536 at most"),
        ("summarize", {"every": "25ms"}, "every is no multiple"),
        ("summarize", {"every": "50ms", "over": "55ms"}, "over is no multiple"),
        ("spectrum", {"every": "70ms"}, "a spectrum of 7 rows; 8 at least"),
    ],
)
def test_what_the_rows_cannot_give_is_refused_before_any_data(kind, keys, message):
    with pytest.raises(ConfigError, match=message):
        make(kind, keys).outputs(INPUTS)


# Each transform against its formula, written row by row.


def test_scale_is_a_line_in_the_unit_of_the_result():
    transform = make("scale", {"channels": ["plc.flow"], "factor": -0.06, "offset": 30.0, "unit": "m3/h"})
    declared = transform.outputs(INPUTS)
    assert declared.channels[2] == Channel("plc.flow", "m3/h", (6.0, 30.0))
    assert declared.channels[:2] == INPUTS.channels[:2]
    rows = random_rows(4, 50, first=0)
    made = transform.apply(rows)
    np.testing.assert_array_equal(made.values[:, 2], -0.06 * rows.values[:, 2] + 30.0)
    np.testing.assert_array_equal(made.values[:, :2], rows.values[:, :2])


def test_smooth_is_the_mean_of_what_is_known_in_the_span():
    transform = make("smooth", {"channels": ["vib.*"], "span": "70ms"})
    transform.outputs(INPUTS)
    rows = random_rows(5, 100, first=0)
    made = transform.apply(rows)
    for row in range(100):
        for column in (0, 1):
            behind = rows.values[max(0, row - 6) : row + 1, column]
            expected = np.nan if np.isnan(behind[-1]) else np.nanmean(behind)
            np.testing.assert_allclose(made.values[row, column], expected, rtol=1e-12)
    np.testing.assert_array_equal(made.values[:, 2], rows.values[:, 2])


def moment(x, order):
    return np.mean((x - np.mean(x)) ** order)


FORMULAS = {
    "rms": lambda x: np.sqrt(np.mean(x**2)),
    "mean": np.mean,
    "median": np.median,
    "min": np.min,
    "max": np.max,
    "peak": lambda x: np.max(np.abs(x)),
    "peak_to_peak": np.ptp,
    "variance": np.var,
    "std": np.std,
    "crest_factor": lambda x: np.max(np.abs(x)) / np.sqrt(np.mean(x**2)),
    "shape_factor": lambda x: np.sqrt(np.mean(x**2)) / np.mean(np.abs(x)),
    "impulse_factor": lambda x: np.max(np.abs(x)) / np.mean(np.abs(x)),
    "skewness": lambda x: moment(x, 3) / moment(x, 2) ** 1.5,
    "kurtosis": lambda x: moment(x, 4) / moment(x, 2) ** 2,
    "count": len,
}
UNITS = {"variance": "(mm/s)²"} | dict.fromkeys(
    ("crest_factor", "shape_factor", "impulse_factor", "skewness", "kurtosis", "count"), "1"
)


@pytest.mark.parametrize("first", [0, 3, 9])
@pytest.mark.parametrize("stat", FORMULAS)
def test_summarize_yields_its_formula_at_the_end_of_each_stretch(stat, first):
    transform = make("summarize", {"channels": ["vib.x"], "stat": stat, "every": "50ms", "over": "80ms"})
    declared = transform.outputs(INPUTS)
    unit = UNITS.get(stat, "mm/s")
    assert [(channel.id, channel.unit) for channel in declared.channels] == [(f"vib.x.{stat}", unit)]
    assert declared.period == 50 * MS
    rows = random_rows(6, 100, first=first)
    made = transform.apply(rows)
    assert made.first == first // 5
    for place in range(len(made)):
        end = (made.first + place + 1) * 5 - first
        behind = rows.values[max(0, end - 8) : end, 0]
        known = behind[~np.isnan(behind)]
        enough = len(known) >= 4 or stat == "count"
        expected = FORMULAS[stat](known) if enough else np.nan
        np.testing.assert_allclose(made.values[place, 0], expected, rtol=1e-9)
        measured = (rows.states[max(0, end - 8) : end, 0] == State.GOOD).any() or stat == "count"
        behind_it = {State(each) for each in rows.states[max(0, end - 8) : end, 0]}
        state = (State.GOOD if measured else State.HELD) if enough else State.EMPTY
        if stat != "count" and behind_it & {State.BAD, State.UNCERTAIN} and enough:
            state = State.UNCERTAIN
        elif stat != "count" and State.BAD in behind_it:
            state = State.BAD
        assert made.states[place, 0] == state
