"""How the store stands, and what a commit did, in numbers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from dxad.outbox.drops import Drop
from dxad.outbox.places import Backlog
from dxad.outbox.space import Taken
from dxad.record import UNKNOWN_BOOT, Boot, Lane

__all__ = ["Committed", "Status"]

_NONE_TAKEN: Final = Taken()


@dataclass(slots=True)  # one for each commit, never changed; frozen would make it cost thrice as much
class Status:
    """The store in numbers."""

    stored: Mapping[Lane, int]
    sizes: Mapping[Lane, int]
    """By lane, how many bytes its records take."""
    sinks: Mapping[str, Backlog]
    bytes: int
    dead_letters: int
    damaged: int
    """How many records this run found damaged."""
    set_aside: Path | None
    """Where this run put a damaged file."""
    untold: Sequence[Drop]
    """What was lost and no durable event tells of."""
    boot: Boot = UNKNOWN_BOOT
    """The one that runs now, as it is known."""
    taken: Taken = _NONE_TAKEN
    """Room on the disk that nobody else can have."""
    written_per_day: int | None = None
    """Bytes, at the pace of the last day; None if that is not known."""
    number: int = 0
    """Of two, the newer has the higher one."""


@dataclass(slots=True)  # likewise
class Committed:
    """What a commit did."""

    seqs: Sequence[int | None] = ()
    """The place of each record; None where the quota let it go at once."""
    bulk_seq: int | None = 0
    """The place of the last record in the segment, likewise; 0 without one."""
    fresh: Mapping[Lane, int] = field(default_factory=dict)
    """How many rows were not stored before."""
    dropped: Sequence[Drop] = ()
    """What went by quota or for its age."""
    more: bool = False
    """Whether another look may find more that is too old."""
