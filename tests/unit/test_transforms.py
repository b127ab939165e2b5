"""Each transform against its formula, written row by row."""

import math
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from dxad import plugin
from dxad.errors import ConfigError
from dxad.types import Channel, Rows, Schema, State, Transform

MS = 1_000_000
PERIOD = 100 * MS
NAN = math.nan
INPUTS = Schema(
    (
        Channel("plc.flow", "l/min", (0.0, 400.0)),
        Channel("plc.mode"),
        Channel("vib.x", "mm/s", (-50.0, 50.0)),
    ),
    PERIOD,
)
STATES = {
    "E": State.EMPTY,
    "G": State.GOOD,
    "H": State.HELD,
    "U": State.UNCERTAIN,
    "B": State.BAD,
}


def ready(inputs: Schema = INPUTS, **keys: Any) -> tuple[Transform, Schema]:
    found = plugin.load("transforms", keys["type"])
    transform: Transform = found.build(found.config(**keys))
    return transform, transform.outputs(inputs)


def table(*columns: list[float], states: list[str] | None = None, first: int = 0) -> Rows:
    """Rows of these columns; what is not NaN is good unless a string says otherwise."""
    values = np.array(columns, dtype=np.float64).T
    kinds = np.where(np.isnan(values), np.uint8(State.EMPTY), np.uint8(State.GOOD))
    for place, each in enumerate(states or []):
        kinds[:, place] = [STATES[letter] for letter in each]
    return Rows(first, PERIOD, values, kinds)


def one(x: list[float], *, states: str | None = None, inputs: Schema | None = None, **keys: Any):
    """What becomes of one channel: `plc.flow` alone."""
    inputs = inputs or Schema(INPUTS.channels[:1], PERIOD)
    transform, _ = ready(inputs, channels=["plc.flow"], **keys)
    made = transform.apply(table(x, states=None if states is None else [states]))
    letters = {state: letter for letter, state in STATES.items()}
    return made.values[:, -1].tolist(), "".join(letters[State(state)] for state in made.states[:, -1])


def walk(seed: int, n: int, gone: float = 0.1) -> np.ndarray:
    rng = np.random.default_rng(seed)
    x = np.cumsum(rng.normal(size=n))
    x[rng.random(n) < gone] = NAN
    return x


def same(found, expected, rtol=1e-12) -> None:
    np.testing.assert_allclose(found, expected, rtol=rtol, atol=1e-12)


# clip


def test_clip_moves_what_lies_outside_to_the_edge():
    made, states = one([-5, 0, 7, 500, NAN], type="clip", low=0, high=9.5)
    same(made, [0, 0, 7, 9.5, NAN])
    assert states == "GGGGE"


def test_clip_makes_bad_what_lies_outside():
    made, states = one([-5, 0, 7, NAN], type="clip", low=0, outside="bad")
    same(made, [NAN, 0, 7, NAN])
    assert states == "BGGE"


def test_clip_leaves_the_part_of_the_range_that_is_within():
    _, declared = ready(type="clip", low=-10, high=100)
    assert [channel.range for channel in declared.channels] == [(0.0, 100.0), (-10.0, 100.0), (-10.0, 50.0)]
    _, declared = ready(type="clip", channels=["plc.mode"], low=-10)
    assert declared.channels[1].range is None
    with pytest.raises(ConfigError, match=r"nothing of the range of 'plc\.flow' lies within the limits"):
        ready(type="clip", low=1000)


# deadband


def test_deadband_repeats_a_value_until_it_moves_by_more_than_the_band():
    made, states = one([10, 11, 12, 12.5, NAN, 11, 10, 13], type="deadband", band=2)
    same(made, [10, 10, 10, 12.5, NAN, 12.5, 10, 13])
    assert states == "GGGGEGGG"


