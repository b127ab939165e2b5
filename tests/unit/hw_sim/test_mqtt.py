"""The MQTT wire as clients that were not written here see it: shapes, versions, TLS, logins, sessions."""

import asyncio
import contextlib
import itertools
import json
import math
import shutil
import socket
import ssl
import struct
from contextlib import AsyncExitStack

import aiomqtt
import mqtt5
import msgpack
import paho.mqtt.client as paho
import pytest
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from hw_sim.mqtt.section import Settings
from hw_sim.pki import Authority, make
from tests.patience import PATIENCE_S
from tests.unit.hw_sim.mqtt_rig import (
    MOTOR,
    START,
    TOPIC,
    V5,
    V311,
    VERSIONS,
    documents,
    fault,
    listens,
    mosquitto,
    payloads,
    plugged,
    port_of,
    reader,
    running,
    silent,
    take,
    well,
    wire_of,
)

HELLO = mqtt5.ConnectPacket("raw", clean_start=True, keep_alive=60).write()
THREE = {"a": "p.count", "b": "p.half", "c": "p.nothing"}


def device(**keys):
    return {"topic": TOPIC, "period": "100ms", "fields": THREE, **keys}


async def messages_of(*devices):
    """A message of each of these devices, as a client gets it."""
    keyed = {f"d{number}": {**each, "topic": f"t/{number}"} for number, each in enumerate(devices)}
    found = {}
    async with running(keyed) as wire, reader(port_of(wire), "t/+") as client:
        while len(found) < len(devices):
            (message,) = await take(client)
            found[message.topic.value] = message.payload
    return [found[f"t/{number}"] for number in range(len(devices))]


async def test_a_device_of_either_version_is_read_by_a_client_of_either_version_on_one_port():
    devices = {"new": MOTOR, "old": {**MOTOR, "version": "3.1.1", "topic": "plant/old"}}
    async with running(devices) as wire:
        port = port_of(wire)
        for version in (V5, V311):
            await well(port, version)
            async with reader(port, "plant/old", version) as client:
                await documents(client, 2)
        assert wire.endpoints["old"].about == "MQTT 5 and 3.1.1, topic plant/old, JSON at 10 Hz"


async def test_json_has_the_time_the_rounded_values_and_null_where_a_sensor_shows_nothing():
    timed, plain = map(json.loads, await messages_of(device(time="t"), device()))
    a = timed["a"]
    assert timed == {"t": START + (a - 1) / 100, "a": a, "b": a + 0.1235, "c": None}
    assert set(plain) == {"a", "b", "c"}


async def test_csv_has_the_time_first_and_nothing_where_a_sensor_shows_nothing():
    timed, plain = await messages_of(device(payload="csv", time="t", decimals=2), device(payload="csv"))
    at, a, b, c = timed.decode().split(",")
    assert float(at) == pytest.approx(START + (float(a) - 1) / 100)
    assert (b, c) == (f"{float(a) + 0.12:.2f}", "")
    assert plain.count(b",") == 2


async def test_msgpack_is_a_map_with_nil_where_a_sensor_shows_nothing():
    (message,) = await messages_of(device(payload="msgpack", time="t"))
    found = msgpack.unpackb(message)
    assert found == {
        "t": START + (found["a"] - 1) / 100,
        "a": found["a"],
        "b": found["a"] + 0.1235,
        "c": None,
    }


async def test_binary_is_packed_in_either_order_with_nan_where_a_sensor_shows_nothing():
    shapes = list(itertools.product((("little", "<"), ("big", ">")), (("float32", "f"), ("float64", "d"))))
    messages = await messages_of(
        *(
            device(payload="binary", byte_order=order, encoding=encoding, time="t")
            for (order, _), (encoding, _) in shapes
        )
    )
    for message, ((_, sign), (_, code)) in zip(messages, shapes, strict=True):
        at, a, b, c = struct.unpack(f"{sign}d3{code}", message)
        assert at == pytest.approx(START + (a - 1) / 100)
        assert b == pytest.approx(a + 0.123456, abs=1e-5)
        assert math.isnan(c)


