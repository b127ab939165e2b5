"""What all untrained models do alike: regimes, the guard, a restart, a question."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dxad import plugin
from dxad.baseline import Baseline
from dxad.baseline.model import REGIMES_MOST
from dxad.errors import ModelError
from dxad.types import NS_PER_S, Channel, Windows

NAN = float("nan")
CHANNELS = tuple(Channel(f"s.{name}", "V") for name in ("a", "b", "mode"))
WARM = 100
SEASON = 20
"""Rows; of `seasonal`, whose two seasons and a row are over before any other's warm-up is."""

KEYS: dict[str, dict[str, Any]] = {
    "zscore": {"warm_up": WARM},
    "ewma": {"warm_up": WARM, "span": 200},
    "cusum": {"warm_up": WARM},
    "hampel": {"warm_up": WARM, "span": 31, "relearn_after": None},
    "seasonal": {"season": f"{SEASON}s", "bins": 2, "seasons": 2},
}

every_baseline = pytest.mark.parametrize("kind", KEYS)
every_learning = pytest.mark.parametrize("kind", ["ewma", "hampel", "seasonal"])


def loaded(kind: str, *, by: int | None = None, channels=CHANNELS, **keys: Any) -> Baseline:
    found = plugin.load("models", kind)
    config = found.config.model_validate({"type": kind, **KEYS[kind], **keys})
    model: Baseline = found.build(config, state_dir=Path())
    assert model.load(channels, None, by=by) == 1
    return model


class Plant:
    """Rows of noise around two levels, one after the other, on and on."""

    def __init__(self, seed: int = 1) -> None:
        self._rng = np.random.default_rng(seed)
        self.slot = 0

    def rows(self, n: int, *, mode: float = 0.0, level: float = 0.0, question: bool = False) -> Windows:
        values = np.empty((n, 3))
        values[:, :2] = np.array([10.0, -4.0]) + self._rng.normal(size=(n, 2)) + level
        values[:, 2] = mode
        windows = windows_of(values, self.slot, question=question)
        self.slot += 0 if question else n
        return windows


def windows_of(values: np.ndarray, first: int, *, question: bool = False) -> Windows:
    single = values.astype(np.float32)[:, None, :]
    bad = np.isnan(single).mean(axis=(1, 2), dtype=np.float32)
    return Windows(first + np.arange(len(values)), single, bad, period=NS_PER_S, question=question)


def limit(model: Baseline) -> float:
    assert model.calibration is not None
    return model.calibration.limit


@every_baseline
def test_each_regime_has_a_warm_up_and_a_normal_of_its_own(kind):
    model, plant = loaded(kind, by=2), Plant()
    model.score(plant.rows(3 * WARM, mode=1.0))
    assert model.calibration.regimes == (1.0,)
    assert model.calibration.normal["s.a"][0] == pytest.approx(10, abs=0.5)
    fresh = model.score(plant.rows(SEASON, mode=5.0, level=1000.0)).values
    assert np.isnan(fresh).all(), "nothing is known of it yet"
    assert model.calibration.regimes == (1.0,), "a regime is known once it was learned"
    model.score(plant.rows(3 * WARM, mode=5.0, level=1000.0))
    assert model.calibration.regimes == (1.0, 5.0)
    assert model.calibration.normal["s.a"][0] == pytest.approx(1010, abs=0.5), "of the regime it is in"
    both = np.concatenate(
        [
            model.score(plant.rows(10, mode=mode, level=level)).values
            for mode, level in ((1.0, 0.0), (5.0, 1000.0), (1.0, 0.0))
        ]
    )
    assert (both < limit(model)).all()
    assert "s.mode" not in model.calibration.normal


@every_baseline
def test_the_column_of_the_regime_is_not_scored_and_one_that_is_bad_names_no_regime(kind):
    model, plant = loaded(kind, by=2), Plant()
    model.score(plant.rows(3 * WARM, mode=1.0))
    assert not model.score(plant.rows(5, mode=1.0)).contributions[:, 2].any()
    assert np.isnan(model.score(plant.rows(5, mode=NAN)).values).all()


def test_only_so_many_regimes_are_told_apart_and_the_first_ones_stay():
    model, plant = loaded("zscore", by=2), Plant()
    for mode in range(REGIMES_MOST + 2):
        model.score(plant.rows(WARM, mode=float(mode)))
    assert model.calibration.regimes == tuple(map(float, range(REGIMES_MOST)))
    assert np.isfinite(model.score(plant.rows(5, mode=3.0)).values).all()
    assert np.isnan(model.score(plant.rows(WARM + 5, mode=17.0)).values).all()


def test_a_regime_of_minus_zero_is_that_of_zero():
    model, plant = loaded("zscore", by=2), Plant()
    model.score(plant.rows(WARM, mode=0.0))
    assert np.isfinite(model.score(plant.rows(5, mode=-0.0)).values).all()


