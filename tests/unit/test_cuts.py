"""Untrained models: scores, events and what they say is typical depend on the rows, not on their batches."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dxad import plugin
from dxad.models.tflite import BareTFLite
from tests.unit.conftest import START, Plant

CUTS = (7, 64, None)
KEYS: dict[str, dict[str, Any]] = {
    "zscore": {"warm_up": 30},
    "ewma": {"warm_up": 30, "span": 40},
    "cusum": {"warm_up": 30},
    "hampel": {"warm_up": 30, "span": 9, "relearn_after": None},
    "seasonal": {"season": "4s", "bins": 4, "seasons": 2, "memory": 3},
}


def member(kind: str, relearn_after: int | None = None) -> dict[str, Any]:
    return {"type": kind, **KEYS[kind]} | ({} if relearn_after is None else {"relearn_after": relearn_after})


def watching(model: dict[str, Any], **section: Any) -> Plant:
    """A plant of s.a, s.b and s.mode with that model at work."""
    plant = Plant(
        channels=("s.a", "s.b", "s.mode"),
        batch=600,
        incidents={"reopen_within": "2s"},
        model=model,
        **section,
    )
    found = plant.section.model
    plant.pipeline.offer(plugin.load("models", model["type"]).build(found, state_dir=Path()))
    return plant


def told(plant: Plant, rows: np.ndarray, cut: int | None) -> tuple[list[Any], np.ndarray, np.ndarray]:
    """Events, scores and contributions."""
    events = [(each.id, each.type, each.time_utc, each.data) for each in plant.feed(rows, cut=cut)]
    kept = plant.pipeline
    return events, kept.scores.read(0, 10**9).values, kept.parts.read(0, 10**9).values


def running(seed: int, n: int = 600) -> np.ndarray:
    """Two channels and a mode that is told by steps; holes, jumps that last, and a slow motion."""
    rng = np.random.default_rng(seed)
    rows = np.column_stack((rng.normal(size=(n, 2)), np.repeat(rng.integers(0, 3, n // 20), 20)[:n]))
    rows[:, :2] += 40 * rows[:, 2:] + np.arange(n)[:, None] / 50
    for at in rng.integers(0, n - 60, 7).tolist():
        rows[at : at + int(rng.integers(1, 50)), int(rng.integers(0, 2))] += rng.choice([-30.0, 30.0, 900.0])
    rows[rng.random(rows.shape) < 0.01] = np.nan
    return rows


@pytest.mark.parametrize("kind", [*KEYS, "max", "mean"])
@settings(max_examples=5, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    relearn=st.sampled_from([None, 4, 25]),
    section=st.fixed_dictionaries(
        {"hop": st.sampled_from([1, 3])},
        optional={"by": st.just("s.mode"), "when": st.just("s.b > -15")},
    ),
)
def test_events_and_scores_are_the_same_however_rows_are_cut(kind, seed, relearn, section):
    model = member(kind, relearn) if kind in KEYS else {
        "type": "ensemble",
        "combine": kind,
        "models": [member("zscore"), {**member("ewma", relearn), "warm_up": 75}, member("seasonal", relearn)],
    }  # fmt: skip
    section = section | {
        "alarm": {"on_delay": "200ms", "off_delay": "500ms"},
        "alarms": [{"channel": "s.a", "high": 100.0, "on_delay": "100ms", "off_delay": "300ms"}],
    }
    rows = running(seed)
    events, scores, parts = told(watching(model, **section), rows, 1)
    for cut in CUTS:
        other_events, other_scores, other_parts = told(watching(model, **section), rows, cut)
        np.testing.assert_array_equal(other_scores, scores)
        np.testing.assert_array_equal(other_parts, parts)
        assert other_events == events


@pytest.mark.parametrize("cut", [1, 7, None])
def test_a_batch_may_hold_a_warm_up_and_the_next_one(cut):
    rows = np.random.default_rng(0).normal(size=(40, 3))
    rows[22:, 0] += 100
    plant = watching({"type": "zscore", "warm_up": 20, "relearn_after": 5})
    events, scores, _ = told(plant, rows, cut)
    assert np.flatnonzero(~np.isnan(scores[:, 1])).tolist() == list(range(20, 27))
    assert [data["phase"] for _, _, _, data in events] == ["opened"]


@pytest.mark.parametrize("cut", [1, 7, None])
def test_evidence_is_held_against_the_regime_of_its_own_rows(cut):
    rows = np.random.default_rng(0).normal(size=(160, 3))
    rows[:, 2] = np.repeat([1, 2] * 4, 20)
    rows[rows[:, 2] == 2, :2] += 1000
    rows[85:90, 0] += 500  # in mode 1; the batch may end in mode 2
    plant = watching(member("zscore"), by="s.mode", alarm={"on_delay": "0s", "off_delay": "200ms"})
    opened = told(plant, rows, cut)[0][0][3]
    first = opened["contributors"][0]
    assert first["channel"] == "s.a"
    assert first["typical"] == pytest.approx(0, abs=0.5)
    assert first["deviation_sd"] > 100


@pytest.mark.parametrize("cut", [1, 7, None])
def test_what_is_typical_is_what_it_was_when_the_incident_was_told(cut):
    rows = np.random.default_rng(0).normal(size=(300, 3))
    rows[:, 0] += np.arange(300) / 10  # learned meanwhile: 30 at the end of the batch
    rows[150:155, 0] += 500
    plant = watching(member("ewma"), alarm={"on_delay": "0s", "off_delay": "200ms"})
    opened = told(plant, rows, cut)[0][0][3]
    assert opened["contributors"][0]["typical"] == pytest.approx(13, abs=2)


@pytest.mark.parametrize("cut", [1, 7, None])
def test_a_limit_is_told_from_the_row_on_in_which_it_was_known(cut):
    rows = np.random.default_rng(0).normal(size=(60, 3))
    rows[10:20, 0] += 500
    rows[52:56, 0] += 500
    limits = [{"channel": "s.a", "high": 100.0, "on_delay": "0s", "off_delay": "100ms"}]
    plant = watching(member("zscore"), alarms=limits)
    events, _, _ = told(plant, rows, cut)
    opened = [data for _, _, _, data in events if data["phase"] == "opened"]
    assert [data["limit"] is None for data in opened] == [True, False]
    calibration = plant.pipeline.detector.calibration
    assert calibration.since == START + 29


@pytest.mark.parametrize("cut", [1, 7, None])
def test_a_bare_graph_judges_from_the_row_on_that_ended_its_warm_up(bare_tflite, cut):
    rows = 10 + np.random.default_rng(0).normal(size=(140, 3))
    plant = Plant()
    plant.pipeline.offer(BareTFLite(bare_tflite(3)))
    _, scores, _ = told(plant, rows, cut)
    assert not np.isnan(scores[:, 0]).any()
    assert np.flatnonzero(~np.isnan(scores[:, 1])).tolist() == list(range(99, 140))
    assert plant.pipeline.detector.calibration.since == START + 99
