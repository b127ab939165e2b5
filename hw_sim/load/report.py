"""What the load command tells: where it is, how it runs, what became of it, and whether it is sustained."""

import asyncio
import dataclasses
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from rich.console import Console
from rich.live import Live
from rich.table import Table

from hw_sim.load.check import FACTOR, Measured, sustained
from hw_sim.load.plan import Plan
from hw_sim.station import Station

__all__ = ["Watch", "checked", "checked_document", "endpoint_lines"]

_LOOK_S: Final = 0.5
_SENT: Final = {"opcua": "values"}
"""What a wire counts by another name."""


def endpoint_lines(document: Mapping[str, Any]) -> Sequence[str]:
    """Where a far end finds what, a line for each wire of the map."""
    about = {"mqtt": _mqtt, "modbus": _modbus, "opcua": _opcua, "serial": _serial}
    return [
        f"{name:8} {wire['endpoint']:34} {about[wire['type']](wire)}, {wire['values_per_s']:g} values/s"
        for name, wire in document["wires"].items()
    ]


def _mqtt(wire: Mapping[str, Any]) -> str:
    topics = list(wire["topics"])
    return f"{wire['messages_per_s']:g} messages/s on {topics[0]} … {topics[-1]}: {wire['payload']}"


def _modbus(wire: Mapping[str, Any]) -> str:
    return f"id {wire['id']}, {len(wire['blocks'])} blocks of 125 {wire['block']}"


def _opcua(wire: Mapping[str, Any]) -> str:
    nodes = list(wire["nodes"])
    return f"{wire['namespace']}, {nodes[0]} … {nodes[-1]}"


def _serial(wire: Mapping[str, Any]) -> str:
    return f"{wire['messages_per_s']:g} lines/s: {wire['line']}"


class Watch:
    """Looks on while a load runs."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._begin = self._end = time.monotonic()
        self._cpu_s = time.process_time()

    async def look(self, station: Station) -> None:
        """Keep a line on standard error up to date, if that is a terminal, until cancelled."""
        self._begin, self._cpu_s = time.monotonic(), time.process_time()
        console = Console(stderr=True)
        try:
            if not console.is_terminal:
                await asyncio.get_running_loop().create_future()
            with Live(console=console, transient=True, auto_refresh=False) as live:
                while True:
                    live.update(self._line(station), refresh=True)
                    await asyncio.sleep(_LOOK_S)
        finally:
            self._end = time.monotonic()
            self._cpu_s = time.process_time() - self._cpu_s

    def _line(self, station: Station) -> str:
        found = self._wires(station)
        told = [f"{name} {each['sent']}/{each['offered']}" for name, each in found.items()]
        lost = sum(each["lost"] for each in found.values())
        late = f", {station.behind_s:.1f} s late" if station.behind_s > _LOOK_S else ""
        return f"{station.bench.at_s:.0f} s  sent/offered  {'  '.join(told)}  lost {lost}{late}"

    def document(self, station: Station) -> Mapping[str, Any]:
        """What became of it, as JSON may have it."""
        elapsed_s = max(self._end - self._begin, self._plan.step_s)
        return {
            "type": "summary",
            "seconds": round(elapsed_s, 3),
            "rows": station.bench.steps // self._plan.spread + 1,
            "rate_hz": round(self._plan.rate_hz * station.bench.at_s / elapsed_s, 3),
            "cpu_percent": round(100 * self._cpu_s / elapsed_s, 1),
            "wires": self._wires(station),
        }

    def table(self, station: Station) -> tuple[Table, str]:
        """The same for people: a table, and a line on all of it."""
        found = self.document(station)
        table = Table(box=None, padding=(0, 2, 0, 0))
        table.add_column("wire")
        for column in ("offered", "sent", "lost", "messages/s"):
            table.add_column(column, justify="right")
        for name, each in found["wires"].items():
            rate = each["sent"] / found["seconds"]
            table.add_row(name, f"{each['offered']}", f"{each['sent']}", f"{each['lost']}", f"{rate:.1f}")
        return table, (
            f"{found['rows']} rows in {found['seconds']:.1f} s, {found['rate_hz']:.2f} Hz of "
            f"{self._plan.rate_hz:g}, for {found['cpu_percent']:.1f} % of a core"
        )

    def _wires(self, station: Station) -> Mapping[str, Mapping[str, int]]:
        """By wire, its messages: those of Modbus as anyone asks for them, those of OPC-UA as they change."""
        steps, counts = station.bench.steps, {wire.name: wire.counts for wire in station.wires}
        return {
            name: {
                "offered": self._plan.offered(wired, steps),
                "sent": counts[name][_SENT.get(wired.kind, "sent")],
                "lost": counts[name]["lost"],
            }
            for name, wired in self._plan.wires.items()
        }


def checked_document(runs: Sequence[Measured]) -> dict[str, Any]:
    """What a check found, as JSON may have it."""
    return {
        "type": "check",
        "sustained": all(run.holds for run in runs),
        "factor": FACTOR,
        "runs": [
            {
                **{key: _rounded(each) for key, each in dataclasses.asdict(run).items() if key != "wires"},
                "holds": run.holds,
                "wires": {
                    name: {
                        **{key: _rounded(each) for key, each in dataclasses.asdict(wire).items()},
                        "holds": wire.holds,
                    }
                    for name, wire in run.wires.items()
                },
            }
            for run in runs
        ],
    }


def checked(runs: Sequence[Measured]) -> tuple[Table, str]:
    """The same for people: a table, and the verdict in a few lines."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("rate")
    table.add_column("wire")
    for column in ("asked/s", "received/s", "lost", "p50 ms", "p99 ms", "max ms"):
        table.add_column(column, justify="right")
    for run in runs:
        for name, wire in run.wires.items():
            table.add_row(
                f"{run.rate_hz:g} Hz",
                name,
                f"{wire.asked_per_s:.0f}",
                f"{wire.received_per_s:.0f}",
                f"{wire.lost}",
                *("" if each is None else f"{each:.2f}" for each in (wire.p50_ms, wire.p99_ms, wire.max_ms)),
            )
    told = [_processor(run) for run in runs]
    said = [f"at {run.rate_hz:g} Hz, {each}" for run in runs for each in sustained(run)]
    if said:
        told += [f"{FACTOR} times the load is not sustained:", *said]
    else:
        told.append(f"{FACTOR} times the load is sustained: all of it came, once and in time")
    return table, "\n".join(told)


def _processor(run: Measured) -> str:
    share = 100 / run.elapsed_s
    return (
        f"at {run.rate_hz:g} Hz, of a core: simulator {run.simulator_cpu_s * share:.1f} %, its broker "
        f"{run.broker_cpu_s * share:.1f} %, null reader {run.reader_cpu_s * share:.1f} %"
    )


def _rounded(value: object) -> object:
    return round(value, 4) if isinstance(value, float) else value
