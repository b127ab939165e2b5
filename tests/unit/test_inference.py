"""What is made of a window, by the kind of the graph, how it is laid into it, and what comes out."""

from itertools import pairwise

import numpy as np
import pytest

from dxad.bundle import Bundle
from dxad.bundle.inference import Scorer
from dxad.bundle.manifest import (
    ForecastRule,
    InputSpec,
    Manifest,
    OutputRule,
    ProbabilityRule,
    ReconstructionRule,
)
from dxad.errors import ModelError
from dxad.models.tflite import TFLite
from dxad.types import Channel, Rows, State, Windows
from dxad.window import WindowBuffer

ROWS, CHANNELS = 4, 3
CELLS = ROWS * CHANNELS


def manifest(rows: int = ROWS, channels: int = CHANNELS, **keys) -> Manifest:
    width = {"channels": tuple(f"s.c{place}" for place in range(channels)), "units": ("",) * channels}
    sound = {
        "rows": rows,
        "period": 1,
        "fill": (0.5,) * channels,
        "limit": 1.0,
        "spans": (1,),
        "scales": (1.0,),
    }
    return Manifest(**width, **sound, normal={}, **keys)


def layers(*sizes: int, seed: int = 0) -> list[tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(seed)
    return [
        (rng.normal(size=(wide, deep)) / np.sqrt(deep), 0.1 * rng.normal(size=wide))
        for deep, wide in pairwise(sizes)
    ]


def net(found: list[tuple[np.ndarray, np.ndarray]], x: np.ndarray) -> np.ndarray:
    """The same in numpy."""
    for number, (weight, bias) in enumerate(found):
        x = x @ weight.T + bias
        if number < len(found) - 1:
            x = np.maximum(x, 0.0)
    return x


def windows(n: int = 50, seed: int = 3, rows: int = ROWS, channels: int = CHANNELS) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, rows, channels)).astype(np.float32)


def scored(scorer: Scorer, cells: np.ndarray):
    n, rows, channels = cells.shape
    return scorer.score(cells.reshape(-1, channels), n, step=rows, holed=bool(np.isnan(cells).any()))


TOLERANCE = {"float": 1e-4, "hybrid": 0.1, "int8": 0.25}


@pytest.mark.parametrize("kind", ["float", "hybrid", "int8"])
def test_an_output_is_the_score(kind, dense_net):
    found = layers(CELLS, 8, 1)
    scorer = Scorer(manifest(), dense_net((), layers=found, shape=(CELLS,), kind=kind))
    cells = windows()
    values, parts = scored(scorer, cells)
    expected = net(found, cells.reshape(50, -1))[:, 0]
    np.testing.assert_allclose(values, expected, atol=TOLERANCE[kind])
    assert parts is None


@pytest.mark.parametrize("kind", ["float", "hybrid", "int8"])
def test_a_reconstruction_is_scored_by_the_mean_square_of_its_error(kind, dense_net):
    found = layers(CELLS, 6, CELLS)
    spread = (1.0, 2.0, 0.5)
    rule = ReconstructionRule(spread=spread)
    scorer = Scorer(manifest(score=rule), dense_net((), layers=found, shape=(CELLS,), kind=kind))
    cells = windows()
    values, parts = scored(scorer, cells)
    error = (net(found, cells.reshape(50, -1)).reshape(cells.shape) - cells) / spread
    assert parts is not None
    np.testing.assert_allclose(values, (error**2).mean(axis=(1, 2)), rtol=TOLERANCE[kind])
    np.testing.assert_allclose(parts, (error**2).mean(axis=1) / CHANNELS, rtol=2 * TOLERANCE[kind], atol=0.02)
    np.testing.assert_allclose(parts.sum(axis=1), values, rtol=1e-5)


