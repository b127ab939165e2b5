"""Packed numbers, one after the other: what C calls a struct, in the letters of Python's `struct` module."""

import math
import struct
from collections.abc import Mapping, Sequence
from typing import Final, Literal, Self

from pydantic import Field, model_validator

from dxad.decode import DecodeSection
from dxad.errors import ConfigError, DecodeError
from dxad.fields import Identifier
from dxad.plugin import Plugin

__all__ = ["PLUGIN", "Binary", "Config"]

_NUMBERS: Final = "bBhHiIlLqQefd"
_LONGEST: Final = 1024
"""Letters of a format."""


class Config(DecodeSection):
    """`decode = { kind = "binary", format = "<hhf", fields = ["x", "y", "speed"] }`."""

    kind: Literal["binary"] = "binary"
    format: str = Field(
        pattern=rf"^[<>](?:\d{{0,3}}[{_NUMBERS}?x])+$",
        max_length=_LONGEST,
        description="< or > for the order of bytes, and a letter for each number; x is a byte of nothing",
    )
    fields: tuple[Identifier, ...] = Field(strict=False, min_length=1, description="names, in their order")
    scale: dict[Identifier, float] = Field({}, description="by field: value = scale * number; default: 1")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        twice = {name for name in self.fields if self.fields.count(name) > 1}
        if twice:
            raise ValueError(f"fields: {min(twice)!r} stands there twice")
        numbers = len(struct.unpack(self.format, bytes(struct.calcsize(self.format))))
        if numbers != len(self.fields):
            raise ValueError(f"format: {numbers} numbers for {len(self.fields)} fields")
        unknown = [name for name in self.scale if name not in self.fields]
        if unknown:
            raise ValueError(f"scale: no field {unknown[0]!r}; there are {', '.join(self.fields)}")
        return self


class Binary:
    """Unpacks payloads of one length."""

    def __init__(self, config: Config, paths: Sequence[str]) -> None:
        """Find the fields of `paths`, one per channel.

        Raises:
            ConfigError: there is no such field.
        """
        unknown = [path for path in paths if path not in config.fields]
        if unknown:
            raise ConfigError(f"no field {unknown[0]!r}; there are {', '.join(config.fields)}")
        self._struct = struct.Struct(config.format)
        scale: Mapping[str, float] = config.scale
        self._places = [(config.fields.index(path), scale.get(path, 1.0)) for path in paths]

    def decode(self, payload: bytes) -> list[float | None]:
        """Each channel's number; None where it is not finite.

        Raises:
            DecodeError: the payload is shorter or longer than the format.
        """
        if len(payload) != self._struct.size:
            raise DecodeError(f"{len(payload)} bytes, not {self._struct.size}")
        numbers = self._struct.unpack(payload)
        values = [scale * numbers[place] for place, scale in self._places]
        return [value if math.isfinite(value) else None for value in values]


PLUGIN = Plugin(Config, Binary)
