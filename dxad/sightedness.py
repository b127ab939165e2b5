"""Whether a pipeline sees what it is there to see, and what is told of the gateway when it does not."""

from collections.abc import Callable
from typing import Final

import numpy as np

from dxad.config import PipelineSection
from dxad.detector import NOT_FINITE, Scored
from dxad.errors import ModelError
from dxad.fields import matching
from dxad.runtime.health import Health
from dxad.types import NS_PER_S, Calibration, Rows, Schema

__all__ = ["Sightedness"]

_BLIND_AFTER: Final = 3
"""Windows in a row that were too bad to score."""
_START_NS: Final = 10 * NS_PER_S


class Sightedness:
    """Raises and clears the conditions of one pipeline's scoring."""

    def __init__(
        self,
        name: str,
        section: PipelineSection,
        schema: Schema,
        health: Health,
        *,
        vacant: Callable[[], bool] = lambda: False,
    ) -> None:
        """Look at rows of `schema`; while it is `vacant` nobody expects anything of them."""
        self._vacant = vacant
        self._name = name
        self._schema = schema
        self._health = health
        self._refused = 0
        self._failing = False
        self._start_rows = self._starting_rows = _START_NS // schema.period
        """While nothing was scored yet, so many rows may be refused: sources take a moment to come up."""
        self.adjust(section)

    def adjust(self, section: PipelineSection) -> None:
        """Go on by another configuration of the same rows."""
        found = [] if section.by is None else matching([section.by], self._schema.channels)
        self._by = found[0] if found else None
        self._deadline_s = section.deadline / NS_PER_S

    def failed(self, error: ModelError) -> None:
        """The model could not score."""
        self._failing = True
        self._health.raise_condition("model.failed", self._name, str(error))

    def note(self, rows: Rows, scored: Scored, *, slow: bool, calibration: Calibration | None) -> int:
        """What became of rows that the model was given; returns how many of them were scored."""
        if slow:
            detail = f"a batch took longer than the deadline of {self._deadline_s:g} s"
            self._health.raise_condition("model.slow", self._name, detail)
        else:
            self._health.clear("model.slow", self._name)
        if self._by is not None and calibration is not None:
            self._note_regimes(rows, self._by, calibration)
        done = len(rows) - int(np.count_nonzero(np.isnan(scored.raw)))
        if scored.unsound:
            self.failed(ModelError(NOT_FINITE))
        elif done and self._failing:
            self._health.clear("model.failed", self._name)
            self._failing = False
        if done:
            self._refused = self._starting_rows = 0
        elif self._vacant():
            self._refused, self._starting_rows = 0, self._start_rows
        elif self._starting_rows > 0:
            self._starting_rows -= len(rows)
        else:
            self._refused += scored.refused
        if self._refused >= _BLIND_AFTER:
            text = f"too many channels are missing or bad: {', '.join(self._absent(rows)) or 'none now'}"
            self._health.raise_condition("pipeline.blind", self._name, text)
        elif done:
            self._health.clear("pipeline.blind", self._name)
        return done

    def _note_regimes(self, rows: Rows, by: int, calibration: Calibration) -> None:
        """Say so when the machine runs in a way that was never learned: nothing can be said about it."""
        column = rows.values[:, by]
        seen = column[~np.isnan(column)]
        new = seen[~np.isin(seen, calibration.regimes)]
        if len(new):
            channel = self._schema.channels[by].id
            detail = f"{channel} is {new[-1]:g}, which was never learned: not scored meanwhile"
            self._health.raise_condition("regime.unknown", self._name, detail)
        elif len(seen):
            self._health.clear("regime.unknown", self._name)

    def _absent(self, rows: Rows) -> list[str]:
        gone = np.isnan(rows.values[-1])
        return [channel.id for place, channel in enumerate(self._schema.channels) if gone[place]]
