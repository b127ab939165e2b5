"""`[outbox]`: how much is stored, for how long, and what that may cost the disk."""

from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import Field

from dxad.fields import Duration, Section, Size
from dxad.types import NS_PER_S, Lane

__all__ = ["LaneSection", "LanesSection", "OutboxSection"]

_DAY_NS: Final = 86_400 * NS_PER_S


class LaneSection(Section):
    """What one lane may hold, besides what holds for the whole outbox."""

    max_size: Annotated[Size, Field(ge=1 << 16)] | None = Field(
        None, description="beyond it the lane's oldest goes; default: the outbox's own"
    )
    max_age: Annotated[Duration, Field(gt=0)] | None = Field(
        None, description="what is older goes, delivered or not; default: never"
    )


class LanesSection(Section):
    """Quotas of the lanes."""

    critical: LaneSection = Field(LaneSection(), description="alarms and incidents of high severity")
    normal: LaneSection = Field(LaneSection(), description="all other events")
    bulk: LaneSection = Field(LaneSection(), description="telemetry")

    def by_lane(self) -> dict[Lane, LaneSection]:
        """By the outbox's names."""
        return {Lane.CRITICAL: self.critical, Lane.NORMAL: self.normal, Lane.BULK: self.bulk}


class OutboxSection(Section):
    """Store and forward."""

    path: Path = Field(Path("outbox.db"), strict=False, description="the database, in the state directory")
    max_size: Size = Field(
        256 * 2**20, ge=1 << 20, description="the oldest of the least important goes first"
    )
    keep: Duration = Field(
        _DAY_NS, description="how long what every sink has stays for replay, while there is room; 0s: not"
    )
    consumer_ttl: Annotated[Duration, Field(gt=0)] = Field(
        7 * _DAY_NS, description="a pull consumer that is silent for so long is dropped, and that is told"
    )
    consumers: Literal["any", "declared"] = Field(
        "any", description="who may lease events: any name, or those of [consumers] alone"
    )
    reserve: Size = Field(
        64 * 2**20, description="disk taken hold of at start, so that others cannot fill it; 0MiB: none"
    )
    wear_budget: Size = Field(
        2 * 2**30, description="what may be written in a day before a warning, to spare flash; 0MiB: no end"
    )
    keep_damaged: Duration = Field(
        30 * _DAY_NS,
        description="how long a damaged file stays that was set aside, once what reads of it is taken over",
    )
    lanes: LanesSection = Field(LanesSection(), description="quotas of the lanes")
