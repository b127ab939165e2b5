"""From rows of normal running to a model file that scores as the fit did."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from dxad import bundle
from dxad.bundle.inference import Scorer, verify
from dxad.bundle.manifest import OutputRule
from dxad.errors import ModelError
from dxad.incident.alarm import Judge
from dxad.models.tflite import TFLite
from dxad.training import Recording, learn
from dxad.training.graph import to_tflite
from dxad.training.linear import LinearDetector, fit, windows_of
from dxad.types import NS_PER_S, Channel, Rows, Windows
from dxad.window import WindowBuffer

PERIOD = NS_PER_S // 10


def plant(n: int, channels: int = 4, seed: int = 0) -> np.ndarray:
    """Channels that follow two slow motions, each with noise of its own."""
    rng = np.random.default_rng(seed)
    t = np.arange(n)[:, None]
    weights = np.random.default_rng(99).normal(size=(2, channels))
    motions = np.column_stack((np.sin(t[:, 0] / 17 + seed), np.sin(t[:, 0] / 41)))
    return 20.0 + 3.0 * motions @ weights + 0.2 * rng.normal(size=(n, channels))


def channels_of(n: int) -> tuple[Channel, ...]:
    return tuple(Channel(f"s.c{place}", "bar") for place in range(n))


def learned(values: np.ndarray, folder: Path, *, rows_most: int = 10, stuck_rows=None) -> bundle.Bundle:
    recording = Recording(channels_of(values.shape[1]), PERIOD, values, stuck_rows or {})
    return learn(recording, folder / "bundle", rows_most=rows_most)


def scored(made: bundle.Bundle, windows: np.ndarray):
    """What the runtime makes of windows."""
    model = TFLite(made)
    model.load(channels_of(windows.shape[2]), None)
    bad = np.zeros(len(windows), dtype=np.float32)
    found = model.score(Windows(np.arange(len(windows)), windows.astype(np.float32), bad))
    model.close()
    return found


@pytest.mark.parametrize(("channels", "width"), [(1, 1), (1, 10), (4, 10), (13, 7), (64, 10)])
def test_the_file_scores_as_the_fit_does_and_its_parts_sum_to_the_score(channels, width, tmp_path):
    rows = plant(max(400, 8 * channels * width), channels)
    detector = fit(rows, width)
    like = learned(rows, tmp_path, rows_most=width).manifest
    owner = tuple(detector.owner.tolist())
    rule = OutputRule(output="score", contribution="contribution", contribution_columns=owner)
    keys = {"rows": width, "score": rule}
    untried = {"golden_windows": (), "golden_scores": (), "golden_contributions": ()}
    made = bundle.write(tmp_path / "again", like.model_copy(update=keys | untried), to_tflite(detector))
    windows = windows_of(plant(300, channels, seed=5), width).astype(np.float32)
    windows[100:] += 4.0
    expected = detector.score(windows.astype(np.float64))
    found = scored(made, windows)
    np.testing.assert_allclose(found.values, expected, rtol=1e-4)
    np.testing.assert_allclose(found.contributions.sum(axis=1), found.values, rtol=1e-4)
    squares = detector.squares(windows.astype(np.float64))
    for column in range(channels):
        mine = squares[:, detector.owner == column].sum(axis=1)
        np.testing.assert_allclose(found.contributions[:, column], mine, rtol=2e-3, atol=1e-3)


def test_a_score_is_the_sum_of_squares_of_one_linear_map():
    detector = LinearDetector(
        rows=1,
        mean=np.array([10.0, 20.0]),
        inv_std=np.array([0.5, 0.1]),
        weight=np.array([[1.0, 0.0], [1.0, 1.0], [0.0, 2.0]]),
        owner=np.array([0, 0, 1]),
    )
    window = np.array([[[14.0, 30.0]]])  # z = (2, 1)
    np.testing.assert_allclose(detector.squares(window), [[4.0, 9.0, 4.0]])
    np.testing.assert_allclose(detector.score(window), [17.0])


def test_all_windows_of_rows_are_taken_in_order():
    rows = np.arange(10.0).reshape(5, 2)
    found = windows_of(rows, 3)
    np.testing.assert_array_equal(found, [rows[0:3], rows[1:4], rows[2:5]])


@pytest.mark.parametrize(
    ("rows", "channels", "width"),
    [(2000, 4, 10), (400, 4, 10), (200, 4, 6), (100, 4, 3), (34, 4, 1), (2000, 100, 2), (9000, 100, 6)],
)
def test_the_window_is_narrowed_until_there_are_five_rows_per_dimension(rows, channels, width, tmp_path):
    manifest = learned(plant(rows, channels), tmp_path).manifest
    assert manifest.rows == width
    assert manifest.rows * channels <= 640
    assert manifest.trained_rows >= 5 * channels * width
    assert (manifest.trained_rows + manifest.calibrated_rows) == rows


@pytest.mark.parametrize(
    ("rows", "channels", "need"), [(0, 4, 15), (14, 1, 15), (33, 4, 33), (400, 100, 833)]
)
def test_too_little_to_learn_from_is_refused_and_says_how_much_it_takes(rows, channels, need, tmp_path):
    if rows == need:
        learned(plant(rows, channels), tmp_path)
        rows -= 1
    with pytest.raises(ModelError, match=rf"rows .*are too few to learn .*; record at least {need}\b"):
        learned(plant(rows, channels), tmp_path)


def test_more_channels_than_a_model_can_hold_are_refused(tmp_path):
    with pytest.raises(ModelError, match="641 channels are more than the 640"):
        learned(plant(200, 641), tmp_path)


def test_states_and_setpoints_are_left_out_and_it_says_why(tmp_path):
    values = plant(1000)
    values[:, 1] = 5.0
    values[:, 3] = np.arange(1000) // 100 % 3
    manifest = learned(values, tmp_path).manifest
    assert manifest.channels == ("s.c0", "s.c2")
    assert manifest.left_out == {"s.c1": "only 1 different values", "s.c3": "only 3 different values"}
    assert set(manifest.normal) == {"s.c0", "s.c1", "s.c2", "s.c3"}


def test_rows_in_which_nothing_varies_teach_nothing(tmp_path):
    with pytest.raises(ModelError, match="no channel varies"):
        learned(np.ones((1000, 3)), tmp_path)


def test_a_bundle_says_what_is_normal_and_how_scores_are_judged(tmp_path):
    values = plant(4000)
    manifest = learned(values, tmp_path, stuck_rows={"s.c0": 40}).manifest
    calibration = manifest.calibration
    assert manifest.period == PERIOD
    assert manifest.units == ("bar",) * 4
    np.testing.assert_allclose(manifest.fill, np.median(values[:2400], axis=0))
    assert calibration.normal["s.c2"] == pytest.approx((values[:, 2].mean(), values[:, 2].std()))
    assert calibration.stuck_rows == {"s.c0": 40}
    assert calibration.spans == (1, 5, 30)
    assert calibration.scales[0] > calibration.scales[1] > calibration.scales[2] > 0


def test_a_short_record_is_judged_with_more_caution(tmp_path):
    limits = [learned(plant(n), tmp_path / str(n)).manifest.limit for n in (200, 2000, 20_000)]
    assert limits[0] > limits[1] > limits[2] > 2.0


def worst(made: bundle.Bundle, values: np.ndarray) -> np.ndarray:
    """The scores of all windows, each over the scale of one row."""
    return scored(made, windows_of(values, made.manifest.rows)).values / made.manifest.scales[0]


def test_normal_running_stays_below_the_limit_and_a_fault_does_not(tmp_path):
    made = learned(plant(4000), tmp_path)
    assert worst(made, plant(2000, seed=7)).max() < made.manifest.limit
    fault = plant(300, seed=8)
    fault[100:, 2] += 3.0
    assert worst(made, fault)[110:].min() > made.manifest.limit


def shifted(values: np.ndarray, part: slice) -> None:
    values[part, 2] += 5.0
    values[part, 0] -= 4.0


def spiked(values: np.ndarray, part: slice) -> None:
    values[part, 1] += 40.0


def shaken(values: np.ndarray, part: slice) -> None:
    values[part] += np.random.default_rng(6).normal(size=values[part].shape) * 3.0


@pytest.mark.parametrize("length", [20, 60, 240])
@pytest.mark.parametrize("fault", [shifted, spiked, shaken])
def test_a_tenth_of_anomalous_rows_in_the_training_slice_is_trimmed(fault, length, tmp_path):
    values = plant(4000)
    for at in np.random.default_rng(4).choice(2400 // length, 240 // length, replace=False) * length:
        fault(values, slice(at, at + length))
    made = learned(values, tmp_path)
    assert made.manifest.trained_rows == 2400
    later = plant(300, seed=8)
    fault(later, slice(100, None))
    assert worst(made, later)[110:].min() > made.manifest.limit, "what hid in the training is found"
    assert worst(made, plant(2000, seed=7)).max() < made.manifest.limit


def test_a_file_whose_numbers_are_not_the_fit_s_does_not_pass_its_own_trial(tmp_path):
    made = learned(plant(1000), tmp_path)
    scorer = Scorer(made.manifest, made.blob)
    verify(scorer, made.manifest)
    off = made.manifest.model_copy(
        update={"golden_scores": tuple(1.01 * each for each in made.manifest.golden_scores)}
    )
    with pytest.raises(ModelError, match="does not score its golden windows"):
        verify(scorer, off)


def child(folder: Path, values: np.ndarray, rows: str = "10") -> tuple[int, dict]:
    """Learn as the daemon does: in a process of its own."""
    head = {
        "channels": [{"id": each.id, "unit": each.unit} for each in channels_of(values.shape[1])],
        "period": PERIOD,
        "stuck_rows": {"s.c0": 12},
    }
    recording = folder / "rows.npy"
    np.save(recording, values)
    (folder / "rows.json").write_text(json.dumps(head))
    done = subprocess.run(
        [sys.executable, "-m", "dxad.training", str(recording), str(folder / "bundle"), rows],
        capture_output=True,
        check=False,
    )
    return done.returncode, json.loads(done.stdout)


def test_a_process_of_its_own_learns_the_same_model(tmp_path):
    values = plant(1500)
    status, answer = child(tmp_path, values)
    here = learned(values, tmp_path / "here", stuck_rows={"s.c0": 12})
    assert (status, answer) == (0, {"version": here.version, "rows": 10})
    assert bundle.read(tmp_path / "bundle").manifest == here.manifest


def test_a_process_of_its_own_says_why_it_cannot_learn(tmp_path):
    status, answer = child(tmp_path, plant(10))
    assert status == 1
    assert "too few" in answer["error"]


# Regimes: a machine with modes.

MODE = "s.mode"


LEVELS = np.array([[10.0, 60.0, -5.0], [100.0, 20.0, 5.0]])
SPREADS = np.array([0.5, 2.0])


def two_modes(n: int, seed: int = 0, *, only: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Rows of a machine that runs at one level or at another for 50 rows at a time, and at which."""
    rng = np.random.default_rng(seed)
    mode = np.repeat(rng.integers(0, 2, size=n // 50 + 1), 50)[:n]
    if only is not None:
        mode[:] = only
    common = rng.normal(size=(n, 1)) * [0.9, -0.8, 0.9]
    own = rng.normal(size=(n, 3)) * [0.44, 0.6, 0.44]
    return LEVELS[mode] + SPREADS[mode, None] * (common + own), mode.astype(float)


def learned_by_mode(values: np.ndarray, mode: np.ndarray, folder: Path) -> bundle.Bundle:
    channels = (*channels_of(3), Channel(MODE))
    rows = np.column_stack((values, mode))
    return learn(Recording(channels, PERIOD, rows, {}, by=mode, by_channel=MODE), folder / "by", rows_most=5)


def judged(made: bundle.Bundle, values: np.ndarray, mode: np.ndarray, *, by: int | None) -> np.ndarray:
    """The judged scores of all windows over the limit."""
    rows = np.column_stack((values, mode)).astype(np.float32)
    model = TFLite(made)
    model.load((*channels_of(3), Channel(MODE)), None, by=by)
    wide = windows_of(rows, made.manifest.rows)
    found = model.score(Windows(np.arange(len(wide)), wide, np.zeros(len(wide), dtype=np.float32)))
    return Judge(made.manifest.calibration).apply(found.values) / made.manifest.limit


def test_an_offset_inside_one_mode_is_found_by_a_model_that_knows_the_modes_and_missed_without(tmp_path):
    values, mode = two_modes(6000)
    knowing = learned_by_mode(values, mode, tmp_path)
    ignorant = learned(values, tmp_path, rows_most=5)
    rows, low = two_modes(600, seed=1, only=0)
    assert judged(knowing, rows, low, by=3).max() < 1.0
    rows[300:, 1] += 3 * SPREADS[0]
    assert judged(knowing, rows, low, by=3)[340:].min() > 1.0
    assert judged(ignorant, rows, low, by=None).max() < 1.0


def test_a_model_says_which_regimes_it_knows_and_what_is_normal_in_each(tmp_path):
    values, mode = two_modes(3000)
    mode[::100] = 7.0
    made = learned_by_mode(values, mode, tmp_path)
    assert made.manifest.calibration.regimes == (0.0, 1.0), "thirty rows are too few to learn a regime from"
    assert MODE not in made.manifest.channels
    first, second = made.manifest.regimes
    np.testing.assert_allclose(first.mean, [10, 60, -5], atol=0.2)
    np.testing.assert_allclose(second.mean, [100, 20, 5], atol=0.5)
    np.testing.assert_allclose((first.std, second.std), ([0.5] * 3, [2.0] * 3), rtol=0.1)
    assert first.rows + second.rows == 3000 - 30


def test_a_window_that_ends_in_a_regime_that_was_never_learned_has_no_score(tmp_path):
    values, mode = two_modes(3000)
    made = learned_by_mode(values, mode, tmp_path)
    rows, later = two_modes(100, seed=1)
    later[40:60] = 5.0
    later[80] = np.nan
    found = judged(made, rows, later, by=3)
    silent = np.isnan(found)
    ends = np.arange(4, 100)
    np.testing.assert_array_equal(silent[ends < 40], False)
    assert silent[(ends >= 40) & (ends < 60)].all()
    assert not silent[(ends >= 65) & (ends < 80)].any()
    assert silent[ends == 80].all()


@pytest.mark.parametrize(
    ("knows", "by", "message"),
    [
        (True, None, "the model was learned by 's.mode'; say by = 's.mode'"),
        (True, 0, "the model was learned by 's.mode'"),
        (False, 3, "knows no regimes: it was not learned by 's.mode'"),
    ],
)
def test_a_model_and_a_pipeline_that_do_not_agree_on_the_regimes_say_so(knows, by, message, tmp_path):
    values, mode = two_modes(3000)
    made = learned_by_mode(values, mode, tmp_path) if knows else learned(values, tmp_path)
    with pytest.raises(ModelError, match=message):
        TFLite(made).load((*channels_of(3), Channel(MODE)), None, by=by)


def test_a_channel_of_which_every_value_is_new_tells_no_regimes_apart(tmp_path):
    values, _ = two_modes(3000)
    with pytest.raises(ModelError, match=r"no value of s\.mode has the 50 rows"):
        learned_by_mode(values, np.arange(3000.0), tmp_path)


def test_scores_by_regime_do_not_depend_on_how_rows_are_cut(tmp_path):
    values, mode = two_modes(3000)
    made = learned_by_mode(values, mode, tmp_path)
    rows = np.column_stack(two_modes(400, seed=3))

    def pushed(cuts: list[int]) -> np.ndarray:
        model = TFLite(made)
        model.load((*channels_of(3), Channel(MODE)), None, by=3)
        buffer, at, found = WindowBuffer(rows=made.manifest.rows, channels=4), 0, []
        for n in [*cuts, 400]:
            piece = rows[at : at + n]
            found.append(model.score(buffer.push(Rows(at, 1, piece, np.ones(piece.shape, "u1")))).values)
            at += len(piece)
        return np.concatenate(found)

    expected = pushed([])
    for cuts in ([1] * 50, [7, 90, 33, 200], [64, 64, 64]):
        np.testing.assert_array_equal(pushed(cuts), expected)
