"""From scores to alarms: judged against their scales, delayed, acknowledged.

The state machine is a subset of ISA-18.2-2016, clause 5.4 (alarm state transitions):

                score > limit for on_delay
      NORMAL ───────────────────────────────▶ UNACKNOWLEDGED ──acknowledge──▶ ACKNOWLEDGED
        ▲  ▲                                        │                               │
        │  └──── acknowledge ──── RETURNED ◀────────┘                               │
        └────────────────────────── score < off_limit for off_delay ◀───────────────┘
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Literal

import numpy as np

from dxad.moving import moving_sum
from dxad.types import F8, Calibration

__all__ = ["Alarm", "AlarmState", "Judge", "Transition"]


class Judge:
    """Turns raw scores into judged ones: the largest of several causal means, each over its own scale."""

    def __init__(self, calibration: Calibration) -> None:
        self._calibration = calibration
        self._reach = max(calibration.spans) - 1
        self._tail: F8 = np.full(self._reach, np.nan)

    def apply(self, scores: F8) -> F8:
        """Judge consecutive scores (n,); NaN, a row that was not scored, stays NaN and counts in no mean.

        A span counts as soon as half of it was scored.
        """
        known = np.concatenate((self._tail, scores))
        self._tail = known[len(known) - self._reach :]
        present = ~np.isnan(known)
        whole = bool(present.all())
        filled = known if whole else np.where(present, known, 0.0)
        counted = present.astype(np.int64)
        judged = np.full(len(scores), -np.inf)
        for span, scale in zip(self._calibration.spans, self._calibration.scales, strict=True):
            first = self._reach - span + 1
            total = moving_sum(filled[first:], span)
            if whole:
                np.maximum(judged, total / (span * scale), out=judged)
                continue
            count = moving_sum(counted[first:], span)
            mean = total / (np.maximum(count, 1) * scale)
            judged = np.where(count >= span / 2, np.maximum(judged, mean), judged)
        judged[np.isnan(scores) | np.isneginf(judged)] = np.nan
        return judged

    def restart(self) -> None:
        """Forget the scores so far: they measured something that has been found out to be no score."""
        self._tail = np.full(self._reach, np.nan)


class AlarmState(Enum):
    """Where an alarm is."""

    NORMAL = "normal"
    UNACKNOWLEDGED = "unacknowledged"
    ACKNOWLEDGED = "acknowledged"
    RETURNED = "returned"
    """The score is back to normal, but nobody has acknowledged yet."""


@dataclass(frozen=True, slots=True)
class Transition:
    """An alarm that was raised or has cleared."""

    kind: Literal["raised", "cleared"]
    slot: int
    """The row at which it was decided."""
    onset: int
    """The first row of the excursion that raised it."""


class Alarm:
    """One alarm over consecutive rows."""

    def __init__(self, *, off_share: float, on_rows: int, off_rows: int) -> None:
        """Raise after `on_rows` rows above the limit, clear after `off_rows` below `off_share` of it."""
        self.state = AlarmState.NORMAL
        self._off_share = off_share
        self._on_rows = max(1, on_rows)
        self._off_rows = max(1, off_rows)
        self._above = 0
        self._below = 0
        self._onset = 0

    @property
    def active(self) -> bool:
        """Whether the excursion lasts."""
        return self.state in (AlarmState.UNACKNOWLEDGED, AlarmState.ACKNOWLEDGED)

    @property
    def pending(self) -> bool:
        """Whether the score is above the limit, but not yet for long enough."""
        return self._above > 0 and not self.active

    @property
    def onset(self) -> int:
        """The first row of the excursion that is pending or active."""
        return self._onset

    def update(self, first: int, judged: Sequence[float], limit: float) -> list[Transition]:
        """Take in the scores of consecutive rows from slot `first` on; NaN changes nothing."""
        transitions = []
        for slot, score in enumerate(judged, first):
            if self.active:
                if self._clears(score, limit):
                    transitions.append(Transition("cleared", slot, self._onset))
            elif self._raises(slot, score, limit):
                transitions.append(Transition("raised", slot, self._onset))
        return transitions

    def _raises(self, slot: int, score: float, limit: float) -> bool:
        if score > limit:
            self._onset = slot if self._above == 0 else self._onset
            self._above += 1
        elif score <= limit:  # not NaN
            self._above = 0
        if self._above < self._on_rows:
            return False
        self.state = AlarmState.UNACKNOWLEDGED
        self._above = self._below = 0
        return True

    def _clears(self, score: float, limit: float) -> bool:
        if score < self._off_share * limit:
            self._below += 1
        elif score >= self._off_share * limit:
            self._below = 0
        if self._below < self._off_rows:
            return False
        unseen = self.state is AlarmState.UNACKNOWLEDGED
        self.state = AlarmState.RETURNED if unseen else AlarmState.NORMAL
        self._below = 0
        return True

    def acknowledge(self) -> bool:
        """Somebody has seen it; False when there is nothing to see."""
        if self.state is AlarmState.UNACKNOWLEDGED:
            self.state = AlarmState.ACKNOWLEDGED
        elif self.state is AlarmState.RETURNED:
            self.state = AlarmState.NORMAL
        else:
            return False
        return True

    def adjust(self, *, off_share: float, on_rows: int, off_rows: int) -> None:
        """Go on in the same state with other delays."""
        self._off_share = off_share
        self._on_rows = max(1, on_rows)
        self._off_rows = max(1, off_rows)

    def forget_pending(self) -> None:
        """What the score has shown so far does not count."""
        self._above = 0
