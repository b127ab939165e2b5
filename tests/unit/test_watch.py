"""All alarms and incidents of one pipeline: limits, groups, floods, what people decide, restarts."""

import json
from collections import deque
from collections.abc import Sequence

import numpy as np
import pytest

from dxad.errors import ConfigError
from dxad.event import Event
from dxad.incident import fitted
from dxad.models.zscore import PLUGIN
from dxad.types import NS_PER_S, Rows, State
from tests.unit.conftest import PERIOD, Plant

NAN = float("nan")
HIGH = {"channel": "s.a", "high": 8.0, "on_delay": "300ms", "off_delay": "200ms"}


def plant(*alarms: dict, **options) -> Plant:
    """A pipeline without a model: limits alone."""
    return Plant(alarms=list(alarms) or [HIGH], model=None, **options)


def rows(*columns: Sequence[float]) -> np.ndarray:
    """Of three channels; those not given stand at 5."""
    n = len(columns[0])
    given = [np.array(each, dtype=np.float64) for each in columns]
    return np.column_stack([*given, *[np.full(n, 5.0)] * (3 - len(given))])


def told(events: list[Event]) -> list[tuple]:
    return [
        (each.data["phase"], each.data["first_out"].get("alarm"), each.data["severity"]) for each in events
    ]


def an_hour_of_quiet(site: Plant) -> list[Event]:
    """Rows within all limits, until another hour has begun; returns what is told."""
    return site.feed(np.random.default_rng(0).normal(5.0, 0.1, (36_000, 3)), cut=250)


BUDGET = {"budget_per_hour": 2, "critical_per_hour": 3, "reopen_within": "0s"}
UPSET = [5] * 5 + [9] * 6 + [5] * 6


class TestLimits:
    """Each kind of limit, by the rows at which it is raised and cleared."""

    @pytest.mark.parametrize("cut", [1, 3, None])
    @pytest.mark.parametrize(
        ("alarm", "values", "expected"),
        [
            ({"high": 8.0}, [5, 8, 8.1, 9, 5], [("high", "raised", 2), ("high", "cleared", 4)]),
            ({"low": 1.0}, [5, 1, 0.9, -9, 5], [("low", "raised", 2), ("low", "cleared", 4)]),
            ({"high": 8.0}, [5, NAN, NAN, NAN, 5], []),
            ({"high": 8.0}, [9, NAN, NAN, 5], [("high", "raised", 0), ("high", "cleared", 3)]),
            (
                {"high": 8.0, "high_high": 9.0},
                [8.5, 9.5, 8.5, 5],
                [
                    ("high", "raised", 0),
                    ("high_high", "raised", 1),
                    ("high_high", "cleared", 2),
                    ("high", "cleared", 3),
                ],
            ),
            (
                {"low": 2.0, "low_low": 1.0, "hysteresis": 0.5},
                [1.5, 2.4, 2.6],
                [("low", "raised", 0), ("low", "cleared", 2)],
            ),
            (
                {"high": 8.0, "hysteresis": 1.0},
                [9, 7.5, 7.0, 6.9],
                [("high", "raised", 0), ("high", "cleared", 3)],
            ),
            # 10 rows a second: 0.06 a row is 0.6 a second
            ({"rate": 0.5}, [5, 5.04, 5.10, 5.10], [("rate", "raised", 2), ("rate", "cleared", 3)]),
            ({"rate": 0.5}, [5, 5.04, 4.98, 4.98], [("rate", "raised", 2), ("rate", "cleared", 3)]),
            ({"rate": 0.5}, [5, NAN, NAN, 5.12, NAN], []),
            ({"rate": 0.5}, [NAN, 9, 9], []),
        ],
    )
    def test_is_raised_and_clears(self, alarm, values, expected, cut):
        site = plant({"channel": "s.a", "on_delay": "0s", "off_delay": "0s", **alarm})
        tags = site.pipeline.watch._process._channels
        found = []
        for tag in tags:
            step = tag.alarm.step

            def noted(*args, _tag=tag, _step=step, **kwargs):
                transitions = _step(*args, **kwargs)
                found.extend((_tag.kind, each.kind, each.slot - site.ring.start) for each in transitions)
                return transitions

            tag.alarm.step = noted
        states = np.full(
            (len(values), 3), State.GOOD, dtype=np.uint8
        )  # NaN all the same, and no sensor trouble
        site.feed(rows(values), states, cut=cut)
        assert sorted(found, key=lambda each: each[2]) == expected

    def test_what_is_held_has_no_rate(self):
        site = plant({"channel": "s.a", "rate": 0.5, "on_delay": "0s"})
        values = rows([5, 5, 5, 5.12, 5.12])
        states = np.full(values.shape, State.GOOD, dtype=np.uint8)
        states[1:3, 0] = State.HELD
        assert site.feed(values, states) == [], "0.12 in three rows is 0.4 a second"

    def test_they_need_no_model_and_the_snapshot_says_so(self):
        site = plant()
        events = site.feed(rows(UPSET))
        assert told(events) == [("opened", "p.s.a.high", "high"), ("closed", "p.s.a.high", "high")]
        shown = site.pipeline.snapshot()
        assert (shown["model"], shown["limits_only"], shown["score"]) == (None, True, None)
        assert shown["unscored"] == len(UPSET)
        assert events[0].data["contributors"] == [
            {"channel": "s.a", "unit": "mm", "share": 1.0, "seen": 9.0, "trouble": "high"}
        ]
        assert events[0].data["peak_score"] is None

    def test_inhibited_by_the_machine_s_state(self):
        site = plant(HIGH | {"inhibit": "s.b == 0"})
        assert site.feed(rows([9] * 9, [0] * 9)) == []
        (alarm,) = [each for each in site.pipeline.watch.alarms() if each["kind"] == "high"]
        assert (alarm["state"], alarm["inhibited"], alarm["inhibit"]) == ("suppressed", True, "s.b == 0")
        assert site.feed(rows([9] * 2, [1] * 2)) == [], "it takes the whole delay again"
        assert told(site.feed(rows([9], [1]))) == [("opened", "p.s.a.high", "high")]
        states = np.full((4, 3), State.GOOD, dtype=np.uint8)
        assert site.feed(rows([9] * 4, [NAN] * 4), states) == [], "what is unknown inhibits nothing"
        assert told(site.feed(rows([9] * 4, [0] * 4))) == [("closed", "p.s.a.high", "high")]

    def test_rows_in_which_the_machine_does_not_run_inhibit_the_score_alone(self):
        site = Plant(alarms=[HIGH], when="s.b > 0", alarm={"limit": 3.0})
        site.pipeline.offer(PLUGIN.build(PLUGIN.config(type="zscore"), state_dir=None))
        site.feed(rows([9] * 5, [0] * 5))
        states = {each["id"]: each["state"] for each in site.pipeline.watch.alarms()}
        assert states == {"p.score": "suppressed", "p.s.a.high": "unacknowledged", "p.sensor": "normal"}


