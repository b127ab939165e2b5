"""What every model keeps to; a model of a new type needs a bench here, and nothing else."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dxad import plugin
from dxad.bundle.trial import ensure_tried_now
from dxad.errors import ModelError
from dxad.training import Recording, learn
from dxad.types import NS_PER_S, Channel, Model, Windows

CHANNELS = tuple(Channel(f"s.{name}", "mm/s") for name in "abcd")


def normal(n: int, seed: int) -> np.ndarray:
    """Four channels that follow one slow motion, each with noise of its own."""
    rng = np.random.default_rng(seed)
    motion = np.sin(np.arange(n) / 15 + seed)[:, None] * [1.0, 2.0, -1.0, 0.5]
    return 10.0 + motion + 0.1 * rng.normal(size=(n, 4))


def learned_bundle(state_dir: Path, name: str = "pump") -> dict[str, Any]:
    recording = Recording(CHANNELS, NS_PER_S // 10, normal(2000, seed=1), {})
    learn(recording, state_dir / "models" / name, rows_most=10)
    ensure_tried_now(state_dir / "models" / name)
    return {"path": f"models/{name}"}


BENCHES: dict[str, Callable[[Path], dict[str, Any]]] = {
    "cusum": lambda _: {"warm_up": 300},
    "ensemble": lambda state_dir: {
        "models": [
            {"type": "zscore"},
            {"type": "ewma"},
            {"type": "tflite", **learned_bundle(state_dir, "member")},
        ]
    },
    "ewma": lambda _: {"warm_up": 300},
    "hampel": lambda _: {"warm_up": 300},
    "seasonal": lambda _: {"season": "9400ms", "bins": 4, "seasons": 2},
    "tflite": learned_bundle,
    "zscore": lambda _: {"warm_up": 200},
}
"""By type: prepares the state directory, and says with which keys a config names the model."""

every_model = pytest.mark.parametrize("kind", plugin.names("models"))


@pytest.fixture(scope="module")
def state_dir(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("state")


@pytest.fixture(scope="module")
def make(state_dir) -> Callable[[str], Model]:
    keys = {kind: bench(state_dir) for kind, bench in BENCHES.items()}

    def model(kind: str) -> Model:
        found = plugin.load("models", kind)
        made: Model = found.build(found.config(type=kind, **keys[kind]), state_dir=state_dir)
        return made

    return model


def windows_of(values: np.ndarray, rows: int, *, first: int = 0) -> Windows:
    last = np.arange(rows - 1, len(values))
    windows = np.stack([values[end - rows + 1 : end + 1] for end in last]).astype(np.float32)
    bad = np.isnan(windows).mean(axis=(1, 2), dtype=np.float32)
    return Windows(first + last, windows, bad, period=NS_PER_S // 10)


def cut(windows: Windows, piece: slice) -> Windows:
    """Some of the windows, as a batch of their own."""
    return Windows(windows.last[piece], windows.values[piece], windows.bad[piece], period=windows.period)


def warmed(model: Model) -> int:
    """Load it and let it see normal running; returns how many rows it wants."""
    rows = model.load(CHANNELS, None)
    model.score(windows_of(normal(400, seed=2), rows))
    return rows


def test_every_model_is_tried():
    assert set(BENCHES) == set(plugin.names("models")), "a new model wants a bench to be tried on"


@every_model
def test_it_scores_each_window_with_one_number_and_says_who_made_it(kind, make):
    model = make(kind)
    rows = warmed(model)
    scores = model.score(windows_of(normal(100, seed=3), rows))
    assert scores.values.shape == (100 - rows + 1,)
    assert scores.values.dtype == np.float64
    assert np.isfinite(scores.values).all()
    assert (scores.values >= 0).all()
    if scores.contributions is not None:
        assert scores.contributions.shape == (100 - rows + 1, len(CHANNELS))
        assert (scores.contributions >= 0).all()
    model.close()


@every_model
def test_it_knows_its_limit_after_it_has_seen_normal_running(kind, make):
    model = make(kind)
    warmed(model)
    assert model.version
    assert model.calibration is not None
    assert model.calibration.limit > 0
    assert len(model.calibration.spans) == len(model.calibration.scales)
    assert set(model.calibration.normal) >= {channel.id for channel in CHANNELS}


@every_model
@pytest.mark.parametrize("column", range(len(CHANNELS)))
def test_what_is_far_off_scores_higher_than_all_that_is_normal_and_is_laid_to_its_channel(kind, column, make):
    model = make(kind)
    rows = warmed(model)
    quiet = model.score(windows_of(normal(300, seed=4), rows))
    odd = normal(60, seed=5)
    odd[30:, column] += 50.0
    found = model.score(windows_of(odd, rows))
    assert found.values[-1] > 5 * quiet.values.max()
    assert found.contributions is not None
    assert found.contributions[-1].argmax() == column


@every_model
def test_the_batch_a_window_is_in_does_not_change_its_score(kind, make):
    together, apart = make(kind), make(kind)
    rows = warmed(together)
    warmed(apart)
    windows = windows_of(normal(400, seed=6), rows)
    expected = together.score(windows)
    at = 0
    for n in (1, 2, 7, 8, 9, 31, 33, 100, 1, len(windows)):
        piece = slice(at, min(at + n, len(windows)))
        at = piece.stop
        found = apart.score(cut(windows, piece))
        np.testing.assert_allclose(found.values, expected.values[piece], rtol=1e-5)
        np.testing.assert_allclose(found.contributions, expected.contributions[piece], rtol=1e-4, atol=1e-5)


@every_model
def test_no_windows_make_no_scores(kind, make):
    model = make(kind)
    rows = warmed(model)
    values = np.empty((0, rows, len(CHANNELS)), dtype=np.float32)
    scores = model.score(Windows(np.empty(0, dtype=np.int64), values, np.empty(0, dtype=np.float32)))
    assert scores.values.shape == (0,)


@every_model
def test_a_missing_channel_is_scored_without_and_not_blamed(kind, make):
    model = make(kind)
    rows = warmed(model)
    values = normal(100, seed=7)
    values[:, 1] = np.nan
    holed = model.score(windows_of(values, rows))
    assert np.isfinite(holed.values).all()
    assert holed.contributions is not None
    assert not holed.contributions[:, 1].any()


@every_model
def test_windows_stay_as_they_were(kind, make):
    model = make(kind)
    rows = warmed(model)
    windows = windows_of(normal(50, seed=8), rows)
    windows.values[3, 0, 0] = np.nan
    before = windows.values.copy()
    model.score(windows)
    np.testing.assert_array_equal(windows.values, before)


@every_model
def test_it_can_be_closed_at_any_time_and_twice(kind, make):
    unused = make(kind)
    unused.close()
    model = make(kind)
    warmed(model)
    model.close()
    model.close()


@every_model
def test_what_it_has_learned_survives_a_restart_by_way_of_json(kind, make):
    model, again = make(kind), make(kind)
    rows = warmed(model)
    assert again.load(CHANNELS, None) == rows
    again.restore(json.loads(json.dumps(model.state(), allow_nan=False)))
    assert again.calibration is not None
    assert again.calibration.limit == model.calibration.limit
    windows = windows_of(normal(100, seed=11), rows, first=400)
    expected, found = model.score(windows).values, again.score(windows).values
    np.testing.assert_array_equal(found[30:], expected[30:], "the means of an ensemble's members begin anew")


@every_model
def test_a_question_teaches_it_nothing(kind, make):
    model = make(kind)
    rows = warmed(model)
    before = model.state()
    model.score(replace(windows_of(100.0 + normal(100, seed=12), rows, first=400), question=True))
    assert model.state() == before


# The baseline alone.


def test_the_baseline_is_silent_while_it_warms_up():
    model = plugin.load("models", "zscore").build(
        plugin.load("models", "zscore").config(type="zscore", warm_up=50), state_dir=Path()
    )
    model.load(CHANNELS, None)
    first = model.score(windows_of(normal(30, seed=1), 1))
    assert np.isnan(first.values).all()
    assert model.calibration is None
    across = model.score(windows_of(normal(30, seed=2), 1))
    np.testing.assert_array_equal(np.isnan(across.values), [True] * 20 + [False] * 10)
    assert model.calibration.limit >= 3.5


def test_a_channel_that_did_not_move_in_the_warm_up_stays_out_of_the_baseline():
    found = plugin.load("models", "zscore")
    model = found.build(found.config(type="zscore", warm_up=50), state_dir=Path())
    model.load(CHANNELS, None)
    values = normal(60, seed=1)
    values[:, 2] = 5.0
    values[55:, 2] = 1e6
    scores = model.score(windows_of(values, 1))
    assert not scores.contributions[:, 2].any()
    assert scores.values[55:].max() < 20


# TensorFlow Lite alone.


def test_a_window_wider_than_the_model_s_is_scored_by_its_end(make):
    model = make("tflite")
    rows = warmed(model)
    values = normal(100, seed=9)
    wide = model.score(windows_of(values, rows + 5))
    np.testing.assert_allclose(wide.values, model.score(windows_of(values, rows)).values[5:], rtol=1e-5)


def test_the_columns_may_stand_in_another_order_and_among_others(make):
    model, turned = make("tflite"), make("tflite")
    rows = warmed(model)
    order = (3, 1, 0, 2)
    turned.load((*(CHANNELS[place] for place in order), Channel("s.other", "V")), None)
    values = normal(100, seed=10)
    expected = model.score(windows_of(values, rows))
    among = np.column_stack((values[:, order], np.full(100, 1e9)))
    found = turned.score(windows_of(among, rows))
    np.testing.assert_allclose(found.values, expected.values, rtol=1e-5)
    np.testing.assert_allclose(found.contributions[:, :4], expected.contributions[:, order], rtol=1e-4)
    assert not found.contributions[:, 4].any()


@pytest.mark.parametrize(
    ("channels", "rows", "message"),
    [
        (CHANNELS[:3], None, "the model wants channel 's.d', which the pipeline does not have"),
        (
            (*CHANNELS[:3], Channel("s.d", "inch/s")),
            None,
            "channel 's.d' is in 'inch/s', the model was made for 'mm/s'",
        ),
        (CHANNELS, 3, "the model wants windows of 10 rows, the pipeline has 3"),
    ],
)
def test_a_model_that_is_not_for_this_pipeline_says_why(channels, rows, message, make):
    with pytest.raises(ModelError, match=message):
        make("tflite").load(channels, rows)


def test_a_model_that_is_not_loaded_does_not_score(make):
    with pytest.raises(ModelError, match="score before load"):
        make("tflite").score(windows_of(normal(20, seed=1), 10))
