"""One regime of a baseline, and what was normal in it row by row."""

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from dxad.baseline.statistic import Statistic
from dxad.types import F4, F8, I8, Bools, Channel

__all__ = ["Normal", "Now", "Regime"]


class Regime:
    """A warm-up, then what came of it, then perhaps a warm-up again."""

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
        """Begin with a warm-up, or with a `statistic` that is restored."""
        self.surplus = 0
        """How many more rows were above the limit than below it of late; the guard's own memory."""
        self.statistic = statistic
        self._channels, self._warm_up = channels, warm_up
        self._settle, self._limit = settle, limit
        self._relearn_after = relearn_after
        self._seen: F4 = np.empty((0, channels), dtype=np.float32)
        self._count = 0
        self._given_up: tuple[F8, F8] | None = None
        """What was normal by the statistic before, which may have to do until the next one is ready."""
        self._before: tuple[F8, F8] | None = None
        """The same before the rows scored last."""
        self._rows = 0
        """How many rows were scored last."""
        self._pieces: list[tuple[int, int, Statistic]] = [] if statistic is None else [(0, 0, statistic)]
        """Which statistic judged them: from, and up to, which row."""

    @property
    def ready(self) -> bool:
        """Whether it scores at least some rows now."""
        return self.statistic is not None and self.statistic.ready

    def score(self, times: I8, rows: F8) -> tuple[F8, F8]:
        """Twice as `Statistic.score`, of one row at least; NaN during the warm-up."""
        n = self._rows = len(rows)
        if self.statistic is not None and self._relearn_after is None:
            self._pieces = [(0, n, self.statistic)]
            return self.statistic.score(times, rows)  # the usual case
        self._before, self._pieces = self._given_up, []
        values, contributions = np.full(n, np.nan), np.zeros(rows.shape)
        at = 0
        while at < n:
            if self.statistic is None:
                at += self._warm(rows[at:])
                continue
            statistic = self.statistic
            found, parts = statistic.score(times[at:], rows[at:])
            until = at + self._guard(found > self._limit)
            values[at:until], contributions[at:until] = found[: until - at], parts[: until - at]
            self._pieces.append((at, until, statistic))
            if self.statistic is None:
                self._given_up = statistic.normal_after(until - at)
            at = until
        if self.statistic is not None and (not self._pieces or self._pieces[-1][2] is not self.statistic):
            self._pieces.append((n, n, self.statistic))  # the last row has ended a warm-up
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

    def normal_after(self, rows: int | None = None) -> tuple[F8, F8] | None:
        """What was normal after so many of the rows scored last, or after all of them.

        Mean and standard deviation, both (channels,), NaN where not known; None where none was ready yet.
        """
        rows = self._rows if rows is None else rows
        for begin, end, statistic in reversed(self._pieces):
            if begin <= rows:
                normal = statistic.normal_after(min(rows, end) - begin)
                if normal is not None:
                    return normal
        return self._before

    def known_after(self) -> int | None:
        """After how many of the rows scored last, at least one, something was ready; None after none."""
        if not self._pieces:
            return None
        counts = range(1, self._rows + 1)
        return next((rows for rows in counts if self.normal_after(rows) is not None), None)


class Normal(Mapping[str, tuple[float, float]]):
    """What is normal by channel, looked up when somebody asks: evidence names a few of thousands."""

    def __init__(self, channels: Sequence[Channel], normal: tuple[F8, F8] | None, by: int | None) -> None:
        """Show a mean and a standard deviation, both (channels,), without the column `by`."""
        self._columns: dict[str, int] = {}
        if normal is None:
            return
        self._mean, self._std = normal
        known = ~np.isnan(self._mean)
        if by is not None:
            known[by] = False
        self._columns = {channels[place].id: place for place in np.flatnonzero(known).tolist()}

    def __getitem__(self, name: str) -> tuple[float, float]:
        column = self._columns[name]
        return float(self._mean[column]), float(self._std[column])

    def __iter__(self) -> Iterator[str]:
        return iter(self._columns)

    def __len__(self) -> int:
        return len(self._columns)


class Now(Mapping[str, tuple[float, float]]):
    """What is normal whenever somebody looks."""

    def __init__(self, look: Callable[[], Mapping[str, tuple[float, float]]]) -> None:
        """Ask `look` each time."""
        self._look = look

    def __getitem__(self, name: str) -> tuple[float, float]:
        return self._look()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._look())

    def __len__(self) -> int:
        return len(self._look())
