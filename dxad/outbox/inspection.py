"""Looks into the outbox's tables over a connection: the daemon's own, or a read-only one of a stopped daemon.

Nothing here writes. Each call looks at a bounded number of records, so that commits need not wait for it; who
wants more comes back with `next`.
"""

import sqlite3
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Self

import msgpack

from dxad import event
from dxad.errors import ConfigError
from dxad.outbox import segments, tables
from dxad.outbox.boots import Boots
from dxad.outbox.leasing import PREFIX
from dxad.outbox.reading import Reading
from dxad.outbox.segments import Segment
from dxad.selection import EVERYTHING, Selection
from dxad.types import UNKNOWN_BOOT, Document, Lane, Record

__all__ = ["Inspection", "LetterWanted", "Page", "Wanted", "event_of", "there_are"]

_AT_ONCE: Final = 256
_SCANNED_MOST: Final = 2048
"""Records that one call looks at."""
_BYTES_MOST: Final = 192 * 2**10
"""Of bodies, in one answer: the control socket streams no larger ones."""
_LETTERS: Final = "number, seq, sink, lane, id, body, reason, at_utc, boot, at_ns, attempts, records"


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which records."""

    lanes: frozenset[Lane] = frozenset(Lane)
    selection: Selection = EVERYTHING
    since_utc: int | None = None
    until_utc: int | None = None
    sink: str = ""
    """Only what this sink does not have yet."""

    @classmethod
    def of(
        cls,
        *,
        lanes: Sequence[str] = (),
        selection: Selection = EVERYTHING,
        since: int | None = None,
        until: int | None = None,
        sink: str = "",
        now_utc: int,
    ) -> Self:
        """What is asked for by names, none being all; a time below 0 is so long before `now_utc`."""
        since, until = (each if each is None or each >= 0 else now_utc + each for each in (since, until))
        return cls(
            frozenset(Lane[each.upper()] for each in lanes) or frozenset(Lane),
            selection, since, until, sink,
        )  # fmt: skip

    def takes(self, record: Record) -> bool:
        """Whether it is one of them, as far as can be told without reading its body."""
        utc = record.utc_ns
        return (self.since_utc is None or utc >= self.since_utc) and (
            self.until_utc is None or utc < self.until_utc
        )


@dataclass(frozen=True, slots=True)
class LetterWanted:
    """Which dead letters; all if nothing is said."""

    numbers: tuple[int, ...] = ()
    sink: str | None = None
    reason: str = ""
    """A part of it, in any case."""

    @property
    def where(self) -> tuple[str, list[object]]:
        """The condition in SQL, and its values."""
        parts, values = ["1"], list[object](self.numbers)
        if self.numbers:
            parts.append(f"number IN ({', '.join('?' * len(self.numbers))})")
        if self.sink is not None:
            parts.append("sink = ?")
            values.append(self.sink)
        if self.reason:
            parts.append("instr(lower(reason), lower(?))")
            values.append(self.reason)
        return " AND ".join(parts), values


@dataclass(slots=True)
class Page:
    """Some of what was asked for."""

    found: list[Document] = field(default_factory=list)
    next: int | None = None
    """The seq after which to go on; None at the end."""
    damaged: int = 0
    """Records that were passed over because their checksum does not fit."""


class Inspection:
    """Answers from the tables as they are now."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._boots = Boots()
        self._boots.load(connection)
        self._reading = Reading(self._boots)

    # -- records ------------------------------------------------------------------------------------------

    def page(self, wanted: Wanted, *, after: int = 0, limit: int = 50, whole: bool = False) -> Page:
        """The next records, the oldest first, and who lacks each.

        Args:
            wanted: which.
            after: the seq to begin behind; below 0, so many from the end.
            limit: how many at most.
            whole: with the event itself.

        Raises:
            ConfigError: there is no such sink.
        """
        if after < 0:
            after = max(0, tables.newest(self._connection) + after)
        standing = _Standing(self._connection)
        if wanted.sink and wanted.sink not in standing.passed:
            raise ConfigError(f"no sink {wanted.sink!r}; {there_are(standing.passed)}")

        def tell(record: Record, found: Document) -> Document:
            return _told(record, found, standing, whole=whole)

        return self._page(wanted, standing, tell, after=after, limit=limit, whole=whole)

    def events(self, wanted: Wanted, *, after: int, limit: int) -> Page:
        """The next events with their `seq`, the oldest first; `wanted` names no sink."""

        def tell(record: Record, found: Document) -> Document:
            return {"seq": record.seq, "event": found}

        return self._page(wanted, None, tell, after=after, limit=limit, whole=True)

    def _page(
        self,
        wanted: Wanted,
        standing: "_Standing | None",
        tell: Callable[[Record, Document], Document],
        *,
        after: int,
        limit: int,
        whole: bool,
    ) -> Page:
        page = Page()
        scanned = size = 0
        while scanned < _SCANNED_MOST:
            stretch, through = self._stretch(wanted, standing, after, page)
            for record in stretch:
                scanned, after = scanned + 1, record.seq
                if not wanted.takes(record):
                    continue
                found = event_of(record)
                if not wanted.selection.takes(found):
                    continue
                page.found.append(tell(record, found))
                size += len(record.body) if whole else _AT_ONCE
                if len(page.found) >= limit or size > _BYTES_MOST:
                    page.next = after
                    return page
            if through is None:
                return page
            after = through
        page.next = after
        return page

    def _stretch(
        self, wanted: Wanted, standing: "_Standing | None", after: int, page: Page
    ) -> tuple[list[Record], int | None]:
        """All records after a seq through another one, which is None at the end."""
        found: list[Record] = []
        bounds: list[int] = []
        for lane in wanted.lanes:
            begin = after
            if wanted.sink and standing is not None:
                passed = standing.passed.get(wanted.sink, {}).get(lane)
                if passed is None:
                    continue
                begin = max(after, passed)
            some = self._reading.following(self._connection, lane, begin, _AT_ONCE)
            for each in some.damaged:
                page.damaged += each.count if isinstance(each, Segment) else 1
                if isinstance(each, Segment):
                    bounds.append(each.last)
            if len(some.sound) >= _AT_ONCE:
                bounds.append(some.sound[-1].seq)
            found += some.sound
        through = min(bounds, default=None)
        if through is not None:
            found = [each for each in found if each.seq <= through]
        return sorted(found, key=lambda each: each.seq), through

    def record(self, id_: str) -> Document | None:
        """The record of this id, whole; None if it is not there, or damaged."""
        row = self._connection.execute("SELECT seq FROM records WHERE id = ?", (id_,)).fetchone()
        if row is None:
            stream, _, ordinal = id_.rpartition("-")
            if not ordinal.isdecimal():
                return None
            row = self._connection.execute(
                "SELECT last - count + 1 + ?2 - ordinal FROM segments"
                " WHERE stream = ?1 AND ordinal <= ?2 AND ordinal + count > ?2",
                (stream, int(ordinal)),
            ).fetchone()
        sound = [] if row is None else self._reading.these(self._connection, row).sound
        if not sound:
            return None
        return _told(sound[0], event_of(sound[0]), _Standing(self._connection), whole=True)

    def span(self, wanted: Wanted, lane: Lane, through: int) -> tuple[int, int] | None:
        """First and last seq of what is wanted of a lane, up to and with a seq; None if there is none."""
        first = last = after = 0
        while after < through:
            some = self._reading.following(self._connection, lane, after, _AT_ONCE)
            seqs = [each.seq for each in some.sound if each.seq <= through and wanted.takes(each)]
            if seqs:
                first, last = first or seqs[0], seqs[-1]
            ends = [each.last if isinstance(each, Segment) else each.seq for each in some.damaged]
            if not some.sound and not ends:
                break
            after = max([*ends, *(each.seq for each in some.sound)])
        return (first, last) if first else None

    # -- what there is ------------------------------------------------------------------------------------

    def overview(self) -> Document:
        """Everything in numbers; times are UTC ns."""
        stored = tables.totals(self._connection)
        bulk = segments.totals(self._connection)
        lane_of = stored.get(Lane.BULK, (0, 0))
        stored[Lane.BULK] = lane_of[0] + bulk.records, lane_of[1] + bulk.bytes
        standing = _Standing(self._connection)
        return {
            "lanes": {
                lane.name.lower(): {
                    "stored": stored.get(lane, (0, 0))[0],
                    "bytes": stored.get(lane, (0, 0))[1],
                    "delivered": self._count(lane, 0, standing.floor(lane)),
                    "oldest_utc_ns": self._oldest(lane, 0),
                }
                for lane in Lane
            },
            "sinks": {
                name: {
                    "pending": sum(self._count(*each) for each in passed.items())
                    + len(standing.refused[name]),
                    "refused": 0 if name.startswith(PREFIX) else len(standing.refused[name]),
                    "leased": len(standing.refused[name]) if name.startswith(PREFIX) else 0,
                    "oldest_utc_ns": min(
                        (at for each in passed.items() if (at := self._oldest(*each)) is not None),
                        default=None,
                    ),
                }
                for name, passed in standing.passed.items()
            },
            "dead_letters": self._dead_letters(),
        }

    def _dead_letters(self) -> list[Document]:
        rows = self._connection.execute(
            "SELECT sink, reason, count(*), sum(records), min(at_utc), max(at_utc) FROM dead_letters"
            " GROUP BY sink, reason ORDER BY count(*) DESC LIMIT 50"
        )
        keys = ("sink", "reason", "letters", "records", "first_utc_ns", "last_utc_ns")
        return [dict(zip(keys, row, strict=True)) for row in rows]

    def _count(self, lane: Lane, after: int, through: int | None = None) -> int:
        rows = tables.count_between(self._connection, lane, after, through)
        if lane is Lane.BULK:
            rows += segments.count_between(self._connection, after, through)
        return rows

    def _oldest(self, lane: Lane, after: int) -> int | None:
        """When the first record of a lane after a seq happened."""
        found = [tables.oldest(self._connection, lane, after)]
        if lane is Lane.BULK:
            head = segments.oldest(self._connection, after)
            found.append(None if head is None else (head.first, head.boot, head.at_ns))
        first = min((each for each in found if each is not None), default=None)
        return None if first is None else self._boots.get(first[1], UNKNOWN_BOOT).offset_ns + first[2]

    # -- dead letters -------------------------------------------------------------------------------------

    def letters(
        self, wanted: LetterWanted, *, after: int = 0, limit: int = 50, whole: bool = False
    ) -> tuple[list[Document], int | None]:
        """Dead letters by their number, the oldest first; and the number after which to go on."""
        where, values = wanted.where
        rows = self._connection.execute(
            f"SELECT {_LETTERS} FROM dead_letters WHERE {where} AND number > ? ORDER BY number LIMIT ?",  # noqa: S608
            (*values, after, min(limit, _AT_ONCE) + 1),
        ).fetchall()
        found = [self._letter(row, whole=whole) for row in rows[: min(limit, _AT_ONCE)]]
        return found, found[-1]["number"] if len(rows) > len(found) else None

    def _letter(self, row: Sequence[Any], *, whole: bool) -> Document:
        of = dict(zip(_LETTERS.split(", "), row, strict=True))
        boot = self._boots.get(of["boot"], UNKNOWN_BOOT)
        record = Record(of["id"], Lane(of["lane"]), of["body"], of["seq"], boot, of["at_ns"])
        told = event_of(record)
        return {
            "number": of["number"],
            "sink": of["sink"],
            "reason": of["reason"],
            "attempts": of["attempts"],
            "records": of["records"],
            "at": event.rfc3339(of["at_utc"]),
            "lane": record.lane.name.lower(),
            "id": record.id,
            "type": str(told.get("type", "")),
            "time": event.rfc3339(record.utc_ns),
            **({"event": told} if whole else {}),
        }


