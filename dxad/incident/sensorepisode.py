"""Sensors that cannot be believed: channels that are stuck or missing, as one incident."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from dxad.alarmsection import Severity
from dxad.event import Event
from dxad.incident import Contributor, Identity, Incident, Kind
from dxad.incident.alarm import Rule, Transition, levels
from dxad.incident.channelcheck import Trouble
from dxad.incident.docket import Docket
from dxad.incident.episode import Counts, Episode, Past, Told
from dxad.incident.threshold import Seen, Tag
from dxad.runtime.clock import Clock
from dxad.types import Bools, Calibration

__all__ = ["SensorEpisode"]

_HALF: float = 0.5
"""Channels: more than none."""
_NONE_KNOWN = Calibration(_HALF)


class _SensorTag(Tag):
    """The alarm of the number of channels that are in trouble."""

    @property
    def limit(self) -> float | None:
        return _HALF


class SensorEpisode(Episode):
    """Channels that are stuck or missing."""

    kind: Kind = "sensor"

    def __init__(
        self,
        identity: Identity,
        past: Past,
        docket: Docket,
        clock: Clock,
        counts: Counts,
        *,
        severity: Severity,
        off_rows: int,
    ) -> None:
        """Call them well when they have been for `off_rows` rows; the check has waited before it told."""
        super().__init__(identity, past, docket, clock, counts)
        self._tag = self._made(severity, off_rows)
        self.tags: list[Tag] = [self._tag]
        self.news = False
        """Whether the last rows have changed what can be believed."""
        self._troubles: Sequence[Trouble] = ()
        self._told_of: frozenset[tuple[str, str]] = frozenset()

    def replace(self, severity: Severity, *, off_rows: int) -> list[Event]:
        """Go on with another severity and off-delay."""
        self._tag = self._made(severity, off_rows)
        return self.adjust([self._tag])

    def _made(self, severity: Severity, off_rows: int) -> _SensorTag:
        name = f"{self._identity.pipeline}.sensor"
        return _SensorTag(name, "sensor", severity, Rule(1, off_rows), None)

    @property
    def lasts(self) -> bool:
        """Whether some channel cannot be believed, told or not."""
        return self._tag.alarm.lasts

    def update(self, first: int, doubtful: Bools, troubles: Sequence[Trouble]) -> list[Event]:
        """Take in which cells of consecutive rows are doubtful, and what is wrong after the last of them."""
        if self._tag.alarm.at_ease and not doubtful.any():
            self.news = False
            self.follow(first + len(doubtful))
            return []
        counts = doubtful.sum(axis=1).astype(np.float64)
        seen = Seen(self._tag, counts.tolist(), levels(counts, _HALF, _HALF), None)
        self.news = False
        events: list[Event] = []
        if not seen.passed(first):
            self._troubles = troubles
            for row in range(len(counts)):
                events += self._row(first + row, row, seen)
        self.follow(first + len(counts))
        return events

    def _row(self, slot: int, row: int, seen: Seen) -> list[Event]:
        lasted = self.lasts
        told = seen.step(slot, row)
        self.news |= lasted != self.lasts
        events: list[Event] = []
        if told:
            since = [each.since for each in self._troubles]
            events = self.transit(
                [(self._tag, replace(each, onset=min([each.onset, *since]))) for each in told], _NONE_KNOWN
            )
        incident, names = self.incident, _names(self._troubles)
        if incident is not None and names - self._told_of and row == len(seen.signal) - 1:
            self._blame(incident, [], _NONE_KNOWN)
            self.news = True
            events += self._news(slot)
        return events or self._overdue(slot)

    def _limit(self) -> float | None:
        return _HALF

    def _blame(self, incident: Incident, raised: Sequence[Told], calibration: Calibration) -> None:  # noqa: ARG002
        self._told_of = _names(self._troubles) | (frozenset() if raised else self._told_of)
        share = round(1 / max(len(self._troubles), 1), 4)
        incident.contributors = [
            Contributor(each.channel, "", share, None, None, None, trouble=each.kind)
            for each in self._troubles
        ]
        incident.peak_score = max(self._tag.peak or 0.0, incident.peak_score or 0.0)

    def _first_channel(self, tag: Tag, first: Transition, calibration: Calibration) -> str:  # noqa: ARG002
        return self._troubles[0].channel if self._troubles else ""


def _names(troubles: Sequence[Trouble]) -> frozenset[tuple[str, str]]:
    return frozenset((each.channel, each.kind) for each in troubles)
