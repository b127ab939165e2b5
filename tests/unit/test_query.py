"""What a pipeline answers when it is asked, and what it says when it cannot."""

import numpy as np
import pytest

from dxad.detector import anomaly_score
from dxad.models.zscore import Config, ZScore
from dxad.query import answer
from dxad.runtime.worker import Worker

STATUS = {"state": "as it is"}


@pytest.fixture
def worker():
    thread = Worker("inference")
    yield thread
    thread.close()


@pytest.fixture
def ask(plant, worker):
    async def asked(request, of=plant):
        return await answer(of.pipeline, request, worker=worker, clock=of.clock, status=STATUS)

    return asked


def baseline() -> ZScore:
    return ZScore(Config(type="zscore", warm_up=100))


@pytest.fixture
def warm(plant, normal_rows):
    """A plant whose baseline has warmed up."""
    plant.pipeline.offer(baseline())
    plant.feed(normal_rows(300))
    return plant


async def test_an_empty_request_asks_for_the_status(ask):
    assert await ask({}) == {"success": True, "content": STATUS, "error": None}


async def test_execute_scores_the_last_window_now(ask, warm, normal_rows):
    rows = normal_rows(20, seed=3)
    rows[-1, 1] += 40.0
    warm.feed(rows)
    response = await ask({"execute": True})
    result = response["content"]["result"]
    newest = warm.pipeline.scores.read(warm.pipeline.rows.sealed - 1, warm.pipeline.rows.sealed).values[0]
    assert result["raw_score"] == pytest.approx(newest[0], abs=1e-6)
    assert result["score"] == pytest.approx(newest[1], abs=1e-6)
    assert result["limit"] == pytest.approx(warm.pipeline.limit, abs=1e-6)
    assert result["anomaly_score"] == pytest.approx(anomaly_score(newest[1], warm.pipeline.limit), abs=1e-6)
    assert result["is_anomaly"] is True
    assert (result["model"], result["window_rows"]) == ("zscore", 1)
    assert result["channels"] == ["s.a", "s.b", "s.c"]
    assert result["quality"] == {"good": 1.0, "known": 1.0}


async def test_execute_answers_the_worst_of_as_many_rows_as_it_is_asked_to_look_at(ask, warm, normal_rows):
    rows = normal_rows(20, seed=3)
    rows[5, 1] += 40.0
    warm.feed(rows)
    for size, worst in ((10, False), (14, False), (15, True), (300, True)):
        response = await ask({"execute": True, "config": {"window_size": size}})
        assert response["content"]["result"]["is_anomaly"] is worst, size
        assert response["content"]["input_data"]["rows"] == size


async def test_a_threshold_holds_for_one_question_only(ask, warm):
    async def verdict(**config):
        response = await ask({"execute": True, "config": config})
        return response["content"]["result"]["is_anomaly"]

    assert await verdict() is False
    assert await verdict(threshold=0.001) is True
    assert await verdict() is False


async def test_execute_says_which_rows_it_looked_at(ask, warm):
    response = await ask({"execute": True, "config": {"window_size": 10}})
    found = response["content"]["input_data"]
    rows = warm.pipeline.rows.read(warm.pipeline.rows.sealed - 10, warm.pipeline.rows.sealed).values
    assert found["channels"]["s.a"] == {
        "last": pytest.approx(rows[-1, 0], rel=1e-5),
        "mean": pytest.approx(rows[:, 0].mean(), rel=1e-5),
        "min": pytest.approx(rows[:, 0].min(), rel=1e-5),
        "max": pytest.approx(rows[:, 0].max(), rel=1e-5),
        "unit": "mm",
    }
    assert found["from"] == "2023-11-14T22:30:29.000000Z"
    assert found["to"] == "2023-11-14T22:30:30.000000Z"


async def test_the_share_of_what_is_known_is_told(ask, warm, normal_rows):
    rows = normal_rows(10, seed=4)
    rows[:5, 2] = np.nan
    warm.feed(rows)
    response = await ask({"execute": True, "config": {"window_size": 10}})
    assert response["content"]["result"]["quality"] == {"good": 0.8333, "known": 0.8333}


