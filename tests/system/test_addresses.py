"""A name that leads elsewhere after a while: whoever is connected anew looks it up anew."""

import asyncio
import socket

import mqtt5
import pytest

from dxad import plugin
from dxad.runtime.clock import SystemClock
from tests.peers import ModbusPeer, packets_of

NAME = "plc.plant.example"


@pytest.fixture
def names(monkeypatch):
    """What the name server says, by name."""
    found = {NAME: "127.0.0.1"}
    real = socket.getaddrinfo

    def asked(host, *rest, **more):
        return real(found.get(host, host), *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", asked)
    return found


async def broker(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    async for packet in packets_of(reader):
        match packet:
            case mqtt5.ConnectPacket():
                writer.write(mqtt5.ConnAckPacket().write())
            case mqtt5.SubscribePacket():
                granted = [mqtt5.SubAckReasonCode(0)] * len(packet.topic_filters)
                writer.write(mqtt5.SubAckPacket(packet.packet_id, granted).write())
                address = writer.get_extra_info("sockname")[0].rpartition(".")[2]
                writer.write(mqtt5.PublishPacket("t", payload=b'{"a": %s}' % address.encode()).write())
            case mqtt5.DisconnectPacket():
                writer.close()


async def device(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    peer = ModbusPeer()
    peer.registers = {0: int(writer.get_extra_info("sockname")[0].rpartition(".")[2])}
    try:
        await peer.serve(reader, writer)
    except asyncio.IncompleteReadError:
        writer.close()


SOURCES = {
    "mqtt": (broker, {"url": "mqtt://{}:{}", "topic": "t", "qos": 0, "channels": {"a": {}}}),
    "modbus": (device, {"url": "tcp://{}:{}", "channels": {"a": {"register": "input:0"}}}),
}


@pytest.mark.parametrize("kind", SOURCES)
async def test_an_address_that_has_changed_is_found_with_the_next_connection(kind, names):
    serve, settings = SOURCES[kind]
    here = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = here.sockets[0].getsockname()[1]
    there = await asyncio.start_server(serve, "127.0.0.2", port)
    found = plugin.load("sources", kind)
    section = {"type": kind, "period": "10ms", **settings, "url": settings["url"].format(NAME, port)}
    source = found.build("s", found.config.model_validate(section), clock=SystemClock())
    try:
        for address, last in (("127.0.0.1", 1.0), ("127.0.0.2", 2.0)):
            names[NAME] = address
            await source.connect()
            assert (await source.read()).samples["value"].tolist() == [last]
            await source.close()
    finally:
        await source.close()
        for server in (here, there):
            server.close()
            await server.wait_closed()
        await asyncio.sleep(0.05)
