"""From recorded rows to a bundle: what to learn from, how wide a window, and where the limit lies."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from dxad import bundle
from dxad.errors import ModelError
from dxad.inference import Scorer, verify
from dxad.manifest import Manifest, OutputRule
from dxad.training.graph import to_tflite
from dxad.training.linear import LinearDetector, fit, windows_of
from dxad.types import F4, F8, Bools, Channel

__all__ = ["Recording", "learn"]

_CALIBRATION_SHARE: Final = 0.4
"""Of the rows, the newest: a limit that was set on the rows of the fit itself promises nothing."""
_ROWS_PER_DIMENSION: Final = 5
_INPUTS_MAX: Final = 640
"""Rows x channels of a window; the model grows with the square of it."""
_DISTINCT_MIN: Final = 8
"""A channel with no more different values than this is a state or a set-point, not a measurement."""
_SPANS: Final = (1, 5, 30)
"""Rows over which scores are averaged: short for steps, long for what creeps."""
_LIMIT: Final = 2.0
"""How far above the quiet 99 % of a long calibration slice a judged score must rise."""
_CAUTION: Final = 0.4
"""How much further where the slice is short: the quantile of n rows that hang together over a span of s is
uncertain by about sqrt(s / n)."""
_GOLDEN: Final = 8


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


def learn(recording: Recording, folder: Path, *, rows_most: int) -> bundle.Bundle:
    """Fit, calibrate, write and verify a bundle into `folder`.

    Args:
        recording: what to call normal.
        folder: does not exist yet.
        rows_most: the widest window wanted; it is narrowed until the fit has five rows per dimension.

    Raises:
        ModelError: there is too little to learn from, or the result does not score as it must.
    """
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
    scales = _scales(detector.score(calibrated))
    chosen = [recording.channels[place] for place in places]
    golden = _golden(training, detector)
    manifest = Manifest(
        channels=tuple(channel.id for channel in chosen),
        units=tuple(channel.unit for channel in chosen),
        rows=width,
        period=recording.period,
        fill=tuple(np.median(training, axis=0).tolist()),
        score=OutputRule(
            output="score", contribution="contribution", contribution_columns=tuple(detector.owner.tolist())
        ),
        limit=_LIMIT * (1 + _CAUTION * math.sqrt(max(_SPANS) / max(len(later), 1))),
        spans=_SPANS,
        scales=scales,
        normal={
            channel.id: (float(values[:, place].mean()), float(values[:, place].std()))
            for place, channel in enumerate(recording.channels)
        },
        usual=_usual(detector, calibrated, chosen),
        stuck_rows=recording.stuck_rows,
        left_out=left_out,
        trained_rows=len(training),
        calibrated_rows=len(later),
        golden_windows=tuple(tuple(window) for window in golden.reshape(len(golden), -1).tolist()),
        golden_scores=tuple(detector.score(golden.astype(np.float64)).tolist()),
    )
    made = bundle.write(folder, manifest, to_tflite(detector))
    verify(Scorer(made.manifest, made.blob), made.manifest)
    return made


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


def _scales(scores: F8) -> tuple[float, ...]:
    """For each span the 99 % quantile of the causal means over it, on rows the fit has not seen."""
    scales = []
    for span in _SPANS:
        span = min(span, len(scores))  # noqa: PLW2901 - a short slice has no longer mean
        means = windows_of(scores[:, None], span).mean(axis=(1, 2))
        scales.append(max(float(np.quantile(means, 0.99)), 1e-9))
    return tuple(scales)


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
