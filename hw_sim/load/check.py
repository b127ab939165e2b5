"""Whether the simulator sustains a load: it runs it into the null reader, a process of its own.

    load ══ wires ══ null reader

What the wires were to carry is compared with what came. Both share one machine: a run beside other work
measures that as well.
"""

import asyncio
import gc
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

from hw_sim.load.plan import Plan
from hw_sim.scenario import Scenario
from hw_sim.station import station

__all__ = ["FACTOR", "Measured", "Offered", "ReaderError", "WireMeasured", "measure", "read", "sustained"]

FACTOR: Final = 3
"""How many times the load that is asked of a far end the simulator must be able to offer."""
_ENOUGH: Final = 0.999
_TICK_S: Final = 0.005
"""Of the station."""
_READY_WITHIN_S: Final = 60.0
_DONE_WITHIN_S: Final = 30.0
_LINE_BYTES: Final = 1 << 26


class Offered(NamedTuple):
    """What was done to load the wires."""

    rows: int
    """From row 0 on, whole ones."""
    elapsed_s: float
    """How long they took."""


class ReaderError(OSError):
    """The null reader could not read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WireMeasured:
    """What went over one wire."""

    asked_per_s: float
    """Values a second."""
    received_per_s: float
    offered: int
    """Values in all."""
    received: int
    """Those that came, once each and as they should be."""
    lost: int
    doubled: int
    late: int
    """Messages that came after a later one."""
    wrong: int
    p50_ms: float | None
    p99_ms: float | None
    max_ms: float | None

    @property
    def holds(self) -> bool:
        """Whether all came, in time, once and as it was."""
        whole = self.received == self.offered and not (self.doubled or self.late or self.wrong)
        return whole and self.received_per_s >= _ENOUGH * self.asked_per_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One run."""

    rate_hz: float
    elapsed_s: float
    simulator_cpu_s: float
    broker_cpu_s: float
    """Of child processes; somebody else's broker is not among them."""
    reader_cpu_s: float
    wires: Mapping[str, WireMeasured]

    @property
    def holds(self) -> bool:
        """Whether all wires do."""
        return all(wire.holds for wire in self.wires.values())


class _Stopwatch:
    """Times the steps of a run, from the first to the last."""

    def __init__(self) -> None:
        self._begin_s = 0.0
        self.elapsed_s = 0.0

    def start(self) -> None:
        self._begin_s = time.monotonic()

    def step(self) -> None:
        self.elapsed_s = time.monotonic() - self._begin_s


