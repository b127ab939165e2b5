"""Readings over Modbus TCP, polled on the source's grid. Only the four read functions are ever sent.

register = "input:30"     space and address; spaces: coil, discrete, input, holding
encoding = "float32"      bool for the bit spaces; int16, uint16, int32, uint32, float32, float64
order = "ABCD"            of the bytes on the wire: ABCD, BADC, CDAB or DCBA
scale, offset             value = scale * raw + offset
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, Self
from urllib.parse import urlsplit

import numpy as np
from pydantic import Field, field_validator, model_validator
from pymodbus.client import AsyncModbusTcpClient
from pymodbus.exceptions import ConnectionException, ModbusException

from dxad.errors import NotConnected
from dxad.fields import ChannelSection, Duration, Identifier, SourceSection
from dxad.plugin import Plugin
from dxad.runtime.clock import Clock
from dxad.stage import Stage
from dxad.types import NS_PER_S, Block, Channel, Quality, Reason

__all__ = ["PLUGIN", "Config", "Modbus", "ModbusChannel", "Request", "plan"]

_PORT: Final = 502
_BITS: Final = ("coil", "discrete")
_WORDS: Final = {"bool": 1, "int16": 1, "uint16": 1, "int32": 2, "uint32": 2, "float32": 2, "float64": 4}
_DTYPES: Final = {
    "int16": ">i2", "uint16": ">u2", "int32": ">i4", "uint32": ">u4", "float32": ">f4", "float64": ">f8",
}  # fmt: skip
_REGISTERS_MAX: Final = 125
"""Per request (Modbus Application Protocol V1.1b3, 6.3)."""
_BITS_MAX: Final = 2000
_HOLE_MAX: Final = 8
"""Registers that nobody wants are read along when that saves a request."""


class ModbusChannel(ChannelSection):
    """A register, or a few that hold one value."""

    address: str = Field(
        alias="register", pattern=r"^(coil|discrete|input|holding):\d{1,5}$", description="space and address"
    )
    encoding: Literal["bool", "int16", "uint16", "int32", "uint32", "float32", "float64"] = "int16"
    order: Literal["ABCD", "BADC", "CDAB", "DCBA"] = "ABCD"
    scale: float = Field(1.0, strict=False)
    offset: float = Field(0.0, strict=False)

    @property
    def space(self) -> str:
        """Which of the four tables it is in."""
        return self.address.partition(":")[0]

    @property
    def first(self) -> int:
        """Its first register."""
        return int(self.address.partition(":")[2])

    @property
    def words(self) -> int:
        """How many registers, or bits, it takes."""
        return _WORDS[self.encoding]

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if (self.space in _BITS) != (self.encoding == "bool"):
            raise ValueError(f"{self.address} cannot hold {self.encoding}; bool is for coil and discrete")
        if self.first + self.words > 65_536:
            raise ValueError(f"{self.address} as {self.encoding} ends beyond register 65535")
        return self


class Config(SourceSection):
    """`type = "modbus"`, `url = "tcp://10.0.0.5:502"`, `device_id = 1`."""

    polled = True

    type: Literal["modbus"]
    url: str = Field(description="tcp://host:port")
    device_id: int = Field(1, ge=0, le=255)
    timeout: Duration = Field(NS_PER_S // 2, description="how long a device may take to answer")
    channels: dict[Identifier, ModbusChannel] = Field({}, description="by name")

    @field_validator("url")
    @classmethod
    def _address(cls, url: str) -> str:
        split = urlsplit(url)
        if split.scheme != "tcp" or not split.hostname:
            raise ValueError(f"{url!r} is not tcp://host:port")
        return url

    def channel_sections(self) -> Mapping[str, ChannelSection]:
        """All channels, by name."""
        return self.channels


@dataclass(frozen=True, slots=True)
class Request:
    """One read of consecutive registers or bits."""

    space: str
    first: int
    count: int
    columns: tuple[int, ...]
    """The channels it serves."""


def plan(channels: Sequence[ModbusChannel]) -> list[Request]:
    """As few reads as the protocol's limits and small holes allow."""
    requests: list[Request] = []
    wanted = sorted(range(len(channels)), key=lambda at: (channels[at].space, channels[at].first))
    for column in wanted:
        channel = channels[column]
        end = channel.first + channel.words
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
            requests.append(Request(channel.space, channel.first, channel.words, (column,)))
    return requests


