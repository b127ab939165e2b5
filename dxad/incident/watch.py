"""All alarms and incidents of one pipeline: what its rows and scores mean, and what people have decided.

                    ┌─▶ SensorEpisode ── holds the score back ──┐
rows, scores ── update ─▶ ProcessEpisode ◀──────────────────────┘
                             │  alarms: pipeline.score, pipeline.NAME.high …, pipeline.sensor
                             ▼
                          events
"""

from collections.abc import Callable, Sequence
from typing import Final

from dxad.alarmsection import Action
from dxad.config import PipelineSection
from dxad.errors import ConfigError, ModelError
from dxad.event import Event
from dxad.incident import Identity
from dxad.incident.alarm import AlarmState, Transition
from dxad.incident.channelcheck import Trouble
from dxad.incident.docket import Docket
from dxad.incident.episode import Counts, Episode, Past
from dxad.incident.processepisode import ProcessEpisode
from dxad.incident.sensorepisode import SensorEpisode
from dxad.incident.threshold import ChannelTag, ScoreTag, Tag, channel_tags, rule_of
from dxad.runtime.clock import Clock
from dxad.runtime.metrics import Metrics
from dxad.types import F8, Bools, Calibration, Document, Rows

__all__ = ["Watch"]

_UNKNOWN: Final = Calibration(1.0)


