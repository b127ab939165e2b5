"""What a load was promised, by its marks, and whether an outbox that was opened again keeps it.

The promise: a record whose append resolved is there for every sink that carries its lane and does not have
it; whole, in order within its lane, refused and dead ones included. What a quota took are the oldest of the
least important lane, and no more than was reported.
"""

import asyncio
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from dxad.outbox import Outbox
from dxad.outbox.leasing import PREFIX
from dxad.runtime.metrics import Metrics
from dxad.types import Lane, Record
from tests.durability.load import ATTEMPTS, SINKS, body_of, make, name_of
from tests.patience import PATIENCE_S

__all__ = ["Found", "Ledger", "look", "verdict"]

_UNTOLD: Final = 400
"""So many may have been dropped by a round with a quota that was killed before it could say so."""


@dataclass
class Ledger:
    """What the marks say, up to where they were read."""

    appended: dict[str, int] = field(default_factory=dict)
    """By name, in which place of the order."""
    stored: dict[str, int] = field(default_factory=dict)
    """By name, the seq it was promised under; 0 where it was not told."""
    gone: set[str] = field(default_factory=set)
    had: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    refused: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    done: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    """By pull consumer, what its acks have made durable."""
    ids: dict[str, str] = field(default_factory=dict)
    """By name, under which id it was delivered."""
    faults: list[str] = field(default_factory=list)
    """What is wrong already by the marks."""
    dropped: int = 0
    dropped_letters: int = 0
    quota: bool = False
    killed: int = 0
    """Rounds with a quota that never ended."""
    late_ms: int = 0
    _round: tuple[int, int] = (0, 0)
    _open: bool = False

    def read(self, line: str) -> None:
        """Take one mark into account."""
        what, *words = line.split()
        match what, words:
            case "append", names:
                for each in names:
                    self.appended[each] = len(self.appended)
            case "stored", [seq, *names, last]:
                self.stored |= dict.fromkeys(names, 0) | {last: int(seq)}
            case "gone", names:
                self.gone.update(names)
            case "had", [sink, *told]:
                self.had[sink].update(self._identify(told))
            case "refused", [sink, *told]:
                self.refused[sink].update(self._identify(told))
            case "done", [sink, *names]:
                self.done[sink].update(names)
            case "dropped", [records, letters]:
                self.dropped += int(records) - self._round[0]
                self.dropped_letters += int(letters) - self._round[1]
                self._round = int(records), int(letters)
            case "tick", [ms]:
                self.late_ms = max(self.late_ms, int(ms))
            case _:
                self._read_frame(what, words)

    def _read_frame(self, what: str, words: list[str]) -> None:
        match what, words:
            case "began", [_, quota]:
                self.killed += self._open
                self._open, self._round = quota == "quota", (0, 0)
                self.quota |= self._open
            case "ended", _:
                self._open = False

    def _identify(self, told: Iterable[str]) -> list[str]:
        names = []
        for each in told:
            name, id_ = each.split("=")
            if self.ids.setdefault(name, id_) != id_:
                self.faults.append(f"{name} was delivered as {self.ids[name]} and as {id_}")
            names.append(name)
        return names

    def copy(self) -> "Ledger":
        """As it is now."""
        return Ledger(
            dict(self.appended), dict(self.stored), set(self.gone),
            defaultdict(set, {sink: set(each) for sink, each in self.had.items()}),
            defaultdict(Counter, {sink: Counter(each) for sink, each in self.refused.items()}),
            defaultdict(set, {sink: set(each) for sink, each in self.done.items()}),
            dict(self.ids), list(self.faults), self.dropped, self.dropped_letters, self.quota,
            self.killed + self._open, self.late_ms,
        )  # fmt: skip

    @classmethod
    def of(cls, marks: Path) -> "Ledger":
        """All marks of a file."""
        ledger = cls()
        for line in marks.read_text().splitlines():
            ledger.read(line)
        return ledger.copy()


@dataclass
class Found:
    """What an outbox had when it was opened again."""

    set_aside: str | None
    degraded: str | None
    offered: dict[str, list[Record]]
    """By sink: what it is offered as new."""
    refused: dict[str, list[Record]]
    """By sink: what it is offered again."""
    dead: dict[str, dict[str, bytes]]
    """By sink and name."""
    damaged: int


async def look(path: Path, *, whole: bool = True) -> Found:
    """Open an outbox as a daemon does, see what it has, and try whether it works.

    `whole` says that the file has to be sound; else there may be damage in it that nobody has come across.

    Raises:
        AssertionError: it does not work, or is not sound.
    """
    metrics = Metrics()
    async with make(path, metrics=metrics) as box:
        for sink, lanes in SINKS.items():
            await box.subscribe(sink, lanes)
        offered, refused = await _read(box)
        while (degraded := box.snapshot()["degraded"]) and not whole:
            await _healed(box)
            offered, refused = await _read(box)
        aside = box.snapshot()["set_aside"]
        if aside and not whole:
            await _taken_over(box)
            offered, refused = await _read(box)
        if degraded is None:
            await _try(box, offered)
        damaged = int(metrics.total("dxad_records_dead_total", reason="damaged"))
    dead: dict[str, dict[str, bytes]] = {sink: {} for sink in SINKS}
    for sink, body in _dead_letters(path, whole=whole):
        dead.setdefault(sink, {})[name_of(body)] = body
    return Found(aside, degraded, offered, refused, dead, damaged)


async def _read(box: Outbox) -> tuple[dict[str, list[Record]], dict[str, list[Record]]]:
    offered = {sink: await box.fetch(sink, 10**6) for sink in SINKS}
    return offered, {sink: await box.refused(sink, 10**6) for sink in SINKS}


