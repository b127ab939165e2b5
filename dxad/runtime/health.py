"""What is wrong with the *gateway* now: named conditions, declared in one table.

An alarm is about the plant, a condition is about us. Each is logged once when it begins and once when it
ends, with how long it lasted and what it cost, whatever happens in between. One that comes and goes is told
in full a few times, then summed up every ten minutes, until it has been quiet, or lasting, for a while.
"""

import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from dxad.runtime.clock import Clock

__all__ = ["CONDITIONS", "Condition", "Health", "Kind"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of condition: how bad it is, and what an operator should make of it."""

    severity: Literal["warning", "error"]
    meaning: str


CONDITIONS: Final = {
    "source.down": Kind("error", "a source has no connection; its channels are missing until it is back"),
    "source.silent": Kind(
        "error", "channels that promise a rate bring nothing, while the others of their source go on"
    ),
    "source.late": Kind("error", "a source answers more slowly than its period: its slots stay empty"),
    "source.overflow": Kind("warning", "samples come faster than they are taken in; some were dropped"),
    "source.rejecting": Kind("warning", "a source sends messages that cannot be decoded"),
    "source.unacknowledged": Kind(
        "error",
        "the outbox stores nothing of a source that waits for it; its broker keeps that, and sends no more",
    ),
    "source.clock_skew": Kind(
        "warning", "a device's clock is off; its samples are mapped to ours all the same"
    ),
    "source.out_of_step": Kind(
        "warning",
        "a device answers twice, or when it is not asked: what may be another answer is not believed",
    ),
    "pipeline.blind": Kind("error", "too many channels are missing or bad: nothing is scored"),
    "pipeline.behind": Kind("error", "scoring does not keep up; windows are skipped and counted"),
    "incidents.flood": Kind("warning", "more incidents than the budget of an hour: some are only counted"),
    "evidence.failed": Kind("warning", "the rows around an incident could not be stored"),
    "regime.unknown": Kind("warning", "the machine runs in a way that was never learned: nothing is scored"),
    "transform.failed": Kind("warning", "a function of yours failed: the channel it makes is bad meanwhile"),
    "model.missing": Kind("warning", "no model yet: the pipeline records but does not score"),
    "model.failed": Kind("error", "the model failed or was refused; the old one, if any, goes on"),
    "model.rolled_back": Kind("warning", "a new model did not do: the one before it scores again"),
    "model.slow": Kind("warning", "scoring a batch of rows took longer than the deadline allows"),
    "sink.down": Kind("warning", "a sink does not take records; they wait in the outbox"),
    "sink.refusing": Kind(
        "warning", "a sink refuses record after record; nothing new is offered until it takes them"
    ),
    "outbox.degraded": Kind("error", "the outbox cannot write to disk; records are held in memory only"),
    "outbox.damaged": Kind(
        "error", "the outbox's file was damaged: what can be read of it is taken over into a fresh one"
    ),
    "outbox.cramped": Kind(
        "warning", "the disk is nearly full: the outbox lives on the room that it took hold of before"
    ),
    "outbox.wear": Kind("warning", "more is written to the disk than flash bears for years"),
    "outbox.full": Kind("error", "the outbox dropped records to stay within its quota"),
    "config.rejected": Kind(
        "warning", "the configuration on disk was refused at a reload: the one before goes on"
    ),
    "state.unsaved": Kind("warning", "what was learned while running cannot be saved: a restart loses it"),
    "service.failed": Kind("error", "a service failed over and over and was given up; please report the bug"),
}
"""Every condition there is, by code."""


_TOLD_MOST: Final = 3
"""Beginnings of one condition that are told in full within ten minutes."""
_SUM_NS: Final = 600 * 10**9
_LASTING_NS: Final = 30 * 10**9
"""A beginning that was not told is told once it has held for so long."""
_LOOK_NS: Final = 10**9


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition that holds now."""

    code: str
    subject: str
    """Which source, pipeline or sink."""
    detail: str
    since: int
    """The stream time it began."""


@dataclass(slots=True)
class _Rounds:
    """How often a condition has begun of late, and what of it was not told."""

    since: int
    told: int = 0
    untold: int = 0
    announced: bool = False
    """Whether it was said that there is more than is told."""
    held_ns: int = 0
    cost: Counter[str] = field(default_factory=Counter)


class Health:
    """The conditions that hold."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._active: dict[tuple[str, str], Condition] = {}
        self._rounds: dict[tuple[str, str], _Rounds] = {}
        """Of the conditions that have begun within the last ten minutes."""
        self._hushed: set[tuple[str, str]] = set()
        """Those that hold and whose beginning was not told."""
        self._look_at = 0

    def raise_condition(self, code: str, subject: str, detail: str) -> None:
        """A condition holds; the detail of one that held already is brought up to date."""
        old = self._active.get((code, subject))
        since = self._clock.now() if old is None else old.since
        self._active[code, subject] = Condition(code, subject, detail, since)
        if old is None:
            self._begun(code, subject, detail)

    def _begun(self, code: str, subject: str, detail: str) -> None:
        self.tick(self._clock.now())
        rounds = self._rounds.setdefault((code, subject), _Rounds(self._clock.now()))
        if rounds.told < _TOLD_MOST:
            rounds.told += 1
            _log(code, "%s %s: %s", code, subject, detail)
            return
        if not rounds.announced:
            rounds.announced = True
            _log(code, "%s %s: comes and goes, and is summed up from now on", code, subject)
        rounds.untold += 1
        self._hushed.add((code, subject))

    def clear(
        self, code: str, subject: str, note: str = "", *, cost: Mapping[str, int] | None = None
    ) -> None:
        """A condition no longer holds, if it did; `note` and `cost` say what it cost: how many of what."""
        old = self._active.pop((code, subject), None)
        if old is None:
            return
        lasted = self._clock.now() - old.since
        rounds = self._rounds.get((code, subject))
        if (code, subject) not in self._hushed or rounds is None:
            log.info("%s %s: over after %.1f s%s", code, subject, lasted / 1e9, _noted(note, cost or {}))
            return
        self._hushed.discard((code, subject))
        rounds.held_ns += lasted
        rounds.cost.update(cost or {})

    def tick(self, now: int) -> None:
        """Sum up what came and went, once in a while, and tell what was not told but lasts."""
        if now < self._look_at:
            return
        self._look_at = now + _LOOK_NS
        for code, subject in list(self._hushed):
            active = self._active.get((code, subject))
            if active is not None and now - active.since > _LASTING_NS:
                self._hushed.discard((code, subject))
                _log(
                    code,
                    "%s %s: %s, for %.0f s now",
                    code,
                    subject,
                    active.detail,
                    (now - active.since) / 1e9,
                )
        for (code, subject), rounds in list(self._rounds.items()):
            if now - rounds.since <= _SUM_NS:
                continue
            del self._rounds[code, subject]
            if rounds.untold:
                _log(
                    code, "%s %s: began %d times more in %.0f min, and held %.1f s of them%s",
                    code, subject, rounds.untold, (now - rounds.since) / 60e9, rounds.held_ns / 1e9,
                    _noted("", rounds.cost),
                )  # fmt: skip
                # It goes on, as far as we know: tell no beginning in full until it was quiet for so long.
                self._rounds[code, subject] = _Rounds(now, told=_TOLD_MOST, announced=True)

    def dismiss(self, kind: str, subject: str) -> None:
        """Forget all conditions of a `kind`, such as `source`, that a node which is gone has left."""
        for code, about in list(self._active):
            if about == subject and code.startswith(f"{kind}."):
                self.clear(code, about, "it is there no more")

    @property
    def active(self) -> tuple[Condition, ...]:
        """All that holds, the oldest first."""
        held = tuple(self._active.values())  # at once: the inference thread raises conditions too
        return tuple(sorted(held, key=lambda each: each.since))

    def snapshot(self) -> list[dict[str, Any]]:
        """The same as JSON objects."""
        return [
            {
                "code": each.code,
                "severity": CONDITIONS[each.code].severity,
                "subject": each.subject,
                "detail": each.detail,
                "meaning": CONDITIONS[each.code].meaning,
                "for_s": round((self._clock.now() - each.since) / 1e9, 3),
            }
            for each in self.active
        ]


def _log(code: str, text: str, *arguments: object) -> None:
    log.log(logging.ERROR if CONDITIONS[code].severity == "error" else logging.WARNING, text, *arguments)


def _noted(note: str, cost: Mapping[str, int]) -> str:
    return "".join(f", {each}" for each in (note, *(f"{n} {what}" for what, n in cost.items() if n)) if each)
