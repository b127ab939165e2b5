"""What becomes an incident in one pipeline: an odd process, or a sensor that cannot be believed.

Each has one alarm, and at most one incident that is open: a plant upset is one incident, not four hundred.
"""

from collections.abc import Sequence

import numpy as np

from dxad.alarm import Alarm, Transition
from dxad.channelcheck import Trouble
from dxad.config import AlarmSection
from dxad.event import Event
from dxad.incident import Contributor, Identity, Incident, Phase, contributors
from dxad.ringbuffer import RingBuffer
from dxad.runtime.clock import Clock
from dxad.types import F8, NS_PER_S, Bools, Calibration, Document

__all__ = ["ProcessEpisode", "SensorEpisode"]


class _Episode:
    """What the two kinds have in common: an alarm and the incident it opened."""

    def __init__(self, identity: Identity, section: AlarmSection, period: int, clock: Clock) -> None:
        self.incident: Incident | None = None
        self._identity = identity
        self._section = section
        self._period = period
        self._clock = clock

    def _rows(self, duration: int) -> int:
        return max(1, -(-duration // self._period))

    @property
    def active(self) -> bool:
        """Whether an incident is open."""
        return self.incident is not None

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
            "peak_score": round(incident.peak_score, 4),
            "contributors": [each.document() for each in incident.contributors],
        }

    def _event(self, phase: Phase, slot: int) -> Event:
        """The incident's event at the end of the row `slot`."""
        incident = self.incident
        assert incident is not None
        if phase == "opened":  # once: the clocks may be set between one event and the next
            incident.onset_utc = self._utc(incident.onset)
        return incident.event(phase, utc=self._utc((slot + 1) * self._period))

    def interrupt(self, slot: int) -> Event | None:
        """The gateway ends after row `slot`: close the incident, if one is open, and say why."""
        if self.incident is None:
            return None
        self.incident.evidence["interrupted"] = True
        event = self._event("closed", slot)
        self.incident = None
        return event

    def _utc(self, at: int) -> int:
        """A grid that counts messages, with a period of 1, has no time but now."""
        return self._clock.utc(at if self._period > 1 else self._clock.now())


class ProcessEpisode(_Episode):
    """An excursion of the score."""

    def __init__(
        self,
        identity: Identity,
        section: AlarmSection,
        period: int,
        clock: Clock,
        *,
        rows: RingBuffer,
        parts: RingBuffer,
    ) -> None:
        """Take the evidence from what was seen, `rows`, and what each channel added to the score, `parts`."""
        super().__init__(identity, section, period, clock)
        self._rows_ring = rows
        self._parts_ring = parts
        self._peak = 0.0
        self._told_peak = 0.0
        self._alarm = Alarm(
            off_share=section.off_limit,
            on_rows=self._rows(section.on_delay),
            off_rows=self._rows(section.off_delay),
        )

    def adjust(self, section: AlarmSection) -> None:
        """Go on with other delays, and with another severity from the next incident on."""
        self._section = section
        self._alarm.adjust(
            off_share=section.off_limit,
            on_rows=self._rows(section.on_delay),
            off_rows=self._rows(section.off_delay),
        )

    def forget_pending(self) -> None:
        """What the score has shown so far does not count."""
        self._alarm.forget_pending()

    def update(self, first: int, judged: F8, limit: float, calibration: Calibration) -> list[Event]:
        """Take in the scores of consecutive rows, which the rings hold already."""
        events: list[Event] = []
        begin = first
        for each in self._alarm.update(first, judged.tolist(), limit):
            stretch = judged[begin - first : each.slot + 1 - first]
            events += self._grown(begin, stretch, calibration)
            self._climb(stretch, each.onset - begin)
            events.append(self._told(each, limit, calibration))
            begin = each.slot + 1
        stretch = judged[begin - first :]
        events += self._grown(begin, stretch, calibration)
        lasts = self._alarm.active or self._alarm.pending
        self._climb(stretch, self._alarm.onset - begin if lasts else len(judged))
        return events

    def _grown(self, begin: int, judged: F8, calibration: Calibration) -> list[Event]:
        """Tell anew each time the score has doubled: an upset that gets worse is news, its noise is not."""
        events: list[Event] = []
        while self.incident is not None:
            doubled = np.flatnonzero(judged >= 2 * self._told_peak)
            if not len(doubled):
                break
            place = int(doubled[0])
            self._told_peak = self.incident.peak_score = float(judged[place])
            self.incident.contributors = self._evidence(begin + place, begin + place, calibration)
            self.incident.updates += 1
            events.append(self._event("updated", begin + place))
            begin, judged = begin + place + 1, judged[place + 1 :]
        return events

    def _climb(self, judged: F8, onset: int) -> None:
        """Raise the peak of the excursion that began at place `onset` of these rows, or before them."""
        if onset >= 0:
            self._peak = 0.0
        excursion = judged[max(0, onset) :]
        if not np.isnan(excursion).all():
            self._peak = max(self._peak, float(np.nanmax(excursion)))
        if self.incident is not None:
            self.incident.peak_score = self._peak

    def _told(self, transition: Transition, limit: float, calibration: Calibration) -> Event:
        if transition.kind == "raised":
            self.incident = Incident(
                self._identity,
                "process",
                self._section.severity,
                onset=transition.onset * self._period,
                contributors=self._evidence(transition.onset, transition.slot, calibration),
                peak_score=self._peak,
                limit=limit,
                evidence={},
            )
            self._told_peak = self._peak
            return self._event("opened", transition.slot)
        event = self._event("closed", transition.slot)
        self.incident, self._peak = None, 0.0
        return event

    def _evidence(self, first: int, last: int, calibration: Calibration) -> list[Contributor]:
        """Who made the scores of these rows, with all those before that the judgement has averaged."""
        start, stop = max(0, first - max(calibration.spans) + 1), last + 1
        parts = self._parts_ring.read(start, stop).values
        values = self._rows_ring.read(start, stop).values
        return contributors(self._rows_ring.channels, parts, values, calibration)


class SensorEpisode(_Episode):
    """Channels that are stuck or missing."""

    def __init__(self, identity: Identity, section: AlarmSection, period: int, clock: Clock) -> None:
        super().__init__(identity, section, period, clock)
        # The check has waited already; what is over must stay over as long as for the process.
        self._alarm = Alarm(off_share=1.0, on_rows=1, off_rows=self._rows(section.off_delay))
        self._told_of: frozenset[tuple[str, str]] = frozenset()

    def adjust(self, section: AlarmSection) -> None:
        """Go on with other delays, and with another severity from the next incident on."""
        self._section = section
        self._alarm.adjust(off_share=1.0, on_rows=1, off_rows=self._rows(section.off_delay))

    def update(self, first: int, doubtful: Bools, troubles: Sequence[Trouble]) -> list[Event]:
        """Take in which cells of consecutive rows are doubtful, and what is wrong after the last of them."""
        counts = doubtful.sum(axis=1).astype(np.float64)
        most = float(counts.max())
        events = []
        for transition in self._alarm.update(first, counts.tolist(), 0.5):
            if transition.kind == "raised":
                onset = min([transition.onset, *(each.since for each in troubles)]) * self._period
                found = self._contributors(troubles)
                self.incident = Incident(
                    self._identity, "sensor", self._section.severity, onset, found, most, 0.5, {}
                )
                self._told_of = _names(troubles)
                events.append(self._event("opened", transition.slot))
            else:
                events.append(self._event("closed", transition.slot))
                self.incident = None
        if self.incident is not None and _names(troubles) - self._told_of:
            self._told_of = _names(troubles)
            self.incident.contributors = self._contributors(troubles)
            self.incident.peak_score = max(self.incident.peak_score, most)
            self.incident.updates += 1
            events.append(self._event("updated", first + len(counts) - 1))
        return events

    def _contributors(self, troubles: Sequence[Trouble]) -> list[Contributor]:
        share = round(1 / max(len(troubles), 1), 4)
        return [
            Contributor(each.channel, "", share, None, None, None, trouble=each.kind) for each in troubles
        ]


def _names(troubles: Sequence[Trouble]) -> frozenset[tuple[str, str]]:
    return frozenset((each.channel, each.kind) for each in troubles)
