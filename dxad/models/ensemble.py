"""Several models on the same rows, and one score of them all.

            ┌─▶ model ─▶ Judge ─▶ judged score / its limit ─┐
windows ────┼─▶ …                                           ├─▶ max or mean ─▶ score, limit 1
            └─▶ …                                           ┘

Each member is judged as it would be alone, by causal means and scales of its own, so that 1 means for each of
them what its own calibration says. A member that is still warming up, or that does not score a row, is left
out of that row: the mean is of the others. A channel's contribution is its share of the member's, times the
member's score; with "max" they are those of the member with the largest score.

A member whose inference fails is left out as well while at least `quorum` others go on; without `quorum` the
failure is the ensemble's. `learn` makes no bundle for an ensemble: a `tflite` member wants one that is there.
"""

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from operator import is_not
from pathlib import Path
from typing import Annotated, Final, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from dxad import plugin
from dxad.errors import ModelError
from dxad.fields import ModelSection
from dxad.incident.alarm import Judge
from dxad.plugin import Plugin
from dxad.types import (
    F4,
    F8,
    I8,
    Calibration,
    Channel,
    Detailed,
    Document,
    Forgiving,
    Model,
    Paced,
    Scores,
    Windows,
)

__all__ = ["PLUGIN", "Config", "Ensemble"]

_FEWEST: Final = 2
_MOST: Final = 16
_LARGEST: Final = float(np.finfo(np.float32).max)
"""As in the detector: a score that overflowed is as large as can be, and finite."""


class Config(ModelSection):
    """`{ type = "ensemble", models = [{ type = "zscore" }, { type = "ewma" }] }`."""

    type: Literal["ensemble"]
    models: tuple[
        Annotated[ModelSection, plugin.section("models", ModelSection, without=("ensemble",))], ...
    ] = Field(strict=False, description="the models that score together, 2 to 16")
    combine: Literal["max", "mean"] = Field("max", description="what is made of their scores")
    quorum: int | None = Field(
        None, ge=1, description="how many must not fail for the others to go on; without it, all"
    )

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if not _FEWEST <= len(self.models) <= _MOST:
            raise ValueError(f"models: {len(self.models)}, but an ensemble has {_FEWEST} to {_MOST}")
        if self.quorum is not None and self.quorum > len(self.models):
            raise ValueError(f"quorum: {self.quorum} is more than there are models")
        return self

    def bundles(self) -> tuple[Path, ...]:
        """Those of its members."""
        return tuple(chain.from_iterable(each.bundles() for each in self.models))


