"""A name that leads nowhere, and elsewhere after a while: whoever is connected anew looks it up anew."""

import asyncio
import socket

import mqtt5
import pytest

from dxad import plugin
from dxad.errors import NotConnected
from dxad.runtime.clock import SystemClock
from tests.peers import ModbusPeer, Relay, packets_of
from tests.unit.hw_sim.opcua_bed import bed
from tests.unit.opcua_rig import newest
from tests.unit.opcua_rig import source as opcua_source

NAME = "plc.plant.example"


@pytest.fixture
def names(monkeypatch):
    """What the name server says, by name."""
    found = {NAME: "127.0.0.1"}
    real = socket.getaddrinfo

    def asked(host, *rest, **more):
        if found.get(host, host) is None:
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
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


class Road(Relay):
    """To a server elsewhere; it counts who takes it."""

    taken = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.taken += 1
        await super().serve(reader, writer)


async def test_an_opcua_server_is_followed_by_its_name_and_certificate(names, tmp_path):
    async with bed(security=["None", "Basic256Sha256"], pki=tmp_path / "pki") as served:
        stepping = asyncio.create_task(stepped(served))
        port = int(served.wire.url.split(":")[2].split("/")[0])
        roads = {"127.0.0.1": Road(port), "127.0.0.2": Road(port)}
        here = await asyncio.start_server(roads["127.0.0.1"].serve, "127.0.0.1", 0)
        at = here.sockets[0].getsockname()[1]
        there = await asyncio.start_server(roads["127.0.0.2"].serve, "127.0.0.2", at)
        login = {"security": "Basic256Sha256", "security_mode": "sign"}
        made = opcua_source(f"opc.tcp://{NAME}:{at}/bench", state_dir=tmp_path, **login)
        try:
            names[NAME] = None
            for _ in range(2):
                with pytest.raises(NotConnected, match=f"{NAME}.*Temporary failure in name resolution"):
                    await made.connect()
            for address in roads:
                names[NAME] = address
                before = {each: road.taken for each, road in roads.items()}
                await made.connect()
                await newest(made, 2)
                await made.close()
                assert [each for each, road in roads.items() if road.taken > before[each]] == [address]
        finally:
            await made.close()
            stepping.cancel()
            for server in (here, there):
                server.close()
                await server.wait_closed()
            await served.quiet()


async def stepped(served) -> None:
    while True:
        served.step()
        await asyncio.sleep(0.01)
