"""What a configuration says of frames and their checksums."""

import difflib
from abc import abstractmethod
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, Self

from pydantic import (
    BeforeValidator,
    Field,
    GetPydanticSchema,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError, core_schema

from dxad.errors import ConfigError
from dxad.fields import Section, Size
from dxad.links.checksum import Check, Endian, Over, Place, algorithm
from dxad.links.framing import Ended, Fixed, Framer, Length, uncobs, unslip
from dxad.octets import Octets

__all__ = ["Checksum", "ChecksumSection", "Framing", "FramingSection", "LineFraming"]

_LITTLE: Final = {"crc16-modbus"}
"""Whose standard puts the low byte first."""
_SENTENCE: Final = b"$!"
"""What NMEA 0183 puts before a sentence, and does not sum."""

MostBytes = Annotated[Size, Field(ge=8, le=65_536)]


class ChecksumSection(Section):
    """`checksum = { kind = "crc16-modbus", written = "hex" }`."""

    kind: str = Field(
        description="none, xor, sum8, sum16, lrc, fletcher16, fletcher8-256, adler32, or a CRC such as crc8, "
        "crc16-modbus, crc16-ccitt, crc16-xmodem, crc32"
    )
    written: Literal["hex", "bytes"] | None = Field(
        None, description="default: hexadecimal digits in line and delimiter framing, else bytes"
    )
    mark: Octets = Field(b"*", description="what stands before hexadecimal digits")
    endian: Endian | None = Field(
        None, description="which byte comes first; default: big, little of crc16-modbus"
    )
    at: Place = Field(
        "end", description="at the end of the content, at its start, or behind what ends the frame"
    )
    over: Over = Field(
        "payload",
        description="what it sums up: payload; frame, with all that is around it; after_start, without the "
        "mark in front",
    )

    @field_validator("kind")
    @classmethod
    def _known(cls, kind: str) -> str:
        if kind != "none":
            try:
                algorithm(kind)
            except ConfigError as error:
                raise ValueError(str(error)) from error
        return kind

    @model_validator(mode="after")
    def _written_so(self) -> Self:
        if self.at == "start" and self.written == "hex" and self.mark:
            raise ValueError('at: digits at the start have no mark before them; say mark = ""')
        return self

    def made(self, *, text: bool) -> Check | None:
        """The checksum of frames of text, or of bytes."""
        if self.kind == "none":
            return None
        value, size = algorithm(self.kind)
        digits = self.written == "hex" if self.written else text
        return Check(
            value=value,
            size=size,
            endian=self.endian or ("little" if self.kind in _LITTLE else "big"),
            mark=self.mark if digits else None,
            at=self.at,
            over=self.over,
            unsummed=_SENTENCE if digits and self.kind == "xor" else b"",
        )


def _just_its_kind(value: Any) -> Any:
    return {"kind": value} if isinstance(value, str) else value


Checksum = Annotated[
    ChecksumSection, BeforeValidator(_just_its_kind, json_schema_input_type=str | ChecksumSection)
]
"""A table, or just the checksum's kind."""


class FramingSection(Section):
    """What is said of every framing; each kind adds its own."""

    kind: str

    @abstractmethod
    def made(self, check: Check | None, payload: int | None) -> Framer:
        """What finds its frames; `payload` is the size of each payload, if that is known.

        Raises:
            ConfigError: they cannot be found so.
        """

    @property
    def ended(self) -> bool:
        """Whether something ends a frame that a payload must not have in it."""
        return False


class LineFraming(FramingSection):
    """`framing = { kind = "line" }`: LF ends a message, or CR and LF."""

    kind: Literal["line"] = "line"
    max_length: MostBytes = Field(1024, description="a longer line is rejected")

    def made(self, check: Check | None, payload: int | None) -> Framer:  # noqa: ARG002 - see the parent
        """What finds its frames."""
        return Ended(b"\n", most=self.max_length, strip=b"\r", check=check)

    @property
    def ended(self) -> bool:
        """A line has none in it."""
        return True


class DelimiterFraming(FramingSection):
    """`framing = { kind = "delimiter", delimiter = "0x03", start = "0x02" }`."""

    kind: Literal["delimiter"]
    delimiter: Octets = Field(min_length=1, max_length=16, description="what ends a message")
    start: Octets = Field(b"", max_length=16, description="what stands in front, and nowhere else")
    max_length: MostBytes = Field(1024, description="a longer message is rejected")

    def made(self, check: Check | None, payload: int | None) -> Framer:  # noqa: ARG002 - see the parent
        """What finds its frames."""
        return Ended(self.delimiter, most=self.max_length, start=self.start, check=check)

    @property
    def ended(self) -> bool:
        """The delimiter does."""
        return True


class FixedFraming(FramingSection):
    """`framing = { kind = "fixed", size = 12, sync = "0xaa55" }`."""

    kind: Literal["fixed"]
    size: int | None = Field(
        None,
        ge=1,
        le=65_536,
        description="bytes, with sync and checksum; default: as the format of binary says",
    )
    sync: Octets = Field(b"", max_length=16, description="what stands in front of each message")

    def made(self, check: Check | None, payload: int | None) -> Framer:
        """What finds its frames.

        Raises:
            ConfigError: their size is not known, or too small.
        """
        around = len(self.sync) + (check.written_size if check is not None else 0)
        size = self.size or (around + payload if payload is not None else None)
        if size is None:
            raise ConfigError("size: how many bytes has a message, with sync and checksum?")
        if payload is not None and size != around + payload:
            raise ConfigError(f"size: {size} bytes, but sync, payload and checksum have {around} + {payload}")
        if size <= around:
            raise ConfigError(f"size: sync and checksum alone have {around} bytes")
        return Fixed(size, sync=self.sync, check=check)


class LengthFraming(FramingSection):
    """`framing = { kind = "length", size = 2 }`: a length stands in front."""

    kind: Literal["length"]
    size: Literal[1, 2, 4] = Field(1, description="bytes of the length")
    endian: Endian = Field("big", description="which of them comes first")
    counts_itself: bool = Field(False, description="whether the length counts its own bytes")
    counts_checksum: bool = Field(False, description="whether the length counts the checksum's")
    sync: Octets = Field(b"", max_length=16, description="what stands in front of the length")
    max_length: MostBytes = Field(1024, description="of a payload; a greater length is none")

    def made(self, check: Check | None, payload: int | None) -> Framer:  # noqa: ARG002 - see the parent
        """What finds its frames."""
        return Length(
            self.size,
            most=self.max_length,
            endian=self.endian,
            sync=self.sync,
            counts_itself=self.counts_itself,
            counts_checksum=self.counts_checksum,
            check=check,
        )


class CobsFraming(FramingSection):
    """`framing = { kind = "cobs" }`: no byte of a message is zero, and a zero ends it."""

    kind: Literal["cobs"]
    max_length: MostBytes = Field(1024, description="a longer message is rejected")

    def made(self, check: Check | None, payload: int | None) -> Framer:  # noqa: ARG002 - see the parent
        """What finds its frames."""
        return Ended(b"\0", most=self.max_length, undo=uncobs, check=check)


class SlipFraming(FramingSection):
    """`framing = { kind = "slip" }`, as RFC 1055 has it; END may stand in front as well."""

    kind: Literal["slip"]
    max_length: MostBytes = Field(1024, description="a longer message is rejected")

    def made(self, check: Check | None, payload: int | None) -> Framer:  # noqa: ARG002 - see the parent
        """What finds its frames."""
        return Ended(b"\xc0", most=self.max_length, undo=unslip, check=check)


_KINDS: Final[Mapping[str, type[FramingSection]]] = {
    "line": LineFraming,
    "delimiter": DelimiterFraming,
    "fixed": FixedFraming,
    "length": LengthFraming,
    "cobs": CobsFraming,
    "slip": SlipFraming,
}


def _validated(value: Any) -> FramingSection:
    """Of the kind it says: a union of pydantic's would put that into the key that an error names."""
    if isinstance(value, FramingSection):
        return value
    if not isinstance(value, Mapping):
        raise PydanticCustomError("config", "expected a table")
    kind = value.get("kind")
    if not isinstance(kind, str) or kind not in _KINDS:
        close = difflib.get_close_matches(str(kind), _KINDS, 1)
        hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(_KINDS)}"
        fault = PydanticCustomError("config", "{text}", {"text": f"no framing of kind {kind!r}, {hint}"})
        raise ValidationError.from_exception_data(
            "framing", [{"type": fault, "loc": ("kind",), "input": kind}]
        )
    return _KINDS[kind].model_validate(value)


Framing = Annotated[
    FramingSection,
    GetPydanticSchema(
        lambda _source, _handler: core_schema.no_info_plain_validator_function(_validated),
        lambda _schema, handler: {
            "anyOf": [handler(each.__pydantic_core_schema__) for each in _KINDS.values()]
        },
    ),
]
"""The type of the key `framing`."""
