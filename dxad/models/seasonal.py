"""What is usual at this time of the day: each phase of a season has a level and a spread of its own.

    season │ phase 0 │ phase 1 │ … │ phase bins - 1 │ phase 0 │ …
             └ a visit: its median and MAD are taken when it ends

    level    median of the phase's visits, of the last `memory` seasons
    within   mean of their MADs;  between: MAD of their medians, not below that of the channel's usual phase
    spread   1.4826 * sqrt(within^2 + between^2), not below a fourth of the channel's root mean square spread,
             nor a twentieth of the standard deviation of its levels
    score    max over channels of |x - level| / spread

This is the seasonal naive forecast (R. J. Hyndman, G. Athanasopoulos, "Forecasting: Principles and Practice",
5.2) with a median over seasons in place of the last one, so that one odd day teaches nothing. A MAD of few
values is too small on average; it is corrected by the factors of C. Croux, P. J. Rousseeuw, "Time-Efficient
Algorithms for Two Highly Robust Estimators of Scale", 1992.

Phases are counted on the stream clock, not by UTC: a season of "24h" begins at some hour of the day, the same
one every day until the machine boots. What was learned before a boot is in other phases then: it is dropped
if the stream time is found to have gone back over a restart. A pipeline without a `period` has no time, and
is never scored. A phase scores a channel once `seasons` visits have been seen, and nothing is learned from
rows above the limit, nor from a visit of which less than half was seen. Of a visit at most 128 rows, evenly
spaced, are kept.
"""

from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Final, Literal, Self, TypedDict, Unpack

import numpy as np
from pydantic import Field, model_validator

from dxad.baseline import (
    MAD_TO_STD,
    Baseline,
    BaselineSection,
    medians,
    normal_limit,
    pack,
    unpack,
    unpack_single,
)
from dxad.fields import Duration
from dxad.plugin import Plugin
from dxad.types import F4, F8, I8, NS_PER_S, Document

__all__ = ["PLUGIN", "Config", "Phases"]

_ROWS_MOST: Final = 128
"""Rows of a visit that its median is taken of."""
_FLOOR_OF_SPREAD: Final = 1 / 4
_FLOOR_OF_LEVELS: Final = 1 / 20
_SMALL: Final = (1.0, 1.0, 1.196, 1.495, 1.363, 1.206, 1.200, 1.140, 1.129, 1.107)
"""By the number of values: what corrects their MAD (Croux and Rousseeuw); n / (n - 0.8) beyond."""


class Config(BaselineSection):
    """`{ type = "seasonal" }`."""

    type: Literal["seasonal"]
    season: Annotated[Duration, Field(gt=0)] = Field(
        24 * 3600 * NS_PER_S, description="what repeats itself after this time"
    )
    bins: int = Field(96, ge=2, le=10_000, description="phases that a season is cut into")
    seasons: int = Field(3, ge=2, description="seasons that a phase must have been seen in before it scores")
    memory: int = Field(7, ge=2, le=100, description="seasons that a phase remembers")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.memory < self.seasons:
            raise ValueError(f"memory: {self.memory} seasons are fewer than the {self.seasons} of `seasons`")
        if self.season < self.bins:
            raise ValueError("season: is shorter than one nanosecond per bin")
        return self


class _Keys(TypedDict):
    season: int
    bins: int
    seasons: int
    memory: int


