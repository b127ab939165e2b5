"""MQTT from the socket to the ring, fed by a process that never loses: a broker with one client and no queue.

mqtt.samples     samples a second of one core's processor time, JSON of three values, QoS 0, through the
                 source and its ingest into a ring of 100 ms; the reference is `aiomqtt`, `json` and a row
                 of numpy for each message, fed alike
mqtt.qos1        the same at QoS 1, acknowledged in batches once the samples are in the ring
mqtt.topics      the same at QoS 0 from 50 topics in turn, with three channels each
"""

import asyncio
import gc
import json
import multiprocessing
import socket
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import aiomqtt
import mqtt5
import numpy as np

from dxad.ingest import Ingest
from dxad.ring.ringbuffer import RingBuffer
from dxad.runtime.clock import SystemClock
from dxad.runtime.health import Health
from dxad.runtime.metrics import Metrics
from dxad.sources.mqtt import Config, Mqtt
from dxad.types import NS_PER_S
from tests.bench.report import Metric

__all__ = ["mqtt"]

_VALUES: Final = 3
_MESSAGES: Final = 300_000
_NAIVE_MESSAGES: Final = 30_000
_TOPICS: Final = 50
_PERIOD: Final = NS_PER_S // 10
_TICK_S: Final = 0.05
_ROUNDS: Final = 3
_PATIENCE_S: Final = 30.0
_WINDOW: Final = 1000
"""Messages that may wait for their acknowledgements."""


def mqtt() -> dict[str, Metric]:
    """The three of them; the least of several rounds, in which both sides take turns."""
    found: dict[str, list[float]] = {"samples": [], "qos1": [], "topics": [], "naive": []}
    for _ in range(_ROUNDS):
        found["samples"].append(_measured(_ours, _MESSAGES, topics=1, qos=0))
        found["naive"].append(_measured(_naive, _NAIVE_MESSAGES, topics=1, qos=0))
        found["qos1"].append(_measured(_ours, _MESSAGES, topics=1, qos=1))
        found["topics"].append(_measured(_ours, _MESSAGES, topics=_TOPICS, qos=0))
    per_s = {name: _VALUES / min(each) for name, each in found.items()}
    naive = per_s.pop("naive")
    goals = {"samples": 1.5e6}
    return {
        "mqtt.of_naive": Metric(
            value=per_s["samples"], unit="samples/s", reference=naive, goal=16.0, of_ratio=True
        ),
        **{
            f"mqtt.{name}": Metric(value=value, unit="samples/s", reference=naive, goal=goals.get(name))
            for name, value in per_s.items()
        },
    }


_Reader = Callable[[int, int, int, int], Awaitable[float]]


def _measured(reader: _Reader, messages: int, *, topics: int, qos: int) -> float:
    """Processor seconds of this process a message."""
    with _fed(messages, topics, qos) as port:
        gc.collect()
        gc.freeze()
        try:
            return asyncio.run(reader(port, messages, topics, qos)) / messages  # type: ignore[arg-type]
        finally:
            gc.unfreeze()


