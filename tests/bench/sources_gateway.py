"""The gateway's load through the daemon itself: `dxad run` beside `python -m hw_sim load`, each a process.

    hw_sim load ══ MQTT (own broker), Modbus TCP, OPC-UA, serial ══ dxad run

500 channels at 10 Hz: 2,000 MQTT values a second in messages of three, 1,500 Modbus, 1,000 OPC-UA and 500
serial ones.

    gateway.cpu               processor time of the daemon without pipelines, profile `balanced`; the
                              reference is the simulator's null reader, which parses all and keeps nothing
    gateway.values, spoilt    samples a second that came; those rejected, late or lost
    gateway.scored.cpu        with 20 pipelines of 25 channels, each with a 64-32-8-32-64 net; the reference
                              is the run without
    gateway.resident[.lean]   MiB of the daemon, without pipelines and with all wires; without OPC-UA
    gateway.scored.resident   MiB of it with the pipelines
    gateway.buffers           MiB of it that are rings and queues
    gateway.WIRE.p50, p99     ms from the sending until the samples are with the ring's sealer; of Modbus,
                              since the simulator's last row, so that half a period is no fault of dxad's
"""

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from dxad.client import Client
from dxad.errors import ResourceUnavailableError
from dxad.types import NS_PER_S
from hw_sim.cli.run import moved
from hw_sim.load.check import measure as read_by_nobody
from hw_sim.load.plan import Plan
from tests.bench.engine import wrapped
from tests.bench.report import Metric

__all__ = [
    "VALUES_PER_S",
    "Run",
    "configuration",
    "cpu_s",
    "daemon",
    "gateway",
    "load",
    "process",
    "ready",
    "running",
    "settled",
    "status",
]

_PERIOD: Final = NS_PER_S // 10
_PER_PIPELINE: Final = 25
_LOOKED_AT: Final = 16
_ROWS: Final = 4
_NET: Final = (64, 32, 8, 32, 64)
VALUES_PER_S: Final = 5000
_SETTLE_S: Final = 6.0
"""Imports, connections and the first slots are no part of what it costs for years."""
_WITHIN_S: Final = 60.0
_TICKS: Final = os.sysconf("SC_CLK_TCK")
_LATENCY: Final = ("mqtt", "modbus", "opcua", "serial")
_ENOUGH: Final = 0.995


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What the daemon has cost, and taken in."""

    cpu_percent: float
    """Of one core."""
    resident_mib: float
    buffers_mib: float
    """Of it, rings and all other buffers that the configuration asks for."""
    values_per_s: float
    spoilt: int
    """Samples that were rejected, lost or late."""
    scored_per_s: float
    latency_ms: Mapping[str, list[float]]
    """By wire, from the sending to the source's handing over; only where it was asked for."""


def gateway(for_s: float) -> dict[str, Metric]:
    """The daemon without and with pipelines, without OPC-UA, and how late each wire is."""
    alone = _measured(for_s)
    bare = _bare_percent(for_s)
    scored = _measured(for_s, scored=True)
    lean = _measured(for_s, wires="mqtt,modbus,serial")
    timed = _measured(for_s, timed=True)
    found = {
        "gateway.cpu": Metric(
            value=alone.cpu_percent, unit="% of a core", reference=bare, goal=6.0, at_most=True
        ),
        "gateway.values": Metric(value=alone.values_per_s, unit="1/s", goal=_ENOUGH * VALUES_PER_S),
        "gateway.spoilt": Metric(value=alone.spoilt, unit="values", goal=0, at_most=True),
        "gateway.scored.cpu": Metric(
            value=scored.cpu_percent, unit="% of a core", reference=alone.cpu_percent, goal=15.0, at_most=True
        ),
        "gateway.scored.windows": Metric(value=scored.scored_per_s, unit="1/s", goal=_ENOUGH * 200),
        "gateway.scored.resident": Metric(value=scored.resident_mib, unit="MiB"),
        "gateway.resident": Metric(value=alone.resident_mib, unit="MiB", goal=105.0, at_most=True),
        "gateway.resident.lean": Metric(value=lean.resident_mib, unit="MiB", goal=80.0, at_most=True),
        "gateway.buffers": Metric(value=alone.buffers_mib, unit="MiB", goal=20.0, at_most=True),
    }
    for wire in _LATENCY:
        late = sorted(timed.latency_ms.get(wire, []))
        for name, share in (("p50", 0.5), ("p99", 0.99)):
            value = late[int(share * (len(late) - 1))] if late else None
            found[f"gateway.{wire}.{name}"] = Metric(value=value, unit="ms")
    return found