async def test_a_channel_without_any_value_has_no_numbers(ask, make_plant, worker, normal_rows):
    plant = make_plant(channels=[f"s.{name}" for name in "abcdefgh"])
    plant.pipeline.offer(baseline())
    rows = normal_rows(200, channels=8)
    rows[:, 7] = np.nan
    plant.feed(rows)
    response = await ask({"execute": True}, of=plant)
    assert response["content"]["input_data"]["channels"]["s.h"] == {"last": None, "unit": "mm"}


async def test_given_rows_are_scored_and_touch_no_state(ask, warm, normal_rows):
    rows = normal_rows(30, seed=5)
    rows[-1, 0] += 40.0
    before = warm.pipeline.snapshot(), warm.pipeline.rows.sealed
    response = await ask({"data": {"a": rows[:, 0].tolist(), "s.b": rows[:, 1].tolist(), "c": [10.0] * 30}})
    assert response["content"]["result"]["is_anomaly"] is True
    assert response["content"]["input_data"] == {"rows": 30}
    assert (warm.pipeline.snapshot(), warm.pipeline.rows.sealed) == before


async def test_given_rows_go_through_transforms_of_their_own(ask, make_plant, normal_rows):
    plant = make_plant(transforms=[{"type": "smooth", "span": "1s"}])
    plant.pipeline.offer(baseline())
    plant.feed(normal_rows(300))
    for _ in range(2):
        data = {name: [1e6] * 20 for name in "abc"}
        assert (await ask({"data": data}, of=plant))["content"]["result"]["is_anomaly"] is True
    data = {name: [10.0] * 20 for name in "abc"}
    response = await ask({"data": data}, of=plant)
    assert response["content"]["result"]["is_anomaly"] is False, "nothing is left of what was asked before"


@pytest.mark.parametrize(
    ("request_", "error"),
    [
        ({"execute": "perhaps"}, "execute: "),
        ({"config": {"window_size": 0}}, "config.window_size: "),
        ({"config": {"threshold": 1.0}}, "config.threshold: "),
        ({"config": {"window_sise": 5}}, "did you mean 'window_size'?"),
        ({"exekute": True}, "did you mean 'execute'?"),
        ({"data": {"a": [1.0]}}, "data for channel 's.b' is missing"),
        ({"data": {"a": [1], "b": [1], "c": [1], "x": [1]}}, "no channel 'x'; there are s.a, s.b, s.c"),
        ({"data": {"a": [1], "b": [1], "c": [1, 2]}}, "the channels have different numbers of rows"),
        (
            {"data": {"a": [], "b": [], "c": []}},
            "0 rows cannot be scored; the model wants at least 1 good ones",
        ),
        ({"data": {"a": ["x"], "b": [1], "c": [1]}}, "data.a.0: "),
        ({"data": {"a": [None], "b": [1], "c": [1]}}, "data.a.0: "),
    ],
)
async def test_a_mistake_in_a_request_is_an_answer(ask, warm, request_, error):
    response = await ask(request_)
    assert (response["success"], response["content"]) == (False, None)
    assert error in response["error"]


@pytest.mark.parametrize("rows", [0, 7])
async def test_without_a_model_it_says_so_and_how_much_it_has_seen(ask, plant, normal_rows, rows):
    plant.feed(normal_rows(rows))
    response = await ask({"execute": True, "config": {"timeout_s": 0}})
    assert response["error"] == f"pipeline 'p' has no model yet; it has seen {rows} rows"


async def test_before_the_first_window_is_full_it_says_both_numbers(ask, make_plant, normal_rows):
    plant = make_plant(window="2s")
    plant.pipeline.offer(baseline())
    plant.feed(normal_rows(7))
    response = await ask({"execute": True, "config": {"timeout_s": 0}}, of=plant)
    assert response["error"] == "the model wants 20 rows, there are 7 after 0 s"
    plant.feed(normal_rows(40))
    response = await ask({"execute": True, "config": {"timeout_s": 0}}, of=plant)
    assert response["error"] == "the model is still warming up: 47 rows so far"


async def test_where_nothing_can_be_scored_it_says_why(ask, warm):
    warm.feed(np.full((30, 3), np.nan))
    response = await ask({"execute": True, "config": {"timeout_s": 0, "window_size": 20}})
    assert response["error"] == "none of the last 20 rows can be scored: too much of them is missing or bad"
