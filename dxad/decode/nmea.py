"""Sentences of NMEA 0183: `$WIMWV,214.8,R,0.1,K,A*28` (section 5.3 of the standard).

A field is told by its sentence and its place: `MWV.1` is the first after the address, whoever
talks; `WIMWV.1` is a weather instrument's alone. Fields of several sentences may be channels of one source.
"""

import functools
import operator
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field

from dxad.decode import ABSENT, DecodeSection, bounded, number_in, places
from dxad.errors import DecodeError
from dxad.fields import Identifier
from dxad.plugin import Plugin

__all__ = ["PLUGIN", "Config", "Nmea"]

_PLACE: Final = re.compile(r"([A-Z0-9]{2,16})\.([1-9]\d?)")
_ADDRESS: Final = re.compile(r"[A-Z0-9]{2,16}")
_TALKER: Final = 2
"""Letters in front of the three of a standard sentence."""
_SENTENCE: Final = 5


def _place(text: str) -> str:
    if not _PLACE.fullmatch(text):
        raise ValueError(f"{text!r} is no field such as MWV.1: a sentence, and the place after its address")
    return text


class Config(DecodeSection):
    """`decode = { kind = "nmea", fields = { angle = "MWV.1", speed = "MWV.3" } }`."""

    kind: Literal["nmea"] = "nmea"
    fields: dict[Identifier, Annotated[str, AfterValidator(_place)]] = Field(
        min_length=1, description="names, and where they stand: sentence and place, such as MWV.1"
    )

    @property
    def names(self) -> Sequence[Identifier]:
        """The fields."""
        return tuple(self.fields)


class Nmea:
    """Takes fields of sentences; those that nobody asks for pass by."""

    def __init__(self, config: Config, paths: Sequence[str]) -> None:
        """Find the fields `paths`, one per channel.

        Raises:
            ConfigError: there is no such field.
        """
        places("field", paths, config.names)
        self._max = config.max_payload
        self._count = len(paths)
        wanted: dict[str, list[tuple[int, int]]] = {}
        for channel, path in enumerate(paths):
            sentence, _, place = config.fields[path].partition(".")
            wanted.setdefault(sentence, []).append((channel, int(place)))
        self._wanted: Mapping[str, list[tuple[int, int]]] = wanted
        """By sentence: the channels of it, and where their fields stand."""
        self.partial = True

    def decode(self, payload: bytes) -> list[float | None]:
        """Each channel's number, None where its field is empty, ABSENT where it is another sentence's.

        Nothing at all for a sentence that no channel is in.

        Raises:
            DecodeError: it is no sentence, its checksum is wrong, or a field is missing or no number.
        """
        try:
            text = bounded(payload, self._max).decode("ascii").strip()
        except UnicodeDecodeError as error:
            raise DecodeError(f"not ASCII at byte {error.start}") from error
        fields = _checked(text.removeprefix("$").removeprefix("!")).split(",")
        address = fields[0]
        if not _ADDRESS.fullmatch(address):
            raise DecodeError(f"{text[:20]!r} is no sentence")
        wanted = self._wanted.get(address, ())
        if len(address) == _SENTENCE:
            wanted = [*wanted, *self._wanted.get(address[_TALKER:], ())]
        if not wanted:
            return []
        values: list[float | None] = [ABSENT] * self._count
        for channel, place in wanted:
            if place >= len(fields):
                raise DecodeError(f"{address} has {len(fields) - 1} fields, not {place}")
            values[channel] = number_in(fields[place])
        return values


def _checked(sentence: str) -> str:
    """The sentence without its checksum, which need not be there: a link may have taken it off already."""
    text, star, digits = sentence.rpartition("*")
    if not star:
        return sentence
    found = f"{functools.reduce(operator.xor, text.encode(), 0):02X}"
    if digits.upper() != found:
        raise DecodeError(f"checksum {digits[:4]!r}, but the sentence gives {found!r}")
    return text


PLUGIN = Plugin(Config, Nmea)