async def test_a_number_is_text_and_empty_where_a_sensor_shows_nothing():
    shown, nothing = await messages_of(
        device(payload="number", fields={"a": "p.count"}), device(payload="number", fields={"c": "p.nothing"})
    )
    assert float(shown) == int(float(shown)) > 0
    assert nothing == b""


async def test_several_samples_in_a_message_have_their_own_times():
    keys = device(period="20ms", samples=5, time="t")
    async with running({"d": keys}) as wire, reader(port_of(wire)) as client:
        assert "JSON at 10 Hz, 5 samples a message" in wire.endpoints["d"].about
        found = [each for message in (await documents(client, 3))[1:] for each in message]
    assert len(found) == 10
    assert [each["a"] - found[0]["a"] for each in found] == [2 * turn for turn in range(10)]
    assert [each["t"] for each in found] == [
        pytest.approx(START + (each["a"] - 1) / 100, abs=1e-3) for each in found
    ]


async def test_qos_and_retain_are_those_of_the_device():
    devices = {"kept": device(topic="a", retain=True), "fast": device(topic="b", qos=0)}
    async with running(devices) as wire:
        async with reader(port_of(wire), "a") as client:
            assert (await take(client))[0].retain
        async with reader(port_of(wire), "b") as client:
            assert len(await take(client, 3)) == 3
        assert wire.counts["sent"] > wire.counts["acked"] > 0


async def test_a_device_without_power_is_silent_and_comes_back():
    from hw_sim.catalogue import FAULTS
    from hw_sim.fault import Fault

    devices = {"one": device(topic="a"), "two": device(topic="b")}
    async with running(devices) as wire, reader(port_of(wire), "a") as one, reader(port_of(wire), "b") as two:
        await wire.switch([Fault(FAULTS["source_down"], 0.0, None, {"device": "one"}, ())])
        assert await silent(one)
        await documents(two, 3)
        await wire.switch([])
        await documents(one, 2)


async def test_a_fault_of_one_device_leaves_the_others_alone():
    devices = {"one": device(topic="a"), "two": device(topic="b")}
    async with running(devices) as wire, reader(port_of(wire), "#") as client:
        await wire.switch([fault("empty", device="one")])
        found = (await take(client, 12))[4:]
    assert {(each.topic.value, bool(each.payload)) for each in found} == {("a", False), ("b", True)}


def test_mistakes_in_a_scenario_are_named():
    wrong = {
        "without wildcards": {"topic": "plant/+"},
        "greater than 0": {"period": "0s"},
        "one field": {"payload": "number"},
        'payload = "json"': {"payload": "csv", "samples": 3, "time": "t"},
        "its own time": {"samples": 3},
        "both the time and a field": {"time": "a"},
    }
    for message, keys in wrong.items():
        with pytest.raises(ValueError, match=message):
            wire_of({"d": device(**keys)})
    wrong = {
        "for a tls_port": {"pki": "x"},
        "both 1883": {"port": 1883, "tls_port": 1883},
        "no such port": {"broker": "host:99999"},
        "pattern": {"broker": "host"},
    }
    for message, keys in wrong.items():
        with pytest.raises(ValueError, match=message):
            wire_of(**keys)


# --- who may come in


@VERSIONS
async def test_with_users_a_client_must_log_in_and_is_told_why_not(version):
    async with running(users={"gw": "secret"}) as wire:
        port = port_of(wire)
        assert "login as gw" in wire.endpoints["motor"].about
        async with reader(port, version=version, username="gw", password="secret") as client:
            await documents(client, 2)
        wrong = {"gw": "wrong", "other": "secret", None: None}
        for username, password in wrong.items():
            with pytest.raises(aiomqtt.MqttError) as refused:
                async with reader(port, version=version, username=username, password=password):
                    pass
            assert refused.value.rc.value == (
                0x87 if username is None else 0x86
            )  # of 3.1.1 paho translates it
        assert wire.counts["refused"] == 3


