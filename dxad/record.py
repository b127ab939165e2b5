"""What the outbox stores, and what dates it."""

from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final

__all__ = ["UNKNOWN_BOOT", "Boot", "Lane", "Record"]


class Lane(IntEnum):
    """How important a record is; the last lane is the first to lose one when space is short."""

    CRITICAL = 0
    NORMAL = 1
    BULK = 2


@dataclass(frozen=True, slots=True)
class Boot:
    """One run of the machine, from power-on to power-off: what stream times are counted from."""

    id: str
    """The kernel's id; empty where it is not known: then stream times are wall times as once believed."""
    offset_ns: int
    """What makes a stream time of this boot a UTC time, by what is known now."""
    clock_ok: bool
    """Whether the wall clock was ever synchronised in this boot, so that `offset_ns` can be trusted."""


UNKNOWN_BOOT: Final = Boot("", 0, False)


@dataclass(slots=True, unsafe_hash=True)  # never changed; frozen would make each cost thrice as much
class Record:
    """One event as the outbox stores it."""

    id: str
    """The event's deterministic id: what a receiver removes duplicates by."""
    lane: Lane
    body: bytes
    """The CloudEvent, in msgpack (`event.encode`); telemetry leaves its `id` out."""
    seq: int = field(default=0, compare=False)
    """The place in the outbox, given at append; 0 before."""
    boot: Boot = field(default=UNKNOWN_BOOT, compare=False)
    """The boot it happened in, as it is known when the record is read; the outbox's own at append."""
    at_ns: int = field(default=0, compare=False)
    """The stream time it happened; 0 for when it is appended."""

    @property
    def utc_ns(self) -> int:
        """The UTC time it happened, by what is known of its boot now."""
        return self.boot.offset_ns + self.at_ns
