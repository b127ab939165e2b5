"""A model that learns what is normal while it runs, apart for each regime of the machine."""

import copy
import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from dxad.baseline.regime import Normal, Now, Regime
from dxad.baseline.statistic import Statistic
from dxad.errors import ModelError
from dxad.types import F8, I8, Calibration, Channel, Document, Scores, Windows

__all__ = ["REGIMES_MOST", "Baseline"]

REGIMES_MOST: Final = 16
"""Regimes that are told apart; rows of further ones are not scored."""


class Baseline:
    """The model contract for a `Statistic`: one of them for each value of the `by` channel.

    Only the last row of a window counts. While a row's score is above the limit nothing is learned from it,
    so that a fault is not learned away; `relearn_after` in the configuration says when it is no fault any
    more. A warm-up that a restart cuts short begins anew.
    """

    def __init__(
        self,
        kind: str,
        *,
        limit: Callable[[int], float],
        settle: Callable[[F8, float], Statistic],
        restore: Callable[[Document, int, float], Statistic],
        warm_up: int,
        relearn_after: int | None,
    ) -> None:
        """Make a model.

        Args:
            kind: its type in a configuration.
            limit: the number of channels that are scored to the limit of the scores.
            settle: the rows of a warm-up (n, channels) and the limit to what was learned from them.
            restore: what its `state` gave, the number of channels and the limit to the same statistic.
            warm_up: rows to `settle` with, 0 or more.
            relearn_after: how many more rows above than below the limit are the new normal; None for never.
        """
        self.version = kind
        self.calibration: Calibration | None = None
        self._limit_of, self._settle, self._restore = limit, settle, restore
        self._warm_up, self._relearn_after = warm_up, relearn_after
        self._channels: tuple[Channel, ...] = ()
        self._by: int | None = None
        self._limit = math.nan
        self._regimes: dict[float, Regime] = {}
        self._last: I8 = np.empty(0, dtype=np.int64)
        """(n,) the slots of the rows scored last."""
        self._keys: F8 = np.zeros(1)
        """(1 + n,) the regimes of the row before them, and of each of them."""

    def load(self, channels: Sequence[Channel], rows: int | None, *, by: int | None = None) -> int:
        """Any channels will do, and one row is enough."""
        self._channels, self._by = tuple(channels), by
        self._limit = self._limit_of(len(channels) - (by is not None))
        self._regimes = {}
        self.calibration = None
        self._last, self._keys = self._last[:0], np.full(1, 0.0 if by is None else np.nan)
        return rows or 1

    def score(self, windows: Windows) -> Scores:
        """Score each window's last row; NaN during a warm-up, and in a regime that cannot be told or kept.

        Raises:
            ModelError: not loaded.
        """
        if not self._channels:
            raise ModelError("score before load")
        rows = windows.values[:, -1].astype(np.float64)
        if not len(rows):
            return Scores(np.empty(0), rows)
        regimes = copy.deepcopy(self._regimes) if windows.question else self._regimes
        if self._by is None:
            regime = self._regime(0.0, regimes)
            assert regime is not None
            scores = Scores(*regime.score(windows.times, rows))
            keys = None
        else:
            keys = rows[:, self._by] + 0.0  # -0.0 is 0.0
            rows[:, self._by] = np.nan
            scores = self._apart(windows.times, rows, keys, regimes)
        if not windows.question:
            self._last = windows.last
            if keys is not None:
                self._keys = np.concatenate((self._keys[-1:], keys))
            self._calibrate(None if self.calibration is not None else self._known_since())
        return scores

    def _apart(self, times: I8, rows: F8, keys: F8, regimes: dict[float, Regime]) -> Scores:
        """Hand each row to its regime."""
        values, contributions = np.full(len(rows), np.nan), np.zeros(rows.shape)
        known, firsts = np.unique(keys[~np.isnan(keys)], return_index=True)
        for key in known[np.argsort(firsts)].tolist():
            regime = self._regime(key, regimes)
            if regime is not None:
                mine = keys == key
                values[mine], contributions[mine] = regime.score(times[mine], rows[mine])
        return Scores(values, contributions)

    def _regime(self, key: float, regimes: dict[float, Regime]) -> Regime | None:
        """The regime of this value, a new one if need be; None where there are too many already."""
        if key not in regimes and len(regimes) < REGIMES_MOST:
            regimes[key] = self._new()
        return regimes.get(key)

    def _new(self, statistic: Statistic | None = None) -> Regime:
        return Regime(
            len(self._channels),
            warm_up=self._warm_up,
            settle=self._settle,
            limit=self._limit,
            relearn_after=self._relearn_after,
            statistic=statistic,
        )

    def _calibrate(self, since: int | None) -> None:
        """Judge by one limit, from the row of the slot `since` on if it is not known yet."""
        old = self.calibration
        if old is not None and self._by is None:
            return
        ready = sorted(key for key, regime in self._regimes.items() if regime.ready)
        known = () if self._by is None else tuple(ready)
        if old is None:
            if since is not None or ready:
                now = Now(lambda: self._normal(len(self._last)))
                self.calibration = Calibration(
                    self._limit, normal=now, regimes=known, since=since, normal_at=self._normal_at
                )
        elif ready and old.regimes != known:  # during a new warm-up they stay what they were
            self.calibration = replace(old, regimes=known)

    def _known_since(self) -> int | None:
        """The slot of the first of the rows scored last after which some regime was ready."""
        found = []
        for key, regime in self._regimes.items():
            mine = self._last if self._by is None else self._last[self._keys[1:] == key]
            rows = regime.known_after() if len(mine) else None
            if rows is not None:
                found.append(int(mine[rows - 1]))
        return min(found, default=None)

    def _normal_at(self, slot: int) -> Normal:
        """What was normal after the row of `slot`, in the regime that it was in."""
        return self._normal(int(np.searchsorted(self._last, slot, side="right")))

    def _normal(self, rows: int) -> Normal:
        """The same after so many of the rows scored last; nothing where the regime is not known."""
        if self._by is None:
            key, of_regime = 0.0, rows if len(self._last) else None
        else:
            key, mine = float(self._keys[rows]), self._keys[1:] == self._keys[rows]
            of_regime = int(np.count_nonzero(mine[:rows])) if mine.any() else None
        regime = self._regimes.get(key)
        normal = None if regime is None else regime.normal_after(of_regime)
        return Normal(self._channels, normal, self._by)

    def forgive(self) -> None:
        """A sensor was lying: what was summed up over the last rows is void."""
        for regime in self._regimes.values():
            if regime.statistic is not None:
                regime.statistic.forgive()

    def state(self) -> Document:
        """What each regime has learned."""
        return {
            "kind": self.version,
            "channels": self._fingerprint(),
            "regimes": [
                {"value": key, "surplus": regime.surplus, "learned": regime.statistic.state()}
                for key, regime in self._regimes.items()
                if regime.statistic is not None
            ],
        }

    def restore(self, state: Document) -> None:
        """Take up what was learned before a restart.

        Raises:
            ModelError: not loaded; or it is of another type of model, of other channels, or damaged.
        """
        if not self._channels:
            raise ModelError("restore before load")
        if not state:
            return
        if state.get("kind") != self.version:
            raise ModelError(
                f"the saved state is of a {state.get('kind')!r}, this model is a {self.version!r}"
            )
        if state.get("channels") != self._fingerprint():
            raise ModelError("the saved state was learned from other channels, units or regimes")
        regimes = {}
        try:
            for each in list(state["regimes"])[:REGIMES_MOST]:
                regime = self._new(self._restore(each["learned"], len(self._channels), self._limit))
                regime.surplus = int(each["surplus"])
                regimes[float(each["value"])] = regime
        except (KeyError, TypeError, ValueError) as error:
            raise ModelError(f"the saved state is damaged: {type(error).__name__} {error}") from error
        self._regimes = regimes
        self._last, self._keys = self._last[:0], np.array([next(iter(regimes), math.nan)])
        self._calibrate(None)

    def _fingerprint(self) -> str:
        text = "\n".join(f"{channel.id}\t{channel.unit}" for channel in self._channels) + f"\n{self._by}"
        return hashlib.sha256(text.encode()).hexdigest()

    def close(self) -> None:
        """Let go of memory."""
        self._regimes = {}
