"""A recorded data set in the place of a plant: each step is the next row of a CSV file.

By default each row is one step of the record's period, whatever its time says: no row is lost and none added.
With `times = "recorded"` rows keep their distances, on the grid of the period: in a gap the sensors show
nothing, and rows that are closer than the period, or go back in time, follow one another step by step.

After the last row the sensors show nothing, unless it loops; a run ends when all its records are played. No
physics is at work here, so only the faults of sensors, devices and wires concern it.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Final, Literal

import numpy as np
from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo

from hw_sim.plant import HEALTHY, Channel, Place, Readings, Stress
from hw_sim.plants import PlantSettings
from hw_sim.replay import csvfile, record
from hw_sim.replay.record import Record
from hw_sim.section import Duration

__all__ = ["Replay", "Settings", "build", "read"]


def _checked(text: str) -> str:
    record.span(text)
    return text


def _auto(value: object) -> object:
    return None if value == "auto" else value


def _beside(path: Path, info: ValidationInfo) -> Path:
    folder = info.context.get("folder") if info.context else None
    return path if folder is None else folder / path


_File = Annotated[Path, AfterValidator(_beside)]
_Period = Annotated[Annotated[Duration, Field(gt=0)] | None, BeforeValidator(_auto)]
_Rows = Annotated[str, AfterValidator(_checked)]
_NO_STRESS: Final[Mapping[str, Sequence[str]]] = {}


class Settings(PlantSettings):
    """What a scenario may say of a recorded data set."""

    kind: Literal["replay"] = "replay"
    file: _File
    """CSV, with the sensors' values in columns; a path as seen from the scenario's file."""
    delimiter: str = Field(default="", max_length=1)
    """Between cells; guessed by default."""
    time: str | None = None
    """The column of times; guessed by default, and "" is none."""
    time_format: str = ""
    """How times are written, as in `%d/%m/%Y %H:%M:%S`; by default dates of ISO 8601, or numbers."""
    times: Literal["rows", "recorded"] = "rows"
    """Whether each row takes one period, or keeps its distance in time from the row before."""
    period: _Period = None
    """From row to row; "auto" is the median of the times' differences, or 1 s where there are no times."""
    columns: Mapping[str, str] = {}
    """By channel, its column; by default all columns of numbers but times and labels."""
    labels: Sequence[str] | None = None
    """The columns that say what was wrong; guessed by default."""
    windows: _File | None = None
    """A file of windows in which something was wrong, in the Numenta Anomaly Benchmark's form."""
    labelled_rows: Sequence[_Rows] = ()
    """Rows in which something was wrong, such as "160.."."""
    rows: _Rows = ".."
    """The rows to play, such as "0..400"; they count from 0, and the last is not among them."""
    loop: bool = False
    """Begin again at the end."""


class Replay:
    """Plays a record."""

    shows: Mapping[str, Sequence[str]] = _NO_STRESS

    def __init__(self, played: Record, *, recorded_times: bool = False, loop: bool = False) -> None:
        self.record = played
        self.step_s = played.period_s
        self.channels: Mapping[str, Channel] = {
            name: _channel(played.values[:, at]) for at, name in enumerate(played.columns)
        }
        self.place = Place(row=played.first)
        self.played = 0
        """How many rows it has shown."""
        self.exhausted = False
        self._loop = loop
        self._names = tuple(played.columns)
        self._nothing = dict.fromkeys(self._names, math.nan)
        self._dues = _dues(played) if recorded_times else range(len(played.values))
        """By row, the step at which it is shown."""
        self._labels = tuple(
            {label: said for label, said in zip(played.labels, row, strict=True) if said}
            for row in zip(*played.labels.values(), strict=True)
        )
        self._next = 0
        self._step = -1

    @property
    def rows(self) -> int:
        """How many rows there are to show."""
        return len(self.record.values)

    @property
    def left(self) -> int:
        """How many rows are still to come; in a loop, always some."""
        return self.rows - self._next or (self.rows if self._loop else 0)

    def step(self, _stress: Stress = HEALTHY) -> Readings:
        """Advance by a period; returns the next row, or NaN where none is due."""
        self._step += 1
        if self._next == self.rows and self._loop:
            self._next = self._step = 0
        if self._next == self.rows:
            self.exhausted = True
            return self._nothing
        if self._step < self._dues[self._next]:
            return self._nothing
        row, self._next = self._next, self._next + 1
        self.played += 1
        self.place = Place(
            row=self.record.first + row,
            time=self.record.times[row] if self.record.times else "",
            labels=self._labels[row] if self._labels else {},
        )
        return dict(zip(self._names, self.record.values[row].tolist(), strict=True))


def read(settings: Settings) -> Record:
    """The data set that a section of a scenario names.

    Raises:
        FileError: the file is not what the section says.
    """
    return record.of(
        csvfile.read(settings.file, settings.delimiter),
        columns=settings.columns,
        time=settings.time,
        time_format=settings.time_format,
        labels=settings.labels,
        period_s=settings.period,
        rows=record.span(settings.rows),
        windows=settings.windows,
        labelled=[record.span(text) for text in settings.labelled_rows],
    )


def build(settings: Settings, _seed: str) -> Replay:
    """The plant of a section; a record is the same for every seed.

    Raises:
        FileError: the file is not what the section says.
    """
    return Replay(read(settings), recorded_times=settings.times == "recorded", loop=settings.loop)


def _channel(values: np.ndarray[tuple[int], np.dtype[np.float64]]) -> Channel:
    shown = values[~np.isnan(values)]
    if not shown.size:
        return Channel("")
    low, high = float(shown.min()), float(shown.max())
    return Channel("", low, high if high > low else low + 1.0, float(shown.std()) or 1.0)


def _dues(played: Record) -> Sequence[int]:
    """By row, the step that is nearest to its time, and after that of the row before."""
    if played.seconds is None:
        raise csvfile.FileError(f'{played.path}: times = "recorded" needs a column of times')
    dues: list[int] = []
    for nearest in np.rint((played.seconds - played.seconds[0]) / played.period_s).astype(int).tolist():
        dues.append(max(nearest, dues[-1] + 1) if dues else 0)
    return dues
