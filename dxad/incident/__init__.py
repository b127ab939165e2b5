"""Alarms with their evidence: one incident per upset, told in events."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Final, Literal

import numpy as np
import orjson

from dxad.alarmsection import Severity
from dxad.event import STEP_NS, Event, identity
from dxad.types import F8, Calibration, Channel, Document, Lane

__all__ = [
    "EVIDENCE_BYTES_MAX",
    "TOP",
    "Contributor",
    "Identity",
    "Incident",
    "Kind",
    "Phase",
    "contributors",
    "fitted",
]

Kind = Literal["process", "sensor"]
Phase = Literal["opened", "updated", "closed", "reopened"]

EVIDENCE_BYTES_MAX: Final = 6000
"""Of an event's data, as JSON."""
TOP: Final = 5
"""Channels that are named in an incident."""
_POINTS_MIN: Final = 8
_DEVIATION_MOST: Final = 1e6
"""Beyond this, how far a channel has moved makes no difference to its rank."""
_SEVERE: Final = ("high", "critical")
_NOT_SAVED: Final = ("identity", "onset", "zero_utc")


@dataclass(frozen=True, slots=True)
class Identity:
    """What makes an incident's id, and places its events."""

    gateway: str
    boot: str
    """Stream times of different boots do not compare, so the boot is part of every id."""
    pipeline: str

    @property
    def source(self) -> str:
        """The CloudEvents source of the pipeline."""
        return f"/{self.gateway}/pipelines/{self.pipeline}"


@dataclass(frozen=True, slots=True)
class Contributor:
    """A channel that makes part of an incident."""

    channel: str
    unit: str
    share: float
    """Of the excursion's score, 0 to 1."""
    seen: float | None
    """The mean over the excursion; None where nothing was seen."""
    typical: float | None
    """The mean in normal running."""
    deviation_sd: float | None
    """How many standard deviations of normal running lie between the two."""
    trouble: str = ""
    """What is wrong with the channel itself, in a sensor incident."""

    def document(self) -> Document:
        """As JSON, without what is unknown."""
        fields = {name: getattr(self, name) for name in self.__slots__}
        return {name: value for name, value in fields.items() if value is not None and value != ""}


@dataclass(slots=True)
class Incident:
    """One episode, from its onset until it is over."""

    id: str
    identity: Identity
    kind: Kind
    severity: Severity
    onset: int
    """Stream time."""
    onset_utc: int
    """The onset's wall time, as it was first told; or if the wall clock was set since, as it has it now."""
    limit: float | None
    """Of the score; None where none is known."""
    peak_score: float | None = None
    """None while the score has no part in it."""
    contributors: list[Contributor] = field(default_factory=list)
    alarms: dict[str, Document] = field(default_factory=dict)
    """By id, in the order in which they were raised."""
    first_out: Document = field(default_factory=dict)
    """The alarm that was raised first, and its channel."""
    remarks: Document = field(default_factory=dict)
    """What else there is to say: `interrupted`, `resumed`, `ended_by`.

    `held_by` names the alarm of sensors because of which the score's alarm could not clear for a while."""
    updates: int = 0
    reopened: int = 0
    merged: bool = False
    """Whether it is counted only: there were too many."""
    announced: bool = False
    """Whether anybody has been told that it was opened."""
    told: Document = field(default_factory=dict)
    """The data of the last event."""
    zero_utc: int | None = None
    """The wall time of stream time 0, as it was when something was told last; None if not known."""

    def save(self) -> Document:
        """All of it but where it belongs, as JSON; its onset is told in UTC alone."""
        fields = {name: getattr(self, name) for name in self.__slots__ if name not in _NOT_SAVED}
        return {**fields, "contributors": [asdict(each) for each in self.contributors]}

    def _follow(self, zero_utc: int) -> None:
        """Tell the onset as the wall clock has it now, if it was set since the incident was told last."""
        before, self.zero_utc = self.zero_utc, zero_utc
        if before is not None and abs(zero_utc - before) > STEP_NS:
            self.onset_utc += zero_utc - before

    @classmethod
    def restored(cls, saved: Document, identity: Identity, onset: int) -> "Incident":
        """The incident that `save` has told of."""
        blamed = [Contributor(**each) for each in saved["contributors"]]
        return cls(**{**saved, "contributors": blamed, "identity": identity, "onset": onset})

    def event(self, phase: Phase, *, at: int, utc: int, slot: int, evidence: Document) -> Event:
        """What is told of it now, in at most 6 kB of JSON.

        If the wall clock was set since it was told last, its onset is told as the clock has it now.

        Args:
            phase: `updated` may come any number of times.
            at: now, stream time.
            utc: now, UTC nanoseconds.
            slot: the row at which it was decided. It makes part of an update's id, with the number of the
                update: of two at one row, and of one that a power cut has made forgotten, each is told.
            evidence: what the rows say.
        """
        number = (slot, self.updates) if phase == "updated" else (self.reopened,)
        self._follow(utc - at)
        data: Document = {
            "incident": self.id,
            "phase": phase,
            "kind": self.kind,
            "severity": self.severity,
            "pipeline": self.identity.pipeline,
            "onset_utc_ns": self.onset_utc,
            "after_onset_s": round(max(0, utc - self.onset_utc) / 1e9, 3),
            "peak_score": None if self.peak_score is None else round(self.peak_score, 4),
            "limit": None if self.limit is None else round(self.limit, 4),
            "first_out": dict(self.first_out),
            "contributors": [each.document() for each in self.contributors],
            "alarms": [dict(each) for each in self.alarms.values()],
            **self.remarks,
            **evidence,
        }
        self.told = fitted(data)
        return Event(
            id=identity(self.id, phase, *number),
            type=f"dxad.incident.{phase}",
            source=self.identity.source,
            subject=self.id,
            time_utc=utc,
            at=at,
            data=self.told,
            lane=Lane.CRITICAL if self.severity in _SEVERE else Lane.NORMAL,
        )


