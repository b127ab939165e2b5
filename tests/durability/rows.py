"""Telemetry of rows that are as many as their slot's number, into an outbox, until somebody kills it.

python -m tests.durability.rows FOLDER

Now and then more come at once than the ring holds. It says `stored` once `STORED` records are, and goes on.
"""

import asyncio
import sys
from pathlib import Path

import numpy as np

from dxad.join import Feed
from dxad.outbox import Outbox
from dxad.ring.ringbuffer import RingBuffer
from dxad.runtime.clock import SystemClock
from dxad.runtime.health import Health
from dxad.runtime.metrics import Metrics
from dxad.telemetry import Telemetry
from dxad.telemetrysection import TelemetrySection
from dxad.types import NS_PER_S, Channel, State

__all__ = ["FIRST", "STORED", "opened"]

STORED = 12
FIRST = 1_000_000
_SLOTS = 500
_FLOOD_EVERY = 7


def opened(folder: Path) -> Outbox:
    """The outbox of a folder."""
    clock = SystemClock()
    return Outbox(
        folder / "outbox.db", max_bytes=2**26, commit_window_s=0.002, health=Health(clock), metrics=Metrics(),
        clock=clock,
    )  # fmt: skip


async def _go_on(folder: Path) -> None:
    ring = RingBuffer([Channel("s.n")], period=NS_PER_S // 1000, slots=_SLOTS, start=FIRST)
    clock = SystemClock()
    section = TelemetrySection.model_validate({"channels": ["s.*"], "every": "100ms", "mode": "all"})
    async with opened(folder) as box:
        telemetry = Telemetry(
            "t", section, {"s": Feed(ring, (0,))}, {}, gateway="gw", outbox=box, clock=clock,
            health=Health(clock), metrics=Metrics(),
        )  # fmt: skip
        task = asyncio.create_task(telemetry.run())
        await asyncio.sleep(0)
        said = False
        for turn in range(1_000_000):
            rows = 2 * _SLOTS if turn % _FLOOD_EVERY == _FLOOD_EVERY - 1 else 37
            values = np.arange(ring.sealed, ring.sealed + rows, dtype=float)[:, None]
            ring.append(ring.sealed, values, np.full(values.shape, State.GOOD, np.uint8))
            await telemetry.look()
            await asyncio.sleep(0.001)
            if not said and telemetry.snapshot()["records"] >= STORED:
                said = True
                sys.stdout.write("stored\n")
                sys.stdout.flush()
        task.cancel()


if __name__ == "__main__":
    asyncio.run(_go_on(Path(sys.argv[1])))
