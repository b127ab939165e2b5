"""Readings that a device sends by itself over a serial port, line by line.

framing = { kind = "line" }                     a line end closes a message
checksum = "xor"                                `...*HH`, the exclusive or of all before the `*` (NMEA 0183)
decode = { kind = "csv", columns = ["x", "y"] }
"""

import asyncio
import functools
import operator
from collections.abc import Mapping, Sequence
from typing import Annotated, Final, Literal, Self

from pydantic import Field, model_validator

from dxad import plugin
from dxad.decode import Decoder
from dxad.errors import ConfigError, DecodeError, NotConnected
from dxad.fields import ChannelSection, Identifier, Section, SourceSection
from dxad.links.serial import SerialLink
from dxad.plugin import Plugin
from dxad.runtime.clock import Clock
from dxad.stage import Stage
from dxad.types import Block, Channel, Quality, Reason

__all__ = ["PLUGIN", "Config", "Serial", "unchecked"]

_STAGED_MAX: Final = 50_000


class Framing(Section):
    """`framing = { kind = "line" }`."""

    kind: Literal["line"] = "line"
    max_length: int = Field(1024, ge=8, description="bytes; a longer line is rejected")


class Config(SourceSection):
    """`type = "serial"`, `port = "/dev/serial/by-id/..."`, `decode = { kind = "csv", columns = ["x"] }`."""

    type: Literal["serial"]
    port: str = Field(min_length=1, description="a device file; one in /dev/serial/by-id keeps its name")
    baudrate: int = Field(115_200, gt=0)
    clock: Literal["arrival", "counted"] = "counted"
    framing: Framing = Framing()
    checksum: Literal["none", "xor"] = "none"
    decode: Annotated[Section, plugin.section("decode", Section, key="kind")]
    channels: dict[Identifier, ChannelSection] = Field(
        {}, description="by column; default: all columns, bare"
    )

    def channel_sections(self) -> Mapping[str, ChannelSection]:
        """All channels, by column."""
        columns: Sequence[str] = getattr(self.decode, "columns", ())
        return self.channels or {name: ChannelSection() for name in columns}

    @model_validator(mode="after")
    def _decodes_its_channels(self) -> Self:
        try:
            plugin.load("decode", getattr(self.decode, "kind")).build(self.decode, list(self.channels))  # noqa: B009
        except ConfigError as error:
            raise ValueError(f"channels: {error}") from error
        return self


class Serial:
    """Splits the stream into lines, checks and decodes each."""

    def __init__(self, name: str, config: Config, *, clock: Clock) -> None:
        self.channels: Sequence[Channel] = config.declared(name)
        self._config = config
        self._clock = clock
        build = plugin.load("decode", getattr(config.decode, "kind")).build  # noqa: B009 - of every decoder
        self._decoder: Decoder = build(config.decode, list(config.channel_sections()))
        self._stage = Stage(_STAGED_MAX)
        self._link: SerialLink | None = None
        self._lost: str | None = None
        self._arrived = asyncio.Event()
        self._tail = b""
        self._joined = False
        """Whether a line end was seen: before it, we may have come in the middle of a line."""
        self._malformed = 0
        self._first_malformed = ""

    @property
    def overflowed(self) -> int:
        """Samples dropped because nobody read them."""
        return self._stage.overflowed

    async def connect(self) -> None:
        """Open the port anew.

        Raises:
            NotConnected: it is not there, or somebody else has it.
        """
        await self.close()
        self._lost, self._tail, self._joined = None, b"", False
        self._link = SerialLink(
            self._config.port, self._config.baudrate, on_data=self._received, on_lost=self._hung_up
        )
        self._link.open()

    def _hung_up(self, reason: str) -> None:
        self._lost = reason
        self._arrived.set()

    def _received(self, data: bytes) -> None:
        *lines, self._tail = (self._tail + data).split(b"\n")
        if len(self._tail) > self._config.framing.max_length:
            self._reject(f"no line end in {len(self._tail)} bytes")
            self._tail, self._joined = b"", False
        now = self._clock.now()
        for line in lines:
            if self._joined:
                self._take(line.rstrip(b"\r"), now)
            self._joined = True
        self._arrived.set()

    def _take(self, line: bytes, now: int) -> None:
        if not line:
            return
        if len(line) > self._config.framing.max_length:
            self._reject(f"a line of {len(line)} bytes")
            return
        try:
            payload = unchecked(line) if self._config.checksum == "xor" else line
            values = self._decoder.decode(payload)
        except DecodeError as error:
            self._reject(str(error))
            return
        self._stage.begin(now)
        for column, value in enumerate(values):
            if value is None:
                self._stage.put(column, float("nan"), Quality.BAD, Reason.TYPE)
            else:
                self._stage.put(column, value)

    def _reject(self, reason: str) -> None:
        """Count a malformed message; it took its place in an evenly sampled stream all the same."""
        self._stage.begin(self._clock.now())
        self._malformed += 1
        self._first_malformed = self._first_malformed or reason

    async def read(self) -> Block:
        """All samples that came since the last call.

        Raises:
            NotConnected: the device hung up, and every sample that came before has been read.
            DecodeError: lines were malformed; the good ones among them have been read.
        """
        while not len(self._stage):
            if self._malformed:
                count, first = self._malformed, self._first_malformed
                self._malformed, self._first_malformed = 0, ""
                raise DecodeError(f"{count} lines rejected, the first: {first}", rejected=count)
            if self._lost is not None:
                raise NotConnected(self._lost)
            if self._link is None:
                raise NotConnected("read before connect")
            self._arrived.clear()
            await self._arrived.wait()
        return Block(self._stage.take())

    async def close(self) -> None:
        """Close the port; safe twice, and without `connect`."""
        link, self._link = self._link, None
        if link is not None:
            link.close()


def unchecked(line: bytes) -> bytes:
    """The line without its checksum.

    Raises:
        DecodeError: it has none, or the wrong one.
    """
    text, star, digits = line.rpartition(b"*")
    if not star or len(digits) != 2:
        raise DecodeError("no checksum at the end of the line")
    try:
        told = int(digits, 16)
    except ValueError as error:
        raise DecodeError(f"{digits!r} is no checksum") from error
    found = functools.reduce(operator.xor, text, 0)
    if told != found:
        raise DecodeError(f"checksum {told:02X}, but the line gives {found:02X}")
    return text


PLUGIN = Plugin(Config, Serial)
