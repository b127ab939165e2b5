"""`python -m hw_sim load`: a fixed load on each wire, for benchmarks."""

import asyncio
import json
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

import click
from rich.console import Console

from hw_sim.cli.options import apart, duration, told
from hw_sim.cli.run import Outputs, moved, operate
from hw_sim.load.check import FACTOR, measure
from hw_sim.load.plan import SHARES, Plan
from hw_sim.load.report import Watch, checked, checked_document, endpoint_lines
from hw_sim.scenario import WIRES, Scenario
from hw_sim.station import Station

__all__ = ["load"]

_WIDTH: Final = 160
"""Of a table that goes to no terminal."""


def _wires(_context: click.Context, _option: click.Parameter, text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    if wrong := [name for name in names if name not in WIRES]:
        raise click.BadParameter(f"no wire {wrong[0]!r}; there are {', '.join(WIRES)}")
    return names


def _shares(_context: click.Context, _option: click.Parameter, text: str | None) -> Mapping[str, float]:
    found = {}
    for each in text.split(",") if text else ():
        name, _, share = each.partition("=")
        try:
            found[name] = float(share)
        except ValueError:
            found[name] = 0.0
        if name not in WIRES or not 0 < found[name] < float("inf"):
            raise click.BadParameter(
                f"{each!r} is not WIRE=SHARE, such as mqtt=4; wires are {', '.join(WIRES)}"
            )
    return found


@click.command()
@click.option("--channels", type=click.IntRange(1, 100_000), default=500, show_default=True)
@click.option(
    "--rate", "rate_hz", type=click.FloatRange(0, 10_000, min_open=True), default=10.0, show_default=True,
    metavar="HZ", help="Values a second of each channel.",
)  # fmt: skip
@click.option(
    "--wires", callback=_wires, default=",".join(WIRES), show_default=True, metavar="WIRE,...",
    help="Where the channels are.",
)  # fmt: skip
@click.option(
    "--share", "shares", callback=_shares, metavar="WIRE=SHARE,...",
    show_default=",".join(f"{name}={share:g}" for name, share in SHARES.items()),
    help="How the channels are shared out.",
)  # fmt: skip
@click.option(
    "--values-per-message", type=click.IntRange(1, 1000), default=3, show_default=True, metavar="N",
    help="Of MQTT: channels of a device, which sends them in one message.",
)  # fmt: skip
@click.option(
    "--qos", type=click.IntRange(0, 1), default=0, show_default=True,
    help="Of MQTT. With 0, what does not get through is lost and seen to be; with 1, the broker may hold the "
    "load up.",
)  # fmt: skip
@click.option(
    "--broker", default="", metavar="HOST:PORT", help="Load this MQTT broker instead of one of our own."
)
@click.option(
    "--check", is_flag=True, help=f"Find out whether {FACTOR} times the load is sustained, and end."
)
@click.option(
    "--for", "for_s", callback=duration, default="10s", show_default=True, metavar="TIME",
    help="How long each of the two runs of --check takes.",
)  # fmt: skip
@click.option("--duration", "duration_s", callback=duration, metavar="TIME", help="End after so long.")
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print the map and the summary, or the check, as a line of JSON each.",
)
@apart
def load(
    channels: int,
    rate_hz: float,
    wires: tuple[str, ...],
    shares: Mapping[str, float],
    values_per_message: int,
    qos: int,
    broker: str,
    check: bool,
    for_s: float,
    duration_s: float | None,
    any_port: bool,
    links: Path | None,
    until_stdin_closes: bool,
    as_json: bool,
    control: Path,
) -> None:
    """Load the wires, until Ctrl-C: fixed numbers of values a second, with the times of their sending.

    What is sent, and how a far end tells what was lost and how late the rest is, stands in
    `hw_sim/plants/load.py` and, by --json, in the map.

    \b
    Examples:
      python -m hw_sim load --channels 500 --rate 10
      python -m hw_sim load --channels 1500 --rate 10 --wires mqtt --broker 127.0.0.1:1883
      python -m hw_sim load --channels 500 --rate 10 --check
    """  # noqa: D301 - click's mark of lines that shall stay as they are
    plan = Plan(
        channels=channels,
        rate_hz=rate_hz,
        shares={name: shares.get(name, SHARES[name]) for name in wires},
        values_per_message=values_per_message,
        qos=qos,
        broker=broker,
    )
    if check:
        with told():
            holds = asyncio.run(_check(plan, for_s, any_port=any_port, links=links, as_json=as_json))
        sys.exit(0 if holds else 1)
    with told():
        scenario = replace(_scenario(plan, any_port=any_port, links=links), duration_s=duration_s)
        outputs = Outputs(labels=Path(os.devnull), control=control, as_json=as_json, endpoints=False)
        watch = Watch(plan)

        async def look(station: Station) -> None:
            for wire in station.wires:
                wire.now = time.time
            _tell_map(plan, station, as_json=as_json)
            await watch.look(station)

        station = asyncio.run(operate(scenario, outputs, until_stdin_closes=until_stdin_closes, watch=look))
    if as_json:
        click.echo(json.dumps(watch.document(station)))
    else:
        table, said = watch.table(station)
        _console().print(table)
        click.echo(said)


def _scenario(plan: Plan, *, any_port: bool, links: Path | None) -> Scenario:
    return moved(plan.scenario(), any_port=any_port, links=links)


def _tell_map(plan: Plan, station: Station, *, as_json: bool) -> None:
    endpoints = {device: str(at) for wire in station.wires for device, at in wire.endpoints.items()}
    document = plan.map(endpoints)
    click.echo(json.dumps(document) if as_json else "\n".join(endpoint_lines(document)))
    sys.stdout.flush()


async def _check(plan: Plan, for_s: float, *, any_port: bool, links: Path | None, as_json: bool) -> bool:
    """Measure the load and its multiple; returns whether both are sustained."""
    runs = []
    for each in (plan, plan.times(FACTOR)):
        scenario = _scenario(each, any_port=any_port, links=links)
        with Console(stderr=True).status(f"{each.channels} channels at {each.rate_hz:g} Hz, {for_s:g} s"):
            runs.append(await measure(each, scenario, for_s=for_s))
    if as_json:
        click.echo(json.dumps(checked_document(runs)))
    else:
        table, verdict = checked(runs)
        _console().print(table)
        click.echo(verdict)
    return all(run.holds for run in runs)


def _console() -> Console:
    console = Console()
    return console if console.is_terminal else Console(width=_WIDTH)
