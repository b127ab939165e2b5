"""A model at work: which windows it is shown, what comes of its scores, and what it forgets."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dxad.detector import BAD_MOST, Detector, anomaly_score
from dxad.errors import ModelError
from dxad.types import Calibration, Channel, Document, Rows, Scores, State, Windows

NAN = float("nan")
CHANNELS = tuple(Channel(f"s.c{n}") for n in range(5))


class Sum:
    """Scores a window by the sum of its known cells, and remembers what it was shown."""

    version = "sum"

    def __init__(self, *, rows: int = 2, calibration: Calibration | None = None) -> None:
        self.calibration = calibration
        self.shown: list[int] = []
        self._rows = rows

    def load(self, _channels: Sequence[Channel], rows: int | None, *, by: int | None = None) -> int:
        return rows or self._rows

    def score(self, windows: Windows) -> Scores:
        self.shown += windows.last.tolist()
        return Scores(
            np.nansum(windows.values, axis=(1, 2)).astype(np.float64),
            np.nansum(windows.values, axis=1).astype(np.float64),
        )

    def close(self) -> None:
        pass


def detector_of(model: Sum, *, hop: int = 1, required: Sequence[int] = (), rows: int | None = None):
    return Detector(model, CHANNELS, rows=rows, hop=hop, required=required)


def rows_from(first: int, values: np.ndarray) -> Rows:
    states = np.where(np.isnan(values), State.BAD, State.GOOD).astype(np.uint8)
    return Rows(first, 100, values, states)


def ones(n: int) -> np.ndarray:
    return np.ones((n, len(CHANNELS)))


def test_each_row_that_ends_a_window_is_scored_and_the_others_are_not():
    model = Sum(rows=3, calibration=Calibration(1.0))
    scored = detector_of(model, hop=2).apply(rows_from(100, ones(7)))
    np.testing.assert_array_equal(scored.raw, [NAN, NAN, 15.0, NAN, 15.0, NAN, 15.0])
    np.testing.assert_array_equal(scored.judged, scored.raw)
    assert model.shown == [102, 104, 106]
    assert scored.contributions.sum(axis=1).tolist() == [0, 0, 15, 0, 15, 0, 15]


def test_rows_of_the_past_fill_the_first_window_without_being_scored():
    model = Sum(rows=3)
    detector = detector_of(model)
    detector.prime(rows_from(98, ones(2)))
    detector.apply(rows_from(100, ones(2)))
    assert model.shown == [100, 101]


def test_a_window_with_more_than_a_fifth_of_bad_cells_is_not_shown_to_the_model():
    model = Sum(rows=2)
    values = ones(4)
    values[0, :2] = NAN  # two of ten cells: a fifth
    values[2, :1] = NAN
    values[3, :2] = NAN
    scored = detector_of(model).apply(rows_from(0, values))
    assert BAD_MOST == 0.2
    assert model.shown == [1, 2]
    assert scored.refused == 1


def test_a_window_without_any_value_of_a_required_channel_is_not_shown_to_the_model():
    model = Sum(rows=3)
    values = np.ones((8, 5))
    values[2:6, 4] = NAN
    scored = detector_of(model, required=[4]).apply(rows_from(0, values))
    assert model.shown == [2, 3, 6, 7]
    assert scored.refused == 2


def test_a_score_beyond_single_precision_is_as_large_as_can_be_told():
    class Overflowing(Sum):
        def score(self, windows: Windows) -> Scores:
            n = len(windows)
            return Scores(np.full(n, np.inf), np.full((n, 5), np.inf))

    scored = detector_of(Overflowing(rows=1, calibration=Calibration(1.0, (1, 4), (0.001, 1.0)))).apply(
        rows_from(0, ones(3))
    )
    assert np.isfinite(scored.raw).all()
    assert np.isfinite(scored.judged).all()
    assert np.isfinite(scored.contributions.sum())


def test_nothing_is_judged_before_the_model_knows_how():
    model = Sum(rows=1)
    detector = detector_of(model)
    assert np.isnan(detector.apply(rows_from(0, ones(2))).judged).all()
    assert detector.limit(None) is None
    assert detector.limit(7.0) == 7.0
    model.calibration = Calibration(3.0, (1,), (5.0,))
    assert detector.apply(rows_from(2, ones(2))).judged.tolist() == [1.0, 1.0]
    assert detector.limit(None) == 3.0
    assert detector.limit(7.0) == 7.0, "what the configuration says goes first"


def test_no_window_and_no_mean_reaches_across_rows_that_were_lost():
    model = Sum(rows=3, calibration=Calibration(1.0, (1, 4), (1e9, 1.0)))
    detector = detector_of(model)
    detector.apply(rows_from(0, 100 * ones(10)))
    detector.restart()
    model.shown.clear()
    scored = detector.apply(rows_from(50, ones(5)))
    assert model.shown == [52, 53, 54]
    assert np.nanmax(scored.judged) == 15.0


def test_scores_that_are_forgiven_weigh_on_none_to_come():
    model = Sum(rows=1, calibration=Calibration(1.0, (1, 4), (1e9, 1.0)))
    detector = detector_of(model)
    detector.apply(rows_from(0, 100 * ones(10)))
    detector.forgive()
    assert detector.apply(rows_from(10, ones(4))).judged.max() == 5.0


@given(
    seed=st.integers(0, 2**32),
    n=st.integers(0, 60),
    cuts=st.lists(st.integers(0, 20), max_size=6),
    rows=st.integers(1, 4),
    hop=st.integers(1, 3),
)
def test_no_cut_of_the_rows_changes_a_bit(*, seed, n, cuts, rows, hop):
    rng = np.random.default_rng(seed)
    values = np.abs(rng.normal(size=(n, 5)))
    values[rng.random(values.shape) < 0.1] = NAN
    calibration = Calibration(1.0, (1, 3, 7), (1.0, 0.9, 0.7))

    def fresh():
        return detector_of(Sum(calibration=calibration), rows=rows, hop=hop)

    whole = fresh().apply(rows_from(0, values))
    detector = fresh()
    edges = [0, *sorted(min(n, int(at)) for at in np.cumsum(cuts)), n]
    pieces = [detector.apply(rows_from(begin, values[begin:end])) for begin, end in pairwise(edges)]
    for name in ("raw", "judged", "contributions"):
        found = np.concatenate([getattr(piece, name) for piece in pieces])
        np.testing.assert_array_equal(found, getattr(whole, name))
    assert sum(piece.refused for piece in pieces) == whole.refused


def test_the_best_of_some_rows_is_asked_without_touching_what_runs():
    model = Sum(rows=2, calibration=Calibration(1.0, (1, 2), (1.0, 0.5)))
    detector = detector_of(model)
    detector.apply(rows_from(0, ones(5)))
    odd = ones(6)
    odd[3] = 9.0
    assert detector.best(rows_from(0, odd)) == (50.0, 100.0)
    following = detector.apply(rows_from(5, ones(1)))
    assert following.raw.tolist() == [10.0]
    assert following.judged.tolist() == [20.0]


@pytest.mark.parametrize("values", [ones(1), np.full((6, 5), NAN)], ids=["too short", "all bad"])
def test_there_is_no_best_where_no_window_can_be_scored(values):
    detector = detector_of(Sum(rows=2, calibration=Calibration(1.0)))
    assert detector.best(rows_from(0, values)) is None


def test_there_is_no_best_before_anybody_can_judge():
    model = Sum(rows=2)
    assert detector_of(model).best(rows_from(0, ones(6))) is None
    assert model.shown == [], "a model that is warming up must not learn from a question"


def test_a_model_is_told_that_it_is_a_question():
    class Asked(Sum):
        questions: list[bool]

        def score(self, windows: Windows) -> Scores:
            self.questions = [*getattr(self, "questions", []), windows.question]
            return super().score(windows)

    model = Asked(rows=1, calibration=Calibration(1.0))
    detector = detector_of(model)
    detector.apply(rows_from(0, ones(2)))
    detector.best(rows_from(0, ones(2)))
    detector.apply(rows_from(2, ones(2)))
    assert model.questions == [False, True, False]


def test_a_model_that_has_more_to_show_is_asked_for_it():
    class Talkative(Sum):
        def details(self) -> Document:
            return {"members": []}

    assert detector_of(Sum()).snapshot() == {"version": "sum", "rows": 2}
    assert detector_of(Talkative()).snapshot() == {"version": "sum", "rows": 2, "members": []}


def test_a_model_that_sums_up_is_told_to_forgive():
    class Forgetful(Sum):
        forgiven = 0

        def forgive(self) -> None:
            self.forgiven += 1

    model = Forgetful(rows=1)
    detector = detector_of(model)
    detector.forgive()
    detector.restart()
    assert model.forgiven == 2


def test_a_window_says_of_what_period_its_rows_are_also_where_others_are_left_out():
    class Timed(Sum):
        times: list[int]

        def score(self, windows: Windows) -> Scores:
            self.times = windows.times.tolist()
            return super().score(windows)

    model = Timed(rows=1)
    values = ones(3)
    values[1] = NAN
    detector_of(model).apply(rows_from(7, values))
    assert model.times == [700, 900]


def test_the_limit_is_at_095_on_a_scale_from_0_to_1():
    assert anomaly_score(2.0, limit=2.0) == pytest.approx(0.95)
    assert anomaly_score(0.0, limit=2.0) == 0.0
    assert anomaly_score(3.4e38, limit=2.0) == 1.0


class Silent(Sum):
    """A model that has no score for any window."""

    def score(self, windows: Windows) -> Scores:
        return Scores(np.full(len(windows), np.nan))


class SilentWhileItLearnsAnew(Silent):
    def forgive(self) -> None:
        pass


def unsound(model: Sum, values: np.ndarray, *, by: int | None = None) -> int:
    return Detector(model, CHANNELS, rows=1, hop=1, required=[], by=by).apply(rows_from(0, values)).unsound


def test_a_calibrated_model_that_has_no_score_for_a_whole_window_is_unsound():
    assert unsound(Silent(calibration=Calibration(1.0)), ones(4)) == 4


def test_there_are_reasons_to_have_no_score():
    holed = ones(4)
    holed[:, 0] = NAN
    regimes = Calibration(1.0, regimes=(2.0, 3.0))
    assert unsound(Silent(), ones(4)) == 0, "a warm-up"
    assert unsound(SilentWhileItLearnsAnew(calibration=Calibration(1.0)), ones(4)) == 0, "a warm-up again"
    assert unsound(Silent(calibration=Calibration(1.0)), holed) == 0, "a cell that is not there"
    assert unsound(Silent(calibration=regimes), ones(4), by=1) == 0, "a regime that was not learned"
    assert unsound(Silent(calibration=regimes), 2 * ones(4), by=1) == 4, "one that was"


def test_a_score_without_a_lower_bound_is_unsound_even_in_a_warm_up():
    class Lowest(Sum):
        def score(self, windows: Windows) -> Scores:
            return Scores(np.full(len(windows), -np.inf))

    detector = detector_of(Lowest(rows=1))
    scored = detector.apply(rows_from(0, ones(3)))
    assert scored.unsound == 3
    assert np.isnan(scored.raw).all()


@pytest.mark.parametrize("answer", [Scores(np.zeros(1)), Scores(np.zeros(3), np.zeros((3, 2))), None])
def test_an_answer_of_another_shape_is_a_failure_of_the_model(answer):
    class Wrong(Sum):
        def score(self, windows: Windows) -> Scores:
            return answer

    with pytest.raises(ModelError, match=r"another shape|AttributeError"):
        detector_of(Wrong(rows=1)).apply(rows_from(0, ones(3)))


@pytest.mark.parametrize(
    ("made_for", "period", "refused"), [(100, 100, 0), (100, 1, 0), (1, 100, 0), (100, 60, 1)]
)
def test_a_model_is_for_rows_that_are_as_far_apart_as_it_was_made_for(made_for, period, refused):
    class Made(Sum):
        periods = (made_for,)

    def fitted() -> Detector:
        return Detector(Made(), CHANNELS, rows=None, hop=1, required=[], period=period)

    if refused:
        with pytest.raises(
            ModelError, match="made for rows 1e-07 s apart, those of the pipeline are 6e-08 s"
        ):
            fitted()
    else:
        assert fitted().rows == 2