def fitted(data: Document) -> Document:
    """The same in at most 6 kB: the series lose every second point, then go; then all lists are cut."""
    while _too_large(data):
        series = data.get("series")
        if series is None:
            return _cut(data)
        data = {name: value for name, value in data.items() if name != "series"}
        if len(series["after_onset_s"]) > _POINTS_MIN:
            data["series"] = {
                "after_onset_s": series["after_onset_s"][1::2],
                "channels": {name: each[1::2] for name, each in series["channels"].items()},
            }
    return data


def _too_large(data: Document) -> bool:
    return len(orjson.dumps(data)) > EVIDENCE_BYTES_MAX


def _cut(data: Document) -> Document:
    """As much of both lists as fits, the longer one cut first; without both, where names are so long.

    How much that is, is found by bisection: thousands of alarms are written a dozen times, not each one.
    """
    blamed, alarms = data["contributors"], data["alarms"]
    if not (blamed or alarms):
        return data
    shorter = min(len(blamed), len(alarms))

    def keeping(total: int) -> Document:
        n = total // 2
        if total >= 2 * shorter:
            n = shorter if len(blamed) == shorter else total - shorter
        return {**data, "contributors": blamed[:n], "alarms": alarms[: total - n], "cut": True}

    fits, too_many = 0, len(blamed) + len(alarms)
    while too_many - fits > 1:
        total = (fits + too_many) // 2
        if _too_large(keeping(total)):
            too_many = total
        else:
            fits = total
    return keeping(fits)


def contributors(
    channels: Sequence[Channel],
    parts: F8,
    values: F8,
    calibration: Calibration,
) -> list[Contributor]:
    """The channels that make most of an excursion, the largest first.

    They are ranked by their part in the score and half their part in the squared deviations, added: a
    residual is blind to a channel that moves the way it often does, a deviation to one that has lost its
    relation to the others (after the combined index of H. H. Yue and S. J. Qin, Ind. Eng. Chem. Res. 40,
    2001, p. 4403).

    Args:
        channels: what the columns are.
        parts: (n, channels), what each channel adds to the score, row by row.
        values: (n, channels), what was seen; NaN where nothing was.
        calibration: what the channels usually are, and usually add; only what is above that counts.
    """
    usual = np.array([calibration.usual.get(channel.id, 0.0) for channel in channels])
    total = np.maximum(np.nansum(parts, axis=0) - usual * len(parts), 0.0)
    shares = total / (float(total.sum()) or 1.0)
    everyone = [
        _contributor(channel, share, values[:, place], calibration)
        for place, (channel, share) in enumerate(zip(channels, shares.tolist(), strict=True))
    ]
    squares = np.array([min(abs(each.deviation_sd or 0.0), _DEVIATION_MOST) ** 2 for each in everyone])
    rank = shares + squares / max(float(squares.sum()), 1.0) / 2
    return [everyone[place] for place in np.argsort(-rank, kind="stable")[:TOP] if rank[place] > 0]


def _contributor(channel: Channel, share: float, column: F8, calibration: Calibration) -> Contributor:
    seen = _mean(column)
    typical, spread = calibration.normal.get(channel.id, (None, 0.0))
    deviation = None if seen is None or typical is None or not spread else (seen - typical) / spread
    return Contributor(
        channel.id,
        channel.unit,
        share=round(share, 4),
        seen=None if seen is None else float(f"{seen:.6g}"),
        typical=None if typical is None else float(f"{typical:.6g}"),
        deviation_sd=None if deviation is None else round(deviation, 2),
    )


def _mean(column: F8) -> float | None:
    known = column[~np.isnan(column)]
    return float(known.mean()) if len(known) else None
