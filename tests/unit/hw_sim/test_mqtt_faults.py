"""Every row of the MQTT wire's catalogue: on, seen on the wire as it says, off, and all is well again."""

import asyncio
import itertools
import json

import aiomqtt
import mqtt5
import pytest

from hw_sim.mqtt.faults import FAULTS
from tests.patience import PATIENCE_S
from tests.peers import packets_of
from tests.unit.hw_sim.mqtt_rig import (
    START,
    TOPIC,
    V5,
    V311,
    documents,
    fault,
    listens,
    payloads,
    port_of,
    reader,
    running,
    silent,
    take,
    thrown_out,
    well,
)

HELLO = mqtt5.ConnectPacket("raw", clean_start=True, keep_alive=60).write()
HELLO_311 = b"\x10\x0f\x00\x04MQTT\x04\x02\x00\x3c\x00\x03raw"


async def answer(port, hello=HELLO):
    """What a raw client hears upon its CONNECT before the gate hangs up."""
    stream, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(hello)
    async with asyncio.timeout(PATIENCE_S):
        heard = await stream.read()
    writer.close()
    await writer.wait_closed()
    return heard


async def stop(wire, port, client, switch):
    await switch(fault("stop"))
    await thrown_out(client)
    assert not await listens(port)
    lost = wire.counts["lost"]
    await asyncio.sleep(0.1)
    assert wire.counts["lost"] > lost


async def half_open(wire, port, client, switch):
    await switch(fault("half_open"))
    stream, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(HELLO)
    assert await silent(client)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(stream.read(1), 0.1)
    await switch()
    assert (await asyncio.wait_for(stream.read(1), 2)) == b"\x20"
    first, *_, last = await documents(client, 30)
    assert last["count"] - first["count"] == 290  # nothing is missing
    writer.close()
    await writer.wait_closed()


async def slow(wire, port, client, switch):
    await switch(fault("slow", rate="1000"))
    began = asyncio.get_running_loop().time()
    size = sum(len(each) for each in await payloads(client, 10))
    assert size / (asyncio.get_running_loop().time() - began) < 1300
    await switch(fault("slow", rate="0", delay="300ms"))
    await asyncio.wait_for(client.publish("x", b"", qos=0), PATIENCE_S)
    began = asyncio.get_running_loop().time()
    await client.publish("plant/other", b"there and back", qos=1, timeout=PATIENCE_S)
    assert asyncio.get_running_loop().time() - began > 0.55  # there, and the acknowledgement back


async def login(wire, port, client, switch):
    codes = {"not_authorised": (0x87, 5), "bad_login": (0x86, 4), "unavailable": (0x88, 3)}
    for reason, (code, code311) in codes.items():
        await switch(fault("login", reason=reason))
        packet, _ = mqtt5.read(memoryview(await answer(port)))
        assert packet.reason_code == code
        assert await answer(port, HELLO_311) == bytes([0x20, 2, 0, code311])
    await thrown_out(client)
    await switch(fault("login"))
    with pytest.raises(aiomqtt.MqttError, match="Not authorized"):
        await reader(port).__aenter__()


async def subscribe(wire, port, client, switch):
    await switch(fault("subscribe"))
    await thrown_out(client)
    for version, code in ((V5, 0x87), (V311, 0x80)):
        async with aiomqtt.Client("127.0.0.1", port, protocol=version) as other:
            granted = await other.subscribe([(TOPIC, 1), ("plant/#", 0)])
            assert [getattr(each, "value", each) for each in granted] == [code, code]
            assert await silent(other, 0.1)


async def disconnect(wire, port, client, switch):
    await switch(fault("disconnect", every="2s"))
    await thrown_out(client)
    async with reader(port) as again:
        await documents(again, 2)
        await thrown_out(again)


async def takeover(wire, port, client, switch):
    await switch(fault("takeover", every="2s"))
    await thrown_out(client)
    async with reader(port, identifier="me") as again:
        await documents(again, 2)
        await thrown_out(again)
    async with reader(port, identifier="me", version=V311) as again:
        await thrown_out(again)


async def garbage(wire, port, client, switch):
    await switch(fault("garbage", every="4"))
    await thrown_out(client)
    stream, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(HELLO)
    writer.write(mqtt5.SubscribePacket(1, [mqtt5.TopicFilter(TOPIC, max_qos=mqtt5.QoS.AT_MOST_ONCE)]).write())
    packets = packets_of(stream)
    kinds = [type(await anext(packets)).__name__ for _ in range(4)]
    assert kinds == ["ConnAckPacket", "SubAckPacket", "PublishPacket", "PublishPacket"]
    with pytest.raises(ValueError, match=r"."):
        await anext(packets)
    writer.close()
    await writer.wait_closed()


async def retained_junk(wire, port, client, switch):
    await switch(fault("retained_junk"))
    junk = next(each for each in await take(client, 10) if not each.payload.startswith(b"{"))
    async with reader(port) as other:
        (first,) = await take(other)
        assert first.retain
        assert first.payload == junk.payload
        with pytest.raises(ValueError, match=r"."):
            json.loads(first.payload)
        await documents(other, 3)
    await switch()
    assert b"" in await payloads(client, 10)
    async with reader(port) as other:
        assert not any(each.retain for each in await take(other, 3))


