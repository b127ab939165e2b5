"""What a scenario may say of a Modbus wire.

[wires.NAME]
type = "modbus"
framing = "tcp"              # "tcp", "rtu" or "ascii"
port = 15020                 # rtu or ascii with a port are that over TCP
link = "/tmp/bus"            # in place of a port: a terminal, for rtu and ascii
baudrate = 19200             # of a terminal: answers take as long as on such a line; default: no time
[wires.NAME.devices.DEVICE]
id = 1                       # several devices are several slaves on one bus
size = 64                    # addresses in each of its four tables
holes = "zero"               # what addresses hold that no register takes; "illegal": exception 2
[wires.NAME.devices.DEVICE.registers]
flow  = { register = "input:30", encoding = "float32", order = "CDAB", channel = "plc.flow" }
valve = { register = "holding:12", encoding = "int16", scale = 0.1, channel = "plc.valve" }
alarm = { register = "holding:13", encoding = "bits", bit = 3, width = 2, channel = "plc.alarm" }
make  = { register = "holding:20", encoding = "string", text = "pump 7", length = 8 }
runs  = { register = "coil:0", channel = "plc.running" }
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar, Final, Literal, Self, cast

from pydantic import Field, field_validator, model_validator

from hw_sim.modbus.encoding import BITS, Encoding, Order, Space, registers_of
from hw_sim.section import Name, Port, Section, WireSection

__all__ = ["Device", "Register", "Settings"]

_ADDRESSES: Final = 65_536
_WORD: Final = 16
_SIZE: Final = 64


class Register(Section):
    """A value of a device: a bit, a register, a few of them, or some bits within one."""

    # A field *named* register would shadow ABCMeta.register: pydantic would take that for its default.
    address: str = Field(
        alias="register",
        pattern=r"^(coil|discrete|input|holding):\d{1,5}$",
        description="table and address, as they are on the wire: from 0",
    )
    encoding: Encoding | None = Field(None, description="default: bool for coil and discrete, else int16")
    order: Order = Field("ABCD", description="of the bytes on the wire, see encoding.py")
    scale: float = Field(1.0, allow_inf_nan=False, description="reading = scale * raw + offset")
    offset: float = Field(0.0, allow_inf_nan=False, description="in the reading's unit")
    channel: str = Field("", description="what it shows; default: the device's name, a dot and its own")
    text: str | None = Field(None, description="of a string, which shows no channel; ASCII")
    length: int | None = Field(None, ge=1, le=125, description="of a string, in registers; default: it fits")
    bit: int | None = Field(None, ge=0, lt=_WORD, description="of bits: the lowest; 0 is the register's last")
    width: int = Field(1, ge=1, le=_WORD, description="of bits: how many, from `bit` upwards")

    @property
    def space(self) -> Space:
        """Which of the four tables it is in."""
        return cast("Space", self.address.partition(":")[0])

    @property
    def first(self) -> int:
        """Its first register, or its bit."""
        return int(self.address.partition(":")[2])

    @property
    def format(self) -> Encoding:
        """Its encoding."""
        return self.encoding or ("bool" if self.space in BITS else "int16")

    @property
    def count(self) -> int:
        """How many registers it takes, or bits of coil and discrete."""
        if self.format == "string":
            return self.length or -(-len(self.text or "") // 2)
        return registers_of(self.format)

    @property
    def mask(self) -> int:
        """Which bits of its register it takes: all of them, or fewer if its encoding is bits."""
        return ((1 << self.width) - 1) << self.bit if self.bit is not None else (1 << _WORD) - 1

    @field_validator("scale")
    @classmethod
    def _divides(cls, scale: float) -> float:
        if scale == 0:
            raise ValueError("a scale of 0 shows nothing")
        return scale

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if (self.space in BITS) != (self.format == "bool"):
            raise ValueError(
                f"{self.address} cannot hold {self.format}: bool is for coil and discrete, and alone there; "
                'a flag within a register is "bits"'
            )
        if self.format in {"bool", "string", "bits"} and (self.scale, self.offset) != (1.0, 0.0):
            raise ValueError(f"{self.format} has no scale and no offset")
        if self.format in {"bool", "bits"} and self.order != "ABCD":
            raise ValueError(f"{self.format} has no order")
        self._string_fits()
        self._bits_fit()
        if self.first + self.count > _ADDRESSES:
            raise ValueError(f"{self.address} as {self.format} ends beyond {_ADDRESSES - 1}")
        return self

    def _string_fits(self) -> None:
        if self.format != "string":
            if self.text is not None or self.length is not None:
                raise ValueError(f"text and length are of a string; this is {self.format}")
            return
        if not self.text or not self.text.isascii():
            raise ValueError("a string has a text, in ASCII")
        if self.channel:
            raise ValueError("a string shows its text, no channel")
        if 2 * self.count < len(self.text):
            raise ValueError(f"{self.text!r} does not fit into {self.count} registers")

    def _bits_fit(self) -> None:
        if self.format != "bits":
            if self.bit is not None or self.width != 1:
                raise ValueError(f"bit and width are of bits; this is {self.format}")
        elif self.bit is None:
            raise ValueError("bits say which: bit = 0 … 15")
        elif self.bit + self.width > _WORD:
            raise ValueError(f"{self.width} bits from bit {self.bit} end beyond the register")


class Device(Section):
    """A slave."""

    id: int = Field(1, ge=1, le=247, description="the unit identifier")
    registers: Mapping[Name, Register] = Field(min_length=1, description="by name")
    size: int | None = Field(
        None, ge=1, le=_ADDRESSES, description=f"addresses in each table; default: {_SIZE}, or what it takes"
    )
    holes: Literal["zero", "illegal"] = Field(
        "zero", description="what reads an address that no register takes: 0, or exception 2"
    )

    @property
    def addresses(self) -> int:
        """How many addresses each of its tables has."""
        return self.size or max(_SIZE, *(each.first + each.count for each in self.registers.values()))

    @model_validator(mode="after")
    def _places(self) -> Self:
        taken: dict[tuple[Space, int], list[tuple[str, Register]]] = {}
        for name, register in self.registers.items():
            if register.first + register.count > self.addresses:
                raise ValueError(f"{name} ends beyond the size of {self.addresses}")
            for at in range(register.first, register.first + register.count):
                others = taken.setdefault((register.space, at), [])
                for other, there in others:
                    if register.mask & there.mask:
                        raise ValueError(f"{other} and {name} both take {register.space}:{at}")
                others.append((name, register))
        return self


class Settings(WireSection):
    """`type = "modbus"`, `framing = "tcp"`, `port = 15020`, and its devices."""

    type: Literal["modbus"] = "modbus"
    holds: ClassVar[str] = "registers"
    framing: Literal["tcp", "rtu", "ascii"] = Field("tcp", description="how a request stands on the wire")
    port: Port | None = Field(None, description="of TCP, on loopback; 0: any that is free")
    link: Path | None = Field(None, description="where the terminal is found; a symbolic link")
    baudrate: int | None = Field(None, ge=300, le=4_000_000, description="default: answers take no time")
    devices: Mapping[Name, Device] = Field(min_length=1, description="by name")

    @property
    def fields(self) -> Mapping[str, Mapping[str, str]]:
        """By device, the channel of each register; strings show none."""
        return {
            device: {
                name: register.channel or f"{device}.{name}"
                for name, register in settings.registers.items()
                if register.format != "string"
            }
            for device, settings in self.devices.items()
        }

    @model_validator(mode="after")
    def _is_one_link(self) -> Self:
        if (self.port is None) == (self.link is None):
            raise ValueError("a Modbus wire has a port, or a link; one of them")
        if self.link is not None and self.framing == "tcp":
            raise ValueError('the framing of a terminal is "rtu" or "ascii"')
        if self.baudrate is not None and self.link is None:
            raise ValueError("a baudrate is of a terminal: it needs a link")
        for one, other in self._pairs():
            if self.devices[one].id == self.devices[other].id:
                raise ValueError(f"{one} and {other} both have id {self.devices[one].id}")
        return self

    def _pairs(self) -> Iterator[tuple[str, str]]:
        names = list(self.devices)
        return ((one, other) for at, one in enumerate(names) for other in names[at + 1 :])
