"""From sealed rows to incidents: what a pipeline tells, remembers, records and counts."""

import numpy as np
import pytest

from dxad import bundle
from dxad.errors import ModelError
from dxad.models.tflite import TFLite
from dxad.pipeline import Recorder
from dxad.types import Rows, Windows
from tests.unit.excursions import FAULT, phases


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
