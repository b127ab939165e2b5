"""How far each sink has got, in memory: the store saves it with the next commit."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Final, NamedTuple

from dxad.outbox.retention import Span
from dxad.types import Lane, Record

__all__ = ["Backlog", "Place", "Places"]

_LANE: Final = attrgetter("lane")
_SEQ: Final = attrgetter("seq")
_NEVER: Final = (0, 0, 0)


class Backlog(NamedTuple):
    """What one sink has before it."""

    pending: int
    """Records it has not taken, those it refused included."""
    refused: int
    """Those that it refused and that will be offered again."""
    oldest_utc: int | None
    """When the oldest that it was not offered yet was appended."""
    replayed: int = 0
    """Those that it has had and is offered once more; not among the pending."""


@dataclass(slots=True)
class Place:
    """How far one sink is."""

    passed: dict[Lane, int]
    """By each lane it carries, the most important first: the last seq that is done, or put by as refused."""
    waiting: Counter[Lane] = field(default_factory=Counter)
    """How many records come after that."""
    refused: dict[int, int] = field(default_factory=dict)
    """By seq of those put by: how often they were refused."""
    oldest_utc: int | None = None
    aged: bool = False
    """Whether another may be the oldest now."""
    replays: dict[Lane, Span] = field(default_factory=dict)
    """Stretches that it has had, and is offered once more."""
    replaying: int = 0
    """How many records there are in them."""
    offered: dict[Lane, tuple[int, int, int]] = field(default_factory=dict)
    """By lane, what was fetched last: after which seq, through which, and how many."""

    def advance(self, records: Sequence[Record]) -> dict[Lane, tuple[int, int]]:
        """Pass these records; returns by lane the stretch that was passed: after which seq, through which."""
        stretches: dict[Lane, tuple[int, int]] = {}
        lanes = set(map(_LANE, records))
        for lane in lanes & self.passed.keys():
            of_lane = records if len(lanes) == 1 else [each for each in records if each.lane is lane]
            through = max(map(_SEQ, of_lane))
            if through > self.passed[lane]:
                stretches[lane] = (self.passed[lane], through)
                self.passed[lane] = through
        return stretches

    def advance_replays(self, records: Iterable[Record]) -> None:
        """Pass these records where they are offered once more."""
        for each in records:
            stretch = self.replays.get(each.lane)
            if stretch is not None and stretch.first <= each.seq <= stretch.last:
                if each.seq < stretch.last:
                    self.replays[each.lane] = Span(each.seq + 1, stretch.last)
                else:
                    del self.replays[each.lane]

    def floor(self, lane: Lane) -> int:
        """The seq up to which it will ask for nothing of a lane that it carries."""
        stretch = self.replays.get(lane)
        passed = self.passed[lane]
        return passed if stretch is None else min(passed, stretch.first - 1)

    def backlog(self) -> Backlog:
        """In numbers."""
        waiting = sum(self.waiting.values()) + len(self.refused)
        return Backlog(waiting, len(self.refused), self.oldest_utc, self.replaying)


class Places(dict[str, Place]):
    """All sinks, by name."""

    def floor(self, lane: Lane) -> int:
        """The seq up to which every sink that carries the lane is done; 0 if there is none."""
        return min((each.floor(lane) for each in self.values() if lane in each.passed), default=0)

    def came(self, fresh: Mapping[Lane, int]) -> None:
        """So many new records are stored."""
        for lane, records in fresh.items():
            for place in self.values():
                if lane in place.passed:
                    place.aged |= not place.waiting[lane]
                    place.waiting[lane] += records

    def went(self, lane: Lane, spans: Sequence[Span]) -> None:
        """These records are no more, though not every sink had them."""
        for place in self.values():
            passed = place.passed.get(lane)
            place.aged = True
            if spans and place.offered.get(lane, _NEVER)[1] >= spans[0].first:
                del place.offered[lane]
            for span in spans:
                for seq in [seq for seq in place.refused if span.first <= seq <= span.last]:
                    del place.refused[seq]
                if passed is not None:
                    place.waiting[lane] -= max(0, span.last - max(passed, span.first - 1))