def _bare_percent(for_s: float) -> float:
    """What a reader costs that parses everything and keeps nothing, in % of a core."""
    plan = Plan()
    with TemporaryDirectory(prefix="dxad-bench-") as folder:
        scenario = moved(plan.scenario(), any_port=True, links=Path(folder))
        found = asyncio.run(read_by_nobody(plan, scenario, for_s=for_s))
    return 100 * found.reader_cpu_s / found.elapsed_s


def _measured(for_s: float, *, wires: str = "", scored: bool = False, timed: bool = False) -> Run:
    with TemporaryDirectory(prefix="dxad-bench-") as name, load(Path(name), wires) as offered:
        return daemon(Path(name), offered, for_s, scored=scored, timed=timed)


def daemon(
    folder: Path,
    offered: Mapping[str, Any],
    for_s: float,
    *,
    profile: str = "balanced",
    scored: bool = False,
    timed: bool = False,
) -> Run:
    """Run it on what is offered, for so many seconds once all sources have brought something.

    Args:
        folder: for its files.
        offered: the load's map.
        for_s: seconds.
        profile: of the configuration.
        scored: whether there are pipelines.
        timed: whether to note how late samples are, which costs something itself.
    """
    config, latencies = folder / "dxad.toml", folder / "latencies.json"
    config.write_text(configuration(folder, offered, profile=profile, scored=scored, timed=timed))
    program = ["tests.bench.sources_timed", str(latencies)] if timed else ["dxad", "run", "-c"]
    with process([sys.executable, "-m", *program, str(config)]) as running:
        before, begun, spent_s = settled(folder, running)
        time.sleep(for_s)
        used_s, took_s = cpu_s(running.pid) - spent_s, time.monotonic() - begun
        after = status(folder)
    known = json.loads(latencies.read_text()) if timed else {}
    return Run(
        cpu_percent=100 * used_s / took_s,
        resident_mib=after["memory"]["resident_bytes"] / 2**20,
        buffers_mib=after["memory"]["buffers_bytes"] / 2**20,
        values_per_s=(_received(after) - _received(before)) / took_s,
        spoilt=_spoilt(after) - _spoilt(before),
        scored_per_s=(_scored(after) - _scored(before)) / took_s,
        latency_ms=known,
    )


def settled(folder: Path, daemon: subprocess.Popen[bytes]) -> tuple[dict[str, Any], float, float]:
    """Once it is ready: the status, the time, what it has cost so far."""
    return ready(folder, daemon), time.monotonic(), cpu_s(daemon.pid)


def ready(folder: Path, daemon: subprocess.Popen[bytes]) -> dict[str, Any]:
    """Wait until every source has brought something, and a while longer; the status then.

    Raises:
        RuntimeError: that does not come about.
    """
    end = time.monotonic() + _WITHIN_S
    while True:
        if daemon.poll() is not None:
            raise RuntimeError("the daemon has ended; see its messages above")
        try:
            found = status(folder)
        except ResourceUnavailableError:
            found = {"sources": {}}
        if found["sources"] and all(each["samples"] for each in found["sources"].values()):
            break
        if time.monotonic() > end:
            raise RuntimeError(f"no samples: {found}")
        time.sleep(0.2)
    time.sleep(_SETTLE_S)
    return status(folder)


def status(folder: Path) -> dict[str, Any]:
    async def ask() -> dict[str, Any]:
        async with Client(folder / "c.sock") as client:
            return await client.status()

    return asyncio.run(ask())


def _received(status: Mapping[str, Any]) -> int:
    return sum(each["samples"] for each in status["sources"].values())


def _spoilt(status: Mapping[str, Any]) -> int:
    return sum(
        sum(each["rejected"].values()) + sum(each["lost"].values()) + each["late"] + each["messages_rejected"]
        for each in status["sources"].values()
    )


def _scored(status: Mapping[str, Any]) -> int:
    return sum(each["scored"] for each in status["pipelines"].values())


