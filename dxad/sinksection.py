"""What a configuration says of every sink: which events it carries, and how fast."""

from functools import cached_property
from typing import Annotated, ClassVar

from pydantic import Field

from dxad.alarmsection import Severity
from dxad.fields import LaneName, Section
from dxad.selection import Selection
from dxad.types import Lane

__all__ = ["Pattern", "SinkSection", "TypePattern"]

TypePattern = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.*?\[\]!-]+$")]
"""Of an event's type, with `*` and `?`."""
Pattern = Annotated[str, Field(min_length=1, max_length=200)]
"""Of an event's subject or source, likewise."""


class SinkSection(Section):
    """What is said of every sink; each kind adds `type` and where it leads."""

    lanes: tuple[LaneName, ...] = Field(
        ("critical", "normal"), strict=False, min_length=1, description="the lanes of the outbox it carries"
    )
    types: tuple[TypePattern, ...] = Field(
        ("*",), strict=False, min_length=1, description="the types of events it carries, with * and ?"
    )
    severities: tuple[Severity, ...] | None = Field(
        None,
        strict=False,
        min_length=1,
        description="the severities it carries; an event that has none is not carried then. Default: all",
    )
    subjects: tuple[Pattern, ...] | None = Field(
        None, strict=False, min_length=1, description="the subjects it carries, with * and ?; default: all"
    )
    sources: tuple[Pattern, ...] | None = Field(
        None,
        strict=False,
        min_length=1,
        description="where the events it carries come from, with * and ?, such as /*/pipelines/pump*; "
        "default: everywhere",
    )
    batch: int = Field(64, gt=0, le=1000, description="records per write at most")
    max_attempts: int = Field(
        10, gt=0, description="refusals after which a record goes to the dead letters; outages do not count"
    )
    drain_rate: int = Field(
        1000,
        ge=0,
        le=1_000_000,
        description="records a second at most of those that have gathered while the peer was away, so that a "
        "fleet does not fall upon it at once; twice what comes anew, if that is more; what is critical and "
        "new does not wait; 0: as fast as it goes",
    )

    in_process: ClassVar[bool] = False
    """Whether it is of use to Python code alone, and has no place in a file."""
    names_gateway: ClassVar[bool] = False
    """Whether it is built with `gateway`, the gateway's id."""

    def lane_set(self) -> frozenset[Lane]:
        """The lanes as the outbox names them."""
        return frozenset(Lane[name.upper()] for name in self.lanes)

    @cached_property
    def selection(self) -> Selection:
        """Which events of its lanes it carries; others it leaves out."""
        return Selection(self.types, self.severities or (), self.subjects or (), self.sources or ())
