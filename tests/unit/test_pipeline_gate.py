"""Rows in which the machine does not run, or runs in another way, do not count."""

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dxad.models import zscore
from dxad.models.zscore import ZScore
from dxad.types import Scores
from tests.unit.failing import Failing


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