class TestGroups:
    def test_alarms_that_overlap_are_one_incident_with_the_first_out(self):
        site = plant(
            HIGH, {"channel": "s.b", "low": 1.0, "on_delay": "0s", "off_delay": "0s", "severity": "critical"}
        )
        events = site.feed(rows([9] * 8 + [5] * 4, [5] * 5 + [0] * 3 + [5] * 4))
        assert told(events) == [
            ("opened", "p.s.a.high", "high"),
            ("updated", "p.s.a.high", "critical"),
            ("closed", "p.s.a.high", "critical"),
        ]
        assert len({each.subject for each in events}) == 1
        assert [each["id"] for each in events[1].data["alarms"]] == ["p.s.a.high", "p.s.b.low"]
        assert [each["cleared"] for each in events[2].data["alarms"]] == [True, True]
        assert {each["channel"] for each in events[1].data["contributors"]} == {"s.a", "s.b"}

    def test_those_that_do_not_are_two(self):
        site = plant(HIGH, HIGH | {"channel": "s.b"})
        events = site.feed(rows(UPSET + [5] * 17, [5] * 17 + UPSET))
        assert [each.data["phase"] for each in events] == ["opened", "closed"] * 2
        assert len({each.subject for each in events}) == 2

    def test_an_upset_that_comes_back_soon_is_the_same_incident(self):
        site = plant(incidents={"reopen_within": "2s"})
        events = site.feed(rows([*UPSET, *UPSET, *[5] * 20, *UPSET]))
        assert [each.data["phase"] for each in events] == [
            "opened",
            "closed",
            "reopened",
            "closed",
            "opened",
            "closed",
        ]
        first, again = {each.subject for each in events[:4]}, {each.subject for each in events[4:]}
        assert (len(first), len(again)) == (1, 1)
        assert first != again
        assert len({each.id for each in events}) == 6
        assert site.counted("incidents") == 2
        assert site.counted("incidents_reopened") == 1
        assert [each["phase"] for each in site.docket.closed] == ["closed"] * 2

    def test_an_alarm_that_comes_and_goes_while_the_incident_lasts_is_told_once(self):
        site = plant(HIGH, HIGH | {"channel": "s.b"})
        events = site.feed(rows([9] * 200, UPSET * 11 + [5] * 13))
        assert [each.data["phase"] for each in events] == ["opened", "updated"]

    def test_a_step_worse_at_the_row_of_an_update_is_an_event_of_its_own(self):
        site = plant(
            {"channel": "s.b", "high": 8.0, "on_delay": "0s", "severity": "critical"},
            alarm={"on_delay": "0s"},
        )
        slot = site.ring.sealed
        judged = np.array([2.0, 5.0])
        values = np.array([[5.0, 5.0, 5.0], [5.0, 9.0, 5.0]])
        site.seal(values)
        site.pipeline.rows.append(slot, values, np.zeros((2, 3), dtype=np.uint8))
        site.pipeline.scores.append(slot, np.column_stack((judged, judged)), np.zeros((2, 2), dtype=np.uint8))
        site.pipeline.parts.append(slot, np.ones((2, 3)), np.zeros((2, 3), dtype=np.uint8))
        events = site.pipeline.watch.update(
            Rows(slot, PERIOD, values, np.zeros((2, 3), dtype=np.uint8)), judged,
            np.zeros((2, 3), dtype=bool), [], idle=np.zeros(2, dtype=bool), limit=1.0, calibration=None,
        )  # fmt: skip
        assert [(each.data["phase"], each.data["severity"]) for each in events] == [
            ("opened", "high"),
            ("updated", "high"),
            ("updated", "critical"),
        ]
        assert len({each.id for each in events}) == 3

    @pytest.mark.parametrize("cut", [1, 7, None])
    def test_news_that_come_thick_and_fast_are_told_six_times_a_minute_and_by_the_close(self, cut):
        names = [f"s.{n}" for n in range(40)]
        site = Plant(
            names, model=None,
            alarms=[{"channel": name, "high": 8.0, "on_delay": "0s", "off_delay": "0s"} for name in names],
        )  # fmt: skip
        values = np.random.default_rng(3).normal(5.0, 0.1, (900, 40))
        for n in range(40):
            values[10 + 2 * n : 800, n] += 9.0
        events = site.feed(values, cut=cut)
        phases = [each.data["phase"] for each in events]
        assert phases == ["opened", *["updated"] * 7, "closed"]
        first = events[0].time_utc
        rows_after = [round((each.time_utc - first) / PERIOD) for each in events]
        assert rows_after == [0, 2, 4, 6, 8, 10, 12, 602, 790], "the seventh waits for the minute to be over"
        assert len(site.docket.closed[-1]["alarms"]) > 20
        assert len({each.id for each in events}) == len(events)

    def test_a_severity_that_rises_does_not_wait(self):
        names = [f"s.{n}" for n in range(20)]
        site = Plant(
            names, model=None,
            alarms=[
                {"channel": name, "high": 8.0, "on_delay": "0s", "severity": "critical" if n == 19 else "low"}
                for n, name in enumerate(names)
            ],
        )  # fmt: skip
        values = np.random.default_rng(3).normal(5.0, 0.1, (100, 20))
        for n in range(20):
            values[10 + n :, n] += 9.0
        events = site.feed(values)
        assert [each.data["severity"] for each in events] == ["low"] * 7 + ["critical"]

    @pytest.mark.parametrize("cut", [1, 2, 7, 64])
    def test_what_is_told_is_the_same_to_the_bit_however_rows_are_cut(self, cut):
        rng = np.random.default_rng(4)
        values = np.where(rng.random((900, 3)) < 0.7, 8.6, 7.4).repeat(2, axis=0) + rng.normal(
            0, 0.3, (1800, 3)
        )
        values[rng.random((1800, 3)) < 0.05] = NAN
        states = np.where(np.isnan(values), State.EMPTY, State.GOOD).astype(np.uint8)

        def run(n: int | None) -> list:
            site = plant(
                HIGH | {"hysteresis": 0.2},
                HIGH | {"channel": "s.b", "inhibit": "s.c > 8.5"},
                {"channel": "s.c", "rate": 12.0, "on": "3 of 5", "off_delay": "500ms"},
                incidents={
                    "reopen_within": "2s",
                    "evidence": {"before": "3s", "after": "2s"},
                    "budget_per_hour": 20,
                },
            )
            site.docket.keeps_windows = True
            site.docket.windows = deque()  # all of them
            events = [(each.id, each.time_utc, each.data) for each in site.feed(values, states, cut=n)]
            windows = [
                (each.incident, each.every, each.slots.tolist(), each.values.tobytes())
                for each in site.docket.windows
            ]
            return [events, windows, json.dumps(site.pipeline.watch.alarms()), site.metrics.samples()]

        found = run(cut)
        assert found == run(None)
        assert len(found[0]) > 10


