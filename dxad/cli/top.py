"""`dxad top`: how the daemon is doing, live."""

import asyncio
import itertools
import time
from collections import deque
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Final

import click
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from dxad.cli.options import to_daemon
from dxad.cli.view import line, view
from dxad.client import Client
from dxad.errors import ResourceUnavailableError
from dxad.types import Document

__all__ = ["top"]

_RATES_OVER: Final = 6
"""Looks: with one a second, rates are of the last five seconds."""


@click.command(epilog="Example: dxad top -n 60 >> top.log")
@click.option("-n", "--count", type=click.IntRange(min=1), help="Stop after so many looks.")
@click.option(
    "--every", type=click.FloatRange(min=0.1), default=1.0, show_default=True, help="Seconds between looks."
)
@to_daemon
def top(socket: Path, count: int | None, every: float) -> None:
    """Watch the daemon, until Ctrl-C.

    The same picture as `dxad status`, once a second. Without a terminal, each look is a line of text.
    """
    with suppress(KeyboardInterrupt):
        asyncio.run(_watch(socket, count, every))


async def _watch(socket: Path, count: int | None, every: float) -> None:
    console = Console()
    seen: deque[Document] = deque(maxlen=_RATES_OVER)
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(Client(socket))
        live = Live(console=console, auto_refresh=False)
        if console.is_terminal:
            stack.enter_context(live)
        for look in itertools.count(1) if count is None else range(1, count + 1):
            trouble = await _look(client, seen)
            if console.is_terminal:
                live.update(_picture(seen, trouble), refresh=True)
            else:
                click.echo(f"{time.strftime('%H:%M:%S')} {trouble or line(seen[-1])}")
            if look != count:
                await asyncio.sleep(every)


async def _look(client: Client, seen: deque[Document]) -> str:
    """Add what the daemon says now to `seen`; returns why it says nothing, or `""`."""
    try:
        seen.append(await client.status())
    except ResourceUnavailableError as error:
        if not seen:
            raise
        return str(error)
    return ""


def _picture(seen: deque[Document], trouble: str) -> RenderableType:
    """The last look, and above it why there is no newer one."""
    picture = view(seen[-1], seen[0] if len(seen) > 1 else None)
    return Group(Text(f"✘ {trouble}", style="bold red"), picture) if trouble else picture
