"""`dxad reload`: take up an edited configuration without a restart."""

import sys
from pathlib import Path
from typing import Final

import click

from dxad.cli.cells import count, plain
from dxad.cli.options import MISTAKE, as_json, to_daemon

__all__ = ["reload"]

_REFUSED: Final = 422


@click.command(epilog="Example: dxad check -c /etc/dxad/dxad.toml && dxad reload")
@click.option("--dry-run", is_flag=True, help="Only say what would change.")
@as_json
@to_daemon
def reload(socket: Path, dry_run: bool, as_json: bool) -> None:
    """Take up the configuration as it is on disk now.

    What changed is swapped, all else goes on without losing a row. Exit status 0 when it was taken up, or
    nothing is different; 2 if it is refused, with every mistake on a line: then nothing has changed, and the
    configuration before goes on. For root, the daemon's own user and the admin group.
    """
    import orjson

    from dxad.client import SyncClient
    from dxad.errors import RequestRefusedError

    try:
        answer = SyncClient(socket).reload(dry_run=dry_run)
    except RequestRefusedError as error:
        if error.status != _REFUSED:
            raise
        answer = {"applied": False, "problems": str(error).splitlines()}
    if as_json:
        click.echo(orjson.dumps(answer, option=orjson.OPT_INDENT_2))
    elif "problems" in answer:
        for problem in answer["problems"]:
            click.echo(plain(problem), err=True)
    else:
        for line in answer["lines"] or ["nothing changed"]:
            click.echo(plain(line))
        click.echo(f"{count(answer['untouched'], 'node')} untouched")
    sys.exit(MISTAKE if "problems" in answer else 0)
