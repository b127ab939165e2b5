"""From sealed rows to incidents: what a pipeline tells, what it keeps silent about, and what it counts."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dxad import bundle
from dxad.errors import ModelError
from dxad.models import zscore
from dxad.models.tflite import TFLite
from dxad.models.zscore import ZScore
from dxad.pipeline import Recorder
from dxad.training import Recording, learn
from dxad.types import NS_PER_S, Calibration, Reason, Rows, Scores, State, Windows

FAULT = np.array([0.0, 9.0, 0.0])
"""What is added to the three channels when something is wrong with the second."""


@pytest.fixture
def learned(tmp_path, normal_rows):
    """Makes the model that a plant's recorder has led to."""

    def model(plant, rows: int = 600, name: str = "bundle") -> TFLite:
        recorder = plant.pipeline.record(rows)
        told = plant.feed(normal_rows(rows))
        assert told == []
        assert recorder.full
        recording = Recording(
            plant.pipeline.stages.schema.channels,
            plant.pipeline.stages.schema.period,
            recorder.take(),
            plant.pipeline.check.learned(),
        )
        plant.pipeline.recorder = None
        return TFLite(learn(recording, tmp_path / name, rows_most=5))

    return model


@pytest.fixture
def watching(plant, learned):
    """A plant whose pipeline has learned what is normal."""
    plant.pipeline.offer(learned(plant))
    return plant


def phases(events) -> list[tuple[str, str]]:
    return [(event.data["kind"], event.data["phase"]) for event in events]


# Learn, swap, score.


def test_rows_are_recorded_while_there_is_no_model_and_none_is_scored(plant, normal_rows):
    recorder = plant.pipeline.record(100)
    rows = normal_rows(150)
    rows[20, 1] = np.nan
    plant.feed(rows, cut=40)
    expected = np.delete(rows, 20, axis=0)[:100]
    np.testing.assert_array_equal(recorder.take(), expected)
    assert (plant.counted("rows_scored"), plant.counted("rows_unscored")) == (0, 150)


@pytest.mark.parametrize("cuts", [[1] * 60, [7, 50, 3], [60]])
def test_every_row_is_counted_once_across_a_change_of_the_model(plant, learned, normal_rows, cuts):
    model = learned(plant)
    rows = iter(normal_rows(180))
    for following in (None, model, TFLite(model._bundle)):
        if following is not None:
            plant.pipeline.offer(following)
        for n in cuts:
            plant.feed(np.array([next(rows) for _ in range(n)]))
    sealed = plant.ring.sealed - plant.ring.start
    assert plant.counted("rows_scored") + plant.counted("rows_unscored") == sealed == 600 + 180
    assert plant.counted("rows_scored") == 120, "rows of the past fill the first window of each model"


