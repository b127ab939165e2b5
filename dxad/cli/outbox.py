"""`dxad outbox`: what waits to be delivered, why, and what was given up; also of a daemon that is down."""

import functools
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from dxad.cli.options import as_json, asked_in_vain, hand_down, socket_of, to_daemon, to_socket

if TYPE_CHECKING:
    from dxad.cli.outboxlook import Asked, Look
    from dxad.types import Document

__all__ = ["outbox"]

_FILE: Final = click.Path(path_type=Path, dir_okay=False)
_PAGE: Final = 500
_LANES: Final = click.Choice(["critical", "normal", "bulk"])


def _to_outbox(command: Callable[..., None]) -> Callable[..., None]:
    """For a command that looks: it gets `where`, the arguments of `outboxlook.look`."""

    @to_socket
    @click.option("-c", "--config", type=_FILE, help="Take socket and file from this configuration.")
    @click.option("--file", type=_FILE, help="Look at this file, whether or not a daemon runs.")
    @functools.wraps(command)
    def asking(
        *args: Any, socket: Path | None, config: Path | None, file: Path | None, **others: Any
    ) -> None:
        with asked_in_vain():
            where = {"socket": socket_of(socket, config), "file": file, "of_config": _file_of(config)}
            command(*args, where=where, **others)

    return asking


def _file_of(config: Path | None) -> Path | None:
    if config is None:
        return None
    from dxad.config import load

    found = load(config)
    return found.state_dir / found.outbox.path


@click.group(
    invoke_without_command=True,
    epilog="Example: dxad outbox -c /etc/dxad/dxad.toml   (reads the file while the daemon is down)",
)
@as_json
@click.option("--watch", is_flag=True, help="Look again each second, until Ctrl-C; with --json, a line each.")
@_to_outbox
@click.pass_context
def outbox(context: click.Context, where: "dict[str, Any]", as_json: bool, watch: bool) -> None:
    """Show what waits to be delivered, for whom, since when and why.

    By the daemon's socket; or, while no daemon answers, from its file, which is never written.
    """
    if context.invoked_subcommand is not None:
        hand_down(context)
        return
    if watch:
        with suppress(KeyboardInterrupt):
            _watch(where, as_json=as_json)
        return
    from dxad.cli.outboxlook import look

    with look(**where) as found:
        told = found.overview()
    if as_json:
        _echo_json(told)
    else:
        _print(_picture(told, {}), where=found.where if "outbox" not in told else "")


def _watch(where: "dict[str, Any]", *, as_json: bool) -> None:
    import orjson
    from rich.console import Console
    from rich.live import Live

    from dxad.cli.outboxlook import look

    if as_json:
        with look(**where) as found:
            while True:
                click.echo(orjson.dumps(found.overview()))
                time.sleep(1.0)

    most: dict[str, int] = {}
    with look(**where) as found, Live(console=Console(), auto_refresh=False) as live:
        while True:
            live.update(_picture(found.overview(), most), refresh=True)
            time.sleep(1.0)


def _picture(told: "Document", most: "dict[str, int]") -> Any:
    from dxad.cli.outboxview import overview

    for name, each in told["overview"]["sinks"].items():
        most[name] = max(most.get(name, 0), each["pending"])
    return overview(told, now_utc=time.time_ns(), most=most)


def _about_records(command: Callable[..., None]) -> Callable[..., None]:
    """Which records."""
    for option in (
        click.option("--sink", help="Only what this sink does not have yet."),
        click.option("--until", metavar="TIME", help="Likewise; not included."),
        click.option("--since", metavar="TIME", help="From then on: 2h (ago), or 2026-11-25T08:30:00Z."),
        click.option("--type", "type_", metavar="PATTERN", help="Of these types: dxad.incident.*"),
        click.option("--lane", type=_LANES, help="Of this lane."),
    ):
        command = option(command)
    return command


