"""`python -m hw_sim scenarios` and `check`: what there is to run, and whether one of your own is right."""

import json

import click

from hw_sim.cli.options import JSON, told
from hw_sim.scenario import load, shipped

__all__ = ["check", "scenarios"]


@click.command()
@JSON
def scenarios(as_json: bool) -> None:
    """List the scenarios that come with the simulator."""
    found = shipped()
    if as_json:
        click.echo(json.dumps(found))
        return
    for name, about in found.items():
        click.echo(f"{name:14} {about}")


@click.command()
@click.argument("scenario")
@JSON
def check(scenario: str, as_json: bool) -> None:
    """Say what a scenario has, or what is wrong with it, with file, line and key."""
    with told():
        found = load(scenario)
        bench, known = found.bench()
    document = {
        "seed": found.seed,
        "plants": {rig.name: {"step_s": rig.step_s, "channels": list(rig.channels)} for rig in bench.rigs},
        "wires": {
            name: {"type": kind, "devices": list(devices)} for name, (kind, devices) in known.wires.items()
        },
        "faults": [each["fault"] for each in found.faults],
    }
    if as_json:
        click.echo(json.dumps(document))
        return
    for rig in bench.rigs:
        click.echo(f"plant  {rig.name:14} a step each {rig.step_s:g} s: {', '.join(rig.channels)}")
    for name, (kind, devices) in known.wires.items():
        click.echo(f"wire   {name:14} {kind}: {', '.join(devices)}")
    click.echo(f"faults {len(found.faults)}")
