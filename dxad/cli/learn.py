"""`dxad learn`: have a pipeline learn anew what is normal."""

from pathlib import Path

import click

from dxad.cli.options import to_daemon

__all__ = ["learn"]


@click.command(epilog="Example: dxad learn pump --span 1h")
@click.argument("pipeline")
@click.option("--span", metavar="DURATION", help="How much to learn from: 20s, 1h.  [default: as configured]")
@to_daemon
def learn(socket: Path, pipeline: str, span: str | None) -> None:
    """Have PIPELINE learn anew what is normal.

    It learns from the rows that come now, so let the plant run as it should until `dxad status` shows the new
    model; until then, the old one goes on. For root, the daemon's own user and the admin group.
    """
    from dxad.client import SyncClient

    answer = SyncClient(socket).learn(pipeline, span)
    click.echo(f"{pipeline} learns from the next {answer['of_rows']:,} rows in which nothing is missing")
