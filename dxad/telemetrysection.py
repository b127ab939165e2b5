"""`[telemetry.NAME]`: which readings and scores leave the gateway in bulk, and how much of them."""

from collections.abc import Iterable, Iterator, Mapping
from fnmatch import filter as matching_names
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from dxad.fields import ChannelPattern, Duration, Section, SourceSection, matching
from dxad.types import NS_PER_S

__all__ = ["TelemetrySection"]


PipelinePattern = Annotated[str, Field(pattern=r"^[A-Za-z0-9_*?-]+$")]
"""A pipeline's name, with `*` and `?`."""


class TelemetrySection(Section):
    """Readings and scores that are stored in the outbox's bulk lane, for sinks that carry it."""

    channels: tuple[ChannelPattern, ...] = Field((), strict=False, description="whose readings, with * and ?")
    pipelines: tuple[PipelinePattern, ...] = Field((), strict=False, description="whose scores, with * and ?")
    every: Annotated[Duration, Field(ge=100_000_000)] = Field(
        10 * NS_PER_S, description="how much time a record is about; a source's `keep` must be twice as long"
    )
    mode: Literal["all", "last", "mean", "minmax"] = Field(
        "mean",
        description="of each channel and record: every sample, the last one, or the mean of the good ones, "
        "minmax with their smallest and their largest",
    )

    @model_validator(mode="after")
    def _of_something(self) -> Self:
        if not self.channels and not self.pipelines:
            raise ValueError('wants channels = ["source.*"], or pipelines = ["*"] for their scores')
        return self

    def mistaken(
        self, sources: Mapping[str, SourceSection], pipelines: Iterable[str]
    ) -> Iterator[tuple[tuple[str | int, ...], str]]:
        """What does not fit the rest of the configuration: the key inside the section, and why."""
        for place, pattern in enumerate(self.pipelines):
            if not matching_names(pipelines, pattern):
                yield ("pipelines", place), f"no pipeline {pattern!r}"
        for name, source in sources.items():
            if source.keep < 2 * self.every and matching(self.channels, source.declared(name)):
                text = f"is more than half of the {source.keep / NS_PER_S:g} s that sources.{name} keeps"
                yield ("every",), text
