"""What `replay` and `what-if` have in common: their options, and the run itself."""

import functools
import logging
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from dxad.cli.options import MISTAKE, as_json, of_config, tell
from dxad.errors import ConfigError, ModelError

if TYPE_CHECKING:
    from dxad.config import Config
    from dxad.event import Event
    from dxad.recording import Recording
    from dxad.recording.labels import Truth
    from dxad.types import Document

__all__ = ["Asked", "nanoseconds", "of_recording", "progress", "run"]

_FILE: Final = click.Path(path_type=Path, dir_okay=False)
_PACE_S: Final = 0.05
"""Between two looks at the clock, when a replay is slowed down."""
_DURATION: Final = re.compile(r"[0-9.]+\s*[a-z]+")


@dataclass(frozen=True, slots=True)
class Asked:
    """The options."""

    config: Path
    data: Path
    columns: tuple[str, ...]
    labels: str | None
    learn: str | None
    begin: str | None
    end: str | None
    period: str | None
    time_column: str | None
    as_json: bool


def of_recording(command: Callable[..., None]) -> Callable[..., None]:
    """For a command that runs recorded data through a configuration: it gets `asked`."""

    @of_config
    @click.option("--data", type=_FILE, required=True, help="The recording: .csv, .npz or .jsonl.")
    @click.option(
        "--map",
        "columns",
        multiple=True,
        metavar="COLUMN=CHANNEL",
        help="A column and the channel, source.name, that it is; several times. Without, names tell.",
    )
    @click.option(
        "--labels",
        metavar="FILE|COLUMN",
        help="When something was really wrong: a column of the data, 0 or 1, or a file of stretches.",
    )
    @click.option(
        "--learn",
        metavar="DURATION|FILE",
        help="Learn first, from so much of the data or from a recording of normal running; without, only "
        "pipelines learn that have no model.",
    )
    @click.option(
        "--from", "begin", metavar="TIME", help="First row: 2026-01-31T12:00, or 90s into the data."
    )
    @click.option("--to", "end", metavar="TIME", help="The end, likewise; not included.")
    @click.option("--period", metavar="DURATION", help="The data has no times: so far apart are its rows.")
    @click.option(
        "--time",
        "time_column",
        metavar="COLUMN",
        help="The column with the times.  [default: time, timestamp, …]",
    )
    @as_json
    @functools.wraps(command)
    def asking(
        config: Path,
        data: Path,
        columns: tuple[str, ...],
        labels: str | None,
        learn: str | None,
        begin: str | None,
        end: str | None,
        period: str | None,
        time_column: str | None,
        as_json: bool,
        **others: Any,
    ) -> None:
        try:
            with _hushed():
                command(
                    Asked(config, data, columns, labels, learn, begin, end, period, time_column, as_json),
                    **others,
                )
        except ConfigError as error:
            tell(error)
            sys.exit(MISTAKE)
        except ModelError as error:
            click.echo(f"dxad: {error}", err=True)
            sys.exit(MISTAKE)

    return asking  # fmt: skip


@contextmanager
def _hushed() -> Iterator[None]:
    """What a gateway says of itself in its log is no news here: the outcome has it."""
    logger = logging.getLogger("dxad")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


def read_head(path: Path, asked: Asked) -> "Recording":
    """Open a recording as the options say it is."""
    from dxad.recording import open_recording

    return open_recording(path, period=nanoseconds(asked.period, "--period"), time=asked.time_column)


def run(
    asked: Asked,
    config: "Config",
    *,
    on_event: Callable[["Event"], None] = lambda _event: None,
    on_rows: Callable[[int], None] = lambda _rows: None,
    speed: float | None = None,
) -> "Document":
    """Replay the recording; returns the outcome.

    Args:
        asked: the options.
        config: whose pipelines see the data.
        on_event: told each event.
        on_rows: told how many rows have been driven through so far.
        speed: so many times as fast as it was; None is as fast as it goes.

    Raises:
        ConfigError: an option does not fit the recording.
        ModelError: nothing can be learned.
    """
    from dxad.replay import Replay

    recording = read_head(asked.data, asked)
    replay = Replay(
        config,
        recording,
        columns=dict(_pair(each) for each in asked.columns),
        labels=_labels(asked.labels, recording),
        learn=_learn(asked),
        span=(_moment(asked.begin, "--from", recording), _moment(asked.end, "--to", recording)),
        tick=None if speed is None else max(1, round(_PACE_S * speed * 1e9)),
        on_event=on_event,
        on_rows=on_rows,
        on_time=(lambda _utc: None) if speed is None else _Pace(speed),
    )
    return replay.run().document()


class _Pace:
    """Waits until as much time has passed here as there, at some speed."""

    def __init__(self, speed: float) -> None:
        self._speed = speed
        self._began: tuple[float, int] | None = None

    def __call__(self, utc: int) -> None:
        if self._began is None:
            self._began = time.monotonic(), utc
        real, recorded = self._began
        time.sleep(max(0.0, real + (utc - recorded) / 1e9 / self._speed - time.monotonic()))


def _pair(text: str) -> tuple[str, str]:
    column, sign, channel = text.rpartition("=")
    if not sign:
        raise ConfigError(f"--map {text}: wants COLUMN=CHANNEL")
    return column.strip(), channel.strip()


def _labels(given: str | None, recording: "Recording") -> "Truth | str | None":
    from dxad.recording.labels import read_labels

    if given is None or given in recording.columns:
        return given
    if not Path(given).exists():
        raise ConfigError(
            f"--labels {given}: no file, and no column of the data; there are {', '.join(recording.columns)}"
        )
    return read_labels(Path(given), recording.path)


def _learn(asked: Asked) -> "int | Recording | None":
    if asked.learn is None or _DURATION.fullmatch(asked.learn):
        return nanoseconds(asked.learn, "--learn")
    return read_head(Path(asked.learn), asked)


def nanoseconds(given: str | None, option: str) -> int | None:
    """A duration of the command line.

    Raises:
        ConfigError: it is none.
    """
    from pydantic import TypeAdapter, ValidationError

    from dxad.fields import Duration

    if given is None:
        return None
    try:
        found: int = TypeAdapter(Duration).validate_python(given)
    except ValidationError as error:
        raise ConfigError(f"{option}: {error.errors()[0]['msg'].removeprefix('Value error, ')}") from error
    if found <= 0:
        raise ConfigError(f"{option}: {given} is no time at all")
    return found


def _moment(given: str | None, option: str, recording: "Recording") -> int | None:
    from dxad.recording.times import moment
    from dxad.replay import first_time

    if given is None:
        return None
    if _DURATION.fullmatch(given):
        after = nanoseconds(given, option)
        assert after is not None
        return first_time(recording) + after
    try:
        return moment(given)
    except ValueError as error:
        raise ConfigError(f"{option}: {error}") from error


@contextmanager
def progress() -> Iterator[Callable[[int], None]]:
    """Shows on a terminal how many rows have been read; yields what is to be told."""
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    shown = Progress(
        SpinnerColumn(), MofNCompleteColumn(), TextColumn("rows"), TimeElapsedColumn(), console=console,
        transient=True, disable=not console.is_terminal,
    )  # fmt: skip
    with shown:
        task = shown.add_task("replay", total=None)
        yield lambda rows: shown.update(task, completed=rows)
