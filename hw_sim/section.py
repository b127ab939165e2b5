"""What all sections of a scenario have in common: unknown keys are mistakes, durations have a unit."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from types import UnionType
from typing import Annotated, Any, ClassVar, Final, Literal, Union, get_args, get_origin

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from hw_sim.duration import seconds

__all__ = ["LOOPBACK", "Duration", "Name", "Port", "Section", "WireSection", "place_of"]

LOOPBACK: Final = "127.0.0.1"
"""Nothing of the simulator can be reached from elsewhere."""


class Section(BaseModel):
    """A table of a scenario file."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    @model_validator(mode="before")
    @classmethod
    def _no_truth_is_a_number(cls, written: object) -> object:
        """Pydantic takes true for 1, in a port as well."""
        if isinstance(written, Mapping):
            for name, field in cls.model_fields.items():
                value = written.get(field.alias or name)
                if isinstance(value, bool) and {int, float} & set(_plain(field.annotation)):
                    raise ValueError(f"{field.alias or name} is {str(value).lower()}, which is no number")
        return written


def _seconds(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, str):
        raise ValueError(  # noqa: TRY004 - pydantic makes a line of the error of this
            'a duration is a string with a unit, such as "250ms" or "40s"'
        )
    return seconds(value)


Duration = Annotated[float, BeforeValidator(_seconds, json_schema_input_type=str)]
"""Seconds, written as a string with a unit."""
Port = Annotated[int, Field(ge=0, le=65535)]
"""A TCP port; 0 is any that is free."""
Name = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_-]*$")]
"""Of a plant, wire or device."""


class WireSection(Section, ABC):
    """What a scenario may say of any wire."""

    type: str
    """The package that it is in."""
    holds: ClassVar[str] = "fields"
    """The key of a device below which its fields stand."""

    @property
    @abstractmethod
    def fields(self) -> Mapping[str, Mapping[str, str]]:
        """By device, the plant's channel of each of its fields."""


def place_of(
    section: type[Section], loc: Sequence[str | int]
) -> tuple[tuple[str | int, ...], frozenset[str]]:
    """Where in a table pydantic means, without the tags of unions; and the keys of the table that this is in.

    Args:
        section: what the whole table is.
        loc: pydantic's place of an error in it.
    """
    here: list[Any] = [section]
    place = []
    for part in loc[:-1]:
        below = [each for kind in here for each in _below(kind, part)]
        if below:
            place.append(part)
        here = below or [kind for kind in here if _has_tag(kind, part)]
    keys = {
        field.alias or name for kind in here if _is_section(kind) for name, field in kind.model_fields.items()
    }
    return (*place, *loc[-1:]), frozenset(keys)


def _is_section(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Section)


def _has_tag(kind: Any, tag: str | int) -> bool:
    return _is_section(kind) and any(
        tag in get_args(field.annotation)
        for field in kind.model_fields.values()
        if get_origin(field.annotation) is Literal
    )


def _below(kind: Any, part: str | int) -> Iterator[Any]:
    """What stands under a key of a table, or of a mapping or a sequence."""
    if _is_section(kind):
        for name, field in kind.model_fields.items():
            if part in {name, field.alias}:
                yield from _plain(field.annotation)
    elif len(arguments := get_args(kind)) == 1 + isinstance(part, str) and get_origin(kind) is not Literal:
        yield from _plain(arguments[-1])


def _plain(annotation: Any) -> Iterator[Any]:
    """The types that an annotation names."""
    if get_origin(annotation) is Annotated:
        yield from _plain(get_args(annotation)[0])
    elif get_origin(annotation) in {Union, UnionType}:
        for each in get_args(annotation):
            yield from _plain(each)
    else:
        yield annotation