@pytest.mark.parametrize("seed", range(3))
def test_deadband_in_percent_is_of_the_range(seed):
    x = walk(seed, 200)
    expected, last = [], None
    for value in x:
        if not math.isnan(value) and (last is None or abs(value - last) > 0.5 / 100 * 400):
            last = value
        expected.append(NAN if math.isnan(value) else last)
    same(one(list(x), type="deadband", band=0.5, kind="percent")[0], expected)


@pytest.mark.parametrize("kind", ["deadband", "swinging_door"])
def test_percents_want_a_range(kind):
    with pytest.raises(ConfigError, match=r"'plc\.mode' has no range to take percents of"):
        ready(type=kind, channels=["plc.mode"], band=1, kind="percent")


# swinging_door


def doors(x, band):
    """From the definition: the slopes that are left are worked out from all values since the pivot."""
    pivot = last = None
    trend, pivots = [], []
    since: list[tuple[int, float]] = []
    for t, value in enumerate(x):
        if math.isnan(value):
            trend.append(NAN)
            pivots.append(NAN)
            continue
        if pivot is None:
            pivot = (t, value)
            trend.append(value)
        else:
            since.append((t, value))
            low, high = slopes(pivot, since, band)
            if low > high:
                pivot, since = last, [(t, value)]
                low, high = slopes(pivot, since, band)
            trend.append(pivot[1] + (t - pivot[0]) * (low + high) / 2)
        pivots.append(pivot[1])
        last = (t, value)
    return trend, pivots


def slopes(pivot, since, band):
    low = max((value - band - pivot[1]) / (t - pivot[0]) for t, value in since)
    high = min((value + band - pivot[1]) / (t - pivot[0]) for t, value in since)
    return low, high


@pytest.mark.parametrize("band", [0.01, 1.0, 5.0])
@pytest.mark.parametrize("seed", range(3))
def test_swinging_door_is_a_line_down_the_middle_of_the_doors(seed, band):
    x = list(walk(seed, 200))
    trend, pivots = doors(x, band)
    found = one(x, type="swinging_door", band=band)[0]
    same(found, trend, rtol=1e-9)
    same(one(x, type="swinging_door", band=band, yields="pivot")[0], pivots)
    assert np.nanmax(np.abs(np.array(found) - x)) <= band * (1 + 1e-9)


def test_swinging_door_begins_a_new_line_where_no_line_passes_all_values():
    x = [0, 1, 2, 3, 3, 3, 3, 3, 3]
    pivots = one(x, type="swinging_door", band=0.4, yields="pivot")[0]
    assert pivots == [0, 0, 0, 0, 3, 3, 3, 3, 3]
    steep = [2.0 * t for t in range(50)]
    assert set(one(steep, type="swinging_door", band=0.1, yields="pivot")[0]) == {0.0}


# resample


def resampled(x, *, every, method, states=None, first=0):
    inputs = Schema(INPUTS.channels[:1], PERIOD)
    transform, declared = ready(inputs, type="resample", every=every, method=method)
    assert declared.channels == inputs.channels
    made = transform.apply(table(x, states=states and [states], first=first))
    assert made.period == declared.period
    letters = {state: letter for letter, state in STATES.items()}
    return (
        made.first,
        made.values[:, 0].tolist(),
        "".join(letters[State(state)] for state in made.states[:, 0]),
    )


@pytest.mark.parametrize(
    ("method", "expected", "kinds"),
    [
        ("last", [3, 4, NAN, 7], "GHBG"),
        ("mean", [2, 4, NAN, 6.5], "GHBG"),
        ("min", [1, 4, NAN, 6], "GHBG"),
        ("max", [3, 4, NAN, 7], "GHBG"),
    ],
)
def test_resample_to_fewer_rows_gathers_what_is_known(method, expected, kinds):
    x = [1, 2, 3, 4, NAN, NAN, NAN, NAN, NAN, 6, 7, NAN, 99]
    first, made, states = resampled(x, every="300ms", method=method, states="GGGHEEEEBUGEG")
    assert first == 0
    same(made, expected)
    assert states == kinds


