"""`dxad events`: an agent with a shell leases events, and says when it is done with each."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from dxad.cli.options import REFUSED, as_json, hand_down, to_daemon

if TYPE_CHECKING:
    from dxad.types import Document

__all__ = ["events"]

_WANTS: Final = ("lanes", "types", "severities", "pipelines", "subjects", "sources")


@click.group(
    invoke_without_command=True,
    epilog="Example: dxad events lease agent --type 'dxad.incident.*' --wait 20s",
)
@as_json
@to_daemon
@click.pass_context
def events(context: click.Context, socket: Path, as_json: bool) -> None:
    """Show who leases events, or lease some and say when they are done.

    Each event is given to one agent of a consumer at a time, for as long as its lease lasts; what is neither
    acknowledged nor given back by then is given out again. Whoever may read may lease.
    """
    if context.invoked_subcommand is not None:
        hand_down(context)
        return
    found = _run(socket, "all")
    if as_json:
        _echo_json({"consumers": found})
        return
    from rich.console import Console

    from dxad.cli.cells import duration, table, text

    made = table("CONSUMER", ">WAITING", ">OUT", ">ACKED", ">GIVEN BACK", ">ENDED", ">SILENT", "WANTS")
    for each in found:
        wants = each["wants"]
        what = ", ".join(each for key in _WANTS for each in wants[key])
        made.add_row(
            text(each["name"]), f"{each['waiting']:,}", f"{each['out']:,}", f"{each['acked']:,}",
            f"{each['nacked']:,}", f"{each['expired']:,}", duration(each["silent_s"]), text(what),
        )  # fmt: skip
    Console().print(made)


@events.command(epilog="Example: dxad events lease agent --limit 1 --wait 20s --for 2min")
@click.argument("consumer")
@click.option("-n", "--limit", type=click.IntRange(1, 100), default=10, show_default=True)
@click.option("--for", "lease_", metavar="DURATION", default="30s", show_default=True, help="1s to 1h.")
@click.option("--wait", metavar="DURATION", default="0s", show_default=True, help="For the first; to 60s.")
@click.option("--start", type=click.Choice(["oldest", "now"]), default="oldest", show_default=True)
@click.option("--lane", "lanes", type=click.Choice(["critical", "normal", "bulk"]), multiple=True)
@click.option("--type", "types", metavar="PATTERN", multiple=True, help="dxad.incident.*; may be repeated.")
@click.option("--severity", "severities", multiple=True, help="low, medium, high or critical.")
@click.option("--pipeline", "pipelines", metavar="PATTERN", multiple=True)
@click.option("--subject", "subjects", metavar="PATTERN", multiple=True)
@click.option("--source", "sources", metavar="PATTERN", multiple=True)
@to_daemon
def lease(socket: Path, consumer: str, lease_: str, **asked: Any) -> None:
    """Lease events for CONSUMER, which is made at its first call; prints JSON lines, one for each event.

    Each line has the token `lease`, which `ack`, `nack` and `extend` want, and the `event`. What is said of
    lanes, types, severities and the like stays, until something else is said.
    """
    import orjson

    wants = {key: asked.pop(key) or None for key in _WANTS}
    for each in _run(socket, "lease", consumer, lease=lease_, **asked, **wants):
        click.echo(orjson.dumps(each))


@events.command(epilog="Example: dxad events ack agent TOKEN")
@click.argument("consumer")
@click.argument("tokens", nargs=-1, required=True)
@to_daemon
def ack(socket: Path, consumer: str, tokens: tuple[str, ...]) -> None:
    """Say that events are done: they are not given out again, whatever happens.

    Ends with 1 if a lease had ended before: its event is given out again.
    """
    _tell(_run(socket, "ack", consumer, tokens))


@events.command(epilog="Example: dxad events nack agent TOKEN --reason 'the historian is down' --delay 5min")
@click.argument("consumer")
@click.argument("tokens", nargs=-1, required=True)
@click.option("--reason", required=True, help="Why; it stands in the dead letter if there will be one.")
@click.option("--delay", metavar="DURATION", default="0s", show_default=True, help="Until given out again.")
@to_daemon
def nack(socket: Path, consumer: str, tokens: tuple[str, ...], reason: str, delay: str) -> None:
    """Give events back: they are given out again, and become dead letters the tenth time.

    Or the `max_attempts`-th, where [consumers.CONSUMER] says so.
    """
    _tell(_run(socket, "nack", consumer, tokens, reason, delay=delay))


@events.command(epilog="Example: dxad events extend agent TOKEN --for 5min")
@click.argument("consumer")
@click.argument("tokens", nargs=-1, required=True)
@click.option("--for", "lease_", metavar="DURATION", default="30s", show_default=True, help="From now.")
@to_daemon
def extend(socket: Path, consumer: str, tokens: tuple[str, ...], lease_: str) -> None:
    """Say that events need longer."""
    _tell(_run(socket, "extend", consumer, tokens, lease=lease_))


@events.command(epilog="Example: dxad events drop agent")
@click.argument("consumer")
@to_daemon
def drop(socket: Path, consumer: str) -> None:
    """Keep nothing for CONSUMER any more; for root, the daemon's own user and the admin group."""
    _echo_json(_run(socket, "drop", consumer))


def _run(socket: Path, verb: str, *words: Any, **more: Any) -> Any:
    from dxad.client import SyncClient

    return SyncClient(socket).run(lambda client: getattr(client.consumers, verb)(*words, **more))


def _tell(done: "Document") -> None:
    """Print what was done; a lease that had ended is a failure: its event is, or was, with another agent."""
    _echo_json(done)
    if done["stale"]:
        from dxad.cli.cells import count

        click.echo(
            f"dxad: {count(len(done['stale']), 'lease')} had ended, and nothing was done for it", err=True
        )
        sys.exit(REFUSED)


def _echo_json(document: "Document") -> None:
    import orjson

    click.echo(orjson.dumps(document, option=orjson.OPT_INDENT_2))
