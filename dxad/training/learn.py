"""From recorded rows to a bundle: what to learn from, how wide a window, and where the limit lies."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np

from dxad import bundle
from dxad.bundle.inference import Scorer, verify
from dxad.bundle.manifest import Manifest, OutputRule, Regime
from dxad.errors import ModelError
from dxad.training.calibrate import SPANS, limit, scales
from dxad.training.graph import to_tflite
from dxad.training.linear import LinearDetector, fit, windows_of
from dxad.types import F4, F8, I8, Bools, Channel

__all__ = ["Recording", "learn"]

_CALIBRATION_SHARE: Final = 0.4
"""Of the rows, the newest: a limit that was set on the rows of the fit itself promises nothing."""
_ROWS_PER_DIMENSION: Final = 5
_INPUTS_MAX: Final = 640
"""Rows x channels of a window; the model grows with the square of it."""
_DISTINCT_MIN: Final = 8
"""A channel with no more different values than this is a state or a set-point, not a measurement."""
_GOLDEN: Final = 8
_REGIME_ROWS_MIN: Final = 50
_SPREAD_LEAST: Final = 0.1


@dataclass(frozen=True, slots=True)
class Recording:
    """Consecutive complete rows of normal running."""

    channels: tuple[Channel, ...]
    period: int
    """Nanoseconds per row."""
    values: F8
    """(n, channels), finite."""
    stuck_rows: dict[str, int]
    """What `ChannelCheck` has learned meanwhile, by the id of the channel before any transform."""
    by: F8 | None = None
    """(n,) in which regime the machine was: what is normal is learned for each value by itself."""
    by_channel: str = ""
    """The id of the channel that told; if it is among `channels`, it is not learned."""
    utc: tuple[str, str] | None = None
    """When the first row was and when the last, ISO 8601, if known."""


def learn(recording: Recording, folder: Path, *, rows_most: int) -> bundle.Bundle:
    """Fit, calibrate, write and verify a bundle into `folder`.

    Args:
        recording: what to call normal.
        folder: does not exist yet.
        rows_most: the widest window wanted; it is narrowed until the fit has five rows per dimension.

    Raises:
        ModelError: there is too little to learn from, or the result does not score as it must.
    """
    regimes, recording = _by_regime(recording)
    values = recording.values
    first_calibrated = round(len(values) * (1 - _CALIBRATION_SHARE))
    if first_calibrated <= _DISTINCT_MIN:
        need = math.ceil((_DISTINCT_MIN + 1) / (1 - _CALIBRATION_SHARE))
        raise ModelError(f"{len(values)} rows are too few to learn anything; record at least {need}")
    varied, left_out = _varied(recording, values[:first_calibrated])
    places = np.flatnonzero(varied)
    training, later = values[:first_calibrated, places], values[first_calibrated:, places]
    width = _width(len(training), len(places), rows_most)
    detector = fit(training, width)
    # The later slice begins with the rows that its first window still needs.
    calibrated = windows_of(np.vstack((training[len(training) - width + 1 :], later)), width)
    found = scales(detector.score(calibrated))
    chosen = [recording.channels[place] for place in places]
    golden = _golden(training, detector)
    parts = detector.squares(golden.astype(np.float64))
    manifest = Manifest(
        channels=tuple(channel.id for channel in chosen),
        units=tuple(channel.unit for channel in chosen),
        rows=width,
        period=recording.period,
        fill=tuple(np.median(training, axis=0).tolist()),
        score=OutputRule(
            output="score", contribution="contribution", contribution_columns=tuple(detector.owner.tolist())
        ),
        limit=limit(len(later)),
        spans=SPANS,
        scales=found,
        normal={
            channel.id: (float(values[:, place].mean()), float(values[:, place].std()))
            for place, channel in enumerate(recording.channels)
        },
        usual=_usual(detector, calibrated, chosen),
        stuck_rows=recording.stuck_rows,
        by=recording.by_channel if regimes else "",
        regimes=tuple(each.of(places) for each in regimes),
        left_out=left_out,
        trained_rows=len(training),
        calibrated_rows=len(later),
        trained_utc=recording.utc,
        golden_windows=tuple(tuple(window) for window in golden.reshape(len(golden), -1).tolist()),
        golden_scores=tuple(parts.sum(axis=1).tolist()),
        golden_contributions=tuple(_by_channel(each, detector, len(chosen)) for each in parts),
    )
    made = bundle.write(folder, manifest, to_tflite(detector))
    verify(Scorer(made.manifest, made.blob), made.manifest)
    return made


@dataclass(frozen=True, slots=True)
class _Statistics:
    """What is normal in one regime."""

    value: float
    rows: int
    mean: F8
    std: F8

    def of(self, places: I8) -> Regime:
        """Of the channels at these places."""
        return Regime(
            value=self.value,
            rows=self.rows,
            mean=tuple(self.mean[places].tolist()),
            std=tuple(self.std[places].tolist()),
        )


def _by_regime(recording: Recording) -> tuple[list[_Statistics], Recording]:
    """The regimes that have enough rows, and these rows moved to what is normal in all of them together.

    x' = (x - mean_r) / std_r · std + mean, by channel. Rows of other regimes are left out.

    Raises:
        ModelError: no regime has enough rows.
    """
    if recording.by is None:
        return [], recording
    kept = np.array([each.id != recording.by_channel for each in recording.channels])
    channels = tuple(each for each, wanted in zip(recording.channels, kept, strict=True) if wanted)
    values, counts = np.unique(recording.by[~np.isnan(recording.by)], return_counts=True)
    enough = values[counts >= _REGIME_ROWS_MIN]
    if not len(enough):
        raise ModelError(
            f"no value of {recording.by_channel} has the {_REGIME_ROWS_MIN} rows that it takes to learn from"
        )
    known = np.isin(recording.by, enough)
    rows, by = recording.values[known][:, kept], recording.by[known]
    mean, std = rows.mean(axis=0), rows.std(axis=0)
    within = np.sqrt(np.mean([rows[by == value].var(axis=0) for value in enough], axis=0))
    moved, regimes = np.empty_like(rows), []
    for value in enough:
        mine = rows[by == value]
        # A channel that stands still in one regime is held against a tenth of how it moves in the others.
        spread = np.maximum(mine.std(axis=0), _SPREAD_LEAST * within)
        spread = np.where(spread > 0, spread, 1.0)
        moved[by == value] = (mine - mine.mean(axis=0)) / spread * std + mean
        regimes.append(_Statistics(float(value), len(mine), mine.mean(axis=0), spread))
    return regimes, replace(recording, channels=channels, values=moved)


def _by_channel(squares: F8, detector: LinearDetector, channels: int) -> tuple[float, ...]:
    """(outputs,) to one number for each channel."""
    return tuple(np.bincount(detector.owner, weights=squares, minlength=channels).tolist())


def _varied(recording: Recording, training: F8) -> tuple[Bools, dict[str, str]]:
    """Which channels are measurements, and why the others are left out."""
    distinct = np.array([len(np.unique(training[:, place])) for place in range(training.shape[1])])
    varied = distinct > _DISTINCT_MIN
    if not varied.any():
        raise ModelError("no channel varies: there is nothing to learn")
    left_out = {
        channel.id: f"only {distinct[place]} different values"
        for place, channel in enumerate(recording.channels)
        if not varied[place]
    }
    return varied, left_out


def _width(rows: int, channels: int, rows_most: int) -> int:
    """The widest window that the data can carry."""
    if channels > _INPUTS_MAX:
        raise ModelError(f"{channels} channels are more than the {_INPUTS_MAX} one model can hold")
    by_data = rows // (_ROWS_PER_DIMENSION * channels)
    width = min(rows_most, by_data, _INPUTS_MAX // channels)
    if width < 1:
        need = _ROWS_PER_DIMENSION * channels / (1 - _CALIBRATION_SHARE)
        raise ModelError(
            f"{rows} rows for the fit are too few to learn {channels} channels; record at least {need:.0f}"
        )
    return width


def _usual(detector: LinearDetector, windows: F8, channels: Sequence[Channel]) -> dict[str, float]:
    """What each channel adds to the score, on average, where nothing is wrong."""
    squares = detector.squares(windows).mean(axis=0)
    total = np.bincount(detector.owner, weights=squares, minlength=len(channels))
    return {channel.id: float(total[place]) for place, channel in enumerate(channels)}


def _golden(training: F8, detector: LinearDetector) -> F4:
    """Windows of the training slice, and copies of them that are far off, as single precision sees them."""
    windows = windows_of(training, detector.rows)
    picked = windows[np.linspace(0, len(windows) - 1, _GOLDEN).astype(int)].copy()
    picked[_GOLDEN // 2 :] += 5 * training.std(axis=0)
    golden: F4 = picked.astype(np.float32)
    return golden
