"""What an alarm looks at: the score of a pipeline, or a channel's value or rate, as levels against a limit.

Every signal is turned so that larger is worse: `low = 1.0` becomes -value against -1.0.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from dxad.alarmsection import SEVERITIES, AlarmSection, ChannelAlarmSection, Severity, k_of_n
from dxad.expression import Expression, compile_expression
from dxad.incident.alarm import Alarm, Level, Rule, Transition, levels
from dxad.types import F8, NS_PER_S, U1, Bools, Channel, Document, Rows, State

__all__ = ["Beyond", "ChannelTag", "Inhibitions", "ScoreTag", "Seen", "Tag", "channel_tags", "rule_of"]

_DOWNWARD: Final = ("low", "low_low")
_ONE_STEP_WORSE: Final = ("low_low", "high_high")


def rule_of(section: AlarmSection | ChannelAlarmSection, period: int, *, hop: int = 1) -> Rule:
    """The delays of a section in rows of `period`."""
    count, of = (0, 1) if section.on is None else k_of_n(section.on)
    return Rule(
        on_rows=max(1, -(-section.on_delay // period)),
        off_rows=max(1, -(-section.off_delay // period)),
        on_count=count,
        on_of=of,
        latch=section.latch,
        hop=hop,
    )


@dataclass(slots=True)
class Seen:
    """Consecutive rows as one alarm sees them."""

    tag: "Tag"
    signal: list[float]
    levels: U1
    inhibited: Bools | None

    def passed(self, first: int) -> bool:
        """Whether nothing can come of them, in which case the alarm has taken them in."""
        return self.tag.alarm.skip(first, self.levels, self.inhibited)

    def step(self, slot: int, row: int) -> list[Transition]:
        """Take in the row at place `row`."""
        held = self.inhibited is not None and bool(self.inhibited[row])
        return self.tag.step(slot, self.signal[row], int(self.levels[row]), inhibited=held)


class Tag(ABC):
    """One alarm of a pipeline, with its name and the worst it has seen."""

    def __init__(self, id_: str, kind: str, severity: Severity, rule: Rule, inhibit: str | None) -> None:
        self.id = id_
        self.kind = kind
        self.severity = severity
        self.alarm = Alarm(rule)
        self.inhibit = inhibit
        """The text of an expression."""
        self.peak: float | None = None
        """The worst signal of the excursion that is pending or lasts, or of the last one."""

    def passes(self, inhibited: Bools | None) -> None:
        """Rows have come none of which is beyond the limit, and the alarm is at ease."""
        self.alarm.inhibited = inhibited is not None and bool(inhibited[-1])

    def step(self, slot: int, signal: float, level: int, *, inhibited: bool) -> list[Transition]:
        """Take in one row."""
        alarm = self.alarm
        before = alarm.pending or alarm.lasts
        told = alarm.step(slot, level, inhibited=inhibited)
        begun = alarm.pending or alarm.lasts
        if begun and (not before or alarm.onset == slot or self.peak is None or signal > self.peak):
            self.peak = signal
        return told

    @property
    @abstractmethod
    def limit(self) -> float | None:
        """In the unit of what it looks at; None while nobody knows."""

    @property
    def worst(self) -> float | None:
        """The peak in the unit of what it looks at."""
        return self.peak

    def document(self) -> Document:
        """What does not change while it runs."""
        return {"id": self.id, "kind": self.kind, "severity": self.severity}


class ScoreTag(Tag):
    """The alarm of a pipeline's judged score."""

    def __init__(self, pipeline: str, section: AlarmSection, rule: Rule) -> None:
        super().__init__(f"{pipeline}.score", "score", section.severity, rule, section.inhibit)
        self.score_limit: float | None = None
        """As the model was calibrated, or as configured."""
        self._off_share = section.off_limit

    @property
    def limit(self) -> float | None:
        """The judged score above which it is pending."""
        return self.score_limit

    def see(self, judged: F8, limit: float, inhibited: Bools | None) -> Seen | None:
        """Judged scores (n,) of consecutive rows, against the limit of now; None if nothing comes of it."""
        self.score_limit = limit
        if self.alarm.at_ease and not (judged > limit).any():
            self.passes(inhibited)
            return None
        return Seen(self, judged.tolist(), levels(judged, limit, self._off_share * limit), inhibited)

    def look_away(self, rows: int, inhibited: Bools | None) -> Seen | None:
        """Consecutive rows whose scores cannot be believed: time passes all the same."""
        if self.alarm.at_ease:
            self.passes(inhibited)
            return None
        return Seen(self, [float("nan")] * rows, np.full(rows, Level.UNKNOWN, dtype=np.uint8), inhibited)


