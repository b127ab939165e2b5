"""`dxad models install, shadow, promote, rollback, dismiss, beside`: which model of a daemon counts."""

from pathlib import Path

import click

from dxad.cli.options import as_json, to_daemon
from dxad.types import Document

__all__ = ["beside", "dismiss", "install", "promote", "rollback", "shadow"]

_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)


def _asked(socket: Path, pipeline: str, verb: str, *, path: str = "", version: str = "") -> Document:
    from dxad.client import SyncClient

    return SyncClient(socket).model(pipeline, verb, path=path, version=version)


def _told(answer: Document, text: str, *, as_json: bool) -> None:
    if as_json:
        import orjson

        click.echo(orjson.dumps(answer, option=orjson.OPT_INDENT_2))
    else:
        click.echo(text.format(**answer))


@click.command(epilog="Example: dxad models install pump /tmp/new-bundle")
@click.argument("pipeline")
@click.argument("bundle", type=_FOLDER)
@as_json
@to_daemon
def install(socket: Path, pipeline: str, bundle: Path, as_json: bool) -> None:
    """Let the model in the folder BUNDLE score for PIPELINE from the next row on.

    It is tried in a process of its own first; a bad one is refused with the reason, and the old one goes on.
    The old one also scores on beside the new one for its probation, and takes over again if the new one
    fails, is too slow, or alarms where the old one does not. For root, the daemon's own user and the admin
    group.
    """
    answer = _asked(socket, pipeline, "install", path=str(bundle.absolute()))
    _told(answer, "{pipeline}: {version} scores from the next row on", as_json=as_json)


@click.command(epilog="Example: dxad models shadow pump /tmp/new-bundle")
@click.argument("pipeline")
@click.argument("bundle", type=_FOLDER)
@as_json
@to_daemon
def shadow(socket: Path, pipeline: str, bundle: Path, as_json: bool) -> None:
    """Let the model in the folder BUNDLE score beside PIPELINE's live one, without any effect.

    `dxad models beside` compares the two; `dxad models promote` lets it count. For root, the daemon's own
    user and the admin group.
    """
    answer = _asked(socket, pipeline, "shadow", path=str(bundle.absolute()))
    _told(answer, "{pipeline}: {version} scores beside the live model from the next row on", as_json=as_json)


@click.command(epilog="Example: dxad models promote pump")
@click.argument("pipeline")
@as_json
@to_daemon
def promote(socket: Path, pipeline: str, as_json: bool) -> None:
    """Let the shadow of PIPELINE count. For root, the daemon's own user and the admin group."""
    answer = _asked(socket, pipeline, "promote")
    _told(answer, "{pipeline}: {version} scores from the next row on", as_json=as_json)


@click.command(epilog="Example: dxad models rollback pump 0003")
@click.argument("pipeline")
@click.argument("version", required=False, default="")
@as_json
@to_daemon
def rollback(socket: Path, pipeline: str, version: str, as_json: bool) -> None:
    """Let the model before PIPELINE's live one count again, or the VERSION of its shelf.

    For root, the daemon's own user and the admin group.
    """
    answer = _asked(socket, pipeline, "rollback", version=version)
    _told(answer, "{pipeline}: {version} scores from the next row on", as_json=as_json)


@click.command(epilog="Example: dxad models dismiss pump")
@click.argument("pipeline")
@as_json
@to_daemon
def dismiss(socket: Path, pipeline: str, as_json: bool) -> None:
    """Let go of the model beside PIPELINE's live one. For root, the daemon's own user and the admin group."""
    _told(_asked(socket, pipeline, "dismiss"), "{pipeline}: one model scores, the live one", as_json=as_json)


@click.command(epilog="Example: dxad models beside pump --json | jq .beside.comparison")
@click.argument("pipeline")
@as_json
@to_daemon
def beside(socket: Path, pipeline: str, as_json: bool) -> None:
    """Compare PIPELINE's live model with the one beside it: a shadow, or the one it has replaced."""
    from dxad.client import SyncClient

    answer = SyncClient(socket).models(pipeline)
    if as_json:
        import orjson

        click.echo(orjson.dumps(answer, option=orjson.OPT_INDENT_2))
        return
    from rich.console import Console

    from dxad.cli.cells import table, text

    found = answer["beside"]
    if found is None:
        click.echo(f"{pipeline}: {answer['live'] or 'no model'} scores alone")
        return
    seen = found["comparison"]
    console = Console()
    console.print(
        text(f"{pipeline}: {answer['live']} counts, {found['version']} is {found['role']} beside it"),
        text(f"{seen['rows']:,} rows compared, of {found['of_rows']:,}"), sep="\n",
    )  # fmt: skip
    console.print()
    shown = table("", ">LIVE", ">BESIDE")
    for label, key in (
        ("share of rows in alarm", "alarm_share"),
        ("mean score, of the limit", "mean_score_of_limit"),
        ("us a row", "us_per_row"),
    ):
        shown.add_row(text(label), *(f"{seen[key][each]:g}" for each in ("live", "beside")))
    console.print(shown)
    console.print()
    both = {"agreement": seen["agreement"], "correlation": seen["correlation"], "failures": seen["failures"]}
    console.print(text(", ".join(f"{key} {'-' if value is None else value}" for key, value in both.items())))