class Phases:
    """The levels and spreads of all phases, and the visit that goes on."""

    def __init__(
        self, channels: int, limit: float, *, season: int, bins: int, seasons: int, memory: int
    ) -> None:
        """Know nothing yet.

        Args:
            channels: how many columns.
            limit: of the score.
            season: nanoseconds.
            bins: phases of a season.
            seasons: visits that a phase needs before it scores.
            memory: visits that a phase remembers.
        """
        self._limit, self._season, self._bins, self._seasons = limit, season, bins, seasons
        self._channels, self._memory = channels, memory
        self._until: int | None = None
        """The stream time of the last row before a restart."""
        self._newest = 0
        self._start_over()
        self._course: list[tuple[int, tuple[F8, F8] | None]] = [(0, None)]
        """Level and spread before the rows scored last, and after how many of them they were others."""

    def _start_over(self) -> None:
        bins, channels = self._bins, self._channels
        self.ready = False
        """Whether any phase scores."""
        self._medians: F4 = np.full((bins, self._memory, channels), np.nan, dtype=np.float32)
        """By phase: the medians of its last visits, in a ring."""
        self._within: F4 = np.zeros((bins, channels), dtype=np.float32)
        self._visits = np.zeros(bins, dtype=np.int64)
        """By phase: how many visits it has had."""
        self._level, self._between = np.full((bins, channels), np.nan), np.zeros((bins, channels))
        self._count = np.zeros((bins, channels), dtype=np.int64)
        """By phase: in how many of the visits it remembers a channel was known."""
        self._between_usual, self._floor = np.zeros(channels), np.zeros(channels)
        self._most = 0
        """The most rows that a visit has had."""
        self._visit = _Visit(-1, channels)
        self._now = np.full(channels, np.nan), np.full(channels, np.inf)

    @classmethod
    def settle(cls, values: F8, limit: float, **keys: Unpack[_Keys]) -> "Phases":
        """It needs no warm-up: (0, channels) says how many there are."""
        return cls(values.shape[1], limit, **keys)

    @classmethod
    def restore(cls, state: Document, channels: int, limit: float, **keys: Unpack[_Keys]) -> "Phases":
        """What `state` gave."""
        phases = cls(channels, limit, **keys)
        phases._medians = unpack_single(state, "medians", phases._medians.shape)
        phases._within = unpack_single(state, "within", phases._within.shape)
        phases._visits = np.array(state["visits"], dtype=np.int64).reshape(phases._visits.shape)
        phases._most = int(state["most"])
        for phase in np.flatnonzero(phases._visits).tolist():
            phases._summarise(phase)
        phases._compare()
        phases._visit = _Visit.restore(state["visit"], channels)
        phases._until = phases._newest = int(state["newest"])
        if phases._visit.number >= 0:
            phases._look_up(phases._visit.number % phases._bins)
        phases._course = [(0, phases._normal)]
        return phases

    def normal_after(self, rows: int) -> tuple[F8, F8] | None:
        """Level and spread of the phase that the row was in."""
        return next(normal for after, normal in reversed(self._course) if after <= rows)

    @property
    def _normal(self) -> tuple[F8, F8] | None:
        level, spread = self._now
        return (level, np.where(np.isinf(spread), 0.0, spread)) if self.ready else None

    def score(self, times: I8, rows: F8) -> tuple[F8, F8]:
        """Squares of the deviations are the contributions; what is learned counts from the next visit on."""
        values, contributions = np.full(len(rows), np.nan), np.zeros(rows.shape)
        self._course = [(0, self._normal)]
        if len(rows):
            if self._until is not None and times[0] < self._until:
                self._start_over()
            self._until, self._newest = None, int(times[-1])
        phases = np.minimum(times % self._season // (self._season // self._bins), self._bins - 1)
        visits = times // self._season * self._bins + phases
        begins = np.flatnonzero(np.diff(visits, prepend=self._visit.number)).tolist()
        edges = [*([0] if len(rows) and (not begins or begins[0] > 0) else []), *begins, len(rows)]
        for begin, end in pairwise(edges):
            if visits[begin] != self._visit.number:
                self._end()
                self._visit = _Visit(int(visits[begin]), self._channels)
                self._look_up(int(phases[begin]))
                self._course.append((begin + 1, self._normal))
            part = slice(begin, end)
            values[part] = self._judge(rows[part], contributions[part])
            self._visit.gather(rows[part][~(values[part] > self._limit)])
        return values, contributions

    def _judge(self, rows: F8, out: F8) -> F8:
        level, spread = self._now
        if np.isinf(spread).all():
            return np.full(len(rows), np.nan)
        np.subtract(rows, level, out=out)
        np.divide(out, spread, out=out)
        np.multiply(out, out, out=out)
        np.fmax(out, 0.0, out=out)  # NaN, a bad value or one without a level, becomes 0
        values: F8 = np.sqrt(out.max(axis=1, initial=0.0))
        return values

    def _look_up(self, phase: int) -> None:
        """What is normal in a phase, for the length of a visit."""
        spread = np.sqrt(
            (MAD_TO_STD * self._within[phase].astype(np.float64)) ** 2
            + np.maximum(self._between[phase], self._between_usual) ** 2
        )
        spread = np.maximum(spread, self._floor)
        scored = (self._count[phase] >= self._seasons) & (spread > 0)
        self._now = self._level[phase].copy(), np.where(scored, spread, np.inf)

    def _end(self) -> None:
        visit = self._visit
        self._most = max(self._most, visit.count)
        if not visit.count or 2 * visit.count < self._most:
            return
        phase = visit.number % self._bins
        middle = medians(visit.rows)
        middle[2 * (~np.isnan(visit.rows)).sum(axis=0) < len(visit.rows)] = np.nan
        mad = medians(np.abs(visit.rows - middle))
        before = np.minimum(self._count[phase], self._medians.shape[1] - 1)
        within = self._within[phase] + (mad - self._within[phase]) / (before + 1)
        self._within[phase] = np.where(np.isnan(mad), self._within[phase], within)
        self._medians[phase, self._visits[phase] % self._medians.shape[1]] = middle
        self._visits[phase] += 1
        self._summarise(phase)
        self._compare()

    def _summarise(self, phase: int) -> None:
        """Level and spread of a phase from its visits."""
        known = self._medians[phase].astype(np.float64)
        count = (~np.isnan(known)).sum(axis=0)
        self._count[phase] = count
        self._level[phase] = medians(known)
        mad = np.nan_to_num(medians(np.abs(known - self._level[phase])))
        small = np.array(_SMALL)[np.minimum(count, len(_SMALL) - 1)]
        correction = np.where(count < len(_SMALL), small, count / np.maximum(count - 0.8, 0.2))
        self._between[phase] = MAD_TO_STD * mad * correction

    def _compare(self) -> None:
        """What holds for all phases of a channel, from those that are known well enough."""
        known = self._count >= self._seasons
        self.ready = bool(known.any())
        between = np.where(known, self._between, np.nan)
        self._between_usual = np.nan_to_num(medians(between))
        square = (MAD_TO_STD * self._within.astype(np.float64)) ** 2 + self._between**2
        n = np.maximum(known.sum(axis=0), 1)
        spread = np.sqrt(np.where(known, square, 0.0).sum(axis=0) / n)
        mean = np.where(known, self._level, 0.0).sum(axis=0) / n
        levels = np.sqrt(np.where(known, (self._level - mean) ** 2, 0.0).sum(axis=0) / n)
        self._floor = np.maximum(_FLOOR_OF_SPREAD * spread, _FLOOR_OF_LEVELS * levels)

    def forgive(self) -> None:
        """The visit that goes on may hold what a lying sensor said: it is begun anew."""
        self._visit = _Visit(self._visit.number, self._channels)

    def state(self) -> Document:
        """The medians of the visits, in single precision, and what else cannot be had from them."""
        return {
            "medians": pack(self._medians),
            "within": pack(self._within),
            "visits": self._visits.tolist(),
            "most": self._most,
            "visit": self._visit.state(),
            "newest": self._newest,
        }


class _Visit:
    """Rows of one visit: every one at first, every second once there are too many, and so on."""

    def __init__(self, number: int, channels: int) -> None:
        self.number = number
        self.count = 0
        """Rows so far, also those that are not kept."""
        self._kept: list[F8] = []
        self._stride = 1
        self._channels = channels

    @classmethod
    def restore(cls, state: Document, channels: int) -> Self:
        visit = cls(int(state["number"]), channels)
        visit.count, visit._stride = int(state["count"]), int(state["stride"])
        visit._kept = list(unpack(state, "kept", (int(state["rows"]), channels)))
        return visit

    def state(self) -> Document:
        return {
            "number": self.number,
            "count": self.count,
            "stride": self._stride,
            "rows": len(self._kept),
            "kept": pack(self.rows),
        }

    @property
    def rows(self) -> F8:
        """(at most 128, channels)."""
        return np.array(self._kept).reshape(len(self._kept), self._channels)

    def gather(self, rows: F8) -> None:
        place = -self.count % self._stride
        while place < len(rows):
            self._kept.append(rows[place].copy())
            if len(self._kept) > _ROWS_MOST:
                self._kept = self._kept[::2]
                self._stride *= 2
            place += self._stride
        self.count += len(rows)


def _build(config: Config, *, state_dir: Path) -> Baseline:  # noqa: ARG001 - every model is offered it
    keys = _Keys(season=config.season, bins=config.bins, seasons=config.seasons, memory=config.memory)
    return Baseline(
        "seasonal",
        limit=partial(normal_limit, rows=config.false_alarm_rows),
        settle=partial(Phases.settle, **keys),
        restore=partial(Phases.restore, **keys),
        warm_up=0,
        relearn_after=config.relearn_after,
    )


PLUGIN = Plugin(Config, _build)
