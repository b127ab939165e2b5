"""A new model counts when it has earned it, and gives way when it does not do."""

from collections.abc import Sequence

import numpy as np
import pytest

from dxad.config import PromotionSection
from dxad.detector import Detector, Scored
from dxad.errors import ModelError
from dxad.runtime.clock import SteppedClock
from dxad.succession import Succession
from dxad.types import Calibration, Channel, Rows, Scores, State, Windows

CHANNELS = (Channel("s.a"),)
PERIOD = 100_000_000
SECOND = 10
"""Rows."""


class Clock(SteppedClock):
    def advance(self, ns: int) -> None:
        self._now += ns


class Stand:
    """Scores a row by its value times a factor; may fail, and take its time."""

    calibration = Calibration(1.0)

    def __init__(self, version: str, clock: Clock, *, factor: float = 1.0, took: int = 1000) -> None:
        self.version = version
        self.factor = factor
        self.took = took
        self.fails = self.closed = False
        self.error: Exception | None = None
        self.seen: list[int] = []
        self._clock = clock

    def load(self, channels: Sequence[Channel], rows: int | None, *, by: int | None = None) -> int:
        return rows or 1

    def score(self, windows: Windows) -> Scores:
        self._clock.advance(self.took)
        if self.error is not None:
            raise self.error
        if self.fails:
            raise ModelError("the runtime gave up")
        self.seen += windows.last.tolist()
        return Scores(self.factor * windows.values[:, -1, 0].astype(np.float64))

    def state(self) -> dict:
        return {}

    def restore(self, state: dict) -> None:
        pass

    def close(self) -> None:
        self.closed = True


class Rig:
    def __init__(self, **rule) -> None:
        self.clock = Clock()
        self.slot = 0
        self.scored: list[float] = []
        self.succession = Succession(
            PromotionSection.model_validate({"after": "1s", "probation": "2s", **rule}),
            deadline=50_000_000,
            period=PERIOD,
            configured_limit=lambda: None,
            clock=self.clock,
        )

    def model(self, version: str, **options) -> Stand:
        return Stand(version, self.clock, **options)

    def detector(self, model: Stand) -> Detector:
        return Detector(model, CHANNELS, rows=1, hop=1, required=[])

    def feed(self, n: int, value: float = 0.5) -> Scored | None:
        rows = Rows(self.slot, PERIOD, np.full((n, 1), value), np.full((n, 1), State.GOOD, dtype=np.uint8))
        self.slot += n
        self.succession.settle(lambda _n: None)
        found = self.succession.apply(rows)
        self.scored += [] if found is None else found.raw.tolist()
        return found

    @property
    def live(self) -> str:
        assert self.succession.live is not None
        return self.succession.live.model.version

    def install(self, model: Stand) -> Stand:
        self.succession.offer(self.detector(model))
        self.feed(1)
        return model

    def shadow(self, model: Stand) -> Stand:
        self.succession.shadow(self.detector(model))
        self.feed(1)
        return model


@pytest.fixture
def rig():
    return Rig()


def test_without_a_model_nothing_is_scored(rig):
    assert rig.feed(3) is None
    assert not rig.succession.expected


def test_a_shadow_scores_every_row_and_none_of_its_scores_count(rig):
    rig.install(rig.model("old"))
    shadow = rig.shadow(rig.model("new", factor=100.0))
    rig.feed(20)
    assert rig.live == "old"
    assert set(rig.scored) == {0.5}
    assert shadow.seen == list(range(1, 22))
    report = rig.succession.snapshot()
    assert report["role"] == "shadow"
    assert report["comparison"]["rows"] == 21
    assert report["comparison"]["agreement"] == 0.0
    assert report["comparison"]["alarm_share"] == {"live": 0.0, "beside": 1.0}


def test_a_promoted_shadow_counts_from_the_next_row_on_and_no_row_is_missed(rig):
    old = rig.install(rig.model("old"))
    new = rig.shadow(rig.model("new", factor=1.5))
    rig.feed(5)
    rig.succession.promote()
    rig.feed(5)
    assert rig.live == "new"
    assert rig.scored == [0.5] * 7 + [0.75] * 5
    assert old.seen == list(range(12)), "the old one goes on beside it"
    assert new.seen == list(range(1, 12))
    assert [(turn.kind, turn.version, turn.replaced) for turn in rig.succession.turns][-1] == (
        "promoted", "new", "old",
    )  # fmt: skip


