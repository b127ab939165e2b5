"""What several commands have in common: their options, and what their exit statuses mean."""

import functools
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import click

from dxad.errors import ConfigError, RequestRefusedError, ResourceUnavailableError

__all__ = [
    "MISTAKE",
    "REFUSED",
    "UNREACHABLE",
    "as_json",
    "asked_in_vain",
    "hand_down",
    "of_config",
    "socket_of",
    "tell",
    "to_daemon",
    "to_socket",
]

REFUSED: Final = 1
"""The daemon answers, but something is wrong: with it, or with what was asked."""
MISTAKE: Final = 2
"""The configuration is wrong; click's own for a wrong command line."""
UNREACHABLE: Final = 3
"""The daemon does not answer."""

_FILE: Final = click.Path(path_type=Path, dir_okay=False)

of_config = click.option("-c", "--config", type=_FILE, required=True, help="The configuration.")
"""For a command that reads a configuration: it gets `config`, the path."""

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON, all of it.")


to_socket = click.option(
    "--socket",
    type=click.Path(path_type=Path),
    help="The control socket.  [default: $DXAD_SOCKET, else /run/dxad/control.sock]",
)
"""Of a command that asks a running daemon, see `socket_of`."""


def to_daemon(command: Callable[..., None]) -> Callable[..., None]:
    """For a command that asks a running daemon: it gets `socket`, the path."""

    @to_socket
    @click.option("-c", "--config", type=_FILE, help="Take the socket from this configuration.")
    @functools.wraps(command)
    def asking(*args: Any, socket: Path | None, config: Path | None, **others: Any) -> None:
        with asked_in_vain():
            command(*args, socket=socket_of(socket, config), **others)

    return asking


@contextmanager
def asked_in_vain() -> Iterator[None]:
    """Say what was wrong with a question to the daemon, and exit with the status of that."""
    try:
        yield
    except ConfigError as error:
        tell(error)
        sys.exit(MISTAKE)
    except ResourceUnavailableError as error:
        click.echo(f"dxad: {error}", err=True)
        sys.exit(REFUSED if isinstance(error, RequestRefusedError) else UNREACHABLE)


def hand_down(context: click.Context) -> None:
    """Let the subcommands, and theirs, ask where this command was told to."""
    line = click.core.ParameterSource.COMMANDLINE
    said = {
        name: str(context.params[name])
        for name in ("socket", "config", "file")
        if context.get_parameter_source(name) is line
    }

    def defaults(group: click.Group) -> dict[str, Any]:
        return {
            name: defaults(each) if isinstance(each, click.Group) else said
            for name, each in group.commands.items()
        }

    if isinstance(context.command, click.Group):
        context.default_map = defaults(context.command)


def socket_of(socket: Path | None, config: Path | None) -> Path:
    """The control socket that is meant: named, of a configuration, or the usual one.

    Raises:
        ConfigError: the configuration has mistakes.
    """
    if socket is not None:
        return socket
    if config is not None:
        from dxad.config import load

        return load(config).control.socket
    from dxad.client import DEFAULT_SOCKET

    return Path(os.environ.get("DXAD_SOCKET") or DEFAULT_SOCKET)


def tell(error: ConfigError) -> None:
    """Every mistake, on a line of its own."""
    for problem in error.problems or (error,):
        click.echo(str(problem), err=True)
