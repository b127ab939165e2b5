"""Under the wire faults of the simulator, what a source has received is accounted for, sample by sample.

received = stored + folded + duplicate + lost by reason + pending, see `dxad.ring.admission`.
"""

import asyncio
from contextlib import asynccontextmanager
from typing import Any

from dxad import plugin
from dxad.ingest import Ingest
from dxad.ring.ringbuffer import RingBuffer
from dxad.runtime.backoff import Backoff
from dxad.runtime.clock import SystemClock
from dxad.runtime.health import Health
from dxad.runtime.metrics import Metrics
from dxad.runtime.ticker import Ticker
from dxad.types import NS_PER_S
from tests.simulated import MOTOR, motor

TICK = NS_PER_S // 50
FAULTS: dict[str, dict[str, str]] = {
    "mqtt.duplicate": {},
    "mqtt.malformed": {"every": "2"},
    "mqtt.nan": {"every": "2"},
    "mqtt.wrong_type": {"every": "2"},
    "mqtt.missing": {"every": "2"},
    "mqtt.out_of_order": {},
    "mqtt.clock": {"by": "86400"},
    "mqtt.burst": {},
    "mqtt.disconnect": {"every": "200ms"},
}


@asynccontextmanager
async def ingesting(**section: Any):
    """An ingest that runs, with its ticker."""
    found = plugin.load("sources", section["type"])
    clock, config = SystemClock(), found.config.model_validate(section)
    ring = RingBuffer(
        config.declared("s"), period=config.period, slots=200, start=clock.now() // config.period
    )
    ingest = Ingest(
        "s", found.build("s", config, clock=clock), config, ring, clock=clock, health=Health(clock),
        metrics=Metrics(), backoff=Backoff(first_s=0.05, most_s=0.1),
    )  # fmt: skip
    ticker = Ticker(clock, period=TICK, calls=[ingest.tick])
    tasks = [asyncio.create_task(run()) for run in (ingest.run, ticker.run)]
    try:
        yield ingest
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def accounted(shown: dict[str, Any]) -> int:
    lost = sum(count for reason, count in shown["lost"].items() if reason != "queue")
    return lost + sum(shown[key] for key in ("stored", "folded", "duplicate", "pending"))


async def test_no_fault_of_an_mqtt_device_makes_a_sample_vanish():
    async with motor() as (port, _, station):
        url = f"mqtt://127.0.0.1:{port}"
        section = {"type": "mqtt", "url": url, "period": "50ms", "clock": "device", "time": "ts", **MOTOR}
        async with ingesting(**section) as ingest:
            told = {}
            for name, parameters in FAULTS.items():
                before = ingest.snapshot()
                await station.break_(name, parameters)
                await asyncio.sleep(0.3)
                await station.mend(name, parameters)
                shown = ingest.snapshot()
                assert shown["samples"] == accounted(shown), name
                told[name] = {key: shown[key] - before[key] for key in ("duplicate", "messages_rejected")}
                told[name]["bad"] = sum(shown["rejected"].values()) - sum(before["rejected"].values())
                told[name]["ahead"] = shown["lost"].get("ahead", 0) - before["lost"].get("ahead", 0)
            await asyncio.sleep(0.2)
            shown = ingest.snapshot()
    assert shown["samples"] == accounted(shown) > 0
    assert told["mqtt.malformed"]["messages_rejected"] > 0
    assert told["mqtt.missing"]["bad"] > 0 < told["mqtt.wrong_type"]["bad"]
    assert told["mqtt.duplicate"]["duplicate"] > 0
    assert told["mqtt.clock"]["ahead"] > 0
    assert shown["disconnects"] > 0
