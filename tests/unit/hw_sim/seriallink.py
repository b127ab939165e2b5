"""A serial wire on a bench that counts, and a reader that knows nothing of the simulator."""

import asyncio
import os
import time
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from hw_sim.catalogue import Known, make
from hw_sim.serial.section import Settings
from hw_sim.serial.wire import build
from tests.unit.hw_sim.rig import Counter, counting

FIELDS = {"n": "count", "p": "pain"}


def settings(link, *, devices: dict[str, Any] | None = None, wire: dict[str, Any] | None = None, **device):
    """The section of a wire with one device, which shows the bench's count without decimals."""
    devices = devices or {"dev": {"fields": FIELDS, "decimals": 0, **device}}
    return Settings.model_validate({"type": "serial", "link": str(link), "devices": devices, **(wire or {})})


@asynccontextmanager
async def plugged(link, *, bench=None, **section):
    """A wire that has started."""
    wire = build("w", settings(link, **section), bench or counting())
    try:
        await wire.start()
        yield wire
    finally:
        await wire.close()


def known(wire) -> Known:
    """What a fault on the bench of this wire may name."""
    return Known(
        Counter.channels,
        {"counter": Counter.shows},
        {device: tuple(fields.values()) for device, fields in wire.devices.items()},
        {wire.name: ("serial", tuple(wire.devices))},
    )


def fault(wire, name, **settings):
    """A fault that is on from now."""
    return make(name, wire.bench.at_s, None, settings, known(wire))


def steps(wire, count):
    """So many steps of the bench and the wire."""
    for _ in range(count):
        wire.bench.step()
        wire.step()


@contextmanager
def opened(path):
    """A descriptor of a terminal."""
    end = os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
    try:
        yield end
    finally:
        os.close(end)


def read(end, wait_s=0.03):
    """All that comes until nothing has come for so long; ends at a hang-up."""
    got, deadline = bytearray(), time.monotonic() + wait_s
    while time.monotonic() < deadline:
        try:
            data = os.read(end, 65536)
        except BlockingIOError:
            time.sleep(0.001)
            continue
        except OSError:
            return bytes(got)
        if not data:
            return bytes(got)
        got += data
        deadline = time.monotonic() + wait_s
    return bytes(got)


async def answer(end, request, wait_s=0.3):
    """What a device says to this, at least one byte or nothing within that time."""
    os.write(end, request)
    for _ in range(round(wait_s / 0.005)):
        await asyncio.sleep(0.005)
        if got := read(end, 0.0015):
            return got
    return b""
