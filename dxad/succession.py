"""Which model counts: the live one, and one beside it that is on trial or has just been replaced.

                 shadow                    promote, or the rule says so
    candidate ───────────▶ beside the live ─────────────────────────────▶ live, the old one beside it
                                                                             │          │
        old one live again ◀── it fails, is slow, or alarms where the old ───┘          ▼
                               one does not: rolled back                       probation over: alone

Both score the same rows, so nothing is lost at a swap, and what the other one would have said is known. All
of it happens on the inference thread, between two batches; the event loop only leaves wishes, which are
fulfilled in order.
"""

import math
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Final, Literal

import numpy as np

from dxad.config import PromotionSection
from dxad.detector import NOT_FINITE, Detector, Scored
from dxad.errors import ModelError
from dxad.runtime.clock import Clock
from dxad.types import NS_PER_S, Document, Rows

__all__ = ["Comparison", "Settled", "Succession", "Turn"]

_SLOW_MOST: Final = 3
"""Batches over the deadline that a model on probation may take."""
_SHIFT_ROWS_MIN: Final = 100
"""Compared rows before a shift of the score means anything."""
_RATIO_MOST: Final = 10.0
"""A score far above its limit is compared as this many times the limit."""

_TURNS_KEPT: Final = 100
_PATIENCE: Final = 20
"""Probations without a comparison, in an outage say, after which the replaced model goes all the same."""

Role = Literal["none", "shadow", "retired"]
TurnKind = Literal["installed", "promoted", "rolled_back", "dismissed"]
Settled = Future[str | None]
"""None once a wish is fulfilled; why it was not, otherwise."""


@dataclass(frozen=True, slots=True)
class _Wish:
    """What somebody wants, and waits for."""

    kind: Literal["install", "shadow", "promote", "rollback", "alone"]
    detector: Detector | None = None
    settled: Settled = field(default_factory=Future)

    def settle(self, refused: str | None) -> None:
        """Tell whoever still waits."""
        if self.settled.set_running_or_notify_cancel():
            self.settled.set_result(refused)


@dataclass(slots=True)
class Comparison:
    """What the live model and the one beside it made of the same rows."""

    offered: int = 0
    """Rows that both were given."""
    rows: int = 0
    """On which both had a score."""
    both: int = 0
    """Rows on which both were above their limit."""
    live_only: int = 0
    beside_only: int = 0
    live_sum: float = 0.0
    """Of scores over their limits."""
    beside_sum: float = 0.0
    live_squares: float = 0.0
    beside_squares: float = 0.0
    products: float = 0.0
    live_ns: int = 0
    """Time spent scoring."""
    beside_ns: int = 0
    failures: int = 0
    """Batches in which the one beside failed."""
    slow: int = 0
    """Batches in which the live one took longer than the deadline."""

    @property
    def agreement(self) -> float | None:
        """The share of rows on which both say the same; None before the first."""
        return 1.0 - (self.live_only + self.beside_only) / self.rows if self.rows else None

    @property
    def correlation(self) -> float | None:
        """Pearson's, of the scores over their limits; None where it is not defined."""
        n = self.rows
        live = n * self.live_squares - self.live_sum**2
        beside = n * self.beside_squares - self.beside_sum**2
        if n < 2 or live <= 0 or beside <= 0:
            return None
        return (n * self.products - self.live_sum * self.beside_sum) / math.sqrt(live * beside)

    def add(self, live: Scored, live_limit: float, beside: Scored, beside_limit: float) -> None:
        """Take in what both said of the same rows."""
        known = ~np.isnan(live.judged) & ~np.isnan(beside.judged)
        one = np.minimum(live.judged[known] / live_limit, _RATIO_MOST)
        other = np.minimum(beside.judged[known] / beside_limit, _RATIO_MOST)
        self.rows += len(one)
        self.both += int(np.count_nonzero((one > 1) & (other > 1)))
        self.live_only += int(np.count_nonzero((one > 1) & (other <= 1)))
        self.beside_only += int(np.count_nonzero((one <= 1) & (other > 1)))
        self.live_sum += float(one.sum())
        self.beside_sum += float(other.sum())
        self.live_squares += float(one @ one)
        self.beside_squares += float(other @ other)
        self.products += float(one @ other)

    def document(self) -> Document:
        """As a report."""
        n = max(self.rows, 1)

        def rounded(value: float | None) -> float | None:
            return None if value is None else round(value, 4)

        return {
            "rows": self.rows,
            "agreement": rounded(self.agreement),
            "correlation": rounded(self.correlation),
            "alarm_share": {
                "live": rounded((self.both + self.live_only) / n),
                "beside": rounded((self.both + self.beside_only) / n),
            },
            "mean_score_of_limit": {
                "live": rounded(self.live_sum / n),
                "beside": rounded(self.beside_sum / n),
            },
            "us_per_row": {
                "live": rounded(self.live_ns / n / 1e3),
                "beside": rounded(self.beside_ns / n / 1e3),
            },
            "failures": self.failures,
            "slow": self.slow,
        }


