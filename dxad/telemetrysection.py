"""`[telemetry.NAME]`: which readings and scores leave the gateway in bulk, and how much of them."""

from collections.abc import Iterable, Iterator, Mapping
from fnmatch import filter as matching_names
from typing import Annotated, Final, Literal, Self

from pydantic import Field, model_validator

from dxad.fields import ChannelPattern, Duration, Section, SourceSection, matching
from dxad.types import NS_PER_S

__all__ = ["TelemetrySection", "journaling", "mistaken"]


_OF_DEADBAND: Final = ("band", "band_kind", "max_interval")

PipelinePattern = Annotated[str, Field(pattern=r"^[A-Za-z0-9_*?-]+$")]
"""A pipeline's name, with `*` and `?`."""

Key = tuple[str | int, ...]


class TelemetrySection(Section):
    """Readings and scores that are stored in the outbox's bulk lane, for sinks that carry it."""

    channels: tuple[ChannelPattern, ...] = Field((), strict=False, description="whose readings, with * and ?")
    pipelines: tuple[PipelinePattern, ...] = Field((), strict=False, description="whose scores, with * and ?")
    every: Annotated[Duration, Field(ge=100_000_000)] = Field(
        10 * NS_PER_S, description="how much time a record is about; a source's `keep` must be twice as long"
    )
    mode: Literal["all", "deadband", "last", "mean", "minmax"] = Field(
        "mean",
        description="of each channel and record: every sample, those that have moved, the last one, or the "
        "mean of the good ones, minmax with their smallest and their largest",
    )
    band: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = Field(
        None, strict=False, description="of mode deadband: by how much a value must have moved to be told"
    )
    band_kind: Literal["absolute", "percent", "relative"] = Field(
        "absolute",
        description="whether the band is in the channel's unit, in percent of its range, or of the value "
        "that was told last",
    )
    max_interval: Annotated[Duration, Field(ge=NS_PER_S)] = Field(
        300 * NS_PER_S, description="of mode deadband: a value is told so often, even if it has not moved"
    )
    health: bool = Field(
        False, description="tell the gateway's own metrics and conditions, each time that `every` is over"
    )

    @model_validator(mode="after")
    def _of_something(self) -> Self:
        if not self.channels and not self.pipelines and not self.health:
            raise ValueError(
                'wants channels = ["source.*"], or pipelines = ["*"] for their scores, or health = true'
            )
        if self.mode == "deadband" and self.band is None:
            raise ValueError('band: mode = "deadband" wants to know how far a value may move')
        if self.mode != "deadband" and not self.model_fields_set.isdisjoint(_OF_DEADBAND):
            key = next(key for key in _OF_DEADBAND if key in self.model_fields_set)
            raise ValueError(f'{key}: is of mode = "deadband", and this is "{self.mode}"')
        if self.band_kind == "percent" and self.pipelines:
            raise ValueError('band_kind: scores have no range to take percents of; "relative" is of the last')
        return self

    def mistaken(
        self, sources: Mapping[str, SourceSection], pipelines: Iterable[str]
    ) -> Iterator[tuple[Key, str]]:
        """What does not fit the rest of the configuration: the key inside the section, and why."""
        for place, pattern in enumerate(self.pipelines):
            if not matching_names(pipelines, pattern):
                yield ("pipelines", place), f"no pipeline {pattern!r}"
        yield from self._without_range(sources)
        for name, source in sources.items():
            if source.keep < 2 * self.every and matching(self.channels, source.declared(name)):
                text = f"is more than half of the {source.keep / NS_PER_S:g} s that sources.{name} keeps"
                yield ("every",), text

    def _without_range(self, sources: Mapping[str, SourceSection]) -> Iterator[tuple[Key, str]]:
        """Channels of whose range no percents can be taken."""
        if self.band_kind != "percent":
            return
        channels = [each for name, source in sources.items() for each in source.declared(name)]
        for place in matching(self.channels, channels):
            if channels[place].range is None:
                text = (
                    f"{channels[place].id!r} has no range to take percents of; give it one, or "
                    'band_kind = "absolute" or "relative"'
                )
                yield ("band_kind",), text
                return


def journaling(sections: Mapping[str, TelemetrySection], source: str, section: SourceSection) -> str | None:
    """The first telemetry that has every sample of a source; None if there is none."""
    channels = section.declared(source)
    for name, each in sections.items():
        if each.mode == "all" and len(matching(each.channels, channels)) == len(channels):
            return name
    return None


def mistaken(
    sections: Mapping[str, TelemetrySection | None],
    sources: Mapping[str, SourceSection],
    pipelines: Iterable[str],
) -> Iterator[tuple[Key, str]]:
    """What in all sections does not fit the rest; those that are None are broken by themselves."""
    sound = {name: each for name, each in sections.items() if each is not None}
    for name, section in sound.items():
        for key, text in section.mistaken(sources, pipelines):
            yield ("telemetry", name, *key), text
    for name, source in sources.items():
        if source.awaits_outbox and len(sound) == len(sections) and journaling(sound, name, source) is None:
            text = (
                "no telemetry brings all channels of this source into the outbox: it wants "
                f'[telemetry.NAME] with channels = ["{name}.*"] and mode = "all"'
            )
            yield ("sources", name, "ack"), text
