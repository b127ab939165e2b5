"""What the shipped demonstration finds and keeps silent about, on one plant, in virtual time.

`python -m tests.bench.detection` asks the same of twenty.
"""

import json

import pytest

from tests.bench import report
from tests.bench.detection import FAULTS, PIPELINE, Run, measure, metrics
from tests.bench.report import Metric

BROKEN = tuple(fault for fault in FAULTS if fault != "none")


@pytest.fixture(scope="module")
def runs() -> dict[str, Run]:
    return {run.fault: run for run in measure(1, jobs=2)}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_fault_is_told_of_with_its_channels_and_nothing_is_before_it(runs, fault):
    learned = runs[fault].learned
    assert learned.reasons == ()
    assert 0 < learned.delay_s < 30


def test_a_healthy_plant_opens_no_incident(runs):
    learned = runs["none"].learned
    assert learned.reasons == ()
    assert learned.delay_s is None


def test_a_worn_bearing_is_small_while_it_is_looked_for(runs):
    sizes = runs["bearing_wear"].size_sd
    assert set(sizes) == {"vib.x", "vib.y"}
    assert all(0 < size <= 3 for size in sizes.values())


@pytest.mark.parametrize("fault", FAULTS)
def test_every_row_is_scored_or_not_exactly_once_across_the_swap(runs, fault):
    run = runs[fault]
    for outcome in (run.learned, run.baseline):
        assert outcome.scored + outcome.unscored == run.rows


def test_from_the_swap_on_every_row_of_a_healthy_plant_is_scored(runs):
    unscored = runs["none"].learned.unscored
    assert 200 <= unscored <= 203, "what was learned from, and at most what else came in with its last row"


def test_a_benchmark_tells_six_things_of_each_metric_in_one_json_object(runs, capfdbinary):
    status = report.show(metrics(list(runs.values())), title=PIPELINE, as_json=True)
    told = json.loads(capfdbinary.readouterr().out)
    assert {name.partition(".")[0] for name in told} == set(FAULTS)
    for each in told.values():
        assert set(each) == {"value", "unit", "reference", "ratio", "goal", "holds"}
        assert (each["goal"] is None) == (each["holds"] is None)
    assert status == 0, {name: each for name, each in told.items() if each["holds"] is False}


@pytest.mark.parametrize(
    ("metric", "ratio", "holds"),
    [
        (Metric(value=3.0, unit="s"), None, None),
        (Metric(value=3.0, unit="s", reference=2.0), 1.5, None),
        (Metric(value=3.0, unit="s", reference=0.0), None, None),
        (Metric(value=3.0, unit="s", goal=3.0), None, True),
        (Metric(value=2.9, unit="s", goal=3.0), None, False),
        (Metric(value=2.9, unit="s", goal=3.0, at_most=True), None, True),
        (Metric(value=3.1, unit="s", goal=3.0, at_most=True), None, False),
        (Metric(value=None, unit="s", reference=2.0, goal=3.0), None, False),
    ],
)
def test_a_metric_is_held_against_its_reference_and_its_goal(metric, ratio, holds):
    assert (metric.ratio, metric.holds) == (ratio, holds)
