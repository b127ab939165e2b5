"""Readings that a device sends by itself over a serial port, line by line.

framing = { kind = "line" }                     a line end closes a message
checksum = "xor"                                `...*HH`, the exclusive or of all before the `*` (NMEA 0183)
decode = { kind = "csv", columns = ["x", "y"] }
"""

import functools
import operator
from collections.abc import Mapping, Sequence
from typing import Literal, Self

from pydantic import Field, model_validator

from dxad.decode import DecodeTable, decoder
from dxad.errors import ConfigError, DecodeError
from dxad.fields import ChannelSection, Identifier, Section, Size, SourceSection
from dxad.links.serial import SerialLink
from dxad.plugin import Plugin
from dxad.runtime.clock import Clock
from dxad.sources import Inbox
from dxad.types import Block, Channel

__all__ = ["PLUGIN", "Config", "Framing", "Serial", "unchecked"]


class Framing(Section):
    """`framing = { kind = "line" }`."""

    kind: Literal["line"] = "line"
    max_length: Size = Field(1024, ge=8, le=65_536, description="a longer line is rejected")


class Config(SourceSection):
    """`type = "serial"`, `port = "/dev/serial/by-id/..."`, `decode = { kind = "csv", columns = ["x"] }`."""

    holds_back = True

    type: Literal["serial"]
    port: str = Field(min_length=1, description="a device file; one in /dev/serial/by-id keeps its name")
    baudrate: int = Field(115_200, gt=0, description="bits a second")
    clock: Literal["arrival", "counted"] = Field(
        "counted", description="whence a sample has its time: its arrival, or its number in an even stream"
    )
    framing: Framing = Field(Framing(), description="where a message ends")
    checksum: Literal["none", "xor"] = Field("none", description="xor: *HH at the end, as NMEA 0183 has it")
    decode: DecodeTable = Field(description="of a message into values")
    channels: dict[Identifier, ChannelSection] = Field(
        {}, description="by column; default: all columns, bare"
    )

    def channel_sections(self) -> Mapping[str, ChannelSection]:
        """All channels, by column."""
        return self.channels or {name: ChannelSection() for name in self.decode.names}

    @model_validator(mode="after")
    def _decodes_its_channels(self) -> Self:
        try:
            decoder(self.decode, list(self.channels))
        except ConfigError as error:
            raise ValueError(f"channels: {error}") from error
        return self


class Serial:
    """Splits the stream into lines, checks and decodes each."""

    def __init__(self, name: str, config: Config, *, clock: Clock) -> None:
        self.channels: Sequence[Channel] = config.declared(name)
        self._config = config
        self._clock = clock
        self._decoder = decoder(config.decode, list(config.channel_sections()))
        self._columns = range(len(self.channels))
        self._inbox = Inbox(config, hold=self._hold)
        self._link: SerialLink | None = None
        self._tail = b""
        self._held = False
        """Whether what comes is left in the kernel for now."""
        self._joined = False
        """Whether a line end was seen: before it, we may have come in the middle of a line."""

    @property
    def overflowed(self) -> int:
        """Samples dropped because nobody read them."""
        return self._inbox.overflowed

    async def connect(self) -> None:
        """Open the port anew.

        Raises:
            NotConnected: it is not there, or somebody else has it.
            ConfigError: it cannot be set to this baud rate.
        """
        await self.close()
        self._tail, self._joined, self._held = b"", False, False
        link = SerialLink(
            self._config.port, self._config.baudrate, on_data=self._received, on_lost=self._inbox.lose
        )
        link.open()
        self._link = link
        self._inbox.open()

    def _hold(self, held: bool) -> None:  # noqa: FBT001 - called by the inbox alone
        """Leave what comes to the kernel and the line's flow control, or take it again."""
        self._held = held
        if not held:
            self._received(b"")  # what had come already; enough of it holds us back again
        if self._link is not None:
            self._link.hold(held=self._held)

    def _received(self, data: bytes) -> None:
        now = self._clock.now()
        *lines, self._tail = (self._tail + data).split(b"\n")
        for place, line in enumerate(lines):
            if self._held:
                self._tail = b"\n".join((*lines[place:], self._tail))
                return
            if self._joined:
                self._take(line.rstrip(b"\r"), now)
            self._joined = True
        if len(self._tail) > self._config.framing.max_length:
            self._inbox.reject(now, f"no line end in {len(self._tail)} bytes")
            self._tail, self._joined = b"", False

    def _take(self, line: bytes, now: int) -> None:
        if not line:
            return
        try:
            values = self._decoded(line)
        except DecodeError as error:
            self._inbox.reject(now, error)
        else:
            self._inbox.message(now, self._columns, values)

    def _decoded(self, line: bytes) -> Sequence[float | None]:
        if len(line) > self._config.framing.max_length:
            raise DecodeError(f"a line of {len(line)} bytes")
        return self._decoder.decode(unchecked(line) if self._config.checksum == "xor" else line)

    async def read(self) -> Block:
        """All samples that came since the last call.

        Raises:
            NotConnected: the device hung up, and every sample that came before has been read.
            DecodeError: lines were malformed; the good ones among them have been read.
        """
        return await self._inbox.block()

    async def close(self) -> None:
        """Close the port; safe twice, and without `connect`."""
        link, self._link = self._link, None
        if link is not None:
            link.close()
            self._inbox.lose("closed")


def unchecked(line: bytes) -> bytes:
    """The line without its checksum.

    Raises:
        DecodeError: it has none, or the wrong one.
    """
    text, star, digits = line.rpartition(b"*")
    if not star or len(digits) != 2:
        raise DecodeError("no checksum at the end of the line")
    summed = text[1:] if text[:1] in (b"$", b"!") else text  # NMEA leaves the mark of a sentence out
    found = b"%02X" % functools.reduce(operator.xor, summed, 0)
    if digits.upper() != found:
        raise DecodeError(f"checksum {digits!r}, but the line gives {found!r}")
    return text


PLUGIN = Plugin(Config, Serial)