async def test_with_tls_a_client_that_trusts_the_authority_gets_in_and_another_does_not(tmp_path):
    Authority.new("another").identity.save(tmp_path / "x.pem", tmp_path / "x.key")
    async with running(tls_port=0, pki=str(tmp_path / "pki")) as wire:
        about = wire.endpoints["motor"].about
        assert about.endswith(f"certificates in {tmp_path / 'pki'}")
        port = int(about.partition("TLS on ")[2].partition(",")[0])
        await well(port_of(wire))
        for version in (V5, V311):
            context = strict(tmp_path / "pki" / "ca.pem")
            async with reader(port, version=version, tls_context=context) as client:
                await documents(client, 2)
        context.load_cert_chain(tmp_path / "pki" / "client.pem", tmp_path / "pki" / "client.key")
        async with reader(port, tls_context=context) as client:
            await documents(client, 1)
        context = ssl.create_default_context(cafile=tmp_path / "x.pem")
        with pytest.raises(ssl.SSLCertVerificationError):
            await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname="localhost")
        assert await heard(port, HELLO) == b""  # no TLS on the port of TLS


async def test_with_tls_a_certificate_may_be_required(tmp_path):
    keys = {"tls_port": 0, "pki": str(tmp_path), "client_certificate": "required"}
    async with running(**keys) as wire:
        port = int(wire.endpoints["motor"].about.partition("TLS on ")[2].partition(",")[0])
        context = strict(tmp_path / "ca.pem")
        with contextlib.suppress(ssl.SSLError):  # as it may be told, in TLS 1.3 after the handshake
            assert await heard(port, HELLO, ssl=context, server_hostname="localhost") == b""
        context.load_cert_chain(tmp_path / "client.pem", tmp_path / "client.key")
        async with reader(port, tls_context=context) as client:
            await documents(client, 1)


def strict(ca):
    """What Python 3.13 makes of `create_default_context`."""
    context = ssl.create_default_context(cafile=ca)
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    return context


def test_certificates_are_made_once_and_anew_when_they_end(tmp_path, monkeypatch):
    first = make(tmp_path)
    before = first.ca.read_bytes()
    assert make(tmp_path).ca.read_bytes() == before
    assert first.server[1].stat().st_mode & 0o077 == 0
    first.client[0].unlink()
    assert make(tmp_path).ca.read_bytes() != before
    first.client[0].write_bytes(b"no certificate")
    with pytest.raises(OSError, match=str(tmp_path)):
        make(tmp_path)


async def test_a_stranger_to_the_protocol_is_let_go():
    async with running() as wire:
        port = port_of(wire)
        for said in (
            b"GET / HTTP/1.1\r\n\r\n",
            b"\x10\xff\xff\xff\x7f",
            b"\x10\x04\x00\x04MQ",
            b"\x30\x02\x00\x00",
        ):
            assert await heard(port, said, end=True) == b""
        old = b"\x10\x11\x00\x06MQIsdp\x03\x02\x00\x3c\x00\x03old"
        assert await heard(port, old) == b"\x20\x02\x00\x01"
        await well(port)


async def heard(port, said, *, end=False, **tls):
    """What a client hears that says this, until the other side hangs up."""
    stream, writer = await asyncio.open_connection("127.0.0.1", port, **tls)
    try:
        writer.write(said)
        if end:
            writer.write_eof()
        async with asyncio.timeout(PATIENCE_S):
            return await stream.read()
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def test_clients_that_come_and_go_in_quick_succession_do_not_end_each_other():
    async with running() as wire:
        for turn in range(60):
            hello = mqtt5.ConnectPacket(f"id-{turn % 2}", clean_start=True, keep_alive=60).write()
            stream, writer = await asyncio.open_connection("127.0.0.1", port_of(wire))
            writer.write(hello)
            assert await asyncio.wait_for(stream.readexactly(1), 2) == b"\x20"
            writer.write(b"\xe0\x00")
            writer.close()
            await writer.wait_closed()
        assert wire.counts["unacked"] == wire.counts["lost"] == 0


# --- sessions


