"""`python -m hw_sim run`: a scenario, until somebody says stop."""

import asyncio
import gc
import json
import math
import os
import signal
import sys
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, ExitStack, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, TextIO

import click

from hw_sim.cli.options import apart, duration, told
from hw_sim.control import serving, taken
from hw_sim.labels import Labels
from hw_sim.scenario import Scenario, load
from hw_sim.station import Station, Writer, station
from hw_sim.tasks import race
from hw_sim.trace import Trace

__all__ = ["Outputs", "moved", "operate", "run", "speed"]

_STDIN: Final = 0
_PORTS: Final = ("port", "tls_port")


@dataclass(frozen=True, slots=True, kw_only=True)
class Outputs:
    """Where a run writes."""

    labels: Path | None = None
    """As JSON lines, or by its name as CSV; None is standard output."""
    trace: Path | None = None
    control: Path | None = None
    as_json: bool = False
    wires: bool = True
    endpoints: bool = True
    """Whether they are told, a line for each device."""


def speed(_context: click.Context, _option: click.Parameter, text: str | None) -> float | None:
    """An option's value as the plant's seconds per second; infinite is as fast as the wires take it."""
    if text is None or text == "max":
        return None if text is None else math.inf
    try:
        found = float(text.removesuffix("x"))
    except ValueError:
        found = 0.0
    if found <= 0 or not math.isfinite(found):
        raise click.BadParameter(f"{text!r} is no speed, such as 10 or max")
    return found


@click.command()
@click.argument("scenario", default="pump_skid", metavar="[SCENARIO]")
@click.option("--seed", type=int, help="Same seed, same numbers.")
@click.option(
    "--fault", "faults", multiple=True, metavar="NAME@ONSET[..END][:PARAMETER=VALUE,...]",
    help="What breaks beside the scenario's own faults, and when, counted from the moment all is up; may be "
    "repeated. Or 'none'.",
)  # fmt: skip
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change a key of the scenario.")
@click.option("--speed", callback=speed, metavar="N|max", help="The plant's seconds per second.")
@click.option(
    "--duration",
    callback=duration,
    metavar="TIME",
    help="End after so much of the plant's time, such as 60s.",
)
@click.option(
    "--labels", type=click.Path(path_type=Path, dir_okay=False, allow_dash=True), metavar="FILE",
    help="Write the ground truth here, as JSON lines, or as CSV if its name says so; by default to standard "
    "output.",
)  # fmt: skip
@click.option(
    "--trace", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
    help="Write the plants' values of each step here, as CSV.",
)  # fmt: skip
@click.option("--no-wires", is_flag=True, help="Plants, labels and trace alone, as fast as they go.")
@click.option("--json", "as_json", is_flag=True, help="Print the endpoints as one line of JSON.")
@apart
def run(
    scenario: str,
    seed: int | None,
    faults: tuple[str, ...],
    overrides: tuple[str, ...],
    any_port: bool,
    links: Path | None,
    speed: float | None,
    duration: float | None,
    labels: Path | None,
    trace: Path | None,
    no_wires: bool,
    until_stdin_closes: bool,
    as_json: bool,
    control: Path,
) -> None:
    """Run a scenario until Ctrl-C: a file, or one that is shipped, by default the pump skid.

    \b
    Everything is on 127.0.0.1. Examples:
      python -m hw_sim run
      python -m hw_sim run --fault bearing_wear@40s --labels labels.jsonl
      python -m hw_sim run --fault source_down@30s..40s:device=plc --duration 60s
      python -m hw_sim run --fault drift@20s:channel=plc.flow,size=50,ramp=1min
      python -m hw_sim run cold_store --speed 300 --fault leak@6h --set wires.room.port=1883
      python -m hw_sim run spindle --no-wires --duration 1min --trace spindle.csv --labels labels.csv
    """  # noqa: D301 - click's mark of lines that shall stay as they are
    with told():
        found = load(scenario, overrides)
        found = replace(
            found,
            seed=found.seed if seed is None else seed,
            speed=math.inf if no_wires else speed or found.speed,
            duration_s=found.duration_s if duration is None else duration,
        )
        if no_wires and found.duration_s is None:
            raise click.UsageError("--no-wires needs a --duration")
        outputs = Outputs(
            labels=labels,
            trace=trace,
            control=None if no_wires else control,
            as_json=as_json,
            wires=not no_wires,
        )
        found = moved(found, any_port=any_port, links=links)
        ran = asyncio.run(operate(found, outputs, faults=faults, until_stdin_closes=until_stdin_closes))
    if no_wires and not as_json and labels is not None:
        written = ", ".join(str(path) for path in (labels, trace) if path is not None)
        click.echo(f"{ran.bench.at_s:g} s of the plant's time, {ran.bench.steps:,} steps: {written}")


