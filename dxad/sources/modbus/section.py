"""What a configuration says of a Modbus source."""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Literal, Self

from pydantic import Field, field_validator, model_validator

from dxad.fields import ChannelSection, Duration, Identifier, SourceSection
from dxad.links.modbus import Space
from dxad.links.modbusurl import Address, address_of
from dxad.sources.modbus.register import PATTERN, Place, place_of
from dxad.tomlfiles import beside
from dxad.types import NS_PER_S

__all__ = ["BITS", "ORDERS", "REGISTERS_MAX", "WORD", "Config", "Encoding", "ModbusChannel", "Order"]

Encoding = Literal[
    "bool", "bits", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float16",
    "float32", "float64", "bcd16", "bcd32", "mod10_32", "mod10_48", "mod10_64", "string",
]  # fmt: skip
Order = Literal["ABCD", "BADC", "CDAB", "DCBA"]

BITS: Final = ("coil", "discrete")
WORD: Final = 16
ORDERS: Final[dict[Order, tuple[bool, str]]] = {
    "ABCD": (False, ">"), "BADC": (True, ">"), "CDAB": (True, "<"), "DCBA": (False, "<"),
}  # fmt: skip
"""Whether the two bytes of each register are swapped first, and which end comes first then."""
_COUNTS: Final[dict[Encoding, int]] = {
    "int32": 2, "uint32": 2, "int64": 4, "uint64": 4, "float32": 2, "float64": 4, "bcd32": 2, "mod10_32": 2,
    "mod10_48": 3, "mod10_64": 4,
}  # fmt: skip
"""Registers; others take one."""
REGISTERS_MAX: Final = 125
"""Per request (Modbus Application Protocol V1.1b3, 6.3)."""
_SLAVES: Final = 247
_WITHOUT_ABSENT: Final = frozenset({"bool", "bits", "string", "mod10_32", "mod10_48", "mod10_64"})


class ModbusChannel(ChannelSection):
    """A register, or a few that hold one value, or some bits of one."""

    # A field *named* register would shadow ABCMeta.register: pydantic would take that for its default.
    address: str = Field(
        alias="register",
        json_schema_extra={"pattern": PATTERN},
        description="table and address from 0: holding:12, with .3 or .3..7 for bits; or Modicon's 40013",
    )
    encoding: Encoding | None = Field(
        None,
        description="default: bool for coil and discrete, bits where the register names some, else int16",
    )
    order: Order = Field("ABCD", description="of the bytes on the wire")
    bit: int | None = Field(None, ge=0, lt=WORD, description="of bits: the lowest; 0 is the register's last")
    width: int = Field(1, ge=1, le=WORD, description="of bits: how many, from `bit` upwards")
    length: int | None = Field(None, ge=1, le=REGISTERS_MAX, description="of a string, in registers")
    values: dict[str, float] = Field({}, description="of a string: the number that each text stands for")
    scale: float = Field(1.0, allow_inf_nan=False, description="value = scale * raw + offset")
    offset: float = Field(0.0, allow_inf_nan=False, description="in the unit of the value")
    absent: Literal["sunspec"] | float | list[float] | None = Field(
        None,
        description='the raw number, or numbers, that mean "there is no value"; sunspec: 0x8000, 0xFFFF and '
        "their like, by encoding",
    )

    @field_validator("address")
    @classmethod
    def _somewhere(cls, address: str) -> str:
        place_of(address)
        return address

    @field_validator("scale")
    @classmethod
    def _scales(cls, scale: float) -> float:
        if scale == 0:
            raise ValueError("a scale of 0 makes every value the same")
        return scale

    @cached_property
    def place(self) -> Place:
        """Where it stands."""
        place = place_of(self.address)
        return place if self.bit is None else Place(place.space, place.first, self.bit, self.width)

    @property
    def space(self) -> Space:
        """Which of the four tables it is in."""
        return self.place.space

    @property
    def first(self) -> int:
        """Its first register, or its bit."""
        return self.place.first

    @property
    def kind(self) -> Encoding:
        """How its registers are to be read."""
        if self.encoding is not None:
            return self.encoding
        if self.place.bit is not None:
            return "bits"
        return "bool" if self.space in BITS else "int16"

    @property
    def count(self) -> int:
        """How many registers, or bits, it takes."""
        if self.kind == "string":
            return self.length or 1
        return _COUNTS.get(self.kind, 1)

    @property
    def markers(self) -> tuple[float, ...]:
        """The raw numbers that mean that there is no value, but for `sunspec`."""
        if isinstance(self.absent, list):
            return tuple(self.absent)
        return () if self.absent is None or self.absent == "sunspec" else (self.absent,)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        kind = self.kind
        if (self.space in BITS) != (kind == "bool"):
            raise ValueError(f"{self.address} cannot hold {kind}; bool is for coil and discrete")
        self._bits_fit()
        self._text_fits()
        if kind == "bool" and (self.order, self.scale, self.offset) != ("ABCD", 1.0, 0.0):
            raise ValueError(f"{self.address} is a bit: it has no order, scale or offset")
        if kind == "string" and (self.scale, self.offset) != (1.0, 0.0):
            raise ValueError("a string has no scale and no offset: values says its numbers")
        if kind in _WITHOUT_ABSENT and self.absent is not None:
            raise ValueError(f"absent: {kind} has no number that stands for no value")
        if self.first + self.count > 65_536:
            raise ValueError(f"{self.address} as {kind} ends beyond 65535")
        return self

    def _bits_fit(self) -> None:
        kind, place = self.kind, self.place
        if (kind == "bits") != (place.bit is not None) or (place.bit is None and self.width != 1):
            raise ValueError('bit and width go with encoding = "bits", which wants a bit')
        if self.bit is not None and "." in self.address:
            raise ValueError(f"{self.address} names its bits: leave bit and width out")
        if place.bit is not None and place.bit + place.width > WORD:
            raise ValueError(f"{place.width} bits from bit {place.bit} end beyond the register")
        if kind == "bits" and self.order != "ABCD":
            raise ValueError("bits of a register have no order")

    def _text_fits(self) -> None:
        if self.kind != "string":
            if self.length is not None or self.values:
                raise ValueError(f'length and values go with encoding = "string"; this is {self.kind}')
        elif self.length is None or not self.values:
            raise ValueError(
                "a text is no number: give its length in registers, and values, such as "
                '{ "RUN" = 1, "STOP" = 0 }'
            )
        elif longer := [each for each in self.values if len(each.encode()) > 2 * self.length]:
            raise ValueError(f"values: {longer[0]!r} does not fit into {self.length} registers")


