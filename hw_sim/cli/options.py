"""What the commands have in common: types of options, and endings."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from hw_sim.control import ControlError, default_path
from hw_sim.duration import DurationError, seconds
from hw_sim.fault import FaultError
from hw_sim.replay.csvfile import FileError
from hw_sim.scenario import ScenarioError

__all__ = ["CONTROL", "JSON", "apart", "duration", "told"]

_F = TypeVar("_F", bound=Callable[..., Any])

CONTROL: Final[Callable[[_F], _F]] = click.option(
    "--control", type=click.Path(path_type=Path), default=default_path, metavar="PATH",
    show_default="one per user",
    help="The simulator's own socket, for `ctl`.",
)  # fmt: skip
_AWAY: Final = (
    click.option("--any-port", is_flag=True, help="Every port is one that is free."),
    click.option(
        "--links", type=click.Path(path_type=Path, file_okay=False, exists=True), metavar="DIR",
        help="Make the terminals' links here.",
    ),
    click.option(
        "--until-stdin-closes", is_flag=True,
        help="End when standard input does: with whoever started this.",
    ),
    CONTROL,
)  # fmt: skip


def apart(command: _F) -> _F:
    """The options that keep a simulator away from others, and tie it to whoever started it."""
    for option in reversed(_AWAY):
        command = option(command)
    return command


JSON: Final[Callable[[_F], _F]] = click.option("--json", "as_json", is_flag=True, help="As JSON.")


def duration(_context: click.Context, _option: click.Parameter, text: str | None) -> float | None:
    """An option's value as seconds."""
    try:
        return None if text is None else seconds(text)
    except DurationError as error:
        raise click.BadParameter(str(error)) from error


@contextmanager
def told() -> Iterator[None]:
    """What the user can mend ends the command with its message, and no traceback."""
    try:
        yield
    except OSError as error:
        said = f"{error.filename}: {error.strerror}" if error.filename and error.strerror else str(error)
        raise click.ClickException(said) from error
    except (ControlError, FaultError, FileError, ScenarioError) as error:
        raise click.ClickException(str(error)) from error