def moved(scenario: Scenario, *, any_port: bool, links: Path | None) -> Scenario:
    """The same with its ports and terminals elsewhere."""
    wires = {}
    for name, wire in scenario.wires.items():
        ports = {key: 0 for key in _PORTS if any_port and getattr(wire, key, None) is not None}
        link = getattr(wire, "link", None)
        moves = ports if links is None or link is None else {**ports, "link": links / link.name}
        wires[name] = wire.model_copy(update=moves)
    return replace(scenario, wires=wires)


async def operate(
    scenario: Scenario,
    outputs: Outputs,
    *,
    faults: Sequence[str] = (),
    until_stdin_closes: bool = False,
    around: Callable[[Station], AbstractAsyncContextManager[None]] | None = None,
    watch: Callable[[Station], Coroutine[Any, Any, None]] | None = None,
) -> Station:
    """Run a scenario to its end, or until a signal says stop.

    Args:
        scenario: what to run.
        outputs: where to write.
        faults: beside the scenario's own, as a command line has them.
        until_stdin_closes: a further reason to stop.
        around: entered once all is up, before the first step, and left after the last, while all is still up.
        watch: shown the station once all is up, and run beside it.

    Raises:
        OSError: a place is taken, or a file cannot be written.
        FaultError: a further fault is written wrong.
        ScenarioError: the scenario is wrong.
    """
    stop = _stopped(until_stdin_closes=until_stdin_closes)
    bench, known = scenario.bench(faults)
    with ExitStack() as opened:
        # First of all: who may not be here takes nothing from who is, be it a link or a file of labels.
        place = None if outputs.control is None else opened.enter_context(taken(outputs.control))
        labels, trace = _files(outputs, opened)
        async with AsyncExitStack() as up:
            wired = scenario if outputs.wires else replace(scenario, wires={})
            running = await up.enter_async_context(station(wired, bench, known))
            if place is not None:
                await up.enter_async_context(serving(place, running, stop.set))
            if outputs.wires and outputs.endpoints:
                _tell_endpoints(running, as_json=outputs.as_json)
            by_name = outputs.labels is not None and outputs.labels.suffix == ".csv"
            told = Labels(labels, bench, now=running.now, as_csv=by_name)
            writers: list[Writer] = [told]
            if trace is not None:
                writers.append(Trace(trace, bench))
            gc.freeze()  # each full collection would walk OPC-UA's whole address space, and hold up the wires
            beside = [] if watch is None else [watch(running)]
            await race(_played(running, writers, scenario.duration_s, around), stop.wait(), *beside)
            told.finish()
    return running


async def _played(
    running: Station,
    writers: Sequence[Writer],
    duration_s: float | None,
    around: Callable[[Station], AbstractAsyncContextManager[None]] | None,
) -> None:
    async with nullcontext() if around is None else around(running):
        await running.run(writers, duration_s=duration_s)


def _stopped(*, until_stdin_closes: bool) -> asyncio.Event:
    """Set when a signal or the end of standard input says stop."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    if until_stdin_closes:
        try:
            loop.add_reader(_STDIN, _read_stdin, stop)
        except PermissionError as error:  # epoll's answer to a file, which never closes
            raise click.UsageError("--until-stdin-closes needs a pipe or a terminal to watch") from error
    return stop


def _read_stdin(stop: asyncio.Event) -> None:
    if not os.read(_STDIN, 4096):
        asyncio.get_running_loop().remove_reader(_STDIN)  # else it is readable for ever
        stop.set()


def _files(outputs: Outputs, opened: ExitStack) -> tuple[TextIO, TextIO | None]:
    """Where labels and trace go."""
    if outputs.labels == outputs.trace is not None:
        raise click.UsageError(f"labels and trace cannot both go to {outputs.trace}")
    labels, trace = (
        None if path is None or str(path) == "-" else opened.enter_context(path.open("w", newline=""))
        for path in (outputs.labels, outputs.trace)
    )
    return labels or sys.stdout, trace


def _tell_endpoints(running: Station, *, as_json: bool) -> None:
    endpoints = {device: at for wire in running.wires for device, at in wire.endpoints.items()}
    if as_json:
        click.echo(json.dumps({"type": "endpoints", **endpoints}))
    else:
        for device, endpoint in endpoints.items():
            click.echo(f"{device:14} {endpoint:40} {endpoint.about}")
    sys.stdout.flush()
