"""The linear detector: what a window is not explained by, in one matrix.

A window of w rows and C channels, flat, is standardised: z = (x - mean) / std, per channel. Two blocks of
residuals are taken of it, both linear in z:

  (a) what principal components that explain 85 % of the variance leave of z, w·C numbers
      (the SPE or Q statistic: J. Jackson, G. Mudholkar, Technometrics 21(3), 1979);
  (b) what a ridge regression of the last row on the two before it leaves, over 1.4826·MAD, C numbers.

Each block is divided by the root of its own 99 % quantile in training, and the score is the sum of all
squares. The squares, summed by channel, are the contributions.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from dxad.types import F8, I8

__all__ = ["LinearDetector", "fit", "windows_of"]

_EXPLAINED: Final = 0.85
_EXPLAINED_TO_TRIM: Final = 0.5
"""Fewer components where the odd windows are still among the others, or they would explain themselves."""
_RIDGE: Final = 300.0
_LAGS: Final = 2
_TRIM: Final = 0.10
"""The share of the oddest windows that a second fit leaves out: "normal" data seldom all is."""


@dataclass(frozen=True, slots=True)
class LinearDetector:
    """score(x) = sum((weight @ ((x - mean) * inv_std)) ** 2) for a flat window x."""

    rows: int
    mean: F8
    """(rows * channels,)."""
    inv_std: F8
    """(rows * channels,)."""
    weight: F8
    """(outputs, rows * channels)."""
    owner: I8
    """(outputs,) the channel each output belongs to."""

    def squares(self, windows: F8) -> F8:
        """(n, rows, channels) to (n, outputs)."""
        flat = windows.reshape(len(windows), -1)
        squares: F8 = (((flat - self.mean) * self.inv_std) @ self.weight.T) ** 2
        return squares

    def score(self, windows: F8) -> F8:
        """(n, rows, channels) to (n,)."""
        total: F8 = self.squares(windows).sum(axis=1)
        return total


def windows_of(rows: F8, width: int) -> F8:
    """All windows of `width` consecutive rows: (n, channels) to (n - width + 1, width, channels)."""
    return np.ascontiguousarray(np.swapaxes(sliding_window_view(rows, width, axis=0), 1, 2))


def fit(rows: F8, width: int) -> LinearDetector:
    """Fit on consecutive rows (n, channels) in which every channel varies; the oddest tenth is left out."""
    windows = windows_of(rows, width)
    score = _fit(windows, rows, _EXPLAINED_TO_TRIM).score(windows)
    kept = score <= np.quantile(score, 1 - _TRIM)
    return _fit(windows[kept], rows, _EXPLAINED)


def _fit(windows: F8, rows: F8, explained: float) -> LinearDetector:
    n, width, channels = windows.shape
    mean, std = rows.mean(axis=0), rows.std(axis=0)
    z = ((windows - mean) / std).reshape(n, -1)
    blocks = [_principal(z, explained)]
    owner = [np.tile(np.arange(channels), width)]
    if width > 1:
        blocks.append(_forecast(z, channels))
        owner.append(np.arange(channels))
    scaled = []
    for block in blocks:
        q99 = float(np.quantile(((z @ block.T) ** 2).sum(axis=1), 0.99))
        scaled.append(block / np.sqrt(max(q99, 1e-12)))
    return LinearDetector(
        width, np.tile(mean, width), np.tile(1 / std, width), np.vstack(scaled), np.concatenate(owner)
    )


def _principal(z: F8, explained: float) -> F8:
    """The projection onto what the leading components do not explain, (inputs, inputs)."""
    variance, vectors = np.linalg.eigh(z.T @ z / len(z))
    share = np.cumsum(variance[::-1]) / max(float(variance.sum()), 1e-300)
    leading = vectors[:, ::-1][:, : int(np.searchsorted(share, explained)) + 1]
    projection: F8 = np.eye(z.shape[1]) - leading @ leading.T
    return projection


def _forecast(z: F8, channels: int) -> F8:
    """Last row minus its forecast from the rows before, over its robust spread; (channels, inputs)."""
    inputs = z.shape[1]
    last = z[:, inputs - channels :]
    before = slice(max(0, inputs - channels * (1 + _LAGS)), inputs - channels)
    past = z[:, before]
    gain = np.linalg.solve(past.T @ past + _RIDGE * np.eye(past.shape[1]), past.T @ last)
    error = last - past @ gain
    spread = 1.4826 * np.median(np.abs(error - np.median(error, axis=0)), axis=0)
    spread = np.maximum(spread, error.std(axis=0) / 4)
    block = np.zeros((channels, inputs))
    block[:, before] = -gain.T
    block[:, inputs - channels :] = np.eye(channels)
    scaled: F8 = block / np.maximum(spread, 1e-12)[:, None]
    return scaled
