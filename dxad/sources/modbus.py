"""Readings over Modbus TCP, polled on the source's grid. Only the four read functions are ever sent.

register = "input:30"     space and address; spaces: coil, discrete, input, holding
encoding = "float32"      bool for the bit spaces; int16, uint16, int32, uint32, float32, float64
order = "ABCD"            of the bytes on the wire: ABCD, BADC, CDAB or DCBA
scale, offset             value = scale * raw + offset
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, Self, cast
from urllib.parse import urlsplit

import numpy as np
import numpy.typing as npt
from pydantic import Field, field_validator, model_validator

from dxad.errors import NotConnected
from dxad.fields import ChannelSection, Duration, Identifier, SourceSection
from dxad.links.modbus import Answer, ModbusLink, Space
from dxad.plugin import Plugin
from dxad.ring.stage import Stage
from dxad.runtime.clock import Clock
from dxad.types import NS_PER_S, Block, Channel, Quality, Reason

__all__ = ["PLUGIN", "Config", "Layout", "Modbus", "ModbusChannel", "Request", "plan"]

Encoding = Literal["bool", "int16", "uint16", "int32", "uint32", "float32", "float64"]
Order = Literal["ABCD", "BADC", "CDAB", "DCBA"]

_PORT: Final = 502
_BITS: Final = ("coil", "discrete")
_FORMATS: Final[dict[Encoding, str]] = {
    "bool": "u1", "int16": "i2", "uint16": "u2", "int32": "i4", "uint32": "u4", "float32": "f4",
    "float64": "f8",
}  # fmt: skip
_ORDERS: Final[dict[Order, tuple[bool, str]]] = {
    "ABCD": (False, ">"), "BADC": (True, ">"), "CDAB": (True, "<"), "DCBA": (False, "<"),
}  # fmt: skip
"""Whether the two bytes of each register are swapped first, and which end comes first then."""
_REGISTERS_MAX: Final = 125
"""Per request (Modbus Application Protocol V1.1b3, 6.3)."""
_BITS_MAX: Final = 2000
_HOLE_MAX: Final = 8
"""Registers that nobody wants are read along when that saves a request."""


class ModbusChannel(ChannelSection):
    """A register, or a few that hold one value."""

    # A field *named* register would shadow ABCMeta.register: pydantic would take that for its default.
    address: str = Field(
        alias="register", pattern=r"^(coil|discrete|input|holding):\d{1,5}$", description="space and address"
    )
    encoding: Encoding | None = Field(None, description="default: bool for coil and discrete, else int16")
    order: Order = Field("ABCD", description="of the bytes on the wire")
    scale: float = Field(1.0, allow_inf_nan=False, description="value = scale * raw + offset")
    offset: float = Field(0.0, allow_inf_nan=False, description="in the unit of the value")

    @property
    def space(self) -> Space:
        """Which of the four tables it is in."""
        return cast("Space", self.address.partition(":")[0])

    @property
    def first(self) -> int:
        """Its first register, or its bit."""
        return int(self.address.partition(":")[2])

    @property
    def format(self) -> str:
        """Its encoding, in numpy's letters."""
        return _FORMATS[self.encoding or ("bool" if self.space in _BITS else "int16")]

    @property
    def count(self) -> int:
        """How many registers, or bits, it takes."""
        return max(1, int(self.format[1]) // 2)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        bit = self.space in _BITS
        if bit != (self.format == _FORMATS["bool"]):
            raise ValueError(f"{self.address} cannot hold {self.encoding}; bool is for coil and discrete")
        if bit and (self.order, self.scale, self.offset) != ("ABCD", 1.0, 0.0):
            raise ValueError(f"{self.address} is a bit: it has no order, scale or offset")
        if self.first + self.count > 65_536:
            raise ValueError(f"{self.address} as {self.encoding} ends beyond 65535")
        return self


class Config(SourceSection):
    """`type = "modbus"`, `url = "tcp://10.0.0.5:502"`, `device_id = 1`."""

    polled = True

    type: Literal["modbus"]
    url: str = Field(description="tcp://host:port")
    device_id: int = Field(1, ge=0, le=255, description="the unit identifier")
    timeout: Duration = Field(NS_PER_S // 2, gt=0, description="how long a device may take to answer")
    channels: dict[Identifier, ModbusChannel] = Field({}, description="by name")

    @field_validator("url")
    @classmethod
    def _address(cls, url: str) -> str:
        split = urlsplit(url)
        if split.scheme != "tcp" or not split.hostname or split.port == 0:
            raise ValueError(f"{url!r} is not tcp://host:port")
        return url

    def channel_sections(self) -> Mapping[str, ChannelSection]:
        """All channels, by name."""
        return self.channels


@dataclass(frozen=True, slots=True)
class Request:
    """One read of consecutive registers or bits."""

    space: Space
    first: int
    count: int
    columns: tuple[int, ...]
    """The channels it serves."""

    def __str__(self) -> str:
        return f"{self.space}:{self.first}+{self.count}"


def plan(channels: Sequence[ModbusChannel]) -> list[Request]:
    """As few reads as the protocol's limits and small holes allow."""
    requests: list[Request] = []
    wanted = sorted(range(len(channels)), key=lambda at: (channels[at].space, channels[at].first))
    for column in wanted:
        channel = channels[column]
        end = channel.first + channel.count
        last = requests[-1] if requests else None
        most = _BITS_MAX if channel.space in _BITS else _REGISTERS_MAX
        if (
            last is not None
            and last.space == channel.space
            and channel.first - (last.first + last.count) <= _HOLE_MAX
            and end - last.first <= most
        ):
            count = max(last.count, end - last.first)
            requests[-1] = Request(last.space, last.first, count, (*last.columns, column))
        else:
            requests.append(Request(channel.space, channel.first, channel.count, (column,)))
    return requests


class Layout:
    """Where the values of one answer stand; all of one byte order are read in one go."""

    def __init__(self, request: Request, channels: Sequence[ModbusChannel]) -> None:
        self._parts: list[tuple[bool, npt.DTypeLike, list[tuple[int, ModbusChannel]]]] = []
        width = 1 if request.space in _BITS else 2
        for swapped in (False, True):
            mine = [
                (column, channels[column])
                for column in request.columns
                if _ORDERS[channels[column].order][0] is swapped
            ]
            record: Any = {
                "names": [str(column) for column, _ in mine],
                "formats": [_ORDERS[channel.order][1] + channel.format for _, channel in mine],
                "offsets": [width * (channel.first - request.first) for _, channel in mine],
                "itemsize": width * request.count,
            }
            if mine:
                self._parts.append((swapped, np.dtype(record), mine))

    def values(self, wire: bytes) -> Iterator[tuple[int, float]]:
        """Each channel's column and value, in its unit."""
        for swapped, record, channels in self._parts:
            ordered = np.frombuffer(wire, "u2").byteswap().tobytes() if swapped else wire
            raw = np.frombuffer(ordered, record, count=1)[0].item()
            for (column, channel), number in zip(channels, raw, strict=True):
                yield column, channel.scale * number + channel.offset


class Modbus:
    """Polls one device: all its requests, one after the other, once per slot."""

    def __init__(self, name: str, config: Config, *, clock: Clock) -> None:
        self.channels: Sequence[Channel] = config.declared(name)
        self.skipped = 0
        """Slots in which no poll could begin because the one before took too long."""
        self.faults: dict[str, int] = {}
        """What the device answered instead of values, and how often."""
        self._config = config
        self._clock = clock
        self._period = config.period or NS_PER_S
        sections = list(config.channels.values())
        self._requests = [(request, Layout(request, sections)) for request in plan(sections)]
        self._stage = Stage(len(sections))
        self._link: ModbusLink | None = None
        self._polled: int | None = None
        """The slot of the last poll over this link."""

    async def connect(self) -> None:
        """Open the TCP connection, anew.

        Raises:
            NotConnected: nobody listens there.
        """
        await self.close()
        url = urlsplit(self._config.url)
        assert url.hostname is not None
        self._polled = None
        self._link = ModbusLink(url.hostname, url.port or _PORT, timeout_s=self._config.timeout / NS_PER_S)
        await self._link.open()

    async def read(self) -> Block:
        """Wait for the next slot, poll all of it, and seal it.

        Raises:
            NotConnected: the link is gone, or every request of the poll timed out.
        """
        if self._link is None:
            raise NotConnected("not connected")
        slot = await self._next_slot()
        begin, end = slot * self._period, (slot + 1) * self._period
        self._stage.take()  # what a cancelled poll has left
        # Whatever the answers take, and however exact the timer is, they are of this slot.
        self._stage.begin(min(max(self._clock.now(), begin), end - 1))
        answers = [await self._poll(self._link, *each) for each in self._requests]
        if all(answer.reason is Reason.TIMEOUT for answer in answers):
            raise NotConnected(f"{self._config.url} device {self._config.device_id}: {answers[0].detail}")
        return Block(self._stage.take(), through=end)

    async def _next_slot(self) -> int:
        """Wait until a slot begins that was not polled yet."""
        last = self._polled
        slot = -(-self._clock.now() // self._period)
        if last is not None:
            slot = max(slot, last + 1)
        await self._clock.sleep_until(slot * self._period)
        slot = max(slot, self._clock.now() // self._period)  # the loop may have been busy elsewhere
        if last is not None:
            self.skipped += slot - last - 1
        self._polled = slot
        return slot

    async def _poll(self, link: ModbusLink, request: Request, layout: Layout) -> Answer:
        """Ask once and stage what comes."""
        answer = await link.ask(request.space, request.first, request.count, device_id=self._config.device_id)
        if answer.reason is not Reason.NONE:
            for column in request.columns:
                self._stage.put(column, math.nan, Quality.BAD, answer.reason)
        else:
            for column, value in layout.values(answer.wire):
                if math.isfinite(value):
                    self._stage.put(column, value)
                else:
                    self._stage.put(column, math.nan, Quality.BAD, Reason.TYPE)
        if answer.reason is Reason.DEVICE:
            fault = f"{request}: {answer.detail}"
            self.faults[fault] = self.faults.get(fault, 0) + 1
        return answer

    async def close(self) -> None:
        """Close the connection; safe twice, and without `connect`."""
        link, self._link = self._link, None
        if link is not None:
            link.close()


PLUGIN = Plugin(Config, Modbus)
