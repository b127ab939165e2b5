"""What the commands of the first hour have in common: they look for a while, and show it live."""

import asyncio
import re
import signal
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from dxad.cli.options import MISTAKE, UNREACHABLE, tell
from dxad.errors import ConfigError, NotConnected

if TYPE_CHECKING:
    from rich.console import Console
    from rich.status import Status

    from dxad.commissioning import Patience

__all__ = ["Shown", "hand_over", "into_file", "named", "seconds", "watch"]

_T = TypeVar("_T")
_IDENTIFIER: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")

into_file = click.option(
    "-o", "--output", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
    help="Write the configuration there, too; a file that is there already is kept.",
)  # fmt: skip


def _name(_context: click.Context, _option: click.Parameter, value: str) -> str:
    if not _IDENTIFIER.fullmatch(value):
        raise click.BadParameter(f"{value!r}: letters, digits, _ and -, 64 at most")
    return value


def named(default: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """For a command that proposes a source: it gets `name`."""
    return click.option(
        "--name", default=default, show_default=True, callback=_name, help="Of the source in the fragment."
    )


def seconds(given: str, option: str) -> float:
    """A duration of the command line.

    Raises:
        ConfigError: it is none.
    """
    from dxad.cli.backtest import nanoseconds

    return (nanoseconds(given, option) or 0) / 1e9


class Shown:
    """A Watcher on a terminal's standard error: what is seen stays, what is done is one line that changes."""

    def __init__(self, console: "Console", status: "Status") -> None:
        self._console = console
        self._status = status

    def doing(self, what: str) -> None:
        """Replace the line."""
        from dxad.cli.cells import text

        self._status.update(text(what))

    def seen(self, what: str) -> None:
        """Leave a line."""
        from dxad.cli.cells import text

        self._console.print(text(what))


@contextmanager
def _shown() -> Iterator[Shown]:
    from rich.console import Console

    console = Console(stderr=True)
    status = console.status("")
    if not console.is_terminal:
        yield Shown(console, status)
        return
    with status:
        yield Shown(console, status)


def watch(work: Callable[["Patience", Shown], Awaitable[_T]], seconds: float) -> _T:
    """Do it within so many seconds; Ctrl-C ends it, and what was found until then counts.

    A mistake exits with 2, a peer that is not there with 3.
    """
    try:
        with _shown() as shown:
            return asyncio.run(_watched(work, seconds, shown))
    except ConfigError as error:
        tell(error)
        sys.exit(MISTAKE)
    except NotConnected as error:
        click.echo(f"dxad: {error}", err=True)
        sys.exit(UNREACHABLE)


async def _watched(work: Callable[["Patience", Shown], Awaitable[_T]], seconds: float, shown: Shown) -> _T:
    from dxad.commissioning import Patience

    patience = Patience(seconds)
    with _interrupted(patience.stop):
        return await work(patience, shown)


@contextmanager
def _interrupted(stop: Callable[[], None]) -> Iterator[None]:
    """Ctrl-C calls `stop`; on another thread than the first there is no such thing."""
    loop = asyncio.get_running_loop()
    main = threading.current_thread() is threading.main_thread()
    numbers = (signal.SIGINT, signal.SIGTERM) if main else ()
    for number in numbers:
        loop.add_signal_handler(number, stop)
    try:
        yield
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)


def hand_over(fragment: str, output: Path | None, *, silent: bool = False, **document: Any) -> None:
    """Print the fragment, or the whole document instead, and write the fragment into a file."""
    if silent:
        import orjson

        click.echo(orjson.dumps({**document, "fragment": fragment}, option=orjson.OPT_INDENT_2))
    else:
        click.echo()
        click.echo(fragment, nl=False)
    if output is None:
        return
    try:
        with output.open("x") as file:
            file.write(fragment)
    except FileExistsError:
        click.echo(f"dxad: {output} is there already, and was kept", err=True)
        sys.exit(MISTAKE)
    except OSError as error:
        click.echo(f"dxad: {output}: {error.strerror}", err=True)
        sys.exit(MISTAKE)
