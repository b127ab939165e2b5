"""How long a critical event takes to be durable while telemetry is stored, and what the event loop feels.

critical PROFILE p99    ms until an event that comes every 50 ms is durable, while 100 kB/s of telemetry
                        are stored; reference: twice the disk's own p99 of append + fdatasync, and 2 ms
loop PROFILE most       ms that a task that wakes each ms was late at most, but for what the process's threads
                        waited for a processor meanwhile; reference: without an outbox
loop PROFILE p99.9      likewise, what one in a thousand of them exceeds
loop PROFILE with waits the most, with what they waited for a processor
"""

import asyncio
import gc
import sys
import time
from pathlib import Path
from typing import Final

from dxad.assembly import PROFILES, Profile
from dxad.daemon import SWITCH_S
from dxad.outbox import Outbox
from dxad.types import Lane, Record
from tests.bench.lateness import watched
from tests.bench.outbox_disk import RECORD_BYTES, Log, percentile
from tests.bench.outbox_rates import make
from tests.bench.report import Metric

__all__ = ["latency"]

_EVENTS_EVERY_S: Final = 0.05
_TELEMETRY_BYTES_PER_S: Final = 100_000
_LATE_MOST_MS: Final = 5.0
_BODY: Final = b"." * RECORD_BYTES


def latency(folder: Path, for_s: float) -> dict[str, Metric]:
    """Measure each profile."""
    sys.setswitchinterval(SWITCH_S)
    gc.collect()
    gc.freeze()  # both as the daemon does
    return asyncio.run(_latency(folder, for_s))


async def _latency(folder: Path, for_s: float) -> dict[str, Metric]:
    found: dict[str, Metric] = {}
    async with watched() as idle:
        await asyncio.sleep(for_s)
    with Log.at(folder / "log") as log:
        for name, profile in PROFILES.items():
            log.took_s.clear()
            async with (
                watched() as late,
                make(folder / f"{name}.db", window_s=profile.commit_window_s) as box,
            ):
                waits_s = await _load(box, profile, log, for_s)
            found |= {
                f"critical {name} p99": Metric(
                    value=percentile(waits_s, 0.99) * 1e3,
                    unit="ms",
                    reference=2 * percentile(log.took_s, 0.99) * 1e3 + 2,
                    goal=1.0,
                    at_most=True,
                    of_ratio=True,
                ),
                f"loop {name} most": Metric(
                    value=max(late.own_s) * 1e3,
                    unit="ms",
                    reference=max(idle.own_s) * 1e3,
                    goal=_LATE_MOST_MS,
                    at_most=True,
                ),
                f"loop {name} p99.9": Metric(
                    value=percentile(late.own_s, 0.999) * 1e3,
                    unit="ms",
                    reference=percentile(idle.own_s, 0.999) * 1e3,
                ),
                f"loop {name} with waits": Metric(
                    value=max(late.late_s) * 1e3, unit="ms", reference=max(idle.late_s) * 1e3
                ),
            }
    return found


async def _load(box: Outbox, profile: Profile, log: Log, for_s: float) -> list[float]:
    """How long each event took to be durable."""
    await box.subscribe("s", frozenset({Lane.BULK}))
    telling = asyncio.create_task(_tell(box, profile.tick_ns / 1e9))
    waits_s: list[float] = []
    until = time.perf_counter() + for_s
    while time.perf_counter() < until:
        await asyncio.sleep(_EVENTS_EVERY_S / 2)
        at = time.perf_counter()
        await box.append(Record(f"{at}", Lane.CRITICAL, _BODY))
        waits_s.append(time.perf_counter() - at)
        await asyncio.sleep(_EVENTS_EVERY_S / 2)
        await asyncio.to_thread(log.append, [_BODY])
    telling.cancel()
    await asyncio.wait([telling])
    return waits_s


async def _tell(box: Outbox, every_s: float) -> None:
    """Store telemetry, tick by tick, and take it out again."""
    bodies = [_BODY] * round(_TELEMETRY_BYTES_PER_S * every_s / RECORD_BYTES)
    while True:
        await asyncio.sleep(every_s)
        box.append_bulk(bodies)
        await box.ack("s", await box.fetch("s", 1000))