async def malformed(wire, port, client, switch):
    await switch(fault("malformed", every="3"))
    found = await payloads(client, 13)
    assert [bad(each) for each in found[3:]] in (
        [(turn + shift) % 3 == 0 for turn in range(10)] for shift in range(3)
    )
    assert sum(map(bad, found)) >= 3


def bad(payload):
    try:
        json.loads(payload)
    except ValueError:
        return True
    return False


async def later(client):
    """A message that was made after what was switched just now."""
    return (await payloads(client, 4))[-1]


async def empty(wire, port, client, switch):
    await switch(fault("empty"))
    assert await later(client) == b""


async def nan(wire, port, client, switch):
    await switch(fault("nan"))
    text = (await later(client)).decode()
    assert text.split(",", 1)[1] == '"count":NaN,"half":Infinity,"nothing":-Infinity}'


async def wrong_type(wire, port, client, switch):
    await switch(fault("wrong_type"))
    found = json.loads(await later(client))
    assert [type(found[name]) for name in ("count", "half", "nothing")] == [str, bool, list]


async def bad_utf8(wire, port, client, switch):
    await switch(fault("bad_utf8"))
    payload = await later(client)
    with pytest.raises(UnicodeDecodeError):
        payload.decode()
    json.loads(payload.replace(b"\xff\xfe", b""))


async def missing(wire, port, client, switch):
    await switch(fault("missing"))
    assert set(json.loads(await later(client))) == {"ts", "half", "nothing"}


async def deep(wire, port, client, switch):
    await switch(fault("deep", depth="50"))
    found, depth = json.loads(await later(client)), 0
    while found is not None:
        ((_, found),) = found.items()
        depth += 1
    assert depth == 50


async def huge(wire, port, client, switch):
    await switch(fault("huge", every="1s"))
    found = await payloads(client, 25, 10)
    assert 2 <= sum(len(each) == 10 << 20 for each in found) <= 4
    assert all(json.loads(each).keys() >= {"ts", "count", "half"} for each in found)
    assert len({json.loads(each)["count"] for each in found}) > 20


async def clock(wire, port, client, switch):
    await switch(fault("clock", by="-3600"))
    found = json.loads(await later(client))
    assert found["ts"] == pytest.approx(START - 3600 + (found["count"] - 1) / 100)


async def duplicate(wire, port, client, switch):
    await switch(fault("duplicate"))
    found = [each["count"] for each in await documents(client, 24)][4:]
    found = found[found[0] != found[1] :]
    assert found[0:18:2] == found[1:18:2]
    assert len(set(found[:18])) == 9


async def out_of_order(wire, port, client, switch):
    await switch(fault("out_of_order"))
    counts = [each["count"] for each in await documents(client, 24)][4:]
    steps = [int(after - before) for before, after in itertools.pairwise(counts)]
    assert {steps[0], steps[1]} == {-10, 30}
    assert len(set(steps[0::2])) == len(set(steps[1::2])) == 1
    await switch()
    found = sorted([*counts, *(each["count"] for each in await documents(client, 20))])[2:-2]
    assert {after - before for before, after in itertools.pairwise(found)} == {10.0}  # all came, and once


def sent_by_step(wire):
    """How many messages had been sent before each step from now on."""
    found, step = [], wire.step

    def noted():
        found.append(wire.counts["sent"])
        step()

    wire.step = noted
    return found


async def burst(wire, port, client, switch):
    await switch(fault("burst", hold="2s"))
    assert await silent(client, 0.1)
    sent = sent_by_step(wire)
    (first, *_), made = await documents(client, 1, 10.0), wire.now()
    found = await documents(client, 15, 10.0)
    assert made - first["ts"] > 1.9  # it has been held so long
    steps = {after - before for before, after in itertools.pairwise(sent)}
    assert steps - {0} <= {21, 22}  # of 2 s all leave between two steps of the plant
    assert [each["count"] - found[0]["count"] for each in found] == [10 * each for each in range(15)]


CHECKS = {
    check.__name__: check
    for check in (
        stop, half_open, slow, login, subscribe, disconnect, takeover, garbage, retained_junk, malformed,
        empty, nan, wrong_type, bad_utf8, missing, deep, huge, clock, duplicate, out_of_order, burst,
    )
}  # fmt: skip


def test_each_row_is_covered():
    assert [each.short for each in FAULTS] == list(CHECKS)


@pytest.mark.parametrize("name", CHECKS)
async def test_it_does_on_the_wire_what_its_row_says_and_off_all_is_well(name):
    async with running() as wire:
        port = port_of(wire)

        async def switch(*active):
            await wire.switch(active)

        async with reader(port, identifier="me") as client:
            await documents(client, 2)
            await CHECKS[name](wire, port, client, switch)
            await switch()
        await well(port)
        await well(port, V311)
    of_the_link = {"half_open", "slow", "login", "subscribe", "garbage", "stop", "disconnect", "takeover"}
    assert name in of_the_link or wire.counts[name] > 0
    assert wire.counts["sent"] == wire.counts["acked"] + wire.counts["unacked"]