async def _healed(box: Outbox) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while box.snapshot()["degraded"]:  # noqa: ASYNC110 - what is waited for happens in a thread
            await asyncio.sleep(0.01)


async def _taken_over(box: Outbox) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while box.snapshot()["salvaged"] is None:  # noqa: ASYNC110 - what is waited for is a process
            await asyncio.sleep(0.01)


async def _try(box: Outbox, offered: dict[str, list[Record]]) -> None:
    seq = await box.append(Record("after the cut", Lane.CRITICAL, b"it works"))
    assert seq > max((each.seq for records in offered.values() for each in records), default=0)
    for sink, records in offered.items():
        await box.ack(sink, records)
        assert [each.id for each in await box.fetch(sink, 2)] == ["after the cut"], sink


def _dead_letters(path: Path, *, whole: bool) -> list[tuple[str, bytes]]:
    with closing(sqlite3.connect(path)) as connection:
        try:
            state = connection.execute("PRAGMA integrity_check").fetchone()[0]
        except sqlite3.DatabaseError as error:
            state = str(error)
        assert state == "ok" or not whole, state
        try:
            return connection.execute(
                "SELECT sink, body FROM dead_letters WHERE reason <> 'damaged'"
            ).fetchall()
        except sqlite3.DatabaseError:
            if whole:
                raise
            return []


def verdict(ledger: Ledger, found: Found) -> list[str]:
    """Every promise that is broken, in words."""
    faults = list(ledger.faults)
    if found.set_aside or found.degraded or found.damaged:
        faults.append(f"set aside {found.set_aside}, degraded {found.degraded}, {found.damaged} damaged")
    for sink, lanes in SINKS.items():
        faults += [f"{sink}: {each}" for each in _of_sink(ledger, found, sink, lanes)]
    return faults


def _of_sink(ledger: Ledger, found: Found, sink: str, lanes: Iterable[Lane]) -> list[str]:
    offered, again, dead = found.offered[sink], found.refused[sink], found.dead[sink]
    faults = []
    for each in (*offered, *again):
        name = _name(each)
        if each.body != body_of(name) or name not in ledger.appended:
            faults.append(f"{each.id} is not what was appended: {each.body[:40]!r}")
        elif ledger.ids.get(name, each.id) != each.id:
            faults.append(f"{name} is now {each.id}, it was delivered as {ledger.ids[name]}")
    faults += [f"dead letter {name} is another" for name, body in dead.items() if body != body_of(name)]
    if not sink.startswith(PREFIX):  # of a consumer, what is out stands aside as well
        never = [_name(each) for each in again if not ledger.refused[sink][_name(each)]]
        faults += [f"{name} was never refused" for name in never]
    done = {_name(each) for each in (*offered, *again)} & ledger.done[sink]
    faults += [f"{name} comes again, its ack had returned" for name in done]
    faults += [f"{name} was buried too soon" for name in dead if ledger.refused[sink][name] < ATTEMPTS]
    if faults:
        return faults
    faults += _out_of_order(ledger, offered)
    known = {_name(each) for each in (*offered, *again)} | set(dead) | ledger.had[sink]
    missing = {
        lane: [name for name in ledger.stored if lane_of(name) is lane and name not in known]
        for lane in lanes
    }
    return faults + _not_excused(ledger, sink, missing, list(map(_name, offered)))


def _name(record: Record) -> str:
    return name_of(record.body)


def lane_of(name: str) -> Lane:
    """In which lane the load appended it."""
    return Lane[name.split("-")[1]]


def _out_of_order(ledger: Ledger, offered: Sequence[Record]) -> list[str]:
    faults = []
    if [each.lane for each in offered] != sorted(each.lane for each in offered):
        faults.append("a less important lane comes first")
    for lane in Lane:
        mine = [each for each in offered if each.lane is lane]
        seqs = [each.seq for each in mine]
        if seqs != sorted(set(seqs)):
            faults.append(f"{lane.name} has seqs out of order")
        places = [ledger.appended[name] for name in map(_name, mine)]
        if places != sorted(set(places)):
            faults.append(f"{lane.name} is out of order")
    faults += [
        f"{each.id} has seq {each.seq}, it was promised {promised}"
        for each in offered
        if (promised := ledger.stored.get(_name(each), 0)) not in (each.seq, 0)
    ]
    return faults


def _not_excused(ledger: Ledger, sink: str, missing: dict[Lane, list[str]], left: list[str]) -> list[str]:
    """What is missing and cannot be explained by the quota's order and number."""
    if ledger.dropped_letters or ledger.killed:  # dead letters go first
        refused = ledger.refused[sink]
        missing = {lane: [each for each in names if not refused[each]] for lane, names in missing.items()}
    missing = {lane: names for lane, names in missing.items() if names}
    if not ledger.quota or Lane.CRITICAL in missing:
        return [
            f"{len(names)} promised {lane.name} are missing: {names[:3]}" for lane, names in missing.items()
        ]
    faults = []
    count = sum(map(len, missing.values()))
    if count > ledger.dropped + _UNTOLD * ledger.killed:
        faults.append(f"{count} are missing, {ledger.dropped} were reported as dropped")
    for lane, names in missing.items():
        last = max(ledger.appended[each] for each in names)
        faults += [
            f"{lane.name} up to {last} went, {each} of {ledger.appended[each]} did not"
            for each in left
            if lane_of(each) >= lane and ledger.appended[each] < last
        ][:1]
    return faults
