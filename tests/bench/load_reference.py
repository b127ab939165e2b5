"""The same load by bare loops: what the null reader makes of it where no simulator is in between.

Each wire is the least that its protocol allows: a server that writes MQTT packets straight to its one
subscriber, without a broker; an answer in `struct` for each Modbus request; asyncua's own server, written to
node by node; lines into a pty. There is no plant and no fault, and all of it is in one loop.
"""

import asyncio
import math
import os
import struct
import time
import tty
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Final, Protocol

import mqtt5
import orjson
from asyncua import ua
from asyncua.server.server import Server

from hw_sim.load.check import Measured, Offered, read
from hw_sim.load.plan import NAMESPACE, Plan
from hw_sim.ports import free_port

__all__ = ["measure"]

_HOST: Final = "127.0.0.1"


class Bare(Protocol):
    """One wire."""

    async def open(self) -> str:
        """Be there; returns where."""

    def step(self, row: int, turn: int, began: float) -> None:
        """Send what is due in this step."""

    async def close(self) -> None:
        """Be gone."""


def _value(row: int, number: int) -> float:
    return (row + 101 * number) % 4096 / 4


class _Session(asyncio.Protocol):
    """Says yes to a CONNECT and a SUBSCRIBE."""

    def __init__(self, mqtt: "Mqtt") -> None:
        self._mqtt = mqtt

    def connection_made(self, transport):
        self._mqtt.transport = self._transport = transport

    def data_received(self, data):
        at = 0
        while at < len(data):
            packet, used = mqtt5.read(memoryview(data)[at:])
            at += used
            if type(packet) is mqtt5.ConnectPacket:
                self._transport.write(mqtt5.ConnAckPacket().write())
            elif type(packet) is mqtt5.SubscribePacket:
                granted = [mqtt5.SubAckReasonCode.GRANTED_QOS_AT_MOST_ONCE]
                self._transport.write(mqtt5.SubAckPacket(packet.packet_id, granted).write())


class Mqtt:
    def __init__(self, plan: Plan, wire: Mapping[str, Any]) -> None:
        self.transport = None
        topics = [
            (topic, [(f"c{number:03d}", number) for number in numbers])
            for topic, numbers in wire["topics"].items()
        ]
        self._turns = [topics[turn :: plan.spread] for turn in range(plan.spread)]

    async def open(self) -> str:
        self._server = await asyncio.get_running_loop().create_server(lambda: _Session(self), _HOST, 0)
        return f"mqtt://{_HOST}:{self._server.sockets[0].getsockname()[1]}"

    def step(self, row: int, turn: int, began: float) -> None:
        sent = time.time()
        self.transport.write(
            b"".join(
                mqtt5.PublishPacket(
                    topic,
                    orjson.dumps(
                        {
                            "sequence": row,
                            "sent": sent,
                            **{name: _value(row, number) for name, number in fields},
                        }
                    ),
                    qos=mqtt5.QoS.AT_MOST_ONCE,
                ).write()
                for topic, fields in self._turns[turn]
            )
        )

    async def close(self) -> None:
        self.transport.close()
        self._server.close()
        await self._server.wait_closed()


class _Slave(asyncio.Protocol):
    def __init__(self, modbus: "Modbus") -> None:
        self._modbus = modbus

    def connection_made(self, transport):
        self._transport = transport

    def data_received(self, data):
        transaction, _, _, unit, function, first, _ = struct.unpack(">HHHBBHH", data)
        body = self._modbus.block(first)
        head = struct.pack(">HHHBBB", transaction, 0, 3 + len(body), unit, function, len(body))
        self._transport.write(head + body)


