"""Packed numbers, one after the other: what C calls a struct, in the letters of Python's `struct` module."""

import math
import re
import struct
from collections.abc import Mapping, Sequence
from typing import Final, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from dxad.decode import DecodeSection, each_once, places
from dxad.errors import DecodeError
from dxad.fields import Identifier
from dxad.plugin import Plugin
from dxad.types import F8

__all__ = ["PLUGIN", "Binary", "Config"]

_NUMBERS: Final = "bBhHiIlLqQefd"
_LONGEST: Final = 1024
"""Letters of a format."""
_LETTERS: Final = re.compile(r"(\d*)([a-zA-Z?])")
_KINDS: Final[Mapping[str, str]] = {
    "b": "i1", "B": "u1", "h": "i2", "H": "u2", "i": "i4", "I": "u4", "l": "i4", "L": "u4", "q": "i8",
    "Q": "u8", "e": "f2", "f": "f4", "d": "f8", "?": "?", "x": "V1",
}  # fmt: skip
"""What numpy calls them."""


class Config(DecodeSection):
    """`decode = { kind = "binary", format = "<hhf", fields = ["x", "y", "speed"] }`."""

    kind: Literal["binary"] = "binary"
    format: str = Field(
        pattern=rf"^[<>](?:\d{{0,3}}[{_NUMBERS}?x])+$",
        max_length=_LONGEST,
        description="< or > for the order of bytes, and a letter for each number; x is a byte of nothing",
    )
    fields: tuple[Identifier, ...] = Field(strict=False, min_length=1, description="names, in their order")
    scale: dict[Identifier, float] = Field(
        {}, description="by field: value = scale * number + offset; default: 1"
    )
    offset: dict[Identifier, float] = Field({}, description="by field; default: 0")

    @property
    def names(self) -> Sequence[Identifier]:
        """The fields."""
        return self.fields

    @property
    def size(self) -> int:
        """The format's."""
        return struct.calcsize(self.format)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        each_once("fields", self.fields)
        numbers = len(struct.unpack(self.format, bytes(struct.calcsize(self.format))))
        if numbers != len(self.fields):
            raise ValueError(f"format: {numbers} numbers for {len(self.fields)} fields")
        for key, by_field in (("scale", self.scale), ("offset", self.offset)):
            unknown = [name for name in by_field if name not in self.fields]
            if unknown:
                raise ValueError(f"{key}: no field {unknown[0]!r}; there are {', '.join(self.fields)}")
        return self


class Binary:
    """Unpacks payloads of one length."""

    def __init__(self, config: Config, paths: Sequence[str]) -> None:
        """Find the fields of `paths`, one per channel.

        Raises:
            ConfigError: there is no such field.
        """
        found = places("field", paths, config.fields)
        self._struct = struct.Struct(config.format)
        scale, offset = config.scale, config.offset
        self._places = [
            (place, scale.get(path, 1.0), offset.get(path, 0.0))
            for place, path in zip(found, paths, strict=True)
        ]
        self._record = _record(config.format)
        assert self._record.itemsize == self._struct.size

    def decode(self, payload: bytes) -> list[float | None]:
        """Each channel's number; None where it is not finite.

        Raises:
            DecodeError: the payload is shorter or longer than the format.
        """
        if len(payload) != self._struct.size:
            raise DecodeError(f"{len(payload)} bytes, not {self._struct.size}")
        numbers = self._struct.unpack(payload)
        values = [scale * numbers[place] + offset for place, scale, offset in self._places]
        return [value if math.isfinite(value) else None for value in values]

    def decode_many(self, payloads: Sequence[bytes]) -> F8 | None:
        """(payloads, channels), where all have their length; None: decode them one by one."""
        size = self._struct.size
        if set(map(len, payloads)) != {size}:
            return None
        raw = np.frombuffer(b"".join(payloads), self._record)
        values = np.empty((len(payloads), len(self._places)))
        for column, (place, scale, offset) in enumerate(self._places):
            with np.errstate(invalid="ignore"):  # a signalling NaN is one like others
                values[:, column] = raw[str(place)]
            if scale != 1.0:
                values[:, column] *= scale
            if offset != 0.0:
                values[:, column] += offset
        values[~np.isfinite(values)] = math.nan
        return values


def _record(layout: str) -> np.dtype[np.void]:
    """The format as numpy has it: its numbers are called 0, 1 and so on."""
    kinds: list[str] = []
    for count, letter in _LETTERS.findall(layout[1:]):
        kinds += [_KINDS[letter]] * int(count or 1)
    numbers = [(at, kind) for at, kind in enumerate(kinds) if kind != "V1"]
    offsets = np.cumsum([0, *(np.dtype(kind).itemsize for kind in kinds)]).tolist()
    return np.dtype(
        {
            "names": [str(place) for place in range(len(numbers))],
            "formats": [layout[0] + kind for _, kind in numbers],
            "offsets": [offsets[at] for at, _ in numbers],
            "itemsize": offsets[-1],
        }
    )


PLUGIN = Plugin(Config, Binary)