@every_learning
def test_what_is_above_the_limit_is_not_learned_however_long_it_lasts(kind):
    model, plant = loaded(kind), Plant()
    model.score(plant.rows(4 * WARM))
    plant.rows(4 * WARM, level=30.0)
    scores = model.score(plant.rows(4000, level=30.0)).values[20:]
    assert (scores > limit(model)).all()
    assert (model.score(plant.rows(200)).values[50:] < limit(model)).all(), "and back is as before"


@every_learning
def test_what_drifts_slowly_is_learned(kind):
    model, plant = loaded(kind), Plant()
    model.score(plant.rows(4 * WARM))
    scores = [model.score(plant.rows(SEASON, level=0.05 * step)).values for step in range(400)]
    assert (np.concatenate(scores) < limit(model)).all()
    assert model.calibration.normal["s.a"][0] == pytest.approx(30, abs=3)


@every_baseline
def test_after_so_many_rows_above_the_limit_they_are_the_new_normal_if_that_was_asked_for(kind):
    model, plant = loaded(kind, relearn_after=500), Plant()
    model.score(plant.rows(4 * WARM))
    before = limit(model)
    scores = model.score(plant.rows(500 + 6 * WARM, level=30.0)).values
    again = np.flatnonzero(np.isnan(scores))
    assert 500 <= again[0] <= 540, "some rows until a sum or a mean is above the limit"
    assert (scores[again[0] - 490 : again[0]] > before).all()
    assert (scores[again[-1] + 1 :] < before).all()
    assert len(scores) - again[-1] > WARM
    assert limit(model) == before


@every_baseline
def test_rows_below_the_limit_weigh_against_those_above(kind):
    model, plant = loaded(kind, relearn_after=250), Plant()
    model.score(plant.rows(4 * WARM))
    for _ in range(20):
        assert (model.score(plant.rows(20, level=30.0)).values[10:] > limit(model)).all()
        assert np.isfinite(model.score(plant.rows(480)).values).all()


@every_baseline
def test_a_bad_value_is_neither_scored_nor_learned(kind):
    model, plant = loaded(kind), Plant()
    holed = plant.rows(6 * WARM)
    holed.values[::3, 0, 0] = NAN
    scores = model.score(holed)
    assert not scores.contributions[::3, 0].any()
    assert model.calibration.normal["s.a"][0] == pytest.approx(10, abs=0.5)
    assert np.isfinite(scores.values[4 * WARM :]).all()


@every_baseline
def test_a_channel_that_was_missing_in_the_warm_up_stays_out(kind):
    model, plant = loaded(kind), Plant()
    holed = plant.rows(4 * WARM)
    holed.values[:, 0, 0] = NAN
    model.score(holed)
    assert "s.a" not in model.calibration.normal
    assert not model.score(plant.rows(10, level=1e5)).contributions[:, 0].any()


@every_baseline
def test_a_restart_changes_no_score(kind):
    first, plant = loaded(kind, by=2), Plant()
    for mode in (0.0, 1.0, 0.0, 1.0):
        first.score(plant.rows(2 * WARM + 3, mode=mode, level=mode * 50))
    document = json.loads(json.dumps(first.state(), allow_nan=False))
    second = loaded(kind, by=2)
    second.restore(document)
    assert second.calibration.limit == first.calibration.limit
    assert second.calibration.regimes == first.calibration.regimes == (0.0, 1.0)
    assert second.state() == document
    for mode in (1.0, 0.0, 1.0):
        rows = plant.rows(3 * SEASON, mode=mode, level=mode * 50)
        expected, found = first.score(rows), second.score(rows)
        np.testing.assert_array_equal(found.values, expected.values)
        np.testing.assert_array_equal(found.contributions, expected.contributions)
        assert dict(second.calibration.normal) == dict(first.calibration.normal)


@every_baseline
def test_a_state_is_refused_that_is_not_for_this_model(kind):
    model, plant = loaded(kind), Plant()
    model.score(plant.rows(4 * WARM))
    good = model.state()
    other = loaded(kind, channels=(*CHANNELS[:2], Channel("s.mode", "A")))
    with pytest.raises(ModelError, match="learned from other channels, units or regimes"):
        other.restore(good)
    with pytest.raises(ModelError, match="learned from other channels"):
        loaded(kind, by=2).restore(good)
    stranger = "ewma" if kind == "zscore" else "zscore"
    with pytest.raises(ModelError, match=f"is of a {kind!r}, this model is a {stranger!r}"):
        loaded(stranger).restore(good)
    fresh = loaded(kind)
    for damaged in (
        {**good, "regimes": [{"value": 0.0, "surplus": 0, "learned": {}}]},
        {**good, "regimes": [{"value": 0.0}]},
        {**good, "regimes": 5},
    ):
        with pytest.raises(ModelError, match="the saved state"):
            fresh.restore(damaged)
    assert fresh.calibration is None, "what was refused has changed nothing"
    fresh.restore({})
    fresh.restore(good)
    assert fresh.calibration is not None


@every_baseline
def test_a_question_gets_the_score_and_leaves_no_trace(kind):
    asked, left_alone = loaded(kind, relearn_after=50), loaded(kind, relearn_after=50)
    plant = Plant()
    rows = plant.rows(4 * WARM)
    asked.score(rows)
    left_alone.score(rows)
    odd = asked.score(plant.rows(100, level=40.0, question=True)).values
    assert (odd[30:50] > limit(asked)).all()
    assert asked.state() == left_alone.state()
    rows = plant.rows(100)
    np.testing.assert_array_equal(asked.score(rows).values, left_alone.score(rows).values)