def test_what_has_been_replaced_goes_when_the_probation_is_over(rig):
    old = rig.install(rig.model("old"))
    rig.install(rig.model("new"))
    rig.feed(2 * SECOND - 2)
    assert not old.closed
    rig.feed(1)
    assert old.closed
    assert rig.succession.snapshot() is None


def test_a_new_model_that_fails_gives_way_at_once_and_the_row_is_scored_all_the_same(rig):
    rig.install(rig.model("old"))
    new = rig.install(rig.model("new", factor=1.5))
    rig.feed(3)
    new.fails = True
    rig.feed(4)
    assert rig.live == "old"
    assert new.closed
    assert rig.scored == [0.5] + [0.75] * 4 + [0.5] * 4
    turn = rig.succession.turns[-1]
    assert (turn.kind, turn.version, turn.replaced) == ("rolled_back", "old", "new")
    assert "the runtime gave up" in turn.reason


@pytest.mark.parametrize("error", [IndexError("candidate bug"), OSError("no such device")])
def test_a_new_model_gives_way_whatever_its_code_raises(rig, error):
    rig.install(rig.model("old"))
    new = rig.install(rig.model("new", factor=1.5))
    new.error = error
    rig.feed(4)
    assert (rig.live, rig.scored) == ("old", [0.5, 0.75] + [0.5] * 4)
    assert type(error).__name__ in rig.succession.turns[-1].reason


@pytest.mark.parametrize("factor", [np.nan, -np.inf])
def test_a_new_model_that_answers_with_no_number_gives_way(rig, factor):
    rig.install(rig.model("old"))
    rig.install(rig.model("new", factor=factor))
    assert (rig.live, rig.scored) == ("old", [0.5, 0.5])
    assert rig.succession.turns[-1].reason == "it answers with numbers that are not finite"


@pytest.mark.parametrize("how", ["raises", "no number"])
def test_a_shadow_that_fails_is_counted_and_costs_the_live_model_nothing(rig, how):
    rig.install(rig.model("old"))
    shadow = rig.model("new", factor=np.nan if how == "no number" else 1.0)
    shadow.error = IndexError("candidate bug") if how == "raises" else None
    rig.shadow(shadow)
    rig.feed(5)
    assert rig.scored == [0.5] * 7
    assert rig.succession.snapshot()["comparison"]["failures"] == 2


def test_one_that_was_replaced_and_fails_goes_since_there_is_no_way_back_to_it(rig):
    old = rig.install(rig.model("old"))
    rig.install(rig.model("new"))
    old.fails = True
    rig.feed(1)
    assert old.closed
    assert rig.succession.snapshot() is None
    turn = rig.succession.turns[-1]
    assert (turn.kind, turn.version, turn.replaced) == ("dismissed", "new", "old")


def test_wishes_are_fulfilled_in_order_and_none_is_lost(rig):
    old = rig.install(rig.model("old"))
    rig.succession.offer(rig.detector(rig.model("new")))
    rig.succession.shadow(rig.detector(rig.model("newest")))
    assert rig.succession.upcoming.model.version == "new"
    rig.feed(1)
    assert rig.live == "new"
    assert rig.succession.snapshot()["version"] == "newest"
    assert old.closed


def test_whoever_wishes_learns_what_became_of_it(rig):
    rig.install(rig.model("old"))
    installed = rig.succession.offer(rig.detector(rig.model("new")))
    assert not installed.done()
    rig.feed(2 * SECOND)
    assert installed.result(0) is None
    late = rig.succession.roll_back()
    rig.feed(1)
    assert late.result(0) == "the model before it is gone: the probation is over"
    assert rig.live == "new"


def test_wishes_that_wait_when_the_pipeline_goes_are_refused_and_their_models_closed(rig):
    live, new = rig.install(rig.model("old")), rig.model("new")
    answer = rig.succession.offer(rig.detector(new))
    rig.succession.close()
    assert answer.result(0) == "the pipeline is there no more"
    assert live.closed
    assert new.closed


