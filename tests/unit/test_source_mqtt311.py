"""The MQTT source on brokers of version 3.1.1, and the codec that makes that possible."""

import asyncio
import json
from contextlib import asynccontextmanager

import mqtt5
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dxad.errors import DecodeError, NotConnected
from dxad.ingest import Ingest
from dxad.links import mqtt311
from dxad.ring.ringbuffer import RingBuffer
from dxad.runtime.clock import SteppedClock, SystemClock
from dxad.runtime.health import Health
from dxad.runtime.metrics import Metrics
from dxad.sources.mqtt import Config, Mqtt
from dxad.types import NS_PER_S, Channel
from hw_sim.mqtt.broker import Broker
from hw_sim.ports import free_port
from tests.patience import PATIENCE_S, until
from tests.peers import listening, silence
from tests.simulated import MOTOR, motor


def config(port, **settings):
    document = {"type": "mqtt", "url": f"mqtt://127.0.0.1:{port}", "period": "10ms", "version": "3.1.1"}
    return Config.model_validate({**document, **MOTOR, **settings})


@asynccontextmanager
async def connected(settings):
    source = Mqtt("s", settings, clock=SystemClock())
    try:
        await source.connect()
        yield source
    finally:
        await source.close()


async def refused(settings):
    with pytest.raises(NotConnected) as told:
        async with connected(settings):
            pytest.fail("it took that")
    return str(told.value)


async def lost(source):
    """Read on until the link is gone; returns the reason."""
    while True:
        try:
            await source.read()
        except NotConnected as error:
            return str(error)


@pytest.mark.parametrize("qos", [0, 1])
async def test_messages_come(qos):
    async with motor() as (port, _, station), connected(config(port, qos=qos)) as source:
        found = []
        async with asyncio.timeout(PATIENCE_S):
            while len(found) < 10:
                found += (await source.read()).samples["value"].tolist()
        assert found[0] == pytest.approx(10.8, abs=2)
        assert station.wires[0].counts["connects"] == 1


async def test_a_login_is_told_to_be_wrong(monkeypatch):
    monkeypatch.setenv("PASSWORD", "wrong")
    login = {"username": "gw", "password": {"env": "PASSWORD"}}
    async with motor(users='{ gw = "secret" }') as (port, _, _):
        assert "the broker refuses us: BAD_USER_NAME_OR_PASSWORD" in await refused(config(port, **login))
        monkeypatch.setenv("PASSWORD", "secret")
        async with connected(config(port, **login)) as source, asyncio.timeout(PATIENCE_S):
            assert len((await source.read()).samples)


async def test_a_subscription_that_is_refused_and_a_broker_that_goes_are_told():
    async with motor() as (port, _, station):
        await station.break_("mqtt.subscribe", {})
        assert "the broker refuses the subscription to 'plant/motor'" in await refused(config(port))
        await station.mend("mqtt.subscribe", {})
        async with connected(config(port)) as source:
            await station.break_("mqtt.stop", {})
            async with asyncio.timeout(PATIENCE_S):
                told = await lost(source)
            assert "the broker closed the connection" in told or "connection lost" in told


async def test_a_message_of_ten_mebibytes_passes_by_and_the_others_are_read():
    async with motor() as (port, _, station), connected(config(port)) as source:
        await station.break_("mqtt.huge", {"every": "400ms", "size": "10"})
        rejected, samples = 0, 0
        async with asyncio.timeout(PATIENCE_S):
            while rejected < 3 or samples < 10:
                try:
                    samples += len((await source.read()).samples)
                except DecodeError as error:
                    rejected += error.rejected
        assert len(source._link._tail) < 400_000


@pytest.mark.parametrize("version", ["5", "3.1.1"])
async def test_a_session_brings_what_came_meanwhile_and_its_loss_is_told(version):
    async with motor() as (port, _, station):
        known = config(port, session="1h", client_id="gw", version=version)
        source = Mqtt("s", known, clock=SystemClock())
        try:
            async with asyncio.timeout(PATIENCE_S):
                await source.connect()
                await source.read()
                await source.close()
                await asyncio.sleep(0.6)  # the motor publishes ten times a second
                await source.connect()
                await asyncio.sleep(0.05)
                assert len((await source.read()).samples) >= 2 * 5, "at once, and not one each 100 ms"
                await station.break_("mqtt.stop", {"session": "lost"})
                await lost(source)
                await station.mend("mqtt.stop", {})
                await source.connect()
                with pytest.raises(DecodeError, match="the broker has forgotten the session"):
                    await rejected(source)
        finally:
            await source.close()


async def rejected(source):
    """Read on until something is rejected."""
    while True:
        await source.read()


async def test_a_broker_of_the_other_version_alone_is_told_to_be_one():
    port = free_port()
    with Broker(mqtt5_port=port, mqtt311_port=free_port()):
        while True:
            told = await refused(config(port))
            if "refused" not in told:
                break
            await asyncio.sleep(0.02)
    assert "before it answered CONNECT: it may speak MQTT 5 only" in told


async def test_a_peer_that_says_what_no_broker_does_is_left():
    async def serve(reader, writer):
        writer.write(b"\x30\x03\x00\x09x")
        await silence(reader, writer)

    async with listening(serve) as port:
        assert "does not speak MQTT 3.1.1: " in await refused(config(port))


