"""A model at work on one pipeline's rows: windows, scores, and their judgement.

rows ─▶ WindowBuffer ─▶ Model ─▶ Judge ─▶ one judged score per row, to be held against the limit
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Self

import numpy as np

from dxad.errors import FOREIGN_FAULTS, ModelError
from dxad.incident.alarm import Judge
from dxad.types import (
    F4,
    F8,
    NS_PER_S,
    Bools,
    Calibration,
    Channel,
    Detailed,
    Document,
    Forgiving,
    Model,
    Paced,
    Rows,
    Windows,
)
from dxad.window import WindowBuffer

__all__ = ["BAD_MOST", "NOT_FINITE", "Detector", "Scored", "anomaly_score"]

NOT_FINITE: Final = "it answers with numbers that are not finite"
BAD_MOST: Final = 0.2
"""A window with a larger share of bad cells is not scored."""
_SCORE_MOST: Final = float(np.finfo(np.float32).max)
"""A score that overflowed in single precision: as large as can be, and finite, so that it can be told."""


@dataclass(slots=True)
class Scored:
    """What a model said of consecutive rows."""

    raw: F8
    """(n,); NaN where the row ended no window, or one that was not scored."""
    judged: F8
    """(n,), likewise."""
    contributions: F8 | F4
    """(n, channels), zero where unknown."""
    refused: int
    """Windows that were not scored because too much of them was bad."""
    unsound: int = 0
    """Windows that the model answered with a number that is not finite, without a reason to."""

    @classmethod
    def nothing(cls, rows: int, channels: int) -> Self:
        """So many rows that nobody has scored."""
        unknown = np.full(rows, np.nan)
        return cls(unknown, unknown, np.zeros((rows, channels)), 0)


class Detector:
    """Scores the rows it is given, in order."""

    def __init__(
        self,
        model: Model,
        channels: Sequence[Channel],
        *,
        rows: int | None,
        hop: int,
        required: Sequence[int],
        by: int | None = None,
        period: int = 1,
        key: Document | None = None,
    ) -> None:
        """Load `model` for these channels.

        Args:
            model: not loaded yet.
            channels: what the columns of the rows are.
            rows: the window that the configuration asks for; None leaves it to the model.
            hop: rows from one window to the next.
            required: columns without which a window is not scored.
            by: the column that says in which regime the machine runs, if one does.
            period: nanoseconds from one row to the next; 1 where each message makes a row.
            key: how the model was configured: only a detector of an equal key may take up its state.

        Raises:
            ModelError: the model is not for these.
        """
        _refuse_another_period(model, period)
        self.model = model
        self._by = by
        self._key = {"channels": [channel.id for channel in channels], **(key or {})}
        self.rows = model.load(channels, rows, by=by)
        self._width = len(channels)
        self._required = list(required)
        self._windows = WindowBuffer(rows=self.rows, channels=len(channels), hop=hop)
        self._judge: Judge | None = None

    @property
    def calibration(self) -> Calibration | None:
        """How the model's scores are judged; None during a warm-up."""
        return self.model.calibration

    def limit(self, configured: float | None) -> float | None:
        """The judged score above which a row is anomalous; None while nobody knows."""
        if configured is not None:
            return configured
        return None if self.calibration is None else self.calibration.limit

    def state(self) -> Document:
        """What the model has learned while it ran, and whose it is; empty where that is nothing."""
        learned = self.model.state()
        return {"of": self._of, "state": learned} if learned else {}

    def restore(self, state: Document) -> None:
        """Take up what `state` of a detector of the same model has given.

        Raises:
            ModelError: it is of another model, or of other channels.
        """
        if not state:
            return
        if state.get("of") != self._of:
            raise ModelError("it is of another model, or of other channels")
        self.model.restore(state["state"])

    @property
    def _of(self) -> Document:
        return {**self._key, "version": self.model.version, "rows": self.rows}

    def snapshot(self) -> Document:
        """What there is to know about the model now; from any thread."""
        more = self.model.details() if isinstance(self.model, Detailed) else {}
        return {"version": self.model.version, "rows": self.rows, **more}

    def prime(self, rows: Rows) -> None:
        """Take in rows that went before, so that the next one already ends a window."""
        self._windows.push(rows)

    def apply(self, rows: Rows) -> Scored:
        """Score consecutive rows.

        Raises:
            ModelError: inference failed.
        """
        windows = self._windows.push(rows)
        usable = None if windows.whole else self._usable(windows)
        refused = 0 if usable is None else len(windows) - int(np.count_nonzero(usable))
        if usable is not None and refused:
            windows = replace(
                windows, last=windows.last[usable], values=windows.values[usable], bad=windows.bad[usable],
                base=None,
            )  # fmt: skip
        raw, contributions, unsound = self._scored(windows, rows)
        return Scored(raw, self._judged(raw, rows.first), contributions, refused, unsound)

    def _scored(self, windows: Windows, rows: Rows) -> tuple[F8, F8 | F4, int]:
        """The scores of windows, and who made them, at the rows that end them; how many are unsound."""
        n = len(rows)
        if not len(windows):
            return np.full(n, np.nan), np.zeros((n, self._width)), 0
        values, parts, unsound = self._answer(windows)
        if len(windows) == n:
            return values, np.zeros((n, self._width)) if parts is None else parts, unsound
        raw, contributions = np.full(n, np.nan), np.zeros((n, self._width))
        places = windows.last - rows.first
        raw[places] = values
        if parts is not None:
            contributions[places] = parts
        return raw, contributions, unsound

    def _answer(self, windows: Windows) -> tuple[F8, F8 | F4 | None, int]:
        """What the model says of windows, in finite numbers or NaN; how many answers are unsound.

        Raises:
            ModelError: inference failed, in whatever way.
        """
        n, calibration = len(windows), self.calibration
        try:
            scores = self.model.score(windows)
            values, parts = np.minimum(scores.values, _SCORE_MOST), scores.contributions
            if values.shape != (n,) or (parts is not None and parts.shape != (n, self._width)):
                raise ModelError(f"its scores of {n} windows of {self._width} channels have another shape")
            if parts is not None and not _finite(parts.reshape(-1)):
                parts = np.nan_to_num(parts.astype(np.float64), nan=0.0, posinf=_SCORE_MOST)
        except FOREIGN_FAULTS as error:
            raise ModelError(f"{type(error).__name__}: {error}") from error
        if _finite(values):
            return values, parts, 0
        unsound = np.isneginf(values)
        values[unsound] = np.nan
        if calibration is not None and not isinstance(self.model, Forgiving):
            unsound |= np.isnan(values) & self._certain(windows, calibration)
        return values, parts, int(np.count_nonzero(unsound))

    def _certain(self, windows: Windows, calibration: Calibration) -> Bools:
        """(n,): which windows a calibrated model has no reason not to score: whole, in regimes it knows."""
        certain: Bools = windows.bad == 0
        if self._by is not None:
            known = np.asarray(calibration.regimes, dtype=np.float32)
            certain &= np.isin(windows.values[:, :, self._by], known).all(axis=1)
        return certain

    def best(self, rows: Rows) -> tuple[float, float] | None:
        """The largest raw and judged score of all windows inside `rows`, without touching any state.

        None when `rows` hold no whole window, or none that can be scored, or nobody can judge it yet.
        """
        calibration = self.calibration
        if calibration is None or len(rows) < self.rows:
            return None
        windows = WindowBuffer(rows=self.rows, channels=self._width).push(rows)
        windows = replace(windows, question=True)
        raw = np.where(self._usable(windows), self._answer(windows)[0], np.nan)
        judged = Judge(calibration).apply(raw)
        if np.isnan(judged).all():
            return None
        return float(np.nanmax(raw)), float(np.nanmax(judged))

    def restart(self) -> None:
        """Rows were lost: no window and no mean shall reach across the hole."""
        self._windows.clear()
        self.forgive()

    def forgive(self) -> None:
        """The scores so far measured a sensor that was lying: they shall not weigh on the next ones."""
        if self._judge is not None:
            self._judge.restart()
        if isinstance(self.model, Forgiving):
            self.model.forgive()

    def _usable(self, windows: Windows) -> Bools:
        usable: Bools = windows.bad <= BAD_MOST
        if self._required and len(windows):
            usable &= ~np.isnan(windows.values[:, :, self._required]).all(axis=1).any(axis=1)
        return usable

    def _judged(self, raw: F8, first: int) -> F8:
        calibration = self.calibration
        if calibration is None:
            return np.full(len(raw), np.nan)
        if self._judge is None:
            self._judge = Judge(calibration)
            if calibration.since is not None and calibration.since > first:
                raw = raw.copy()
                raw[: calibration.since - first] = np.nan
        return self._judge.apply(raw)


def _finite(values: F8 | F4) -> bool:
    """Whether all of (n,) are finite and no square overflows: their sum of squares is (`dot`, one call)."""
    return math.isfinite(values.dot(values))


def _refuse_another_period(model: Model, period: int) -> None:
    """Raises ModelError: it was made for rows that are further apart than these, or less far."""
    for made_for in model.periods if isinstance(model, Paced) else ():
        if 1 not in (made_for, period) and made_for != period:
            raise ModelError(
                f"the model was made for rows {made_for / NS_PER_S:g} s apart, those of the pipeline are "
                f"{period / NS_PER_S:g} s apart: learn it anew from such rows"
            )


def anomaly_score(judged: float, limit: float) -> float:
    """A score between 0 and 1 in which 0.95 is the limit: 1 - 20 ** (-judged / limit)."""
    return float(1.0 - 20.0 ** (-judged / limit))
