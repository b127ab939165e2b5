"""OPC-UA from the wire to the ring: what a notification costs, by a subscription to a server elsewhere.

opcua.told       µs of processor time a notification, through the source and its ingest into a ring of
                 100 ms, 100 variables that change ten times a second each: a message of 100 notifications
                 at a time; the reference is asyncua's own subscription with a callback that only counts
opcua.polled     µs a value, the same variables asked for ten times a second; the reference is asyncua's
                 read_values of the same nodes
opcua.encrypted  µs a notification with Basic256Sha256, signed and encrypted; the reference is opcua.told
"""

import asyncio
import gc
import logging
import multiprocessing
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

from asyncua import Client, ua
from asyncua.common.utils import Buffer
from asyncua.server.server import Server
from asyncua.ua.ua_binary import struct_from_binary, struct_to_binary

from dxad.ingest import Ingest
from dxad.ring.ringbuffer import RingBuffer
from dxad.runtime.clock import SystemClock
from dxad.runtime.health import Health
from dxad.runtime.metrics import Metrics
from dxad.sources.opcua import Config, Opcua
from dxad.sources.opcua.wire import publication
from dxad.types import NS_PER_S
from hw_sim.pki import self_signed
from hw_sim.ports import free_port
from tests.bench.report import Metric

__all__ = ["opcua"]

_VARIABLES: Final = 100
_INTERVAL_S: Final = 0.1
_VALUES: Final = 4_000
"""In each round."""
_ROUNDS: Final = 2
_TICK_S: Final = 0.05
_PERIOD: Final = NS_PER_S // 10
_NAMESPACE: Final = "urn:dxad:bench"
_GOAL_US: Final = 18.0

_Reader = Callable[[str, Path], Awaitable[tuple[float, int]]]
"""Reads from a url, with a folder for what must be kept; returns processor seconds, and how many values."""


def opcua() -> dict[str, Metric]:
    """All of them; the least of several rounds, in which the sides take turns."""
    found: dict[str, list[float]] = {"told": [], "bare": [], "polled": [], "asked": [], "encrypted": []}
    with tempfile.TemporaryDirectory() as folder, _server(Path(folder)) as url:
        for _ in range(_ROUNDS):
            found["told"].append(_measured(_ours(), url, folder))
            found["bare"].append(_measured(_bare, url, folder))
            found["polled"].append(_measured(_ours(mode="poll"), url, folder))
            found["asked"].append(_measured(_asked, url, folder))
            found["encrypted"].append(_measured(_ours(security="Basic256Sha256"), url, folder))
    least = {name: min(each) for name, each in found.items()}
    taken, read = _taken()
    told, bare, polled, asked, encrypted = (least[each] for each in found)
    return {
        "opcua.told": Metric(value=told, unit="µs", reference=bare, goal=_GOAL_US, at_most=True),
        "opcua.taken": Metric(value=taken, unit="µs", reference=read),
        "opcua.polled": Metric(value=polled, unit="µs", reference=asked),
        "opcua.encrypted": Metric(value=encrypted, unit="µs", reference=told),
    }


def _measured(reader: _Reader, url: str, folder: str) -> float:
    """Microseconds of this process a value."""
    gc.collect()
    gc.freeze()
    try:
        spent_s, values = asyncio.run(reader(url, Path(folder)))  # type: ignore[arg-type]
    finally:
        gc.unfreeze()
    return spent_s / values * 1e6


# -- who reads ---------------------------------------------------------------------------------------------