def session(port, version, *, clean=False, expiry_s=600, **options):
    if version == V311:
        return aiomqtt.Client(
            "127.0.0.1", port, identifier="gw", protocol=V311, clean_session=clean, **options
        )
    properties = Properties(PacketTypes.CONNECT)
    properties.SessionExpiryInterval = expiry_s
    start = clean
    return aiomqtt.Client(
        "127.0.0.1", port, identifier="gw", protocol=V5, clean_start=start, properties=properties, **options
    )


async def missed(wire, version, *, clean=False, expiry_s=600, between=None):
    """The first number that a client sees after it was away, less the last before."""
    port = port_of(wire)
    async with session(port, version, clean=clean, expiry_s=expiry_s) as client:
        await client.subscribe(TOPIC, qos=1)
        before = (await documents(client, 3))[-1]["count"]
    if between is not None:
        await between()
    await asyncio.sleep(0.15)
    async with session(port, version, expiry_s=expiry_s) as client:
        try:
            (first,) = await documents(client, 1, 0.3)
        except TimeoutError:
            return None
        return first["count"] - before


@VERSIONS
async def test_a_session_is_kept_while_its_client_is_away(version):
    async with running() as wire:
        assert await missed(wire, version) <= 20


async def test_a_session_that_began_clean_is_kept_for_as_long_as_it_says():
    async with running() as wire:
        assert await missed(wire, V5, clean=True) <= 20
        assert await missed(wire, V5, expiry_s=0) is None
        assert await missed(wire, V311, clean=True) is None


@pytest.mark.parametrize("elsewhere", [False, True], ids=["own", "mosquitto"])
@VERSIONS
async def test_a_broker_that_stops_is_back_with_its_sessions_and_retained_messages_or_without(
    version, elsewhere, tmp_path, free_port
):
    async with AsyncExitStack() as stack:
        keys = {}
        if elsewhere:
            await stack.enter_async_context(mosquitto(free_port, tmp_path))
            keys["broker"] = f"127.0.0.1:{free_port}"
        wire = await stack.enter_async_context(running(**keys))
        port = port_of(wire)
        async with aiomqtt.Client("127.0.0.1", port, protocol=V5) as client:
            await client.publish("plant/name", b"pump", qos=1, retain=True)

        async def restart(session):
            await wire.switch([fault("stop", session=session)])
            assert not await listens(port)
            await asyncio.sleep(0.05)
            await wire.switch([])

        assert await missed(wire, version, between=lambda: restart("kept")) < 1000
        async with reader(port, "plant/name") as client:
            assert await payloads(client) == [b"pump"]
        assert await missed(wire, version, between=lambda: restart("lost")) is None
        if not elsewhere:
            async with reader(port, "plant/name") as client:
                assert await silent(client)
        await well(port, version)


async def test_keep_alive_zero_is_no_mistake():
    async with running() as wire, reader(port_of(wire), keepalive=0) as client:
        await documents(client, 2)


# --- brokers of others, ports, and the end


async def test_somebody_elses_broker_may_stand_behind_and_may_go_and_come_back(tmp_path, free_port):
    password = ["allow_anonymous false", f"password_file {tmp_path / 'users'}"]
    (tmp_path / "users").write_text("gw:secret\n")
    program = shutil.which("mosquitto_passwd")
    if program is None:
        pytest.skip("mosquitto_passwd is not installed")
    child = await asyncio.create_subprocess_exec(program, "-U", tmp_path / "users")
    await child.wait()
    keys = {"broker": f"127.0.0.1:{free_port}", "users": {"gw": "secret"}}
    login = {"username": "gw", "password": "secret"}
    async with AsyncExitStack() as stack:
        async with mosquitto(free_port, tmp_path, *password):
            wire = await stack.enter_async_context(running(**keys))
            for port in (free_port, port_of(wire)):
                for version in (V5, V311):
                    async with reader(port, version=version, **login) as client:
                        await documents(client, 2)
        lost = wire.counts["lost"]
        with pytest.raises(aiomqtt.MqttError):
            async with reader(port_of(wire), **login):
                pass
        await asyncio.sleep(0.1)
        assert wire.counts["lost"] > lost
        async with mosquitto(free_port, tmp_path, *password), reader(port_of(wire), **login) as client:
            await documents(client, 2)