async def measure(plan: Plan, scenario: Scenario, *, for_s: float) -> Measured:
    """Run a load into the null reader.

    Args:
        plan: the load.
        scenario: the plan's, perhaps with other ports.
        for_s: for about so many seconds; whole rows in any case.

    Raises:
        OSError: a place is taken, or the null reader cannot read what is there.
    """
    bench, known = scenario.bench()
    async with station(scenario, bench, known) as running:
        for wire in running.wires:
            wire.now = time.time

        async def offer() -> Offered:
            watch = _Stopwatch()
            await running.run((watch,), duration_s=plan.duration_s(for_s))
            # The last step has had no time yet.
            return Offered(bench.steps // plan.spread + 1, watch.elapsed_s + plan.step_s)

        endpoints = {device: str(at) for wire in running.wires for device, at in wire.endpoints.items()}
        return await read(plan, endpoints, offer)


async def read(
    plan: Plan, endpoints: Mapping[str, str], offer: Callable[[], Coroutine[Any, Any, Offered]]
) -> Measured:
    """Have the null reader read what is offered.

    Args:
        plan: the load.
        endpoints: by device, where it is.
        offer: makes the load, from row 0 on, once the reader is there.

    Raises:
        ReaderError: the null reader cannot read what is there.
    """
    async with _null_reader(plan.map(endpoints)) as reader:
        brokers = [pid for pid in _children() if pid != reader.pid]
        cpu_s, broker_cpu_s = time.process_time(), _cpu_s(brokers)
        with _unswept():
            offered = await offer()
            simulator_cpu_s = time.process_time() - cpu_s
            sent = {name: offered.rows * len(wired.channels) for name, wired in plan.wires.items()}
            found = await _result(reader, sent)
        broker_cpu_s = _cpu_s(brokers) - broker_cpu_s
    due_s = offered.rows / plan.rate_hz
    # By a tick the last step may come late, which is no lack of speed.
    elapsed_s = max(min(offered.elapsed_s, due_s), offered.elapsed_s - _TICK_S)
    return Measured(
        rate_hz=plan.rate_hz,
        elapsed_s=elapsed_s,
        simulator_cpu_s=simulator_cpu_s,
        broker_cpu_s=broker_cpu_s,
        reader_cpu_s=found["cpu_s"],
        wires={
            name: _compared(
                found["wires"][name],
                values=sent[name],
                asked_per_s=plan.rate_hz * len(wired.channels),
                elapsed_s=elapsed_s,
            )
            for name, wired in plan.wires.items()
        },
    )


@contextmanager
def _unswept() -> Iterator[None]:
    """What is there now is no business of the garbage collector's, as in a run of any scenario."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def sustained(measured: Measured) -> Sequence[str]:
    """What speaks against it that the load was sustained, a line each; nothing if it was."""
    said = []
    for name, wire in measured.wires.items():
        if wire.received != wire.offered:
            said.append(f"{name}: {wire.offered - wire.received} of {wire.offered} values did not come")
        if wire.doubled or wire.late or wire.wrong:
            said.append(f"{name}: {wire.doubled} doubled, {wire.late} late, {wire.wrong} wrong")
        if wire.received_per_s < _ENOUGH * wire.asked_per_s:
            said.append(f"{name}: {wire.received_per_s:.0f} values/s of {wire.asked_per_s:.0f}")
    return said


def _compared(sums: Mapping[str, Any], *, values: int, asked_per_s: float, elapsed_s: float) -> WireMeasured:
    return WireMeasured(
        asked_per_s=asked_per_s,
        received_per_s=sums["values"] / elapsed_s,
        offered=values,
        received=sums["values"],
        lost=max(0, values - sums["values"]),
        **{key: sums[key] for key in ("doubled", "late", "wrong", "p50_ms", "p99_ms", "max_ms")},
    )


@asynccontextmanager
async def _null_reader(document: Mapping[str, Any]) -> AsyncIterator[asyncio.subprocess.Process]:
    """A null reader of this map that is ready, until the block is left.

    Raises:
        ReaderError: it cannot read.
    """
    reader = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "hw_sim.load.null",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=_LINE_BYTES,
        cwd=Path(__file__).parents[2],
    )
    assert reader.stdin is not None
    try:
        reader.stdin.write(json.dumps(document).encode() + b"\n")
        await _answer(reader, _READY_WITHIN_S)
        yield reader
    finally:
        reader.stdin.close()
        try:
            async with asyncio.timeout(_DONE_WITHIN_S):
                await reader.wait()
        except TimeoutError:
            reader.kill()
            await reader.wait()


async def _result(reader: asyncio.subprocess.Process, sent: Mapping[str, int]) -> Mapping[str, Any]:
    assert reader.stdin is not None
    reader.stdin.write(json.dumps(sent).encode() + b"\n")
    return await _answer(reader, _DONE_WITHIN_S)


async def _answer(reader: asyncio.subprocess.Process, within_s: float) -> Mapping[str, Any]:
    assert reader.stdout is not None
    try:
        async with asyncio.timeout(within_s):
            line = await reader.stdout.readline()
    except TimeoutError as error:
        raise ReaderError(f"the null reader says nothing for {within_s:g} s") from error
    if not line:
        raise ReaderError("the null reader has ended")
    found: Mapping[str, Any] = json.loads(line)
    if "error" in found:
        raise ReaderError(f"the null reader: {found['error']}")
    return found


def _children() -> Sequence[int]:
    """The processes that this one has started and that still run."""
    tasks = Path("/proc/self/task").iterdir()
    return [int(pid) for task in tasks for pid in (task / "children").read_text().split()]


def _cpu_s(pids: Sequence[int]) -> float:
    """Processor seconds of these processes; proc(5), /proc/pid/stat, fields 14 and 15."""
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")
