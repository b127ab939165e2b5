"""`python -m hw_sim replay`: a recorded data set, through any of the wires."""

import asyncio
import math
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, cast

import click
from pydantic import ValidationError

from hw_sim import scenario
from hw_sim.cli.desk import Desk
from hw_sim.cli.options import apart, duration, told
from hw_sim.cli.run import Outputs, moved, operate, speed
from hw_sim.plants import replay as plant
from hw_sim.replay.playing import WIRES, Line, MapError, Playing, line, wires_of
from hw_sim.replay.record import span
from hw_sim.replay.wiring import WORDS, Encoding, written

__all__ = ["replay"]

_LINGER_S: Final = 5.0
"""A broker has everything long before its clients: one in Python takes some thousand messages a second."""


def _lines(_context: click.Context, _option: click.Parameter, texts: tuple[str, ...]) -> tuple[Line, ...]:
    try:
        return tuple(line(text) for text in texts)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


def _rows(_context: click.Context, _option: click.Parameter, text: Any) -> Any:
    try:
        for each in [text] if isinstance(text, str) else text or ():
            span(each)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error
    return text


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--wire", "wires", multiple=True, type=click.Choice(WIRES),
    help="Play through this wire; may be repeated. By default those of --map, or mqtt.",
)  # fmt: skip
@click.option(
    "--map", "lines", multiple=True, callback=_lines, metavar="[WIRE:][NAME=]COLUMN",
    help="Play this column, under this name, on this wire or on all that have none of their own; may be "
    "repeated. By default every column of numbers on every wire.",
)  # fmt: skip
@click.option("--speed", callback=speed, metavar="N|max", help="Times as fast as recorded; 1 by default.")
@click.option("--rows", callback=_rows, metavar="A..B", help="These rows alone, from 0 on, without the last.")
@click.option("--loop", is_flag=True, help="Begin again at the end.")
@click.option(
    "--hold", callback=duration, metavar="TIME",
    help="Wait for so long before the first row, so that who listens can come.",
)  # fmt: skip
@click.option(
    "--linger", callback=duration, metavar="TIME",
    help="Stay after the last row until for so long nothing more has gone to who listens; by default 5s with "
    "--speed max, else 0s.",
)  # fmt: skip
@click.option("--period", callback=duration, metavar="TIME", help="From row to row; by default as times say.")
@click.option(
    "--times", type=click.Choice(["rows", "recorded"]), default="rows", show_default=True,
    help="Whether each row takes one period, or gaps in the record are kept.",
)  # fmt: skip
@click.option("--time", metavar="COLUMN", help='The column of times; guessed by default, and "" is none.')
@click.option("--time-format", metavar="FORMAT", help="How times are written, such as '%d/%m/%Y %H:%M:%S'.")
@click.option("--delimiter", metavar="CHARACTER", help="Between two cells; guessed by default.")
@click.option(
    "--label", "label_columns", multiple=True, metavar="COLUMN",
    help="A column that says what was wrong; may be repeated. Guessed by default.",
)  # fmt: skip
@click.option(
    "--windows", type=click.Path(path_type=Path), metavar="FILE",
    help="What was wrong, as windows of time: NAB's combined_windows.json.",
)  # fmt: skip
@click.option(
    "--labelled-rows",
    multiple=True,
    callback=_rows,
    metavar="A..B",
    help="Something was wrong in these rows.",
)
@click.option(
    "--labels", type=click.Path(path_type=Path, dir_okay=False, allow_dash=True), metavar="FILE",
    help="Write what was wrong when here, as JSON lines, or as CSV if its name says so.",
)  # fmt: skip
@click.option(
    "--trace", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
    help="Write the values of each step here, as CSV.",
)  # fmt: skip
@click.option("--topic", metavar="TOPIC", help="Of MQTT; by default replay/ and the file's name.")
@click.option(
    "--encoding", type=click.Choice(list(WORDS)), default="float32", show_default=True,
    help="Of a value in Modbus registers.",
)  # fmt: skip
@click.option(
    "--fault", "faults", multiple=True, metavar="NAME@ONSET[..END][:PARAMETER=VALUE,...]",
    help="What breaks beside what the record has: a sensor, a device or a wire; may be repeated.",
)  # fmt: skip
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change a key of the scenario.")
@click.option(
    "--json", "as_json", is_flag=True, help="Print endpoints, map and summary as a line of JSON each."
)
@apart
def replay(
    file: Path,
    wires: tuple[str, ...],
    lines: tuple[Line, ...],
    speed: float | None,
    hold: float | None,
    linger: float | None,
    period: float | None,
    topic: str | None,
    encoding: str,
    label_columns: tuple[str, ...],
    labels: Path | None,
    trace: Path | None,
    faults: tuple[str, ...],
    overrides: tuple[str, ...],
    any_port: bool,
    links: Path | None,
    until_stdin_closes: bool,
    as_json: bool,
    control: Path,
    **reading: Any,
) -> None:
    """Play a recorded data set, a CSV file with a row per time, through any of the wires.

    \b
    Every row is sent as it is, one a period; labels that the file has are carried along. Examples:
      python -m hw_sim replay skab/valve1/1.csv
      python -m hw_sim replay skab/valve1/1.csv --speed 10 --labels labels.jsonl
      python -m hw_sim replay skab/valve1/1.csv --map flow="Volume Flow RateRMS" --map Pressure
      python -m hw_sim replay skab/valve1/1.csv --wire modbus --wire serial --map serial:Current
      python -m hw_sim replay nab/realKnownCause/nyc_taxi.csv --windows nab/combined_windows.json --speed max
      python -m hw_sim replay tep/d01_te.csv --period 3min --labelled-rows 160.. --wire opcua --speed 600
      python -m hw_sim replay tsb/NAME.csv --wire modbus --rows 2000.. --fault modbus.silence@60s..70s
    """  # noqa: D301 - click's mark of lines that shall stay as they are
    said = _said(label_columns=label_columns, period=period, **reading)
    with told():
        try:
            playing = Playing(
                plant.read(plant.Settings.model_validate({"file": file, **said})),
                wires=wires_of(wires, lines),
                lines=lines,
                topic=topic or "",
                encoding=cast("Encoding", encoding),
            )
            document = playing.document(said)
        except MapError as error:
            raise click.UsageError(str(error)) from error
        except ValidationError as error:
            (wrong, *_) = error.errors()
            raise click.UsageError(f"{wrong['loc'][0]}: {wrong['msg']}") from error
        for override in overrides:
            scenario.override(document, override)
        found = moved(scenario.of(document, scenario.Origin("replay")), any_port=any_port, links=links)
        found = replace(found, speed=speed or found.speed)
        outputs = Outputs(labels=labels or Path(os.devnull), trace=trace, control=control, as_json=as_json)
        if linger is None:
            linger = _LINGER_S if math.isinf(found.speed) else 0.0
        desk = Desk(playing, as_json=as_json, hold_s=hold or 0.0, linger_s=linger, loop=bool(reading["loop"]))
        desk.tell_record()
        station = asyncio.run(
            operate(
                found,
                outputs,
                faults=faults,
                until_stdin_closes=until_stdin_closes,
                around=desk.around,
                watch=desk.watch,
            )
        )
    desk.tell_summary(station)


def _said(
    *,
    label_columns: tuple[str, ...],
    period: float | None,
    time: str | None,
    windows: Path | None,
    labelled_rows: tuple[str, ...],
    **plain: Any,
) -> Mapping[str, Any]:
    """What the options say of the plant, by the keys that a scenario has for it."""
    said = {key: value for key, value in plain.items() if value}
    said |= {"labels": list(label_columns)} if label_columns else {}
    said |= {} if period is None else {"period": written(period)}
    said |= {} if time is None else {"time": time}
    said |= {"windows": str(windows.absolute())} if windows else {}
    return said | {"labelled_rows": list(labelled_rows)}
