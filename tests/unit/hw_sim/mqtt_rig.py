"""A bench whose numbers are known, on an MQTT wire, and clients that were not written here."""

import asyncio
import json
import math
import shutil
from contextlib import asynccontextmanager

import aiomqtt
import pytest

from hw_sim.bench import Bench, Rig
from hw_sim.fault import Fault
from hw_sim.mqtt.faults import FAULTS
from hw_sim.mqtt.section import Settings
from hw_sim.mqtt.wire import build
from hw_sim.plant import HEALTHY, Channel
from tests.patience import PATIENCE_S

V5, V311 = aiomqtt.ProtocolVersion.V5, aiomqtt.ProtocolVersion.V311
START = 1_700_000_000.0
TOPIC = "plant/motor"
MOTOR = {
    "topic": TOPIC,
    "period": "100ms",
    "time": "ts",
    "fields": {"count": "p.count", "half": "p.half", "nothing": "p.nothing"},
}
VERSIONS = pytest.mark.parametrize("version", [V5, V311], ids=["5", "3.1.1"])


class Counter:
    """A plant that counts its steps; one of its sensors shows nothing."""

    channels = {name: Channel("") for name in ("p.count", "p.half", "p.nothing")}  # noqa: RUF012
    step_s = 0.01
    shows = {}  # noqa: RUF012

    def __init__(self):
        self.steps = 0

    def step(self, stress=HEALTHY):
        self.steps += 1
        return {"p.count": float(self.steps), "p.half": self.steps + 0.123456, "p.nothing": math.nan}


def wire_of(devices=None, **keys):
    """A wire that has not started; its bench is `wire.bench`."""
    section = {"type": "mqtt", "port": 0, "devices": devices or {"motor": MOTOR}, **keys}
    bench = Bench([Rig("p", Counter())], seed=1)
    wire = build("wire", Settings.model_validate(section), bench)
    wire.now = lambda: START + bench.at_s
    return wire


@asynccontextmanager
async def plugged(wire):
    """A wire that is up until the block is left."""
    try:
        await wire.start()
        yield wire
    finally:
        await wire.close()


@asynccontextmanager
async def running(devices=None, **keys):
    """A wire that is up, with its bench stepped, some ten times as fast as real time."""
    wire = wire_of(devices, **keys)
    async with plugged(wire):
        task = asyncio.create_task(_stepping(wire))
        try:
            yield wire
        finally:
            task.cancel()
            await asyncio.wait([task])
            if not task.cancelled():
                task.result()


async def _stepping(wire):
    while True:
        wire.bench.step()
        wire.step()
        await asyncio.sleep(0.001)


def port_of(wire):
    plain = [each for each in wire.endpoints.values() if each.startswith("mqtt:")]
    (port,) = {int(each.rpartition(":")[2]) for each in plain}
    return port


def fault(name, **written):
    """A fault of this wire, with the defaults of its row."""
    kind = next(each for each in FAULTS if each.short == name)
    assert set(written) <= set(kind.parameters)
    settings = {key: each.read(written.get(key, each.default)) for key, each in kind.parameters.items()}
    return Fault(kind, 0.0, None, settings, ())


@asynccontextmanager
async def reader(port, topic=TOPIC, version=V5, **options):
    """A client that has subscribed."""
    async with aiomqtt.Client("127.0.0.1", port, protocol=version, **options) as client:
        await client.subscribe(topic, qos=1)
        yield client


async def take(client, count=1, timeout_s=PATIENCE_S):
    """The client's next messages."""
    found = []
    async with asyncio.timeout(timeout_s):
        async for message in client.messages:
            found.append(message)
            if len(found) == count:
                return found
    raise AssertionError("the stream has ended")


async def payloads(client, count=1, timeout_s=PATIENCE_S):
    return [message.payload for message in await take(client, count, timeout_s)]


async def documents(client, count=1, timeout_s=PATIENCE_S):
    return [json.loads(each) for each in await payloads(client, count, timeout_s)]


async def silent(client, for_s=0.2):
    """Whether nothing comes for a while, after what was on its way."""
    for _ in range(5):
        try:
            await take(client, 1, for_s)
        except TimeoutError:
            return True
    return False


async def thrown_out(client, timeout_s=PATIENCE_S):
    """Wait until the client's connection is ended from the other side."""
    with pytest.raises(aiomqtt.MqttError):
        await take(client, 1_000_000, timeout_s)


async def well(port, version=V5):
    """Whatever was, a client gets the messages that belong there."""
    async with reader(port, version=version) as client:
        found = await documents(client, 3)
    assert all(set(each) == {"ts", "count", "half", "nothing"} for each in found)
    assert [each["count"] - found[0]["count"] for each in found] == [0, 10, 20]
    assert all(each["ts"] == pytest.approx(START + (each["count"] - 1) / 100) for each in found)


async def listens(port):
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    await writer.wait_closed()
    return True


@asynccontextmanager
async def mosquitto(port, folder, *more):
    """A broker that was not written here."""
    program = shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
    if program is None:
        pytest.skip("mosquitto is not installed")
    config = folder / "mosquitto.conf"
    lines = [f"listener {port} 127.0.0.1", "user root", *(more or ["allow_anonymous true"])]
    config.write_text("\n".join([*lines, ""]))
    child = await asyncio.create_subprocess_exec(program, "-c", config, stderr=asyncio.subprocess.DEVNULL)
    try:
        async with asyncio.timeout(PATIENCE_S):
            while not await listens(port):  # noqa: ASYNC110 - it tells nobody when it is up
                await asyncio.sleep(0.02)
        yield
    finally:
        child.terminate()
        await child.wait()