class TestFloods:
    def test_beyond_the_budget_incidents_are_counted_and_told_in_one_summary(self):
        site = plant(incidents=BUDGET)
        events = site.feed(rows(UPSET * 6))
        assert [each.data["phase"] for each in events] == ["opened", "closed"] * 2
        assert (site.counted("incidents"), site.counted("incidents_merged")) == (2, 4)
        assert site.conditions.keys() == {"incidents.flood"}
        assert site.docket.closed[-1]["merged"]
        (flood,) = an_hour_of_quiet(site)
        assert (flood.type, flood.data["told"], flood.data["merged"]) == ("dxad.incident.flood", 2, 4)
        assert flood.data["most"] == [{"pipeline": "p", "kind": "process", "severity": "high", "count": 4}]
        assert site.conditions == {}
        assert [each.data["phase"] for each in site.feed(rows(UPSET))] == ["opened", "closed"], "a new hour"

    def test_one_that_was_only_counted_and_comes_back_is_told_as_opened(self):
        site = plant(incidents=BUDGET | {"budget_per_hour": 1, "reopen_within": "10s"})
        events = site.feed(rows(UPSET * 2))
        assert [each.data["phase"] for each in events] == ["opened", "closed"]
        site.feed(rows([5] * 200))
        assert site.feed(rows(UPSET)) == []
        site.docket._begins -= 3600 * NS_PER_S  # the hour is over
        events = site.feed(rows(UPSET))
        assert [each.data["phase"] for each in events] == ["flood", "opened", "closed"]

    def test_a_wall_clock_that_was_wrong_for_a_while_mutes_nothing(self):
        site = plant(incidents=BUDGET)
        assert len(site.feed(rows(UPSET))) == 2
        site.clock._utc_offset += 10 * 365 * 86_400 * NS_PER_S
        assert len(site.feed(rows(UPSET * 2))) == 2, "nor is it another hour"
        site.clock._utc_offset -= 10 * 365 * 86_400 * NS_PER_S
        (flood,) = an_hour_of_quiet(site)
        began = site.clock.utc(0)
        assert (flood.data["from_utc_ns"], flood.data["until_utc_ns"]) == (began, began + 3600 * NS_PER_S)
        assert [each.data["phase"] for each in site.feed(rows(UPSET))] == ["opened", "closed"]

    def test_critical_ones_are_told_up_to_a_second_cap(self):
        site = plant(HIGH | {"severity": "critical"}, incidents=BUDGET)
        events = site.feed(rows(UPSET * 6))
        assert [each.data["phase"] for each in events] == ["opened", "closed"] * 3

    def test_what_was_merged_is_told_when_the_gateway_ends(self):
        site = plant(incidents=BUDGET)
        site.feed(rows(UPSET * 3))
        assert [each.type for each in site.docket.flush()] == ["dxad.incident.flood"]
        assert site.docket.flush() == []

    def test_what_is_merged_in_an_hour_that_was_told_of_already_is_another_event(self):
        site = plant(incidents=BUDGET)
        site.feed(rows(UPSET * 3))
        (first,) = site.docket.flush()
        site.feed(rows(UPSET))
        (second,) = site.docket.flush()
        assert first.id != second.id


