"""The MQTT source through what goes wrong with brokers, networks and payloads, told once and healed."""

import asyncio
import contextlib
import json
import socket
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import mqtt5
import pytest

from dxad.errors import DecodeError, NotConnected
from dxad.ingest import Ingest
from dxad.ring.ringbuffer import RingBuffer
from dxad.runtime.backoff import Backoff
from dxad.runtime.clock import SystemClock
from dxad.runtime.health import Health
from dxad.runtime.metrics import Metrics
from dxad.sources.mqtt import Config, Mqtt
from dxad.types import Quality, Reason
from hw_sim.ports import free_port
from tests.mqttbrokers import FakeBroker, running_mosquitto
from tests.patience import PATIENCE_S
from tests.peers import Relay, listening, publish


def config(port: int, **settings: Any) -> Config:
    document = {"type": "mqtt", "topic": "t", "period": "100ms", "channels": {"a": {}, "b": {}}}
    return Config.model_validate({**document, "url": f"mqtt://127.0.0.1:{port}", **settings})


@asynccontextmanager
async def connected(port, **settings):
    source = Mqtt("motor", config(port, **settings), clock=SystemClock())
    try:
        await source.connect()
        yield source
    finally:
        await source.close()


@asynccontextmanager
async def ingesting(port, **settings):
    """An ingest that connects again and again, with its conditions."""
    clock, made, health = SystemClock(), config(port, **settings), Health(SystemClock())
    ring = RingBuffer(made.declared("s"), period=made.period, slots=100, start=clock.now() // made.period)
    ingest = Ingest(
        "s", Mqtt("s", made, clock=clock), made, ring, clock=clock, health=health, metrics=Metrics(),
        backoff=Backoff(first_s=0.05, most_s=0.1),
    )  # fmt: skip
    task = asyncio.create_task(ingest.run())
    try:
        yield ingest, health
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(true, within_s=PATIENCE_S):
    async with asyncio.timeout(within_s):
        while not true():  # noqa: ASYNC110 - what is waited for is anything at all
            await asyncio.sleep(0.01)


def open_files():
    return len(list(Path("/proc/self/fd").iterdir()))


def told(health):
    return {each.code: each.detail for each in health.active}


class TestNetwork:
    async def test_a_broker_that_is_not_there_at_the_start_is_found_when_it_comes(self, caplog):
        fake, port = FakeBroker(), free_port()
        async with ingesting(port) as (ingest, health):
            await until(lambda: ingest.snapshot()["disconnects"] > 3)
            assert "refused" in told(health)["source.down"]
            async with listening(fake.serve, port):
                await until(lambda: ingest.connected)
                fake.writer.write(fake.send(b'{"a": 1, "b": 2}'))
                await until(lambda: ingest.snapshot()["samples"] == 2)
                assert told(health) == {}
        begun = [
            each for each in caplog.records if each.levelname == "ERROR" and "source.down" in each.message
        ]
        assert len(begun) == 1, "however many attempts"

    async def test_a_link_that_carries_nothing_any_more_is_given_up_within_its_keep_alive(self):
        fake = FakeBroker()
        fake.connack = mqtt5.ConnAckPacket(server_keep_alive=1)
        async with listening(fake.serve) as behind:
            relay = Relay(behind)
            async with listening(relay.serve) as port, ingesting(port) as (ingest, health):
                await until(lambda: ingest.connected)
                relay.dead = True
                loop = asyncio.get_running_loop()
                since = loop.time()
                await until(lambda: not ingest.connected)
                assert loop.time() - since < 1.5 * 1.0
                assert "has not answered a ping for 0.5 s" in told(health)["source.down"]
                relay.dead = False
                await until(lambda: ingest.connected)

    async def test_a_broker_that_restarts_and_forgets_is_told_and_asked_anew(self, tmp_path):
        port = free_port()
        lines = ["allow_anonymous true", "persistence false"]
        async with ingesting(port, session="1h", client_id="gw", qos=1) as (ingest, health):
            for _ in range(2):
                with running_mosquitto(tmp_path, *lines, port=port):
                    before = ingest.snapshot()["samples"]
                    await until(lambda: ingest.connected)
                    await publish(port, "t", b'{"a": 1, "b": 2}')
                    await until(lambda before=before: ingest.snapshot()["samples"] == before + 2)
                    assert "source.down" not in told(health)
                await until(lambda: not ingest.connected)
            assert "the broker has forgotten the session" in told(health)["source.rejecting"]
            shown = ingest.snapshot()
            assert (shown["wire"]["messages"], shown["messages_rejected"]) == (2, 0), "that is no message"

    async def test_a_name_that_fails_and_then_means_another_machine_is_followed(self, monkeypatch):
        fake, port = FakeBroker(), free_port()
        where: list[str] = []
        loop = asyncio.get_running_loop()

        async def stand_in(host, port, **_):
            if not where:
                raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (where[-1], port))]

        monkeypatch.setattr(loop, "getaddrinfo", stand_in)
        async with ingesting(port, url=f"mqtt://broker.plant:{port}") as (ingest, health):
            await until(lambda: ingest.snapshot()["disconnects"] > 2)
            assert f"broker.plant:{port}: Temporary failure in name resolution" in told(health)["source.down"]
            for address in ("127.0.0.1", "127.0.0.2"):
                where.append(address)
                server = await asyncio.start_server(fake.serve, address, port)
                await until(lambda: ingest.connected)
                fake.writer.write(fake.send(b'{"a": 1, "b": 2}'))
                await until(lambda: told(health) == {})
                server.close()
                fake.writer.transport.abort()
                await until(lambda: not ingest.connected)
            assert ingest.snapshot()["samples"] == 4

    async def test_a_handshake_that_the_broker_breaks_off_is_tried_again(self):
        port = free_port()
        async with ingesting(port) as (ingest, _):
            with contextlib.suppress(TimeoutError):
                async with listening(lambda _r, _w: asyncio.sleep(0), port):
                    await until(lambda: ingest.snapshot()["disconnects"] > 2)
            fake = FakeBroker()
            async with listening(fake.serve, port):
                await until(lambda: ingest.connected)