class ChannelTag(Tag):
    """An alarm of one channel's value or rate."""

    def __init__(
        self,
        pipeline: str,
        section: ChannelAlarmSection,
        kind: str,
        *,
        place: int,
        channel: Channel,
        rule: Rule,
    ) -> None:
        severity = section.severity
        if kind in _ONE_STEP_WORSE:
            severity = SEVERITIES[min(SEVERITIES.index(severity) + 1, len(SEVERITIES) - 1)]
        super().__init__(f"{pipeline}.{section.title}.{kind}", kind, severity, rule, section.inhibit)
        self.place = place
        self.channel = channel
        self.sign = -1.0 if kind in _DOWNWARD else 1.0
        self._limit = float(getattr(section, kind))
        self._hysteresis = section.hysteresis if kind != "rate" else 0.0
        self._value = np.nan
        self._slot = -1

    @property
    def limit(self) -> float | None:
        """In the channel's unit, or that per second."""
        return self._limit

    @property
    def worst(self) -> float | None:
        """In the channel's unit, or that per second."""
        return None if self.peak is None else self.sign * self.peak

    def see(self, rows: Rows, inhibited: Bools | None) -> Seen:
        """Consecutive rows; what is not known has no level."""
        signal = self._rate(rows) if self.kind == "rate" else self.sign * rows.values[:, self.place]
        limit = self.sign * self._limit
        return Seen(self, signal.tolist(), levels(signal, limit, limit - self._hysteresis), inhibited)

    def _rate(self, rows: Rows) -> F8:
        """(n,) by how much it has changed per second since it last was fresh; NaN in rows that are not."""
        values, states = rows.values[:, self.place], rows.states[:, self.place]
        fresh = np.flatnonzero(~np.isnan(values) & (states != State.HELD))
        rate = np.full(len(rows), np.nan)
        if not len(fresh):
            return rate
        slots = np.concatenate(([self._slot], rows.first + fresh))
        known = np.concatenate(([self._value], values[fresh]))
        rate[fresh] = np.abs(np.diff(known)) / (np.diff(slots) * (rows.period / NS_PER_S))
        self._slot, self._value = int(slots[-1]), float(known[-1])
        return rate

    def document(self) -> Document:
        """What does not change while it runs."""
        return {**super().document(), "channel": self.channel.id, "unit": self.channel.unit}


class Inhibitions:
    """The expressions that inhibit alarms, each worked out once for a batch of rows, whoever shares it."""

    def __init__(self, tags: Sequence[Tag], channels: Sequence[Channel]) -> None:
        places = {channel.id: place for place, channel in enumerate(channels)}
        self._expressions: list[tuple[Expression, dict[str, int]]] = []
        for text in sorted({tag.inhibit for tag in tags if tag.inhibit is not None}):
            expression = compile_expression(text)
            self._expressions.append((expression, {name: places[name] for name in expression.names}))

    def of(self, rows: Rows) -> dict[str | None, Bools]:
        """By the expression's text, in which rows (n,) it holds; what is unknown does not."""
        found: dict[str | None, Bools] = {}
        for expression, places in self._expressions:
            value = expression({name: rows.values[:, place] for name, place in places.items()})
            found[expression.text] = (value != 0.0) & ~np.isnan(value)
        return found


class Beyond:
    """Which of many channel alarms that are at ease have reason to look at rows, found for all at once."""

    def __init__(self, tags: Sequence[ChannelTag]) -> None:
        self._tags = tags
        self._places = np.array([tag.place for tag in tags], dtype=np.int64)
        self._signs = np.array([tag.sign for tag in tags])
        self._limits = np.array([tag.sign * (tag.limit or 0.0) for tag in tags])

    def of(self, rows: Rows) -> list[bool]:
        """By alarm: whether a value is beyond its limit; rates are always looked at."""
        signals = rows.values[:, self._places] * self._signs
        found: list[bool] = (signals > self._limits).any(axis=0).tolist()
        return [tag.kind == "rate" or each for tag, each in zip(self._tags, found, strict=True)]


def channel_tags(
    pipeline: str, sections: Sequence[ChannelAlarmSection], channels: Sequence[Channel], period: int
) -> list[ChannelTag]:
    """The alarms of single channels, in the order in which they are configured."""
    places = {channel.id: place for place, channel in enumerate(channels)}
    return [
        ChannelTag(
            pipeline,
            section,
            kind,
            place=places[section.channel],
            channel=channels[places[section.channel]],
            rule=rule_of(section, period),
        )
        for section in sections
        for kind in section.kinds
    ]
