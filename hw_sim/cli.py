"""`python -m hw_sim run | faults`."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
from pathlib import Path
from typing import TextIO

import click

from hw_sim.bench import Bench
from hw_sim.fault import FAULTS, FaultError
from hw_sim.labels import Labels
from hw_sim.scenario import LINK, PORTS, Places, Scenario, faults_of, free_port

__all__ = ["main"]


@click.group()
def main() -> None:
    """A pump skid on the bench: MQTT, Modbus TCP, OPC-UA and serial, with faults and their labels."""


@main.command("faults")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def list_faults(as_json: bool) -> None:
    """List the faults there are."""
    if as_json:
        table = [
            {"fault": name, "does": kind.does, "parameters": dict(kind.parameters)}
            for name, kind in FAULTS.items()
        ]
        click.echo(json.dumps(table))
        return
    for name, kind in FAULTS.items():
        parameters = ", ".join(f"{key}={value}" for key, value in kind.parameters.items())
        click.echo(f"{name:14} {kind.does}" + (f"  [{parameters}]" if parameters else ""))


@main.command()
@click.option("--seed", type=int, default=1, show_default=True, help="Same seed, same numbers.")
@click.option(
    "--fault", "faults", multiple=True, metavar="NAME@ONSET[..END][:PARAMETER=VALUE]", help="What breaks."
)
@click.option(
    "--labels", type=click.Path(path_type=Path), help="Write the ground truth here; default: stdout."
)
@click.option("--broker", metavar="HOST:PORT", help="Publish to this broker instead of starting one.")
@click.option("--mqtt-port", default=PORTS["mqtt"], show_default=True, help="MQTT 5; 0 picks a free one.")
@click.option("--mqtt311-port", default=PORTS["mqtt311"], show_default=True, help="MQTT 3.1.1.")
@click.option("--modbus-port", default=PORTS["modbus"], show_default=True, help="Modbus TCP.")
@click.option("--opcua-port", default=PORTS["opcua"], show_default=True, help="OPC-UA.")
@click.option(
    "--serial-link", type=click.Path(path_type=Path), default=LINK, show_default=True,
    help="A link to the pty of the vibration sensor.",
)  # fmt: skip
@click.option("--duration", metavar="SECONDS", type=float, help="End by itself after so long.")
@click.option(
    "--until-stdin-closes", is_flag=True, help="End when standard input does: with whoever started this."
)
@click.option("--json", "as_json", is_flag=True, help="Print the endpoints as one line of JSON.")
def run(
    seed: int,
    faults: tuple[str, ...],
    labels: Path | None,
    broker: str | None,
    mqtt_port: int,
    mqtt311_port: int,
    modbus_port: int,
    opcua_port: int,
    serial_link: Path,
    duration: float | None,
    until_stdin_closes: bool,
    as_json: bool,
) -> None:
    r"""Run the pump skid until it is told to stop.

    \b
    python -m hw_sim run --fault bearing_wear@40s --seed 1
    python -m hw_sim run --fault source_down@30s..40s:device=plc --labels labels.jsonl
    """
    try:
        scenario = Scenario(
            seed,
            faults_of(faults),
            duration,
            Places(
                mqtt_port or free_port(),
                mqtt311_port or free_port(),
                modbus_port or free_port(),
                opcua_port or free_port(),
                serial_link,
                _address(broker),
            ),
        )
    except FaultError as error:
        raise click.UsageError(str(error)) from error
    _check_ports(scenario.places)
    with contextlib.ExitStack() as stack:
        file = sys.stdout if labels is None else stack.enter_context(labels.open("w"))
        try:
            asyncio.run(_run(scenario, file, as_json=as_json, until_stdin_closes=until_stdin_closes))
        except OSError as error:
            raise click.ClickException(str(error)) from error


def _address(text: str | None) -> tuple[str, int] | None:
    if text is None:
        return None
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit():
        raise click.UsageError(f"--broker {text!r} is not HOST:PORT")
    return host, int(port)


def _check_ports(places: Places) -> None:
    """Say which port is taken before anything starts; a library's traceback would not."""
    wanted = {"--modbus-port": places.modbus_port, "--opcua-port": places.opcua_port}
    if places.broker is None:
        wanted |= {"--mqtt-port": places.mqtt_port, "--mqtt311-port": places.mqtt311_port}
    for option, port in wanted.items():
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError as error:
                raise click.ClickException(
                    f"port {port}: {error.strerror}; choose another with {option}, or 0 for any"
                ) from error


async def _run(scenario: Scenario, file: TextIO, *, as_json: bool, until_stdin_closes: bool) -> None:
    from hw_sim.station import station  # noqa: PLC0415 - the protocols' libraries, which --help does not need

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    if until_stdin_closes:
        loop.add_reader(0, _end_of_input, stop)
    bench = Bench(scenario.seed, scenario.faults)
    labels = Labels(file, bench)
    async with station(bench, labels, scenario.places) as running:
        places = scenario.places
        endpoints = dict(running.endpoints)
        if places.broker is None:
            endpoints["motor_mqtt311"] = f"mqtt://127.0.0.1:{places.mqtt311_port}"
        _show(endpoints, as_json=as_json)
        plant = asyncio.create_task(
            running.run(seed=scenario.seed, duration_s=scenario.duration_s), name="plant"
        )
        stopping = asyncio.create_task(stop.wait(), name="stop")
        await asyncio.wait([plant, stopping], return_when=asyncio.FIRST_COMPLETED)
        for task in (plant, stopping):
            task.cancel()
        await asyncio.wait([plant, stopping])
        if not plant.cancelled() and (error := plant.exception()) is not None:
            raise error


def _end_of_input(stop: asyncio.Event) -> None:
    if not os.read(0, 4096):
        asyncio.get_running_loop().remove_reader(0)  # else it is readable for ever
        stop.set()


def _show(endpoints: dict[str, str], *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps({"type": "endpoints", **endpoints}))
    else:
        for device, endpoint in endpoints.items():
            click.echo(f"{device:14} {endpoint}")
    sys.stdout.flush()