class Ensemble:
    """Scores by its members; it is calibrated as soon as one of them is."""

    def __init__(
        self, models: Sequence[tuple[str, Model]], *, combine: Literal["max", "mean"], quorum: int | None
    ) -> None:
        """Hold members.

        Args:
            models: what a configuration calls each, and the model, not loaded yet.
            combine: what is made of their scores.
            quorum: how many must not fail; None for all.
        """
        self._members = [_Member(kind, model) for kind, model in models]
        self._combine = combine
        self._quorum = len(models) if quorum is None else quorum
        self._rows = 0
        self._sources: list[Calibration] = []
        """The members' calibrations that ours was made of."""
        self._calibration: Calibration | None = None
        text = "|".join((combine, *(model.version for _, model in models)))
        self.version = f"ensemble-{hashlib.sha256(text.encode()).hexdigest()[:12]}"

    @property
    def periods(self) -> frozenset[int]:
        """Those that a member was made for."""
        paced = [each.model.periods for each in self._members if isinstance(each.model, Paced)]
        return frozenset(chain.from_iterable(paced))

    def load(self, channels: Sequence[Channel], rows: int | None, *, by: int | None = None) -> int:
        """Load all members; a window is as long as the longest of them wants.

        Raises:
            ModelError: a member is not for these.
        """
        for member in self._members:
            member.load(channels, rows, by=by)
        self._rows = max(member.rows for member in self._members)
        return self._rows

    @property
    def calibration(self) -> Calibration | None:
        """The limit is 1; of what several members say of a channel the first one's counts.

        A regime is known if it is to all members that keep regimes apart.
        """
        found = [known for member in self._members if (known := member.model.calibration) is not None]
        if len(found) != len(self._sources) or any(map(is_not, found, self._sources)):
            self._sources, self._calibration = found, _merged(found) if found else None
        return self._calibration

    def score(self, windows: Windows) -> Scores:
        """Score by all members that can.

        Raises:
            ModelError: so many members failed that the others are fewer than the quorum.
        """
        n, width = len(windows), windows.values.shape[2]
        values, count = np.full(n, np.nan), np.zeros(n, dtype=np.int64)
        contributions = np.zeros((n, width))
        failed: list[ModelError] = []
        for member in self._members:
            try:
                found, parts = member.score(windows, self._rows)
            except ModelError as error:
                failed.append(error)
                if len(self._members) - len(failed) < self._quorum:
                    raise
                continue
            known = ~np.isnan(found)
            count += known
            if self._combine == "mean":
                values = np.where(known, np.where(count > 1, values, 0.0) + found, values)
                contributions += parts
            else:
                larger = known & ~(values >= found)
                values = np.where(larger, found, values)
                contributions[larger] = parts[larger]
        if self._combine == "mean":
            values /= np.maximum(count, 1)
            contributions /= np.maximum(count, 1)[:, None]
        return Scores(values, contributions)

    def forgive(self) -> None:
        """The members' scores of late measured a sensor that was lying."""
        for member in self._members:
            member.forgive()

    def details(self) -> Document:
        """By member: the newest score, of its limit, or why there is none."""
        return {"members": [member.details() for member in self._members]}

    def state(self) -> Document:
        """What the members have learned; their causal means begin anew, as the detector's do."""
        return {"members": [{"type": each.kind, "state": each.model.state()} for each in self._members]}

    def restore(self, state: Document) -> None:
        """Give each member what it had learned.

        Raises:
            ModelError: it is of other members, or a member does not take it.
        """
        if not state:
            return
        saved = state.get("members")
        if not isinstance(saved, list) or [each.get("type") for each in saved] != [
            member.kind for member in self._members
        ]:
            raise ModelError("the saved state is of other members, or of the same in another order")
        for member, each in zip(self._members, saved, strict=True):
            member.model.restore(each["state"])

    def close(self) -> None:
        """Close all members."""
        for member in self._members:
            member.model.close()


