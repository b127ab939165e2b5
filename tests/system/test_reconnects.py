"""A thousand reconnects over real wires: as much memory and as many descriptors as after the first few."""

import asyncio
import gc
import os
from pathlib import Path

import mqtt5
import pytest

from dxad import plugin
from dxad.errors import NotConnected
from dxad.runtime.clock import SystemClock
from tests.patience import until
from tests.peers import ModbusPeer, Pty, listening, packets_of

WARM, ALL = 200, 1000
GROWS_MOST = 1 << 20
"""Bytes: a leak of one kilobyte for each connection."""


def resident() -> int:
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def broker(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """It takes everybody, sends one message and hangs up."""
    async for packet in packets_of(reader):
        match packet:
            case mqtt5.ConnectPacket():
                writer.write(mqtt5.ConnAckPacket().write())
            case mqtt5.SubscribePacket():
                granted = [mqtt5.SubAckReasonCode(0)]
                writer.write(mqtt5.SubAckPacket(packet.packet_id, granted).write())
                writer.write(mqtt5.PublishPacket("t", payload=b'{"a": 1}').write())
                writer.write_eof()
            case mqtt5.DisconnectPacket():
                return


def source(kind: str, **section):
    found = plugin.load("sources", kind)
    config = found.config.model_validate({"type": kind, **section})
    return found.build("s", config, clock=SystemClock())


async def hurried(made, plug=lambda: None, unplug=lambda: None) -> None:
    """Connect, read and lose it, a thousand times."""
    before = 0, 0
    for turn in range(ALL):
        plug()
        await made.connect()
        await made.read()
        unplug()
        if turn == WARM:
            before = resident(), descriptors()
        await made.close()
    await until(lambda: descriptors() <= before[1])  # the far side lets go as well
    assert resident() - before[0] < GROWS_MOST


async def test_of_mqtt():
    async with listening(broker) as port:
        made = source(
            "mqtt", url=f"mqtt://127.0.0.1:{port}", topic="t", qos=0, period="10ms", channels={"a": {}}
        )
        made.coalesce_s = 0.0
        await hurried(made)
        with pytest.raises(NotConnected):
            await made.read()


async def test_of_modbus():
    peer = ModbusPeer()
    async with listening(peer.serve) as port:
        url = f"tcp://127.0.0.1:{port}"
        await hurried(source("modbus", url=url, period="1ms", channels={"a": {"register": "input:0"}}))
    assert len(peer.asked) == ALL


async def test_of_a_serial_line_that_is_pulled_and_plugged(tmp_path):
    device = Pty(tmp_path / "tty")

    def plug() -> None:
        device.plug()
        asyncio.get_running_loop().call_soon(device.send, b"0,0\n1,2\n")

    decode = {"kind": "csv", "columns": ["x", "y"]}
    made = source("serial", port=str(device.link), period="10ms", decode=decode)
    await hurried(made, plug, device.unplug)
