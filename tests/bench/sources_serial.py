"""What a line costs from a serial port to its ring, in processor time, where many are waiting.

serial_line_x1, serial_line_x3   lines of one and of three numbers that come as fast as they are read, through
                                 source, ingest and ring, with the sealing of the `balanced` profile; the
                                 reference is pySerial's own readline and float, with nothing behind it

The port is a pseudo-terminal, which hands over 4 KiB at a time, as the kernel's other ones do; a process of
its own feeds it.
"""

import asyncio
import os
import subprocess
import sys
import time
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import serial as pyserial

from dxad.ingest import Ingest
from dxad.ring.ringbuffer import RingBuffer
from dxad.runtime.clock import SystemClock
from dxad.runtime.health import Health
from dxad.runtime.metrics import Metrics
from dxad.runtime.ticker import Ticker
from dxad.sources.serial import PLUGIN, Config
from tests.bench.report import Metric

__all__ = ["serial"]

GOAL_US: Final = 0.6
_LINES: Final = 400_000
_LINES_REFERENCE: Final = 20_000
_RUNS: Final = 3
"""The best of them counts: what others do on the machine is no part of it."""
_TICK_NS: Final = 50_000_000
_PERIOD_NS: Final = 100_000_000
_NUMBERS: Final = ("12.3456", "-0.0421", "9.81")

_FEED: Final = """
import os, sys
text = sys.argv[2].encode() * 1000
for _ in range(int(sys.argv[3]) // 1000):
    at = 0
    while at < len(text):
        at += os.write(int(sys.argv[1]), text[at:])
"""


def serial() -> dict[str, Metric]:
    """The metrics, by name."""
    found = {}
    for count in (1, 3):
        line = ",".join(_NUMBERS[:count]) + "\r\n"
        found[f"serial_line_x{count}"] = Metric(
            value=min(_ours_us(line, count) for _ in range(_RUNS)),
            unit="µs/line",
            reference=_readline_us(line),
            goal=GOAL_US,
            at_most=True,
        )
    return found


@contextmanager
def _fed(line: str, lines: int) -> Iterator[str]:
    """A terminal to which somebody writes as fast as it takes."""
    near, far = os.openpty()
    tty.setraw(far)
    command = [sys.executable, "-c", _FEED, str(near), line, str(lines)]
    try:
        with subprocess.Popen(command, pass_fds=[near]) as feeder:
            yield os.ttyname(far)
            feeder.kill()
    finally:
        os.close(near)
        os.close(far)


def _ours_us(line: str, count: int) -> float:
    columns = [f"x{place}" for place in range(count)]
    with _fed(line, _LINES + 2_000) as port:
        section = Config.model_validate(
            {
                "type": "serial", "port": port, "period": "100ms", "clock": "arrival", "queue": 100_000,
                "overflow": "block", "decode": {"kind": "csv", "columns": columns},
            }
        )  # fmt: skip
        return asyncio.run(_ingested_us(section))


async def _ingested_us(section: Config) -> float:
    clock = SystemClock()
    metrics = Metrics()
    source = PLUGIN.build("line", section, clock=clock)
    ring = RingBuffer(
        section.declared("line"), period=_PERIOD_NS, slots=6_000, start=clock.now() // _PERIOD_NS
    )
    ingest = Ingest("line", source, section, ring, clock=clock, health=Health(clock), metrics=metrics)
    received = metrics.counter("dxad_samples_received_total", source="line")
    wanted = (_LINES // 2) * len(
        ring.channels
    )  # the rest is what comes before and after the two looks at the clock
    marks: list[tuple[int, float]] = []
    done = asyncio.Event()

    def note(_now: int) -> None:
        """The first and the last look: in between all is bulk."""
        if received.value and (not marks or received.value - marks[0][0] >= wanted):
            marks.append((received.value, time.process_time()))
        if len(marks) > 1:
            done.set()

    ticker = Ticker(clock, period=_TICK_NS, calls=[ingest.tick, note])
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(ingest.run()), group.create_task(ticker.run())]
        await done.wait()
        for task in tasks:
            task.cancel()
    (begin, began), (end, ended) = marks[:2]
    return (ended - began) / (end - begin) * len(ring.channels) * 1e6


def _readline_us(line: str) -> float:
    with _fed(line, _LINES_REFERENCE) as port, pyserial.Serial(port, timeout=1) as line_port:
        line_port.readline()
        began = time.process_time()
        for _ in range(_LINES_REFERENCE - 1):
            [float(each) for each in line_port.readline().split(b",")]
        return (time.process_time() - began) / (_LINES_REFERENCE - 1) * 1e6
