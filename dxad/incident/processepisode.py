"""An odd process: the score, and limits of single channels, as one incident."""

from collections.abc import Callable, Sequence
from typing import Final

from dxad.event import Event
from dxad.incident import TOP, Contributor, Identity, Incident, Kind, contributors
from dxad.incident.alarm import Transition
from dxad.incident.docket import Docket
from dxad.incident.episode import Counts, Episode, Past, Told
from dxad.incident.threshold import Beyond, ChannelTag, Inhibitions, ScoreTag, Seen, Tag
from dxad.runtime.clock import Clock
from dxad.types import F8, Bools, Calibration, Document, Rows

__all__ = ["ProcessEpisode"]

_ROOM: Final = 2
"""Channels of limit alarms for which a ranking by the score makes room."""


class ProcessEpisode(Episode):
    """Excursions of the score and of channels."""

    kind: Kind = "process"

    def __init__(
        self,
        identity: Identity,
        past: Past,
        docket: Docket,
        clock: Clock,
        counts: Counts,
        *,
        score: ScoreTag,
        channels: Sequence[ChannelTag] = (),
    ) -> None:
        super().__init__(identity, past, docket, clock, counts)
        self._told_peak = 0.0
        self._doubted = False
        self._use(score, channels)

    def replace(self, score: ScoreTag, channels: Sequence[ChannelTag]) -> list[Event]:
        """Go on with other alarms, as `adjust` has it."""
        score.score_limit = self._score.score_limit
        events = self.adjust([score, *channels])
        self._use(score, channels)
        return events

    def _use(self, score: ScoreTag, channels: Sequence[ChannelTag]) -> None:
        self.tags: list[Tag] = [score, *channels]
        self._score = score
        self._channels = list(channels)
        self._inhibitions = Inhibitions(self.tags, self._past.rows.channels)
        self._beyond = Beyond(self._channels)

    def restore(self, saved: Document, slot_of: Callable[[int], int], slot: int) -> None:
        """Take up what `save` has given, so that only what is worse than was told is news."""
        super().restore(saved, slot_of, slot)
        self._told_peak = 0.0 if self.incident is None else self.incident.peak_score or 0.0

    def forget_pending(self) -> None:
        """What the score has shown so far does not count; channels speak for themselves."""
        self._score.alarm.forget_pending()

    def update(
        self,
        rows: Rows,
        judged: F8 | None,
        limit: float,
        calibration: Calibration,
        *,
        idle: Bools,
        doubted: bool = False,
    ) -> list[Event]:
        """Take in consecutive rows, which the rings hold already.

        Args:
            rows: after the transforms.
            judged: (n,) their scores, to be held against `limit`; None while no score can be believed: the
                score's alarm stays as it is then, but time passes, so that shelving ends.
            limit: of the score.
            calibration: how the score was judged.
            idle: (n,) in which rows the score's alarm is inhibited, whatever its own section says.
            doubted: whether a sensor in trouble is why no score can be believed.
        """
        self._doubted = doubted
        inhibited = self._inhibitions.of(rows)
        excused = inhibited.get(self._score.inhibit)
        if idle.any():
            excused = idle if excused is None else excused | idle
        seen: list[Seen | None] = [
            self._score.look_away(len(rows), excused)
            if judged is None
            else self._score.see(judged, limit, excused)
        ]
        if self._channels:
            for tag, beyond in zip(self._channels, self._beyond.of(rows), strict=True):
                excused = inhibited.get(tag.inhibit)
                if beyond or not tag.alarm.at_ease:
                    seen.append(tag.see(rows, excused))
                else:
                    tag.passes(excused)
        busy = [each for each in seen if each is not None and not each.passed(rows.first)]
        events: list[Event] = []
        if busy:
            scores = [float("nan")] * len(rows) if judged is None else judged.tolist()
            for row, score in enumerate(scores):
                events += self._row(rows.first + row, row, score, busy, calibration)
        self.follow(rows.first + len(rows))
        return events

    @property
    def held_by(self) -> str | None:
        """The alarm because of which the score's can neither go up nor clear, and so holds the incident."""
        held = self._doubted and self.incident is not None and self._score.alarm.stands
        return f"{self._identity.pipeline}.sensor" if held else None

    def snapshot(self) -> Document | None:
        """The open incident, as it stands, and what holds it."""
        found, holder = super().snapshot(), self.held_by
        return found if found is None or holder is None else {**found, "held_by": holder}

    def _row(
        self, slot: int, row: int, score: float, busy: Sequence[Seen], calibration: Calibration
    ) -> list[Event]:
        events: list[Event] = []
        if self.incident is not None and self.held_by is not None:
            self.incident.remarks["held_by"] = self.held_by
        if self.incident is not None and self._score.alarm.stands and score >= 2 * self._told_peak:
            events += self._grown(slot, score, calibration.at(slot))
        told = [(each.tag, transition) for each in busy for transition in each.step(slot, row)]
        self._climb()
        if told:
            events += self.transit(told, calibration.at(slot))
        return events or self._overdue(slot)

    def _grown(self, slot: int, score: float, calibration: Calibration) -> list[Event]:
        """Tell anew each time the score has doubled: an upset that gets worse is news, its noise is not."""
        incident = self.incident
        assert incident is not None
        self._told_peak = incident.peak_score = score
        incident.contributors = self._with_channels(self._ranked(slot, slot, calibration), calibration)
        return self._news(slot)

    def _climb(self) -> None:
        incident, peak = self.incident, self._score.peak
        if incident is not None and peak is not None and self._score.alarm.stands:
            incident.peak_score = max(peak, incident.peak_score or 0.0)

    def _limit(self) -> float | None:
        return self._score.limit

    def _blame(self, incident: Incident, raised: Sequence[Told], calibration: Calibration) -> None:
        ranked = incident.contributors
        for tag, transition in raised:
            if tag is self._score:
                self._climb()
                incident.limit = self._score.limit
                self._told_peak = incident.peak_score or 0.0
                ranked = self._ranked(transition.onset, transition.slot, calibration)
        incident.contributors = self._with_channels(ranked, calibration)

    def _ranked(self, first: int, last: int, calibration: Calibration) -> list[Contributor]:
        """Who made the scores of these rows, with all those before that the judgement has averaged."""
        start, stop = max(0, first - max(calibration.spans) + 1, last + 1 - self._past.reach), last + 1
        parts = self._past.parts.read(start, stop).values
        values = self._past.rows.read(start, stop).values
        return contributors(self._past.rows.channels, parts, values, calibration)

    def _with_channels(self, ranked: Sequence[Contributor], calibration: Calibration) -> list[Contributor]:
        """The channels whose own alarms are active named too, if the score has not named them."""
        named = {each.channel for each in ranked}
        active = {tag.channel.id: tag for tag in reversed(self._channels) if tag.alarm.stands}
        further = [tag for name, tag in active.items() if name not in named][::-1]
        share = 0.0 if ranked else 1.0 / max(len(further), 1)
        found = list(ranked[: max(TOP - len(further), TOP - _ROOM)])
        return (found + [_beyond(tag, share, calibration) for tag in further])[:TOP]

    def _first_channel(self, tag: Tag, first: Transition, calibration: Calibration) -> str:
        if isinstance(tag, ChannelTag):
            return tag.channel.id
        ranked = self._ranked(first.onset, first.onset, calibration)
        return ranked[0].channel if ranked else ""


def _beyond(tag: ChannelTag, share: float, calibration: Calibration) -> Contributor:
    """A channel beyond its own limit."""
    worst = None if tag.kind == "rate" else tag.worst
    typical, spread = calibration.normal.get(tag.channel.id, (None, 0.0))
    moved = None if worst is None or typical is None or not spread else (worst - typical) / spread
    return Contributor(
        tag.channel.id,
        tag.channel.unit,
        share=round(share, 4),
        seen=None if worst is None else float(f"{worst:.6g}"),
        typical=None if typical is None else float(f"{typical:.6g}"),
        deviation_sd=None if moved is None else round(moved, 2),
        trouble=tag.kind,
    )
