"""Rows of the past, from a file: CSV, NumPy's NPZ or JSON lines, a bounded piece at a time.

    file ── open_recording ──▶ Recording ── pieces ──▶ Piece, Piece, …

A recording has named columns and a time for each row. A cell may be *missing* (empty, NaN, null: nothing
came then) or *bad* (the word `bad`: what came could not be believed). What cannot be read is told in
`faults`, with file and line, and left out; it stops nothing.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

from dxad.errors import ConfigError
from dxad.types import F8, I8, Bools

__all__ = ["BAD", "CELLS_AT_ONCE", "Faults", "Piece", "Recording", "open_recording"]

BAD: Final = "bad"
"""How a text file writes a value that could not be believed."""
CELLS_AT_ONCE: Final = 1 << 18
"""Of a piece: what bounds the memory, however long the recording is."""
_TOLD: Final = 5


@dataclass(frozen=True, slots=True)
class Piece:
    """Consecutive rows."""

    times: I8
    """(n,) UTC nanoseconds, in the order of the file."""
    values: F8
    """(n, columns); NaN where nothing came, or nothing to be believed."""
    bad: Bools | None = None
    """(n, columns): where a value came that could not be believed; None is nowhere."""

    def __len__(self) -> int:
        return len(self.times)


@dataclass(slots=True)
class Faults:
    """What could not be read."""

    lines: int = 0
    """Rows left out: without a time, or with too few or too many cells."""
    cells: int = 0
    """Cells of other rows that are no numbers; they count as bad."""
    first: list[str] = field(default_factory=list)
    """What was wrong with the first of them, `file:line: what`."""

    def note(self, where: str, what: str) -> None:
        """Keep the text, if it is among the first."""
        if len(self.first) < _TOLD:
            self.first.append(f"{where}: {what}")


class Recording(Protocol):
    """Rows of the past."""

    @property
    def path(self) -> Path:
        """The file."""

    @property
    def columns(self) -> Sequence[str]:
        """The names of all columns but that of the time."""

    @property
    def digest(self) -> str:
        """32 hex digits of the file's bytes: the same data, whatever it is called."""

    @property
    def faults(self) -> Faults:
        """What could not be read, by the last pass that was made over it."""

    def pieces(self, columns: Sequence[str]) -> Iterator[Piece]:
        """All rows with these columns, in the order of the file; may be called again.

        Raises:
            ConfigError: the file cannot be read any further.
        """


def open_recording(path: Path, *, period: int | None = None, time: str | None = None) -> Recording:
    """Look at a recording's head.

    Args:
        path: `.npz`, `.jsonl` or `.ndjson`; anything else is CSV.
        period: row n was taken at n times so many nanoseconds; columns of times are ignored.
        time: the column that holds the time; None looks for it.

    Raises:
        ConfigError: it is not there, or no recording.
    """
    from dxad.recording.csv import CsvRecording  # noqa: PLC0415 - they import this
    from dxad.recording.jsonlines import JsonLinesRecording  # noqa: PLC0415
    from dxad.recording.npz import NpzRecording  # noqa: PLC0415

    try:
        match path.suffix:
            case ".npz":
                return NpzRecording(path)
            case ".jsonl" | ".ndjson":
                return JsonLinesRecording(path, period=period, time=time)
            case _:
                return CsvRecording(path, period=period, time=time)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}") from error
