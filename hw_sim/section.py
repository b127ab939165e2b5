"""What all sections of a scenario have in common: unknown keys are mistakes, durations have a unit."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Annotated, Final

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from hw_sim.duration import seconds

__all__ = ["LOOPBACK", "Duration", "Name", "Port", "Section", "WireSection"]

LOOPBACK: Final = "127.0.0.1"
"""Nothing of the simulator can be reached from elsewhere."""


class Section(BaseModel):
    """A table of a scenario file."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


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

    @property
    @abstractmethod
    def fields(self) -> Mapping[str, Mapping[str, str]]:
        """By device, the plant's channel of each of its fields."""
