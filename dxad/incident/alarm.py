"""From scores to alarms: judged against their scales, delayed, acknowledged, shelved.

The state machine is a subset of ISA-18.2-2016, clause 5.4 (alarm state transitions):

              above the limit for on_delay, or in k of n rows
      NORMAL ───────────────────────────────────────────────▶ UNACKNOWLEDGED ──acknowledge──▶ ACKNOWLEDGED
       ▲ ▲ ▲                                                   │  │       ▲                          │
       │ │ └──── acknowledge ──── RETURNED ◀──────── below ────┘  │     above                        │
       │ └────── acknowledge ──── LATCHED ◀───── below, latch ────┘ ──────┘                          │
       └───────────────────────────────── below the off-limit for off_delay ◀────────────────────────┘

    any ── shelve(until) ──▶ SHELVED ── until, or by hand ──▶ UNACKNOWLEDGED if it lasts, else NORMAL
    any ── out of service ─▶ OUT_OF_SERVICE ── by hand ──▶ NORMAL, as if nothing had been seen before

UNACKNOWLEDGED, ACKNOWLEDGED and LATCHED are *active*. Entering SHELVED or OUT_OF_SERVICE clears what is
active. A shelved alarm goes on looking, so that it knows how it stands when it returns; one that is out of
service does not. While the machine's state *inhibits* an alarm, nothing becomes pending and nothing is
raised; what is active counts as below its off-limit, and so clears after the off-delay.

Delays are times: rows are slots, so that neither a model that scores every fifth row nor a hole stretches
them. A score stands for the rows since the one before; a hole that is longer than the delay begins it anew.
K-of-n looks at the time of the last n scores. A row that is not known changes nothing.

What has been *interrupted*, since nobody looked for too long, stays in its state; what was told of it counts
no more. An excursion that lasts is told anew once it has been seen above the limit for the whole delay, and
is as acknowledged as before; or it is over once it has been below for the other delay.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import Final, Literal

import numpy as np

from dxad.signal.moving import moving_sums
from dxad.types import F8, U1, Bools, Calibration, Document

__all__ = ["Alarm", "AlarmState", "Judge", "Level", "Rule", "Transition", "levels"]


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
        spans, scales = self._calibration.spans, self._calibration.scales
        if present.all():
            totals = moving_sums(known, spans)
            judged = totals[0] / (spans[0] * scales[0])
            for span, scale, total in zip(spans[1:], scales[1:], totals[1:], strict=True):
                np.maximum(judged, total / (span * scale), out=judged)
            return judged
        judged = np.full(len(scores), -np.inf)
        totals = moving_sums(np.where(present, known, 0.0), spans)
        counts = moving_sums(present.astype(np.int64), spans)
        for span, scale, total, count in zip(spans, scales, totals, counts, strict=True):
            mean = total / (np.maximum(count, 1) * scale)
            judged = np.where(count >= span / 2, np.maximum(judged, mean), judged)
        judged[np.isnan(scores) | np.isneginf(judged)] = np.nan
        return judged

    def restart(self) -> None:
        """Forget the scores so far: they measured something that has been found out to be no score."""
        self._tail = np.full(self._reach, np.nan)


class Level(IntEnum):
    """Where a number stands against its limit."""

    UNKNOWN = 0
    """There is none."""
    BELOW = 1
    """Beneath the off-limit: an alarm may clear."""
    BETWEEN = 2
    """Neither raises nor clears."""
    ABOVE = 3


def levels(values: F8, limit: float, off_limit: float) -> U1:
    """Where each of `values` (n,) stands; NaN is UNKNOWN, and to be at a limit is not to be beyond it."""
    found = np.where(values > limit, np.uint8(Level.ABOVE), np.uint8(Level.BETWEEN))
    found[values < off_limit] = Level.BELOW
    found[np.isnan(values)] = Level.UNKNOWN
    return found


class AlarmState(Enum):
    """Where an alarm is: the states of ISA-18.2-2016, figure 3, A to I."""

    NORMAL = "normal"
    UNACKNOWLEDGED = "unacknowledged"
    ACKNOWLEDGED = "acknowledged"
    RETURNED = "returned"
    """Back to normal, but nobody has acknowledged yet."""
    LATCHED = "latched"
    """Back to normal, and active all the same until somebody acknowledges."""
    SHELVED = "shelved"
    SUPPRESSED = "suppressed"
    """Inhibited by the state of the machine."""
    OUT_OF_SERVICE = "out_of_service"


_ACTIVE: Final = (AlarmState.UNACKNOWLEDGED, AlarmState.ACKNOWLEDGED, AlarmState.LATCHED)
_SEEN_BY_NOBODY: Final = (AlarmState.UNACKNOWLEDGED, AlarmState.RETURNED, AlarmState.LATCHED)


@dataclass(frozen=True, slots=True)
class Transition:
    """What an alarm has to tell."""

    kind: Literal["raised", "cleared", "withheld"]
    """`withheld`: it would have been raised, but it is shelved."""
    slot: int
    """The row at which it was decided."""
    onset: int
    """The first row of the excursion."""
    reason: str = ""
    """Why it has cleared, where numbers do not say so: `shelved`, `out_of_service` or `acknowledged`."""


@dataclass(frozen=True, slots=True)
class Rule:
    """When an alarm is raised and when it clears; times are rows, which are slots of the grid."""

    on_rows: int = 1
    """It is raised when it has been above its limit for so long, without a fall in between."""
    off_rows: int = 1
    """It clears when it has been below its off-limit for so long."""
    on_count: int = 0
    """Or it is raised when so many of the last `on_of` scored rows are above; 0 where the delay counts."""
    on_of: int = 1
    latch: bool = False
    """Whether it stays active until somebody acknowledges it."""
    hop: int = 1
    """Rows from one score to the next: each stands for so many."""


class Alarm:
    """One alarm over consecutive rows; it knows nothing of what it is an alarm of."""

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self.onset = 0
        """The first row of the excursion that is pending or lasts."""
        self.lasts = False
        """Whether the excursion lasts, whatever is told of it."""
        self.shelved_until: int | None = None
        """The first row at which it is no longer shelved."""
        self.in_service = True
        self.inhibited = False
        """Whether the machine's state inhibits it, after the last row."""
        self._told = AlarmState.NORMAL
        self._seen: int | None = None
        """The last row that was known."""
        self._since: int | None = None
        """From which row on it has been above, or below, without a break."""
        self._above: tuple[int, ...] = ()
        """The rows above the limit among those that k-of-n looks at."""
        self.interrupted = False
        """Whether nobody has looked for so long that what was told of it counts no more."""
        self._afresh: Alarm | None = None
        """Sees whether an excursion that was interrupted lasts."""

    @property
    def state(self) -> AlarmState:
        """Where it is; what keeps it from being told goes before what would be told."""
        if not self.in_service:
            return AlarmState.OUT_OF_SERVICE
        if self.shelved_until is not None:
            return AlarmState.SHELVED
        if self.inhibited and self._told is AlarmState.NORMAL:
            return AlarmState.SUPPRESSED
        return self._told

    @property
    def active(self) -> bool:
        """Whether it has been told of and has not cleared."""
        return self._told in _ACTIVE

    @property
    def stands(self) -> bool:
        """Whether it is active, and what was told of it still counts."""
        return self.active and not self.interrupted

    @property
    def pending(self) -> bool:
        """Whether it is above the limit, but not yet for long enough."""
        if self.lasts or self._seen is None:
            return False
        return bool(self._recent(self._seen)) if self.rule.on_count else self._since is not None

    @property
    def unseen(self) -> bool:
        """Whether there is something to acknowledge."""
        return self._told in _SEEN_BY_NOBODY

    @property
    def at_ease(self) -> bool:
        """Whether rows that are not above the limit change nothing at all."""
        quiet = self._since is None and not self._above and not self.lasts and not self.active
        return quiet and self.shelved_until is None

    # -- rows ---------------------------------------------------------------------------------------------

    def skip(self, first: int, found: U1, inhibited: Bools | None = None) -> bool:
        """Take in rows from slot `first` on, if they are such that nothing can come of them; else do nothing.

        Args:
            first: the slot of the first row.
            found: (n,) of `Level`.
            inhibited: (n,) whether the machine's state inhibits the alarm.

        Returns:
            Whether they were taken in.
        """
        if not self.in_service or not len(found):
            return True
        quiet = not self.lasts and not self.active and not (found == Level.ABOVE).any()
        if not quiet or (self.shelved_until is not None and self.shelved_until < first + len(found)):
            return False
        known = np.flatnonzero(found)
        self.inhibited = inhibited is not None and bool(inhibited[-1])
        if inhibited is not None and inhibited.any():
            self.forget_pending()
        if len(known):
            self._seen = first + int(known[-1])
            self._since = None
            self._above = self._recent(self._seen)
        return True

    def update(self, first: int, found: U1, inhibited: Bools | None = None) -> list[Transition]:
        """Take in rows from slot `first` on; the arguments are those of `skip`."""
        if self.skip(first, found, inhibited):
            return []
        held = [False] * len(found) if inhibited is None else inhibited.tolist()
        told: list[Transition] = []
        for slot, (level, hold) in enumerate(zip(found.tolist(), held, strict=True), first):
            told += self.step(slot, level, inhibited=hold)
        return told

    def step(self, slot: int, level: int, *, inhibited: bool = False) -> list[Transition]:
        """Take in one row."""
        if not self.in_service:
            return []
        told: list[Transition] = []
        if self.shelved_until is not None and slot >= self.shelved_until:
            told += self.unshelve(slot)
        self.inhibited = inhibited
        if self.lasts:
            # What the machine's state excuses is as good as back to normal.
            level = Level.BELOW if inhibited else level
            if self._clears(slot, level):
                self.lasts = False
                told += self._over(slot)
            elif self._afresh is not None:
                told += self._resumed(self._afresh.step(slot, level))
        elif inhibited:
            self.forget_pending()
            self._seen = self._seen if level == Level.UNKNOWN else slot
        elif self._raises(slot, level):
            self.lasts = True
            told += self._begun(slot)
        return told

    def _raises(self, slot: int, level: int) -> bool:
        if level == Level.UNKNOWN:
            return False
        if level != Level.ABOVE:
            self._seen, self._since = slot, None
            return False
        if self.rule.on_count:
            self._seen = slot
            self._above = (*self._recent(slot), slot)[-self.rule.on_of :]
            self.onset = self._above[0]
            enough = len(self._above) >= self.rule.on_count
        else:
            self.onset = self._from(slot, self.rule.on_rows)
            enough = slot - self.onset + self.rule.hop >= self.rule.on_rows
        if enough:
            self.forget_pending()
        return enough

    def _recent(self, slot: int) -> tuple[int, ...]:
        return tuple(each for each in self._above if each > slot - self.rule.on_of * self.rule.hop)

    def _clears(self, slot: int, level: int) -> bool:
        if level == Level.UNKNOWN:
            return False
        if level != Level.BELOW:
            self._seen, self._since = slot, None
            return False
        since = self._from(slot, self.rule.off_rows)
        enough = slot - since + self.rule.hop >= self.rule.off_rows
        if enough:
            self._since = None
        return enough

    def _from(self, slot: int, delay: int) -> int:
        """Since when it has been like this; what was not seen for longer than the delay begins anew."""
        unseen = 0 if self._seen is None else slot - self._seen - self.rule.hop
        if self._since is None or unseen > delay:
            self._since = slot
        self._seen = slot
        return self._since

    def _begun(self, slot: int) -> list[Transition]:
        if self.shelved_until is not None:
            return [Transition("withheld", slot, self.onset)]
        latched, self._told = self._told is AlarmState.LATCHED, AlarmState.UNACKNOWLEDGED
        told = latched and not self.interrupted
        self._end_interruption()
        return [] if told else [Transition("raised", slot, self.onset)]

    def _resumed(self, again: Sequence[Transition]) -> list[Transition]:
        """An excursion that was interrupted has been seen for long enough, if anything is told `again`."""
        if not again:
            return []
        (raised,) = again
        self.onset = raised.onset
        acknowledged = self._told is AlarmState.ACKNOWLEDGED
        told = self._begun(raised.slot)
        if acknowledged:
            self._told = AlarmState.ACKNOWLEDGED
        self._end_interruption()
        return told

    def _end_interruption(self) -> None:
        self.interrupted, self._afresh = False, None

    def _over(self, slot: int) -> list[Transition]:
        self._afresh = None
        if not self.active:  # it was shelved all the time
            self.interrupted = False
            return []
        unseen = self._told is AlarmState.UNACKNOWLEDGED
        if unseen and self.rule.latch:
            self._told = AlarmState.LATCHED
            return []
        self.interrupted = False
        self._told = AlarmState.RETURNED if unseen else AlarmState.NORMAL
        return [Transition("cleared", slot, self.onset)]

    # -- people -------------------------------------------------------------------------------------------

    def acknowledge(self, slot: int) -> list[Transition]:
        """Somebody has seen it, after row `slot`; without anything to see, nothing happens."""
        before = self._told
        if before is AlarmState.UNACKNOWLEDGED:
            self._told = AlarmState.ACKNOWLEDGED
        elif before in (AlarmState.RETURNED, AlarmState.LATCHED):
            self._told = AlarmState.NORMAL
        latched = before is AlarmState.LATCHED
        if latched:
            self._end_interruption()
        return [Transition("cleared", slot, self.onset, "acknowledged")] if latched else []

    def shelve(self, slot: int, until: int) -> list[Transition]:
        """Tell nothing until row `until`: what is active clears, what comes is counted."""
        self.shelved_until = until
        return self._silenced(slot, "shelved")

    def unshelve(self, slot: int) -> list[Transition]:
        """Tell again, at row `slot`: an excursion that lasts is raised now."""
        if self.shelved_until is None:
            return []
        self.shelved_until = None
        return self._begun(slot) if self.lasts and self.in_service and not self.interrupted else []

    def take_out_of_service(self, slot: int) -> list[Transition]:
        """Look at no rows, until it is put back into service by hand."""
        self.in_service = self.lasts = self.inhibited = False
        self.forget_pending()
        return self._silenced(slot, "out_of_service")

    def put_into_service(self) -> None:
        """Begin anew, as if nothing had been seen before."""
        self.in_service = True
        self._seen = None

    def _silenced(self, slot: int, reason: str) -> list[Transition]:
        active, self._told = self.active, AlarmState.NORMAL
        if not self.lasts:
            self._end_interruption()
        return [Transition("cleared", slot, self.onset, reason)] if active else []

    @property
    def at_rest(self) -> bool:
        """Whether there is nothing about it that a restart must not forget."""
        normal = self._told is AlarmState.NORMAL and not self.lasts
        return normal and self.in_service and self.shelved_until is None

    def interrupt(self) -> None:
        """Nobody has looked for too long: it stays in its state, as does what people have decided."""
        if self.lasts or self.active:
            self.interrupted = True
            self._afresh = Alarm(self.rule) if self.lasts else None
            self._seen = None
            self.forget_pending()

    def adjust(self, rule: Rule) -> None:
        """Go on in the same state under another rule."""
        self.rule = rule
        if self._afresh is not None:
            self._afresh.rule = rule

    def forget_pending(self) -> None:
        """What has been seen so far does not count; an excursion that lasts goes on."""
        self._since, self._above = None, ()
        if self._afresh is not None:
            self._afresh.forget_pending()

    # -- restarts -----------------------------------------------------------------------------------------

    def save(self, time_of: Callable[[int], int]) -> Document:
        """All of it, as JSON; `time_of` a slot is what outlives the grid."""
        return {
            "told": self._told.value,
            "lasts": self.lasts,
            "in_service": self.in_service,
            "inhibited": self.inhibited,
            "interrupted": self.interrupted,
            "onset": time_of(self.onset),
            "shelved_until": None if self.shelved_until is None else time_of(self.shelved_until),
            "seen": None if self._seen is None else time_of(self._seen),
            "since": None if self._since is None else time_of(self._since),
            "above": [time_of(each) for each in self._above],
        }

    def restore(self, saved: Document, slot_of: Callable[[int], int], next_slot: int) -> None:
        """Take up what `save` has given, before row `next_slot`; `slot_of` is the inverse of its `time_of`.

        What a clock that has been set would place at rows to come was seen at the last row before.
        """

        def past(time: int) -> int:
            return min(slot_of(time), next_slot - 1)

        def slot(name: str) -> int | None:
            return None if saved[name] is None else past(saved[name])

        self._told = AlarmState(saved["told"])
        self.lasts, self.in_service, self.inhibited = saved["lasts"], saved["in_service"], saved["inhibited"]
        self.onset, self._seen, self._since = past(saved["onset"]), slot("seen"), slot("since")
        self.shelved_until = None if saved["shelved_until"] is None else slot_of(saved["shelved_until"])
        self._above = tuple(map(past, saved["above"]))
        self.interrupted = saved.get("interrupted", False)  # older files do not tell
        self._afresh = Alarm(self.rule) if self.interrupted and self.lasts else None