def _ours(**settings: Any) -> _Reader:
    async def read(url: str, folder: Path) -> tuple[float, int]:
        config = Config.model_validate(
            {
                "type": "opcua", "url": url, "namespace": _NAMESPACE, "period": "100ms",
                "channels": {f"c{at}": {"node": f"i={at + 1}"} for at in range(_VARIABLES)}, **settings,
            }
        )  # fmt: skip
        clock = SystemClock()
        source = Opcua("bench", config, clock=clock, state_dir=folder)
        ring = RingBuffer(source.channels, period=_PERIOD, slots=1000, start=clock.now() // _PERIOD)
        ingest = Ingest("bench", source, config, ring, clock=clock, health=Health(clock), metrics=Metrics())
        task = asyncio.create_task(ingest.run())
        begun: tuple[float, int] | None = None
        try:
            while begun is None or ingest.snapshot()["samples"] - begun[1] < _VALUES:
                await asyncio.sleep(_TICK_S)
                ingest.tick(clock.now())
                assert not task.done()
                came = ingest.snapshot()["samples"]
                if begun is None and came > 2 * _VARIABLES:
                    begun = time.process_time(), came
            return time.process_time() - begun[0], ingest.snapshot()["samples"] - begun[1]
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    return read


class _Counter:
    """The least that a callback can do."""

    def __init__(self) -> None:
        self.count = 0

    def datachange_notification(self, _node: Any, _value: Any, _data: Any) -> None:
        self.count += 1


async def _bare(url: str, _folder: Path) -> tuple[float, int]:
    async with Client(url) as client:
        counter = _Counter()
        subscription = await client.create_subscription(_INTERVAL_S * 1e3, counter)
        nodes = await _nodes(client)
        await subscription.subscribe_data_change(nodes, queuesize=10, sampling_interval=ua.Double(50))
        while counter.count < 2 * _VARIABLES:  # noqa: ASYNC110
            await asyncio.sleep(_TICK_S)
        spent_s, before = time.process_time(), counter.count
        while counter.count - before < _VALUES:  # noqa: ASYNC110
            await asyncio.sleep(_TICK_S)
        return time.process_time() - spent_s, counter.count - before


async def _asked(url: str, _folder: Path) -> tuple[float, int]:
    async with Client(url) as client:
        nodes = await _nodes(client)
        await client.read_values(nodes)
        spent_s, count = time.process_time(), 0
        while count < _VALUES:
            await asyncio.sleep(_INTERVAL_S)
            count += len(await client.read_values(nodes))
        return time.process_time() - spent_s, count


async def _nodes(client: Client) -> list[Any]:
    index = await client.get_namespace_index(_NAMESPACE)
    return [client.get_node(ua.NodeId(at + 1, index)) for at in range(_VARIABLES)]


def _taken() -> tuple[float, float]:
    """Our way and asyncua's with a message of notifications, µs each; the least of several rounds."""
    now = datetime.now(UTC)
    response = ua.PublishResponse()
    response.Parameters.SubscriptionId = ua.UInt32(7)
    items = [
        ua.MonitoredItemNotification(
            ClientHandle=ua.UInt32(at + 1), Value=ua.DataValue(ua.Variant(1.5 * at), SourceTimestamp=now)
        )
        for at in range(_VARIABLES)
    ]
    response.Parameters.NotificationMessage.NotificationData = [
        ua.DataChangeNotification(MonitoredItems=items)
    ]
    body = struct_to_binary(response)
    channels = {f"c{at}": {"node": f"i={at + 1}"} for at in range(_VARIABLES)}
    document = {"type": "opcua", "url": "opc.tcp://127.0.0.1:1", "channels": channels}
    source = Opcua("bench", Config.model_validate(document), clock=SystemClock())

    def ours() -> None:
        source._take(publication(Buffer(body)).items, 1)
        source._inbox._stage.take()

    def theirs() -> None:
        struct_from_binary(ua.PublishResponse, Buffer(body))

    return _least(ours), _least(theirs)


def _least(act: Callable[[], None]) -> float:
    spent: list[float] = []
    for _ in range(20):
        began = time.process_time()
        for _ in range(10):
            act()
        spent.append((time.process_time() - began) / 10 / _VARIABLES * 1e6)
    return min(spent)


# -- who is read -------------------------------------------------------------------------------------------


@contextmanager
def _server(folder: Path) -> Iterator[str]:
    """The url of a server in a process of its own."""
    ours, theirs = multiprocessing.Pipe()
    url = f"opc.tcp://127.0.0.1:{free_port()}/bench"
    child = multiprocessing.get_context("fork").Process(target=_serve, args=(url, folder, theirs))
    child.start()
    try:
        ours.recv()
        yield url
    finally:
        child.kill()
        child.join()


def _serve(url: str, folder: Path, told: Connection) -> None:
    logging.getLogger("asyncua").setLevel(logging.CRITICAL)
    asyncio.run(_changing(url, folder, told))


async def _changing(url: str, folder: Path, told: Connection) -> None:
    server = Server()
    await server.init()
    server.set_endpoint(url)
    uri = "urn:dxad:bench:server"
    await server.set_application_uri(uri)
    policies = ua.SecurityPolicyType.NoSecurity, ua.SecurityPolicyType.Basic256Sha256_SignAndEncrypt
    server.set_security_policy(list(policies))
    self_signed("bench", dns=["localhost"], uris=[uri]).save(folder / "server.pem", folder / "server-key.pem")
    await server.load_certificate(str(folder / "server.pem"))
    await server.load_private_key(str(folder / "server-key.pem"))
    index = await server.register_namespace(_NAMESPACE)
    nodes = [
        (await server.nodes.objects.add_variable(ua.NodeId(at + 1, index), f"v{at}", 0.0)).nodeid
        for at in range(_VARIABLES)
    ]
    async with server:
        told.send(None)
        loop = asyncio.get_running_loop()
        due, number = loop.time(), 0
        while True:
            number += 1
            now = datetime.now(UTC)
            for node in nodes:
                value = ua.DataValue(ua.Variant(float(number)), SourceTimestamp=now)
                await server.write_attribute_value(node, value)
            due += _INTERVAL_S
            await asyncio.sleep(max(0.0, due - loop.time()))
