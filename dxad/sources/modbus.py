"""Readings over Modbus, polled on the source's grid. Only the four read functions are ever sent.

url = "tcp://host:502"    or rtu+tcp://host:port, rtu:///dev/tty?baudrate=19200&parity=E, ascii:///dev/tty
register = "input:30"     space and address; spaces: coil, discrete, input, holding
encoding = "float32"      bool for the bit spaces; bits, int8 to int64, uint8 to uint64, float16 to float64
order = "ABCD"            of the bytes on the wire: ABCD, BADC, CDAB or DCBA
scale, offset             value = scale * raw + offset

Sources of one url share the line: one question at a time, slaves in turn.
"""

import math
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, Self, cast

import numpy as np
import numpy.typing as npt
from pydantic import Field, field_validator, model_validator

from dxad.errors import ConfigError, NotConnected
from dxad.fields import ChannelSection, Duration, Identifier, SourceSection
from dxad.links.modbus import Answer, ModbusLink, Space, shared
from dxad.links.modbusurl import Address, address_of
from dxad.plugin import Plugin
from dxad.ring.stage import Stage
from dxad.runtime.clock import Clock
from dxad.types import NS_PER_S, Block, Channel, Quality, Reason

__all__ = ["PLUGIN", "Config", "Layout", "Modbus", "ModbusChannel", "Request", "plan"]

Encoding = Literal[
    "bool", "bits", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float16",
    "float32", "float64",
]  # fmt: skip
Order = Literal["ABCD", "BADC", "CDAB", "DCBA"]

_BITS: Final = ("coil", "discrete")
_FORMATS: Final[dict[Encoding, str]] = {
    "bool": "u1", "bits": "u2", "int8": "i1", "uint8": "u1", "int16": "i2", "uint16": "u2", "int32": "i4",
    "uint32": "u4", "int64": "i8", "uint64": "u8", "float16": "f2", "float32": "f4", "float64": "f8",
}  # fmt: skip
_ORDERS: Final[dict[Order, tuple[bool, str]]] = {
    "ABCD": (False, ">"), "BADC": (True, ">"), "CDAB": (True, "<"), "DCBA": (False, "<"),
}  # fmt: skip
"""Whether the two bytes of each register are swapped first, and which end comes first then."""
_REGISTERS_MAX: Final = 125
"""Per request (Modbus Application Protocol V1.1b3, 6.3)."""
_BITS_MAX: Final = 2000
_QUIET_LEAST: Final = NS_PER_S
_CONNECT_S: Final = 3.0
"""A SYN that was lost is sent again after one."""
_WORD: Final = 16
_LOW_BYTES: Final = {"int8", "uint8"}
"""They stand in the low byte of a register."""
_ILLEGAL_ADDRESS: Final = 2
"""An exception code (V1.1b3, 7)."""


class ModbusChannel(ChannelSection):
    """A register, or a few that hold one value."""

    # A field *named* register would shadow ABCMeta.register: pydantic would take that for its default.
    address: str = Field(
        alias="register", pattern=r"^(coil|discrete|input|holding):\d{1,5}$", description="space and address"
    )
    encoding: Encoding | None = Field(None, description="default: bool for coil and discrete, else int16")
    order: Order = Field("ABCD", description="of the bytes on the wire")
    bit: int | None = Field(None, ge=0, lt=_WORD, description="of bits: the lowest; 0 is the register's last")
    width: int = Field(1, ge=1, le=_WORD, description="of bits: how many, from `bit` upwards")
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
        if bit != (self.encoding in {"bool", None} if bit else self.encoding == "bool"):
            raise ValueError(f"{self.address} cannot hold {self.encoding}; bool is for coil and discrete")
        if (self.encoding == "bits") != (self.bit is not None) or (self.bit is None and self.width != 1):
            raise ValueError('bit and width go with encoding = "bits", which wants a bit')
        if self.bit is not None and self.bit + self.width > _WORD:
            raise ValueError(f"{self.width} bits from bit {self.bit} end beyond the register")
        if bit and (self.order, self.scale, self.offset) != ("ABCD", 1.0, 0.0):
            raise ValueError(f"{self.address} is a bit: it has no order, scale or offset")
        if self.first + self.count > 65_536:
            raise ValueError(f"{self.address} as {self.encoding} ends beyond 65535")
        return self