def cpu_s(pid: int) -> float:
    """Processor seconds of a process: utime and stime, `man 5 proc_pid_stat`."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def running(config: Path) -> AbstractContextManager[subprocess.Popen[bytes]]:
    """`dxad run` of a configuration, ended with the block."""
    return process([sys.executable, "-m", "dxad", "run", "-c", str(config)])


@contextmanager
def process(command: list[str], **how: Any) -> Iterator[subprocess.Popen[bytes]]:
    child = subprocess.Popen(command, **how)
    try:
        yield child
    finally:
        child.terminate()
        try:
            child.wait(20)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


@contextmanager
def load(folder: Path, wires: str, *more: str) -> Iterator[dict[str, Any]]:
    """The load on these wires, or on all, with more options; gives its map."""
    command = [sys.executable, "-m", "hw_sim", "load", "--any-port", "--json", "--links", str(folder)]
    command += ["--control", str(folder / "sim.sock"), "--until-stdin-closes", *more]
    if wires:
        command += ["--wires", wires]
    with process(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        yield json.loads(child.stdout.readline())


# -- the configuration -------------------------------------------------------------------------------------


def configuration(
    folder: Path,
    offered: Mapping[str, Any],
    *,
    profile: str = "balanced",
    scored: bool = False,
    timed: bool = False,
) -> str:
    """What the daemon is to read, for a load's map."""
    lines = [
        f'state_dir = "{folder}/state"',
        f'control.socket = "{folder}/c.sock"',
        f'profile = "{profile}"',
        'gateway.id = "bench"',
    ]
    for name, wire in offered["wires"].items():
        lines += ["", f"[sources.{name}]", f'type = "{wire["type"]}"', 'period = "100ms"', 'keep = "1min"']
        lines += _SECTIONS[wire["type"]](name, wire, timed=timed)
    if scored:
        lines += _pipelines(folder, offered)
    return "\n".join(lines) + "\n"


def _mqtt(name: str, wire: Mapping[str, Any], *, timed: bool) -> list[str]:
    lines = [f'url = "{wire["endpoint"]}"', "qos = 0", f"[sources.{name}.channels]"]
    for topic, numbers in wire["topics"].items():
        lines += [f'c{number:03d} = {{ topic = "{topic}" }}' for number in numbers]
        if timed:
            lines += [f'sent{numbers[0]} = {{ topic = "{topic}", path = "sent" }}']
    return lines


def _modbus(name: str, wire: Mapping[str, Any], *, timed: bool) -> list[str]:
    lines = [f'url = "{wire["endpoint"]}"', f"[sources.{name}.channels]"]
    for block in wire["blocks"]:
        first = block["first"]
        if timed:
            lines.append(f'sent{first} = {{ register = "input:{first}", encoding = "float64" }}')
        lines += [
            f'c{number:03d} = {{ register = "input:{first + 6 + 2 * place}", encoding = "float32" }}'
            for place, number in enumerate(block["channels"])
        ]
    return lines


def _opcua(name: str, wire: Mapping[str, Any], *, timed: bool) -> list[str]:
    lines = [f'url = "{wire["endpoint"]}"', f'namespace = "{wire["namespace"]}"']
    lines += ['clock = "device"'] if timed else []
    lines += [f"[sources.{name}.channels]"]
    return lines + [f'c{number:03d} = {{ node = "{node}" }}' for node, number in wire["nodes"].items()]


def _serial(name: str, wire: Mapping[str, Any], *, timed: bool) -> list[str]:
    columns = ["sent", "sequence", *(f"c{number:03d}" for number in wire["channels"])]
    # The simulator's own step sends the lines, not a crystal: they are as even as their arrivals.
    return [
        f'port = "{wire["endpoint"]}"',
        'clock = "arrival"',
        'framing = { kind = "line", max_length = "8KiB" }',
        f"decode = {{ kind = 'csv', columns = {json.dumps(columns)} }}",
    ]


_SECTIONS: Final = {"mqtt": _mqtt, "modbus": _modbus, "opcua": _opcua, "serial": _serial}


def _pipelines(folder: Path, offered: Mapping[str, Any]) -> list[str]:
    """Pipelines of 25 channels each, with a net of 64-32-8-32-64."""
    lines: list[str] = []
    for source, wire in offered["wires"].items():
        numbers = sorted(_numbers(wire))
        for begin in range(0, len(numbers), _PER_PIPELINE):
            name = f"{source}{begin // _PER_PIPELINE}"
            ids = [f"{source}.c{number:03d}" for number in numbers[begin : begin + _PER_PIPELINE]]
            wrapped(folder / name, _NET, ids[:_LOOKED_AT], _ROWS, _PERIOD)
            lines += [
                "",
                f"[pipelines.{name}]",
                f"channels = {json.dumps(ids)}",
                f'model = {{ type = "tflite", path = "{folder / name}" }}',
            ]
    return lines


def _numbers(wire: Mapping[str, Any]) -> list[int]:
    match wire["type"]:
        case "mqtt":
            return [number for part in wire["topics"].values() for number in part]
        case "modbus":
            return [number for block in wire["blocks"] for number in block["channels"]]
        case "opcua":
            return list(wire["nodes"].values())
        case _:
            return list(wire["channels"])
