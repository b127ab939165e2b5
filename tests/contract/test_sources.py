"""What every source keeps to; a source of a new type needs a rig here, and nothing else."""

import asyncio
import contextlib
import json
import math
import os
import re
import sqlite3
import struct
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, ClassVar

import fastcrc
import pytest
from cobs import cobs
from pydantic import ValidationError
from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

from dxad import plugin
from dxad.errors import NotConnected
from dxad.fields import SourceSection
from dxad.runtime.clock import SystemClock
from dxad.types import Quality, Reason, Source
from hw_sim.mqtt.broker import Broker
from hw_sim.ports import free_port
from tests.peers import NAMESPACE, OpcuaPeer, Pty, Relay, listening, publish

BOUND_S = 6.0
"""In so long, a source has noticed whatever there is to notice."""


class Rig:
    """The far side of one type of source: a device with the channels `a` and `b`."""

    config: ClassVar[dict[str, Any]]
    """A configuration with what has no default, beside `type`."""
    a: ClassVar[dict[str, Any]] = {}
    b: ClassVar[dict[str, Any]] = {}
    """What the channels say beyond their names."""
    source: Any

    def __init__(self, tmp_path: Path, _request: pytest.FixtureRequest) -> None:
        self.tmp_path = tmp_path
        self.port = free_port()

    def settings(self) -> dict[str, Any]:
        """The configuration that leads to this rig."""
        return self.config

    @property
    def address(self) -> str:
        """How an error tells where the device is."""
        return f"127.0.0.1:{self.port}"

    async def up(self) -> None:
        """Be there."""

    async def down(self) -> None:
        """Be gone; safe twice."""

    async def show(self, a: float, b: float) -> None:
        """Let the device read these; not a number where its sensor is broken."""
        raise NotImplementedError


class MqttRig(Rig):
    config: ClassVar = {"url": "mqtt://127.0.0.1:1", "topic": "rig"}
    broker: Broker | None = None

    def settings(self) -> dict[str, Any]:
        return {"url": f"mqtt://127.0.0.1:{self.port}", "topic": "rig"}

    async def up(self) -> None:
        self.broker = Broker(mqtt5_port=self.port, mqtt311_port=free_port())
        self.broker.__enter__()
        while True:
            try:
                await publish(self.port, "rig/ready", b"")
            except OSError:
                await asyncio.sleep(0.02)
            else:
                return

    async def down(self) -> None:
        broker, self.broker = self.broker, None
        if broker is not None:
            broker.__exit__(None, None, None)

    async def show(self, a: float, b: float) -> None:
        values = {"a": None if math.isnan(a) else a, "b": None if math.isnan(b) else b}
        await publish(self.port, "rig", json.dumps(values).encode())


class OlderMqttRig(MqttRig):
    """A broker of 3.1.1 alone, which the source has to find out; channels have topics of their own."""

    config: ClassVar = {
        "url": "mqtt://127.0.0.1:1", "topic": "rig/{channel}", "decode": {"kind": "number"}, "qos": 2,
    }  # fmt: skip

    def settings(self) -> dict[str, Any]:
        return {**self.config, "url": f"mqtt://127.0.0.1:{self.port}"}

    async def up(self) -> None:
        self.newer = free_port()
        self.broker = Broker(mqtt5_port=self.newer, mqtt311_port=self.port)
        self.broker.__enter__()
        for port in (self.newer, self.port):
            while True:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                except OSError:
                    await asyncio.sleep(0.02)
                else:
                    writer.transport.abort()
                    break

    async def show(self, a: float, b: float) -> None:
        for name, value in (("a", a), ("b", b)):
            await publish(self.newer, f"rig/{name}", b"" if math.isnan(value) else str(value).encode(), qos=2)


class ModbusRig(Rig):
    config: ClassVar = {"url": "tcp://127.0.0.1:1", "period": "20ms"}
    a: ClassVar = {"register": "input:30", "encoding": "float32"}
    b: ClassVar = {"register": "holding:4", "encoding": "float32"}
    server: ModbusTcpServer | None = None
    values: bytes = bytes(8)

    def settings(self) -> dict[str, Any]:
        return {"url": f"tcp://127.0.0.1:{self.port}", "period": "20ms"}

    async def answer(
        self, function: int, start: int, _address: int, _count: int, registers: list[int], _set: Any
    ):
        at = 30 if function == 4 else 4
        registers[at - start : at - start + 2] = struct.unpack(">4H", self.values)[(function != 4) * 2 :][:2]

    async def up(self) -> None:
        bits = [SimData(0, values=[False] * 16, datatype=DataType.BITS)]
        words = [SimData(0, values=[0] * 64, datatype=DataType.REGISTERS)]
        device = SimDevice(id=1, action=self.answer, simdata=(bits, bits, words, list(words)))
        self.server = ModbusTcpServer([device], address=("127.0.0.1", self.port))
        await self.server.serve_forever(background=True)

    async def down(self) -> None:
        server, self.server = self.server, None
        if server is not None:
            await server.shutdown()

    async def show(self, a: float, b: float) -> None:
        self.values = struct.pack(">ff", a, b)