class Modbus:
    def __init__(self, _plan: Plan, wire: Mapping[str, Any]) -> None:
        self._row, self._began = 0, 0.0
        self._blocks = {
            each["first"]: (struct.Struct(f">dI{len(each['channels'])}f"), each["channels"])
            for each in wire["blocks"]
        }

    def block(self, first: int) -> bytes:
        layout, numbers = self._blocks[first]
        row = self._row
        return layout.pack(self._began, row, *(_value(row, number) for number in numbers))

    async def open(self) -> str:
        self._server = await asyncio.get_running_loop().create_server(lambda: _Slave(self), _HOST, 0)
        return f"tcp://{_HOST}:{self._server.sockets[0].getsockname()[1]}"

    def step(self, row: int, turn: int, began: float) -> None:
        self._row, self._began = row, began

    async def close(self) -> None:
        self._server.close()
        await self._server.wait_closed()


class Opcua:
    def __init__(self, _plan: Plan, wire: Mapping[str, Any]) -> None:
        self._wire = wire
        self._writing: asyncio.Task | None = None

    async def open(self) -> str:
        server = self._server = Server()
        await server.init()
        url = f"opc.tcp://{_HOST}:{free_port()}/bare"
        server.set_endpoint(url)
        server.set_security_policy([ua.SecurityPolicyType.NoSecurity])
        namespace = await server.register_namespace(NAMESPACE)
        self._nodes = {}
        for node, number in self._wire["nodes"].items():
            node_id = ua.NodeId.from_string(f"ns={namespace};{node}")
            await server.nodes.objects.add_variable(node_id, node[2:], _value(0, number))
            self._nodes[node_id] = number
        await server.start()
        return url

    def step(self, row: int, turn: int, began: float) -> None:
        if turn == 0 and row:
            self._writing = asyncio.create_task(self._write(row))

    async def _write(self, row: int) -> None:
        for node_id, number in self._nodes.items():
            variant = ua.Variant(_value(row, number), ua.VariantType.Double)
            value = ua.DataValue(variant, SourceTimestamp=datetime.now(UTC))
            await self._server.write_attribute_value(node_id, value)

    async def close(self) -> None:
        if self._writing is not None:
            await self._writing
        await self._server.stop()


class Serial:
    def __init__(self, _plan: Plan, wire: Mapping[str, Any]) -> None:
        self._channels: Sequence[int] = wire["channels"]

    async def open(self) -> str:
        self._near, self._far = os.openpty()
        tty.setraw(self._far)
        return os.ttyname(self._far)

    def step(self, row: int, turn: int, began: float) -> None:
        if turn == 0:
            values = ",".join([f"{_value(row, number):.2f}" for number in self._channels])
            os.write(self._near, f"{began:.6f},{row},{values}\r\n".encode())

    async def close(self) -> None:
        os.close(self._near)
        os.close(self._far)


_MAKERS: Final = {"mqtt": Mqtt, "modbus": Modbus, "opcua": Opcua, "serial": Serial}


async def measure(plan: Plan, *, for_s: float) -> Measured:
    """Run the load by bare loops into the null reader; as hw_sim.load.check.measure does by the simulator."""
    parts = plan.map(dict.fromkeys(plan.wires, ""))["wires"]
    wires: dict[str, Bare] = {name: _MAKERS[part["type"]](plan, part) for name, part in parts.items()}
    endpoints = {name: await wire.open() for name, wire in wires.items()}
    try:
        return await read(plan, endpoints, lambda: _offer(plan, list(wires.values()), for_s))
    finally:
        for wire in wires.values():
            with suppress(OSError):
                await wire.close()


async def _offer(plan: Plan, wires: Sequence[Bare], for_s: float) -> Offered:
    rows = math.ceil(plan.duration_s(for_s) * plan.rate_hz)
    begin, began = time.monotonic(), 0.0
    for step in range(rows * plan.spread):
        await asyncio.sleep(begin + step * plan.step_s - time.monotonic())
        row, turn = divmod(step, plan.spread)
        began = time.time() if turn == 0 else began
        for wire in wires:
            wire.step(row, turn, began)
    elapsed_s = time.monotonic() - begin
    await asyncio.sleep(0)
    return Offered(rows, elapsed_s + plan.step_s)
