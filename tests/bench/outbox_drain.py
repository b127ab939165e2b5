"""How fast a backlog leaves, by HTTP and by MQTT, each beside a bare client that sends the same bytes.

    outbox (a file) ─▶ Deliver ─▶ sink ─▶ a receiver in a process of its own | mosquitto
    bodies, ready made ─────────▶ bare client ─▶ the same

The bare clients know no outbox and no events: what is made ready for them, dxad makes of each record while
it goes, and notes how far it is. Records a second; both wait for the same answers, with 64 records a request
and as many messages under way as mosquitto takes.

drain_http               `mode = "batch"`, and aiohttp posting the same bodies
drain_http_structured    one event a request, likewise
drain_mqtt               QoS 1, and the codec alone over a socket
"""

import asyncio
import subprocess
import sys
import time
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Final

import aiohttp
import mqtt5
import orjson

from dxad.deliver import Deliver
from dxad.event import CONTENT_TYPE_BATCH, Event, decode, to_record
from dxad.outbox import Outbox
from dxad.runtime.clock import SystemClock
from dxad.runtime.health import Health
from dxad.runtime.metrics import Metrics
from dxad.sinks import http, mqtt
from dxad.types import Record, Sink
from tests.bench.report import Metric
from tests.bench.sources_paced import broker_in, free_port

__all__ = ["drain"]

_RECORDS: Final = 20_000
_ALONE: Final = 5_000
_BATCH: Final = 64
_TOPIC: Final = "dxad/{gateway}/{lane}/{type}"


def drain(folder: Path, for_s: float) -> dict[str, Metric]:
    """The metrics; the outbox's files are made in `folder`."""
    return asyncio.run(_drain(folder))


async def _drain(folder: Path) -> dict[str, Metric]:
    found: dict[str, Metric] = {}
    records = [_record(number) for number in range(_RECORDS)]
    with _receiver() as url:
        config = http.Config(type="http", url=url)
        sink = http.Http("s", config, state_dir=folder)
        ours = await _drained(folder / "batch.db", sink, config, records)
        found["drain_http"] = _metric(ours, await _posted(url, records, _BATCH))
        config = http.Config(type="http", url=url, mode="structured")
        sink = http.Http("s", config, state_dir=folder)
        ours = await _drained(folder / "alone.db", sink, config, records[:_ALONE])
        found["drain_http_structured"] = _metric(ours, await _posted(url, records[:_ALONE], 1))
    with broker_in(folder) as where:
        settings = mqtt.Config(type="mqtt", url=f"mqtt://{where}", topic=_TOPIC)
        broker = mqtt.Mqtt("s", settings, state_dir=folder, gateway="gw")
        ours = await _drained(folder / "mqtt.db", broker, settings, records)
        found["drain_mqtt"] = _metric(ours, await _published(where, records))
    return found


def _metric(ours: float, bare: float) -> Metric:
    return Metric(value=ours, unit="records/s", reference=bare)


def _record(number: int) -> Record:
    """An event of about 1 kB in JSON, as an incident is."""
    blamed = [
        {"channel": f"plc.channel{place}", "share": 0.125, "seen": 12.25, "expected": 9.5}
        for place in range(8)
    ]
    data = {"pipeline": "pump", "severity": "high", "peak_score": 4.25, "contributors": blamed}
    return to_record(Event(f"{number:032x}", "dxad.incident.updated", "/gw/pipelines/pump", number, data))


# -- dxad -------------------------------------------------------------------------------------------------


async def _drained(path: Path, sink: Sink, section: Any, records: list[Record]) -> float:
    """Records a second, from the first look at the outbox to the last acknowledgement."""
    clock = SystemClock()
    health, metrics = Health(clock), Metrics()
    box = Outbox(path, max_bytes=2**30, commit_window_s=0.05, health=health, metrics=metrics, clock=clock)
    async with box:
        await box.subscribe("s", section.lane_set())
        await asyncio.gather(*(box.append(each) for each in records))
        unpaced = section.model_copy(update={"drain_rate": 0})
        deliver = Deliver("s", sink, box, unpaced, clock=clock, health=health, metrics=metrics)
        began = time.perf_counter()
        task = asyncio.create_task(deliver.run())
        while deliver.snapshot()["delivered"] < len(records):
            assert not task.done(), task.exception()
            await asyncio.sleep(0.002)
        took_s = time.perf_counter() - began
        task.cancel()
        await asyncio.wait([task])
    return len(records) / took_s


# -- HTTP -------------------------------------------------------------------------------------------------


async def _posted(url: str, records: list[Record], batch: int) -> float:
    """The same bodies, ready made, over one connection."""
    events = [orjson.dumps(decode(each)) for each in records]
    bodies = [
        b"[" + b",".join(events[at : at + batch]) + b"]" if batch > 1 else events[at]
        for at in range(0, len(events), batch)
    ]
    headers = {"Content-Type": CONTENT_TYPE_BATCH if batch > 1 else "application/cloudevents+json"}
    async with aiohttp.ClientSession(headers=headers) as session:
        began = time.perf_counter()
        for body in bodies:
            async with session.post(url, data=body) as response:
                await response.read()
                assert response.status == 204, response.status
    return len(records) / (time.perf_counter() - began)


@contextmanager
def _receiver() -> Iterator[str]:
    """A server that takes everything, in a process of its own."""
    port = free_port()
    command = [sys.executable, "-m", "tests.bench.outbox_drain", str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            yield f"http://127.0.0.1:{port}/events"
        finally:
            process.kill()


async def _receive(port: int) -> None:
    """What that process does: it reads requests, and answers each with 204."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                await reader.readexactly(int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0]))
                writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", port) as server:
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        await server.serve_forever()


# -- MQTT -------------------------------------------------------------------------------------------------


async def _published(where: str, records: list[Record]) -> float:
    """The same payloads, ready made, as many under way at once as the broker says."""
    payloads = [orjson.dumps(decode(each)) for each in records]
    async with _session(where) as (reader, writer, most):
        waiting = deque(enumerate(payloads))
        under_way, acknowledged, rest = 0, 0, b""
        began = time.perf_counter()
        while acknowledged < len(payloads):
            out = []
            while waiting and under_way < most:
                number, payload = waiting.popleft()
                out.append(
                    mqtt5.PublishPacket(
                        "dxad/gw/normal/dxad.incident.updated",
                        payload,
                        qos=mqtt5.QoS.AT_LEAST_ONCE,
                        packet_id=number % 65_535 + 1,
                    ).write()
                )
                under_way += 1
            writer.write(b"".join(out))
            rest += await reader.read(65_536)
            while rest:
                try:
                    _, used = mqtt5.read(memoryview(rest))
                except IndexError:
                    break
                rest = rest[used:]
                under_way -= 1
                acknowledged += 1
        return len(payloads) / (time.perf_counter() - began)


@asynccontextmanager
async def _session(where: str) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter, int]]:
    reader, writer = await asyncio.open_connection(*where.split(":"))
    writer.write(mqtt5.ConnectPacket("bare", clean_start=True).write())
    answer, _ = mqtt5.read(memoryview(await reader.read(1000)))
    assert isinstance(answer, mqtt5.ConnAckPacket)
    try:
        yield reader, writer, min(answer.receive_max, mqtt.Config.model_fields["in_flight"].default)
    finally:
        writer.close()
        await writer.wait_closed()


if __name__ == "__main__":
    asyncio.run(_receive(int(sys.argv[1])))  # what `_receiver` starts
