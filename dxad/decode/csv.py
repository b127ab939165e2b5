"""Separated values, by position: `0.12,-3.4,5e-3`."""

import math
from collections.abc import Sequence
from typing import Literal, Self

from pydantic import Field, model_validator

from dxad.decode import DecodeSection
from dxad.errors import ConfigError, DecodeError
from dxad.fields import Identifier
from dxad.plugin import Plugin

__all__ = ["PLUGIN", "Config", "Csv"]


class Config(DecodeSection):
    """`decode = { kind = "csv", columns = ["x", "y", "z"] }`."""

    kind: Literal["csv"] = "csv"
    columns: tuple[Identifier, ...] = Field(strict=False, min_length=1, description="names, by position")
    separator: str = Field(",", pattern=r"^[^\w.+*\r\n-]$", description="one character")

    @model_validator(mode="after")
    def _names_each_once(self) -> Self:
        twice = {name for name in self.columns if self.columns.count(name) > 1}
        if twice:
            raise ValueError(f"columns: {min(twice)!r} stands there twice")
        return self


class Csv:
    """Takes the fields of a line."""

    def __init__(self, config: Config, paths: Sequence[str]) -> None:
        """Find the columns of `paths`, one per channel.

        Raises:
            ConfigError: there is no such column.
        """
        unknown = [path for path in paths if path not in config.columns]
        if unknown:
            raise ConfigError(f"no column {unknown[0]!r}; there are {', '.join(config.columns)}")
        self._config = config
        self._places = [config.columns.index(path) for path in paths]

    def decode(self, payload: bytes) -> list[float | None]:
        """Each channel's number; None where the field is empty or not finite.

        Raises:
            DecodeError: another number of fields, one that is no number, or a payload that is too large.
        """
        if len(payload) > self._config.max_payload:
            raise DecodeError(f"payload of {len(payload)} bytes is larger than {self._config.max_payload}")
        try:
            fields = payload.decode("ascii").split(self._config.separator)
        except UnicodeDecodeError as error:
            raise DecodeError(f"not ASCII at byte {error.start}") from error
        if len(fields) != len(self._config.columns):
            raise DecodeError(f"{len(fields)} fields, not {len(self._config.columns)}")
        return [_number(fields[place].strip()) for place in self._places]


def _number(field: str) -> float | None:
    if not field:
        return None
    if "_" in field:  # Python would read 1_000
        raise DecodeError(f"{field[:20]!r} is no number")
    try:
        number = float(field)
    except ValueError as error:
        raise DecodeError(f"{field[:20]!r} is no number") from error
    return number if math.isfinite(number) else None


PLUGIN = Plugin(Config, Csv)