class Modbus:
    """Polls one device: all its requests, one after the other, once per slot."""

    def __init__(self, name: str, config: Config, *, clock: Clock) -> None:
        self.channels: Sequence[Channel] = config.declared(name)
        self.skipped = 0
        """Polls that could not begin in their slot because the one before took too long."""
        self.exceptions: dict[str, int] = {}
        """Answers that were Modbus exceptions, by request and code."""
        self._config = config
        self._clock = clock
        self._sections = list(config.channels.values())
        self._requests = plan(self._sections)
        self._stage = Stage(2 * len(self._sections))
        self._client: AsyncModbusTcpClient | None = None
        self._last = 0

    async def connect(self) -> None:
        """Open the TCP connection, with a fresh client.

        Raises:
            NotConnected: nobody listens there.
        """
        await self.close()
        # It logs whole frames at ERROR for what is also raised.
        logging.getLogger("pymodbus").setLevel(logging.CRITICAL + 1)
        url = urlsplit(self._config.url)
        assert url.hostname is not None
        client = AsyncModbusTcpClient(
            url.hostname,
            port=url.port or _PORT,
            timeout=self._config.timeout / NS_PER_S,
            retries=0,
            reconnect_delay=0,
        )
        self._client = client
        if not await client.connect():
            raise NotConnected(f"{self._config.url}: nobody answers there")

    async def read(self) -> Block:
        """Wait for the next slot, poll all of it, and seal it.

        Raises:
            NotConnected: the link is gone, or every request of the poll timed out.
        """
        period = self._config.period or NS_PER_S
        slot = max(self._clock.now() // period, self._last + 1)
        await self._clock.sleep_until(slot * period)
        begun = self._clock.now() // period
        if self._last and begun - self._last > 1:
            self.skipped += begun - self._last - 1
        self._last = begun
        self._stage.begin(self._clock.now())
        # Whatever the answers take, they are of the slot in which they were asked.
        timeouts = [await self._request(request) for request in self._requests]
        if all(timeouts):
            self._stage.take()
            raise NotConnected(
                f"{self._config.url} device {self._config.device_id}: "
                f"no answer within {self._config.timeout / NS_PER_S:g} s"
            )
        return Block(self._stage.take(), through=(begun + 1) * period)

    async def _request(self, request: Request) -> bool:
        """Ask once and stage what comes; True when nothing came in time."""
        if self._client is None:
            raise NotConnected("read before connect")
        ask = {
            "coil": self._client.read_coils,
            "discrete": self._client.read_discrete_inputs,
            "input": self._client.read_input_registers,
            "holding": self._client.read_holding_registers,
        }[request.space]
        try:
            answer = await ask(request.first, count=request.count, device_id=self._config.device_id)
        except ConnectionException as error:
            raise NotConnected(f"{self._config.url}: the connection is gone") from error
        except ModbusException as error:  # no answer in time, or one that is none
            if not self._client.connected:
                raise NotConnected(f"{self._config.url}: the connection is gone") from error
            self._bad(request, Reason.TIMEOUT)
            return True
        if answer.isError():
            key = f"{request.space}:{request.first}+{request.count} exception {answer.exception_code}"
            self.exceptions[key] = self.exceptions.get(key, 0) + 1
            self._bad(request, Reason.DEVICE)
        else:
            self._good(request, answer)
        return False

    def _bad(self, request: Request, reason: Reason) -> None:
        for column in request.columns:
            self._stage.put(column, float("nan"), Quality.BAD, reason)

    def _good(self, request: Request, answer: Any) -> None:
        if request.space in _BITS:
            for column in request.columns:
                self._stage.put(column, float(answer.bits[self._sections[column].first - request.first]))
            return
        if len(answer.registers) != request.count:
            self._bad(request, Reason.DEVICE)
            return
        wire = np.array(answer.registers, dtype=">u2").tobytes()
        for column, value in self._decoded(request, wire):
            if np.isfinite(value):
                self._stage.put(column, value)
            else:
                self._stage.put(column, float("nan"), Quality.BAD, Reason.TYPE)

    def _decoded(self, request: Request, wire: bytes) -> Iterator[tuple[int, float]]:
        for column in request.columns:
            section = self._sections[column]
            at = 2 * (section.first - request.first)
            raw = _ordered(wire[at : at + 2 * section.words], section.order)
            number = float(np.frombuffer(raw, dtype=_DTYPES[section.encoding])[0])
            yield column, section.scale * number + section.offset

    async def close(self) -> None:
        """Close the connection; safe twice, and without `connect`."""
        client, self._client = self._client, None
        if client is not None:
            client.close()


def _ordered(raw: bytes, order: str) -> bytes:
    """The bytes of one value in big-endian order; the letters name those of a pair of registers."""
    pairs = [raw[at : at + 2] for at in range(0, len(raw), 2)]
    if order in ("CDAB", "DCBA"):
        pairs.reverse()
    if order in ("BADC", "DCBA"):
        pairs = [pair[::-1] for pair in pairs]
    return b"".join(pairs)


PLUGIN = Plugin(Config, Modbus)
