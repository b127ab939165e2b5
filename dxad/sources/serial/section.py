"""What a configuration says of a serial source."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from dxad.decode import Decoder, DecodeTable, decoder
from dxad.errors import ConfigError
from dxad.fields import ChannelSection, Duration, Identifier, SourceSection
from dxad.links.framing import Framer
from dxad.links.serial import Flow, Parity, SerialPort
from dxad.octets import Octets
from dxad.sources.serial.framing import Checksum, ChecksumSection, FixedFraming, Framing, LineFraming
from dxad.types import NS_PER_S

__all__ = ["Config", "Question", "SerialChannel"]

_NONE = ChecksumSection(kind="none")
_NOT_TEXT = {"binary", "msgpack"}
"""Decoders of payloads that may have any byte in them."""


class SerialChannel(ChannelSection):
    """One number of the device's messages."""

    path: str | None = Field(None, description="where the payload has it; default: the channel's name")
    query: Octets | None = Field(
        None,
        min_length=1,
        max_length=256,
        description="what is asked for it; default: the source's",
    )


@dataclass(frozen=True, slots=True)
class Question:
    """What a device is asked, and what its answer is made of."""

    request: bytes
    """Nothing, where the device speaks by itself."""
    columns: tuple[int, ...]
    decoder: Decoder


class Config(SourceSection):
    """`type = "serial"`, `port = "/dev/serial/by-id/..."`, `decode = { kind = "csv", columns = ["x"] }`."""

    holds_back = True
    stamped = True

    type: Literal["serial"]
    port: str = Field(
        min_length=1,
        description="a device file; one in /dev/serial/by-id keeps its name. Or a pattern such as "
        "/dev/ttyUSB*, which one device must match",
    )
    baudrate: int = Field(115_200, gt=0, description="bits a second")
    bytesize: Literal[5, 6, 7, 8] = Field(8, description="bits of a byte")
    parity: Parity = Field("none", description="of each byte")
    stopbits: Literal[1, 2] = Field(1, description="bits after each byte")
    flow: Flow = Field("none", description="what makes the device wait")
    clock: Literal["arrival", "device", "counted"] = Field(
        "counted",
        description="whence a sample has its time: its number in an even stream, its arrival (the default of "
        "nmea and of instruments that are asked), or what the message says",
    )
    time: str | None = Field(
        None,
        description='for clock = "device": where a message has the time of its samples, a number of seconds, '
        "or of ms, us or ns where it is that large, since 1970",
    )
    framing: Framing = Field(LineFraming(), description="where a message begins and ends")
    checksum: Checksum = Field(_NONE, description="its kind, or a table that says more")
    decode: DecodeTable = Field(description="of a message into values")
    query: Octets | None = Field(
        None,
        min_length=1,
        max_length=256,
        description="what the device is asked once per period; without it, nothing is ever sent",
    )
    timeout: Duration = Field(NS_PER_S // 2, gt=0, description="how long an answer may take")
    quiet: Duration | None = Field(
        None,
        description="rest of the line after a question without an answer, so that a late one is taken for no "
        "other; default: the timeout",
    )
    channels: dict[Identifier, SerialChannel] = Field(
        {}, description="by name; default: all that the payload's format names, bare"
    )

    @model_validator(mode="before")
    @classmethod
    def _clock(cls, value: Any) -> Any:
        """What is asked arrives when it was measured; sentences of several kinds are no even stream."""
        if not isinstance(value, Mapping) or "clock" in value:
            return value
        channels, decode = value.get("channels"), value.get("decode")
        asked = "query" in value or (
            isinstance(channels, Mapping)
            and any(isinstance(each, Mapping) and "query" in each for each in channels.values())
        )
        uneven = isinstance(decode, Mapping) and decode.get("kind") == "nmea"
        return {**value, "clock": "arrival"} if asked or uneven else value

    def channel_sections(self) -> Mapping[str, SerialChannel]:
        """All channels, by name."""
        named = [name for name in self.decode.names if name != self.time]
        return self.channels or {name: SerialChannel() for name in named}

    @property
    def requests(self) -> Sequence[bytes]:
        """What the device is asked."""
        asked = [each.query or self.query for each in self.channel_sections().values()]
        return tuple(dict.fromkeys(each for each in asked if each is not None))

    @property
    def alone_on(self) -> str:
        """The port."""
        return self.port

    @property
    def where(self) -> SerialPort:
        """The port, and how its bytes are sent."""
        return SerialPort(
            path=self.port,
            baudrate=self.baudrate,
            bytesize=self.bytesize,
            parity=self.parity,
            stopbits=self.stopbits,
            flow=self.flow,
        )

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.requests:
            self._askable()
        if self.clock == "device" and self.time is None:
            raise ValueError('clock: "device" wants to know by `time` where a message has it')
        if self.decode.sampled and self.clock == "arrival":
            raise ValueError(
                'clock: samples of an array arrive at once; say "counted" where they are even, "device" '
                "where each has its time"
            )
        if not self.channel_sections():
            raise ValueError(f"channels: {self.decode.kind} names none, so they must be named here")
        try:
            self.questions()
        except ConfigError as error:
            raise ValueError(f"channels: {error}") from error
        self._findable()
        return self

    def _askable(self) -> None:
        if self.period is None:
            raise ValueError("query: how often? Say so by `period`")
        for name, channel in self.channel_sections().items():
            if channel.query is None and self.query is None:
                raise ValueError(f"channels.{name}: no query, and the source has none either")
        if self.clock == "counted":
            raise ValueError("clock: what is asked on the grid is not counted")
        if self.decode.sampled:
            raise ValueError("decode.samples: an instrument that is asked answers with one sample")

    def _findable(self) -> None:
        framing, checksum = self.framing, self.checksum
        if framing.ended and self.decode.kind in _NOT_TEXT:
            raise ValueError(
                f"framing: the bytes of {self.decode.kind} may look like the end of a {framing.kind} frame; "
                "take fixed, length, cobs or slip"
            )
        if checksum.at == "behind" and not framing.ended:
            raise ValueError(f"checksum.at: nothing ends a frame of {framing.kind} for it to stand behind")
        try:
            self.framer()
        except ConfigError as error:
            raise ValueError(f"framing.{error}") from error
        lost = isinstance(framing, FixedFraming) and not framing.sync and checksum.kind == "none"
        if lost and not self.requests:
            raise ValueError(
                "framing: without a sync and a checksum, nothing tells where a frame of a fixed size begins"
            )

    def framer(self) -> Framer:
        """What finds the frames of a stream.

        Raises:
            ConfigError: they cannot be found so.
        """
        check = self.checksum.made(text=self.framing.ended)
        return self.framing.made(check, self.decode.size)

    def questions(self) -> Sequence[Question]:
        """What the device is asked; one without a request where it speaks by itself.

        Raises:
            ConfigError: a path is none of the payload's format.
        """
        grouped: dict[bytes, list[tuple[int, str]]] = {}
        for column, (name, channel) in enumerate(self.channel_sections().items()):
            request = channel.query or self.query or b""
            grouped.setdefault(request, []).append((column, channel.path or name))
        time = [] if self.time is None else [self.time]
        return tuple(
            Question(
                request,
                tuple(column for column, _ in each),
                decoder(self.decode, [*(path for _, path in each), *time]),
            )
            for request, each in grouped.items()
        )
