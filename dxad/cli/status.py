"""`dxad status`: how the daemon is doing, once."""

import sys
from pathlib import Path

import click

from dxad.cli.options import REFUSED, as_json, to_daemon

__all__ = ["status"]


@click.command(epilog="Example: dxad status --json | jq .pipelines.pump.score")
@as_json
@to_daemon
def status(socket: Path, as_json: bool) -> None:
    """Show how the daemon is doing.

    Exit status 0 if all is well with it, 1 while a condition of severity error holds, 3 if it does not
    answer. An incident is no error: it is what dxad is there to find.
    """
    from dxad.client import SyncClient

    document = SyncClient(socket).status()
    if as_json:
        import orjson

        click.echo(orjson.dumps(document, option=orjson.OPT_INDENT_2))
    else:
        from rich.console import Console

        from dxad.cli.view import view

        Console().print(view(document))
    wrong = any(each["severity"] == "error" for each in document["conditions"])
    sys.exit(REFUSED if wrong else 0)
