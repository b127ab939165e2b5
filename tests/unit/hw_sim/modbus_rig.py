"""A panel whose sensors show what a test says, a Modbus wire on it, and a client of bare bytes."""

import asyncio
import os
import tty
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from hw_sim.bench import Bench, Rig
from hw_sim.catalogue import Known, make
from hw_sim.fault import Fault
from hw_sim.modbus.section import Settings
from hw_sim.modbus.wire import ModbusWire, build
from hw_sim.plant import HEALTHY, Channel, Stress
from tests.patience import PATIENCE_S
from tests.unit.hw_sim.rig import plugged

QUIET_S = 0.025


class Panel:
    """Shows what it is told."""

    step_s = 0.1
    shows: Mapping[str, tuple[str, ...]] = {}

    def __init__(self, values: Mapping[str, float]) -> None:
        self.channels = {name: Channel("") for name in values}
        self.values = dict(values)

    def step(self, stress: Stress = HEALTHY) -> dict[str, float]:
        return dict(self.values)


class Wired(ModbusWire):
    """A wire, the panel that it shows, and what may break of it."""

    panel: Panel
    known: Known

    def show(self, **values: float) -> None:
        """Make a step after which the sensors show this."""
        self.panel.values.update({name.replace("_", "."): value for name, value in values.items()})
        self.bench.step()
        self.step()

    def broken(self, name: str, **parameters: str) -> Fault:
        """A fault as the timeline would make it."""
        return make(name, 0.0, None, parameters, self.known)


def wire_of(values: Mapping[str, float], /, *, seed: int = 1, **section: Any) -> Wired:
    """A wire named bus that has not started."""
    settings = Settings.model_validate({"type": "modbus", **section})
    panel = Panel(values)
    bench = Bench([Rig("panel", panel)], seed=seed)
    wire = Wired("bus", settings, bench)
    assert type(build("bus", settings, bench)) is ModbusWire
    wire.panel = panel
    devices = {name: tuple(fields.values()) for name, fields in settings.fields.items()}
    wire.known = Known(panel.channels, {"panel": {}}, devices, {"bus": ("modbus", tuple(devices))})
    return wire


@asynccontextmanager
async def serving(values: Mapping[str, float], /, **section: Any) -> AsyncIterator[Wired]:
    """A wire that is up."""
    async with plugged(wire_of(values, **section)) as wire:
        assert isinstance(wire, Wired)
        yield wire


def checksum(framing: str, data: bytes) -> bytes:
    """Of RTU or ASCII, bit by bit as the specification has it."""
    if framing == "ascii":
        return bytes((-sum(data) % 256,))
    crc = 0xFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc, carry = crc >> 1, crc & 1
            crc ^= 0xA001 * carry
    return crc.to_bytes(2, "little")


def framed(framing: str, unit: int, pdu: bytes, transaction: int = 0) -> bytes:
    """A request or an answer as it stands on the wire."""
    if framing == "tcp":
        return transaction.to_bytes(2) + bytes(2) + (len(pdu) + 1).to_bytes(2) + bytes((unit,)) + pdu
    data = bytes((unit,)) + pdu
    data += checksum(framing, data)
    return b":" + data.hex().upper().encode() + b"\r\n" if framing == "ascii" else data


async def until(condition: Callable[[], object]) -> None:
    """Wait until it holds."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110 - what is waited for sets no event
            await asyncio.sleep(0.001)


class Client:
    """The far end of a wire, which sends and takes bare bytes."""

    def __init__(self, framing: str) -> None:
        self.framing = framing
        self.closed = asyncio.Event()
        self.arrivals: list[tuple[float, bytes]] = []
        """When what came."""
        self._came = asyncio.Event()
        self._transport: asyncio.Transport | None = None
        self._end: int | None = None

    async def open(self, endpoint: str) -> None:
        loop = asyncio.get_running_loop()
        if endpoint.startswith("tcp://"):
            host, port = endpoint.removeprefix("tcp://").split(":")
            client = self

            class Protocol(asyncio.Protocol):
                def data_received(self, data: bytes) -> None:
                    client._take(data)

                def connection_lost(self, exc: Exception | None) -> None:
                    client.closed.set()

            self._transport, _ = await loop.create_connection(Protocol, host, int(port))
            return
        self._end = os.open(endpoint, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
        tty.setraw(self._end)
        loop.add_reader(self._end, self._readable)

    def _readable(self) -> None:
        assert self._end is not None
        try:
            data = os.read(self._end, 65_536)
        except OSError:
            data = b""
        if data:
            self._take(data)
        else:
            self.closed.set()
            asyncio.get_running_loop().remove_reader(self._end)

    def _take(self, data: bytes) -> None:
        self.arrivals.append((asyncio.get_running_loop().time(), data))
        self._came.set()

    async def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()
            await self.closed.wait()
            await asyncio.sleep(0)
        if self._end is not None:
            asyncio.get_running_loop().remove_reader(self._end)
            os.close(self._end)
            self._end = None

    def send(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)
        elif self._end is not None:
            assert os.write(self._end, data) == len(data)

    async def receive(self, *, length: int | None = None, quiet_s: float = QUIET_S) -> bytes:
        """What comes, until it is that long, or nothing more comes for a while."""
        data = b""
        while length is None or len(data) < length:
            if not self.arrivals:
                self._came.clear()
                try:
                    await asyncio.wait_for(self._came.wait(), 1.0 if length else quiet_s)
                except TimeoutError:
                    break
            data += b"".join(each for _, each in self.arrivals)
            self.arrivals.clear()
        return data

    async def ask(
        self, pdu: bytes, *, unit: int = 1, transaction: int = 0x107, length: int | None = None
    ) -> bytes:
        """All bytes that come for a request."""
        self.arrivals.clear()
        self.send(framed(self.framing, unit, pdu, transaction))
        return await self.receive(length=length)

    async def gets(self, pdu: bytes, answer: bytes, *, unit: int = 1, transaction: int = 0x107) -> None:
        """It is answered so, and nothing else comes with it."""
        wanted = framed(self.framing, unit, answer, transaction)
        assert await self.ask(pdu, unit=unit, transaction=transaction, length=len(wanted)) == wanted
        assert not self.arrivals


@asynccontextmanager
async def client_of(wire: ModbusWire) -> AsyncIterator[Client]:
    """A client of whatever stands on the wire."""
    client = Client(wire._settings.framing)
    await client.open(next(iter(wire.endpoints.values())))
    try:
        yield client
    finally:
        await client.close()


def place_of(kind: str, folder: Path) -> dict[str, Any]:
    """The keys of a wire: `tcp`, `rtu` or `ascii` over a port, or with `tty` behind it, over a terminal."""
    framing, _, terminal = kind.partition(" ")
    return {"framing": framing, **({"link": folder / "bus"} if terminal else {"port": 0})}


KINDS = ("tcp", "rtu", "ascii", "rtu tty", "ascii tty")