def there_are(names: Collection[str]) -> str:
    """What there is instead, in words; a pull consumer's name has its prefix."""
    return f"there are {', '.join(sorted(names))}" if names else "there are none"


class _Standing:
    """Who has what, as the file says."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.passed: dict[str, dict[Lane, int]] = {}
        for sink, lane, seq in tables.places(connection):
            self.passed.setdefault(sink, {})[lane] = seq
        self.refused = self._by_sink(connection, "SELECT sink, seq FROM refusals")

    def _by_sink(self, connection: sqlite3.Connection, sql: str) -> Mapping[str, Collection[int]]:
        found: dict[str, set[int]] = {name: set() for name in self.passed}
        for sink, seq in connection.execute(sql):
            found.setdefault(sink, set()).add(seq)
        return found

    def floor(self, lane: Lane) -> int:
        """The seq up to which all who carry the lane are done."""
        return min((each[lane] for each in self.passed.values() if lane in each), default=0)

    def owed(self, record: Record) -> Iterator[tuple[str, str]]:
        """Who does not have a record yet, and how that stands."""
        for sink, passed in self.passed.items():
            if record.seq in self.refused[sink]:
                yield sink, "leased" if sink.startswith(PREFIX) else "refused"
            elif passed.get(record.lane, record.seq) < record.seq:
                yield sink, "waiting"


def _told(record: Record, told: Document, standing: _Standing, *, whole: bool) -> Document:
    return {
        "seq": record.seq,
        "lane": record.lane.name.lower(),
        "id": record.id,
        "type": str(told.get("type", "")),
        "subject": str(told.get("subject", "")),
        "time": event.rfc3339(record.utc_ns),
        "bytes": len(record.body),
        "owed": dict(standing.owed(record)),
        **({"event": told} if whole else {}),
    }


def event_of(record: Record) -> Document:
    """The CloudEvent; what is none is told as such, since an inspection has to go on."""
    try:
        return event.decode(record)
    except (ValueError, AssertionError, msgpack.UnpackException):
        return {"type": "", "unreadable": record.body[:64].hex()}
