"""What the incidents of all pipelines have in common: how many may be told in an hour, and the last of them.

    Watch ── admit ──▶ told, within the budget
                   └─▶ merged: counted, and told of in one `dxad.incident.flood` when the hour is over

Hours are hours of stream time: a wall clock that is wrong for a while makes no budget last longer.
Everything but `closed` and `windows` is for the inference thread, on which all pipelines are stepped.
"""

from collections import Counter, deque
from collections.abc import Callable
from typing import Final

from dxad.alarmsection import IncidentsSection, Severity
from dxad.errors import ModelError
from dxad.event import Event, identity
from dxad.incident.evidence import Window
from dxad.runtime.health import Health
from dxad.types import NS_PER_S, Document, Lane

__all__ = ["CLOSED_KEPT", "Docket"]

CLOSED_KEPT: Final = 100
_HOUR: Final = 3600 * NS_PER_S
_MINUTE: Final = 60 * NS_PER_S
_WINDOWS_MOST: Final = 4
"""That wait for a disk."""
_SUMMARY_MOST: Final = 20
"""Pipelines, kinds and severities that a summary counts apart."""


class Docket:
    """The incidents of one gateway."""

    def __init__(
        self,
        section: IncidentsSection,
        *,
        gateway: str,
        boot: str,
        config_hash: str = "",
        health: Health | None = None,
    ) -> None:
        """Tell `health` when there are too many."""
        self.section = section
        self.config_hash = config_hash
        """Of the configuration that the incidents are found by: part of their evidence."""
        self.closed: deque[Document] = deque(maxlen=CLOSED_KEPT)
        """The last incidents that are over, the newest last."""
        self.keeps_windows = False
        """Whether somebody takes `windows` and stores them."""
        self.windows: deque[Window] = deque(maxlen=_WINDOWS_MOST)
        """The rows of incidents that are over and not stored yet."""
        self.windows_lost = 0
        """How many had to go before they were stored, since more came."""
        self._gateway = gateway
        self._boot = boot
        self._health = health
        self._begins = 0
        """Stream time at which the hour began."""
        self._hour: tuple[str, int] = (boot, 0)
        """What tells the hour from others, in ids: a restart knows when it began to the minute only."""
        self._zero = 0
        """The wall time of stream time 0, as it was told last."""
        self._told = 0
        self._summed = 0
        """How often what was merged within the hour has been told of."""
        self._merged: Counter[tuple[str, str, str]] = Counter()
        self._summaries: list[Event] = []
        self._kept = False
        """Whether there has ever been something to keep, which what there is now must replace."""

    def adjust(self, section: IncidentsSection, config_hash: str) -> None:
        """Go on as `section` says, under a configuration of this hash."""
        self.section = section
        self.config_hash = config_hash

    def admit(self, pipeline: str, kind: str, severity: Severity, *, at: int, utc: int) -> bool:
        """Whether one more incident may be told at stream time `at`, which is `utc`; if not, it is merged."""
        self._turn(at, utc)
        most = self.section.budget_per_hour
        if severity == "critical":
            most = max(most, self.section.critical_per_hour)
        if self._told < most:
            self._told += 1
            return True
        self._merged[pipeline, kind, severity] += 1
        if self._health is not None:
            text = f"{self._told} incidents were told within the hour; further ones are only counted"
            self._health.raise_condition("incidents.flood", self._gateway, text)
        return False

    def due(self, at: int, utc: int) -> list[Event]:
        """The summaries of hours that are over by `at`, which is `utc`, and in which something was merged."""
        self._turn(at, utc)
        events, self._summaries = self._summaries, []
        return events

    def flush(self) -> list[Event]:
        """The gateway ends: what was merged so far."""
        self._summarize()
        events, self._summaries = self._summaries, []
        return events

    def _turn(self, at: int, utc: int) -> None:
        self._zero = utc - at
        if at - self._begins < _HOUR:  # a pipeline that lags behind the others has their hour
            return
        self._summarize()
        self._begins += (at - self._begins) // _HOUR * _HOUR
        self._hour = (self._boot, self._begins)
        self._told = self._summed = 0
        if self._health is not None:
            self._health.clear("incidents.flood", self._gateway)

    def _summarize(self) -> None:
        if not self._merged:
            return
        merged, self._merged = self._merged, Counter()
        counts = [
            {"pipeline": pipeline, "kind": kind, "severity": severity, "count": count}
            for (pipeline, kind, severity), count in merged.most_common(_SUMMARY_MOST)
        ]
        end = self._begins + _HOUR + self._zero
        data = {
            "phase": "flood",
            "from_utc_ns": end - _HOUR,
            "until_utc_ns": end,
            "told": self._told,
            "merged": sum(merged.values()),
            "most": counts,
        }
        severe = any(severity in ("high", "critical") for _, _, severity in merged)
        id_ = identity(self._gateway, *self._hour, "flood", self._summed)
        self._summed += 1
        self._summaries.append(
            Event(
                id_, "dxad.incident.flood", f"/{self._gateway}", end, data, subject=id_,
                lane=Lane.CRITICAL if severe else Lane.NORMAL, at=self._begins + _HOUR,
            )
        )  # fmt: skip

    def close(self, told: Document, *, merged: bool) -> None:
        """Remember an incident that is over by what was told of it last."""
        self.reopen(told["incident"])  # a pipeline that another one has replaced may have told of its end
        self.closed.append({**told, "merged": merged})

    def reopen(self, incident: str) -> None:
        """It is not over after all, if it was."""
        for each in [each for each in self.closed if each["incident"] == incident]:
            self.closed.remove(each)

    def keep(self, window: Window) -> None:
        """Hand a window to whoever has a disk; without anybody, it is gone."""
        if self.keeps_windows:
            self.windows_lost += len(self.windows) == self.windows.maxlen
            self.windows.append(window)

    # -- restarts -----------------------------------------------------------------------------------------

    def save(self, utc: Callable[[int], int]) -> Document:
        """The hour so far, as JSON; `utc` tells the wall time of a stream time.

        The same as long as nothing is told, though clocks drift, so that it need not be written again; empty
        if nothing ever was.
        """
        begun = bool(self._told or self._summed or self._merged)
        self._kept |= begun
        if not self._kept:
            return {}
        return {
            "version": 1,
            "begins_utc_ns": utc(self._begins) // _MINUTE * _MINUTE if begun else 0,
            **({"hour": list(self._hour)} if begun else {}),
            "told": self._told,
            "summed": self._summed,
            "merged": [[*key, count] for key, count in sorted(self._merged.items())],
        }

    def restore(self, saved: Document, *, now: int, utc: int) -> None:
        """Take up what `save` has given, at the stream time `now`, which is `utc`, before the first row.

        An hour that is over by then is over: what was merged in it is told of by the next `due`. One that
        has yet to begin, since the wall clock is behind, begins now.

        Raises:
            ModelError: it is no such document.
        """
        if not saved:
            return
        try:
            version, gone = saved["version"], utc - saved["begins_utc_ns"]
            told, summed = int(saved["told"]), int(saved["summed"])
            merged = Counter({(str(a), str(b), str(c)): int(count) for a, b, c, count in saved["merged"]})
            begins = now - max(gone, 0)
            boot, began = saved.get("hour", (self._boot, begins))
            hour = str(boot), int(began)
            if hour[0] == self._boot and hour[1] <= now:
                begins = hour[1]
        except (KeyError, TypeError, ValueError) as error:
            raise ModelError(f"the state of the incidents' budget is damaged: {error!r}") from error
        if version != 1:
            raise ModelError("the state of the incidents' budget is of another version")
        self._kept = True
        self._begins, self._told, self._summed, self._merged = begins, told, summed, merged
        self._hour = hour
        self._turn(now, utc)