class TestPeople:
    def test_a_shelved_alarm_opens_no_incident_and_is_counted(self):
        site = plant()
        watch = site.pipeline.watch
        watch.act("p.s.a.high", "shelve", until=site.clock.now() + 3 * NS_PER_S)
        assert site.feed(rows(UPSET)) == []
        assert site.counted("alarms_withheld") == 1
        assert site.pipeline.snapshot()["alarms"]["shelved"] == 1
        shown = next(each for each in watch.alarms() if each["id"] == "p.s.a.high")
        assert shown["shelved_until_utc_ns"] == site.clock.utc(site.clock.now() + 3 * NS_PER_S)
        assert told(site.feed(rows([9] * 20))) == [("opened", "p.s.a.high", "high")], "once the time is over"

    def test_shelving_ends_what_is_open_and_unshelving_tells_it_anew(self):
        site = plant()
        (opened,) = site.feed(rows(UPSET[:10]))
        watch = site.pipeline.watch
        (closed,) = watch.act("p.s.a.high", "shelve", until=site.clock.now() + 3600 * NS_PER_S)
        assert (closed.data["phase"], closed.data["ended_by"]) == ("closed", "shelved")
        site.feed(rows([9] * 5))
        (again,) = watch.act("p.s.a.high", "unshelve")
        assert (again.data["phase"], again.subject != opened.subject) == ("opened", True)
        assert len({opened.id, closed.id, again.id}) == 3

    def test_a_latched_incident_stays_open_until_somebody_acknowledges(self):
        site = plant(HIGH | {"latch": True})
        (opened,) = site.feed(rows(UPSET + [5] * 100))
        (closed,) = site.pipeline.watch.act("p.s.a.high", "ack")
        assert (closed.subject, closed.data["ended_by"]) == (opened.subject, "acknowledged")

    def test_out_of_service_and_back(self):
        site = plant()
        watch = site.pipeline.watch
        assert watch.act("p.s.a.high", "out_of_service") == []
        assert site.feed(rows([9] * 9)) == []
        assert site.pipeline.snapshot()["alarms"]["out_of_service"] == 1
        assert watch.act("p.s.a.high", "in_service") == []
        assert told(site.feed(rows([9] * 3))) == [("opened", "p.s.a.high", "high")]

    @pytest.mark.parametrize(
        ("alarm", "action", "match"),
        [
            ("p.s.a.low", "ack", "no alarm 'p.s.a.low'; there are p.s.a.high, p.sensor"),
            ("p.s.a.high", "ack", "normal: there is nothing to acknowledge"),
            ("p.s.a.high", "unshelve", "not shelved"),
            ("p.s.a.high", "in_service", "is in service"),
            ("p.s.a.high", "shelve", "wants a time"),
        ],
    )
    def test_what_makes_no_sense_is_refused(self, alarm, action, match):
        with pytest.raises(ConfigError, match=match):
            plant().pipeline.watch.act(alarm, action)


