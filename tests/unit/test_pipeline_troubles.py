"""The gateway's own troubles: models and functions that fail, rows that are lost; each told and counted."""

from itertools import pairwise

import numpy as np
import pytest

from dxad.errors import ModelError
from dxad.models import zscore
from dxad.models.tflite import TFLite
from dxad.models.zscore import ZScore
from dxad.training import Recording, learn
from dxad.types import NS_PER_S, Scores, State
from tests.unit.failing import BugError, Failing


def test_a_model_that_fails_is_a_condition_until_it_scores_again(plant, normal_rows):
    model = Failing()
    plant.pipeline.offer(model)
    plant.feed(normal_rows(10))
    model.error = ModelError("inference failed: out of memory")
    assert plant.feed(normal_rows(10)) == []
    assert plant.conditions == {"model.failed": "inference failed: out of memory"}
    model.error = None
    plant.feed(normal_rows(10))
    assert plant.conditions == {}
    assert (plant.counted("rows_scored"), plant.counted("rows_unscored")) == (20, 10)


@pytest.mark.parametrize("error", [IndexError("candidate bug"), MemoryError(), TypeError("no array")])
def test_what_a_models_own_code_raises_costs_its_rows_alone(plant, normal_rows, error):
    model = Failing()
    model.error = error
    plant.pipeline.offer(model)
    plant.feed(normal_rows(10))
    assert plant.conditions == {"model.failed": f"{type(error).__name__}: {error}"}
    model.error = None
    plant.feed(normal_rows(10))
    assert plant.conditions == {}
    assert (plant.counted("rows_scored"), plant.counted("rows_unscored")) == (10, 10)


class Answering(Failing):
    """A model that scores all windows alike."""

    def __init__(self, score: float) -> None:
        super().__init__()
        self.answer = score

    def score(self, windows):
        return Scores(np.full(len(windows), self.answer))


@pytest.mark.parametrize("score", [np.nan, -np.inf])
def test_a_model_that_answers_with_no_number_is_a_condition_until_it_does(plant, normal_rows, score):
    model = Answering(score)
    plant.pipeline.offer(model)
    plant.feed(normal_rows(100), cut=10)
    assert plant.conditions == {"model.failed": "it answers with numbers that are not finite"}
    assert (plant.counted("rows_scored"), plant.counted("rows_unscored")) == (0, 100)
    model.answer = 0.5
    plant.feed(normal_rows(10))
    assert plant.conditions == {}


def test_a_bundle_that_was_learned_from_rows_of_another_period_is_refused(plant, tmp_path, normal_rows):
    recording = Recording(plant.pipeline.stages.schema.channels, 60 * NS_PER_S, normal_rows(600), {})
    slow = TFLite(learn(recording, tmp_path / "slow", rows_most=5))
    with pytest.raises(ModelError, match=r"rows 60 s apart, those of the pipeline are 0\.1 s apart"):
        plant.pipeline.offer(slow)
    assert not plant.pipeline.has_model


def test_the_first_window_of_a_new_model_reaches_over_no_row_that_did_not_count(make_plant, normal_rows):
    plant = make_plant(when="s.c == 1", window="500ms")
    rows = normal_rows(30)
    rows[:, 2] = 1.0
    rows[10:20, 2] = 0.0
    plant.pipeline.offer(Answering(0.5))
    plant.feed(rows[:22])
    plant.pipeline.offer(Answering(0.7))
    plant.feed(rows[22:])
    raw = plant.pipeline.scores.read(plant.ring.sealed - 10, plant.ring.sealed).values[:, 0]
    np.testing.assert_array_equal(raw, [np.nan] * 4 + [0.7] * 6)


def test_rows_that_a_bug_took_are_in_the_ledger_too(plant, normal_rows):
    model = Failing()
    plant.pipeline.offer(model)
    plant.feed(normal_rows(10))
    model.error = BugError()
    with pytest.raises(BugError):
        plant.feed(normal_rows(30))
    model.error = None
    plant.feed(normal_rows(5))
    assert plant.pipeline.snapshot()["lost_by"] == {"failed": 30}
    assert (plant.counted("rows_scored"), plant.counted("rows_lost")) == (15, 30)