def test_resample_begins_with_the_stretch_in_which_the_first_row_lies():
    first, made, _ = resampled([5, 6, 7, 8], every="300ms", method="last", first=7)
    assert (first, made) == (2, [6])
    first, made, states = resampled([5, 6, 7, 8, 9], every="300ms", method="mean", first=7)
    assert (first, made, states) == (2, [5.5, 8], "GG")


def test_resample_to_more_rows_repeats_or_leads_on():
    first, made, states = resampled([2, 4, NAN, 8], every="25ms", method="last", first=3)
    assert first == 12
    same(made, [2] * 4 + [4] * 4 + [NAN] * 4 + [8] * 4)
    assert states == "HHHGHHHGEEEEHHHG"
    first, made, states = resampled([2, 4, NAN, 8], every="25ms", method="linear", first=3)
    same(made, [NAN, NAN, NAN, 2, 2.5, 3, 3.5, 4, NAN, NAN, NAN, NAN, NAN, NAN, NAN, 8])
    assert states == "EEEGHHHGEEEEEEEG"


@pytest.mark.parametrize(
    ("every", "method", "message"),
    [
        ("250ms", "last", "do not divide one another"),
        ("30ms", "last", "do not divide one another"),
        ("1s", "linear", "linear is for more rows"),
        ("50ms", "mean", "mean is for fewer rows"),
        ("1h", "mean", "further than 10000 times"),
        ("1us", "linear", "further than 10000 times"),
    ],
)
def test_resample_refuses_what_it_cannot_give(every, method, message):
    with pytest.raises(ConfigError, match=message):
        ready(type="resample", every=every, method=method)


# smooth


def test_smooth_by_ewma_weighs_the_old_with_what_the_span_says():
    x = list(walk(1, 300, gone=0.2))
    x[100:120] = [NAN] * 20
    a, y, last, expected = 2 / (7 + 1), 0.0, None, []
    for t, value in enumerate(x):
        if not math.isnan(value):
            y = value if last is None or t - last > 7 else (1 - a) * y + a * value
            last = t
        expected.append(NAN if math.isnan(value) else y)
    found = one(x, type="smooth", span="700ms", method="ewma")[0]
    same(found, expected, rtol=1e-9)
    assert found[120] == x[120] or math.isnan(x[120])


@pytest.mark.parametrize("span", [1, 4, 7])
@pytest.mark.parametrize("gone", [0.0, 0.4])
def test_smooth_by_median_takes_the_middle_of_what_is_known(span, gone):
    x = walk(2, 100, gone=gone)
    expected = [
        NAN if math.isnan(x[t]) else np.nanmedian(x[max(0, t - span + 1) : t + 1]) for t in range(len(x))
    ]
    same(one(list(x), type="smooth", span=f"{span * 100}ms", method="median")[0], expected)


def test_a_median_over_very_many_rows_is_refused():
    with pytest.raises(ConfigError, match="span is 2000 rows; 1000 at most for a median"):
        ready(type="smooth", span="200s", method="median")


# difference and rate


@pytest.mark.parametrize(("kind", "per"), [("difference", 1.0), ("rate", 0.3)])
def test_a_change_is_against_the_row_some_time_ago(kind, per):
    x = walk(3, 60)
    expected = [NAN] * 3 + [(x[t] - x[t - 3]) / per for t in range(3, 60)]
    same(one(list(x), type=kind, lag="300ms")[0], expected)


def test_a_change_is_as_good_as_the_worse_of_its_cells():
    made, states = one([1, 2, 3, NAN, 5, 6], states="GHUBGG", type="difference")
    same(made, [NAN, 1, 1, NAN, NAN, 1])
    assert states == "EHUBBG"


