"""What the file holds, in numbers kept in memory: asking it each time would cost more than a commit."""

import sqlite3
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from dxad.outbox import drops, segments, tables
from dxad.outbox.database import used_bytes
from dxad.outbox.drops import Drop
from dxad.outbox.retention import Gone
from dxad.outbox.segments import Totals
from dxad.types import Lane

__all__ = ["Contents"]


@dataclass(slots=True)
class Contents:
    """The numbers."""

    stored: Counter[Lane] = field(default_factory=Counter)
    """By lane, how many records."""
    sizes: Counter[Lane] = field(default_factory=Counter)
    """By lane, how many bytes they take."""
    used_bytes: int = 0
    dead_letters: int = 0
    untold: Sequence[Drop] = ()
    """What was lost and no durable event tells of."""

    def load(self, connection: sqlite3.Connection) -> None:
        """Count everything."""
        found = {lane: Totals(*each) for lane, each in tables.totals(connection).items()}
        found[Lane.BULK] = found.get(Lane.BULK, Totals(0, 0)) + segments.totals(connection)
        self.stored = Counter({lane: each.records for lane, each in found.items()})
        self.sizes = Counter({lane: each.bytes for lane, each in found.items()})
        self.used_bytes = used_bytes(connection)
        self.dead_letters = tables.count_dead_letters(connection)
        self.untold = drops.load(connection)

    def came(self, fresh: Mapping[Lane, Totals]) -> None:
        """These are stored now."""
        for lane, each in fresh.items():
            self.stored[lane] += each.records
            self.sizes[lane] += each.bytes

    def went(self, gone: Gone) -> None:
        """These are no more."""
        self.used_bytes = gone.used_bytes
        if gone.records:
            self.stored.subtract(gone.records)
            self.sizes.subtract(gone.bytes)
