"""`python -m hw_sim ctl`: break and mend a simulator that runs, and look at it."""

import json
from pathlib import Path
from typing import Any

import click

from hw_sim.cli.options import CONTROL, JSON, told
from hw_sim.control import ask

__all__ = ["ctl"]


@click.group()
def ctl() -> None:
    """Break and mend a simulator that runs, and look at it."""


@ctl.command()
@click.argument("name")
@click.argument("switch", type=click.Choice(["on", "off"]))
@click.argument("parameters", nargs=-1, metavar="[PARAMETER=VALUE]...")
@CONTROL
@JSON
def fault(name: str, switch: str, parameters: tuple[str, ...], control: Path, as_json: bool) -> None:
    """Switch a fault; returns when the wire is broken, or mended.

    \b
    Off ends all that are on of this name, or those whose parameters are these. Examples:
      python -m hw_sim ctl fault modbus.crc on
      python -m hw_sim ctl fault modbus.exception on code=6 device=plc
      python -m hw_sim ctl fault stuck off channel=plc.flow
    """  # noqa: D301 - click's mark of lines that shall stay as they are
    pairs = [parameter.partition("=") for parameter in parameters]
    if wrong := [key for key, equals, _ in pairs if not equals]:
        raise click.UsageError(f"{wrong[0]!r} is not PARAMETER=VALUE")
    settings = {key: value for key, _, value in pairs}
    with told():
        answer = ask(control, do="fault", fault=name, on=switch == "on", settings=settings)
    if as_json:
        click.echo(json.dumps(answer))
    elif switch == "on":
        given = ", ".join(f"{key}={value}" for key, value in answer["settings"].items() if value != "")
        click.echo(f"{name} is on since {answer['t_s']:g} s{': ' + given if given else ''}")
    else:
        click.echo(f"{name} is off")


@ctl.command()
@CONTROL
@JSON
def status(control: Path, as_json: bool) -> None:
    """Show the plant's time, the faults that are on, and what went over each wire."""
    with told():
        found = ask(control, do="status")
    if as_json:
        click.echo(json.dumps(found))
        return
    behind = f", {found['behind_s']:g} s late" if found["behind_s"] else ""
    click.echo(f"at {found['t_s']:.1f} s of the plant's time, speed {found['speed']}{behind}")
    for each in found["faults"]:
        click.echo(f"  fault  {each['fault']:20} since {each['since_s']:g} s  {_pairs(each['settings'])}")
    for name, wire in found["wires"].items():
        click.echo(f"  wire   {name:20} {wire['type']:7} {_pairs(wire['counts'])}")


def _pairs(found: dict[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in found.items() if value not in ("", None))


@ctl.command()
@CONTROL
def stop(control: Path) -> None:
    """End the run."""
    with told():
        ask(control, do="stop")
