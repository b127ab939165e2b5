"""What leaves the file: what is delivered, too old, or too much. None of these ends a transaction.

The order, when the file is full: first what every sink has and is kept for replay only, then dead letters,
then the oldest of the least important lane. Only the last two are losses.
"""

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from dxad.outbox import segments, tables
from dxad.outbox.database import used_bytes
from dxad.outbox.drops import Drop, Why
from dxad.outbox.limits import Limits
from dxad.types import UNKNOWN_BOOT, Boot, Lane

__all__ = ["Gone", "Retention", "Span"]

_CHUNK: Final = 256
"""How many rows one step looks at, so that none is long."""
_SEGMENTS: Final = 16
"""How many segments: each stands on a page of its own."""
_SPARE_PARTS: Final = 256
"""The part of the quota that is freed besides, of what is delivered and of bulk: so not at each commit."""
_END: Final = 2**63 - 1
_SPARED: Final = " AND seq NOT IN (SELECT seq FROM refusals) AND seq NOT IN (SELECT seq FROM leases)"


class Span(NamedTuple):
    """Records that went, with all seqs between two; a single one is a span, too."""

    first: int
    last: int

    @property
    def records(self) -> int:
        """How many."""
        return self.last - self.first + 1


class _Item(NamedTuple):
    """A row or a segment."""

    first: int
    last: int
    bytes: int
    boot: int
    at_ns: int


@dataclass(slots=True)
class Gone:
    """What left the file in one commit."""

    records: dict[Lane, int] = field(default_factory=dict)
    """How many of each lane, for whatever reason."""
    bytes: dict[Lane, int] = field(default_factory=dict)
    spans: dict[Lane, list[Span]] = field(default_factory=dict)
    """Those of them that not every sink had."""
    drops: list[Drop] = field(default_factory=list)
    """The losses, dead letters with them."""
    used_bytes: int = 0
    replaced: dict[Lane, list[Span]] = field(default_factory=dict)
    """What newer records have made void, whether delivered or not."""
    more: bool = False
    """Whether another look may find more that is too old."""

    def note(self, lane: Lane, records: int, size: int) -> None:
        """So many more."""
        self.records[lane] = self.records.get(lane, 0) + records
        self.bytes[lane] = self.bytes.get(lane, 0) + size