class OpcuaRig(Rig):
    config: ClassVar = {"url": "opc.tcp://127.0.0.1:1/", "namespace": NAMESPACE, "publish_interval": "20ms"}
    a: ClassVar = {"node": "s=a"}
    b: ClassVar = {"node": f"nsu={NAMESPACE};s=b"}

    def __init__(self, tmp_path: Path, request: pytest.FixtureRequest) -> None:
        super().__init__(tmp_path, request)
        self.peer: OpcuaPeer = request.getfixturevalue("opcua_peer")
        self.cable = AsyncExitStack()

    def settings(self) -> dict[str, Any]:
        return {**self.config, "url": f"opc.tcp://127.0.0.1:{self.port}/test"}

    async def up(self) -> None:
        await self.cable.enter_async_context(listening(Relay(self.peer.port).serve, self.port))

    async def down(self) -> None:
        await self.cable.aclose()

    async def show(self, a: float, b: float) -> None:
        self.peer.write(a=float(a), b=float(b))


class SerialRig(Rig):
    config: ClassVar = {"port": "/dev/null", "decode": {"kind": "csv", "columns": ["a", "b"]}}

    def __init__(self, tmp_path: Path, request: pytest.FixtureRequest) -> None:
        super().__init__(tmp_path, request)
        self.device = Pty(tmp_path / "tty")

    def settings(self) -> dict[str, Any]:
        return {**self.config, "port": str(self.device.link)}

    @property
    def address(self) -> str:
        return str(self.device.link)

    async def up(self) -> None:
        self.device.plug()

    async def down(self) -> None:
        self.device.unplug()

    async def show(self, a: float, b: float) -> None:
        line = ",".join("" if math.isnan(value) else f"{value!r}" for value in (a, b))
        self.device.send(f"\r\n{line}\r\n".encode())


class PacketRig(SerialRig):
    """A device that speaks in binary packets."""

    config: ClassVar = {
        "port": "/dev/null",
        "framing": {"kind": "cobs"},
        "checksum": "crc16-ccitt",
        "decode": {"kind": "binary", "format": ">dd", "fields": ["a", "b"]},
    }

    async def show(self, a: float, b: float) -> None:
        payload = struct.pack(">dd", a, b)
        self.device.send(b"\0" + cobs.encode(payload + fastcrc.crc16.ibm_3740(payload).to_bytes(2)) + b"\0")


class AskedRig(SerialRig):
    """An instrument that speaks only when it is asked."""

    config: ClassVar = {
        "port": "/dev/null", "period": "20ms", "timeout": "100ms", "quiet": "10ms", "query": "READ?\r\n",
        "decode": {"kind": "csv", "columns": ["a", "b"]},
    }  # fmt: skip
    reads: bytes = b"0,0\r\n"

    async def up(self) -> None:
        self.device.plug()
        self.device.answering(lambda _: self.reads)

    async def show(self, a: float, b: float) -> None:
        self.reads = ",".join("" if math.isnan(each) else f"{each!r}" for each in (a, b)).encode() + b"\r\n"


class MemoryRig(Rig):
    config: ClassVar = {}

    async def show(self, a: float, b: float) -> None:
        self.source.push({"a": a, "b": b})