class Config(SourceSection):
    """`type = "modbus"`, `url = "tcp://10.0.0.5:502"`, `device_id = 1`."""

    polled = True

    type: Literal["modbus"]
    url: str = Field(
        description="tcp://host:port, rtu+tcp://host:port, rtu:///dev/tty?baudrate=19200&parity=E, ascii:///dev/tty"
    )
    device_id: int = Field(1, ge=0, le=255, description="the unit identifier")
    timeout: Duration = Field(NS_PER_S // 2, gt=0, description="how long a device may take to answer")
    delay: Duration = Field(0, description="rest of the line between an answer and the next question")
    quiet: Duration | None = Field(
        None,
        description="rest of an RTU or ASCII line after a silence, so that a late answer is taken for no "
        "other; default: the timeout, 1s at least",
    )
    block: int = Field(
        _REGISTERS_MAX, ge=1, le=_REGISTERS_MAX, description="registers in one question at most"
    )
    hole: int = Field(
        8, ge=0, le=_REGISTERS_MAX, description="registers that nobody wants, read along to save a question"
    )
    retry: Duration = Field(
        3600 * NS_PER_S, gt=0, description="how often an address that the device calls illegal is tried again"
    )
    channels: dict[Identifier, ModbusChannel] = Field({}, description="by name")

    @field_validator("url")
    @classmethod
    def _address(cls, url: str) -> str:
        address_of(url)
        return url

    @property
    def place(self) -> Address:
        """The line."""
        return address_of(self.url)

    @model_validator(mode="after")
    def _possible_blocks(self) -> Self:
        for name, channel in self.channels.items():
            if channel.space not in _BITS and channel.count > self.block:
                raise ValueError(
                    f"channels.{name}: {channel.count} registers do not fit into block = {self.block}"
                )
        return self

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


def plan(
    channels: Sequence[ModbusChannel],
    columns: Iterable[int] | None = None,
    *,
    block: int = _REGISTERS_MAX,
    hole: int = 8,
    avoid: Container[tuple[Space, int]] = (),
) -> list[Request]:
    """As few reads as the limits and small holes allow.

    Args:
        channels: all of them.
        columns: those to read; default: all.
        block: registers in one read at most; bits may be 16 times as many.
        hole: addresses that nobody wants, read along.
        avoid: addresses that must not be read along.
    """
    requests: list[Request] = []
    chosen = range(len(channels)) if columns is None else columns
    for column in sorted(chosen, key=lambda at: (channels[at].space, channels[at].first)):
        channel = channels[column]
        end = channel.first + channel.count
        last = requests[-1] if requests else None
        most = min(_BITS_MAX, _WORD * block) if channel.space in _BITS else block
        if (
            last is not None
            and last.space == channel.space
            and channel.first - (last.first + last.count) <= hole
            and end - last.first <= most
            and not any((last.space, at) in avoid for at in range(last.first + last.count, channel.first))
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
                "offsets": [
                    width * (channel.first - request.first)
                    + (channel.encoding in _LOW_BYTES and _ORDERS[channel.order][1] == ">")
                    for _, channel in mine
                ],
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
                if channel.bit is not None:
                    number = number >> channel.bit & ((1 << channel.width) - 1)  # noqa: PLW2901
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
        self._sections = list(config.channels.values())
        self._illegal: set[int] = set()
        """Columns whose address the device does not have."""
        self._avoid: set[tuple[Space, int]] = set()
        """Addresses that it does not have, and nobody wants."""
        self._block = config.block
        self._retry_at = 0
        self._requests: list[tuple[Request, Layout]] = []
        self._plan()
        self._stage = Stage(len(self._sections))
        self._link: ModbusLink | None = None
        self._polled: int | None = None
        """The slot of the last poll over this link."""

    def _plan(self) -> None:
        """Ask for everything that the device is not known to lack."""
        wanted = [column for column in range(len(self._sections)) if column not in self._illegal]
        requests = plan(self._sections, wanted, block=self._block, hole=self._config.hole, avoid=self._avoid)
        self._requests = [(request, Layout(request, self._sections)) for request in requests]

    async def connect(self) -> None:
        """Have the line open, which other sources may share.

        Raises:
            NotConnected: nobody listens there, or the terminal is not there.
            ConfigError: another source uses the line in another way.
        """
        await self.close()
        config = self._config
        self._polled = None
        quiet = max(config.timeout, _QUIET_LEAST) if config.quiet is None else config.quiet
        link = shared(config.place, delay_s=config.delay / NS_PER_S, quiet_s=quiet / NS_PER_S)
        self._link = link
        try:
            await link.open(max(_CONNECT_S, config.timeout / NS_PER_S))
        except (ConfigError, NotConnected):
            await self.close()
            raise

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
        now = self._clock.now()
        # Whatever the answers take, and however exact the timer is, they are of this slot.
        self._stage.begin(min(max(now, begin), end - 1))
        if (self._illegal or self._avoid or self._block < self._config.block) and now >= self._retry_at:
            self._illegal, self._avoid, self._block = set(), set(), self._config.block
            self._plan()
        self._give_up(self._illegal)
        answers = [await self._poll(self._link, *each) for each in tuple(self._requests)]
        if answers and all(answer.silent for answer in answers):
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
        """Ask once and stage what comes; a block with an illegal address is taken apart."""
        answer = await self._ask(link, request)
        if answer.code == _ILLEGAL_ADDRESS:
            await self._take_apart(link, request)
            self._retry_at = self._clock.now() + self._config.retry
            self._plan()
        elif answer.reason is not Reason.NONE:
            self._give_up(request.columns, answer.reason)
        else:
            self._put(request, layout, answer)
        return answer

    async def _ask(self, link: ModbusLink, request: Request) -> Answer:
        config = self._config
        answer = await link.ask(
            request.space,
            request.first,
            request.count,
            device_id=config.device_id,
            timeout_s=config.timeout / NS_PER_S,
            more=config.hole,
        )
        if answer.reason is not Reason.NONE and not answer.silent:
            fault = f"{request}: {answer.detail}"
            self.faults[fault] = self.faults.get(fault, 0) + 1
        return answer

    async def _take_apart(self, link: ModbusLink, request: Request) -> bool:
        """Find out by halves which address is not there; returns whether any half was refused so, too.

        Where both halves are answered, what lies between them is not there, or the device takes no block as
        long as the whole.
        """
        if len(request.columns) == 1:
            self._illegal.update(request.columns)
            self._give_up(request.columns)
            return True
        middle = len(request.columns) // 2
        halves = [
            plan(self._sections, columns, block=_REGISTERS_MAX, hole=_REGISTERS_MAX)[0]
            for columns in (request.columns[:middle], request.columns[middle:])
        ]
        refused = False
        for half in halves:
            answer = await self._ask(link, half)
            if answer.code == _ILLEGAL_ADDRESS:
                refused = await self._take_apart(link, half) or refused
            elif answer.reason is not Reason.NONE:
                self._give_up(half.columns, answer.reason)
            else:
                self._put(half, Layout(half, self._sections), answer)
        if not refused:
            between = range(halves[0].first + halves[0].count, halves[1].first)
            if between:
                self._avoid.update((request.space, at) for at in between)
            else:
                self._block = max(1, *(half.count for half in halves))
        return True

    def _give_up(self, columns: Iterable[int], reason: Reason = Reason.MODBUS_ILLEGAL_ADDRESS) -> None:
        for column in columns:
            self._stage.put(column, math.nan, Quality.BAD, reason)

    def _put(self, request: Request, layout: Layout, answer: Answer) -> None:
        wire = answer.wire
        if request.space in _BITS:
            wire = np.unpackbits(np.frombuffer(wire, "u1"), bitorder="little")[: request.count].tobytes()
        for column, value in layout.values(wire):
            if math.isfinite(value):
                self._stage.put(column, value)
            else:
                self._stage.put(column, math.nan, Quality.BAD, Reason.TYPE)

    async def close(self) -> None:
        """Let go of the line; safe twice, and without `connect`."""
        link, self._link = self._link, None
        if link is not None:
            link.close()


PLUGIN = Plugin(Config, Modbus)
