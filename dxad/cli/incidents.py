"""`dxad incidents`: what was found, with its evidence."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from dxad.cli.options import as_json, hand_down, to_daemon

if TYPE_CHECKING:
    from dxad.types import Document

__all__ = ["incidents"]


@click.group(invoke_without_command=True, epilog="Example: dxad incidents show ID --window rows.csv")
@as_json
@to_daemon
@click.pass_context
def incidents(context: click.Context, socket: Path, as_json: bool) -> None:
    """Show what was found, with its evidence.

    These are the incidents that are open and the last hundred that are over, since the daemon began.
    """
    if context.invoked_subcommand is not None:
        hand_down(context)
        return
    from dxad.client import SyncClient

    found = SyncClient(socket).incidents()
    if as_json:
        _dump({"incidents": found})
        return
    from rich.console import Console

    from dxad.cli.cells import duration, number, table, text

    made = table(
        "INCIDENT", "STATE", "PIPELINE", "KIND", "SEVERITY", "ONSET", ">LASTED", ">PEAK", "FIRST OUT"
    )
    for each in found:
        is_open = each.get("state") == "open"
        made.add_row(
            text(each["incident"]),
            text(each.get("state", ""), "bold red" if is_open else "dim"),
            text(each.get("pipeline", "")),
            text(each.get("kind", "")),
            text(each.get("severity", "")),
            text(_time(each["onset_utc_ns"])),
            "" if is_open else duration(each.get("after_onset_s")),
            number(each.get("peak_score")),
            text(_first_out(each)),
        )
    Console(width=None if made.row_count == 0 else max(Console().width, 150)).print(made)


@incidents.command(epilog="Example: dxad incidents show 5b0c --json | jq .contributors")
@click.argument("incident", metavar="ID")
@click.option(
    "--window", type=click.Path(path_type=Path, dir_okay=False, writable=True), metavar="FILE.csv",
    help="Write the rows around it to this file; they are stored some time after it is over.",
)  # fmt: skip
@as_json
@to_daemon
def show(socket: Path, incident: str, window: Path | None, as_json: bool) -> None:
    """Show all that was told of an incident; the head of its ID will do, where there is one such."""
    from dxad.client import SyncClient

    client = SyncClient(socket)
    heads = [each["incident"] for each in client.incidents() if each["incident"].startswith(incident)]
    incident = heads[0] if len(heads) == 1 else incident
    rows = None if window is None else client.window_csv(incident)
    found = client.incident(incident) if window is None or as_json else None
    if window is not None and rows is not None:
        window.write_text(rows)
        click.echo(f"{window}: {max(0, rows.count(chr(10)) - 1):,} rows", err=as_json)
    if found is not None and as_json:
        _dump(found)
    elif found is not None:
        _print(found)


def _print(found: "Document") -> None:
    from rich.console import Console
    from rich.text import Text

    from dxad.cli.cells import duration, number, table, text

    console = Console()
    facts = f"{found.get('kind', '')} incident, {found.get('severity', '')}, {found.get('state', '')}"
    console.print(Text.assemble((text(found.get("pipeline", ""), "bold")), "  ", text(facts)))
    lines = {
        "onset": _time(found["onset_utc_ns"]),
        "told last": f"{found.get('phase', '')} {duration(found.get('after_onset_s'))} after the onset",
        "first out": _first_out(found),
        "score": f"peak {number(found.get('peak_score'))}, limit {number(found.get('limit'))}",
        "cells": ", ".join(f"{share:.1%} {name}" for name, share in found.get("quality", {}).items()),
        "model": found.get("model") or "none",
        "configuration": found.get("config", ""),
    }
    grid = table()
    for name, value in lines.items():
        grid.add_row(text(name, "dim"), text(value))
    console.print(grid)
    alarms = table("ALARM", ">AFTER", ">WORST", ">LIMIT", "UNIT", "")
    for each in found.get("alarms", ()):
        alarms.add_row(
            text(each["id"]), duration(each.get("after_onset_s")), number(each.get("worst")),
            number(each.get("limit")), text(each.get("unit", "")),
            text("over" if each.get("cleared") else ""),
        )  # fmt: skip
    channels = table("CHANNEL", ">SHARE", ">SEEN", ">TYPICALLY", "UNIT", "")
    for each in found.get("contributors", ()):
        channels.add_row(
            text(each["channel"]), f"{each.get('share', 0.0):.0%}", number(each.get("seen")),
            number(each.get("typical")), text(each.get("unit", "")), text(each.get("trouble", "")),
        )  # fmt: skip
    for each in (alarms, channels):
        if each.row_count:
            console.print()
            console.print(each)


def _first_out(found: "Document") -> str:
    first = found.get("first_out") or {}
    channel = first.get("channel") or ""
    alarm = str(first.get("alarm") or "")
    return alarm if channel in alarm else f"{alarm} ({channel})"


def _time(utc_ns: int) -> str:
    from dxad.event import rfc3339

    return f"{rfc3339(utc_ns)[:19]}Z"


def _dump(document: "Document") -> None:
    import orjson

    click.echo(orjson.dumps(document, option=orjson.OPT_INDENT_2))
