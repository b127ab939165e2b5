"""`python -m hw_sim run | faults`."""

import asyncio
import gc
import json
import os
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Final, TextIO

import click

from hw_sim.bench import Bench
from hw_sim.duration import DurationError, seconds
from hw_sim.fault import FAULTS, Fault, FaultError, parse_all
from hw_sim.labels import Labels
from hw_sim.scenario import LINK, LOOPBACK, PORTS, Places, Scenario, free_ports
from hw_sim.tasks import race

__all__ = ["main"]

_STDIN: Final = 0


def _duration(_context: click.Context, _option: click.Parameter, text: str | None) -> float | None:
    try:
        return None if text is None else seconds(text)
    except DurationError as error:
        raise click.BadParameter(str(error)) from error


def _address(_context: click.Context, _option: click.Parameter, text: str | None) -> tuple[str, int] | None:
    if text is None:
        return None
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit():
        raise click.BadParameter(f"{text!r} is not HOST:PORT")
    return host, int(port)


def _faults(_context: click.Context, _option: click.Parameter, texts: tuple[str, ...]) -> tuple[Fault, ...]:
    try:
        return parse_all(texts)
    except FaultError as error:
        raise click.BadParameter(str(error)) from error


_PORT: Final = click.IntRange(0, 65535)


@click.group()
def main() -> None:
    """A pump skid on the bench: MQTT, Modbus TCP, OPC-UA and serial, with faults and their labels."""


@main.command("faults")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def list_faults(as_json: bool) -> None:
    """List the faults there are."""
    table = [
        {
            "fault": name,
            "does": kind.does,
            "channels": kind.channels(kind.defaults),
            "parameters": {
                key: {"default": parameter.default, "choices": parameter.choices}
                for key, parameter in kind.parameters.items()
            },
        }
        for name, kind in FAULTS.items()
    ]
    if as_json:
        click.echo(json.dumps(table))
        return
    for name, kind in FAULTS.items():
        click.echo(f"{name:14} {kind.does}")
        click.echo(f"{'':14} shows in {', '.join(kind.channels(kind.defaults))}")
        for key, parameter in kind.parameters.items():
            click.echo(f"{'':14} {key}={parameter.default} by default; one of {', '.join(parameter.choices)}")


@main.command()
@click.option("--seed", type=int, default=1, show_default=True, help="Same seed, same numbers.")
@click.option(
    "--fault", "faults", multiple=True, callback=_faults, metavar="NAME@ONSET[..END][:PARAMETER=VALUE]",
    help="What breaks, and when, counted from the moment all is up; may be repeated. Or 'none'.",
)  # fmt: skip
@click.option(
    "--labels", type=click.File("w"), default="-", metavar="FILE",
    help="Write the ground truth here, as JSON lines; by default to standard output.",
)  # fmt: skip
@click.option(
    "--broker", callback=_address, metavar="HOST:PORT",
    help="Publish to this MQTT broker instead of starting one.",
)  # fmt: skip
@click.option("--mqtt-port", type=_PORT, default=PORTS["mqtt"], show_default=True, help="For MQTT 5.")
@click.option(
    "--mqtt311-port", type=_PORT, default=PORTS["mqtt311"], show_default=True, help="For MQTT 3.1.1."
)
@click.option("--modbus-port", type=_PORT, default=PORTS["modbus"], show_default=True, help="For Modbus TCP.")
@click.option("--opcua-port", type=_PORT, default=PORTS["opcua"], show_default=True, help="For OPC-UA.")
@click.option(
    "--serial-link", type=click.Path(path_type=Path), default=LINK, show_default=True,
    help="The name of the vibration sensor's terminal, made as a symbolic link.",
)  # fmt: skip
@click.option(
    "--duration", callback=_duration, metavar="TIME", help="End by itself after so long, such as 60s."
)
@click.option(
    "--until-stdin-closes", is_flag=True, help="End when standard input does: with whoever started this."
)
@click.option("--json", "as_json", is_flag=True, help="Print the endpoints as one line of JSON.")
def run(
    seed: int,
    faults: tuple[Fault, ...],
    labels: TextIO,
    broker: tuple[str, int] | None,
    mqtt_port: int,
    mqtt311_port: int,
    modbus_port: int,
    opcua_port: int,
    serial_link: Path,
    duration: float | None,
    until_stdin_closes: bool,
    as_json: bool,
) -> None:
    """Run the pump skid until Ctrl-C.

    \b
    Everything is on 127.0.0.1; a port of 0 picks a free one. Examples:
      python -m hw_sim run
      python -m hw_sim run --fault bearing_wear@40s --labels labels.jsonl
      python -m hw_sim run --fault source_down@30s..40s:device=plc --duration 60s
      python -m hw_sim run --fault blockage@20s --fault sensor_stuck@1min:channel=plc.flow
    """  # noqa: D301 - click's mark of lines that shall stay as they are
    ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
    places = Places(
        mqtt_port=mqtt_port or ports["mqtt"],
        mqtt311_port=mqtt311_port or ports["mqtt311"],
        modbus_port=modbus_port or ports["modbus"],
        opcua_port=opcua_port or ports["opcua"],
        serial_link=serial_link,
        broker=broker,
    )
    _check_ports(places)
    scenario = Scenario(seed=seed, faults=faults, duration_s=duration, places=places)
    try:
        asyncio.run(_run(scenario, labels, as_json=as_json, until_stdin_closes=until_stdin_closes))
    except OSError as error:
        raise click.ClickException(str(error)) from error


