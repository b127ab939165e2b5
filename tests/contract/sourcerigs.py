"""The far side of each type of source: a device with the channels `a` and `b`."""

import asyncio
import contextlib
import json
import math
import os
import sqlite3
import struct
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, ClassVar

import fastcrc
import pytest
from cobs import cobs
from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

from hw_sim.mqtt.broker import Broker
from hw_sim.ports import free_port
from tests import postgres
from tests.peers import NAMESPACE, OpcuaPeer, Pty, Relay, listening, publish

__all__ = ["RIGS", "Rig"]


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


class PostgresRig(Rig):
    """A server of its own, behind a cable that can be pulled."""

    config: ClassVar = {
        "url": "postgresql://plant@127.0.0.1:1/postgres", "password": {"env": "PLANT_PASSWORD"},
        "query": "SELECT id, a, b FROM rig", "cursor": "id", "period": "20ms",
    }  # fmt: skip

    def __init__(self, tmp_path: Path, request: pytest.FixtureRequest) -> None:
        super().__init__(tmp_path, request)
        self.server: postgres.Server = request.getfixturevalue("postgres_server")
        request.getfixturevalue("monkeypatch").setenv("PLANT_PASSWORD", postgres.PASSWORD)
        self.cable = AsyncExitStack()

    def settings(self) -> dict[str, Any]:
        return {**self.config, "url": postgres.url(self.port)}

    async def up(self) -> None:
        with self.server.admin() as admin:
            admin.execute("DROP TABLE IF EXISTS rig")
            admin.execute(
                "CREATE TABLE rig (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, a float8, b float8)"
            )
        await self.cable.enter_async_context(listening(Relay(self.server.port).serve, self.port))

    async def down(self) -> None:
        await self.cable.aclose()

    async def show(self, a: float, b: float) -> None:
        values = [None if math.isnan(each) else each for each in (a, b)]
        with self.server.admin() as admin:
            admin.execute("INSERT INTO rig (a, b) VALUES (%s, %s)", values)


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
    "sql, postgres": PostgresRig,
}
