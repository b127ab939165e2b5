"""One pull consumer as memory knows it: what it has out, and until when."""

import asyncio
import logging
from collections.abc import Collection
from dataclasses import dataclass, field

from dxad.pulling.wants import Wants

__all__ = ["Consumer", "Lease"]

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Lease:
    """One event that is out."""

    seq: int
    id: str
    until: int
    """The stream time it ends; of one that was given back, when it may be given out again."""
    attempts: int


@dataclass(slots=True)
class Consumer:
    """How far it is, as long as the daemon runs."""

    wants: Wants
    seen: int
    """The stream time it last said anything."""
    noted: int
    leases: dict[str, Lease] = field(default_factory=dict)
    """By token."""
    resting: dict[int, int] = field(default_factory=dict)
    """By seq of what was given back with a delay: until when it stays here."""
    unheard: set[int] = field(default_factory=set)
    """The seqs whose last giving out reached nobody: it does not count."""
    uids: set[int] = field(default_factory=set)
    """Who has leased in this run."""
    dropped: bool = False
    giving: asyncio.Lock = field(default_factory=asyncio.Lock)
    """One agent after the other: what one is given, the next one is not."""
    acked: int = 0
    nacked: int = 0
    expired: int = 0
    given: int = 0

    def held(self, now: int) -> set[int]:
        """The seqs that nobody else may have now; leases that have ended are over."""
        for token, lease in [each for each in self.leases.items() if each[1].until <= now]:
            del self.leases[token]
            self.expired += 1
            log.debug("lease of %s has ended", lease.id)
        for seq in [seq for seq, until in self.resting.items() if until <= now]:
            del self.resting[seq]
        return {each.seq for each in self.leases.values()} | self.resting.keys()

    def end(self, leases: Collection[str]) -> int:
        """These leases, by their tokens, are over; returns how many were not yet."""
        return sum(self.leases.pop(each, None) is not None for each in leases)

    def next_back(self) -> int | None:
        """The stream time at which something comes back by itself."""
        times = [*(each.until for each in self.leases.values()), *self.resting.values()]
        return min(times, default=None)