@dataclass(frozen=True, slots=True)
class Turn:
    """Another model counts from now on, or the one beside it is there no more."""

    kind: TurnKind
    version: str
    """Of the one that counts now."""
    replaced: str | None
    """Of the one that counted before, or was beside it."""
    reason: str
    at: int
    """Stream time."""


class Succession:
    """The models of one pipeline."""

    def __init__(
        self,
        rule: PromotionSection,
        *,
        deadline: int,
        period: int,
        configured_limit: Callable[[], float | None],
        clock: Clock,
    ) -> None:
        """Judge by `rule`; a batch that takes longer than `deadline` ns counts as slow."""
        self.live: Detector | None = None
        self.beside: Detector | None = None
        self.role: Role = "none"
        self.comparison = Comparison()
        self.turns: deque[Turn] = deque(maxlen=_TURNS_KEPT)
        """What has changed: whoever tells of it takes it away, from another thread."""
        self.slow = False
        """Whether the last batch took longer than it may."""
        self.adjust(rule, deadline=deadline, period=period)
        self._configured_limit = configured_limit
        self._clock = clock
        self._wishes: deque[_Wish] = deque()

    def adjust(self, rule: PromotionSection, *, deadline: int, period: int) -> None:
        """Judge by another rule from the next row on, of a pipeline whose rows are `period` ns apart."""
        self._rule = rule
        self._deadline = deadline
        self._probation_rows = max(1, rule.probation // period)
        self._trial_rows = max(1, rule.after // period)

    # -- wishes, from the event loop ----------------------------------------------------------------------

    def offer(self, detector: Detector) -> Settled:
        """Let `detector` count from the next row on; the one before stays beside it for its probation."""
        return self._want(_Wish("install", detector))

    def shadow(self, detector: Detector) -> Settled:
        """Score beside the live model from the next row on."""
        return self._want(_Wish("shadow", detector))

    def promote(self) -> Settled:
        """Let the shadow count from the next row on."""
        return self._want(_Wish("promote"))

    def roll_back(self) -> Settled:
        """Let the one that was replaced count again."""
        return self._want(_Wish("rollback"))

    def dismiss(self) -> Settled:
        """Let go of the one beside."""
        return self._want(_Wish("alone"))

    def _want(self, wish: _Wish) -> Settled:
        self._wishes.append(wish)
        return wish.settled

    @property
    def expected(self) -> bool:
        """Whether a model counts, or will from the next row on."""
        return self.upcoming is not None

    @property
    def upcoming(self) -> Detector | None:
        """What counts, or will from the next row on."""
        offered = [wish.detector for wish in list(self._wishes) if wish.kind == "install"]
        return offered[-1] if offered else self.live

    # -- between two batches, on the inference thread -----------------------------------------------------

    def settle(self, past: Callable[[int], Rows | None]) -> bool:
        """Fulfil all wishes in order; `past` gives so many rows of the past for a first window.

        Returns whether another model counts now.
        """
        before = self.live
        while self._wishes:
            wish = self._wishes.popleft()
            if wish.detector is not None and wish.detector.rows > 1:
                rows = past(wish.detector.rows - 1)
                if rows is not None and len(rows):
                    wish.detector.prime(rows)
            wish.settle(self._fulfil(wish))
        return self.live is not before

    def _fulfil(self, wish: _Wish) -> str | None:
        """Returns why not, if it cannot be."""
        kind, detector = wish.kind, wish.detector
        if kind == "install" and detector is not None:
            self._displace(f"{detector.model.version} was installed")
            self._replace(detector, "installed", "it was installed")
        elif kind == "shadow" and detector is not None:
            self._displace(f"{detector.model.version} takes its place")
            self.beside, self.role = detector, "shadow"
        elif kind == "promote":
            if self.role != "shadow":
                return "there is no shadow any more"
            self._promote("it was promoted")
        elif kind == "rollback":
            if self.role != "retired":
                return "the model before it is gone: the probation is over"
            self._roll_back("it was rolled back")
        else:
            self._displace("it was dismissed")
        return None

    def apply(self, rows: Rows) -> Scored | None:
        """Score consecutive rows; None while there is no model.

        Raises:
            ModelError: the live model failed, and there is none to go back to.
        """
        live = self.live
        if live is None:
            return None
        begin = self._clock.now()
        fault = NOT_FINITE
        try:
            scored = live.apply(rows)
        except ModelError as error:
            if self.role != "retired":
                if self.beside is not None:
                    self.beside.restart()  # it will not see these rows
                raise
            scored, fault = None, f"it failed: {error}"
        if self.role == "retired" and (scored is None or scored.unsound):
            self._roll_back(fault)
            assert self.live is not None
            return self.live.apply(rows)
        assert scored is not None
        took = self._clock.now() - begin
        self.slow = took > self._deadline
        if self.beside is not None:
            return self._compare(rows, scored, took)
        return scored

    def _compare(self, rows: Rows, scored: Scored, took: int) -> Scored:
        """Let the other one score too; returns the scores of the one that counts after that."""
        live, beside, seen = self.live, self.beside, self.comparison
        assert live is not None
        assert beside is not None
        seen.offered += len(rows)
        begin = self._clock.now()
        try:
            other = beside.apply(rows)
        except ModelError as error:
            return self._beside_failed(scored, str(error))
        if other.unsound:
            return self._beside_failed(scored, NOT_FINITE)
        seen.live_ns += took
        seen.beside_ns += self._clock.now() - begin
        seen.slow += self.slow
        live_limit, beside_limit = self._limit(live), self._limit(beside)
        if live_limit is not None and beside_limit is not None:
            seen.add(scored, live_limit, other, beside_limit)
        if self.role == "retired":
            return self._on_probation(scored, other)
        if self._rule.automatic and self._deserves():
            self._promote(f"it agreed on {seen.agreement or 0:.2%} of {seen.rows} rows")
        return scored

    def _beside_failed(self, scored: Scored, why: str) -> Scored:
        """A shadow is not ready to count; to a model that was replaced there is no way back."""
        self.comparison.failures += 1
        if self.role == "retired":
            self._let_go(f"it failed beside its successor: {why}")
        return scored

    def _on_probation(self, scored: Scored, other: Scored) -> Scored:
        seen = self.comparison
        share = seen.live_only / max(seen.rows, 1)
        if seen.slow > _SLOW_MOST:
            self._roll_back(f"it took longer than {self._deadline / NS_PER_S:g} s, {seen.slow} times")
        elif seen.rows >= min(_SHIFT_ROWS_MIN, self._probation_rows) and share > self._rule.shift:
            self._roll_back(f"it alarms in {share:.0%} of the rows in which the old one does not")
        else:
            if seen.rows >= self._probation_rows or seen.offered >= _PATIENCE * self._probation_rows:
                self._let_go()
            return scored
        return other

    def _deserves(self) -> bool:
        seen = self.comparison
        return (
            seen.rows >= self._trial_rows
            and seen.failures == 0
            and (seen.agreement or 0.0) >= self._rule.agreement
        )

    def _limit(self, detector: Detector) -> float | None:
        return detector.limit(self._configured_limit())

    # -- who counts ---------------------------------------------------------------------------------------

    def _promote(self, reason: str) -> None:
        detector = self.beside
        assert detector is not None
        self.beside = None
        self._replace(detector, "promoted", reason)

    def _replace(self, detector: Detector, kind: TurnKind, reason: str) -> None:
        old, self.live = self.live, detector
        self.beside, self.role = old, "none" if old is None else "retired"
        self.comparison = Comparison()
        self._note(kind, detector, old, reason)

    def _roll_back(self, reason: str) -> None:
        failed, old = self.live, self.beside
        assert failed is not None
        assert old is not None
        self.live, self.beside, self.role = old, None, "none"
        failed.model.close()
        self._note("rolled_back", old, failed, reason)

    def _displace(self, reason: str) -> None:
        """Let go of the one beside for another's sake: of a shadow somebody may still expect something."""
        self._let_go(reason if self.role == "shadow" else None)

    def _let_go(self, told: str | None = None) -> None:
        """Close the one beside, and tell why if there is more to it than that its time has come."""
        live, beside = self.live, self.beside
        if beside is not None:
            beside.model.close()
            if live is not None and told is not None:
                self._note("dismissed", live, beside, told)
        self.beside, self.role, self.comparison = None, "none", Comparison()

    def _note(self, kind: TurnKind, counts: Detector, replaced: Detector | None, reason: str) -> None:
        before = None if replaced is None else replaced.model.version
        self.turns.append(Turn(kind, counts.model.version, before, reason, self._clock.now()))

    def restart(self) -> None:
        """Rows were lost: no window reaches across the hole."""
        for detector in (self.live, self.beside):
            if detector is not None:
                detector.restart()

    def forgive(self) -> None:
        """The scores so far measured a sensor that was lying."""
        for detector in (self.live, self.beside):
            if detector is not None:
                detector.forgive()

    def close(self) -> None:
        """Let go of all models, and of those that wait: whoever wished for them is told."""
        while self._wishes:
            wish = self._wishes.popleft()
            if wish.detector is not None:
                wish.detector.model.close()
            wish.settle("the pipeline is there no more")
        self._displace("its pipeline is there no more")
        if self.live is not None:
            self.live.model.close()

    def snapshot(self) -> Document | None:
        """The one beside, and how it compares; None without one."""
        beside = self.beside
        if beside is None:
            return None
        of_rows = self._probation_rows if self.role == "retired" else self._trial_rows
        return {
            "role": self.role,
            "version": beside.model.version,
            "of_rows": of_rows,
            "comparison": self.comparison.document(),
        }
