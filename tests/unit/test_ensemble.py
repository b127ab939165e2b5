"""Several models on the same rows: each judged as if it were alone."""

import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dxad import config, plugin
from dxad.detector import Detector
from dxad.errors import ModelError
from dxad.models.ensemble import Ensemble
from dxad.types import Calibration, Channel, Document, Model, Rows, Scores, State, Windows

NAN = float("nan")
CHANNELS = tuple(Channel(f"s.c{n}") for n in range(6))


class Level:
    """Scores a window by the mean of its first channel; calibrated as it is told."""

    version = "level"

    def __init__(self, calibration: Calibration | None, *, rows: int = 1, fails: bool = False) -> None:
        self.calibration = calibration
        self.fails = fails
        self.rows = rows
        self.shown: list[Windows] = []
        self.forgiven = 0
        self.closed = False
        self.learned: Document = {}

    def load(self, _channels: Sequence[Channel], _rows: int | None, *, by: int | None = None) -> int:
        if by is not None:
            raise ModelError("this model knows no regimes")
        return self.rows

    def score(self, windows: Windows) -> Scores:
        if self.fails:
            raise ModelError("inference failed")
        self.shown.append(windows)
        found = windows.values[:, :, 0].mean(axis=1).astype(np.float64)
        return Scores(found, np.abs(windows.values[:, -1].astype(np.float64)))

    def state(self) -> Document:
        return self.learned

    def restore(self, state: Document) -> None:
        self.learned = state

    def forgive(self) -> None:
        self.forgiven += 1

    def close(self) -> None:
        self.closed = True


def of(*models: Model, combine: Any = "max", quorum: int | None = None) -> Ensemble:
    ensemble = Ensemble([("level", model) for model in models], combine=combine, quorum=quorum)
    ensemble.load(CHANNELS, None)
    return ensemble


def made(combine: str, *members: dict[str, Any], **keys: Any) -> Ensemble:
    found = plugin.load("models", "ensemble")
    section = {"type": "ensemble", "combine": combine, "models": list(members), **keys}
    ensemble: Ensemble = found.build(found.config.model_validate(section), state_dir=Path())
    return ensemble


def alone(member: dict[str, Any]) -> Model:
    found = plugin.load("models", member["type"])
    model: Model = found.build(found.config.model_validate(member), state_dir=Path())
    return model


def windows_of(values: Sequence[Sequence[float]] | np.ndarray, first: int = 0, **keys: Any) -> Windows:
    single = np.asarray(values, dtype=np.float32)[:, None, :]
    bad = np.isnan(single).mean(axis=(1, 2), dtype=np.float32)
    return Windows(first + np.arange(len(single)), single, bad, **keys)


def row(level: float, *others: float) -> list[float]:
    return [level, *others, *[0.0] * (5 - len(others))]


def rows_from(first: int, values: np.ndarray) -> Rows:
    states = np.where(np.isnan(values), State.BAD, State.GOOD).astype(np.uint8)
    return Rows(first, 10**8, values, states)


def detector_of(model: Model, *, hop: int = 1) -> Detector:
    return Detector(model, CHANNELS, rows=None, hop=hop, required=[])


def test_members_are_held_against_their_own_limits():
    strict, lax = Level(Calibration(2.0)), Level(Calibration(10.0))
    assert of(strict, lax).score(windows_of([row(4.0), row(1.0)])).values.tolist() == [2.0, 0.5]
    assert of(strict, lax, combine="mean").score(windows_of([row(4.0)])).values.tolist() == [(2.0 + 0.4) / 2]
    assert of(strict, lax).calibration.limit == 1.0


@pytest.mark.parametrize("combine", ["max", "mean"])
@pytest.mark.parametrize("hop", [1, 2])
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32), cuts=st.lists(st.integers(1, 40), max_size=8))
def test_the_score_is_that_of_each_member_alone_in_a_detector_of_its_own_to_the_bit(combine, hop, seed, cuts):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(160, 6))
    values[100:120, 2] += 8.0
    values[rng.random(160) < 0.1, :3] = NAN  # half of a row: the detector does not show it to anybody
    members = (
        {"type": "zscore", "warm_up": 20},
        {"type": "ewma", "warm_up": 33},
        {"type": "cusum", "warm_up": 25},
    )
    spans = Calibration(3.0, (1, 4, 7), (1.0, 0.8, 0.7))
    judged = []
    for model in (*map(alone, members), Level(spans)):
        detector = detector_of(model, hop=hop)
        scored = detector.apply(rows_from(0, values))
        judged.append(scored.judged / detector.limit(None))
    ensemble = Ensemble(
        [*((each["type"], alone(each)) for each in members), ("level", Level(spans))],
        combine=combine,
        quorum=None,
    )
    detector = detector_of(ensemble, hop=hop)
    edges = [0, *sorted(min(160, int(at)) for at in np.cumsum(cuts)), 160]
    pieces = [detector.apply(rows_from(begin, values[begin:end])) for begin, end in pairwise(edges)]
    found = np.concatenate([piece.judged for piece in pieces])
    known = ~np.isnan(np.array(judged)).all(axis=0)
    np.testing.assert_array_equal(~np.isnan(found), known)
    together = np.array(judged)[:, known]
    if combine == "max":
        expected = np.nanmax(together, axis=0)
    else:
        count = (~np.isnan(together)).sum(axis=0)
        expected = np.add.reduce(np.nan_to_num(together), axis=0) / count
    np.testing.assert_array_equal(found[known], expected)


