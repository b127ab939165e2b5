"""How one contender is measured: it reads the broker of a plant, and stores what it reads.

    peers_feed ══ mosquitto ══ contender ── its store

Its costs are those of all its processes, from before the plant begins until its store holds all that was
sent; what it costs to be there before and after is in them.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from tests.bench.sources_paced import broker_in

__all__ = ["Contender", "Cost", "Running", "cost", "logged", "until"]

_WARM_S: Final = 5.0
"""What is compiled, imported and connected first is no part of what it costs for years."""
_STORED_WITHIN_S: Final = 30.0
_LOOK_S: Final = 0.5
_TICKS: Final = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A contender that listens to all topics."""

    pid: int
    stored: Callable[[], int]
    """How many messages its store holds."""
    version: str


@dataclass(frozen=True, slots=True)
class Contender:
    """Who is measured."""

    name: str
    started: Callable[[Path, str], AbstractContextManager[Running]]
    """With a folder for its files and the broker's HOST:PORT."""
    promised: bool = True
    """Whether dxad promises to cost less."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What a run has cost."""

    per_100k: float
    """Processor seconds per 100,000 messages."""
    resident_mib: float
    """At the end."""
    sent: int
    astray: int
    """By how many messages the store differs from what was sent."""
    version: str


def cost(contender: Contender, for_s: float) -> Cost:
    """Let the plant send for so many seconds, once the contender is warm."""
    with TemporaryDirectory(prefix="dxad-peers-") as name, broker_in(Path(name)) as broker:
        folder = Path(name) / "contender"
        folder.mkdir()
        with contender.started(folder, broker) as running:
            warm = _fed(broker, _WARM_S)
            held = _stored(running, warm)
            spent_s = _cpu_s(running.pid)
            sent = _fed(broker, for_s)
            stored = _stored(running, held + sent)
            return Cost(
                per_100k=1e5 * (_cpu_s(running.pid) - spent_s) / sent,
                resident_mib=_resident_mib(running.pid),
                sent=sent,
                astray=abs(stored - sent - warm),
                version=running.version,
            )


def _fed(broker: str, for_s: float) -> int:
    """How many messages the plant has sent."""
    command = [sys.executable, "-m", "tests.bench.peers_feed", broker, str(for_s)]
    return int(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)


def _stored(running: Running, expected: int) -> int:
    """How many messages are in the store, once these are, or too much time has passed."""
    end = time.monotonic() + _STORED_WITHIN_S
    while (found := running.stored()) < expected and time.monotonic() < end:
        time.sleep(_LOOK_S)
    return found


# -- processes ---------------------------------------------------------------------------------------------


def _cpu_s(pid: int) -> float:
    """Processor seconds of a process and all that descend from it: `man 5 proc_pid_stat`."""
    found = _stats()
    # utime, stime, and those of children that have ended and were waited for.
    return sum(int(each) for one in _family(pid, found) for each in found[one][11:15]) / _TICKS


def _resident_mib(pid: int) -> float:
    """Of a process and all that descend from it."""
    found = _stats()
    return sum(int(found[one][21]) for one in _family(pid, found)) * os.sysconf("SC_PAGESIZE") / 2**20


def _stats() -> dict[int, list[str]]:
    """By process, the fields of its `stat` from the third."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            found[int(path.parent.name)] = path.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has just ended
    return found


def _family(pid: int, stats: dict[int, list[str]]) -> set[int]:
    found, fresh = {pid}, {pid}
    while fresh:
        fresh = {one for one, fields in stats.items() if int(fields[1]) in fresh} - found
        found |= fresh
    return found


# -- for contenders ----------------------------------------------------------------------------------------


@contextmanager
def logged(command: list[str], log: Path, **how: object) -> Iterator[subprocess.Popen[bytes]]:
    """A process that writes both its outputs into a file."""
    with log.open("wb") as file:
        child = subprocess.Popen(command, stdout=file, stderr=file, stdin=subprocess.DEVNULL, **how)  # type: ignore[call-overload]
        try:
            yield child
        finally:
            child.terminate()
            try:
                child.wait(10)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()


def until(child: subprocess.Popen[bytes], log: Path, *said: str, within_s: float = 60.0) -> str:
    """Wait until it has said all of this, and return all it has said.

    Raises:
        RuntimeError: it has ended, or does not say it; with the end of what it says.
    """
    end = time.monotonic() + within_s
    while True:
        text = log.read_text(errors="replace")
        if all(each in text for each in said):
            return text
        if child.poll() is not None or time.monotonic() > end:
            raise RuntimeError(f"{child.args!r} is not ready; it says:\n{text[-2000:]}")
        time.sleep(0.1)