def test_a_change_is_a_channel_of_its_own_with_its_unit_and_range():
    _, declared = ready(type="difference", channels=["vib.x"])
    assert declared.channels == (*INPUTS.channels[:2], Channel("vib.x.difference", "mm/s", (-100.0, 100.0)))
    _, declared = ready(type="rate", channels=["vib.x", "plc.mode"], keep=True)
    assert declared.channels == (
        *INPUTS.channels,
        Channel("plc.mode.rate", "1/s"),
        Channel("vib.x.rate", "mm/s/s", (-1000.0, 1000.0)),
    )


def test_an_overflow_is_a_bad_cell():
    made, states = one([1e308, -1e308, 0], type="rate")
    assert np.isnan(made).all()
    assert states == "EBB"


# integrate


def test_integrate_adds_trapezoids_and_nothing_over_a_gap():
    made, states = one([6, 12, NAN, 6, 6, 0], type="integrate", per="1min", unit="l")
    per_row = 0.1 / 60
    same(made, [0, 9 * per_row, NAN, 9 * per_row, 15 * per_row, 18 * per_row])
    assert states == "GGEGGG"


def test_integrate_forgets_through_its_leak_and_begins_again_where_it_is_told():
    x, mode = walk(4, 200), np.arange(200) % 50
    mode = np.where(mode == 7, NAN, mode)
    transform, declared = ready(
        type="integrate", channels=["vib.x"], leak="2s", reset="plc.mode == 20 or plc.mode == 7", keep=False
    )
    assert declared.channels == (*INPUTS.channels[:2], Channel("vib.x.integral", "mm/s*s"))
    found = transform.apply(table([0.0] * 200, list(mode), list(x))).values[:, 2]
    total, expected = 0.0, []
    for t in range(200):
        area = (x[t - 1] + x[t]) / 2 * 0.1 if t else NAN
        total = total * math.exp(-0.1 / 2) + (0.0 if math.isnan(area) else area)
        total = 0.0 if mode[t] == 20 else total
        expected.append(NAN if math.isnan(x[t]) else total)
    same(found, expected, rtol=1e-9)


def test_integrate_names_the_unit_it_makes():
    def unit(**keys):
        return (
            ready(type="integrate", channels=keys.pop("channels", ["plc.flow"]), **keys)[1].channels[-1].unit
        )

    assert unit() == "l/min*s"
    assert unit(per="1min") == "l/min*(60 s)"
    assert unit(per="1min", unit="l") == "l"
    assert unit(channels=["plc.mode"]) == "s"
    with pytest.raises(ConfigError, match=r"reset: .* no channel 'plc\.mood' here, did you mean 'plc\.mode'"):
        unit(reset="plc.mood == 1")


# validate


def test_validate_takes_away_what_lies_outside():
    made, states = one([-1, 0, 5, 6, NAN], type="validate", low=0, high=5)
    same(made, [NAN, 0, 5, NAN, NAN])
    assert states == "BGGBE"


def test_validate_takes_away_a_spike_and_nothing_else():
    made, states = one([1, 1.1, 80, 1.2, 1.3], type="validate", max_rate=2)
    same(made, [1, 1.1, NAN, 1.2, 1.3])
    assert states == "GGBGG"


def test_validate_accepts_a_step_once_it_is_slow_enough():
    _, states = one([0.0] + [1.0] * 8, type="validate", max_rate=2)
    assert states == "GBBBBGGGG"  # 1.0 in 0.5 s is as fast as it may be


@pytest.mark.parametrize("seed", range(4))
def test_validate_measures_a_rate_from_the_last_value_it_accepted(seed):
    x = walk(seed, 150)
    kinds = "".join(np.random.default_rng(seed).choice(list("GGGH"), size=150))
    kinds = "".join("E" if math.isnan(value) else kind for value, kind in zip(x, kinds, strict=True))
    last, expected = None, []
    for t, (value, kind) in enumerate(zip(x, kinds, strict=True)):
        fast = last is not None and abs(value - last[1]) > 8.0 * 0.1 * (t - last[0])
        expected.append("B" if fast else kind)
        if kind == "G" and not fast:
            last = (t, value)
    assert one(list(x), states=kinds, type="validate", max_rate=8)[1] == "".join(expected)