def test_a_condition_of_somebody_else_is_not_cleared_by_scoring(watching, normal_rows):
    watching.health.raise_condition("model.failed", "p", "learning failed")
    watching.feed(normal_rows(10))
    assert watching.conditions == {"model.failed": "learning failed"}


def test_rows_that_were_overwritten_are_counted_as_lost_and_no_window_reaches_across(
    plant, learned, normal_rows
):
    model = learned(plant)
    plant.pipeline.offer(model)
    plant.feed(normal_rows(10))
    before = plant.counted("rows_scored")
    sealed = normal_rows(6000, seed=3)
    for begin, end in pairwise(range(0, 6001, 1000)):
        plant.seal(sealed[begin:end])
    assert plant.pipeline.step() == []
    assert plant.counted("rows_lost") == 2000
    width = plant.pipeline.detector.rows
    assert plant.counted("rows_scored") - before == 4000 - (width - 1)
    total = sum(plant.counted(f"rows_{name}") for name in ("scored", "unscored", "lost"))
    assert total == plant.ring.sealed - plant.ring.start


@pytest.mark.parametrize("overflow", ["drop_oldest", "drop_newest", "thin"])
def test_every_row_is_scored_or_not_or_in_the_ledger_under_every_policy(make_plant, normal_rows, overflow):
    plant = make_plant(slots=300, batch=16, backlog=50, overflow=overflow)
    rng = np.random.default_rng(1)
    for _ in range(40):
        for _ in range(int(rng.integers(1, 5))):
            plant.seal(normal_rows(int(rng.integers(1, 200)), seed=2))
        plant.pipeline.step()
    plant.feed(normal_rows(1))
    given = plant.ring.sealed - plant.ring.start
    seen = plant.counted("rows_scored") + plant.counted("rows_unscored")
    lost = plant.pipeline.snapshot()["lost_by"]
    assert set(lost) == {"backlog", "overwritten"}
    assert given == seen + sum(lost.values())
    assert plant.counted("rows_lost") == sum(lost.values())
    assert plant.metrics.total("dxad_lost_total", place="pipelines.p") == sum(lost.values())


def test_a_pipeline_with_a_short_backlog_skips_the_oldest_rows_and_counts_them(make_plant, normal_rows):
    plant = make_plant(backlog=50)
    plant.feed(normal_rows(40))
    plant.feed(normal_rows(200))
    assert plant.counted("rows_lost") == 150
    assert plant.counted("rows_scored") + plant.counted("rows_unscored") == 90


def test_a_function_that_fails_is_told_and_costs_nothing_but_its_own_channel(make_plant, normal_rows):
    calls = {"type": "call", "function": "fickle", "channels": ["s.a"], "name": "s.sum"}
    plant = make_plant(transforms=[calls])
    plant.pipeline.offer(ZScore(zscore.Config(type="zscore", warm_up=10)))
    plant.feed(normal_rows(50))
    assert plant.conditions == {}
    plant.feed(normal_rows(20) + np.array([5000.0, 0.0, 0.0]), cut=10)
    assert plant.conditions["transform.failed"] == "fickle: OverflowError: more than a thousand"
    assert plant.counted("transform_faults") == 2
    seen = plant.pipeline.rows.read(plant.pipeline.rows.sealed - 20, plant.pipeline.rows.sealed)
    assert (seen.states[:, 3] == State.BAD).all()
    assert (seen.states[:, :3] == State.GOOD).all()
    plant.feed(normal_rows(10))
    assert plant.conditions == {}
    assert plant.counted("rows_scored") + plant.counted("rows_unscored") == 80


def test_what_was_found_before_a_step_broke_is_told_all_the_same(make_plant, normal_rows):
    plant = make_plant(batch=100, alarms=[{"channel": "s.a", "high": 100.0, "on_delay": "100ms"}])
    rows = normal_rows(200)
    rows[20:, 0] = 500.0
    gate, taken = plant.pipeline._gate.apply, []

    def breaks(rows):
        taken.append(rows.first)
        if len(taken) == 2:
            raise ZeroDivisionError
        return gate(rows)

    plant.pipeline._gate.apply = breaks
    with pytest.raises(ZeroDivisionError):
        plant.feed(rows)
    assert [event.type for event in plant.pipeline.untold()] == ["dxad.incident.opened"]
    assert plant.pipeline.untold() == []
