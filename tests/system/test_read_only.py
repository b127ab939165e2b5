"""dxad writes nothing to the field: everything that its sources send, seen on the wires of the simulator."""

import asyncio
import os
import re
import struct
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from asyncua import ua

from dxad import plugin
from dxad.runtime.clock import SystemClock
from hw_sim.scenario import load
from hw_sim.station import station
from tests.patience import PATIENCE_S
from tests.peers import Pty, Relay, listening
from tests.unit.commissioning.bench import dxad

MQTT_PUBLISH = 3
MODBUS_READS = {1, 2, 3, 4}
OPCUA_CHANGES = {
    ua.ObjectIds.WriteRequest_Encoding_DefaultBinary,
    ua.ObjectIds.CallRequest_Encoding_DefaultBinary,
    ua.ObjectIds.HistoryUpdateRequest_Encoding_DefaultBinary,
    ua.ObjectIds.AddNodesRequest_Encoding_DefaultBinary,
    ua.ObjectIds.DeleteNodesRequest_Encoding_DefaultBinary,
}


class Tap(Relay):
    """A cable that remembers what went to the device."""

    def __init__(self, server_port: int) -> None:
        super().__init__(server_port)
        self.sent = b""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        remembered = asyncio.StreamReader()

        async def listen() -> None:
            while data := await reader.read(65_536):
                self.sent += data
                remembered.feed_data(data)
            remembered.feed_eof()

        await asyncio.gather(listen(), super().serve(remembered, writer))


async def read_from(kind: str, *, enough: int = 20, **settings) -> int:
    """Connect as the daemon does, take some samples, and leave; returns how many there were."""
    found = plugin.load("sources", kind)
    config = found.config.model_validate({"type": kind, "period": "100ms", **settings})
    source = found.build("s", config, clock=SystemClock())
    count = 0
    try:
        await source.connect()
        async with asyncio.timeout(PATIENCE_S):
            while count < enough:
                count += len((await source.read()).samples)
    finally:
        await source.close()
    return count


def mqtt_packets(stream: bytes) -> Iterator[int]:
    """The types of control packets (MQTT 5.0, 2.1)."""
    at = 0
    while at < len(stream):
        kind, length, shift, at = stream[at] >> 4, 0, 0, at + 1
        while True:
            byte = stream[at]
            length |= (byte & 0x7F) << shift
            shift, at = shift + 7, at + 1
            if byte < 0x80:
                break
        at += length
        yield kind


def modbus_functions(stream: bytes) -> Iterator[int]:
    """The function codes (Modbus Messaging on TCP/IP V1.0b, 3.1.3)."""
    at = 0
    while at < len(stream):
        yield stream[at + 7]
        at += 6 + struct.unpack_from(">H", stream, at + 4)[0]


def opcua_requests(stream: bytes) -> Iterator[int]:
    """The encoding ids of unsecured requests (OPC 10000-6, 6.7.2 and 5.2.2.9)."""
    at = 0
    while at < len(stream):
        kind, size = stream[at : at + 3], struct.unpack_from("<I", stream, at + 4)[0]
        if kind == b"MSG":
            assert stream[at + 24 : at + 26] == b"\x01\x00", "a numeric id in namespace 0"
            yield struct.unpack_from("<H", stream, at + 26)[0]
        at += size


@asynccontextmanager
async def tapped(name: str) -> AsyncIterator[tuple[Tap, str]]:
    """One wire of the simulator's pump skid behind a tap; yields that and where it is."""
    scenario = load("pump_skid", [f"wires.{name}.port=0"])
    scenario = replace(scenario, wires={name: scenario.wires[name]})
    async with station(scenario, *scenario.bench()) as running:
        stepping = asyncio.create_task(running.run([], duration_s=None))
        try:
            url = running.wires[0].endpoints[name]
            tap = Tap(int(re.search(r":(\d+)", url)[1]))
            async with listening(tap.serve) as here:
                yield tap, re.sub(r":\d+", f":{here}", url)
        finally:
            stepping.cancel()
            await asyncio.wait([stepping])


async def test_mqtt_publishes_nothing():
    async with tapped("motor") as (tap, url):
        assert await read_from("mqtt", url=url, topic="plant/motor", channels={"current": {}})
    kinds = set(mqtt_packets(tap.sent))
    assert {1, 8} <= kinds, "CONNECT and SUBSCRIBE"
    assert MQTT_PUBLISH not in kinds


async def test_modbus_only_reads():
    channels = {
        "flow": {"register": "input:30", "encoding": "float32"},
        "pressure": {"register": "holding:12"},
        "running": {"register": "coil:0"},
    }
    async with tapped("plc") as (tap, url):
        assert await read_from("modbus", url=url, channels=channels)
    found = set(modbus_functions(tap.sent))
    assert found == {1, 3, 4}
    assert found <= MODBUS_READS


@pytest.mark.parametrize(
    ("settings", "asks"),
    [
        ({}, ua.ObjectIds.CreateMonitoredItemsRequest_Encoding_DefaultBinary),
        ({"mode": "poll"}, ua.ObjectIds.ReadRequest_Encoding_DefaultBinary),
    ],
    ids=["told", "polled"],
)
async def test_opcua_writes_and_calls_nothing(settings, asks):
    channels = {"power": {"node": "s=Pump.Power"}, "same": {"browse": "Objects/*/power", "count": 1}}
    settings = {**settings, "namespace": "urn:hw-sim:pump-skid", "channels": channels}
    async with tapped("drive") as (tap, url):
        assert await read_from("opcua", url=url, enough=2, **settings)
    requests = set(opcua_requests(tap.sent))
    assert {asks, ua.ObjectIds.BrowseRequest_Encoding_DefaultBinary} <= requests
    assert not requests & OPCUA_CHANGES


async def test_a_serial_line_is_only_listened_to(tmp_path):
    device = Pty(tmp_path / "vib")
    device.plug()
    assert device._ends is not None
    near = device._ends[0]

    async def talk() -> None:
        while True:
            device.send(b"1.0,2.0,3.0\r\n")
            await asyncio.sleep(0.005)

    talking = asyncio.create_task(talk())
    try:
        decode = {"kind": "csv", "columns": ["x", "y", "z"]}
        assert await read_from("serial", port=str(device.link), decode=decode)
        try:
            heard = os.read(near, 100)
        except BlockingIOError:
            heard = b""
        assert heard == b""
    finally:
        talking.cancel()
        await asyncio.wait([talking])
        device.unplug()


async def test_the_first_hour_changes_nothing_either():
    async with tapped("motor") as (tap, url):
        done = await dxad("sniff", url, "--for=300ms")
        assert done.code == 0, done.err
    kinds = set(mqtt_packets(tap.sent))
    assert {1, 8} <= kinds
    assert MQTT_PUBLISH not in kinds
    async with tapped("plc") as (tap, url):
        done = await dxad("probe", "modbus", url, "--ids=1", "--range=0-63", "--delay=1ms")
        assert done.code == 0, done.err
    assert set(modbus_functions(tap.sent)) == MODBUS_READS
    async with tapped("drive") as (tap, url):
        done = await dxad("browse", url)
        assert done.code == 0, done.err
    requests = set(opcua_requests(tap.sent))
    assert ua.ObjectIds.BrowseRequest_Encoding_DefaultBinary in requests
    assert not requests & OPCUA_CHANGES