def test_validate_takes_away_a_value_that_is_stuck():
    made, states = one([1, 2, 2, 2, 2, 2, 3, 3, NAN, 3, 3, 3], type="validate", stuck="200ms")
    assert states == "GGGGBBGGEGGG"
    assert np.isnan(made).tolist() == [letter in "BE" for letter in states]


def test_a_value_that_is_only_held_is_not_stuck_but_what_is_stuck_stays_so_while_held():
    assert one([1] * 6, states="GHHHHH", type="validate", stuck="200ms")[1] == "GHHHHH"
    assert one([1] * 6, states="GGGGHH", type="validate", stuck="200ms")[1] == "GGGBBB"
    assert one([1] * 6, states="GHHHHG", type="validate", stuck="200ms")[1] == "GHHHHB"


# encode


def test_encode_makes_a_channel_for_each_state():
    transform, declared = ready(type="encode", channels=["plc.mode"], values=[1, 2.5, -3])
    names = ["plc.mode.is_1", "plc.mode.is_2_5", "plc.mode.is_-3"]
    assert declared.channels == (
        INPUTS.channels[0],
        INPUTS.channels[2],
        *(Channel(name, "", (0.0, 1.0)) for name in names),
    )
    made = transform.apply(
        table([9.0] * 5, [1, -3, 2.5, 7, NAN], [8.0] * 5, states=["GGGGG", "GHGGE", "GGGGG"])
    )
    same(made.values[:, 2:].T, [[1, 0, 0, 0, NAN], [0, 0, 1, 0, NAN], [0, 1, 0, 0, NAN]])
    assert made.states[:, 3].tolist() == [State.GOOD, State.HELD, State.GOOD, State.GOOD, State.EMPTY]
    same(made.values[:, :2], [[9.0, 8.0]] * 5)


def test_encode_makes_bad_what_was_not_foreseen():
    transform, _ = ready(type="encode", channels=["plc.mode"], values=[1], unseen="bad", keep=True)
    made = transform.apply(table([0.0] * 2, [1, 7], [0.0] * 2))
    same(made.values[:, 3], [1, NAN])
    assert made.states[:, 3].tolist() == [State.GOOD, State.BAD]


# expression


def test_expression_is_as_good_as_the_worst_cell_it_reads():
    transform, declared = ready(type="expression", name="plc.ratio", formula="vib.x / plc.flow", unit="1")
    assert declared.channels == (*INPUTS.channels, Channel("plc.ratio", "1"))
    rows = table(
        [2, 2, 2, NAN, NAN, 0],
        [NAN] * 6,
        [6, 6, 6, 6, 6, 6],
        states=["GHUEBG", "EEEEEE", "GGGGGG"],
    )
    made = transform.apply(rows)
    same(made.values[:, 3], [3, 3, 3, NAN, NAN, NAN])
    expected = [State.GOOD, State.HELD, State.UNCERTAIN, State.EMPTY, State.BAD, State.BAD]
    assert made.states[:, 3].tolist() == expected


def test_expression_that_is_known_without_a_cell_is_uncertain():
    transform, _ = ready(type="expression", name="plc.any", formula="vib.x if isnan(plc.flow) else plc.flow")
    made = transform.apply(table([NAN, 2], [0, 0], [6, 6]))
    assert made.values[:, 3].tolist() == [6, 2]
    assert made.states[:, 3].tolist() == [State.UNCERTAIN, State.GOOD]


