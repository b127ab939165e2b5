"""A sensor that is stuck, missing or implausible is an incident of its own, and no process incident."""

import numpy as np
import pytest

from dxad.models import zscore
from dxad.models.zscore import ZScore
from dxad.types import Reason, State
from tests.unit.excursions import FAULT, phases


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