CONNECT = mqtt5.ConnectPacket(
    "gw", username="u", password=b"p", clean_start=True, keep_alive=15, receive_max=20, max_packet_size=1000
)


@pytest.mark.parametrize(
    ("packet", "wire"),
    [
        (CONNECT, "10 14 0004 4d515454 04 c2 000f 0002 6777 0001 75 0001 70"),
        (mqtt5.ConnectPacket("", clean_start=False, keep_alive=60), "10 0c 0004 4d515454 04 00 003c 0000"),
        (
            mqtt5.SubscribePacket(7, [mqtt5.TopicFilter("a/+", max_qos=mqtt5.QoS.AT_LEAST_ONCE)]),
            "82 08 0007 0003 612f2b 01",
        ),
        (mqtt5.PubAckPacket(258), "40 02 0102"),
        (mqtt5.PingReqPacket(), "c0 00"),
        (mqtt5.DisconnectPacket(), "e0 00"),
    ],
)
def test_packets_are_written_as_the_standard_has_them(packet, wire):
    assert mqtt311.write(packet) == bytes.fromhex(wire)


def message(topic, payload, *, qos=0, packet_id=None, retain=False, duplicate=False):
    """A PUBLISH, byte by byte."""
    body = len(topic.encode()).to_bytes(2) + topic.encode()
    body += b"" if packet_id is None else packet_id.to_bytes(2)
    body += payload
    length, left = b"", len(body)
    while True:
        length += bytes([left % 128 | (0x80 if left >= 128 else 0)])
        left //= 128
        if not left:
            return bytes([0x30 | duplicate << 3 | qos << 1 | retain]) + length + body


@given(
    topic=st.text("ab/é1", min_size=1, max_size=20),
    payload=st.binary(max_size=300),
    qos=st.sampled_from([0, 1, 2]),
    retain=st.booleans(),
    after=st.binary(max_size=5),
)
def test_a_message_is_read_whole_or_not_yet(topic, payload, qos, retain, after):
    packet_id = 0x1234 if qos else None
    wire = message(topic, payload, qos=qos, packet_id=packet_id, retain=retain, duplicate=qos > 0)
    packet, used = mqtt311.read(memoryview(wire + after))
    assert used == len(wire)
    assert (packet.topic, packet.payload, packet.packet_id) == (topic, payload, packet_id)
    assert (packet.qos == qos, packet.retain, packet.duplicate) == (True, retain, qos > 0)
    for end in {0, 1, len(wire) // 2, len(wire) - 1}:
        with pytest.raises(IndexError):
            mqtt311.read(memoryview(wire[:end]))


@given(st.binary(min_size=2, max_size=40))
def test_junk_is_never_anything_else_than_no_packet_or_not_yet_one(data):
    try:
        packet, used = mqtt311.read(memoryview(data))
    except (IndexError, ValueError):
        return
    assert 2 <= used <= len(data)
    assert packet is not None


@pytest.mark.parametrize("wire", ["30ffffffff01", "20020009", "900300010f", "10020000", "320400026162"])
def test_what_no_broker_sends_is_no_packet(wire):
    with pytest.raises(ValueError, match=r"packet of type|does not end|sends no packet|within its head"):
        mqtt311.read(memoryview(bytes.fromhex(wire)))


def test_json_is_what_json_was():
    wire = message("t", json.dumps({"a": 1}).encode(), qos=1, packet_id=1)
    assert mqtt311.read(memoryview(wire))[0].payload == b'{"a": 1}'


SHARED_ADVICE = "no message has come over the shared subscription"


@pytest.mark.parametrize(
    ("settings", "advises"),
    [({"share": "gws"}, True), ({}, False), ({"share": "gws", "version": "5"}, False)],
    ids=["shared", "not shared", "of MQTT 5, whose broker would refuse it"],
)
async def test_a_broker_that_takes_a_shared_subscription_for_a_topic_is_suspected(settings, advises):
    clock = SteppedClock()
    async with motor() as (port, _, station):
        await station.break_("source_down", {"device": "motor"})
        ring = RingBuffer((Channel("s.current"), Channel("s.speed")), period=NS_PER_S, slots=9, start=0)
        health = Health(clock)
        made = config(port, **{"period": "1s", **settings})
        source = Mqtt("s", made, clock=clock)
        ingest = Ingest("s", source, made, ring, clock=clock, health=health, metrics=Metrics())
        serving = asyncio.create_task(ingest.run())
        try:
            await until(lambda: ingest.connected)
            ingest.tick(clock.now())
            assert list(health.active) == []
            await clock.step(6 * NS_PER_S)
            ingest.tick(clock.now())
            told = [(each.code, each.detail) for each in health.active]
            assert [code for code, _ in told] == ["source.silent"] * advises
            assert not advises or SHARED_ADVICE in told[0][1]
            source._inbox.message(clock.now(), [0], [1.0])
            await clock.step(NS_PER_S)
            ingest.tick(clock.now())
            assert list(health.active) == []
        finally:
            serving.cancel()
            await asyncio.wait([serving])
