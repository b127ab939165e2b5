"""How alarms look beside what was really wrong.

Point by point as SKAB's leaderboard counts (github waico/SKAB: F1, FAR and MAR of rows), and episode by
episode as an operator feels it: a stretch of labelled rows is *found* if there is an alarm in it; the *delay*
is from its first row to the first such row; alarms in quiet time are *false*, and those close to each other
are one.
Just after a stretch the plant, and the off-delay of the alarm, may take a while: that time is not quiet.
"""

import statistics
from dataclasses import dataclass
from typing import Final

import numpy as np

from dxad.types import I8, NS_PER_S, Bools, Document

__all__ = ["Score", "compare"]

_GRACE_ROWS: Final = 60
"""Rows after a labelled stretch that are not quiet yet."""
_GAP_ROWS: Final = 60
"""False alarm rows no farther apart than this are one episode."""
_DAY_S: Final = 86_400


@dataclass(frozen=True, slots=True)
class Score:
    """Counts, and what follows from them."""

    true_positive: int
    false_positive: int
    true_negative: int
    false_negative: int
    episodes: int
    """Labelled stretches."""
    delays_s: tuple[float, ...]
    """Of those that were found, in their order."""
    false_episodes: int
    quiet_s: float
    """How long nothing was wrong."""

    @property
    def f1(self) -> float:
        """TP / (TP + (FN + FP) / 2); 0 where nothing was labelled and nothing flagged."""
        wrong = self.false_positive + self.false_negative
        return self.true_positive / (self.true_positive + wrong / 2) if self.true_positive + wrong else 0.0

    @property
    def far_pct(self) -> float:
        """False alarm rate: of the rows that were normal, those in alarm."""
        return _percent(self.false_positive, self.false_positive + self.true_negative)

    @property
    def mar_pct(self) -> float:
        """Missed alarm rate: of the rows that were not, those without an alarm."""
        return _percent(self.false_negative, self.false_negative + self.true_positive)

    def document(self) -> Document:
        """As JSON."""
        found = len(self.delays_s)
        days = self.quiet_s / _DAY_S
        return {
            "rows": self.true_positive + self.false_positive + self.true_negative + self.false_negative,
            "true_positive": self.true_positive,
            "false_positive": self.false_positive,
            "true_negative": self.true_negative,
            "false_negative": self.false_negative,
            "f1": round(self.f1, 4),
            "far_pct": round(self.far_pct, 2),
            "mar_pct": round(self.mar_pct, 2),
            "episodes": self.episodes,
            "found": found,
            "missed": self.episodes - found,
            "false_episodes": self.false_episodes,
            "false_per_day": round(self.false_episodes / days, 3) if days else None,
            "delay_median_s": round(statistics.median(self.delays_s), 3) if found else None,
            "delay_largest_s": round(max(self.delays_s), 3) if found else None,
        }


def _percent(part: int, whole: int) -> float:
    return 100 * part / whole if whole else 0.0


def compare(times: I8, wrong: Bools, alarm: Bools) -> Score:
    """Hold alarms against what was wrong.

    Args:
        times: (n,) of the rows, nanoseconds, ascending.
        wrong: (n,) what is labelled.
        alarm: (n,) what was told.
    """
    quiet = ~wrong
    delays = []
    stretches = _runs(wrong)
    for first, stop in stretches:
        quiet[stop : stop + _GRACE_ROWS] = False
        told = np.flatnonzero(alarm[first:stop])
        if len(told):
            delays.append((int(times[first + told[0]]) - int(times[first])) / NS_PER_S)
    false_rows = np.flatnonzero(quiet & alarm)
    episodes = int(len(false_rows) > 0) + int(np.count_nonzero(np.diff(false_rows) > _GAP_ROWS))
    step_s = float(np.median(np.diff(times))) / NS_PER_S if len(times) > 1 else 0.0
    return Score(
        true_positive=int(np.count_nonzero(wrong & alarm)),
        false_positive=int(np.count_nonzero(~wrong & alarm)),
        true_negative=int(np.count_nonzero(~wrong & ~alarm)),
        false_negative=int(np.count_nonzero(wrong & ~alarm)),
        episodes=len(stretches),
        delays_s=tuple(delays),
        false_episodes=episodes,
        quiet_s=int(np.count_nonzero(quiet)) * step_s,
    )


def _runs(flags: Bools) -> list[tuple[int, int]]:
    """Stretches of true values as [first, stop)."""
    edges = np.flatnonzero(np.diff(np.concatenate(([False], flags, [False])).astype(np.int8)))
    return [(int(first), int(stop)) for first, stop in edges.reshape(-1, 2)]