@dataclass(slots=True)
class Retention:
    """One look at what has to leave: before the commit that it is part of."""

    connection: sqlite3.Connection
    boots: Mapping[int, Boot]
    floors: Mapping[Lane, int]
    """By lane, the seq up to which every sink has everything, but for what it refused or has on lease."""
    boot: Boot
    """The one that runs now, as it is known."""
    now_ns: int
    """Its stream time."""
    gone: Gone = field(default_factory=Gone)

    def trim(self, lane: Lane) -> None:
        """Delete what is delivered."""
        self._delete(lane, self.floors[lane], spare=True)

    def replace(self, start: str) -> None:
        """Of the records whose ids begin alike, delete those that the newest makes void: that is no loss.

        Those that every sink has stay, as all do that were delivered, and those that are out on lease.
        """
        rows = self.connection.execute(
            "SELECT seq, lane, size, seq IN (SELECT seq FROM refusals) FROM records"
            " WHERE id >= ?1 AND id < ?1 || char(1114111) AND seq NOT IN (SELECT seq FROM leases)"
            " ORDER BY seq",
            (start,),
        ).fetchall()
        for seq, number, size, refused in rows[:-1]:
            lane = Lane(number)
            if refused or seq > self.floors[lane]:
                self.connection.execute("DELETE FROM records WHERE seq = ?", (seq,))
                self.gone.note(lane, 1, size + tables.ROW_BYTES)
                self.gone.replaced.setdefault(lane, []).append(Span(seq, seq))
        if self.gone.replaced:
            tables.delete_orphans(self.connection)

    def expire(self, limits: Limits) -> None:
        """Delete what was delivered and kept for long enough, and what is too old for its lane."""
        for lane in Lane:
            if self.floors[lane]:
                self._take(lane, self.floors[lane], self._older_than(limits.keep_ns))
            of_lane = limits.lanes.get(lane)
            if of_lane is not None and of_lane.max_age_ns is not None:
                self._take(lane, _END, self._older_than(of_lane.max_age_ns), why="age")

    def fit_lanes(self, sizes: Mapping[Lane, int], limits: Limits) -> None:
        """Delete until each lane is within its own quota.

        Args:
            sizes: by lane, how many bytes it took before this look.
            limits: of the lanes.
        """
        for lane, of_lane in limits.lanes.items():
            if of_lane.max_bytes is not None:
                spare = of_lane.max_bytes // _SPARE_PARTS * (lane is Lane.BULK)
                while (excess := self._size(lane, sizes) - of_lane.max_bytes) > 0:
                    if not self._free(lane, excess + spare, "lane_quota"):
                        break

    def fit(self, max_bytes: int, *, why: Why = "quota", most: Lane = Lane.CRITICAL) -> None:
        """Delete until the file has `max_bytes` in use; nothing that is more important than lane `most`."""
        lanes = [lane for lane in reversed(Lane) if lane >= most]
        spare = max_bytes // _SPARE_PARTS
        while (used := used_bytes(self.connection)) > max_bytes:
            excess = used - max_bytes
            if not (
                any(self._free_delivered(lane, excess + spare) for lane in reversed(Lane))
                or self._bury_for_good()
                or any(self._free(lane, excess + spare * (lane is Lane.BULK), why) for lane in lanes)
            ):
                break
        self.gone.used_bytes = used

    def _older_than(self, age_ns: int) -> Callable[[_Item, int], bool]:
        return lambda item, _: self._age(item) > age_ns

    def _age(self, item: _Item) -> int:
        """For how long something has been there at least, by clocks that nobody can set.

        Of what another boot has left, the wall clock tells, if it was kept right then and is now; else it is
        as old as this boot, and may be older.
        """
        boot = self.boots.get(item.boot, UNKNOWN_BOOT)
        if boot.id == self.boot.id:
            return self.now_ns - item.at_ns
        if boot.clock_ok and self.boot.clock_ok:
            return self._now_utc - self._utc(item)
        return self.now_ns

    @property
    def _now_utc(self) -> int:
        return self.boot.offset_ns + self.now_ns

    def _size(self, lane: Lane, sizes: Mapping[Lane, int]) -> int:
        return sizes.get(lane, 0) - self.gone.bytes.get(lane, 0)

    def _free_delivered(self, lane: Lane, excess: int) -> bool:
        floor = self.floors[lane]
        return bool(floor) and self._take(lane, floor, lambda _, freed: freed < excess)

    def _free(self, lane: Lane, excess: int, why: Why) -> bool:
        return self._free_delivered(lane, excess) or self._take(
            lane, _END, lambda _, freed: freed < excess, why=why
        )

    def _bury_for_good(self) -> bool:
        if not self.connection.execute("SELECT EXISTS (SELECT 1 FROM dead_letters)").fetchone()[0]:
            return False
        letters = self.connection.execute(
            "DELETE FROM dead_letters"
            " WHERE number IN (SELECT number FROM dead_letters ORDER BY number LIMIT ?)"
            " RETURNING length(body), boot, at_ns, records",
            (_CHUNK,),
        ).fetchall()
        if letters:
            times = [self._at(boot, at_ns) for _, boot, at_ns, _ in letters]
            size = sum(each[0] for each in letters)
            records = sum(each[3] for each in letters)
            self._note_drop("dead_letter", "quota", records, size, times)
        return bool(letters)

    def _take(
        self, lane: Lane, through: int, more: Callable[[_Item, int], bool], *, why: Why | None = None
    ) -> bool:
        """Delete the oldest of a lane, up to a seq, as long as `more` says so of each and what was freed.

        Without `why` they are delivered: no loss, and what was refused or leased is spared.
        """
        taken: list[_Item] = []
        freed = 0
        for item in self._oldest(lane, through, spare=why is None):
            if not more(item, freed):
                break
            taken.append(item)
            freed += item.bytes
        if not taken:
            return False
        self.gone.more |= len(taken) >= _SEGMENTS
        self._delete(lane, taken[-1].last, spare=why is None)
        if why is not None:
            spans = [Span(each.first, each.last) for each in taken]
            self.gone.spans.setdefault(lane, []).extend(spans)
            times = [self._utc(each) for each in taken]
            self._note_drop(lane.name.lower(), why, sum(each.records for each in spans), freed, times)
        return True

    def _oldest(self, lane: Lane, through: int, *, spare: bool) -> Sequence[_Item]:
        items = [
            _Item(*row)
            for row in self.connection.execute(
                f"SELECT seq, seq, size + ?, boot, at_ns FROM records WHERE lane = ? AND seq <= ?"  # noqa: S608
                f"{_SPARED if spare else ''} ORDER BY seq LIMIT ?",
                (tables.ROW_BYTES, lane, through, _CHUNK),
            )
        ]
        if lane is not Lane.BULK:
            return items
        bulk = [
            _Item(*row)
            for row in self.connection.execute(
                "SELECT last - count + 1, last, length(body) + ?, boot, at_ns FROM segments"
                " WHERE last <= ? ORDER BY last LIMIT ?",
                (segments.SEGMENT_BYTES, through, _SEGMENTS),
            )
        ]
        if len(bulk) == _SEGMENTS:  # between the next ones there may be rows
            items = [each for each in items if each.last <= bulk[-1].last]
        return sorted([*items, *bulk], key=lambda item: item.last)[:_CHUNK]

    def _delete(self, lane: Lane, through: int, *, spare: bool) -> None:
        rows = self.connection.execute(
            f"DELETE FROM records WHERE lane = ? AND seq <= ?{_SPARED if spare else ''}"  # noqa: S608
            " RETURNING size",
            (lane, through),
        ).fetchall()
        self.gone.note(lane, len(rows), sum(size for (size,) in rows) + len(rows) * tables.ROW_BYTES)
        if lane is Lane.BULK:
            self._delete_segments(through, spare=spare)
        if not spare:
            tables.delete_orphans(self.connection)

    def _delete_segments(self, through: int, *, spare: bool) -> None:
        """Delete the segments that end at or before a seq; what is spared stays, as rows."""
        found = segments.extent(self.connection, through)
        if found is None:
            return
        kept = [self._take_out(seq) for seq in self._spared(found.first, found.last)] if spare else []
        self.connection.execute("DELETE FROM segments WHERE last <= ?", (found.last,))
        self.gone.note(Lane.BULK, found.records - sum(map(bool, kept)), found.bytes - sum(kept))

    def _spared(self, first: int, last: int) -> list[int]:
        rows = self.connection.execute(
            "SELECT seq FROM refusals WHERE seq BETWEEN ?1 AND ?2"
            " UNION SELECT seq FROM leases WHERE seq BETWEEN ?1 AND ?2",
            (first, last),
        )
        return [seq for (seq,) in rows]

    def _take_out(self, seq: int) -> int:
        """Make one record of a segment a row; returns how many bytes that takes, 0 if it is in none."""
        segment = segments.covering(self.connection, seq)
        if segment is None or seq < segment.first or not segment.sound:
            return 0
        (record,) = segment.opened(UNKNOWN_BOOT).following(seq - 1, 1)
        tables.insert(self.connection, [record], seq, segment.boot)
        return len(record.body) + tables.ROW_BYTES

    def _utc(self, item: _Item) -> int:
        return self._at(item.boot, item.at_ns)

    def _at(self, boot: int, at_ns: int) -> int:
        return self.boots.get(boot, UNKNOWN_BOOT).offset_ns + at_ns

    def _note_drop(
        self,
        what: str,
        why: Why,
        records: int,
        size: int,
        times: Sequence[int],
    ) -> None:
        self.gone.drops.append(Drop(what, why, records, size, min(times), max(times), self._now_utc))
