"""What the outbox tells about itself: counters, conditions, a snapshot."""

from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

from dxad.outbox.places import Backlog
from dxad.outbox.store import Status
from dxad.runtime.clock import Clock
from dxad.runtime.health import Health
from dxad.runtime.metrics import Metrics
from dxad.types import Lane

__all__ = ["Report"]

_ROOM: Final = 0.9
"""The share of the quota below which the outbox is full no more."""
_SUBJECT: Final = "outbox"


class Report:
    """Counts what happens to records, and says what is wrong while it is."""

    def __init__(self, *, max_bytes: int, health: Health, metrics: Metrics, clock: Clock) -> None:
        self.status = Status({}, {}, 0, 0, 0, None)
        self.max_bytes = max_bytes
        self._health = health
        self._metrics = metrics
        self._clock = clock
        self._lost: Counter[str] = Counter()  # since the outbox is full

    def adopt(self, status: Status) -> None:
        """This is how the store is now."""
        self.count_dead(status.damaged - self.status.damaged, sink="", reason="damaged")
        self.status = status

    def count_stored(self, fresh: Mapping[Lane, int]) -> None:
        """So many records have become durable."""
        for lane, n in fresh.items():
            self._metrics.counter("dxad_records_stored_total", lane=lane.name.lower()).add(n)

    def count_dead(self, n: int, *, sink: str, reason: str) -> None:
        """So many records went to the dead letters."""
        if n:
            self._metrics.counter("dxad_records_dead_total", sink=sink, reason=reason).add(n)

    def count_lost(self, lost: Mapping[str, int]) -> None:
        """So many were dropped, by lane or as `dead_letter`; if none was, see whether there is room again."""
        for what, n in lost.items():
            self._metrics.counter("dxad_records_dropped_total", lane=what).add(n)
        self._lost.update(lost)
        told = "dropped " + ", ".join(f"{n} {what}" for what, n in self._lost.items())
        if lost:
            self._health.raise_condition("outbox.full", _SUBJECT, told)
        elif self._lost and self.status.bytes < _ROOM * self.max_bytes:
            self._health.clear("outbox.full", _SUBJECT, told)
            self._lost.clear()

    def degraded(self, reason: str) -> None:
        """The disk does not take records."""
        self._health.raise_condition("outbox.degraded", _SUBJECT, reason)

    def healed(self, held: int) -> None:
        """It does again; so many were held in memory."""
        self._health.clear("outbox.degraded", _SUBJECT, f"{held} records were held in memory")

    def snapshot(self) -> dict[str, Any]:
        """The store as a JSON object."""
        status = self.status
        return {
            "stored": {lane.name.lower(): status.stored.get(lane, 0) for lane in Lane},
            "sinks": {name: self._backlog(each) for name, each in status.sinks.items()},
            "bytes": status.bytes,
            "max_bytes": self.max_bytes,
            "dropped": self._metrics.by_label("dxad_records_dropped_total", "lane"),
            "dead_letters": status.dead_letters,
            "set_aside": None if status.set_aside is None else str(status.set_aside),
        }

    def _backlog(self, backlog: Backlog) -> dict[str, Any]:
        now_utc = self._clock.utc(self._clock.now())
        oldest = backlog.oldest_utc
        return {
            "pending": backlog.pending,
            "refused": backlog.refused,
            "oldest_s": None if oldest is None else max(0, now_utc - oldest) / 1e9,
        }
