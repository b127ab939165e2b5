"""What a configuration says of a pull consumer: which events are kept for it, whether or not it comes."""

from typing import Annotated

from pydantic import Field

from dxad.alarmsection import Severity
from dxad.fields import LaneName, Section
from dxad.sinksection import Pattern, TypePattern

__all__ = ["ConsumerSection"]


class ConsumerSection(Section):
    """A pull consumer for which events are kept from the first start on, whether or not it has ever come."""

    lanes: Annotated[tuple[LaneName, ...], Field(strict=False, min_length=1)] = Field(
        ("critical", "normal"), description="the lanes it is given events of"
    )
    types: Annotated[tuple[TypePattern, ...], Field(strict=False, min_length=1)] = Field(
        ("*",), description="patterns of event types"
    )
    severities: Annotated[tuple[Severity, ...], Field(strict=False)] = Field(
        (), description="severities of incidents and alarms; default: all, and events without one"
    )
    pipelines: Annotated[tuple[str, ...], Field(strict=False)] = Field(
        (), description="patterns of pipelines' names; default: all, and events of no pipeline"
    )
    subjects: Annotated[tuple[Pattern, ...], Field(strict=False)] = Field(
        (), description="patterns of events' subjects; default: all"
    )
    sources: Annotated[tuple[Pattern, ...], Field(strict=False)] = Field(
        (), description="patterns of where events come from, such as /*/outbox; default: everywhere"
    )
    max_attempts: int = Field(
        10, ge=1, le=1000, description="how often an event is given out before it is a dead letter"
    )