@pytest.mark.parametrize("horizon", [1, 2])
def test_a_forecast_sees_all_rows_but_the_last_and_is_scored_by_these(horizon, dense_net):
    seen = (ROWS - horizon) * CHANNELS
    found = layers(seen, 6, horizon * CHANNELS)
    rule = ForecastRule(horizon=horizon, spread=(1.0, 2.0, 0.5))
    scorer = Scorer(manifest(score=rule), dense_net((), layers=found, shape=(seen,)))
    cells = windows()
    values, parts = scored(scorer, cells)
    forecast = net(found, cells[:, :-horizon].reshape(50, -1)).reshape(50, horizon, CHANNELS)
    error = (forecast - cells[:, -horizon:]) / [1.0, 2.0, 0.5]
    np.testing.assert_allclose(values, (error**2).mean(axis=(1, 2)), rtol=1e-4)
    np.testing.assert_allclose(parts, (error**2).mean(axis=1) / CHANNELS, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(
    ("rule", "of"),
    [
        (ProbabilityRule(normal=1), lambda p: 1 - p[:, 1]),
        (ProbabilityRule(anomalous=(0, 3)), lambda p: p[:, 0] + p[:, 3]),
    ],
)
def test_class_probabilities_say_how_probable_it_is_that_something_is_wrong(rule, of, dense_net):
    found = layers(CELLS, 6, 4)
    scorer = Scorer(manifest(score=rule), dense_net((CELLS, 6, 4), layers=found, softmax=True))
    cells = windows()
    logits = net(found, cells.reshape(50, -1))
    probability = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    values, parts = scored(scorer, cells)
    np.testing.assert_allclose(values, of(probability), atol=1e-5)
    assert parts is None


@pytest.mark.parametrize(
    ("layout", "shape", "turned"),
    [
        ("flat", (CELLS,), False),
        ("flat", (CELLS, 1), False),
        ("rows_channels", (ROWS, CHANNELS), False),
        ("rows_channels", (1, ROWS, CHANNELS, 1), False),
        ("channels_rows", (CHANNELS, ROWS), True),
    ],
)
def test_a_window_is_laid_into_the_input_as_the_manifest_says(layout, shape, turned, reshaped_net):
    weight = np.arange(1.0, CELLS + 1)
    scorer = Scorer(manifest(input=InputSpec(layout=layout)), reshaped_net(shape, weight))
    cells = windows()
    laid = cells.transpose(0, 2, 1) if turned else cells
    np.testing.assert_allclose(scored(scorer, cells)[0], laid.reshape(50, -1) @ weight, rtol=1e-4, atol=1e-4)


def test_a_reconstruction_in_the_layout_of_its_input_is_turned_back(reshaped_net):
    rule, spec = ReconstructionRule(), InputSpec(layout="channels_rows")
    scorer = Scorer(manifest(score=rule, input=spec), reshaped_net((CHANNELS, ROWS), np.eye(CELLS)))
    values, _ = scored(scorer, windows())
    np.testing.assert_allclose(values, 0.0, atol=1e-10)


def test_cells_are_normalised_before_a_graph_that_does_not(dense_net):
    found = layers(CELLS, 6, CELLS)
    spec = InputSpec(mean=(10.0, -5.0, 0.0), std=(2.0, 1.0, 0.1))
    blob = dense_net((), layers=found, shape=(CELLS,))
    outside = Scorer(manifest(score=ReconstructionRule(), input=spec), blob)
    plain = Scorer(manifest(score=ReconstructionRule()), blob)
    z = windows()
    raw = (z * [2.0, 1.0, 0.1] + [10.0, -5.0, 0.0]).astype(np.float32)
    np.testing.assert_allclose(scored(outside, raw)[0], scored(plain, z)[0], rtol=1e-4)


@pytest.mark.parametrize("kind", ["float", "int8"])
@pytest.mark.parametrize("rule", [ReconstructionRule(), ForecastRule()])
def test_a_bad_cell_is_filled_and_its_channel_adds_nothing(rule, kind, dense_net):
    seen = CELLS - CHANNELS * isinstance(rule, ForecastRule)
    found = layers(seen, 6, CELLS if seen == CELLS else CHANNELS)
    scorer = Scorer(manifest(score=rule), dense_net((), layers=found, shape=(seen,), kind=kind))
    holed, filled = windows(), windows()
    holed[7, 1, 2] = np.nan
    filled[7, 1, 2] = 0.5
    values, parts = scored(scorer, holed)
    expected, whole = scored(scorer, filled)
    np.testing.assert_array_equal(np.delete(values, 7), np.delete(expected, 7))
    assert parts[7, 2] == 0
    np.testing.assert_array_equal(parts[7, :2], whole[7, :2])
    assert values[7] == pytest.approx(whole[7, :2].sum() * 3 / 2, rel=1e-6), "the mean over what is whole"
    assert np.isnan(holed[7, 1, 2]), "what was given stays"


def test_a_window_without_a_whole_channel_has_no_score(dense_net):
    blob = dense_net((CELLS, 6, CELLS), shape=(CELLS,))
    scorer = Scorer(manifest(score=ReconstructionRule()), blob)
    cells = windows()
    cells[3, 0] = np.nan
    values, parts = scored(scorer, cells)
    assert np.isnan(values[3])
    assert not parts[3].any()
    assert np.isfinite(np.delete(values, 3)).all()


def test_how_rows_lie_in_memory_does_not_matter(dense_net):
    scorer = Scorer(manifest(score=ReconstructionRule()), dense_net((CELLS, 6, CELLS), shape=(CELLS,)))
    rows = windows(1, rows=60)[0]
    values, parts = scorer.score(rows, 57)
    for others in (np.asfortranarray(rows), np.repeat(rows, 2, axis=0)[::2]):
        again, same = scorer.score(others, 57)
        np.testing.assert_array_equal(again, values)
        np.testing.assert_array_equal(same, parts)


def pushed(model: TFLite, values: np.ndarray, cuts: list[int], hop: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """What the model says of rows that come through the pipeline's own windows, cut here and there."""
    model.load(tuple(Channel(f"s.c{place}") for place in range(values.shape[1])), None)
    buffer = WindowBuffer(rows=ROWS, channels=values.shape[1], hop=hop)
    found, at = [], 0
    for n in [*cuts, len(values)]:
        piece = values[at : at + n]
        states = np.full(piece.shape, State.GOOD, dtype=np.uint8)
        scores = model.score(buffer.push(Rows(at, 1, piece, states)))
        found.append((scores.values, scores.contributions))
        at += len(piece)
    return np.concatenate([each for each, _ in found]), np.concatenate([each for _, each in found])


@pytest.mark.parametrize("kind", ["float", "hybrid", "int8"])
@pytest.mark.parametrize("hop", [1, 3])
def test_scores_are_bit_equal_however_rows_are_cut(kind, hop, dense_net):
    blob = dense_net((CELLS, 6, CELLS), shape=(CELLS,), kind=kind)
    found = Bundle(manifest(score=ReconstructionRule()), blob)
    rng = np.random.default_rng(5)
    values = rng.normal(size=(700, CHANNELS))
    values[rng.random(values.shape) < 0.01] = np.nan
    expected, parts = pushed(TFLite(found), values, [], hop)
    for seed in range(5):
        cuts = np.random.default_rng(seed).integers(1, 120, size=12).tolist()
        again, others = pushed(TFLite(found), values, cuts, hop)
        np.testing.assert_array_equal(again, expected)
        np.testing.assert_array_equal(others, parts)


def test_windows_of_consecutive_rows_score_as_if_each_were_on_its_own(dense_net):
    blob = dense_net((CELLS, 6, CELLS), shape=(CELLS,))
    model, values = TFLite(Bundle(manifest(score=ReconstructionRule()), blob)), windows(1, rows=300)[0]
    together, parts = pushed(model, values.astype(np.float64), [])
    apart = np.stack([values[at : at + ROWS] for at in range(297)])
    bad = np.zeros(297, dtype=np.float32)
    found = model.score(Windows(np.arange(297), apart, bad))
    np.testing.assert_array_equal(found.values, together)
    np.testing.assert_array_equal(found.contributions, parts)


def test_a_graph_with_its_batch_built_in_is_scored_in_that_size(reshaped_net):
    weight = np.arange(1.0, CELLS + 1)
    fixed = Scorer(manifest(), reshaped_net((ROWS, CHANNELS), weight, fixed=True, flat=True))
    assert fixed.graph.sizes == (1,)
    cells = windows(9)
    np.testing.assert_allclose(scored(fixed, cells)[0], cells.reshape(9, -1) @ weight, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("keys", "sizes", "message"),
    [
        ({"rows": 5}, (CELLS, 1), r"of shape \[12\]; the manifest promises \[15\]: 5 rows of 3"),
        (
            {"input": InputSpec(layout="rows_channels")}, (CELLS, 1),
            r"of shape \[12\]; the manifest promises \[4, 3\]: 4 rows of 3 channels, rows_channels",
        ),
        ({}, (CELLS, 2), r"output 'out' has shape \[2\]; a score is one number"),
        (
            {"score": ReconstructionRule()}, (CELLS, 11),
            r"output 'out' has shape \[11\]; a reconstruction of 4 rows of 3 channels has \[4, 3\]",
        ),
        ({"score": ForecastRule()}, (9, 4), r"output 'out' has shape \[4\]; a forecast of 1 rows"),
        ({"score": ForecastRule()}, (CELLS, 3), r"the manifest promises \[9\]: 3 rows of 3 channels"),
        ({"score": ProbabilityRule(normal=2)}, (CELLS, 2), r"shape \[2\]; there is no class 2"),
        ({"score": OutputRule(output="odd")}, (CELLS, 1), r"no output 'odd', but 'out'"),
    ],
)  # fmt: skip
def test_a_graph_that_does_not_fit_is_refused_and_both_shapes_are_named(keys, sizes, message, dense_net):
    with pytest.raises(ModelError, match=message):
        Scorer(manifest(**({"rows": ROWS} | keys)), dense_net(sizes))
