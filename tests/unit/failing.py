"""A model that scores as long as it is asked to, and fails as it is told."""

import numpy as np

from dxad.types import Calibration, Scores

__all__ = ["BugError", "Failing"]


class BugError(Exception):
    """What no model is known to raise."""


class Failing:
    """A model that fails when it is told to."""

    version = "failing"
    calibration = Calibration(2.0)

    def __init__(self) -> None:
        self.error: Exception | None = None

    def load(self, _channels, rows, *, by=None):
        return rows or 1

    def score(self, windows):
        if self.error is not None:
            raise self.error
        return Scores(np.zeros(len(windows)))

    def close(self):
        pass
