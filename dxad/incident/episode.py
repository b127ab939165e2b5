"""How alarms become incidents: what an odd process and a sensor that cannot be believed have in common.

    alarms ── transit ──▶ opened ─▶ updated … ─▶ closed ──(within reopen_within)──▶ reopened …
                             │                      │
                             └─ Tape ── follow ─────┴─ after ──▶ Window ──▶ Docket

An episode has at most one incident that is open, whatever number of alarms it is made of: a plant upset is
one incident, not four hundred.
"""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from dxad.alarmsection import SEVERITIES, Severity
from dxad.event import Event, identity
from dxad.incident import Identity, Incident, Kind, Phase
from dxad.incident.alarm import Transition
from dxad.incident.docket import Docket
from dxad.incident.evidence import Tape
from dxad.incident.threshold import Tag
from dxad.ring.ringbuffer import RingBuffer
from dxad.runtime.clock import Clock
from dxad.runtime.metrics import Counter, Metrics
from dxad.types import NS_PER_S, Calibration, Document

__all__ = ["Counts", "Episode", "Past", "Told"]

Told = tuple[Tag, Transition]
"""What an alarm has told."""

_POINTS: Final = 60
"""Of each channel in an event."""
_SERIES: Final = 3
"""Channels whose points are in an event."""
_UPDATES_MOST: Final = 6
"""Of an incident, within a minute: an upset of many alarms that come one after the other is one story."""
_MINUTE: Final = 60 * NS_PER_S
_AT_ONCE: Final = 64
"""Rows that are read from the rings to a tape."""


class Past:
    """What a pipeline remembers, and until when it can be relied on however rows are cut."""

    def __init__(self, rows: RingBuffer, scores: RingBuffer, parts: RingBuffer, *, reach: int) -> None:
        """`reach` rows before the newest are there, wherever in its batch that one stands."""
        self.rows = rows
        self.scores = scores
        self.parts = parts
        self.reach = reach
        self.model: str | None = None
        """The version of the model that scores."""


class Counts:
    """What is counted of a pipeline's incidents."""

    def __init__(self, metrics: Metrics, pipeline: str) -> None:
        def counter(name: str) -> Counter:
            return metrics.counter(f"dxad_{name}_total", pipeline=pipeline)

        self.opened = counter("incidents")
        self.reopened = counter("incidents_reopened")
        self.merged = counter("incidents_merged")
        self.withheld = counter("alarms_withheld")