@outbox.command(epilog="Example: dxad outbox peek --type 'dxad.incident.*' --since 2h")
@_about_records
@click.option("--after", type=int, default=None, help="The seq to go on behind.  [default: the last LIMIT]")
@click.option("-n", "--limit", type=click.IntRange(1, _PAGE), default=20, show_default=True)
@click.option("--id", "id_", help="One event, whole.")
@as_json
@_to_outbox
def peek(
    where: "dict[str, Any]",
    as_json: bool,
    id_: str | None,
    limit: int,
    after: int | None,
    lane: str | None,
    type_: str | None,
    since: str | None,
    until: str | None,
    sink: str | None,
) -> None:
    """Show events as they are stored, without taking any."""
    from dxad.cli.outboxlook import Asked, look

    with look(**where) as found:
        if id_ is not None:
            _echo_json(found.record(id_))
            return
        asked = Asked(lane=lane, type=type_, since=since, until=until, sink=sink)
        if after is None:
            after = 0 if any(asked.values()) else -limit
        page = _filled(found, asked, after=after, limit=limit)
    if as_json:
        _echo_json(page)
        return
    from dxad.cli.outboxview import records_table

    _print(records_table(page["records"]), where=found.where)
    if page["damaged"]:
        click.echo(f"{page['damaged']} damaged records were passed over", err=True)
    if page["next"] is not None:
        click.echo(f"there may be more: --after {page['next']}", err=True)


def _filled(found: "Look", asked: "Asked", *, after: int, limit: int) -> "Document":
    """So many records, if there are: a page may end before, where few of those looked at are wanted."""
    records: list[Document] = []
    damaged = 0
    following: int | None = after
    while following is not None and len(records) < limit:
        page = found.page(asked, after=following, limit=limit - len(records), whole=False)
        records += page["records"]
        damaged, following = damaged + page["damaged"], page["next"]
    return {"records": records, "next": following, "damaged": damaged}


@outbox.command(epilog="Example: dxad outbox replay --since 2h --sink reasoning --dry-run")
@click.option("--since", metavar="TIME", required=True, help="2h (ago), or 2026-11-25T08:30:00Z.")
@click.option("--until", metavar="TIME", help="Likewise; not included.")
@click.option("--sink", required=True, help="Who is to have them again.")
@click.option("--lane", "lanes", type=_LANES, multiple=True, help="Only these lanes.")
@click.option("--dry-run", is_flag=True, help="Only say how many there are.")
@as_json
@to_daemon
def replay(
    socket: Path,
    as_json: bool,
    since: str,
    until: str | None,
    sink: str,
    lanes: tuple[str, ...],
    dry_run: bool,
) -> None:
    """Offer a sink again what it has had since a time, after all that is new.

    The ids are the same, so that a receiver can tell. What has left the outbox cannot be offered: `keep` in
    the configuration says how long delivered events stay. For root, the daemon's own user and the admin
    group.
    """
    from dxad.client import SyncClient

    found = SyncClient(socket).run(
        lambda client: client.outbox.replay(sink, since, until=until, lanes=lanes, dry_run=dry_run)
    )
    if as_json:
        _echo_json(found)
    else:
        verb = "would be offered" if dry_run else "will be offered"
        from dxad.cli.cells import count

        click.echo(f"{count(found['records'], 'event')} {verb} to {sink} again")


@outbox.group("dead-letter", epilog="Example: dxad outbox dead-letter retry --sink reasoning")
def dead_letter() -> None:
    """List, show, retry or drop what a sink refused too often, or what was damaged on disk."""


@dead_letter.command("list", epilog="Example: dxad outbox dead-letter list --sink reasoning")
@click.option("--sink", help="Of this sink.")
@click.option("--reason", metavar="TEXT", help="With this in the reason.")
@click.option("--after", type=int, default=0, help="The number to go on behind.")
@click.option("-n", "--limit", type=click.IntRange(1, _PAGE), default=50, show_default=True)
@as_json
@_to_outbox
def list_(
    where: "dict[str, Any]",
    as_json: bool,
    limit: int,
    after: int,
    sink: str | None,
    reason: str | None,
) -> None:
    """List dead letters, the oldest first."""
    from dxad.cli.outboxlook import look

    with look(**where) as found:
        page = found.letters(after=after, limit=limit, sink=sink, reason=reason, whole=False)
    if as_json:
        _echo_json(page)
        return
    from dxad.cli.outboxview import letters_table

    _print(letters_table(page["letters"]), where=found.where)
    if page["next"] is not None:
        click.echo(f"there are more: --after {page['next']}", err=True)


@dead_letter.command(epilog="Example: dxad outbox dead-letter show 17")
@click.argument("number", type=int)
@_to_outbox
def show(where: "dict[str, Any]", number: int) -> None:
    """Print one dead letter as JSON, with its event."""
    from dxad.cli.outboxlook import look
    from dxad.errors import RequestRefusedError

    with look(**where) as found:
        page = found.letters(after=number - 1, limit=1, sink=None, reason=None, whole=True)
    if not page["letters"] or page["letters"][0]["number"] != number:
        raise RequestRefusedError(404, f"there is no dead letter {number}")
    _echo_json(page["letters"][0])


