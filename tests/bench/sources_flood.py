"""One MQTT source is flooded while a Modbus source beside it is polled, in one process as in the daemon.

    flood.jitter.p99    ms after the beginning of its slot that a poll of 100 a second begins, the 99th
                        percentile; the reference is the same without the flood, in turns with it, and the
                        goal that it is at most 1 ms more
    flood.answer.p99    the same until the poll's samples are in the ring
    flood.rate          samples a second that were taken in meanwhile, of those that the flood offers
    flood.lost          of 1,000 that came, how many were lost, each of them counted

The feeder and the device are a process each; neither waits for anybody.
"""

import asyncio
import json
import multiprocessing
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Final

import mqtt5
import numpy as np

from dxad import plugin
from dxad.ingest import Ingest
from dxad.ring.ringbuffer import RingBuffer
from dxad.runtime.clock import Clock, SystemClock
from dxad.runtime.health import Health
from dxad.runtime.metrics import Metrics
from dxad.runtime.ticker import Ticker
from dxad.types import Block
from tests.bench.report import Metric

__all__ = ["flood"]

_PERIOD_MS: Final = 10
_TICK: Final = 50_000_000
_ROUNDS: Final = 4
_SETTLE_S: Final = 0.5
_GROWS_MS: Final = 1.0
_REGISTERS: Final = 40


def flood(for_s: float) -> dict[str, Metric]:
    """Each figure with the flood, and without as its reference; medians of rounds that take turns."""
    quiet, loud = [], []
    for _ in range(_ROUNDS):
        quiet.append(_round(for_s / _ROUNDS, flooded=False))
        loud.append(_round(for_s / _ROUNDS, flooded=True))
    calm, busy = (np.median(np.array(each), axis=0).tolist() for each in (quiet, loud))
    return {
        "flood.jitter.p99": Metric(
            value=busy[0], unit="ms", reference=calm[0], goal=round(calm[0] + _GROWS_MS, 3), at_most=True
        ),
        "flood.answer.p99": Metric(value=busy[1], unit="ms", reference=calm[1]),
        "flood.rate": Metric(value=busy[2], unit="samples/s"),
        "flood.lost": Metric(value=busy[3], unit="‰"),
    }


def _round(for_s: float, *, flooded: bool) -> tuple[float, float, float, float]:
    with ExitStack() as stack:
        device = stack.enter_context(_process(_answer))
        feeder = stack.enter_context(_process(_feed)) if flooded else None
        return asyncio.run(_measured(for_s, device, feeder))


async def _measured(for_s: float, device: int, feeder: int | None) -> tuple[float, float, float, float]:
    clock = SystemClock()
    channels = {f"r{n}": {"register": f"input:{n}"} for n in range(_REGISTERS)}
    polled = _ingest(
        clock,
        "plc",
        type="modbus",
        url=f"tcp://127.0.0.1:{device}",
        period=f"{_PERIOD_MS}ms",
        channels=channels,
    )
    ingests = [polled]
    if feeder is not None:
        fields: dict[str, dict[str, Any]] = {name: {} for name in ("current", "speed", "temperature")}
        flooded = _ingest(
            clock, "motor", type="mqtt", url=f"mqtt://127.0.0.1:{feeder}", topic="plant/#", period="100ms",
            qos=0, channels=fields,
        )  # fmt: skip
        ingests.append(flooded)
    begun: list[float] = []
    answered: list[float] = []
    accept = polled.accept

    def accepting(block: Block) -> None:
        accept(block)
        assert block.through is not None
        slot = block.through - _PERIOD_MS * 1_000_000
        begun.append((int(block.samples["arrival"][0]) - slot) / 1e6)
        answered.append((clock.now() - slot) / 1e6)

    polled.accept = accepting  # type: ignore[method-assign]
    ticker = Ticker(clock, period=_TICK, calls=[each.tick for each in ingests])
    tasks = [asyncio.create_task(run()) for run in (*(each.run for each in ingests), ticker.run)]
    try:
        await asyncio.sleep(_SETTLE_S)
        begun.clear()
        answered.clear()
        before = [each.snapshot() for each in ingests]
        await asyncio.sleep(for_s)
        after = [each.snapshot() for each in ingests]
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    came = after[-1]["samples"] - before[-1]["samples"]
    lost = sum(after[-1]["lost"].values()) - sum(before[-1]["lost"].values())
    p99 = [float(np.percentile(each, 99)) for each in (begun, answered)]
    return p99[0], p99[1], came / for_s, 1e3 * lost / max(1, came + lost)


def _ingest(clock: Clock, name: str, **section: Any) -> Ingest:
    found = plugin.load("sources", section["type"])
    config = found.config.model_validate(section)
    source = found.build(name, config, clock=clock)
    ring = RingBuffer(
        config.declared(name), period=config.period, slots=1000, start=clock.now() // config.period
    )
    return Ingest(name, source, config, ring, clock=clock, health=Health(clock), metrics=Metrics())


# -- the far side -------------------------------------------------------------------------------------------


@contextmanager
def _process(serve: Callable[[socket.socket], None]) -> Iterator[int]:
    """The port at which a process of its own serves one client."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        child = multiprocessing.get_context("fork").Process(target=serve, args=(server,), daemon=True)
        child.start()
        try:
            yield server.getsockname()[1]
        finally:
            child.terminate()
            child.join()


def _answer(server: socket.socket) -> None:
    """A Modbus device that answers at once with zeros (Modbus Messaging on TCP/IP V1.0b, 3.1.3)."""
    wire, _ = server.accept()
    wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    while asked := wire.recv(512):
        transaction, _, _, unit, function, _, count = struct.unpack(">HHHBBHH", asked[:12])
        head = struct.pack(">HHHBBB", transaction, 0, 3 + 2 * count, unit, function, 2 * count)
        wire.sendall(head + bytes(2 * count))


def _feed(server: socket.socket) -> None:
    """A broker of one client that sends as fast as the network takes it."""
    wire, _ = server.accept()
    _expect(wire, mqtt5.ConnectPacket)
    wire.sendall(mqtt5.ConnAckPacket().write())
    asked = _expect(wire, mqtt5.SubscribePacket)
    wire.sendall(mqtt5.SubAckPacket(asked.packet_id, [mqtt5.SubAckReasonCode(0)]).write())
    payloads = [
        json.dumps({"current": n / 8, "speed": 1450 + n / 4, "temperature": 51.125}) for n in range(977)
    ]
    messages = b"".join(
        mqtt5.PublishPacket("plant/motor", payload=each.encode()).write() for each in payloads
    )
    try:
        while True:
            wire.sendall(messages)
    except OSError:
        return


def _expect(wire: socket.socket, kind: type) -> Any:
    data = b""
    while True:
        data += wire.recv(1 << 16)
        try:
            packet, _ = mqtt5.read(memoryview(data))
        except IndexError:
            continue
        if isinstance(packet, kind):
            return packet