@pytest.mark.parametrize("kind", ["ewma", "cusum"])
def test_what_a_lying_sensor_made_a_sum_of_is_forgiven(kind):
    model, plant = loaded(kind), Plant()
    model.score(plant.rows(2 * WARM))
    assert model.score(plant.rows(30, level=40.0)).values[-1] > limit(model)
    model.forgive()
    assert model.score(plant.rows(1)).values[0] < limit(model)


@every_baseline
@pytest.mark.parametrize("call", ["score", "restore"])
def test_a_model_that_was_not_loaded_says_so(kind, call):
    found = plugin.load("models", kind)
    model = found.build(found.config.model_validate({"type": kind, **KEYS[kind]}), state_dir=Path())
    with pytest.raises(ModelError, match=f"{call} before load"):
        model.score(Plant().rows(1)) if call == "score" else model.restore({})


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"type": "hampel", "span": 10}, "span: 10 is even; write 11"),
        ({"type": "hampel", "warm_up": 50}, "warm_up: 50 rows do not fill a span of 61"),
        ({"type": "seasonal", "memory": 2}, "memory: 2 seasons are fewer than the 3"),
        ({"type": "seasonal", "warm_up": 50}, "unknown key"),
        ({"type": "seasonal", "season": "5ns"}, "season: is shorter than one nanosecond per bin"),
        ({"type": "cusum", "cap": 1.0}, "greater than 1"),
        ({"type": "zscore", "false_alarm_rows": 1}, "greater than or equal to 100"),
    ],
)
def test_keys_that_make_no_sense_are_refused(keys, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        plugin.load("models", keys["type"]).config.model_validate(keys)


def test_the_state_of_many_channels_and_phases_stays_small():
    channels = tuple(Channel(f"s.c{n}") for n in range(500))
    model = loaded("seasonal", channels=channels, season="24h", bins=96, memory=7)
    model.score(windows_of(np.zeros((1, 500)), 0))
    assert len(json.dumps(model.state())) < 2_200_000, "7 medians and a MAD in single precision, a third more"


def test_phases_that_were_learned_before_the_machine_booted_are_dropped():
    first, plant = loaded("seasonal"), Plant()
    first.score(plant.rows(4 * WARM))
    again = loaded("seasonal")
    again.restore(first.state())
    booted = Plant(seed=2)
    assert np.isnan(again.score(booted.rows(2 * SEASON)).values).all(), "its clock begins at 0"
    assert np.isfinite(again.score(booted.rows(SEASON)).values).all()


def test_a_phase_without_enough_seasons_is_not_scored_while_others_are():
    model, plant = loaded("seasonal", bins=2), Plant()
    rows = plant.rows(4 * SEASON)
    first_half = np.arange(4 * SEASON) % SEASON < SEASON // 2
    seen = Windows(rows.last[first_half], rows.values[first_half], rows.bad[first_half], period=rows.period)
    model.score(seen)
    scores = model.score(plant.rows(SEASON)).values
    np.testing.assert_array_equal(np.isnan(scores), [False] * (SEASON // 2) + [True] * (SEASON // 2))


def test_a_visit_that_was_mostly_missed_teaches_nothing():
    model, plant = loaded("seasonal"), Plant()
    model.score(plant.rows(4 * SEASON))
    before = model.state()["regimes"][0]["learned"]["visits"]
    model.score(plant.rows(4))
    plant.slot += SEASON - 4
    model.score(plant.rows(SEASON))
    assert model.state()["regimes"][0]["learned"]["visits"] == [before[0] + 1, before[1] + 1]


@pytest.mark.parametrize(
    ("kind", "correlation", "share"),
    [("cusum", 0.0, 0.001), ("cusum", 0.95, 0.1), ("ewma", 0.0, 0.001), ("ewma", 0.95, 0.005)],
)
def test_healthy_running_that_follows_a_slow_motion_is_rarely_above_the_limit(kind, correlation, share):
    values = np.random.default_rng(4).normal(size=(8000, 3))
    for place in range(1, len(values)):
        values[place] += correlation * values[place - 1]
    scores = (model := loaded(kind, warm_up=1000)).score(windows_of(values, 0)).values[1000:]
    assert (scores > limit(model)).mean() < share


@pytest.mark.parametrize(("kind", "shift"), [("ewma", 3.0), ("cusum", 1.0)])
def test_a_shift_that_no_single_row_shows_is_found(kind, shift):
    model, single, plant = loaded(kind, warm_up=500), loaded("zscore", warm_up=500), Plant(seed=3)
    rows = plant.rows(1000)
    model.score(rows)
    single.score(rows)
    shifted = plant.rows(200, level=shift)
    found = model.score(shifted).values > limit(model)
    assert found[60:].mean() > 0.5
    assert (single.score(shifted).values > limit(single)).mean() < 0.1