def _does(name: str, text: str, told: Callable[["Document"], str]) -> click.Command:
    """A command that does something to dead letters."""

    @click.command(name, help=text, epilog=f"Example: dxad outbox dead-letter {name} 17 18")
    @click.argument("numbers", type=int, nargs=-1)
    @click.option("--sink", help="All of this sink.")
    @click.option("--reason", metavar="TEXT", help="All with this in the reason.")
    @click.option("--all", "everything", is_flag=True, help="All there are.")
    @as_json
    @to_daemon
    def does(
        socket: Path,
        as_json: bool,
        numbers: tuple[int, ...],
        sink: str | None,
        reason: str | None,
        everything: bool,
    ) -> None:
        if not (numbers or sink or reason or everything):
            raise click.UsageError("which? give numbers, --sink, --reason or --all")
        from dxad.client import SyncClient

        found = SyncClient(socket).run(
            lambda client: getattr(client.outbox, name)(
                numbers=numbers, sink=sink, reason=reason or "", all=everything
            )
        )
        if as_json:
            _echo_json(found)
        else:
            click.echo(told(found))

    return does


def _retried(found: "Document") -> str:
    stay = [f"{each['number']} stays: {each['reason']}" for each in found["stay"]]
    return "\n".join([f"{_letters(found['retried'])} will be offered again", *stay])


def _dropped(found: "Document") -> str:
    return f"{_letters(found['dropped'])} {'is' if found['dropped'] == 1 else 'are'} gone"


def _letters(n: int) -> str:
    from dxad.cli.cells import count

    return count(n, "dead letter")


dead_letter.add_command(
    _does("retry", "Offer dead letters to their sinks again, as if never refused.", _retried)
)
dead_letter.add_command(_does("drop", "Delete dead letters for good.", _dropped))


@outbox.command(epilog="Example: dxad outbox export -o events.jsonl --since 7d")
@click.option("-o", "--output", type=_FILE, required=True, help="The file; - is standard output.")
@click.option("--format", "format_", type=click.Choice(["jsonl", "csv"]), default="jsonl", show_default=True)
@click.option("--dead-letters", is_flag=True, help="The dead letters instead.")
@click.option("--force", is_flag=True, help="Replace a file that is there.")
@_about_records
@_to_outbox
def export(
    where: "dict[str, Any]",
    output: Path,
    format_: str,
    dead_letters: bool,
    force: bool,
    lane: str | None,
    type_: str | None,
    since: str | None,
    until: str | None,
    sink: str | None,
) -> None:
    """Write events into a file: CloudEvents as JSON lines, or a table.

    Also from the file of a daemon that is down, and from a damaged one that was set aside (--file): what can
    be read is written, what cannot is counted.
    """
    from dxad.cli.outboxexport import Export
    from dxad.cli.outboxlook import Asked, look

    if str(output) != "-" and output.exists() and not force:
        raise click.UsageError(f"{output} is there; --force replaces it")
    with look(**where, save=True) as found:
        asked = Asked(lane=lane, type=type_, since=since, until=until, sink=sink)
        pages = _letter_pages(found, sink) if dead_letters else _pages(found, asked)
        made = Export(output, format_, dead_letters=dead_letters)
        try:
            made.write(pages)
        except OSError as error:
            raise click.FileError(str(output), error.strerror) from error
    click.echo(made.told, err=True)


def _pages(found: "Look", asked: "Asked") -> "Iterator[tuple[list[Document], int]]":
    following: int | None = 0
    yield [], found.damaged
    while following is not None:
        page = found.page(asked, after=following, limit=_PAGE, whole=True)
        yield page["records"], page["damaged"]
        following = page["next"]


def _letter_pages(found: "Look", sink: str | None) -> "Iterator[tuple[list[Document], int]]":
    following: int | None = 0
    while following is not None:
        page = found.letters(after=following, limit=_PAGE, sink=sink, reason=None, whole=True)
        yield page["letters"], 0
        following = page["next"]


def _echo_json(document: "Document") -> None:
    import orjson

    click.echo(orjson.dumps(document, option=orjson.OPT_INDENT_2))


def _print(picture: Any, *, where: str) -> None:
    from rich.console import Console

    console = Console()
    console.print(picture)
    if where.startswith("the file"):
        click.echo(f"read from {where}", err=True)
