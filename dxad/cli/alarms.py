"""`dxad alarms`: what is held against limits, and what people decide about it."""

from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from dxad.cli.options import as_json, hand_down, to_daemon

if TYPE_CHECKING:
    from dxad.types import Document

__all__ = ["alarms"]

_STYLES: Final = {
    "unacknowledged": "bold red",
    "acknowledged": "red",
    "latched": "red",
    "returned": "yellow",
    "shelved": "cyan",
    "suppressed": "dim",
    "out_of_service": "cyan",
    "normal": "dim",
}


@click.group(
    invoke_without_command=True,
    epilog="Example: dxad alarms shelve pump.plc.pressure.high --for 1h",
)
@as_json
@to_daemon
@click.pass_context
def alarms(context: click.Context, socket: Path, as_json: bool) -> None:
    """Show all alarms, or do something about one of them.

    An alarm is known by its id: the pipeline's name and `score`, `sensor`, or a limit of a channel. To change
    one is for root, the daemon's own user and the admin group.
    """
    if context.invoked_subcommand is not None:
        hand_down(context)
        return
    from dxad.client import SyncClient

    found = SyncClient(socket).alarms()
    if as_json:
        import orjson

        click.echo(orjson.dumps({"alarms": found}, option=orjson.OPT_INDENT_2))
    else:
        _print(found)


def _print(found: "list[Document]") -> None:
    from rich.console import Console

    from dxad.cli.cells import number, table, text

    made = table("ALARM", "STATE", ">WORST", ">LIMIT", "UNIT", "SEVERITY", "")
    for each in found:
        remarks = [
            "pending" if each.get("pending") else "",
            "inhibited" if each.get("inhibited") else "",
            _until(each.get("shelved_until_utc_ns")),
        ]
        state = str(each.get("state", ""))
        made.add_row(
            text(each.get("id", "")),
            text(state, _STYLES.get(state, "")),
            number(each.get("worst")),
            number(each.get("limit")),
            text(each.get("unit", "")),
            text(each.get("severity", "")),
            text(", ".join(filter(None, remarks))),
        )
    Console().print(made)


def _until(utc_ns: int | None) -> str:
    from dxad.event import rfc3339

    return "" if utc_ns is None else f"until {rfc3339(utc_ns)[:19]}Z"


def _does(name: str, action: str, text: str) -> click.Command:
    """A command that does one thing to one alarm."""

    @click.command(name, help=text)
    @click.argument("alarm", metavar="ID")
    @to_daemon
    def acts(socket: Path, alarm: str) -> None:
        _act(socket, alarm, action, None)

    return acts


@alarms.command(epilog="Example: dxad alarms shelve pump.score --for 30min")
@click.argument("alarm", metavar="ID")
@click.option("--for", "for_", metavar="DURATION", required=True, help="How long, a week at most: 30min, 8h.")
@to_daemon
def shelve(socket: Path, alarm: str, for_: str) -> None:
    """Tell nothing of an alarm for a while: it opens no incident, and what it would have told is counted."""
    _act(socket, alarm, "shelve", for_)


def _act(socket: Path, alarm: str, action: str, for_: str | None) -> None:
    from dxad.cli.cells import plain
    from dxad.client import SyncClient

    now = SyncClient(socket).act(alarm, action, for_=for_)
    click.echo(plain(f"{alarm} is {now['state']} {_until(now.get('shelved_until_utc_ns'))}").rstrip())


for _name, _action, _help in (
    ("ack", "ack", "Say that somebody has seen an alarm."),
    ("unshelve", "unshelve", "Tell of an alarm again, at once if it lasts."),
    ("out-of-service", "out_of_service", "Do not look at an alarm until it is put into service again."),
    ("in-service", "in_service", "Look at an alarm again, as if nothing had been seen before."),
):
    alarms.add_command(_does(_name, _action, _help))