class TestDoubt:
    """A sensor that stays missing: no score can be believed, but time passes."""

    def doubted(self, cut: int | None = None, **options) -> Plant:
        """A plant whose score has been beyond its limit since before a sensor went missing."""
        site = Plant(alarm={"on_delay": "0s", "off_delay": "1s", "limit": 3.0}, **options)
        site.pipeline.offer(PLUGIN.build(PLUGIN.config(type="zscore"), state_dir=None))
        rng = np.random.default_rng(0)
        values = rng.normal(5.0, 0.1, (1200, 3))
        values[1150:, 0] += 9.0
        site.feed(values, cut=cut)
        assert [each["alarms"] for each in site.pipeline.snapshot()["incidents"]] == [["p.score"]]
        return site

    def missing(self, n: int) -> np.ndarray:
        values = np.random.default_rng(1).normal(5.0, 0.1, (n, 3))
        values[:, 1] = NAN
        return values

    def test_what_is_open_says_what_holds_it(self):
        site = self.doubted()
        site.feed(self.missing(600), cut=50)
        process, sensor = site.pipeline.snapshot()["incidents"]
        assert (process["held_by"], sensor["kind"]) == ("p.sensor", "sensor")
        assert [each.get("held_by") for each in site.pipeline.watch.open_incidents()] == ["p.sensor", None]
        (closed,) = [
            each
            for each in site.feed(np.random.default_rng(2).normal(5.0, 0.1, (600, 3)), cut=50)
            if each.data["kind"] == "process"
        ]
        assert (closed.data["phase"], closed.data["held_by"]) == ("closed", "p.sensor")

    @pytest.mark.parametrize("cut", [1, 7, 100])
    def test_shelving_ends_in_time_and_tells_what_lasts(self, cut):
        site = self.doubted()
        site.feed(self.missing(600), cut=50)
        watch = site.pipeline.watch
        (closed,) = watch.act("p.score", "shelve", until=site.ring.sealed * PERIOD + NS_PER_S)
        assert closed.data["ended_by"] == "shelved"
        begun = site.ring.sealed
        (again,) = site.feed(self.missing(100), cut=cut)
        assert (again.data["phase"], again.time_utc) == ("opened", site.clock.utc((begun + 11) * PERIOD))
        assert {each["id"]: each["state"] for each in watch.alarms()}["p.score"] == "unacknowledged"


