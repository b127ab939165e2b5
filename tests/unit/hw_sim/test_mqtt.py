import asyncio
import json
import shutil
import time
from contextlib import AsyncExitStack, asynccontextmanager

import aiomqtt
import pytest

from hw_sim.bench import Bench
from hw_sim.broker import Broker
from hw_sim.mqtt import TOPIC, MqttWire
from hw_sim.scenario import free_port, free_ports
from tests.peers import plugged

V5, V311 = aiomqtt.ProtocolVersion.V5, aiomqtt.ProtocolVersion.V311


def publishing(port):
    """The bench's motor, publishing to a broker."""
    return plugged(MqttWire(Bench(1, ()), host="127.0.0.1", port=port))


@asynccontextmanager
async def mosquitto(port, folder):
    """A broker that we did not write."""
    program = shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
    if program is None:
        pytest.skip("mosquitto is not installed")
    config = folder / "mosquitto.conf"
    config.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\n")
    child = await asyncio.create_subprocess_exec(program, "-c", config, stderr=asyncio.subprocess.DEVNULL)
    try:
        async with asyncio.timeout(5):
            while not await listens(port):  # noqa: ASYNC110 - it tells nobody when it is up
                await asyncio.sleep(0.02)
        yield
    finally:
        child.terminate()
        await child.wait()


async def listens(port):
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    await writer.wait_closed()
    return True


async def messages(port, count, version=V5, timeout_s=3.0):
    """So many of the motor's messages, as an independent client sees them."""
    found = []
    async with asyncio.timeout(timeout_s), aiomqtt.Client("127.0.0.1", port, protocol=version) as client:
        await client.subscribe(TOPIC, qos=1)
        async for message in client.messages:
            found.append(json.loads(message.payload))
            if len(found) == count:
                return found
    raise AssertionError("the broker went away")


@pytest.mark.parametrize("version", [V5, V311], ids=["5", "3.1.1"])
async def test_the_motor_is_on_both_listeners_ten_times_a_second(version):
    mqtt5, mqtt311 = free_ports(2)
    with Broker(mqtt5_port=mqtt5, mqtt311_port=mqtt311):
        async with publishing(mqtt5) as wire:
            assert wire.endpoint == f"mqtt://127.0.0.1:{mqtt5}"
            found = await messages(mqtt5 if version is V5 else mqtt311, 8, version)
    assert all(set(each) == {"ts", "current", "speed", "winding_temperature"} for each in found)
    assert found[-1]["ts"] - found[0]["ts"] == pytest.approx(0.7, abs=0.15)
    assert found[-1]["ts"] == pytest.approx(time.time(), abs=1.0)


async def test_the_values_are_those_of_the_plant():
    mqtt5, mqtt311 = free_ports(2)
    with Broker(mqtt5_port=mqtt5, mqtt311_port=mqtt311):
        async with publishing(mqtt5) as wire:
            (found,) = await messages(mqtt5, 1)
    for name in ("current", "speed", "winding_temperature"):
        assert found[name] == pytest.approx(wire._bench.readings[f"motor.{name}"], abs=1e-4)


async def test_off_the_motor_is_silent_and_on_it_publishes_again_the_broker_stays():
    mqtt5, mqtt311 = free_ports(2)
    with Broker(mqtt5_port=mqtt5, mqtt311_port=mqtt311):
        async with publishing(mqtt5) as wire:
            await messages(mqtt5, 1)
            await wire.stop()
            await wire.stop()
            with pytest.raises(TimeoutError):
                await messages(mqtt5, 1, timeout_s=0.5)
            await wire.start()
            await messages(mqtt5, 2)


async def test_the_broker_listens_on_loopback_only_and_leaves_its_ports():
    mqtt5, mqtt311 = free_ports(2)
    with Broker(mqtt5_port=mqtt5, mqtt311_port=mqtt311):
        assert await listens(mqtt5)
        assert await listens(mqtt311)
        with pytest.raises(OSError, match=r"refused|111"):
            await asyncio.open_connection("127.0.0.2", mqtt5)
    assert not await listens(mqtt5)
    assert not await listens(mqtt311)


async def test_a_broker_on_a_port_that_is_taken_says_so():
    mqtt5, mqtt311, third = free_ports(3)
    with (
        Broker(mqtt5_port=mqtt5, mqtt311_port=mqtt311),
        pytest.raises(OSError, match=str(mqtt5)),
        Broker(mqtt5_port=mqtt5, mqtt311_port=third),
    ):
        pass


async def test_another_broker_may_be_used_and_may_go_and_come_back(tmp_path):
    port = free_port()
    async with AsyncExitStack() as stack:
        async with mosquitto(port, tmp_path):
            await stack.enter_async_context(publishing(port))
            await messages(port, 2, V311)
        assert not await listens(port)
        async with mosquitto(port, tmp_path):
            await messages(port, 2)


async def test_a_broker_that_is_not_there_is_named(monkeypatch):
    monkeypatch.setattr("hw_sim.mqtt._PATIENCE_S", 0.2)
    port = free_port()
    with pytest.raises(ConnectionError, match=f"127.0.0.1:{port}"):
        async with publishing(port):
            pass