class Config(SourceSection):
    """`type = "modbus"`, `url = "tcp://10.0.0.5:502"`, `device_id = 1`."""

    polled = True

    type: Literal["modbus"]
    url: str = Field(
        description="tcp://host:port, rtu+tcp://host:port, rtu:///dev/tty?baudrate=19200&parity=E, ascii:///dev/tty"
    )
    device_id: int = Field(
        1, ge=0, le=255, description="the unit identifier; 1 to 247 on RTU and ASCII lines"
    )
    timeout: Duration = Field(NS_PER_S // 2, gt=0, description="how long a device may take to answer")
    delay: Duration = Field(0, description="rest of the line between an answer and the next question")
    quiet: Duration | None = Field(
        None,
        description="how long a slave on an RTU or ASCII line is left alone after a silence: its answer may "
        "yet come; default: the timeout, 1s at least",
    )
    block: int = Field(REGISTERS_MAX, ge=1, le=REGISTERS_MAX, description="registers in one question at most")
    hole: int = Field(
        8,
        ge=0,
        le=REGISTERS_MAX,
        description="registers that nobody wants, read along to save a question, or on RTU and ASCII lines "
        "to tell answers by their length",
    )
    retry: Duration = Field(
        3600 * NS_PER_S, gt=0, description="how often an address that the device calls illegal is tried again"
    )
    map: Path | None = Field(
        None,
        strict=False,
        description="a CSV file of channels, beside this file; what channels says goes before it",
    )
    channels: dict[Identifier, ModbusChannel] = Field({}, description="by name")

    @field_validator("url")
    @classmethod
    def _address(cls, url: str) -> str:
        address_of(url)
        return url

    @model_validator(mode="before")
    @classmethod
    def _mapped(cls, document: Any) -> Any:
        """Merge the channels of the map with those that stand in the section."""
        if not isinstance(document, Mapping) or not isinstance(document.get("map"), str | Path):
            return document
        # Read only where it is used, as a plug-in's library is.
        from dxad.sources.modbus.mapfile import read  # noqa: PLC0415

        inline = document.get("channels", {})
        if not isinstance(inline, Mapping):
            return document
        merged: dict[str, Any] = read(beside(Path(document["map"])), inline)
        return {**document, "channels": merged}

    @property
    def place(self) -> Address:
        """The line."""
        return address_of(self.url)

    @model_validator(mode="after")
    def _possible_blocks(self) -> Self:
        if self.place.framing != "tcp" and not 1 <= self.device_id <= _SLAVES:
            raise ValueError(f"device_id: slaves of an RTU or ASCII line are 1 to {_SLAVES}")
        for name, channel in self.channels.items():
            if channel.space not in BITS and channel.count > self.block:
                raise ValueError(
                    f"channels.{name}: {channel.count} registers do not fit into block = {self.block}"
                )
        return self

    def channel_sections(self) -> Mapping[str, ChannelSection]:
        """All channels, by name."""
        return self.channels
