"""Which conditions of the gateway are told of: those that last, and not each time one that comes and goes.

A condition is told once it has held for so long, and its end once it was over for so long. Each time that it
was told within the last hour doubles both, up to ten minutes: what flaps costs a few events an hour.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final, Literal

from dxad.runtime.health import Condition
from dxad.types import NS_PER_S

__all__ = ["HoldOff", "News"]

_HOUR: Final = 3600 * NS_PER_S
_LONGEST: Final = 600 * NS_PER_S
_DOUBLED_MOST: Final = 16

Key = tuple[str, str]


@dataclass(frozen=True, slots=True)
class News:
    """A condition has lasted long enough to be told, or is over for long enough."""

    phase: Literal["raised", "cleared"]
    condition: Condition
    """As it is, or was last."""
    since: int
    """The stream time at which it began, or was over."""
    times: int
    """How often it has begun since it was told of last."""


@dataclass(slots=True)
class _Watched:
    condition: Condition
    begun: int = 1
    """How often, since it was told."""
    over_since: int | None = None
    told: bool = False
    """Whether receivers believe that it holds."""
    told_at: list[int] = field(default_factory=list)
    """The stream times at which its beginning was told, within the hour."""


class HoldOff:
    """What was told of each condition, and what is to be told of it next."""

    def __init__(self) -> None:
        self._watched: dict[Key, _Watched] = {}

    def look(self, now: int, active: Iterable[Condition], after: int) -> Iterator[News]:
        """What is to be told at the stream time `now`, of those that are `active` and those that were.

        Args:
            now: stream time, not before the last look.
            active: the conditions that hold and that somebody wants to hear of.
            after: how long one lasts, or is over, before it is told; nanoseconds.
        """
        held = {(each.code, each.subject): each for each in active}
        for key, condition in held.items():
            self._note_held(key, condition)
        for key, watched in list(self._watched.items()):
            watched.told_at = [at for at in watched.told_at if now - at < _HOUR]
            if key not in held and watched.over_since is None:
                watched.over_since = now
            wait = min(after << min(len(watched.told_at), _DOUBLED_MOST), max(after, _LONGEST))
            if watched.over_since is None:
                if not watched.told and now - watched.condition.since >= wait:
                    watched.told = True
                    watched.told_at.append(now)
                    yield News("raised", watched.condition, watched.condition.since, watched.begun)
                    watched.begun = 0
            elif watched.told and now - watched.over_since >= wait:
                watched.told = False
                yield News("cleared", watched.condition, watched.over_since, watched.begun)
                watched.begun = 0
            elif not watched.told and not watched.told_at:
                del self._watched[key]

    def _note_held(self, key: Key, condition: Condition) -> None:
        watched = self._watched.get(key)
        if watched is None:
            self._watched[key] = _Watched(condition)
            return
        watched.begun += watched.condition.since != condition.since
        watched.condition, watched.over_since = condition, None

    @property
    def told(self) -> int:
        """How many conditions receivers believe to hold."""
        return sum(each.told for each in self._watched.values())