PAYLOADS = {
    "malformed": b'{"a": 1, "b"',
    "empty": b"",
    "no object": b"[1, 2]",
    "bad UTF-8": b'{"a": 1, "b": 2, "n": "\xff\xfe"}',
    "deep": b'{"a":' * 20_000 + b"1" + b"}" * 20_000,
    "infinite": b'{"a": Infinity, "b": 2}',
    "not a number": b'{"a": NaN, "b": 2}',
    "too large": json.dumps({"a": 1, "b": 2, "x": "y" * 300_000}).encode(),
}
DOUBTFUL = {
    "text": b'{"a": "1.5", "b": 2}',
    "a truth": b'{"a": true, "b": 2}',
    "an array": b'{"a": [1], "b": 2}',
    "nothing": b'{"a": null, "b": 2}',
    "missing": b'{"b": 2}',
    "beyond a float": b'{"a": 1e999, "b": 2}',
}


class TestPayloads:
    @pytest.mark.parametrize("qos", [0, 1, 2])
    async def test_each_that_is_none_is_counted_and_the_next_is_read(self, tmp_path, qos):
        rejected, good = 0, []
        with running_mosquitto(tmp_path, "allow_anonymous true") as (port, _):
            async with connected(port, qos=qos) as source:
                for payload in PAYLOADS.values():
                    await publish(port, "t", payload, b'{"a": 5, "b": 6}', qos=qos)
                async with asyncio.timeout(PATIENCE_S):
                    while rejected < len(PAYLOADS) or len(good) < 2 * len(PAYLOADS):
                        try:
                            good += (await source.read()).samples["value"].tolist()
                        except DecodeError as error:
                            rejected += error.rejected
        assert rejected == len(PAYLOADS)
        assert good == [5.0, 6.0] * len(PAYLOADS)

    @pytest.mark.parametrize("name", DOUBTFUL)
    async def test_a_field_that_is_no_number_is_bad_and_its_neighbour_good(self, name):
        fake = FakeBroker()
        async with listening(fake.serve) as port, connected(port) as source:
            fake.writer.write(fake.send(DOUBTFUL[name]))
            try:
                samples = (await source.read()).samples
            except DecodeError:
                assert name == "beyond a float", "which is no JSON at all"
                return
            assert samples["quality"].tolist() == [Quality.BAD, Quality.GOOD]
            assert samples["reason"].tolist() == [Reason.TYPE, Reason.NONE]

    async def test_a_decoder_that_fails_costs_its_message_alone(self, monkeypatch):
        from dxad.decode.json import Json

        whole = Json.decode

        def fails(self, payload):
            return 1 / 0 if payload == b"boom" else whole(self, payload)

        monkeypatch.setattr(Json, "decode", fails)
        fake = FakeBroker()
        async with listening(fake.serve) as port, connected(port) as source:
            fake.writer.write(fake.send(b'{"a": 1, "b": 2}', b"boom", b'{"a": 3, "b": 4}'))
            await asyncio.sleep(0.05)
            assert (await source.read()).samples["value"].tolist() == [1.0, 2.0, 3.0, 4.0]
            with pytest.raises(DecodeError, match="its decoder fails: ZeroDivisionError: division by zero"):
                await source.read()


async def test_an_attempt_that_fails_leaves_no_descriptor():
    async def hangs_up(_reader, _writer):
        pass

    async with listening(hangs_up) as port:
        source = Mqtt("s", config(port), clock=SystemClock())
        source.coalesce_s, before = 0.0, 0
        for turn in range(100):
            with pytest.raises(NotConnected):
                await source.connect()
            if turn == 9:
                await asyncio.sleep(0.05)
                before = open_files()
        await source.close()
        await asyncio.sleep(0.05)
        assert open_files() <= before
