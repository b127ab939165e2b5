"""`dxad tail`: events as they come."""

import asyncio
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dxad.cli.options import as_json, to_daemon

if TYPE_CHECKING:
    from collections.abc import Callable

    from dxad.types import Document

__all__ = ["tail"]


def _many(name: str, of: str, text: str) -> "Callable[[Callable[..., None]], Callable[..., None]]":
    return click.option(f"--{name}", of, metavar="PATTERN", multiple=True, help=text)


@click.command(epilog="Example: dxad tail -n 20 --type 'dxad.incident.*' --severity high --severity critical")
@click.option(
    "-n", "--lines", type=click.IntRange(0, 10_000), metavar="N",
    help="Begin with so many that are stored.  [default: 10, or with --since all since then]",
)  # fmt: skip
@click.option("--since", metavar="TIME", help="Not what is older: 2h, or 2026-11-25T08:30:00Z.")
@_many("type", "types", "Such as 'dxad.incident.*'; these may all be repeated.")
@click.option("--severity", "severities", metavar="SEVERITY", multiple=True, help="Such as high or critical.")
@click.option(
    "--lane", "lanes", type=click.Choice(["critical", "normal", "bulk"]), multiple=True,
    help="[default: critical and normal]",
)  # fmt: skip
@_many("subject", "subjects", "What an event is about: an incident's id, a condition's code and subject.")
@_many("source", "sources", "Where it comes from: '/plant7-gw3/pipelines/*'.")
@_many("pipeline", "pipelines", "The name of the pipeline it comes from.")
@click.option("--retry", is_flag=True, help="When the daemon stops, wait for it, and go on where it was.")
@as_json
@to_daemon
def tail(socket: Path, as_json: bool, lines: int | None, since: str | None, **asked: Any) -> None:
    """Show events as they come, until Ctrl-C or until the daemon stops.

    For looking: nothing is leased, acknowledged or kept for it; an agent that must not miss any uses `dxad
    events`. With --json each line is one CloudEvent. Ends with 0 when the daemon stops, with 3 when it dies.
    """
    if lines is None and since is None:
        lines = 10
    with suppress(KeyboardInterrupt):
        asyncio.run(
            _follow(socket, _printed() if not as_json else _as_json, lines=lines, since=since, **asked)
        )


async def _follow(socket: Path, show: "Callable[[Document], None]", **asked: Any) -> None:
    from dxad.client import Client

    def tell(remark: str) -> None:
        click.echo(f"dxad: {remark}", err=True)

    async with Client(socket) as client:
        async for event in client.tail(told=tell, **asked):
            show(event)
    tell("the daemon has stopped")


def _printed() -> "Callable[[Document], None]":
    from rich.console import Console

    from dxad.cli.tailview import line

    console = Console()

    def show(event: "Document") -> None:
        console.print(line(event), soft_wrap=not console.is_terminal, highlight=False)

    return show


def _as_json(event: "Document") -> None:
    import orjson

    click.echo(orjson.dumps(event))