def test_a_member_that_cannot_score_yet_is_left_out_of_maximum_and_mean():
    early, late = Level(Calibration(1.0)), Level(None)
    ensemble = of(early, late, combine="mean")
    assert ensemble.score(windows_of([row(3.0)])).values.tolist() == [3.0]
    late.calibration = Calibration(3.0)
    assert ensemble.score(windows_of([row(3.0)], 1)).values.tolist() == [2.0]


def test_before_any_member_knows_how_it_is_judged_there_is_no_score():
    ensemble = of(Level(None), Level(None))
    assert np.isnan(ensemble.score(windows_of([row(3.0)])).values).all()
    assert ensemble.calibration is None


def test_contributions_add_up_to_the_score_and_are_those_of_the_member_that_gave_it():
    ensemble = of(Level(Calibration(1.0)), Level(Calibration(4.0)))
    scores = ensemble.score(windows_of([row(2.0, 6.0)]))
    assert scores.contributions.tolist() == [[0.5, 1.5, 0, 0, 0, 0]]
    mean = of(Level(Calibration(1.0)), Level(Calibration(2.0)), combine="mean")
    assert mean.score(windows_of([row(2.0, 6.0)])).contributions.tolist() == [[0.375, 1.125, 0, 0, 0, 0]]


def test_each_member_sees_the_end_of_the_window_that_the_longest_one_wants():
    short, long = Level(Calibration(1.0)), Level(Calibration(1.0), rows=3)
    ensemble = Ensemble([("a", short), ("b", long)], combine="max", quorum=None)
    detector = detector_of(ensemble)
    assert detector.rows == 3
    values = np.arange(60.0).reshape(10, 6)
    detector.apply(rows_from(0, values))
    (seen,), (whole,) = short.shown, long.shown
    np.testing.assert_array_equal(seen.values[:, 0], values[2:])
    assert seen.values.shape == (8, 1, 6)
    assert whole.values.shape == (8, 3, 6)
    for windows in (seen, whole):
        for place in range(8):
            begin = place * windows.step
            np.testing.assert_array_equal(
                windows.base[begin : begin + windows.values.shape[1]], windows.values[place]
            )


def test_a_mean_does_not_reach_across_lost_rows_nor_back_in_time():
    slow = Calibration(1.0, (4,), (1.0,))
    for later in (1000, 0):
        ensemble = of(Level(slow), Level(None))
        ensemble.score(windows_of([row(100.0)] * 8, 500))
        found = ensemble.score(windows_of([row(1.0)] * 4, later)).values
        np.testing.assert_array_equal(found, [NAN, 1.0, 1.0, 1.0])


def test_a_lying_sensor_is_forgiven_in_every_mean_and_by_every_member():
    member = Level(Calibration(1.0, (1, 4), (1e9, 1.0)))
    ensemble = of(member, Level(None))
    ensemble.score(windows_of([row(100.0)] * 8))
    ensemble.forgive()
    assert np.nanmax(ensemble.score(windows_of([row(1.0)] * 4, 8)).values) == 1.0
    assert member.forgiven == 1


def test_a_question_leaves_the_means_as_they_were():
    calibration = Calibration(1.0, (2,), (1.0,))
    ensemble = of(Level(calibration), Level(None))
    ensemble.score(windows_of([row(1.0)] * 3))
    assert ensemble.score(windows_of([row(9.0)] * 3, 0, question=True)).values.tolist() == [9.0, 9.0, 9.0]
    assert ensemble.score(windows_of([row(1.0)], 3)).values.tolist() == [1.0]
    assert ensemble.details()["members"][0]["score"] == 1.0


def test_one_that_fails_stops_all_unless_a_quorum_was_named():
    broken = Level(Calibration(1.0), fails=True)
    with pytest.raises(ModelError, match="member 'level': inference failed"):
        of(Level(Calibration(1.0)), broken).score(windows_of([row(2.0)]))
    ensemble = of(Level(Calibration(1.0)), broken, Level(Calibration(2.0)), quorum=2, combine="mean")
    assert ensemble.score(windows_of([row(2.0)])).values.tolist() == [1.5]
    assert ensemble.details()["members"][1]["error"] == "inference failed"
    broken.fails = False
    assert ensemble.score(windows_of([row(2.0)], 1)).values.tolist() == [pytest.approx(5 / 3)]
    assert "error" not in ensemble.details()["members"][1]
    failing = of(broken, Level(None, fails=True), Level(None, fails=True), quorum=2)
    with pytest.raises(ModelError):
        failing.score(windows_of([row(2.0)]))


