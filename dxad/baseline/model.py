"""A model that learns what is normal while it runs, apart for each regime of the machine."""

import copy
import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

import numpy as np

from dxad.baseline.statistic import Statistic
from dxad.errors import ModelError
from dxad.types import F4, F8, I8, Bools, Calibration, Channel, Document, Scores, Windows

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
        self._regimes: dict[float, _Regime] = {}

    def load(self, channels: Sequence[Channel], rows: int | None, *, by: int | None = None) -> int:
        """Any channels will do, and one row is enough."""
        self._channels, self._by = tuple(channels), by
        self._limit = self._limit_of(len(channels) - (by is not None))
        self._regimes = {}
        self.calibration = None
        return rows or 1

    def score(self, windows: Windows) -> Scores:
        """Score each window's last row; NaN during a warm-up, and in a regime that cannot be told or kept.

        Raises:
            ModelError: not loaded.
        """
        if not self._channels:
            raise ModelError("score before load")
        rows = windows.values[:, -1].astype(np.float64)
        regimes = copy.deepcopy(self._regimes) if windows.question else self._regimes
        if self._by is None:
            regime = self._regime(0.0, regimes)
            assert regime is not None
            scores = Scores(*regime.score(windows.times, rows))
            latest = 0.0
        else:
            scores, latest = self._apart(windows.times, rows, regimes)
        if not windows.question:
            self._calibrate(latest)
        return scores

    def _apart(self, times: I8, rows: F8, regimes: "dict[float, _Regime]") -> tuple[Scores, float]:
        """Hand each row to its regime; returns the regime of the last row as well."""
        assert self._by is not None
        values, contributions = np.full(len(rows), np.nan), np.zeros(rows.shape)
        keys = rows[:, self._by] + 0.0  # -0.0 is 0.0
        rows[:, self._by] = np.nan
        known, firsts = np.unique(keys[~np.isnan(keys)], return_index=True)
        for key in known[np.argsort(firsts)].tolist():
            regime = self._regime(key, regimes)
            if regime is not None:
                mine = keys == key
                values[mine], contributions[mine] = regime.score(times[mine], rows[mine])
        return Scores(values, contributions), float(keys[-1]) if len(keys) else math.nan

    def _regime(self, key: float, regimes: "dict[float, _Regime]") -> "_Regime | None":
        """The regime of this value, a new one if need be; None where there are too many already."""
        if key not in regimes and len(regimes) < REGIMES_MOST:
            regimes[key] = self._new()
        return regimes.get(key)

    def _new(self, statistic: Statistic | None = None) -> "_Regime":
        return _Regime(
            len(self._channels),
            warm_up=self._warm_up,
            settle=self._settle,
            limit=self._limit,
            relearn_after=self._relearn_after,
            statistic=statistic,
        )

    def _calibrate(self, latest: float) -> None:
        """Judge by one limit; what is normal is what is so in the regime of the latest row."""
        ready = [key for key, regime in self._regimes.items() if regime.ready]
        if not ready:
            return  # during a new warm-up the limit stays what it was
        known = () if self._by is None else tuple(sorted(ready))
        statistic = self._regimes[latest if latest in ready else ready[0]].statistic
        assert statistic is not None
        old = self.calibration
        if old is not None and old.regimes == known and getattr(old.normal, "statistic", None) is statistic:
            return
        self.calibration = Calibration(
            self._limit, normal=_Normal(self._channels, statistic, self._by), regimes=known
        )

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
        self._calibrate(next(iter(regimes), math.nan))

    def _fingerprint(self) -> str:
        text = "\n".join(f"{channel.id}\t{channel.unit}" for channel in self._channels) + f"\n{self._by}"
        return hashlib.sha256(text.encode()).hexdigest()

    def close(self) -> None:
        """Let go of memory."""
        self._regimes = {}


class _Regime:
    """One regime: a warm-up, then what came of it, then perhaps a warm-up again."""

    def __init__(
        self,
        channels: int,
        *,
        warm_up: int,
        settle: Callable[[F8, float], Statistic],
        limit: float,
        relearn_after: int | None,
        statistic: Statistic | None,
    ) -> None:
        self.surplus = 0
        """How many more rows were above the limit than below it of late; the guard's own memory."""
        self.statistic = statistic
        self._channels, self._warm_up = channels, warm_up
        self._settle, self._limit = settle, limit
        self._relearn_after = relearn_after
        self._seen: F4 = np.empty((0, channels), dtype=np.float32)
        self._count = 0

    @property
    def ready(self) -> bool:
        return self.statistic is not None and self.statistic.ready

    def score(self, times: I8, rows: F8) -> tuple[F8, F8]:
        """Twice as `Statistic.score`; NaN during the warm-up."""
        n = len(rows)
        if self.statistic is not None and self._relearn_after is None:
            return self.statistic.score(times, rows)  # the usual case
        values, contributions = np.full(n, np.nan), np.zeros(rows.shape)
        at = 0
        while at < n:
            if self.statistic is None:
                at += self._warm(rows[at:])
                continue
            found, parts = self.statistic.score(times[at:], rows[at:])
            until = at + self._guard(found > self._limit)
            values[at:until], contributions[at:until] = found[: until - at], parts[: until - at]
            at = until
        return values, contributions

    def _warm(self, rows: F8) -> int:
        """Gather rows and settle once there are enough; returns how many were taken."""
        if not len(self._seen):
            self._seen = np.empty((self._warm_up, self._channels), dtype=np.float32)
        taken = min(len(rows), self._warm_up - self._count)
        self._seen[self._count : self._count + taken] = rows[:taken]  # exact: they come in single precision
        self._count += taken
        if self._count == self._warm_up:
            self.statistic = self._settle(self._seen.astype(np.float64), self._limit)
            self._seen, self._count = self._seen[:0], 0
        return taken

    def _guard(self, above: Bools) -> int:
        """Whether this is the new normal: returns how many rows the statistic may still judge."""
        if self._relearn_after is None or not (self.surplus or above.any()):
            return len(above)
        for place, each in enumerate(above.tolist()):
            self.surplus = max(0, self.surplus + (1 if each else -1))
            if self.surplus >= self._relearn_after:
                self.statistic, self.surplus = None, 0
                return place + 1
        return len(above)


class _Normal(Mapping[str, tuple[float, float]]):
    """What is normal, looked up when somebody asks: no dictionary of thousands of channels at every row."""

    def __init__(self, channels: Sequence[Channel], statistic: Statistic, by: int | None) -> None:
        self.statistic = statistic
        known = ~np.isnan(statistic.normal[0])
        if by is not None:
            known[by] = False
        self._columns = {channels[place].id: int(place) for place in np.flatnonzero(known)}

    def __getitem__(self, name: str) -> tuple[float, float]:
        mean, std = self.statistic.normal
        column = self._columns[name]
        return float(mean[column]), float(std[column])

    def __iter__(self) -> Iterator[str]:
        return iter(self._columns)

    def __len__(self) -> int:
        return len(self._columns)