def test_a_shadow_that_has_to_go_is_told_of(rig):
    rig.install(rig.model("old"))
    rig.shadow(rig.model("candidate"))
    rig.install(rig.model("new"))
    assert [(turn.kind, turn.replaced) for turn in rig.succession.turns][-2:] == [
        ("dismissed", "candidate"), ("installed", "old"),
    ]  # fmt: skip


def test_a_new_model_that_is_too_slow_gives_way():
    rig = Rig(probation="1h")
    rig.install(rig.model("old"))
    rig.install(rig.model("new", took=60_000_000))
    for _ in range(3):
        rig.feed(1)
    assert rig.live == "old"
    assert "longer than 0.05 s" in rig.succession.turns[-1].reason


def test_a_new_model_that_alarms_where_the_old_one_does_not_gives_way():
    rig = Rig(probation="1h", shift=0.1)
    rig.install(rig.model("old"))
    rig.install(rig.model("new", factor=3.0))
    rig.feed(98)
    assert rig.live == "new"
    rig.feed(1)
    assert rig.live == "old"
    assert "alarms in 100% of the rows" in rig.succession.turns[-1].reason


def test_a_new_model_that_alarms_where_the_old_one_does_too_stays():
    rig = Rig(probation="1h")
    rig.install(rig.model("old"))
    rig.install(rig.model("new", factor=1.1))
    rig.feed(300, value=5.0)
    assert rig.live == "new"


def test_a_model_that_was_replaced_can_be_called_back_during_the_probation(rig):
    rig.install(rig.model("old"))
    rig.install(rig.model("new"))
    rig.succession.roll_back()
    rig.feed(1)
    assert rig.live == "old"


def test_a_shadow_takes_over_by_itself_where_the_rule_allows_it():
    rig = Rig(automatic=True)
    rig.install(rig.model("old"))
    rig.shadow(rig.model("new", factor=1.2))
    rig.feed(SECOND - 2)
    assert rig.live == "old"
    rig.feed(1)
    assert rig.live == "new"
    assert "agreed on 100.00%" in rig.succession.turns[-1].reason


@pytest.mark.parametrize("trouble", ["disagrees", "fails"])
def test_a_shadow_that_has_not_earned_it_does_not(trouble):
    rig = Rig(automatic=True)
    rig.install(rig.model("old"))
    shadow = rig.shadow(rig.model("new", factor=3.0 if trouble == "disagrees" else 1.0))
    shadow.fails = trouble == "fails"
    rig.feed(3)
    shadow.fails = False
    rig.feed(5 * SECOND)
    assert rig.live == "old"


def test_a_live_model_that_fails_with_nobody_to_go_back_to_says_so_and_its_shadow_looks_across_no_hole(rig):
    live = rig.install(rig.model("old"))
    rig.shadow(rig.model("new"))
    live.fails = True
    with pytest.raises(ModelError, match="gave up"):
        rig.feed(1)
    live.fails = False
    rig.feed(1)
    assert rig.live == "old"


def test_a_slow_batch_is_told_until_the_next_one_is_not(rig):
    live = rig.install(rig.model("old"))
    live.took = 60_000_000
    rig.feed(1)
    assert rig.succession.slow
    live.took = 1000
    rig.feed(1)
    assert not rig.succession.slow


def test_the_report_has_numbers_only_where_there_are_any(rig):
    rig.install(rig.model("old"))
    rig.succession.shadow(rig.detector(rig.model("new")))
    rig.feed(0)
    comparison = rig.succession.snapshot()["comparison"]
    assert comparison["agreement"] is None
    assert comparison["correlation"] is None


def test_an_outage_does_not_count_as_a_probation():
    rig = Rig(shift=0.1)
    rig.install(rig.model("old"))
    rig.install(rig.model("new", factor=3.0))
    rig.feed(5 * 2 * SECOND, value=float("nan"))
    assert rig.succession.role == "retired", "nothing could be compared"
    rig.feed(2 * SECOND)
    assert rig.live == "old", "and what it does afterwards still counts"
    rig = Rig()
    rig.install(rig.model("old"))
    rig.install(rig.model("new"))
    rig.feed(50 * 2 * SECOND, value=float("nan"))
    assert rig.succession.role == "none", "but nobody waits for ever"