class SqlRig(Rig):
    config: ClassVar = {
        "url": "sqlite:///nowhere.db", "query": "SELECT id, a, b FROM rig", "cursor": "id", "period": "20ms",
    }  # fmt: skip

    @property
    def address(self) -> str:
        return str(self.tmp_path / "rig.db")

    def settings(self) -> dict[str, Any]:
        return {**self.config, "url": f"sqlite://{self.address}"}

    async def up(self) -> None:
        with contextlib.closing(sqlite3.connect(self.address)) as database:
            database.execute("CREATE TABLE rig (id INTEGER PRIMARY KEY AUTOINCREMENT, a, b)")

    async def down(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.remove(self.address)  # noqa: PTH107 - not of pathlib, which is told apart in coroutines

    async def show(self, a: float, b: float) -> None:
        values = [None if math.isnan(each) else each for each in (a, b)]
        with contextlib.closing(sqlite3.connect(self.address)) as database, database:
            database.execute("INSERT INTO rig (a, b) VALUES (?, ?)", values)


class ReplayRig(Rig):
    """A file that is played again and again; what is shown is what stands there at the next round."""

    config: ClassVar = {"path": "/nowhere.csv", "period": "20ms", "loop": True}

    @property
    def address(self) -> str:
        return str(self.tmp_path / "rig.csv")

    def settings(self) -> dict[str, Any]:
        return {**self.config, "path": self.address}

    async def up(self) -> None:
        await self.show(0.0, 0.0)

    async def down(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.remove(self.address)  # noqa: PTH107 - not of pathlib, which is told apart in coroutines

    async def show(self, a: float, b: float) -> None:
        cells = ["none at all" if math.isnan(each) else repr(each) for each in (a, b)]
        new = f"{self.address}.new"
        with open(new, "w") as file:  # noqa: ASYNC230, PTH123 - a line
            file.write(f"time,a,b\n2026-03-01T12:00:00Z,{','.join(cells)}\n")
        os.replace(new, self.address)  # noqa: PTH105


RIGS: dict[str, type[Rig]] = {  # by type, and what of it is another thing
    "memory": MemoryRig,
    "modbus": ModbusRig,
    "mqtt": MqttRig,
    "mqtt, older": OlderMqttRig,
    "opcua": OpcuaRig,
    "replay": ReplayRig,
    "serial": SerialRig,
    "serial, asked": AskedRig,
    "serial, packets": PacketRig,
    "sql": SqlRig,
}

remote = pytest.mark.parametrize("kind", sorted(RIGS.keys() - {"memory"}), indirect=True)
"""For what needs a far side that can be gone."""


def test_every_source_has_a_rig():
    assert set(plugin.names("sources")) == {type_of(kind) for kind in RIGS}


@pytest.fixture(params=sorted(RIGS))
def kind(request) -> str:
    return request.param


@pytest.fixture
def rig(kind, tmp_path, request) -> Rig:
    return RIGS[kind](tmp_path, request)


@pytest.fixture(scope="session")
def opcua_peer():
    with OpcuaPeer() as peer:
        yield peer


def type_of(kind: str) -> str:
    return kind.partition(",")[0]


def document(kind: str, rig: Rig, settings: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": type_of(kind), "channels": {"a": rig.a, "b": rig.b}, **settings}


def build(kind: str, rig: Rig) -> Source:
    found = plugin.load("sources", type_of(kind))
    config = found.config.model_validate(document(kind, rig, rig.settings()))
    rig.source = found.build("dev", config, clock=SystemClock())
    return rig.source


@asynccontextmanager
async def far_side(rig: Rig) -> AsyncIterator[None]:
    await rig.up()
    try:
        yield
    finally:
        await rig.down()


@asynccontextmanager
async def closing(source: Source) -> AsyncIterator[Source]:
    try:
        yield source
    finally:
        await source.close()


async def shown(rig: Rig, source: Source, a: float, b: float) -> dict[int, tuple[Quality, Reason]]:
    """Show these until both arrive, as a broken sensor or as the number; what the source thinks of each."""

    def is_there(wanted: float, value: float) -> bool:
        return math.isnan(value) if math.isnan(wanted) else value == wanted

    found: dict[int, tuple[Quality, Reason]] = {}
    async with asyncio.timeout(BOUND_S):
        while len(found) < 2:
            await rig.show(a, b)
            for sample in (await source.read()).samples:
                if is_there((a, b)[sample["column"]], sample["value"]):
                    found[int(sample["column"])] = Quality(sample["quality"]), Reason(sample["reason"])
    return found


async def until_gone(source: Source) -> None:
    """Read until the source says that its link is gone."""
    async with asyncio.timeout(BOUND_S):
        while True:
            await source.read()


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


GOOD = (Quality.GOOD, Reason.NONE)


class TestConfig:
    def test_is_a_frozen_section_that_declares_its_channels(self, kind, rig):
        config = plugin.load("sources", type_of(kind)).config.model_validate(document(kind, rig, rig.config))
        assert isinstance(config, SourceSection)
        assert [each.id for each in config.declared("dev")] == ["dev.a", "dev.b"]
        with pytest.raises(ValidationError):
            config.period = 7

    def test_refuses_a_key_it_does_not_know(self, kind, rig):
        with pytest.raises(ValidationError, match="unknown key"):
            plugin.load("sources", type_of(kind)).config.model_validate(
                document(kind, rig, {**rig.config, "unheard_of": 1})
            )

    def test_gives_channels_units_and_ranges(self, kind, rig):
        raw = document(kind, rig, rig.config)
        raw["channels"] = {"a": {**rig.a, "unit": "bar", "range": [0, 16]}, "b": rig.b}
        first, _ = plugin.load("sources", type_of(kind)).config.model_validate(raw).declared("dev")
        assert (first.unit, first.range) == ("bar", (0.0, 16.0))


def test_has_its_channels_before_it_connects(kind, rig):
    assert [each.id for each in build(kind, rig).channels] == ["dev.a", "dev.b"]


async def test_close_is_safe_twice_and_without_connect(kind, rig):
    source = build(kind, rig)
    await source.close()
    await source.close()
    async with far_side(rig):
        await source.connect()
        await source.close()
        await source.close()


async def test_what_the_device_reads_arrives_as_it_is(kind, rig):
    async with far_side(rig), closing(build(kind, rig)) as source:
        await source.connect()
        for a, b in ((1.5, -2.25), (-0.0, 3e9)):
            assert await shown(rig, source, a, b) == {0: GOOD, 1: GOOD}


async def test_a_broken_sensor_is_bad_and_its_neighbour_is_not(kind, rig):
    async with far_side(rig), closing(build(kind, rig)) as source:
        await source.connect()
        assert await shown(rig, source, math.nan, 5.0) == {0: (Quality.BAD, Reason.TYPE), 1: GOOD}


async def test_samples_carry_their_arrival_and_the_number_of_their_message(kind, rig):
    async with far_side(rig), closing(build(kind, rig)) as source:
        before = SystemClock().now() - 1_000_000_000
        await source.connect()
        numbers = []
        for value in (1.0, 2.0, 3.0):
            await rig.show(value, value)
            block = await source.read()
            assert (
                (before <= block.samples["arrival"]) & (block.samples["arrival"] <= SystemClock().now())
            ).all()
            numbers += block.samples["message"].tolist()
        assert numbers == sorted(numbers)


async def test_a_read_can_be_cancelled_and_called_again(kind, rig):
    async with far_side(rig), closing(build(kind, rig)) as source:
        await source.connect()
        await shown(rig, source, 1.0, 1.0)
        for _ in range(3):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.005):
                    while True:
                        await source.read()
        assert await shown(rig, source, 2.0, 4.0) == {0: GOOD, 1: GOOD}


async def test_a_read_without_connect_or_after_close_is_not_connected(kind, rig):
    source = build(kind, rig)
    with pytest.raises(NotConnected):
        await source.read()
    async with far_side(rig):
        await source.connect()
        await source.close()
        with pytest.raises(NotConnected):
            await until_gone(source)


async def test_connects_again_and_again_on_the_same_object_and_leaves_nothing_behind(kind, rig):
    async with far_side(rig), closing(build(kind, rig)) as source:
        before = open_files()
        for turn in range(6):
            await source.connect()
            assert await shown(rig, source, turn, -turn) == {0: GOOD, 1: GOOD}
            await source.close()
            for _ in range(50):  # the far side closes its ends
                await asyncio.sleep(0.02)
                if open_files() <= before:
                    break
            assert open_files() <= before


@remote
async def test_a_device_that_is_not_there_is_not_connected_and_the_reason_says_where(kind, rig):
    async with closing(build(kind, rig)) as source:
        for _ in range(2):
            with pytest.raises(NotConnected) as told:
                await source.connect()
            assert rig.address in str(told.value)
            assert re.search(r"[a-z]{3} [a-z]{2}", str(told.value)), "the reason is not in words"
            with pytest.raises(NotConnected):
                await until_gone(source)


@remote
async def test_notices_that_the_device_has_gone_and_delivers_again_when_it_is_back(kind, rig):
    async with closing(build(kind, rig)) as source:
        async with far_side(rig):
            await source.connect()
            await shown(rig, source, 1.0, 1.0)
            await rig.down()
            with pytest.raises(NotConnected) as told:
                await until_gone(source)
            assert rig.address in str(told.value)
            await source.close()
        async with far_side(rig):
            await source.connect()
            assert await shown(rig, source, 2.0, 4.0) == {0: GOOD, 1: GOOD}


@remote
async def test_what_came_before_the_device_went_is_still_read(kind, rig):
    if kind in {"modbus", "replay", "serial, asked", "sql"}:
        pytest.skip("it is asked: nothing comes by itself")
    async with far_side(rig), closing(build(kind, rig)) as source:
        await source.connect()
        await shown(rig, source, 1.0, 1.0)
        await rig.show(7.0, 8.0)
        await asyncio.sleep(0.15)
        await rig.down()
        await asyncio.sleep(0.15)
        came: list[float] = []
        with contextlib.suppress(NotConnected):
            async with asyncio.timeout(BOUND_S):
                while True:
                    came += (await source.read()).samples["value"].tolist()
        assert came[-2:] == [7.0, 8.0]
