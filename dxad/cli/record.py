"""`dxad record`: rows of the running daemon into a file that `dxad replay` reads."""

import asyncio
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

import click

from dxad.cli.options import to_daemon

if TYPE_CHECKING:
    from dxad.client import Client
    from dxad.recording.tape import Tape
    from dxad.recording.write import Writer

__all__ = ["record"]

_POLL_S: Final = 0.5
_AWAY_S: Final = 1.0
"""Between two looks whether a daemon that went away is back."""
_SUFFIXES: Final = (".csv", ".npz", ".jsonl")
_OVERTIME_S: Final = 5.0
"""How long after the end a last answer may take."""


@click.command(epilog="Example: dxad record -o week.csv --for 7d")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path, dir_okay=False), default=Path("rec.csv"),
    show_default=True, help="The file: .csv, .npz or .jsonl.",
)  # fmt: skip
@click.option(
    "--source", "sources", multiple=True, metavar="NAME", help="A source; several times.  [default: all]"
)
@click.option("--pipeline", metavar="NAME", help="Instead, a pipeline's rows, as its model sees them.")
@click.option("--for", "span", metavar="DURATION", help="How long.  [default: until Ctrl-C]")
@click.option("--force", is_flag=True, help="Replace the file, if there is one.")
@to_daemon
def record(
    socket: Path,
    output: Path,
    sources: tuple[str, ...],
    pipeline: str | None,
    span: str | None,
    force: bool,
) -> None:
    """Write rows from the running daemon into a file.

    From now on, as they are sealed. It goes on when the daemon is restarted; rows that are lost meanwhile are
    counted and told. What is written of sources, dxad replay reads.
    """
    from dxad.cli.backtest import nanoseconds

    if sources and pipeline is not None:
        raise click.UsageError("--source and --pipeline exclude each other")
    if output.suffix not in _SUFFIXES:
        raise click.UsageError(f"{output}: write {', '.join(_SUFFIXES[:-1])} or {_SUFFIXES[-1]}")
    if output.exists() and not force:
        raise click.UsageError(f"{output} is there already; --force replaces it")
    kind: Literal["sources", "pipelines"] = "sources" if pipeline is None else "pipelines"
    names = sources if pipeline is None else (pipeline,)
    rows, lost = asyncio.run(_record(socket, output, kind, names, nanoseconds(span, "--for")))
    click.echo(f"{output}: {rows:,} rows" + (f"; {lost:,} rows were lost" if lost else ""))


async def _record(
    socket: Path,
    output: Path,
    kind: Literal["sources", "pipelines"],
    names: Sequence[str],
    span_ns: int | None,
) -> tuple[int, int]:
    from dxad.client import Client
    from dxad.recording.tape import Tape, Track, Wall
    from dxad.recording.write import open_writer

    async with Client(socket) as client:
        if not names:
            names = list((await client.status())["sources"])
        heads = {name: await client.rows(kind, name, limit=0) for name in names}
        wall = Wall()
        tape = Tape([Track(name, head, wall) for name, head in heads.items()])
        with ExitStack() as stack:
            writer = open_writer(output, tape.columns)
            stack.callback(writer.close)
            stop = stack.enter_context(_interrupted())
            run = _Run(client, kind, tape, writer, stop)
            await run.until(None if span_ns is None else tape.begin_utc + span_ns, span_ns)
        return run.rows, tape.lost


@contextmanager
def _interrupted() -> Iterator[asyncio.Event]:
    """Ctrl-C ends the recording, and the file is made whole."""
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    try:
        yield stop
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


class _Run:
    """Follows the daemon."""

    def __init__(
        self,
        client: "Client",
        kind: Literal["sources", "pipelines"],
        tape: "Tape",
        writer: "Writer",
        stop: asyncio.Event,
    ) -> None:
        self.rows = 0
        self._client = client
        self._kind = kind
        self._tape = tape
        self._writer = writer
        self._stop = stop
        self._away = False

    async def until(self, end_utc: int | None, span_ns: int | None) -> None:
        """Record until that time, or until stopped."""
        from dxad.cli.backtest import progress

        give_up = None if span_ns is None else time.monotonic() + span_ns / 1e9 + _OVERTIME_S
        with progress() as shown:
            while not self._stop.is_set():
                more = await self._fetch()
                self._write(end_utc)
                shown(self.rows)
                reached = min(track.reached for track in self._tape.tracks)
                if end_utc is not None and reached >= end_utc:
                    break
                if give_up is not None and time.monotonic() > give_up:
                    break
                if not more:
                    await self._pause(_AWAY_S if self._away else _POLL_S)
        self._write(end_utc)

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stop.wait()
        except TimeoutError:
            pass

    async def _fetch(self) -> bool:
        """One question for each track; whether there is more at once."""
        from dxad.errors import RequestRefusedError, ResourceUnavailableError

        more = False
        try:
            for track in self._tape.tracks:
                answer = await self._client.rows(self._kind, track.name, start=track.cursor)
                track.take(answer)
                more |= answer["next"] < answer["sealed"]
        except RequestRefusedError:
            raise
        except ResourceUnavailableError as error:
            if not self._away:
                click.echo(f"dxad: {error}; waiting for it to come back", err=True)
            self._away = True
            return False
        self._away = False
        return more

    def _write(self, end_utc: int | None) -> None:
        times, values, states = self._tape.ready(end_utc)
        if len(times):
            self._writer.rows(times, values, states)
            self.rows += len(times)