async def _ours(port: int, messages: int, topics: int, qos: int) -> float:
    channels = {
        f"c{topic}_{name}": {"topic": f"plant/{topic}", "path": name}
        for topic in range(topics)
        for name in ("current", "speed", "temperature")
    }
    config = Config.model_validate(
        {
            "type": "mqtt", "url": f"mqtt://127.0.0.1:{port}", "period": "100ms", "qos": qos,
            "version": "5", "channels": channels, "queue": 200_000,
        }
    )  # fmt: skip
    clock = SystemClock()
    source = Mqtt("bench", config, clock=clock)
    ring = RingBuffer(source.channels, period=_PERIOD, slots=1000, start=clock.now() // _PERIOD)
    ingest = Ingest("bench", source, config, ring, clock=clock, health=Health(clock), metrics=Metrics())
    task = asyncio.create_task(ingest.run())
    try:
        for _ in range(1000):
            if ingest.connected:
                break
            await asyncio.sleep(0.005)
        spent_s = time.process_time()
        for _ in range(round(_PATIENCE_S / _TICK_S)):
            if ingest.snapshot()["samples"] >= messages * _VALUES:
                break
            await asyncio.sleep(_TICK_S)
            ingest.tick(clock.now())
        assert ingest.snapshot()["samples"] == messages * _VALUES, ingest.snapshot()
        return time.process_time() - spent_s
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _naive(port: int, messages: int, _topics: int, qos: int) -> float:
    """As one would write it in an hour."""
    rows = np.zeros((1000, _VALUES))
    async with aiomqtt.Client("127.0.0.1", port, protocol=aiomqtt.ProtocolVersion.V5) as client:
        spent_s = time.process_time()
        await client.subscribe("plant/#", qos=qos)
        at = 0
        async for message in client.messages:
            values = json.loads(message.payload)  # type: ignore[arg-type]
            rows[at % 1000] = (values["current"], values["speed"], values["temperature"])
            at += 1
            if at == messages:
                break
        return time.process_time() - spent_s


# -- who feeds ---------------------------------------------------------------------------------------------


@contextmanager
def _fed(messages: int, topics: int, qos: int) -> Iterator[int]:
    """The port of a process that sends so many messages to whoever subscribes."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        child = multiprocessing.get_context("fork").Process(
            target=_feed, args=(server, messages, topics, qos), daemon=True
        )
        child.start()
        try:
            yield server.getsockname()[1]
        finally:
            child.terminate()
            child.join()


def _feed(server: socket.socket, messages: int, topics: int, qos: int) -> None:
    server.settimeout(_PATIENCE_S)
    wire, _ = server.accept()
    with wire:
        wire.settimeout(_PATIENCE_S)
        asked = _asked(wire)
        next(asked)
        wire.sendall(mqtt5.ConnAckPacket().write())
        granted = 0
        while granted < topics:  # a SUBSCRIBE asks for some of them
            subscribe = next(asked)
            assert isinstance(subscribe, mqtt5.SubscribePacket)
            codes = [mqtt5.SubAckReasonCode(qos)] * len(subscribe.topic_filters)
            wire.sendall(mqtt5.SubAckPacket(subscribe.packet_id, codes).write())
            granted += len(codes)
        acknowledged, rest = 0, b""
        for begin in range(0, messages, _WINDOW):
            count = min(_WINDOW, messages - begin)
            wire.sendall(b"".join(_message(begin + at, topics, qos) for at in range(count)))
            while qos and acknowledged < begin + count - _WINDOW // 2:
                found, rest = _acknowledged(rest + wire.recv(1 << 16))
                acknowledged += found
        while wire.recv(1 << 16):
            pass


def _message(number: int, topics: int, qos: int) -> bytes:
    values = {"current": number % 977 / 8, "speed": 1450 + number % 31 / 4, "temperature": 51.125}
    payload = json.dumps(values).encode()
    identity: dict[str, Any] = {"packet_id": number % 65_000 + 1} if qos else {}
    packet = mqtt5.PublishPacket(f"plant/{number % topics}", payload=payload, qos=mqtt5.QoS(qos), **identity)
    return packet.write()


def _acknowledged(data: bytes) -> tuple[int, bytes]:
    found, at = 0, 0
    view = memoryview(data)
    while at < len(data):
        try:
            packet, used = mqtt5.read(view[at:])
        except IndexError:
            break
        at += used
        found += isinstance(packet, mqtt5.PubAckPacket)
    return found, data[at:]


def _asked(wire: socket.socket) -> Iterator[object]:
    """The packets of a client, one by one."""
    data = b""
    while True:
        try:
            packet, used = mqtt5.read(memoryview(data))
        except IndexError:
            more = wire.recv(1 << 16)
            if not more:
                raise ConnectionError("the client has gone") from None
            data += more
            continue
        data = data[used:]
        yield packet
