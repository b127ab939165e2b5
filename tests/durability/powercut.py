"""Power cuts of our own: a load is traced, and its disk is found as it could be after a cut at any moment.

load under strace ──▶ calls ──▶ disk, up to a moment ──▶ files as they could be ──▶ an outbox opens them
                        └─ marks ──▶ what was promised up to then ──────────────────▶ is it there?
"""

import random
import shutil
import sqlite3
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.durability import strace
from tests.durability.disk import Disk
from tests.durability.ledger import Ledger, look, verdict
from tests.durability.load import FILE
from tests.durability.strace import Call

__all__ = ["Cut", "contents", "cuts", "judge", "record", "wal_is_never_synced"]

_ROUNDS: Final = ("--kill", "", "--quota 300000", "--kill --quota 600000", "")
"""How each process of the load goes; the next one finds what the one before has left."""


@dataclass(frozen=True)
class Cut:
    """One way to be found after a cut."""

    number: int
    at: int
    """After how many calls."""
    promised: int
    faults: Sequence[str]


def record(folder: Path, output: Path, *, records: int, options: Sequence[str] = ()) -> list[Call]:
    """Trace a load of some rounds, with so many records each."""
    commands = " ; ".join(
        f"{sys.executable} -m tests.durability.load {folder} --round {number} --records {records} {each}"
        for number, each in enumerate(_ROUNDS)
    )
    strace.run(commands + " ; true", output, options=options, timeout_s=60 + records / 10)
    return list(strace.calls(output, folder))


def contents(folder: Path) -> dict[str, bytes]:
    """What is in a folder before a load, by name."""
    return {each.name: each.read_bytes() for each in folder.iterdir()}


def wal_is_never_synced(path: str) -> bool:
    """What `synchronous=NORMAL` means between two checkpoints."""
    return path.endswith("-wal")


def cuts(
    calls: Sequence[Call],
    folder: Path,
    states: int,
    *,
    seed: int,
    **more,
) -> Iterator[tuple[int, int, Disk, Ledger, random.Random]]:
    """The disk and the promises at so many moments: half of them anywhere, half where most is uncertain.

    `more` goes to the disk.
    """
    rng = random.Random(seed)
    moments = sorted(_moments(calls, Disk(str(folder), **more), states, rng))
    disk, ledger = Disk(str(folder), seed=seed, **more), _Foresight(calls)
    done = 0
    for number, moment in enumerate(moments):
        for call in calls[done:moment]:
            disk.do(call)
            ledger.see(call)
        done = moment
        yield number, moment, disk, ledger.at(moment), random.Random(f"{seed} {number}")


async def judge(
    calls: Sequence[Call], folder: Path, scratch: Path, states: int, *, seed: int, **more
) -> AsyncIterator[Cut]:
    """Open what is found after each of so many cuts; `more` goes to `cuts`."""
    for number, moment, disk, ledger, rng in cuts(calls, folder, states, seed=seed, **more):
        state = scratch / "state"
        shutil.rmtree(state, ignore_errors=True)
        state.mkdir(parents=True)
        disk.cut(rng, state)
        try:
            faults = verdict(ledger, await look(state / FILE))
        except (AssertionError, sqlite3.Error) as error:
            faults = [f"it does not work: {error}"]
        yield Cut(number, moment, len(ledger.stored), faults)


def _moments(calls: Sequence[Call], disk: Disk, states: int, rng: random.Random) -> list[int]:
    delicate = []
    for number, call in enumerate(calls):
        disk.do(call)
        if disk.unsynced(FILE) or disk.open_names:
            delicate.append(number + 1)
    born = next(number for number, call in enumerate(calls) if call.what == "mark")
    anywhere = [number for number, call in enumerate(calls) if call.what != "mark"]
    return (
        rng.choices([each for each in anywhere if each < born], k=states // 20)  # being made, or opened
        + rng.choices([each for each in anywhere if each > born], k=states // 2)
        + rng.choices([each for each in delicate if each > born], k=states - states // 2 - states // 20)
    )


class _Foresight:
    """The ledger, which knows of drops what the load says of them next: they come before it can say so."""

    def __init__(self, calls: Sequence[Call]) -> None:
        self._calls = calls
        self._ledger = Ledger()

    def see(self, call: Call) -> None:
        if call.what == "mark":
            self._ledger.read(call.data.decode())

    def at(self, moment: int) -> Ledger:
        then = self._ledger.copy()
        before = self._ledger._round
        for line in (call.data.decode() for call in self._calls[moment:] if call.what == "mark"):
            what, *words = line.split()
            if what == "began":  # what its opening has dropped, it says afterwards
                before = (0, 0)
                then.quota |= words[1] == "quota"
            elif what == "dropped":
                then.dropped += int(words[0]) - before[0]
                then.dropped_letters += int(words[1]) - before[1]
            if what in ("dropped", "ended"):
                break
        for line in (call.data.decode() for call in self._calls[moment:] if call.what == "mark"):
            # what was handed over is on its way, and may be durable before the promise
            if line.startswith("append"):
                then.read(line)
                break
        return then
