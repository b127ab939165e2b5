"""One upset is one incident, told with its evidence, whatever the cut of the rows."""

from collections.abc import Sequence

import numpy as np
import pytest

from dxad.config import AlarmSection, ChannelAlarmSection, IncidentsSection
from dxad.event import Event, identity
from dxad.incident import Identity, contributors
from dxad.incident.channelcheck import Trouble
from dxad.incident.docket import Docket
from dxad.incident.episode import Counts, Past
from dxad.incident.processepisode import ProcessEpisode
from dxad.incident.sensorepisode import SensorEpisode
from dxad.incident.threshold import ScoreTag, channel_tags, rule_of
from dxad.ring.ringbuffer import RingBuffer
from dxad.runtime.clock import SteppedClock
from dxad.runtime.metrics import Metrics
from dxad.types import NS_PER_S, Calibration, Channel, Lane, Rows, State

PERIOD = NS_PER_S // 10
FIRST = 1000
CHANNELS = (Channel("s.a", "bar"), Channel("s.b", "l/min"), Channel("s.c"))
WHO = Identity("gw", "boot7", "pump")
CALIBRATION = Calibration(
    2.0,
    spans=(1, 5),
    normal={"s.a": (10.0, 2.0), "s.b": (100.0, 0.0)},
    usual={"s.a": 0.1, "s.b": 0.1, "s.c": 0.1},
)


def section(**keys) -> AlarmSection:
    return AlarmSection.model_validate({"on_delay": "300ms", "off_delay": "200ms", **keys})