def test_what_is_known_of_channels_and_regimes_is_put_together():
    first = Calibration(3.0, normal={"s.c0": (1.0, 2.0)}, stuck_rows={"s.c0": 5}, regimes=(1.0, 2.0))
    second = Calibration(
        3.0, normal={"s.c0": (9.0, 9.0), "s.c1": (4.0, 5.0)}, stuck_rows={"s.c1": 7}, regimes=(2.0, 3.0)
    )
    ensemble = of(Level(first), Level(second), Level(Calibration(1.0)))
    merged = ensemble.calibration
    assert dict(merged.normal) == {"s.c0": (1.0, 2.0), "s.c1": (4.0, 5.0)}
    assert merged.stuck_rows == {"s.c0": 5, "s.c1": 7}
    assert merged.regimes == (2.0,)
    assert ensemble.calibration is merged, "made once, as long as the members' are the same"


def test_details_say_how_each_member_sees_it():
    ensemble = of(Level(Calibration(2.0)), Level(None))
    ensemble.score(windows_of([row(3.0)]))
    assert json.loads(json.dumps(ensemble.details(), allow_nan=False)) == {
        "members": [
            {"type": "level", "version": "level", "score": 1.5, "limit": 2.0},
            {"type": "level", "version": "level", "score": None, "limit": None},
        ]
    }


def test_what_members_have_learned_survives_a_restart():
    members = ({"type": "zscore", "warm_up": 20}, {"type": "ewma", "warm_up": 33})
    first, second = made("max", *members), made("max", *members)
    values = np.random.default_rng(1).normal(size=(100, 6))
    for ensemble in (first, second):
        ensemble.load(CHANNELS, None)
    first.score(windows_of(values))
    second.restore(json.loads(json.dumps(first.state(), allow_nan=False)))
    np.testing.assert_array_equal(
        second.score(windows_of(values, 100)).values, first.score(windows_of(values, 100)).values
    )
    other = made("max", *reversed(members))
    other.load(CHANNELS, None)
    with pytest.raises(ModelError, match="other members, or of the same in another order"):
        other.restore(first.state())
    other.restore({})


def test_the_version_tells_one_ensemble_from_another():
    a, b = Level(None), Level(None)
    b.version = "other"
    versions = {of(a, a).version, of(a, b).version, of(b, a).version, of(a, a, combine="mean").version}
    assert len(versions) == 4
    assert of(a, b).version == of(a, b).version


def test_all_members_are_closed():
    members = Level(None), Level(None)
    of(*members).close()
    assert all(member.closed for member in members)


def test_a_member_that_is_not_for_this_pipeline_is_named():
    with pytest.raises(ModelError, match="member 'b': this model knows no regimes"):
        Ensemble([("a", alone({"type": "zscore"})), ("b", Level(None))], combine="max", quorum=None).load(
            CHANNELS, None, by=5
        )


FILE = """
[sources.s]
type = "modbus"
url = "tcp://127.0.0.1:5020"
period = "1s"
channels = {{ a = {{ register = "input:1" }} }}
[pipelines.p]
channels = ["s.*"]
model = {{ type = "ensemble", models = [{members}], quorum = {quorum} }}
"""


@pytest.mark.parametrize(
    ("members", "quorum", "message"),
    [
        ('{ type = "zscore" }, { type = "ensemble", models = [] }', 1, "no 'ensemble' inside another one"),
        ('{ type = "zscore" }, { type = "emwa" }', 1, "no model of type 'emwa', did you mean 'ewma'?"),
        ('{ type = "zscore" }', 1, "models: 1, but an ensemble has 2 to 16"),
        ('{ type = "zscore" }, { type = "ewma", spam = 3 }', 1, "unknown key, did you mean 'span'?"),
        ('{ type = "zscore" }, { type = "ewma" }', 3, "quorum: 3 is more than there are models"),
    ],
)
def test_a_configuration_that_makes_no_sense_is_told_where_it_stands(tmp_path, members, quorum, message):
    (tmp_path / "dxad.toml").write_text(FILE.format(members=members, quorum=quorum))
    with pytest.raises(config.ConfigError) as told:
        config.load(tmp_path / "dxad.toml")
    (problem,) = told.value.problems
    assert message in problem.message
    assert problem.key.startswith("pipelines.p.model")


def test_it_is_for_rows_as_far_apart_as_its_members_were_made_for():
    paced, free = Level(None), Level(None)
    paced.periods = (60,)
    assert set(of(paced, free).periods) == {60}
    assert set(of(free).periods) == set()