class _Member:
    """A model, and how it is judged."""

    def __init__(self, kind: str, model: Model) -> None:
        self.kind = kind
        self.model = model
        self.rows = 0
        self._judge: Judge | None = None
        self._next = 0
        """The slot after the last one that was judged."""
        self._reach = 1
        """Rows that a mean reaches back: a hole as long leaves nothing to remember."""
        self._newest = math.nan
        self._error = ""

    def load(self, channels: Sequence[Channel], rows: int | None, *, by: int | None) -> None:
        try:
            self.rows = self.model.load(channels, rows, by=by)
        except ModelError as error:
            raise ModelError(f"member {self.kind!r}: {error}") from error

    def score(self, windows: Windows, rows: int) -> tuple[F8, F8]:
        """The judged scores (n,), of the limit, NaN where there is none; what the channels make of them.

        Args:
            windows: of `rows` rows, of which the member sees the end.
            rows: as many as the longest member wants.
        """
        try:
            scores = self.model.score(self._end(windows, windows.values.shape[1] - min(rows, self.rows)))
        except ModelError as error:
            self._error = str(error)
            raise ModelError(f"member {self.kind!r}: {error}") from error
        self._error = ""
        n, width = len(windows), windows.values.shape[2]
        calibration = self.model.calibration
        if calibration is None or not n:
            return np.full(n, np.nan), np.zeros((n, width))
        raw = np.minimum(scores.values, _LARGEST)
        if calibration.since is not None and windows.last[0] < calibration.since and not windows.question:
            raw[windows.last < calibration.since] = np.nan
        if windows.question:
            values = _spread(Judge(calibration), windows.last, raw, int(windows.last[0])) / calibration.limit
        else:
            values = self._judged(calibration, windows.last, raw) / calibration.limit
            self._newest = float(values[-1])
        return values, _shares(scores.contributions, values, width)

    def _end(self, windows: Windows, before: int) -> Windows:
        if not before:
            return windows
        base = None if windows.base is None else windows.base[before:]
        return replace(windows, values=windows.values[:, before:], base=base)

    def _judged(self, calibration: Calibration, last: I8, raw: F8) -> F8:
        """As the detector judges: row by row, those without a score between the others."""
        if self._judge is None:
            self._judge = Judge(calibration)
            self._reach = max(calibration.spans)
            self._next = int(last[0])
        hole = int(last[0]) - self._next
        if not 0 <= hole < self._reach:
            self._judge.restart()
            self._next = int(last[0])
        begin, self._next = self._next, int(last[-1]) + 1
        return _spread(self._judge, last, raw, begin)

    def forgive(self) -> None:
        if self._judge is not None:
            self._judge.restart()
        if isinstance(self.model, Forgiving):
            self.model.forgive()

    def details(self) -> Document:
        calibration = self.model.calibration
        document: Document = {
            "type": self.kind,
            "version": self.model.version,
            "score": None if math.isnan(self._newest) else round(self._newest, 4),
            "limit": None if calibration is None else round(calibration.limit, 4),
        }
        if self._error:
            document["error"] = self._error
        return document | (self.model.details() if isinstance(self.model, Detailed) else {})


def _spread(judge: Judge, last: I8, raw: F8, begin: int) -> F8:
    """Judge scores that belong to the slots `last`, with nothing in the other slots from `begin` on."""
    rows = np.full(int(last[-1]) + 1 - begin, np.nan)
    rows[last - begin] = raw
    judged: F8 = judge.apply(rows)[last - begin]
    return judged


def _shares(parts: F8 | F4 | None, values: F8, width: int) -> F8:
    """What channels contribute (n, channels), so that they add up to the score; zeros where not known."""
    if parts is None:
        return np.zeros((len(values), width))
    known = np.nan_to_num(parts.astype(np.float64), nan=0.0, posinf=_LARGEST)
    total = known.sum(axis=1)
    scale = np.divide(np.nan_to_num(values), total, out=np.zeros(len(values)), where=total > 0)
    shares: F8 = known * scale[:, None]
    return shares


def _merged(found: Sequence[Calibration]) -> Calibration:
    regimes = [set(each.regimes) for each in found if each.regimes]
    begun = [each.since for each in found if each.since is not None]
    return Calibration(
        limit=1.0,
        normal=_First([each.normal for each in found]),
        since=min(begun) if len(begun) == len(found) else None,
        normal_at=lambda slot: _First([each.at(slot).normal for each in found]),
        stuck_rows={name: rows for each in reversed(found) for name, rows in each.stuck_rows.items()},
        regimes=tuple(sorted(set.intersection(*regimes))) if regimes else (),
    )


class _First(Mapping[str, tuple[float, float]]):
    """What the first of several mappings says of a name, looked up when it is asked for."""

    def __init__(self, mappings: Sequence[Mapping[str, tuple[float, float]]]) -> None:
        self._mappings = mappings

    def __getitem__(self, name: str) -> tuple[float, float]:
        for each in self._mappings:
            if name in each:
                return each[name]
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(name for each in self._mappings for name in each))

    def __len__(self) -> int:
        return len(set().union(*self._mappings))


def _build(config: Config, *, state_dir: Path) -> Ensemble:
    models = []
    for section in config.models:
        kind: str = section.type  # type: ignore[attr-defined] # every plug-in's config has it
        models.append((kind, plugin.load("models", kind).build(section, state_dir=state_dir)))
    return Ensemble(models, combine=config.combine, quorum=config.quorum)


PLUGIN = Plugin(Config, _build)
