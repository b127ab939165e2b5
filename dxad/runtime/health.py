"""What is wrong with the *gateway* now: named conditions, declared in one table.

An alarm is about the plant, a condition is about us. Each is logged once when it begins and once when it
ends, with how long it lasted, whatever happens in between.
"""

import logging
from dataclasses import dataclass
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
    "source.late": Kind("error", "a source answers more slowly than its period: its slots stay empty"),
    "source.overflow": Kind("warning", "samples come faster than they are taken in; some were dropped"),
    "source.rejecting": Kind("warning", "a source sends messages that cannot be decoded"),
    "source.clock_skew": Kind(
        "warning", "a device's clock is off; its samples are mapped to ours all the same"
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
    "outbox.degraded": Kind("error", "the outbox cannot write to disk; records are held in memory only"),
    "outbox.full": Kind("error", "the outbox dropped records to stay within its quota"),
    "config.rejected": Kind(
        "warning", "the configuration on disk was refused at a reload: the one before goes on"
    ),
    "state.unsaved": Kind("warning", "what was learned while running cannot be saved: a restart loses it"),
    "service.failed": Kind("error", "a service failed over and over and was given up; please report the bug"),
}
"""Every condition there is, by code."""


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition that holds now."""

    code: str
    subject: str
    """Which source, pipeline or sink."""
    detail: str
    since: int
    """The stream time it began."""


class Health:
    """The conditions that hold."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._active: dict[tuple[str, str], Condition] = {}

    def raise_condition(self, code: str, subject: str, detail: str) -> None:
        """A condition holds; the detail of one that held already is brought up to date."""
        old = self._active.get((code, subject))
        kind = CONDITIONS[code]
        if old is None:
            level = logging.ERROR if kind.severity == "error" else logging.WARNING
            log.log(level, "%s %s: %s", code, subject, detail)
        since = self._clock.now() if old is None else old.since
        self._active[code, subject] = Condition(code, subject, detail, since)

    def clear(self, code: str, subject: str, note: str = "") -> None:
        """A condition no longer holds, if it did; `note` says what it cost."""
        old = self._active.pop((code, subject), None)
        if old is not None:
            lasted_s = (self._clock.now() - old.since) / 1e9
            log.info("%s %s: over after %.1f s%s", code, subject, lasted_s, f", {note}" if note else "")

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