def test_expression_may_replace_what_it_reads_and_has_a_range():
    transform, declared = ready(
        type="expression", name="plc.sum", formula="vib.x + plc.flow", keep=False, range=[0, 10]
    )
    assert declared.channels == (INPUTS.channels[1], Channel("plc.sum", "", (0.0, 10.0)))
    made = transform.apply(table([1, 9], [5, 5], [2, 3]))
    same(made.values, [[5, 3], [5, NAN]])
    assert made.states[:, 1].tolist() == [State.GOOD, State.BAD]


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"formula": "plc.flw * 2"}, r"formula: .* no channel 'plc\.flw' here, did you mean 'plc\.flow'"),
        ({"formula": "vib.x * 2", "channels": ["plc.*"]}, r"formula: .* no channel 'vib\.x' here"),
        ({"formula": "vib.x * 2", "name": "plc.flow"}, r"there would be two channels 'plc\.flow'"),
    ],
)
def test_expression_is_refused_before_any_data(keys, message):
    with pytest.raises(ConfigError, match=message):
        ready(**{"type": "expression", "name": "plc.new"} | keys)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"type": "expression", "name": "plc.new", "formula": "plc.a.b()"}, "column 1 of 'plc.a.b"),
        ({"type": "expression", "name": "new", "formula": "plc.a"}, "a channel is source.name"),
        ({"type": "integrate", "reset": "1 +"}, "invalid syntax"),
        ({"type": "clip"}, "give low, high or both"),
        ({"type": "clip", "low": 2, "high": 1}, "low 2 is not below high 1"),
        ({"type": "validate"}, "give one of low, high, max_rate and stuck"),
        ({"type": "validate", "low": 2, "high": 1}, "low 2 is not below high 1"),
        ({"type": "encode", "values": [1, 1]}, "a value stands among values twice"),
        ({"type": "encode", "values": []}, "at least 1 item"),
        ({"type": "deadband", "band": 0}, "greater than 0"),
        ({"type": "swinging_door", "band": math.inf}, "finite number"),
    ],
)
def test_a_configuration_that_makes_no_sense_is_refused(keys, message):
    with pytest.raises(ValidationError, match=message):
        plugin.load("transforms", keys["type"]).config(**keys)


# call


def called(function: str, **keys: Any):
    return ready(type="call", function=function, name="plc.made", **keys)


def test_call_runs_a_function_that_is_installed_beside_dxad():
    transform, declared = called("power", unit="W", range=[0, 100])
    assert declared.channels == (*INPUTS.channels, Channel("plc.made", "W", (0.0, 100.0)))
    made = transform.apply(table([4, 300, NAN], [0, 0, 0], [0, 0, 0]))
    same(made.values[:, 3], [2, NAN, NAN])
    assert made.states[:, 3].tolist() == [State.GOOD, State.BAD, State.EMPTY]
    assert transform.fault is None


def test_call_gives_copies():
    transform, _ = called("greedy")
    rows = table([4], [0], [1])
    assert transform.apply(rows).values.tolist() == [[4, 0, 1, 2]]
    assert rows.values.tolist() == [[4, 0, 1]]


@pytest.mark.parametrize(
    ("function", "fault"),
    [
        ("broken", "broken: ZeroDivisionError: as a user's function may"),
        ("short", r"short: its result has the shape (1,), not (2,), one number for each row"),
        ("wordy", "wordy: ValueError: could not convert string to float: "),
        ("quitting", "quitting: SystemExit: 3"),
    ],
)
def test_call_of_a_function_that_fails_costs_its_own_channel_alone(function, fault):
    transform, _ = called(function)
    made = transform.apply(table([4, 4], [0, 0], [1, 1]))
    same(made.values, [[4, 0, 1, NAN]] * 2)
    assert (made.states[:, 3] == State.BAD).all()
    assert (made.states[:, :3] == State.GOOD).all()
    assert transform.fault.startswith(fault)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("powr", r"no entry point 'powr' in the group dxad\.functions, did you mean 'power'\?"),
        ("gone", r"function 'gone': plant_functions:gone cannot be imported"),
        ("lost", r"function 'lost': no_such_library_xyz:f cannot be imported: No module named"),
        ("constant", r"function 'constant': its entry point is a int, not a function"),
    ],
)
def test_call_of_what_is_not_there_is_refused_before_any_data(function, message):
    with pytest.raises(ConfigError, match=message):
        called(function)
