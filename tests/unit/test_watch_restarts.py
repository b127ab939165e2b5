"""What is known of alarms and incidents survives restarts, power cuts, wrong clocks and reloads."""

import json

import pytest

from dxad.errors import ModelError
from dxad.event import Event
from dxad.types import NS_PER_S
from tests.unit.conftest import PERIOD, Plant
from tests.unit.test_watch import HIGH, UPSET, plant, rows, told

STATES = {"p.s.a.high": "latched", "p.s.b.high": "acknowledged", "p.s.c.high": "unacknowledged"}


class TestRestarts:
    def restarted(
        self, before: Plant, *alarms: dict, away_s: float = 1.0, **options
    ) -> tuple[Plant, list[Event]]:
        """The same plant after a reboot: another stream time, another boot, the wall clock went on."""
        saved = json.loads(json.dumps(before.pipeline.watch.state()))
        wall = before.clock.utc(before.ring.sealed * PERIOD) + int(away_s * NS_PER_S)
        after = plant(*alarms, start=500, **options)
        after.clock._utc_offset = wall - 500 * PERIOD
        return after, after.pipeline.watch.restore(saved, now=after.clock.now())

    def at_the_end(self, site: Plant) -> Plant:
        site.clock._now = site.ring.sealed * PERIOD
        return site

    def test_an_open_incident_goes_on_under_its_id(self):
        before = plant()
        (opened,) = before.feed(rows(UPSET[:10]))
        after, events = self.restarted(self.at_the_end(before))
        assert events == []
        (shown,) = after.pipeline.snapshot()["incidents"]
        assert shown["id"] == opened.subject
        (closed,) = after.feed(rows([9, 5, 5, 5, 5]))
        assert (closed.subject, closed.data["resumed"]) == (opened.subject, True)
        assert closed.data["onset_utc_ns"] == opened.data["onset_utc_ns"]
        assert closed.data["after_onset_s"] == pytest.approx(0.5 + 1.0 + 0.3, abs=0.11)
        assert closed.id != opened.id

    @pytest.mark.parametrize("years", [-10, 10])
    def test_in_the_same_boot_no_wall_clock_says_how_long_it_was_away(self, years):
        before = plant()
        (opened,) = before.feed(rows(UPSET[:10]))
        self.at_the_end(before)
        saved = json.loads(json.dumps(before.pipeline.watch.state()))
        after = plant(start=before.ring.sealed + 5)
        after.clock.step_utc(years * 365 * 86_400 * NS_PER_S)
        assert after.pipeline.watch.restore(saved, now=after.clock.now()) == []
        (closed,) = after.feed(rows([9, 5, 5, 5, 5]))
        assert (closed.subject, closed.data["resumed"]) == (opened.subject, True)
        assert closed.data["after_onset_s"] == pytest.approx(0.5 + 0.5 + 0.3, abs=0.21)
        assert closed.time_utc - closed.data["onset_utc_ns"] == closed.data["after_onset_s"] * NS_PER_S

    def test_one_that_is_too_old_is_closed_as_interrupted(self):
        before = plant()
        (opened,) = before.feed(rows(UPSET[:10]))
        after, (closed,) = self.restarted(self.at_the_end(before), away_s=7200.0)
        assert (closed.subject, closed.data["interrupted"]) == (opened.subject, True)
        assert after.pipeline.snapshot()["incidents"] == []
        assert [each.data["phase"] for each in after.feed(rows([9] * 5))] == ["opened"]

    def test_one_that_was_just_over_may_be_opened_again(self):
        incidents = {"reopen_within": "10s"}
        before = plant(incidents=incidents)
        opened, _ = before.feed(rows(UPSET))
        after, events = self.restarted(self.at_the_end(before), incidents=incidents)
        assert events == []
        (again,) = after.feed(rows([9] * 5))
        assert (again.data["phase"], again.subject) == ("reopened", opened.subject)

    def test_what_people_have_decided_stays(self):
        before = plant(HIGH, HIGH | {"channel": "s.b"}, HIGH | {"channel": "s.c"})
        before.feed(rows([5] * 10, UPSET[:10]))
        watch = before.pipeline.watch
        watch.act("p.s.a.high", "shelve", until=before.ring.sealed * PERIOD + 3600 * NS_PER_S)
        watch.act("p.s.b.high", "ack")
        watch.act("p.s.c.high", "out_of_service")
        after, _ = self.restarted(
            self.at_the_end(before), HIGH, HIGH | {"channel": "s.b"}, HIGH | {"channel": "s.c"}
        )
        shown = {each["id"]: each for each in after.pipeline.watch.alarms()}
        states = {name: each["state"] for name, each in shown.items()}
        assert states == {
            "p.s.a.high": "shelved",
            "p.s.b.high": "acknowledged",
            "p.s.c.high": "out_of_service",
            "p.sensor": "normal",
        }
        until = shown["p.s.a.high"]["shelved_until_utc_ns"] - after.clock.utc(after.clock.now())
        assert until == pytest.approx(3599 * NS_PER_S, abs=PERIOD)

    @pytest.mark.parametrize("behind_s", [0, 3600, 10 * 365 * 86_400])
    def test_a_wall_clock_that_is_behind_after_a_power_cut_holds_nothing_open(self, behind_s):
        slow = HIGH | {"off_delay": "5s"}
        before = plant(slow)
        (opened,) = before.feed(rows(UPSET + [5] * 20))
        until = before.ring.sealed * PERIOD + 60 * NS_PER_S
        before.pipeline.watch.act("p.sensor", "shelve", until=until)
        after, events = self.restarted(self.at_the_end(before), slow, away_s=0.5 - behind_s)
        assert events == []
        (closed,) = after.feed(rows([5] * 51))
        assert (closed.data["phase"], closed.subject) == ("closed", opened.subject)
        after.feed(rows([5] * 600))
        states = {each["id"]: each["state"] for each in after.pipeline.watch.alarms()}
        assert states == {"p.s.a.high": "returned", "p.sensor": "normal"}, "nor shelved for longer"

    def test_what_a_damaged_time_places_at_rows_to_come_was_seen_before(self):
        before = plant(HIGH | {"off_delay": "5s"})
        before.feed(rows(UPSET + [5] * 20))
        saved = self.at_the_end(before).pipeline.watch.state()
        saved["process"]["alarms"]["p.s.a.high"]["since"] += 3600 * NS_PER_S
        after = plant(HIGH | {"off_delay": "5s"}, start=before.ring.sealed)
        assert after.pipeline.watch.restore(saved, now=after.clock.now()) == []
        assert [each.data["phase"] for each in after.feed(rows([5] * 51))] == ["closed"]

    def alarmed(self) -> tuple[Plant, list[dict]]:
        """A plant with one alarm in each of `STATES`."""
        alarms = [HIGH | {"latch": True}, HIGH | {"channel": "s.b"}, HIGH | {"channel": "s.c"}]
        site = plant(*alarms, incidents={"reopen_within": "10min"})
        site.feed(rows(UPSET[:10] + [5] * 10, [9] * 20, [9] * 20))
        site.pipeline.watch.act("p.s.b.high", "ack")
        return self.at_the_end(site), alarms

    def states(self, site: Plant) -> dict[str, str]:
        return {each["id"]: each["state"] for each in site.pipeline.watch.alarms() if each["kind"] == "high"}

    @pytest.mark.parametrize("clean", [False, True])
    @pytest.mark.parametrize("away_s", [1.0, 7200.0])
    def test_alarms_are_in_the_state_in_which_they_were_however_the_gateway_ended(self, clean, away_s):
        before, alarms = self.alarmed()
        assert self.states(before) == STATES
        if clean:
            (closed,) = before.pipeline.interrupt()
            assert closed.data["interrupted"]
        after, _ = self.restarted(before, *alarms, away_s=away_s, incidents={"reopen_within": "10min"})
        assert self.states(after) == STATES
        after.feed(rows([5] * 10))
        assert self.states(after) == STATES | {"p.s.b.high": "normal", "p.s.c.high": "returned"}

    @pytest.mark.parametrize("cut", [1, 3, None])
    @pytest.mark.parametrize(("away_s", "phase"), [(1.0, "reopened"), (7200.0, "opened")])
    def test_what_lasts_after_a_stop_is_told_after_its_delay_and_stays_acknowledged(self, away_s, phase, cut):
        before, alarms = self.alarmed()
        before.pipeline.interrupt()
        after, told_ = self.restarted(before, *alarms, away_s=away_s, incidents={"reopen_within": "10min"})
        assert told_ == []
        again = after.feed(rows([5] * 9, [9] * 2 + [5] + [9] * 6, [5] * 9), cut=cut)
        assert [each.data["phase"] for each in again] == [phase]
        assert again[0].time_utc == after.clock.utc((500 + 6) * PERIOD), "three rows in a row"
        assert self.states(after) == STATES | {"p.s.c.high": "returned"}
        (closed,) = after.feed(rows([5] * 9))
        assert (closed.data["phase"], closed.subject) == ("closed", again[0].subject), (
            "the latch opened nothing"
        )

    def test_what_is_latched_and_comes_back_after_a_stop_is_told(self):
        before, alarms = self.alarmed()
        before.pipeline.interrupt()
        after, _ = self.restarted(before, *alarms, away_s=7200.0)
        after.feed(rows([5] * 10))
        assert told(after.feed(rows([9] * 3))) == [("opened", "p.s.a.high", "high")]
        assert after.feed(rows([5] * 9)) == []
        (closed,) = after.pipeline.watch.act("p.s.a.high", "ack")
        assert closed.data["ended_by"] == "acknowledged"

    def test_what_was_shelved_while_interrupted_is_told_when_it_is_seen_again(self):
        before, alarms = self.alarmed()
        before.pipeline.interrupt()
        after, _ = self.restarted(before, *alarms, away_s=7200.0)
        watch = after.pipeline.watch
        for name in STATES:
            assert watch.act(name, "shelve", until=after.clock.now() + 3600 * NS_PER_S) == []
        assert after.feed(rows([5] * 10, [9] * 10, [5] * 10)) == []
        assert after.feed(rows([9] * 10, [9] * 10, [9] * 10)) == []
        assert after.counted("alarms_withheld") == 3
        phases = [each.data["phase"] for name in STATES for each in watch.act(name, "unshelve")]
        assert phases == ["opened", "updated", "updated"]

    def test_as_long_as_nothing_happens_the_state_is_the_same(self):
        site = plant()
        state = site.pipeline.watch.state()
        site.feed(rows([5] * 100))
        assert site.pipeline.watch.state() == state == {}
        site.feed(rows(UPSET + [5] * 10))
        assert site.pipeline.watch.state()["process"]["alarms"].keys() == {"p.s.a.high"}, "nobody has seen it"
        site.pipeline.watch.act("p.s.a.high", "ack")
        assert site.pipeline.watch.state() == {"version": 1}, "replaces what was kept before"

    @pytest.mark.parametrize(
        "saved", [{"version": 2}, {"version": 1, "process": {}}, {"version": 1, "sensor": []}]
    )
    def test_what_is_no_state_is_refused(self, saved):
        with pytest.raises(ModelError, match="the state of 'p' is"):
            plant().pipeline.watch.restore(saved, now=0)

    def test_an_adjusted_pipeline_goes_on_with_the_alarms_that_are_still_there(self):
        site = plant(HIGH, HIGH | {"channel": "s.b"})
        site.feed(rows(UPSET[:10], UPSET[:10]))
        section = plant(HIGH | {"off_delay": "1s"}).section
        assert site.pipeline.watch.adjust(section) == [], "one of two is left"
        assert site.feed(rows([5] * 9)) == []
        (closed,) = site.feed(rows([5] * 2))
        assert closed.data["phase"] == "closed"

    def test_an_adjusted_pipeline_closes_what_nobody_watches_any_more(self):
        site = plant()
        (opened,) = site.feed(rows(UPSET[:10]))
        (closed,) = site.pipeline.watch.adjust(plant(HIGH | {"channel": "s.b"}).section)
        assert (closed.subject, closed.data["ended_by"]) == (opened.subject, "removed")
