"""When something was really wrong, as somebody has written it down beside a recording.

========================================  ==========================================================
CSV with the columns `start` and `end`    each line is one stretch; both ends belong to it
CSV with a time and one other column      0 or 1, from that time until the next line's
JSON list of `[start, end]`               stretches
JSON object of such lists, by file        the list whose key ends the recording's path (NAB's labels)
========================================  ==========================================================
"""

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import orjson

from dxad.errors import ConfigError
from dxad.recording.csv import CsvRecording
from dxad.recording.times import moment
from dxad.types import I8, Bools

__all__ = ["Truth", "read_labels"]


class Truth:
    """For each moment, whether something was wrong then."""

    def __init__(self, times: I8, wrong: Bools) -> None:
        """From each of the ascending `times` on it is as `wrong` says, and before the first it is not."""
        self._times = times
        self._wrong = np.concatenate(([False], wrong))

    @classmethod
    def of_stretches(cls, stretches: Sequence[tuple[int, int]]) -> "Truth":
        """Of stretches [start, end], both ends inclusive; they may overlap."""
        steps = sorted([(start, 1) for start, _ in stretches] + [(end + 1, -1) for _, end in stretches])
        times = np.array([time for time, _ in steps], dtype=np.int64)
        depth = np.cumsum([step for _, step in steps], dtype=np.int64)
        return cls(times, depth > 0)

    def at(self, times: I8) -> Bools:
        """Whether something was wrong at each of these UTC times, (n,)."""
        found: Bools = self._wrong[np.searchsorted(self._times, times, side="right")]
        return found


def read_labels(path: Path, recording: Path) -> Truth:
    """Read what was wrong in a recording.

    Raises:
        ConfigError: the file is not there, or none of the kinds above.
    """
    try:
        if path.suffix == ".json":
            return _of_json(path, recording)
        with path.open(encoding="utf-8-sig", newline="") as file:
            head = file.readline()
        separator = max(",;\t|", key=head.count)
        names = [name.strip().lower() for name in head.split(separator)]
        return _of_stretches(path, separator) if {"start", "end"} <= set(names) else _of_rows(path)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}") from error


def _of_json(path: Path, recording: Path) -> Truth:
    try:
        found = orjson.loads(path.read_bytes())
        if isinstance(found, dict):
            mine = [value for key, value in found.items() if recording.as_posix().endswith(key)]
            if not mine:
                raise ConfigError(f"{path}: has nothing for {recording}")
            found = mine[0]
        return Truth.of_stretches([(moment(str(start)), moment(str(end))) for start, end in found])
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{path}: no list of [start, end]: {error}") from error


def _of_stretches(path: Path, separator: str) -> Truth:
    stretches = []
    with path.open(encoding="utf-8-sig", newline="") as file:
        lines = csv.DictReader(file, delimiter=separator)
        for line in lines:
            named = {str(key).strip().lower(): value for key, value in line.items()}
            try:
                stretches.append((moment(named["start"] or ""), moment(named["end"] or "")))
            except ValueError as error:
                raise ConfigError(f"{path}:{lines.line_num}: {error}") from error
    return Truth.of_stretches(stretches)


def _of_rows(path: Path) -> Truth:
    rows = CsvRecording(path)
    if len(rows.columns) != 1:
        raise ConfigError(
            f"{path}: has {len(rows.columns)} columns beside the time; labels want one, or start and end"
        )
    pieces = list(rows.pieces(rows.columns))
    if rows.faults.first:
        raise ConfigError(rows.faults.first[0])
    times = np.concatenate([each.times for each in pieces] or [np.empty(0, dtype=np.int64)])
    wrong = np.concatenate([each.values[:, 0] >= 0.5 for each in pieces] or [np.empty(0, dtype=np.bool_)])
    order = np.argsort(times, kind="stable")
    return Truth(times[order], wrong[order])