def _check_ports(places: Places) -> None:
    """Say which port is taken, and which option moves it, before anything starts."""
    wanted = {"--modbus-port": places.modbus_port, "--opcua-port": places.opcua_port}
    if places.broker is None:
        wanted |= {"--mqtt-port": places.mqtt_port, "--mqtt311-port": places.mqtt311_port}
    for option, port in wanted.items():
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((LOOPBACK, port))
            except OSError as error:
                raise click.ClickException(
                    f"port {port}: {error.strerror}; choose another with {option}, or 0 for any"
                ) from error


async def _run(scenario: Scenario, labels: TextIO, *, as_json: bool, until_stdin_closes: bool) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    if until_stdin_closes:
        try:
            loop.add_reader(_STDIN, _read_stdin, stop)
        except PermissionError as error:  # epoll's answer to a file, which never closes
            raise click.UsageError("--until-stdin-closes needs a pipe or a terminal to watch") from error
    await race(_operate(scenario, labels, as_json=as_json), stop.wait())


def _read_stdin(stop: asyncio.Event) -> None:
    if not os.read(_STDIN, 4096):
        asyncio.get_running_loop().remove_reader(_STDIN)  # else it is readable for ever
        stop.set()


async def _operate(scenario: Scenario, labels: TextIO, *, as_json: bool) -> None:
    from hw_sim.station import station  # noqa: PLC0415 - imports all protocols, which --help does without

    bench = Bench(scenario.seed, scenario.faults)
    async with station(bench, scenario.places) as running:
        endpoints = {wire.device: wire.endpoint for wire in running.wires}
        about = {wire.device: wire.about for wire in running.wires}
        if scenario.places.broker is None:
            endpoints["motor_mqtt311"] = f"mqtt://{LOOPBACK}:{scenario.places.mqtt311_port}"
            about["motor_mqtt311"] = "the same, MQTT 3.1.1"
        if as_json:
            click.echo(json.dumps({"type": "endpoints", **endpoints}))
        else:
            for device, endpoint in endpoints.items():
                click.echo(f"{device:14} {endpoint:40} {about[device]}")
        sys.stdout.flush()
        gc.freeze()  # each full collection would walk the whole OPC-UA address space, and hold up the wires
        await running.run(Labels(labels, bench, now=time.time), scenario)
