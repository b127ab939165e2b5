"""What a replay shows depends on the data alone: not on how it is read, nor on the ticks of its clock."""

from pathlib import Path

import numpy as np
import orjson
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from dxad.pipeline import Pipeline
from dxad.replay import Replay
from dxad.types import NS_PER_S
from tests.unit.replay.plant import ALARM, JOINED, PLAIN, configured, plant, told

SECONDS = 44
ROWS = SECONDS * 50
GATED = {
    "channels": ["plc.*", "fast.x"],
    "period": "20ms",
    "when": "plc.a > 9.5",
    "settle": "200ms",
    "model": {"type": "zscore", "warm_up": 100},
    "alarm": ALARM,
}
"""Finer than one of its sources, and not always looking."""

APART = {
    "channels": ["plc.*", "fast.x"],
    "period": "100ms",
    "transforms": [{"type": "expression", "name": "plc.mode", "formula": "plc.a > 10"}],
    "by": "plc.mode",
    "model": {
        "type": "ensemble",
        "models": [
            {"type": "zscore", "warm_up": 50, "relearn_after": 20},
            {"type": "ewma", "warm_up": 60, "span": 100},
        ],
    },
    "alarm": ALARM,
}
"""What is normal is kept apart, moves, and is given up."""


def watching(folder):
    return configured(folder, joined=JOINED, plain=PLAIN, gated=GATED, apart=APART)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("replay")


@pytest.fixture(scope="module")
def whole(folder):
    return told(watching(folder), plant(SECONDS, fault_at=34.0))


def test_the_rough_recording_has_all_that_could_be_cut_wrongly(whole):
    outcome, events, scores = whole
    kinds = {each["data"]["kind"] for each in events if each["type"] == "dxad.incident.opened"}
    assert kinds == {"process", "sensor"}
    assert outcome.pipelines["joined"].learned[0]["rows"] == 200
    assert outcome.sources["plc"]["late"] > 0
    assert outcome.sources["fast"]["folded"] > 0
    assert outcome.sources["plc"]["rejected"]
    assert np.isnan(scores["joined"][:, 1]).any()
    assert outcome.pipelines["joined"].scored > 100
    assert 0 < outcome.pipelines["gated"].scored < 1500
    assert outcome.pipelines["gated"].incidents
    assert outcome.pipelines["apart"].incidents
    assert 0 < outcome.pipelines["apart"].scored < outcome.pipelines["plain"].rows


@settings(max_examples=4, deadline=None, phases=set(Phase) - {Phase.explain})
@given(
    cuts=st.lists(st.integers(1, ROWS - 1), max_size=40),
    tick=st.one_of(st.none(), st.integers(7_000_000, 20 * NS_PER_S)),
)
def test_any_pieces_and_any_ticks_give_the_same_scores_and_the_same_events(folder, whole, cuts, tick):
    outcome, events, scores = whole
    config = watching(folder)
    other, other_events, other_scores = told(config, plant(SECONDS, fault_at=34.0).cut(cuts), tick=tick)
    assert orjson.dumps(other_events) == orjson.dumps(events)
    for name, mine in scores.items():
        np.testing.assert_array_equal(other_scores[name], mine)
    assert other.pipelines == outcome.pipelines
    assert other.sources == outcome.sources


def test_row_by_row_is_the_same_as_all_at_once(folder, whole):
    _, events, scores = whole
    config = watching(folder)
    _, other_events, other_scores = told(
        config, plant(SECONDS, fault_at=34.0).cut(range(1, ROWS)), tick=NS_PER_S // 100
    )
    assert other_events == events
    for name, mine in scores.items():
        np.testing.assert_array_equal(other_scores[name], mine)


def test_a_row_sees_of_a_coarser_channel_the_newest_sample_from_before_its_end(folder):
    """At 1 s a value tells its second; a slot's largest value is known when the slot has been sealed."""
    watched = {"channels": ["plc.a", "slow.*"], "period": "100ms", "model": {"type": "zscore"}}
    made = plant(10, rough=False, fault_at=None)
    made._values[::50, 4] = np.arange(10.0)
    made._values[:, 5] = np.arange(500) / 50
    seen = []
    take = Pipeline._take

    def spy(self, rows):
        seen.append(rows.values[:, 1:].copy())
        return take(self, rows)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Pipeline, "_take", spy)
        Replay(configured(folder, p=watched), made).run()
    level, top = np.concatenate(seen).T
    row = np.arange(100)
    np.testing.assert_array_equal(level, row // 10)
    # A row of 100 ms is complete 100 ms after its end; a slot of 1 s is sealed 1 s after its own.
    sealed = (row + 2) // 10 - 1
    np.testing.assert_array_equal(top[18:], sealed[18:] - 1 + 49 / 50)
    assert np.isnan(top[:18]).all()