class TestEvidence:
    @pytest.mark.parametrize(("blamed", "alarms"), [(5, 5000), (5000, 1), (3000, 3000), (0, 5000), (60, 50)])
    def test_of_thousands_of_alarms_as_many_are_told_as_fit_and_few_are_written_in_vain(
        self, blamed, alarms, monkeypatch
    ):
        data = {
            "phase": "opened",
            "contributors": [{"channel": f"s.{n}", "share": 0.5} for n in range(blamed)],
            "alarms": [{"id": f"p.s.{n}.high", "worst": 9.25, "what": "x" * 100} for n in range(alarms)],
        }
        lengths = []
        monkeypatch.setattr(
            "dxad.incident.orjson.dumps", lambda each: (lengths.append(1), json.dumps(each).encode())[1]
        )
        found = fitted(data)
        assert len(lengths) < 20
        assert found["cut"]
        n, m = len(found["contributors"]), len(found["alarms"])
        assert len(json.dumps(found)) <= 6000
        assert (found["contributors"], found["alarms"]) == (data["contributors"][:n], data["alarms"][:m])
        more = {**found, "alarms": data["alarms"][: m + 1]}
        if n < blamed and n < m:
            more = {**found, "contributors": data["contributors"][: n + 1]}
        assert len(json.dumps(more)) > 6000 or m == alarms

    def test_fits_into_6_kb_whatever_the_names(self):
        names = [f"s.{'x' * 120}{n}" for n in range(12)]
        alarms = [
            {"channel": name, "high": 8.0, "high_high": 8.5, "rate": 0.1, "on_delay": "0s"} for name in names
        ]
        site = Plant(channels=names, alarms=alarms)
        (opened, *_) = site.feed(np.vstack((np.full((300, 12), 5.1234567), np.full((300, 12), 9.7654321))))
        assert 3000 < len(json.dumps(opened.data, separators=(",", ":"))) <= 6000
        assert opened.data["cut"]
        assert opened.data["first_out"]

    def test_says_what_there_was_before_and_how_good_it_was(self):
        site = plant(incidents={"reopen_within": "0s", "evidence": {"before": "2s", "after": "1s"}})
        opened, closed = site.feed(rows([5] * 100 + UPSET))
        series = closed.data["series"]
        assert list(series["channels"]) == ["s.a"]
        assert series["channels"]["s.a"] == [5.0] * 20 + [9.0] * 6 + [5.0] * 2
        assert series["after_onset_s"][0] == -2.0
        assert series["after_onset_s"][20] == 0.0
        assert closed.data["quality"] == {"good": 1.0}
        assert closed.data["clock"] == {"boot": "boot", "onset_ns": (site.ring.start + 105) * PERIOD}
        assert len(opened.data["series"]["after_onset_s"]) == 23

    def test_the_window_is_handed_over_with_the_time_after_the_end(self):
        site = plant(incidents={"reopen_within": "0s", "evidence": {"before": "2s", "after": "1s"}})
        site.docket.keeps_windows = True
        opened, _ = site.feed(rows([5] * 100 + UPSET + [5] * 3), cut=4)
        assert not site.docket.windows
        site.feed(rows([5] * 50))
        (window,) = site.docket.windows
        assert window.incident == opened.subject
        assert window.values[:, 0].tolist() == [5.0] * 20 + [9.0] * 6 + [5.0] * 12
        assert window.first_utc == site.clock.utc((site.ring.start + 85) * PERIOD)

    def test_an_incident_that_is_cut_short_hands_over_what_there_is(self):
        site = plant()
        site.docket.keeps_windows = True
        site.feed(rows(UPSET[:10]))
        (closed,) = site.pipeline.interrupt()
        assert closed.data["interrupted"]
        assert [each.incident for each in site.docket.windows] == [closed.subject]
