"""What the outbox tells about itself: counters, conditions, a snapshot, an event about what was lost."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from dxad.event import Event, Told, identity, rfc3339, to_record
from dxad.outbox.drops import Drop, merged
from dxad.outbox.limits import Limits
from dxad.outbox.places import Backlog
from dxad.outbox.standing import Status
from dxad.runtime.clock import Clock
from dxad.runtime.health import Health
from dxad.runtime.metrics import Counter, Metrics
from dxad.types import Document, Lane, Record

__all__ = ["Report"]

_ROOM: Final = 0.9
"""The share of a quota below which it is full no more."""
_QUIET_NS: Final = 3600 * 10**9
"""Losses that are so long ago are an episode that is over, even if there is no room yet."""
_DAY_NS: Final = 86400 * 10**9
"""An episode that lasts is told of once a day."""
_SUBJECT: Final = "outbox"


class Report:
    """Counts what happens to records, and says what is wrong while it is."""

    def __init__(
        self,
        gateway: str | None,
        *,
        max_bytes: int,
        limits: Limits,
        health: Health,
        metrics: Metrics,
        clock: Clock,
    ) -> None:
        self._gateway = gateway
        self.status = Status({}, {}, {}, 0, 0, 0, None, ())
        self.max_bytes = max_bytes
        self.limits = limits
        self._health = health
        self._metrics = metrics
        self._clock = clock
        self._stored: dict[Lane, Counter] = {}
        self._lost: list[Drop] = []  # in the episode that lasts
        self._lost_at = 0
        self._salvaged: int | None = None

    def adopt(self, status: Status) -> None:
        """This is how the store is now, unless something newer was told already.

        What was asked is looked at a turn later than what was committed, which may be newer.
        """
        if status.number < self.status.number:
            return
        self.count_dead(status.damaged - self.status.damaged, sink="", reason="damaged")
        looked_at = (self.status.taken, self.status.written_per_day)
        self.status = status
        if (status.taken, status.written_per_day) != looked_at:
            self._look_at_disk(status)

    def _look_at_disk(self, status: Status) -> None:
        short = status.taken.short
        if short is None:
            self._health.clear("outbox.cramped", _SUBJECT, "there is room again")
        else:
            self._health.raise_condition("outbox.cramped", _SUBJECT, f"the disk is nearly full: {short}")
        budget, written = self.limits.wear_budget_bytes, status.written_per_day
        if budget and written is not None and written > budget:
            told = f"{_mib(written)} are written in a day; wear_budget is {_mib(budget)}"
            self._health.raise_condition("outbox.wear", _SUBJECT, told)
        else:
            self._health.clear("outbox.wear", _SUBJECT, "less is written now")

    def count_stored(self, fresh: Mapping[Lane, int]) -> None:
        """So many records have become durable."""
        for lane, n in fresh.items():
            counter = self._stored.get(lane)
            if counter is None:
                counter = self._metrics.counter("dxad_records_stored_total", lane=lane.name.lower())
                self._stored[lane] = counter
            counter.add(n)

    def count_dead(self, n: int, *, sink: str, reason: str) -> None:
        """So many records went to the dead letters."""
        if n:
            self._metrics.counter("dxad_records_dead_total", sink=sink, reason=reason).add(n)

    def count_lost(self, lost: Sequence[Drop]) -> None:
        """These were dropped; if none was, see whether the episode is over."""
        for each in lost:
            counter = self._metrics.counter("dxad_records_dropped_total", lane=each.what, reason=each.reason)
            counter.add(each.records)
        if lost:
            self._lost = merged([*self._lost, *lost])
            self._lost_at = self._clock.now()
            self._health.raise_condition("outbox.full", _SUBJECT, _told(self._lost))
        elif self._lost and self._over():
            self._health.clear("outbox.full", _SUBJECT, _told(self._lost))
            self._lost.clear()

    def telling(self) -> tuple[Record, Sequence[Drop]] | None:
        """The event about what was lost and is not told of, when it is time, and what it tells of.

        It is time when the episode is over, and once a day while it lasts. The id depends on the numbers, so
        that the same report is not stored twice.
        """
        gateway, untold = self._gateway, self.status.untold
        if gateway is None or not untold:
            return None
        now = self._clock.now()
        now_utc = self.status.boot.offset_ns + now
        since_utc = min(each.since_utc for each in untold)
        if self._lost and abs(now_utc - since_utc) < _DAY_NS:
            return None
        event = Event(
            id=identity(gateway, "outbox.dropped", *untold),
            type="dxad.outbox.dropped",
            source=f"/{gateway}/outbox",
            time_utc=now_utc,
            at=now,
            subject=_SUBJECT,
            lane=Lane.CRITICAL,  # or the quota might take it, too
            data={
                "records": sum(each.records for each in untold),
                "bytes": sum(each.bytes for each in untold),
                "since": rfc3339(since_utc),
                "lasting": bool(self._lost),
                "dropped": [
                    {
                        "lane": each.what,
                        "reason": each.reason,
                        "records": each.records,
                        "bytes": each.bytes,
                        "oldest": rfc3339(each.oldest_utc),
                        "newest": rfc3339(each.newest_utc),
                    }
                    for each in untold
                ],
            },
        )
        return to_record(event, Told(self.status.boot.id, self._clock.synchronised)), untold

    def rewound(self, sinks: Sequence[str]) -> Record | None:
        """The event about sinks that are offered all that is kept once more: their place was damaged."""
        data = {
            "sinks": list(sinks),
            "reason": "how far they were, or what they refused, was damaged on disk",
        }
        return self._event("rewound", data, self.status.boot.id, self._clock.now())

    def damaged(self, aside: Path) -> None:
        """A damaged file was set aside, and is being taken over from."""
        self._health.raise_condition("outbox.damaged", _SUBJECT, f"it was set aside as {aside}")

    def taken_over(self, aside: Path, counts: Mapping[str, int], verdict: str) -> Record | None:
        """The event about what was taken over from a damaged file; its verdict may be unknown."""
        self._health.clear("outbox.damaged", _SUBJECT, f"{counts['taken_over']} records were taken over")
        self._metrics.counter("dxad_records_salvaged_total").add(counts["taken_over"])
        self._salvaged = counts["taken_over"]
        data = {
            "set_aside": aside.name,
            "reason": verdict or "what was wrong was seen by an earlier run",
            "taken_over": counts["taken_over"],
            "delivered_before": counts["delivered"],
            "damaged": counts["damaged"],
            "damaged_log_frames": counts["frames"],
            "missing_bytes": counts["missing_bytes"],
            "complete": bool(counts["complete"]),
        }
        return self._event("salvaged", data, aside.name)

    def _event(self, kind: str, data: Document, *told_apart_by: str | int) -> Record | None:
        """What damage has led to, as an event; None where the gateway has no name."""
        if self._gateway is None:
            return None
        now = self._clock.now()
        event = Event(
            id=identity(self._gateway, f"outbox.{kind}", *told_apart_by),
            type=f"dxad.outbox.{kind}",
            source=f"/{self._gateway}/outbox",
            time_utc=self.status.boot.offset_ns + now,
            at=now,
            subject=_SUBJECT,
            lane=Lane.CRITICAL,
            data=data,
        )
        return to_record(event, Told(self.status.boot.id, self._clock.synchronised))

    def degraded(self, reason: str) -> None:
        """The disk does not take records."""
        self._health.raise_condition("outbox.degraded", _SUBJECT, reason)

    def healed(self, held: int) -> None:
        """It does again; so many were held in memory."""
        self._health.clear("outbox.degraded", _SUBJECT, f"{held} records were held in memory")

    def snapshot(self) -> dict[str, Any]:
        """The store as a JSON object."""
        status = self.status
        dropped = self._metrics.sums("dxad_records_dropped_total", "lane", "reason")
        by_lane: dict[str, int] = {}
        for (lane, _), n in dropped.items():
            by_lane[lane] = by_lane.get(lane, 0) + n
        return {
            "stored": {lane.name.lower(): status.stored.get(lane, 0) for lane in Lane},
            "lane_bytes": {lane.name.lower(): status.sizes.get(lane, 0) for lane in Lane},
            "sinks": {name: self._backlog(each) for name, each in status.sinks.items()},
            "bytes": status.bytes,
            "max_bytes": self.max_bytes,
            "dropped": by_lane,
            "dropped_for": [
                {"lane": lane, "reason": reason, "records": n} for (lane, reason), n in dropped.items()
            ],
            "dead_letters": status.dead_letters,
            "written_per_day": status.written_per_day,
            "wear_budget": self.limits.wear_budget_bytes or None,
            "reserved": status.taken.reserved,
            "ballast": status.taken.ballast,
            "salvaged": self._salvaged,
            "set_aside": None if status.set_aside is None else str(status.set_aside),
        }

    def _over(self) -> bool:
        if self._clock.now() - self._lost_at >= _QUIET_NS:
            return True
        return not any(each.reason == "age" for each in self._lost) and self._is_room()

    def _is_room(self) -> bool:
        """Whether the file, and each lane with a quota of its own, is well below it."""
        fills = [(self.status.bytes, self.max_bytes)] + [
            (self.status.sizes.get(lane, 0), limits.max_bytes)
            for lane, limits in self.limits.lanes.items()
            if limits.max_bytes is not None
        ]
        return all(size < _ROOM * most for size, most in fills)

    def _backlog(self, backlog: Backlog) -> dict[str, Any]:
        now_utc = self.status.boot.offset_ns + self._clock.now()
        oldest = backlog.oldest_utc
        return {
            "pending": backlog.pending,
            "refused": backlog.refused,
            "oldest_s": None if oldest is None else max(0, now_utc - oldest) / 1e9,
        }


def _told(drops: Sequence[Drop]) -> str:
    return "dropped " + ", ".join(f"{each.records} {each.what} ({each.reason})" for each in drops)


def _mib(size: int) -> str:
    return f"{size / 2**20:,.0f} MiB"