async def test_a_broker_that_is_not_there_is_named(monkeypatch, free_port):
    monkeypatch.setattr("hw_sim.mqtt.publisher._PATIENCE_S", 0.2)
    with pytest.raises(OSError, match=f"127.0.0.1:{free_port}"):
        async with plugged(wire_of(broker=f"127.0.0.1:{free_port}")):
            pass


async def test_a_port_that_is_taken_is_named():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=str(port)):
            async with plugged(wire_of(port=port)):
                pass


async def test_it_listens_on_loopback_only_and_closes_twice_and_unstarted():
    wire = wire_of()
    await wire.close()
    async with plugged(wire):
        port = port_of(wire)
        assert await listens(port)
        with pytest.raises(OSError, match=r"refused|111"):
            await asyncio.open_connection("127.0.0.2", port)
    await wire.close()
    assert not await listens(port)


async def test_as_fast_as_it_takes_it_nothing_is_lost():
    wire = wire_of({"d": device(period="10ms")})
    got = []
    client = paho.Client(paho.CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
    client.on_connect = lambda client, *_: client.subscribe(TOPIC, 1)
    client.on_message = lambda _client, _data, message: got.append(message.payload)
    subscribed = asyncio.Event()
    loop = asyncio.get_running_loop()
    client.on_subscribe = lambda *_: loop.call_soon_threadsafe(subscribed.set)
    async with plugged(wire):
        client.connect_async("127.0.0.1", port_of(wire))
        client.loop_start()
        try:
            await asyncio.wait_for(subscribed.wait(), PATIENCE_S)
            for _ in range(10_000):
                await wire.ready()
                wire.bench.step()
                wire.step()
            async with asyncio.timeout(PATIENCE_S):
                while len(got) < 10_000:  # noqa: ASYNC110 - it counts in a thread of its own
                    await asyncio.sleep(0.01)
        finally:
            client.disconnect()
            client.loop_stop()
    assert [json.loads(each)["a"] for each in got] == [float(step) for step in range(2, 10_002)]
    assert wire.counts["sent"] == wire.counts["acked"] == 10_000
    assert wire.counts["lost"] == 0


# --- mosquitto_sub


@pytest.mark.skipif(shutil.which("mosquitto_sub") is None, reason="mosquitto_sub is not installed")
@pytest.mark.parametrize("protocol", ["mqttv5", "mqttv311"])
async def test_mosquitto_sub_reads_it_with_tls_and_a_password(protocol, tmp_path):
    async with running(tls_port=0, pki=str(tmp_path), users={"gw": "secret"}) as wire:
        tls_port = wire.endpoints["motor"].about.partition("TLS on ")[2].partition(",")[0]
        for port, more in (
            (str(port_of(wire)), []),
            (tls_port, ["--cafile", tmp_path / "ca.pem"]),
        ):
            child = await asyncio.create_subprocess_exec(
                "mosquitto_sub", "-h", "localhost", "-p", port, "-V", protocol, "-t", TOPIC, "-q", "1",
                "-u", "gw", "-P", "secret", "-C", "3", "-W", "5", *more,
                stdout=asyncio.subprocess.PIPE,
            )  # fmt: skip
            out, _ = await child.communicate()
            first, _, last = map(json.loads, out.splitlines())
            assert last["count"] - first["count"] == 20


def test_the_shipped_scenario_is_as_it_always_was():
    import tomllib
    from importlib.resources import files

    text = (files("hw_sim") / "scenarios" / "pump_skid.toml").read_text()
    settings = Settings.model_validate(tomllib.loads(text)["wires"]["motor"])
    motor = settings.devices["motor"]
    assert (motor.topic, motor.period, motor.qos, motor.version, motor.time) == (TOPIC, 0.1, 1, "5", "ts")