class Bench:
    """An episode over rings that hold what the test says."""

    def __init__(
        self,
        *,
        period: int = PERIOD,
        history: int = 500,
        alarms: Sequence[dict] = (),
        incidents: dict | None = None,
        **keys,
    ) -> None:
        self.clock = SteppedClock(start=FIRST * PERIOD)
        self.metrics = Metrics()
        rings = [
            RingBuffer(channels, period=period, slots=history, start=FIRST)
            for channels in (CHANNELS, (Channel("score.raw"), Channel("score.judged")), CHANNELS)
        ]
        self.rows, self.scores, self.parts = rings
        self.docket = Docket(
            IncidentsSection.model_validate({"reopen_within": "0s", **(incidents or {})}),
            gateway="gw",
            boot="boot7",
        )
        self.docket.keeps_windows = True
        self.past = Past(*rings, reach=history // 2)
        alarm = section(**keys)
        limits = [ChannelAlarmSection.model_validate({"channel": "s.a", **each}) for each in alarms]
        self.counts = Counts(self.metrics, "pump")
        self.episode = ProcessEpisode(
            WHO, self.past, self.docket, self.clock, self.counts,
            score=ScoreTag("pump", alarm, rule_of(alarm, period)),
            channels=channel_tags("pump", limits, CHANNELS, period),
        )  # fmt: skip

    def feed(
        self, judged, *, cut: int = 1000, parts=(0.1, 5.0, 0.3), values=(16.0, 100.5, 3.0)
    ) -> list[Event]:
        """Rows with these scores; `values` are those of each row, or all rows."""
        every = np.broadcast_to(np.array(values, dtype=np.float64), (len(judged), 3))
        told: list[Event] = []
        for at in range(0, len(judged), cut):
            piece = np.array(judged[at : at + cut], dtype=np.float64)
            seen = every[at : at + cut].copy()
            first, n = self.rows.sealed, len(piece)
            states = np.where(np.isnan(seen), State.BAD, State.GOOD).astype(np.uint8)
            self.rows.append(first, seen, states)
            self.scores.append(first, np.column_stack((piece, piece)), states[:, :2])
            self.parts.append(first, np.tile(np.array(parts), (n, 1)), states)
            rows, idle = Rows(first, self.rows.period, seen, states), np.zeros(n, dtype=np.bool_)
            told += self.episode.update(rows, piece, 2.0, CALIBRATION, idle=idle)
        return told


def phases(events: list[Event]) -> list[str]:
    return [event.data["phase"] for event in events]


def test_an_excursion_is_opened_after_its_delay_and_closed_after_the_other():
    bench = Bench()
    opened, closed = bench.feed([1, 1, 3, 5, 4, 3, 1, 1, 1])
    assert phases([opened, closed]) == ["opened", "closed"]
    onset_utc = bench.clock.utc((FIRST + 2) * PERIOD)
    assert opened.data["onset_utc_ns"] == closed.data["onset_utc_ns"] == onset_utc
    assert opened.time_utc == bench.clock.utc((FIRST + 5) * PERIOD), "at the end of the row that decided"
    assert closed.time_utc == bench.clock.utc((FIRST + 8) * PERIOD)
    assert (opened.data["after_onset_s"], closed.data["after_onset_s"]) == (0.3, 0.6)
    assert (opened.data["peak_score"], closed.data["peak_score"], opened.data["limit"]) == (5.0, 5.0, 2.0)
    assert not bench.episode.active


def test_both_events_of_an_incident_have_its_subject_and_ids_that_anybody_can_compute():
    opened, closed = Bench().feed([3] * 3 + [1] * 2)
    incident = identity("gw", "boot7", "pump", "process", FIRST * PERIOD)
    assert opened.subject == closed.subject == opened.data["incident"] == incident
    assert opened.id == identity(incident, "opened", 0)
    assert closed.id == identity(incident, "closed", 0)
    assert (opened.type, closed.type) == ("dxad.incident.opened", "dxad.incident.closed")
    assert opened.source == "/gw/pipelines/pump"


NAN = float("nan")
SCRIPTS = {
    "one": [1, 3, 3, 9, 3, 1, 1, 1],
    "a spike before it does not count": [99, 1, 3, 4, 3, 1, 1],
    "a spike after it does not count": [3, 3, 3, 1, 1, 99, 1],
    "two in a row": [3, 3, 7, 1, 1, 1, 4, 5, 4, 1, 1],
    "the peak comes later": [3, 3, 3, 3, 8, 3, 3, 1, 1],
    "with holes": [3, NAN, 3, NAN, 9, NAN, 1, NAN, 1, NAN],
    "none": [1, 99, 1, 99, 99, 1, NAN],
    "still open": [1, 3, 3, 3, 6],
}


@pytest.mark.parametrize("cut", [1, 2, 3, 5])
@pytest.mark.parametrize("script", SCRIPTS.values(), ids=SCRIPTS)
def test_what_is_told_does_not_depend_on_how_rows_are_cut(script, cut):
    whole, pieces = Bench(), Bench()
    assert pieces.feed(script, cut=cut) == whole.feed(script)
    assert pieces.episode.snapshot() == whole.episode.snapshot()


@pytest.mark.parametrize(
    ("script", "peaks"),
    [
        (SCRIPTS["a spike before it does not count"], [4.0, 4.0]),
        (SCRIPTS["a spike after it does not count"], [3.0, 3.0]),
        (SCRIPTS["two in a row"], [7.0, 7.0, 5.0, 5.0]),
        (SCRIPTS["the peak comes later"], [3.0, 8.0, 8.0]),
    ],
)
def test_the_peak_is_the_highest_score_between_onset_and_now(script, peaks):
    assert [event.data["peak_score"] for event in Bench().feed(script, cut=1)] == peaks


@pytest.mark.parametrize("cut", [1, 2, 1000])
def test_an_upset_that_gets_worse_is_told_each_time_its_score_has_doubled(cut):
    bench = Bench()
    script = [3, 3, 3, 5, 5.9, 6, 11, 30, 4, 25, 1, 1]
    told = bench.feed(script, cut=cut)
    assert phases(told) == ["opened", "updated", "updated", "closed"]
    assert [event.data["peak_score"] for event in told] == [3.0, 6.0, 30.0, 30.0]
    assert len({event.id for event in told}) == 4
    assert len({event.subject for event in told}) == 1
    assert len({event.data["onset_utc_ns"] for event in told}) == 1


def test_what_is_open_when_the_gateway_ends_is_closed_and_says_why():
    bench = Bench()
    assert bench.episode.interrupt(FIRST) == []
    (opened,) = bench.feed([3, 3, 3])
    (closed,) = bench.episode.interrupt(FIRST + 2)
    assert (closed.data["phase"], closed.data["interrupted"]) == ("closed", True)
    assert closed.subject == opened.subject
    assert not bench.episode.active


def test_an_open_incident_can_be_looked_at():
    bench = Bench()
    assert bench.episode.snapshot() is None
    (opened,) = bench.feed([3, 3, 7, 3])
    shown = bench.episode.snapshot()
    assert (shown["id"], shown["kind"], shown["severity"]) == (opened.subject, "process", "high")
    assert shown["peak_score"] == 7.0
    assert shown["contributors"] == opened.data["contributors"]


@pytest.mark.parametrize(
    ("severity", "lane"),
    [("low", Lane.NORMAL), ("medium", Lane.NORMAL), ("high", Lane.CRITICAL), ("critical", Lane.CRITICAL)],
)
def test_a_severe_incident_takes_the_critical_lane(severity, lane):
    events = Bench(severity=severity).feed([3] * 3 + [1] * 2)
    assert {event.lane for event in events} == {lane}


def test_a_channel_is_named_with_what_was_seen_and_what_is_usual():
    (opened,) = Bench().feed([3, 3, 3])
    first, second, third = opened.data["contributors"]
    assert first == {"channel": "s.b", "unit": "l/min", "share": 0.9608, "seen": 100.5, "typical": 100.0}
    assert (second["channel"], second["share"], second["deviation_sd"]) == ("s.a", 0.0, 3.0)
    assert third == {"channel": "s.c", "share": 0.0392, "seen": 3.0}


def test_a_grid_that_counts_messages_has_no_time_but_now():
    bench = Bench(period=1, on_delay="1ns", off_delay="1ns")
    (opened,) = bench.feed([3])
    assert opened.time_utc == opened.data["onset_utc_ns"] == bench.clock.utc(bench.clock.now())


def blamed(parts, values, calibration=CALIBRATION):
    return contributors(CHANNELS, np.array(parts, dtype=float), np.array(values, dtype=float), calibration)


def test_only_what_a_channel_adds_above_its_usual_counts():
    found = blamed([[0.1, 4.1, 1.1]] * 10, [[10.0, 100.0, NAN]] * 10)
    assert [(each.channel, each.share) for each in found] == [("s.b", 0.8), ("s.c", 0.2)]


def test_a_channel_that_the_score_is_blind_to_is_named_by_how_far_it_has_moved():
    found = blamed([[0.1, 4.1, 1.1]] * 10, [[14.0, 100.0, NAN]] * 10)
    assert [(each.channel, each.share) for each in found] == [("s.b", 0.8), ("s.a", 0.0), ("s.c", 0.2)]


def test_how_far_a_channel_has_moved_counts_little_within_a_standard_deviation():
    found = blamed([[0.1, 4.1, 1.1]] * 10, [[11.0, 100.0, NAN]] * 10)
    assert [each.channel for each in found] == ["s.b", "s.c", "s.a"]


def test_a_deviation_is_in_standard_deviations_of_normal_running():
    (found,) = blamed([[4.1, 0.1, 0.1]], [[16.0, 100.0, 3.0]])
    assert (found.seen, found.typical, found.deviation_sd) == (16.0, 10.0, 3.0)


def test_what_is_not_known_is_left_out_of_the_document():
    found = blamed([[0.0, 3.0, 2.0]], [[10.0, 101.0, NAN]])
    assert [each.document() for each in found] == [
        {"channel": "s.b", "unit": "l/min", "share": 0.6042, "seen": 101.0, "typical": 100.0},
        {"channel": "s.c", "share": 0.3958},
    ]


def test_nobody_is_blamed_where_nothing_is_above_the_usual():
    assert blamed([[0.1, 0.05, 0.0]], [[10.0, 100.0, 3.0]]) == []


def test_five_channels_are_named_at_most():
    many = [Channel(f"s.{n}") for n in range(9)]
    found = contributors(many, np.arange(9.0)[None, :], np.zeros((1, 9)), Calibration(1.0))
    assert [each.channel for each in found] == ["s.8", "s.7", "s.6", "s.5", "s.4"]


# Sensors.


def sensor_episode() -> SensorEpisode:
    bench = Bench()
    return SensorEpisode(
        WHO, bench.past, bench.docket, bench.clock, bench.counts, severity="high", off_rows=2
    )


def doubts(*rows: str) -> np.ndarray:
    """`.x.` is a row in which the second of three channels cannot be believed."""
    return np.array([[cell == "x" for cell in row] for row in rows])


def test_a_sensor_that_cannot_be_believed_is_told_at_once_from_where_it_began():
    episode = sensor_episode()
    trouble = Trouble("s.b", "stuck", since=FIRST - 20)
    (opened,) = episode.update(FIRST, doubts("...", ".x.", ".x."), [trouble])
    assert (opened.data["kind"], opened.data["phase"]) == ("sensor", "opened")
    assert opened.data["after_onset_s"] == 2.2
    assert opened.data["contributors"] == [{"channel": "s.b", "share": 1.0, "trouble": "stuck"}]
    assert episode.active
    assert episode.snapshot()["peak_score"] == 1.0


def test_further_sensors_update_the_incident_and_open_no_other():
    episode = sensor_episode()
    stuck, gone = Trouble("s.b", "stuck", since=FIRST), Trouble("s.c", "missing", since=FIRST + 1)
    (opened,) = episode.update(FIRST, doubts(".x."), [stuck])
    assert episode.update(FIRST + 1, doubts(".x."), [stuck]) == []
    (updated,) = episode.update(FIRST + 2, doubts(".xx"), [stuck, gone])
    assert (updated.data["phase"], updated.subject) == ("updated", opened.subject)
    assert [each["channel"] for each in updated.data["contributors"]] == ["s.b", "s.c"]
    assert updated.data["peak_score"] == 2.0
    assert updated.id != opened.id
    assert episode.update(FIRST + 3, doubts("..x"), [gone]) == [], "fewer are no news"
    (again,) = episode.update(FIRST + 4, doubts("x.x"), [gone, Trouble("s.a", "stuck", since=FIRST + 4)])
    assert again.id not in (opened.id, updated.id)


def test_the_incident_closes_when_all_sensors_have_been_well_for_long_enough():
    episode = sensor_episode()
    episode.update(FIRST, doubts("x.."), [Trouble("s.a", "missing", since=FIRST)])
    assert episode.update(FIRST + 1, doubts("..."), []) == []
    assert episode.update(FIRST + 2, doubts("x.."), [Trouble("s.a", "missing", since=FIRST + 2)]) == []
    (closed,) = episode.update(FIRST + 3, doubts("...", "..."), [])
    assert closed.data["phase"] == "closed"
    assert not episode.active


def test_a_sensor_that_fails_over_and_over_within_one_incident_is_told_once():
    episode = sensor_episode()
    stuck = Trouble("s.b", "stuck", since=FIRST)
    told = episode.update(FIRST, doubts(".x."), [stuck])
    for turn in range(1, 20):
        troubles = [stuck, Trouble("s.c", "missing", since=FIRST + turn)] if turn % 2 else [stuck]
        told += episode.update(FIRST + turn, doubts(".xx" if turn % 2 else ".x."), troubles)
    assert phases(told) == ["opened", "updated"]
