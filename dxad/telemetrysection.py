"""`[telemetry.NAME]`: which readings leave the gateway in bulk, and how much of them."""

from typing import Annotated, Literal

from pydantic import Field

from dxad.fields import ChannelPattern, Duration, Section
from dxad.types import NS_PER_S

__all__ = ["TelemetrySection"]


class TelemetrySection(Section):
    """Readings that are stored in the outbox's bulk lane, for sinks that carry it."""

    channels: tuple[ChannelPattern, ...] = Field(
        strict=False, min_length=1, description="whose readings, with * and ?"
    )
    every: Annotated[Duration, Field(ge=100_000_000)] = Field(
        10 * NS_PER_S, description="how much time a record is about; a source's `keep` must be twice as long"
    )
    mode: Literal["all", "last", "mean", "minmax"] = Field(
        "mean",
        description="of each channel and record: every sample, the last one, or the mean of the good ones, "
        "minmax with their smallest and their largest",
    )
