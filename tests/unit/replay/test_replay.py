"""A replay learns where the daemon would, tells the times of the recording, and leaves no trace."""

from pathlib import Path

import numpy as np
import pytest

from dxad import config as configuration
from dxad.errors import ConfigError
from dxad.recording.labels import Truth
from dxad.replay import Replay
from dxad.types import NS_PER_S
from tests.unit.replay.plant import ALARM, BEGIN, JOINED, PLAIN, Made, configured, plant, told

ALERT = {**PLAIN, "model": {"type": "zscore", "warm_up": 50}}


def at(seconds: float) -> int:
    return BEGIN + round(seconds * NS_PER_S)


def smooth(seconds: int = 60, **options) -> Made:
    return plant(seconds, rough=False, **options)


def test_an_upset_has_the_times_of_the_recording(tmp_path):
    outcome, events, _ = told(configured(tmp_path, p=PLAIN), smooth())
    (incident,) = outcome.document()["pipelines"]["p"]["incidents"]
    assert incident["onset"] == "2023-11-14T22:14:00.123456Z"  # the very row from which the fault acts
    assert incident["delay_s"] == 0.5
    assert incident["closed"] is None
    assert incident["contributors"][0]["channel"] == "plc.a"
    assert events[0]["time"] == "2023-11-14T22:14:00.623456Z"


def test_learning_ends_with_the_row_that_fills_it_and_the_next_row_is_scored(tmp_path):
    outcome, _, scores = told(configured(tmp_path, joined=JOINED), smooth())
    joined = outcome.pipelines["joined"]
    assert [each["rows"] for each in joined.learned] == [200]
    scored = scores["joined"][~np.isnan(scores["joined"][:, 1]), 0]
    whole_rows = np.count_nonzero(np.isnan(scores["joined"][:, 1]))
    assert np.array_equal(scored, np.arange(scored[0], scored[0] + len(scored)))
    # Of the slow source, a slot that folds its samples is known to the row that ends when it has been sealed.
    assert whole_rows == 18 + 200
    assert joined.model is not None
    assert joined.scored == len(scored)


def test_a_model_on_the_shelf_is_used_and_nothing_is_written_beside_it(tmp_path):
    config = configured(tmp_path, joined=JOINED)
    shelf = _learned_shelf(tmp_path, config)
    before = sorted(path for path in tmp_path.rglob("*"))
    outcome, _, scores = told(config, smooth())
    assert outcome.pipelines["joined"].learned == []
    assert np.count_nonzero(~np.isnan(scores["joined"][:, 1])) > 550
    assert sorted(path for path in tmp_path.rglob("*")) == before
    assert shelf.exists()


def _learned_shelf(tmp_path: Path, config) -> Path:
    """A model that was learned in an earlier replay, put where the configuration looks for it."""
    from dxad.bundle.shelf import install
    from dxad.bundle.trial import ensure_tried_now
    from dxad.training import Recording, learn

    rows: list[np.ndarray] = []
    from dxad.pipeline import Pipeline

    take = Pipeline._remember

    def spy(self, shaped, scored):
        rows.append(shaped.values)
        take(self, shaped, scored)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Pipeline, "_remember", spy)
        Replay(config, smooth(fault_at=None)).run()
    from dxad.config import shape

    schema = shape(config.pipelines["joined"], config.sources).outputs
    values = np.concatenate(rows)
    values = values[~np.isnan(values).any(axis=1)]
    shelf = tmp_path / "state/models/joined"
    learn(Recording(schema.channels, schema.period, values, {}), tmp_path / "made", rows_most=3)
    install(shelf, tmp_path / "made")
    ensure_tried_now(shelf)
    return shelf


def test_it_learns_again_if_asked_to_though_there_is_a_model(tmp_path):
    config = configured(tmp_path, joined=JOINED)
    _learned_shelf(tmp_path, config)
    outcome, *_ = told(config, smooth(), learn=10 * NS_PER_S)
    assert [each["rows"] for each in outcome.pipelines["joined"].learned] == [100]


def test_it_learns_from_another_recording_first(tmp_path):
    config = configured(tmp_path, joined={**JOINED, "learn": None}, plain=PLAIN)
    normal = smooth(60, seed=1, fault_at=None)
    outcome, _, scores = told(config, smooth(), learn=normal)
    joined = outcome.pipelines["joined"]
    assert joined.learned == []
    assert np.isnan(scores["joined"][:30, 1]).sum() < 25  # from the first window on
    assert [each["kind"] for each in joined.document()["incidents"]] == ["process"]


