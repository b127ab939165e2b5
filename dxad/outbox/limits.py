"""How much the outbox keeps, and for how long."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

from dxad.outboxsection import OutboxSection
from dxad.types import Lane

__all__ = ["LaneLimits", "Limits"]


@dataclass(frozen=True, slots=True)
class LaneLimits:
    """What one lane may hold, whether delivered or not."""

    max_bytes: int | None = None
    max_age_ns: int | None = None


@dataclass(frozen=True, slots=True)
class Limits:
    """What the outbox does besides staying within `max_bytes`."""

    keep_ns: int = 0
    """How long what every sink has stays for replay, while there is room; 0: it goes at once."""
    lanes: Mapping[Lane, LaneLimits] = field(default_factory=dict)
    reserve_bytes: int = 0
    """How much of the disk the file takes hold of at start, so that others cannot fill it."""
    keep_damaged_ns: int = 30 * 86_400 * 10**9
    """How long a damaged file stays that was set aside and taken over; together, no more than `max_bytes`."""
    wear_budget_bytes: int = 0
    """How much may be written in a day before `outbox.wear` is raised; 0: any."""

    @classmethod
    def of(cls, section: OutboxSection) -> Self:
        """Those of a configuration."""
        lanes = {
            lane: LaneLimits(each.max_size, each.max_age) for lane, each in section.lanes.by_lane().items()
        }
        return cls(section.keep, lanes, section.reserve, section.keep_damaged, section.wear_budget)