class Watch:
    """Watches what a pipeline makes of its rows."""

    def __init__(
        self,
        section: PipelineSection,
        past: Past,
        *,
        identity: Identity,
        docket: Docket,
        clock: Clock,
        metrics: Metrics,
        forgive: Callable[[], None],
    ) -> None:
        """Call `forgive` when what the score was made of turns out to be no measurement."""
        self._past = past
        self._period = past.rows.period
        self._identity = identity
        self._docket = docket
        self._clock = clock
        self._forgive = forgive
        self._counts = Counts(metrics, identity.pipeline)
        self._calibration = _UNKNOWN
        self._kept = False
        """Whether there has ever been a state to keep, which another one must replace."""
        common = (identity, past, docket, clock, self._counts)
        score, channels = self._tags(section)
        self._process = ProcessEpisode(*common, score=score, channels=channels)
        self._sensor = SensorEpisode(
            *common, severity=section.alarm.severity, off_rows=score.alarm.rule.off_rows
        )
        self._place(section)

    def _tags(self, section: PipelineSection) -> tuple[ScoreTag, list[ChannelTag]]:
        name, period = self._identity.pipeline, self._period
        score = ScoreTag(name, section.alarm, rule_of(section.alarm, period, hop=section.hop))
        return score, channel_tags(name, section.alarms, self._past.rows.channels, period)

    def _place(self, section: PipelineSection) -> None:
        self._places: dict[str, tuple[Episode, Tag]] = {
            tag.id: (episode, tag) for episode in self.episodes for tag in episode.tags
        }
        if section.model is None:
            del self._places[f"{self._identity.pipeline}.score"]
        self._grace = max(self._docket.section.reopen_within, section.alarm.off_delay)

    def adjust(self, section: PipelineSection) -> list[Event]:
        """Go on as `section` says, whose rows are the same; returns what is to be told.

        Alarms of the same id take over how things stand; what was active of the others is over.
        """
        score, channels = self._tags(section)
        events = self._process.replace(score, channels)
        events += self._sensor.replace(section.alarm.severity, off_rows=score.alarm.rule.off_rows)
        self._place(section)
        return events

    @property
    def episodes(self) -> tuple[ProcessEpisode, SensorEpisode]:
        """The two things that can happen here: the process is odd, or a sensor is."""
        return self._process, self._sensor

    @property
    def in_doubt(self) -> bool:
        """Whether some sensor cannot be believed."""
        return self._sensor.lasts

    # -- rows ---------------------------------------------------------------------------------------------

    def update(
        self,
        rows: Rows,
        judged: F8,
        doubtful: Bools,
        troubles: Sequence[Trouble],
        *,
        idle: Bools,
        limit: float | None,
        calibration: Calibration | None,
    ) -> list[Event]:
        """Take in consecutive rows, which the rings hold already.

        Args:
            rows: after the transforms.
            judged: (n,) their scores, NaN where there is none.
            doubtful: (n, channels before the transforms) which cells cannot be believed.
            troubles: what is wrong after the last row; where something is, one row at a time is taken in.
            idle: (n,) in which rows the machine does not run by `when`: they inhibit the score's alarm.
            limit: what the scores are held against; None while nobody knows.
            calibration: how they were judged; None without a model.
        """
        at = self._time(rows.first)
        events = self._docket.due(at, self._clock.utc(at))
        events += self._sensor.update(rows.first, doubtful, troubles)
        if self._sensor.news:
            self._process.forget_pending()
            self._forgive()
        self._calibration = calibration or _UNKNOWN
        # With a sensor missing, the others' correlation says nothing that could be trusted.
        doubted = self._sensor.lasts
        believed = None if limit is None or doubted else judged
        return events + self._process.update(
            rows, believed, limit or 0.0, self._calibration, idle=idle, doubted=doubted
        )

    def interrupt(self) -> list[Event]:
        """The pipeline ends: close what is open, since nobody will know when it is over."""
        slot = self._past.rows.sealed - 1
        return [event for each in self.episodes for event in each.interrupt(slot)]

    # -- people -------------------------------------------------------------------------------------------

    def act(self, alarm: str, action: Action, *, until: int | None = None) -> list[Event]:
        """Do to an alarm what somebody has decided; returns what is to be told.

        Args:
            alarm: its id.
            action: what to do.
            until: the stream time at which shelving ends.

        Raises:
            ConfigError: there is no such alarm, or it is in no state for it.
        """
        if alarm not in self._places:
            raise ConfigError(f"no alarm {alarm!r}; there are {', '.join(self._places)}")
        episode, tag = self._places[alarm]
        told = self._acted(tag, action, until)
        known = self._calibration.at(self._past.rows.sealed - 1)
        return episode.transit([(tag, each) for each in told], known) if told else []

    def _acted(self, tag: Tag, action: Action, until: int | None) -> list[Transition]:
        slot, alarm = self._past.rows.sealed - 1, tag.alarm
        if action == "ack":
            if not alarm.unseen:
                raise ConfigError(f"alarm {tag.id!r} is {alarm.state.value}: there is nothing to acknowledge")
            return alarm.acknowledge(slot)
        if action == "shelve":
            if self._period == 1 or until is None:
                raise ConfigError("shelving wants a time, and a pipeline whose rows have one")
            return alarm.shelve(slot, -(-until // self._period))
        if action == "unshelve":
            if alarm.shelved_until is None:
                raise ConfigError(f"alarm {tag.id!r} is not shelved")
            return alarm.unshelve(slot)
        if action == "out_of_service":
            return alarm.take_out_of_service(slot)
        if alarm.in_service:
            raise ConfigError(f"alarm {tag.id!r} is in service")
        alarm.put_into_service()
        return []

    # -- faces --------------------------------------------------------------------------------------------

    def alarms(self) -> list[Document]:
        """Every alarm, as it stands."""
        return [self._shown(tag) for _, tag in self._places.values()]

    def _shown(self, tag: Tag) -> Document:
        alarm, limit, worst = tag.alarm, tag.limit, tag.worst
        begun = alarm.lasts or alarm.pending or alarm.active
        until = alarm.shelved_until
        return {
            **tag.document(),
            "pipeline": self._identity.pipeline,
            "state": alarm.state.value,
            "active": alarm.active,
            "pending": alarm.pending,
            "onset_utc_ns": self._utc(alarm.onset) if begun else None,
            "worst": worst if begun else None,
            "limit": limit,
            "shelved_until_utc_ns": None if until is None else self._utc(until),
            "inhibit": tag.inhibit,
            "inhibited": alarm.inhibited,
        }

    def open_incidents(self) -> list[Document]:
        """What was told last of each incident that is open; `held_by` where a sensor keeps it as it is."""
        shown = []
        for episode in self.episodes:
            incident = episode.incident  # once: the inference thread may close it meanwhile
            if incident is not None:
                shown.append({**incident.told, **incident.remarks, "merged": incident.merged})
        return shown

    def snapshot(self) -> Document:
        """How many alarms are active, and the incidents that are open."""
        states = [tag.alarm.state for _, tag in self._places.values()]
        return {
            "incidents": [found for each in self.episodes if (found := each.snapshot()) is not None],
            "incidents_total": self._counts.opened.value,
            "alarms": {
                "active": sum(tag.alarm.active for _, tag in self._places.values()),
                "shelved": states.count(AlarmState.SHELVED),
                "out_of_service": states.count(AlarmState.OUT_OF_SERVICE),
                "unacknowledged": sum(tag.alarm.unseen for _, tag in self._places.values()),
            },
        }

    def _time(self, slot: int) -> int:
        return slot * self._period if self._period > 1 else self._clock.now()

    def _utc(self, slot: int) -> int:
        return self._clock.utc(self._time(slot))

    # -- restarts -----------------------------------------------------------------------------------------

    def state(self) -> Document:
        """What must outlive the process, as JSON: alarms, what people have decided, open incidents.

        All times are UTC, since a boot has a stream time of its own. The same as long as nothing happens, so
        that it need not be written again; empty if nothing ever has, and for rows that have no time.
        """
        if self._period == 1:
            return {}
        saved: Document = {}
        for episode in self.episodes:
            if not episode.at_rest:
                saved[episode.kind] = episode.save(self._utc)
        if saved:
            self._kept = True
            now = self._clock.now()
            saved |= {"saved_utc_ns": self._clock.utc(now), "boot": self._identity.boot, "saved_ns": now}
        return saved | {"version": 1} if self._kept else {}

    def restore(self, saved: Document, *, now: int) -> list[Event]:
        """Take up, before the first row, what `state` has given; returns what is to be told.

        An incident that was open goes on under its id if the gateway was away for no longer than
        `reopen_within` or the off-delay; else it is closed, `interrupted`. However long that was, alarms are
        in the state in which they were: latched, acknowledged or not, shelved, out of service. In the same
        boot the stream time tells how long it was, whatever the wall clock was set to meanwhile; in another,
        where the wall clock is behind what was saved, no time has passed: how much did is not known.

        Args:
            saved: of a pipeline of this name.
            now: the stream time.

        Raises:
            ModelError: it is no such document.
        """
        if self._period == 1 or not saved:
            return []
        self._kept = True
        if saved.get("version") != 1:
            raise ModelError(f"the state of {self._identity.pipeline!r} is of another version")
        slot, period = self._past.rows.sealed, self._period
        try:
            saved_utc, saved_ns = int(saved.get("saved_utc_ns", 0)), int(saved.get("saved_ns", now + 1))
            if saved.get("boot") == self._identity.boot and saved_ns <= now:
                away, zero = now - saved_ns, saved_utc - saved_ns
            else:
                away = max(0, self._clock.utc(now) - saved_utc)
                zero = max(self._clock.utc(now), saved_utc) - now

            def slot_of(utc: int) -> int:
                return round((utc - zero) / period)

            for episode in self.episodes:
                if episode.kind in saved:
                    episode.restore(saved[episode.kind], slot_of, slot)
                    episode.date(zero)
        except (KeyError, TypeError, ValueError) as error:
            raise ModelError(f"the state of {self._identity.pipeline!r} is damaged: {error!r}") from error
        return [] if away <= self._grace else self._outdated(slot)

    def _outdated(self, slot: int) -> list[Event]:
        """Too much has happened unseen."""
        return [event for each in self.episodes for event in each.interrupt(slot - 1)]