def test_what_cannot_be_learned_from_is_told_and_the_next_rows_are_tried(tmp_path):
    still = smooth(40, fault_at=None)
    still._values[: 25 * 50, :2] = np.where(np.isnan(still._values[: 25 * 50, :2]), np.nan, 1.0)
    watched = {"channels": ["plc.*"], "model": {"type": "tflite", "path": "m"}, "learn": {"span": "10s"}}
    outcome, *_ = told(configured(tmp_path, p=watched), still)
    learned = outcome.pipelines["p"].learned
    assert [each.get("error", "") for each in learned[:2]] == [
        "no channel varies: there is nothing to learn"
    ] * 2
    assert "version" in learned[2]


def test_only_a_span_of_the_recording_is_driven_through(tmp_path):
    outcome, *_ = told(configured(tmp_path, p=PLAIN), smooth(), span=(at(10), at(30)))
    document = outcome.document()
    assert document["recording"]["rows"] == 20 * 50
    assert document["recording"]["from"] == "2023-11-14T22:13:30.123456Z"
    assert document["pipelines"]["p"]["rows"] == 200
    with pytest.raises(ConfigError, match="has no rows in that span"):
        told(configured(tmp_path, p=PLAIN), smooth(), span=(at(100), None))


@pytest.mark.parametrize("column", [True, False])
def test_labels_come_from_a_column_or_from_elsewhere(tmp_path, column):
    made = smooth()
    wrong = made._times >= at(40)
    if column:
        made = Made(
            made._times, np.column_stack((made._values, wrong)), (*made.columns, "anomaly"), bad=None
        )  # fmt: skip
    truth = Truth.of_stretches([(at(40), at(100))])
    outcome, *_ = told(configured(tmp_path, p=ALERT), made, labels="anomaly" if column else truth)
    score = outcome.document()["pipelines"]["p"]["score"]
    # Rows of the recording are 20 ms apart, five of them in a row of the pipeline. The alarm opens with the
    # fifth row that is off, so the 20 before are missed; counting begins after the warm-up of 50 rows.
    assert score["true_positive"] == 1000 - 20
    assert score["false_negative"] == 20
    assert score["false_positive"] == 0
    assert score["true_negative"] == 2000 - 5 * 50
    assert (score["episodes"], score["found"], score["delay_median_s"]) == (1, 1, 0.4)


def test_columns_of_no_channel_and_channels_without_a_column_are_told(tmp_path):
    made = smooth(5)
    other = Made(made._times, made._values, ("plc.a", "b", "x", "note", "slow.level", "top"))
    document = told(configured(tmp_path, p=PLAIN), other)[0].document()["recording"]
    assert document["columns_ignored"] == ["note"]
    assert document["channels_missing"] == ["fast.y"]
    assert document["columns"]["plc.b"] == "b"


def test_a_time_that_cannot_be_right_is_told_instead_of_passed_through(tmp_path):
    made = smooth(5)
    made._times[200:] += 10**9 * NS_PER_S
    with pytest.raises(ConfigError, match=r"times jump from 2023-11-14T22:13:24.103456Z to 2055.* slots"):
        told(configured(tmp_path, p=PLAIN), made)


def test_after_the_last_row_nothing_is_said_to_be_missing(tmp_path):
    slow = {"channels": ["plc.*", "slow.*"], "period": "100ms", "model": {"type": "zscore"}, "alarm": ALARM}
    outcome, events, _ = told(configured(tmp_path, p=slow), smooth(20, fault_at=None))
    assert "sensor" not in {each["data"]["kind"] for each in events}
    assert outcome.pipelines["p"].rows == 200


def test_the_ids_depend_on_the_data_and_the_gateway_alone(tmp_path):
    ids = [
        told(configured(tmp_path, p=PLAIN), made)[1][0]["id"] for made in (smooth(), smooth(), smooth(seed=1))
    ]
    assert ids[0] == ids[1] != ids[2]


def test_however_wide_the_rows_no_more_samples_wait_than_may(tmp_path):
    names = tuple(f"c{number}" for number in range(100))
    link = {"type": "mqtt", "url": "mqtt://127.0.0.1:1", "topic": "t", "period": "10ms"}
    config = configuration.parse(
        {
            "state_dir": str(tmp_path),
            "memory_max": "1GiB",
            "sources": {"wide": {**link, "channels": {name: {} for name in names}}},
            "pipelines": {"p": {"channels": ["wide.*"], "model": {"type": "zscore", "warm_up": 100}}},
        }
    )
    rows = 3000
    times = BEGIN + np.arange(rows, dtype=np.int64) * (NS_PER_S // 100)
    outcome, *_ = told(config, Made(times, np.random.default_rng(0).normal(size=(rows, 100)), names))
    assert outcome.sources["wide"]["samples"] == rows * 100
    assert outcome.pipelines["p"].rows == rows
    assert outcome.pipelines["p"].scored == rows - 100