def test_the_old_model_is_closed_when_the_probation_of_the_new_one_is_over(plant, learned, normal_rows):
    old = learned(plant)
    plant.pipeline.offer(old)
    plant.feed(normal_rows(10))
    new = TFLite(old._bundle)
    plant.pipeline.offer(new)
    assert plant.pipeline.detector.model is old, "not between a batch's beginning and its end"
    plant.feed(normal_rows(1))
    assert plant.pipeline.detector.model is new
    assert plant.pipeline.snapshot()["beside"]["role"] == "retired"
    for _ in range(plant.pipeline.section.promotion.probation // plant.pipeline.rows.period // 1000):
        plant.feed(normal_rows(1000))
    assert plant.pipeline.snapshot()["beside"] is None
    with pytest.raises(ModelError, match="score before load"):
        old.score(Windows(np.zeros(1, dtype=np.int64), np.zeros((1, 5, 3), dtype=np.float32), np.zeros(1)))


def test_a_model_that_is_not_for_this_pipeline_leaves_the_old_one_at_work(
    watching, make_plant, learned, normal_rows
):
    watching.feed(normal_rows(10))
    before = watching.pipeline.detector
    other = make_plant(channels=("s.x", "s.y", "s.z"))
    with pytest.raises(ModelError, match=r"wants channel 's\.x'"):
        watching.pipeline.offer(learned(other, name="other"))
    watching.feed(normal_rows(10))
    assert watching.pipeline.detector is before


def test_normal_running_tells_nothing(watching, normal_rows):
    assert watching.feed(normal_rows(2000, seed=3), cut=7) == []
    assert watching.conditions == {}
    assert watching.pipeline.snapshot()["incidents"] == []


# Excursions.


def test_an_excursion_opens_one_process_incident_and_closes_it_after_the_delay(watching, normal_rows):
    rows = normal_rows(300, seed=4)
    rows[100:150] += FAULT
    begun = watching.ring.sealed
    told = watching.feed(rows, cut=5)
    assert phases(told) == [("process", "opened"), ("process", "closed")]
    opened, closed = told
    assert opened.data["contributors"][0]["channel"] == "s.b"
    onset = watching.clock.utc((begun + 100) * watching.ring.period)
    assert 0 <= opened.data["onset_utc_ns"] - onset <= 3 * watching.ring.period
    assert opened.data["after_onset_s"] == 0.5, "the on-delay"
    assert closed.data["after_onset_s"] >= 5.0 + 1.0, "the fault and the off-delay"
    assert opened.subject == closed.subject
    assert watching.counted("incidents") == 1


@pytest.mark.parametrize("cut", [1, 3, 64, None])
def test_the_same_rows_tell_the_same_events_however_they_are_cut(make_plant, learned, normal_rows, cut):
    told = []
    for n, this_cut in enumerate((cut, 10)):
        plant = make_plant()
        plant.pipeline.offer(learned(plant, name=f"bundle{n}"))
        rows = normal_rows(400, seed=4)
        rows[100:150] += FAULT
        rows[250:290] -= FAULT
        told.append([(each.id, each.time_utc, each.data) for each in plant.feed(rows, cut=this_cut)])
    assert told[0] == told[1]
    assert len(told[0]) == 4


def test_an_excursion_that_is_shorter_than_the_delay_is_not_told(watching, normal_rows):
    rows = normal_rows(100, seed=5)
    rows[50] += FAULT / 4
    assert watching.feed(rows) == []


def test_a_configured_limit_goes_before_the_model_s(make_plant, learned, normal_rows):
    plant = make_plant(alarm={"limit": 1e12, "on_delay": "100ms"})
    plant.pipeline.offer(learned(plant))
    rows = normal_rows(100, seed=4)
    rows[50:] += FAULT
    assert plant.feed(rows) == []
    assert plant.pipeline.limit == 1e12


def test_a_reading_beyond_all_measure_is_one_incident_told_in_finite_numbers(watching, normal_rows):
    rows = normal_rows(100, seed=6)
    rows[50:, 1] = 1e300 * np.arange(1, 51)
    (opened,) = watching.feed(rows)
    assert np.isfinite(opened.data["peak_score"])
    assert "s.b" in {each["channel"] for each in opened.data["contributors"]}
    assert all(0 <= each["share"] <= 1 for each in opened.data["contributors"])


# Sensors.


@pytest.fixture
def patient(make_plant, learned):
    """A plant that watches, and waits longer for the process than it takes to tell a stuck sensor."""
    plant = make_plant(alarm={"on_delay": "1500ms", "off_delay": "1s"})
    plant.pipeline.offer(learned(plant))
    return plant


def test_a_stuck_channel_is_a_sensor_incident_and_no_process_incident(patient, normal_rows):
    rows = normal_rows(200, seed=7)
    rows[100:, 1] = rows[99, 1]
    told = patient.feed(rows, cut=4)
    assert phases(told) == [("sensor", "opened")]
    (opened,) = told
    assert opened.data["contributors"] == [{"channel": "s.b", "share": 1.0, "trouble": "stuck"}]
    assert patient.pipeline.snapshot()["troubles"] == ["s.b stuck"]


def test_after_a_stuck_channel_is_well_again_the_incident_closes_and_no_other_opens(patient, normal_rows):
    rows = normal_rows(400, seed=7)
    rows[100:200, 1] = rows[99, 1]
    assert phases(patient.feed(rows, cut=4)) == [("sensor", "opened"), ("sensor", "closed")]
    later = normal_rows(100, seed=8)
    later[50:] += FAULT
    assert phases(patient.feed(later)) == [("process", "opened")], "it watches as before"


@pytest.mark.parametrize("state", [State.EMPTY, State.BAD])
@pytest.mark.parametrize("columns", [[2], [0, 1, 2]], ids=["one channel", "the source"])
def test_what_is_missing_is_a_sensor_incident_and_no_process_incident(watching, normal_rows, state, columns):
    rows = normal_rows(200, seed=9)
    rows[100:, columns] = np.nan
    states = np.where(np.isnan(rows), state, State.GOOD).astype(np.uint8)
    told = watching.feed(rows, states, cut=10)
    assert phases(told)[0] == ("sensor", "opened")
    assert {kind for kind, _ in phases(told)} == {"sensor"}
    names = {each["channel"] for each in told[-1].data["contributors"]}
    assert names == {f"s.{'abc'[column]}" for column in columns}
    assert {each["trouble"] for each in told[-1].data["contributors"]} == {"missing"}


@pytest.mark.parametrize("cut", [1, 7, 200])
def test_what_its_source_calls_stuck_is_told_as_stuck_and_what_is_silent_beside_it_as_missing(
    watching, normal_rows, cut
):
    rows = normal_rows(200, seed=9)
    rows[100:, :2] = np.nan
    states = np.where(np.isnan(rows), State.BAD, State.GOOD).astype(np.uint8)
    reasons = np.zeros(rows.shape, dtype=np.uint8)
    reasons[100::5, 0] = Reason.STUCK  # a slow device's samples
    states[100:, 0] = np.where(reasons[100:, 0], State.BAD, State.EMPTY)
    reasons[100:, 1] = Reason.TIMEOUT
    told = []
    for at in range(0, len(rows), cut):
        piece = slice(at, at + cut)
        watching.ring.append(watching.ring.sealed, rows[piece], states[piece], reasons[piece])
        told += watching.pipeline.step()
    assert {kind for kind, _ in phases(told)} == {"sensor"}
    troubles = {each["channel"]: each["trouble"] for each in told[-1].data["contributors"]}
    assert troubles == {"s.a": "stuck", "s.b": "missing"}
    assert [(each.channel, each.kind) for each in watching.pipeline.check.troubles] == [
        ("s.a", "stuck"), ("s.b", "missing"),
    ]  # fmt: skip


@pytest.mark.parametrize("cut", [1, 7, 64, None])
def test_a_sensor_that_fails_later_in_the_batch_takes_back_nothing_of_before(
    make_plant, learned, normal_rows, cut
):
    told = []
    for n, this_cut in enumerate((cut, 1)):
        plant = make_plant()
        plant.pipeline.offer(learned(plant, name=f"bundle{n}"))
        rows = normal_rows(300, seed=4)
        rows[50:90] += FAULT
        rows[140:, 2] = np.nan
        rows[200:, 2] = normal_rows(100, seed=5)[:, 2]
        told.append([(each.id, each.time_utc, each.data) for each in plant.feed(rows, cut=this_cut)])
    assert told[0] == told[1]
    assert [data["kind"] for _, _, data in told[0]].count("process") >= 2
    assert "sensor" in {data["kind"] for _, _, data in told[0]}


def test_a_hole_shorter_than_the_delay_is_not_told(watching, normal_rows):
    rows = normal_rows(100, seed=9)
    rows[50:54] = np.nan
    assert watching.feed(rows) == []


def test_when_nothing_can_be_scored_the_gateway_says_that_it_is_blind(watching, normal_rows):
    rows = normal_rows(60, seed=9)
    rows[20:, :2] = np.nan
    watching.feed(rows, cut=1)
    assert watching.conditions == {"pipeline.blind": "too many channels are missing or bad: s.a, s.b"}
    watching.feed(normal_rows(20, seed=10), cut=1)
    assert watching.conditions == {}


def test_a_place_that_no_device_has_taken_is_nothing_to_be_blind_to(watching, normal_rows):
    vacant = True
    watching.pipeline._sight._vacant = lambda: vacant
    watching.feed(normal_rows(10, seed=9), cut=1)
    rows = np.full((60, 3), np.nan)
    watching.feed(rows, cut=1)
    assert watching.conditions == {}
    vacant = False
    watching.feed(rows, cut=1)
    assert watching.conditions == {}, "whoever comes has some time to begin"
    watching.feed(np.full((60, 3), np.nan), cut=1)
    assert "pipeline.blind" in watching.conditions


# The gateway's own troubles.


class BugError(Exception):
    """What no model is known to raise."""


class Failing:
    """A model that fails when it is told to."""

    version = "failing"
    calibration = Calibration(2.0)

    def __init__(self) -> None:
        self.error: Exception | None = None

    def load(self, _channels, rows, *, by=None):
        return rows or 1

    def score(self, windows):
        if self.error is not None:
            raise self.error
        return Scores(np.zeros(len(windows)))

    def close(self):
        pass


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


# What it remembers.


def test_it_remembers_rows_and_scores_from_its_beginning_and_no_further(watching, normal_rows):
    pipeline = watching.pipeline
    assert pipeline.rows.oldest == watching.ring.start
    rows = normal_rows(100)
    watching.feed(rows)
    reading = pipeline.rows.read(pipeline.rows.sealed - 100, pipeline.rows.sealed)
    np.testing.assert_array_equal(reading.values, rows)
    scores = pipeline.scores.read(pipeline.rows.sealed - 100, pipeline.rows.sealed).values
    assert np.isfinite(scores).all()
    parts = pipeline.parts.read(pipeline.rows.sealed - 100, pipeline.rows.sealed).values
    np.testing.assert_allclose(parts.sum(axis=1), scores[:, 0], rtol=1e-4)


def test_transforms_come_before_the_model_and_the_memory(make_plant, normal_rows):
    plant = make_plant(transforms=[{"type": "scale", "factor": 2.0, "channels": ["s.a"]}])
    rows = normal_rows(50)
    plant.feed(rows, cut=9)
    reading = plant.pipeline.rows.read(plant.ring.start, plant.ring.sealed)
    np.testing.assert_array_equal(reading.values, rows * [2.0, 1.0, 1.0])


def test_a_snapshot_says_what_there_is_to_know(watching, normal_rows):
    watching.feed(normal_rows(50))
    shown = watching.pipeline.snapshot()
    assert shown["channels"] == ["s.a", "s.b", "s.c"]
    assert (shown["period_ms"], shown["scored"], shown["unscored"], shown["lost"]) == (100.0, 50, 600, 0)
    assert shown["rows"] == 650
    assert shown["limit"] == pytest.approx(watching.pipeline.limit, abs=1e-4)
    assert shown["model"] == {"version": watching.pipeline.detector.model.version, "rows": 5}
    assert 0 < shown["score"] < shown["limit"]
    watching.feed(normal_rows(50) + FAULT)
    (incident,) = watching.pipeline.snapshot()["incidents"]
    assert incident["kind"] == "process"


def test_it_is_due_when_a_row_is_complete(plant, normal_rows):
    assert not plant.pipeline.due
    plant.seal(normal_rows(1))
    assert plant.pipeline.due
    plant.pipeline.step()
    assert not plant.pipeline.due


def test_a_recorder_takes_whole_rows_until_it_is_full():
    recorder = Recorder(2, 3)
    values = np.array([[1.0, 1.0], [np.nan, 2.0], [3.0, 3.0], [4.0, 4.0], [5.0, 5.0]])
    states = np.ones(values.shape, dtype=np.uint8)
    for piece in (slice(0, 2), slice(2, 5)):
        assert not recorder.full
        running = np.ones(piece.stop - piece.start, dtype=np.bool_)
        recorder.push(Rows(0, 1, values[piece], states[piece]), running)
    assert recorder.full
    np.testing.assert_array_equal(recorder.take(), values[[0, 2, 3]])


def test_a_learned_bundle_says_how_long_its_channels_stand_still(plant, learned):
    made: bundle.Bundle = learned(plant)._bundle
    assert made.manifest.stuck_rows == {"s.a": 10, "s.b": 10, "s.c": 10}


# Rows that do not count.


def with_mode(normal_rows, n: int, mode: float, seed: int = 0) -> np.ndarray:
    """Rows of s.a, s.b and s.c, the last of which says how the machine runs."""
    rows = normal_rows(n, seed=seed)
    rows[:, 2] = mode
    return rows


def test_rows_in_which_the_machine_does_not_run_are_neither_scored_nor_learned(make_plant, normal_rows):
    plant = make_plant(when="s.c == 1", settle="500ms")
    recorder = plant.pipeline.record(1000)
    plant.pipeline.offer(ZScore(zscore.Config(type="zscore", warm_up=50)))
    plant.feed(with_mode(normal_rows, 100, 1.0))
    assert recorder.rows == 95, "the first half second settles"
    assert plant.counted("rows_scored") == 45
    plant.feed(with_mode(normal_rows, 20, 0.0) + np.array([1000.0, 1000.0, 0.0]))
    assert recorder.rows == 95
    assert plant.counted("rows_idle") == 25
    assert plant.pipeline.snapshot()["running"] is False
    assert plant.pipeline.snapshot()["incidents"] == []
    plant.feed(with_mode(normal_rows, 10, 1.0))
    assert plant.counted("rows_scored") == 50
    assert plant.pipeline.snapshot()["running"] is True


def test_no_window_reaches_from_one_run_of_the_machine_into_the_next(make_plant, normal_rows):
    class Wide(Failing):
        def __init__(self) -> None:
            super().__init__()
            self.windows: list[np.ndarray] = []

        def load(self, _channels, rows, *, by=None):
            return 4

        def score(self, windows):
            self.windows += list(windows.values.copy())
            return Scores(np.zeros(len(windows)))

    plant = make_plant(when="s.c == 1")
    model = Wide()
    plant.pipeline.offer(model)
    for n, mode in ((6, 1.0), (3, 0.0), (5, 1.0), (1, 0.0), (3, 1.0)):
        plant.feed(with_mode(normal_rows, n, mode))
    assert len(model.windows) == 3 + 2
    assert all((window[:, 2] == 1.0).all() for window in model.windows)


def test_a_channel_that_stands_still_while_the_machine_rests_is_not_stuck(make_plant, normal_rows):
    plant = make_plant(when="s.c == 1")
    plant.pipeline.check.expect({"s.a": 10})
    plant.feed(with_mode(normal_rows, 20, 1.0))
    resting = np.tile([5.0, 5.0, 0.0], (200, 1))
    assert plant.feed(resting) == []
    assert plant.feed(with_mode(normal_rows, 20, 1.0)) == []
    standing = np.tile([5.0, 5.0, 1.0], (20, 1))
    assert [event.data["kind"] for event in plant.feed(standing)] == ["sensor"]


@given(cuts=st.lists(st.integers(1, 40), min_size=1, max_size=12), seed=st.integers(0, 1000))
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_which_rows_count_does_not_depend_on_how_they_come(make_plant, normal_rows, cuts, seed):
    rng = np.random.default_rng(seed)
    rows = normal_rows(sum(cuts), seed=seed)
    rows[:, 2] = np.repeat(rng.random(sum(cuts) // 7 + 1) < 0.7, 7)[: sum(cuts)]
    whole, pieces = (make_plant(when="s.c == 1", settle="300ms") for _ in range(2))
    whole.pipeline.offer(ZScore(zscore.Config(type="zscore", warm_up=10)))
    pieces.pipeline.offer(ZScore(zscore.Config(type="zscore", warm_up=10)))
    whole.feed(rows)
    at = 0
    for n in cuts:
        pieces.feed(rows[at : at + n])
        at += n
    one, other = (each.pipeline.scores.read(0, 10**9).values for each in (whole, pieces))
    np.testing.assert_array_equal(one, other)


# Functions of the user's own.


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


# A recorder.


@pytest.mark.parametrize("sealed", [70, 1000])
def test_it_stops_after_the_row_with_which_a_recorder_has_enough(plant, normal_rows, sealed):
    rows = normal_rows(1000)
    rows[10, 1] = np.nan  # which a recorder leaves out
    recorder = plant.pipeline.record(300)
    for at in range(0, 1000, sealed):
        plant.seal(rows[at : at + sealed])
        plant.pipeline.step()
        if recorder.full:
            break
    assert recorder.full
    assert plant.pipeline.rows.sealed == plant.pipeline.rows.start + 301
    assert plant.pipeline.due
    plant.pipeline.recorder = None
    plant.pipeline.step()
    assert not plant.pipeline.due


def test_a_recorder_that_is_full_and_still_there_holds_nothing_up(plant, normal_rows):
    plant.pipeline.record(50)
    plant.feed(normal_rows(60), cut=20)
    plant.feed(normal_rows(200), cut=20)
    assert plant.pipeline.rows.sealed == plant.pipeline.rows.start + 260


# What a baseline cannot learn beforehand.


def test_a_pipeline_without_a_learned_model_finds_out_for_itself_when_a_sensor_is_stuck(plant, normal_rows):
    plant.pipeline.offer(zscore.ZScore(zscore.Config(type="zscore", warm_up=50)))
    rows = normal_rows(1300)
    assert plant.feed(rows[:900], cut=100) == []
    standing = rows[900:1000].copy()
    standing[20:, 1] = standing[20, 1]
    assert plant.feed(standing, cut=10) == [], "too little was seen to say how still it may stand"
    assert plant.feed(rows[1000:1200], cut=100) == []
    standing = rows[1200:].copy()
    standing[:, 1] = standing[0, 1]
    told = plant.feed(np.repeat(standing, 5, axis=0), cut=50)
    assert [event.data["kind"] for event in told][:1] == ["sensor"]
    assert told[0].data["contributors"][0]["trouble"] == "stuck"


def test_a_sensor_that_is_stuck_for_long_costs_no_more_than_others(plant, learned, normal_rows):
    plant.pipeline.offer(learned(plant))
    judged: list[int] = []
    judge = plant.pipeline._judge
    plant.pipeline._judge = lambda rows, *others: judged.append(len(rows)) or judge(rows, *others)
    rows = normal_rows(1000, seed=1)
    rows[:, 1] = rows[0, 1]
    plant.feed(rows, cut=250)
    assert plant.pipeline.watch.in_doubt
    assert len(judged) < 20, "a few stretches, not a thousand rows"
    assert sum(judged) == 1000


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


def test_nobody_knows_what_the_machine_did_in_rows_that_were_lost(make_plant, normal_rows):
    plant = make_plant(when="s.c == 1", settle="5s", slots=100)
    plant.pipeline.offer(ZScore(zscore.Config(type="zscore", warm_up=10)))
    plant.feed(with_mode(normal_rows, 80, 1.0))
    scored = plant.counted("rows_scored")
    for _ in range(4):
        plant.seal(with_mode(normal_rows, 60, 1.0))
    plant.pipeline.step()
    assert plant.counted("rows_lost") > 0
    assert plant.counted("rows_scored") == scored + 50, "it has to settle again"


@pytest.mark.parametrize(
    "judging",
    [
        {"type": "validate", "channels": ["s.b"], "high": 100.0},
        {"type": "clip", "channels": ["s.b"], "high": 100.0, "outside": "bad"},
    ],
)
def test_what_a_transform_calls_implausible_is_a_sensor_incident(make_plant, normal_rows, judging):
    plants = [
        make_plant(transforms=[judging], alarm={"on_delay": "500ms", "off_delay": "1s"}) for _ in range(2)
    ]
    rows = normal_rows(300)
    rows[100:200, 1] = 5000.0
    told = []
    for plant, cut in zip(plants, (1, 97), strict=True):
        plant.pipeline.offer(ZScore(zscore.Config(type="zscore", warm_up=50)))
        told.append([(event.id, event.type, event.data) for event in plant.feed(rows, cut=cut)])
    assert told[0] == told[1]
    (_, opened, data), (_, closed, _) = told[0]
    assert (opened, closed) == ("dxad.incident.opened", "dxad.incident.closed")
    assert data["kind"] == "sensor"
    assert [(each["channel"], each["trouble"]) for each in data["contributors"]] == [("s.b", "invalid")]
