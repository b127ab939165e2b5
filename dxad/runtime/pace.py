"""How fast something that has gathered is let go, and how fast it comes and goes.

Rates are measured over the last half minute, so that what they foretell does not jump about.
"""

import random
from collections import deque
from typing import Final

__all__ = ["Flow", "Pace", "Stride"]

_NS_PER_S: Final = 1_000_000_000
_HEAD_START_MOST_S: Final = 10.0
_SPAN_NS: Final = 30 * _NS_PER_S
_STEP_NS: Final = _NS_PER_S
_TWICE: Final = 2.0


class Pace:
    """Lets a backlog go at a rate, each at another moment than its neighbours."""

    def __init__(self, rate_per_s: float, *, rng: random.Random | None = None) -> None:
        """At most so many a second; 0 is no limit."""
        self._least_per_s = rate_per_s
        self._rng = rng or random.Random()  # noqa: S311 - jitter, not a secret
        self.rate_per_s = rate_per_s
        self.active = False
        """Whether there is a backlog to let go."""
        self.started = False
        """Whether some of it has gone."""
        self.due = 0
        """When the next may go, in nanoseconds."""

    def begin(self, now: int, backlog: int) -> None:
        """So many have gathered: their first goes at a random moment, the later the more there are."""
        if self._least_per_s:
            self.active, self.started = True, False
            self.rate_per_s = self._least_per_s
            most_s = min(backlog / self._least_per_s, _HEAD_START_MOST_S)
            self.due = now + int(self._rng.uniform(0.0, most_s) * _NS_PER_S)

    def spend(self, now: int, count: int, *, coming_per_s: float) -> None:
        """So many have gone; the pace is twice that of those which come anew, if that is more."""
        self.started = True
        self.rate_per_s = max(self._least_per_s, _TWICE * coming_per_s)
        pause_s = count / self.rate_per_s * self._rng.uniform(0.75, 1.25)
        self.due = max(now, self.due) + int(pause_s * _NS_PER_S)

    def end(self) -> None:
        """The backlog is gone."""
        self.active = False


class Stride:
    """How many go at once: one to begin with, then twice as many each time, as long as that takes no time."""

    def __init__(self, most: int, *, takes_most_s: float) -> None:
        self._most = most
        self._takes_most_s = takes_most_s
        self.size = 1

    def probe(self) -> None:
        """Nobody knows whether there is anybody: one alone."""
        self.size = 1

    def again(self, count: int) -> None:
        """The same so many once more."""
        self.size = max(1, min(count, self._most))

    def took(self, count: int, seconds: float) -> None:
        """So many went in that time."""
        if seconds > self._takes_most_s:
            self.size = max(1, count // 2)
        elif seconds < self._takes_most_s / 2:
            self.size = min(self._most, self.size * 2)


class Flow:
    """What comes and what goes, a second."""

    def __init__(self) -> None:
        self._seen: deque[tuple[int, int, int]] = deque()
        """When, how many had gone in all, how many waited."""

    def note(self, now: int, *, gone: int, waiting: int) -> None:
        """This is how it is now; looks closer together than a second are one."""
        if self._seen and now - self._seen[-1][0] < _STEP_NS:
            return
        self._seen.append((now, gone, waiting))
        while now - self._seen[0][0] > _SPAN_NS:
            self._seen.popleft()

    def forget(self) -> None:
        """What was is no measure any more."""
        self._seen.clear()

    def rates(self, now: int, *, gone: int, waiting: int) -> tuple[float, float]:
        """How many come and how many go a second; zeros where it is too early to tell."""
        if not self._seen or now - self._seen[0][0] < _STEP_NS:
            return 0.0, 0.0
        since, gone_then, waiting_then = self._seen[0]
        seconds = (now - since) / _NS_PER_S
        going = (gone - gone_then) / seconds
        return max(0.0, going + (waiting - waiting_then) / seconds), going
