"""`python -m hw_sim run | replay | ctl | faults | scenarios`; a command is a file here."""

import click

from hw_sim.cli.ctl import ctl
from hw_sim.cli.faults import list_faults
from hw_sim.cli.load import load
from hw_sim.cli.replay import replay
from hw_sim.cli.run import run
from hw_sim.cli.scenarios import check, scenarios

__all__ = ["main"]


@click.group()
def main() -> None:
    """Machines on the bench that speak MQTT, Modbus, OPC-UA and serial lines, and break on cue."""


for command in (run, replay, load, ctl, list_faults, scenarios, check):
    main.add_command(command)
