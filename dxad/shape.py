"""What a pipeline's rows will look like, worked out from its configuration before there is any data."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from dxad import plugin
from dxad.errors import ConfigError
from dxad.fields import TransformSection, distinct, matching
from dxad.types import Channel, Schema, Transform

__all__ = ["FeatureShape", "Shape", "ShapeError", "build", "chain", "shape_of"]


_LAST_FOLDS_MOST: Final = 2
"""Keeping the last of more slots than this drops most of what was measured."""


class ShapeError(ConfigError):
    """Two parts of a pipeline do not fit; `key` is the path of the one to blame, within the pipeline."""

    def __init__(self, key: tuple[str | int, ...], message: str) -> None:
        self.key = key
        super().__init__(message)


@dataclass(frozen=True, slots=True)
class FeatureShape:
    """A transform of some columns of one source, at the source's own rate."""

    source: str
    columns: tuple[int, ...]
    section: TransformSection
    inputs: Schema
    outputs: Schema


@dataclass(frozen=True, slots=True)
class Shape:
    """The rows of one pipeline, from its sources to its model."""

    feeds: tuple[tuple[str, tuple[int, ...]], ...]
    """By source, the columns that go into the frame as they are."""
    features: tuple[FeatureShape, ...]
    joined: Schema
    """The frame's rows."""
    outputs: Schema
    """After the transforms: what the model sees."""
    thinned: tuple[tuple[Channel, int], ...] = ()
    """Channels of which a row keeps the last of more than two slots, and of how many."""


def build(section: TransformSection) -> Transform:
    """A fresh transform of a section's kind."""
    kind: str = getattr(section, "type")  # noqa: B009 - every plug-in's config has it, the base class has not
    made: Transform = plugin.load("transforms", kind).build(section)
    return made


def chain(sections: Sequence[TransformSection], inputs: Schema) -> tuple[list[Transform], Schema]:
    """Fresh transforms, each ready for the rows of the one before, and what comes out at the end."""
    transforms, schema = [], inputs
    for place, section in enumerate(sections):
        transform = build(section)
        schema = _declared(("transforms", place), transform, schema)
        if schema.period != inputs.period:
            raise ShapeError(("transforms", place), "changes the period of the rows; only features may")
        transforms.append(transform)
    return transforms, schema


def shape_of(
    *,
    patterns: Sequence[str],
    features: Sequence[TransformSection],
    transforms: Sequence[TransformSection],
    period: int | None,
    sources: Mapping[str, Schema],
) -> Shape:
    """Work out the rows of a pipeline.

    Args:
        patterns: the channels it looks at.
        features: what is made of them before the join; a channel that goes into one does not go further.
        transforms: what happens after the join.
        period: of its rows; None is the longest of its inputs'.
        sources: every source's channels and period.

    Raises:
        ShapeError: something does not fit.
    """
    wanted = {name: matching(patterns, schema.channels) for name, schema in sources.items()}
    found: list[FeatureShape] = []
    used: set[tuple[str, int]] = set()
    for place, section in enumerate(features):
        made = [
            _feature(place, section, name, schema, wanted[name])
            for name, schema in sources.items()
            if matching(section.channels, [schema.channels[column] for column in wanted[name]])
        ]
        if not made:
            raise ShapeError(
                ("features", place, "channels"), f"none of the pipeline's channels is {_or(section.channels)}"
            )
        found += made
        used |= {(each.source, column) for each in made for column in each.columns}
    feeds = tuple(
        (name, rest)
        for name, columns in wanted.items()
        if (rest := tuple(column for column in columns if (name, column) not in used))
    )
    inputs = [
        Schema(tuple(sources[name].channels[column] for column in columns), sources[name].period)
        for name, columns in feeds
    ] + [each.outputs for each in found]
    if not inputs:
        raise ShapeError(("channels",), "match nothing")
    step = period or max(each.period for each in inputs)
    try:
        joined = Schema(distinct(channel for each in inputs for channel in each.channels), step)
    except ConfigError as error:
        raise ShapeError(("features",), str(error)) from error
    thinned = tuple(
        (channel, -(-step // each.period))
        for each in inputs
        for channel in each.channels
        if channel.fold == "last" and step > _LAST_FOLDS_MOST * each.period
    )
    return Shape(feeds, tuple(found), joined, chain(transforms, joined)[1], thinned)


def _feature(
    place: int, section: TransformSection, source: str, schema: Schema, wanted: Sequence[int]
) -> FeatureShape:
    offered = [schema.channels[column] for column in wanted]
    columns = tuple(wanted[at] for at in matching(section.channels, offered))
    inputs = Schema(tuple(schema.channels[column] for column in columns), schema.period)
    outputs = _declared(("features", place), build(section), inputs)
    return FeatureShape(source, columns, section, inputs, outputs)


def _declared(key: tuple[str | int, ...], transform: Transform, inputs: Schema) -> Schema:
    try:
        return transform.outputs(inputs)
    except ConfigError as error:
        raise ShapeError(key, str(error)) from error


def _or(names: Sequence[str]) -> str:
    return " or ".join(names)