class Episode(ABC):
    """Alarms, and the incident they opened."""

    kind: Kind
    """Of its incidents."""

    def __init__(self, identity_: Identity, past: Past, docket: Docket, clock: Clock, counts: Counts) -> None:
        self.incident: Incident | None = None
        self.tags: list[Tag] = []
        self._identity = identity_
        self._past = past
        self._period = past.rows.period
        self._docket = docket
        self._clock = clock
        self._counts = counts
        self._last: Incident | None = None
        """The one before, while it may be opened again or its tape still runs."""
        self._closed_at = -1
        """The row at which that was over."""
        self._tape: Tape | None = None
        self._taped_until = 0
        self._updated: deque[int] = deque(maxlen=_UPDATES_MOST)
        """When the last updates were told."""
        self._untold = False
        """Whether there is news that the next event has to tell."""

    @property
    def active(self) -> bool:
        """Whether an incident is open, told or not."""
        return self.incident is not None

    # -- transitions --------------------------------------------------------------------------------------

    def transit(self, told: Sequence[Told], calibration: Calibration) -> list[Event]:
        """Make of what alarms have told at one row what there is to tell of incidents."""
        raised = [(tag, each) for tag, each in told if each.kind == "raised"]
        self._counts.withheld.add(sum(each.kind == "withheld" for _, each in told))
        events: list[Event] = []
        if raised:
            events += self._raised(raised, calibration)
        cleared = [(tag, each) for tag, each in told if each.kind == "cleared"]
        if cleared and self.incident is not None:
            for tag, _ in cleared:
                self._listed(tag, cleared=True)
            if not any(tag.alarm.stands for tag in self.tags):
                events += self._close(cleared[-1][1])
        return events

    def _raised(self, raised: Sequence[Told], calibration: Calibration) -> list[Event]:
        slot = raised[0][1].slot
        phase: Phase = "updated"
        if self.incident is None:
            phase = self._begin(raised, calibration)
        incident = self.incident
        assert incident is not None
        news = any(tag.id not in incident.alarms for tag, _ in raised)
        severity = incident.severity
        worst = max((tag.severity for tag, _ in raised), key=SEVERITIES.index)
        incident.severity = max(severity, worst, key=SEVERITIES.index)
        for tag, each in raised:
            self._listed(tag, onset=each.onset)
        self._blame(incident, raised, calibration)
        if phase == "updated":
            # An alarm that comes and goes while the incident lasts is no news.
            return self._news(slot, urgent=incident.severity != severity) if news else []
        return self._tell(phase, slot)

    def _begin(self, raised: Sequence[Told], calibration: Calibration) -> Phase:
        tag, first = min(raised, key=lambda each: each[1].onset)
        slot, last = first.slot, self._last
        self._keep_window(slot)
        reopened = last is not None and self._within(slot)
        if last is not None and reopened:
            self.incident = last
            last.reopened += 1
            self._docket.reopen(last.id)
            assert self._tape is not None
            self._tape.next = max(self._tape.next, slot + 1 - self._past.reach)
        else:
            self.incident = self._new(first.onset, slot, tag.severity)
            self.incident.first_out = {
                "alarm": tag.id,
                "channel": self._first_channel(tag, first, calibration),
            }
            before = self._docket.section.evidence.before // self._period
            begin = max(first.onset - before, slot + 1 - self._past.reach, 0)
            self._tape = Tape(self._past.rows.channels, begin)
        incident, self._last = self.incident, None
        at = self._time((slot + 1) * self._period)
        incident.merged = not self._docket.admit(
            self._identity.pipeline, self.kind, incident.severity, at=at, utc=self._clock.utc(at)
        )
        phase: Phase = "reopened" if incident.announced else "opened"
        if incident.merged:
            self._counts.merged.add()
        else:
            incident.announced = True
            (self._counts.reopened if phase == "reopened" else self._counts.opened).add()
        return phase

    def _within(self, slot: int) -> bool:
        """Whether what begins at `slot` comes so soon that it is the incident before, opened again."""
        quiet = (slot - self._closed_at) * self._period
        return self._period > 1 and quiet <= self._docket.section.reopen_within

    def _new(self, onset: int, slot: int, severity: Severity) -> Incident:
        where, at = self._identity, onset * self._period
        # An alarm of a long delay may have its onset within an incident that is over: another one, then.
        distinct = (at,) if onset > self._closed_at else (at, slot)
        return Incident(
            identity(where.gateway, where.boot, where.pipeline, self.kind, *distinct),
            where, self.kind, severity, onset=at, onset_utc=self._utc(at), limit=self._limit(),
            zero_utc=self._clock.utc(0),
        )  # fmt: skip

    def _close(self, cleared: Transition) -> list[Event]:
        incident, slot = self.incident, cleared.slot
        assert incident is not None
        if cleared.reason:
            incident.remarks["ended_by"] = cleared.reason
        events = self._tell("closed", slot)
        self._docket.close(incident.told, merged=incident.merged)
        self.incident, self._last, self._closed_at = None, incident, slot
        self._taped_until = slot + 1 + self._docket.section.evidence.after // self._period
        return events

    def interrupt(self, slot: int) -> list[Event]:
        """Nobody looks after row `slot`: close the incident, if one is open, and say why.

        Alarms stay as they are, for whoever goes on with them (ISA-18.2: what is latched or unacknowledged
        waits for an operator, not for a gateway).
        """
        events: list[Event] = []
        if self.incident is not None:
            self.incident.remarks["interrupted"] = True
            events = self._close(Transition("cleared", slot, slot))
        for tag in self.tags:
            tag.alarm.interrupt()
        self._keep_window(slot + 1)
        return events

    # -- what is told -------------------------------------------------------------------------------------

    def _news(self, slot: int, *, urgent: bool = False) -> list[Event]:
        """There is news of the open incident: tell it, or with the next update if there were many lately."""
        incident, now = self.incident, self._time((slot + 1) * self._period)
        assert incident is not None
        many = len(self._updated) == _UPDATES_MOST and now - self._updated[0] < _MINUTE
        if many and not urgent:
            self._untold = True
            return []
        self._updated.append(now)
        incident.updates += 1
        return self._tell("updated", slot)

    def _overdue(self, slot: int) -> list[Event]:
        """News that had to wait, once it need not wait any longer."""
        return self._news(slot) if self._untold and self.incident is not None else []

    def _tell(self, phase: Phase, slot: int) -> list[Event]:
        incident = self.incident
        assert incident is not None
        self._untold = False
        for tag in self.tags:
            if tag.id in incident.alarms and tag.alarm.stands:
                self._listed(tag)
        at = self._time((slot + 1) * self._period)
        event = incident.event(
            phase, at=at, utc=self._clock.utc(at), slot=slot, evidence=self._evidence(incident, slot)
        )
        return [] if incident.merged else [event]

    def _evidence(self, incident: Incident, slot: int) -> Document:
        tape = self._tape
        assert tape is not None
        tape.extend(self._past.rows, self._past.scores, slot + 1)
        places = {channel.id: place for place, channel in enumerate(self._past.rows.channels)}
        columns = [places[each.channel] for each in incident.contributors if each.channel in places]
        onset = incident.onset // self._period
        return {
            "quality": tape.quality(onset),
            "model": self._past.model,
            "config": self._docket.config_hash,
            "clock": {"boot": self._identity.boot, "onset_ns": incident.onset},
            "series": tape.series(columns[:_SERIES], onset, self._period, _POINTS),
        }

    def _listed(self, tag: Tag, *, onset: int | None = None, cleared: bool = False) -> None:
        """Keep the incident's list of alarms true."""
        incident = self.incident
        assert incident is not None
        if onset is not None:
            begun = (onset * self._period - incident.onset) / NS_PER_S
            incident.alarms[tag.id] = {**tag.document(), "after_onset_s": round(begun, 3)}
        if tag.id in incident.alarms:
            worst, limit = tag.worst, tag.limit
            incident.alarms[tag.id] |= {
                "limit": None if limit is None else float(f"{limit:.6g}"),
                "worst": None if worst is None else float(f"{worst:.6g}"),
                "cleared": cleared,
            }

    def snapshot(self) -> Document | None:
        """The open incident, as it stands."""
        incident = self.incident
        if incident is None:
            return None
        return {
            "id": incident.id,
            "kind": incident.kind,
            "severity": incident.severity,
            "for_s": round((self._clock.now() - incident.onset) / NS_PER_S, 3),
            "peak_score": None if incident.peak_score is None else round(incident.peak_score, 4),
            "first_out": incident.first_out,
            "alarms": list(incident.alarms),
            "merged": incident.merged,
            "contributors": [each.document() for each in incident.contributors],
        }

    # -- tape ---------------------------------------------------------------------------------------------

    def follow(self, stop: int) -> None:
        """Go on taping up to slot `stop`, and hand the window over when its time after the end has come.

        Rows are read some at a time: the rings hold them for long enough.
        """
        tape = self._tape
        if tape is None or (self.incident is None and not self._taped_until):
            return
        if self.incident is None and stop >= self._taped_until:
            self._keep_window(stop)
        elif stop - tape.next >= min(_AT_ONCE, self._past.reach):
            tape.extend(self._past.rows, self._past.scores, stop)

    def _keep_window(self, stop: int) -> None:
        """Hand over what there is before slot `stop` of the incident that is over."""
        if self._tape is not None and self._last is not None and self._taped_until:
            self._tape.extend(self._past.rows, self._past.scores, min(stop, self._taped_until))
            first = self._utc(self._tape.first * self._period)
            self._docket.keep(self._tape.window(self._last.id, self._period, first))
        self._taped_until = 0

    def _time(self, at: int) -> int:
        """A grid that counts messages, with a period of 1, has no time but now."""
        return at if self._period > 1 else self._clock.now()

    def _utc(self, at: int) -> int:
        return self._clock.utc(self._time(at))

    # -- restarts -----------------------------------------------------------------------------------------

    def save(self, time_of: Callable[[int], int]) -> Document:
        """What must outlive the process, as JSON."""
        return {
            "alarms": {
                tag.id: {**tag.alarm.save(time_of), "peak": tag.peak}
                for tag in self.tags
                if not tag.alarm.at_rest
            },
            "incident": None if self.incident is None else self.incident.save(),
            "last": None if self._last is None else self._last.save(),
            "closed_at": None if self._closed_at < 0 else time_of(self._closed_at),
        }

    @property
    def at_rest(self) -> bool:
        """Whether there is nothing that a restart must not forget."""
        over = self._last is None or not self._within(self._past.rows.sealed)
        return self.incident is None and over and all(tag.alarm.at_rest for tag in self.tags)

    def adjust(self, tags: Sequence[Tag]) -> list[Event]:
        """Go on with these alarms; those of the same id take over how things stand, the others end."""
        before, slot = {tag.id: tag for tag in self.tags}, self._past.rows.sealed - 1
        for tag in tags:
            if tag.id in before:
                old = before.pop(tag.id)
                tag.peak = old.peak
                old.alarm.adjust(tag.alarm.rule)
                tag.alarm = old.alarm
        gone = [tag for tag in before.values() if tag.alarm.active]
        self.tags = list(tags)
        ended = [(tag, Transition("cleared", slot, tag.alarm.onset, "removed")) for tag in gone]
        return self.transit(ended, Calibration(1.0)) if ended else []

    def restore(self, saved: Document, slot_of: Callable[[int], int], slot: int) -> None:
        """Take up what `save` has given; the next row is `slot`. Alarms that are no longer there are left."""
        for tag in self.tags:
            if tag.id in saved["alarms"]:
                found = saved["alarms"][tag.id]
                tag.alarm.restore(found, slot_of, slot)
                tag.peak = found["peak"]
        if saved["closed_at"] is not None:
            self._closed_at = min(slot_of(saved["closed_at"]), slot - 1)
        self.incident = self._restored(saved["incident"], slot_of)
        self._last = self._restored(saved["last"], slot_of)
        if self.incident is not None or self._last is not None:
            self._tape = Tape(self._past.rows.channels, slot)
        if self.incident is not None:
            self.incident.remarks["resumed"] = True

    def _restored(self, saved: Document | None, slot_of: Callable[[int], int]) -> Incident | None:
        if saved is None:
            return None
        return Incident.restored(saved, self._identity, slot_of(saved["onset_utc"]) * self._period)

    def date(self, zero_utc: int) -> None:
        """By this wall time of stream time 0 the onsets of what was restored were told."""
        for incident in (self.incident, self._last):
            if incident is not None:
                incident.zero_utc = zero_utc

    # -- what the kinds differ in -------------------------------------------------------------------------

    @abstractmethod
    def _limit(self) -> float | None:
        """What the incident's `peak_score` is held against."""

    @abstractmethod
    def _blame(self, incident: Incident, raised: Sequence[Told], calibration: Calibration) -> None:
        """Say in the incident, as it is at the row of these, how large it is and who makes it."""

    @abstractmethod
    def _first_channel(self, tag: Tag, first: Transition, calibration: Calibration) -> str:
        """The id of the channel that was first to leave the normal; empty where nobody knows."""
