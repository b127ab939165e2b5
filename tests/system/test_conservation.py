"""Under every wire fault of the simulator, what it sent is accounted for by what dxad has counted.

The simulator counts what it sends, a source what comes (`wire` of its status), and its ring what becomes of
that: see `tests.bench.soak_sums`, which the soak uses too.
"""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from dxad import plugin
from dxad.ingest import Ingest
from dxad.ring.ringbuffer import RingBuffer
from dxad.runtime.backoff import Backoff
from dxad.runtime.clock import SystemClock
from dxad.runtime.health import Health
from dxad.runtime.metrics import Metrics
from dxad.runtime.ticker import Ticker
from dxad.types import NS_PER_S
from hw_sim.catalogue import FAULTS as CATALOGUE
from hw_sim.scenario import Origin, of
from hw_sim.station import Station, station
from tests.bench import soak_sums
from tests.patience import until
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


async def balanced(kind: str, ingest: Ingest, station: Station, *, missed: int | None = None) -> None:
    """All sums are right, at the latest when what is under way has arrived."""
    (wire,) = station.wires

    def off() -> soak_sums.Sums:
        return soak_sums.off(kind, ingest.snapshot(), wire.counts, missed=missed)

    try:
        await until(lambda: not off())
    except AssertionError:
        pytest.fail(f"{off()}: {ingest.snapshot()} {dict(wire.counts)}")


async def test_no_fault_of_an_mqtt_device_makes_a_sample_vanish():
    async with motor() as (port, _, station):
        url = f"mqtt://127.0.0.1:{port}"
        section = {"type": "mqtt", "url": url, "period": "50ms", "clock": "device", "time": "ts", **MOTOR}
        async with ingesting(**section) as ingest:
            told = {}
            await well(ingest, 0)
            sent = station.wires[0].counts
            missed = soak_sums.missed(ingest.snapshot(), sent)
            for name, parameters in FAULTS.items():
                before = ingest.snapshot()
                async with broken(station, ingest, name, parameters, shows=STAMPED_SHOWS.get(name, ())):
                    assert soak_sums.inner(ingest.snapshot()) == (), name
                away = name == "mqtt.disconnect"  # and the broker keeps nothing for it
                await balanced("mqtt", ingest, station, missed=None if away else missed)
                shown = ingest.snapshot()
                told[name] = {key: shown[key] - before[key] for key in ("duplicate", "messages_rejected")}
                told[name]["bad"] = sum(shown["rejected"].values()) - sum(before["rejected"].values())
                told[name]["ahead"] = shown["lost"].get("ahead", 0) - before["lost"].get("ahead", 0)
            shown = ingest.snapshot()
    assert soak_sums.inner(shown) == ()
    assert shown["samples"] > 0
    assert told["mqtt.malformed"]["messages_rejected"] > 0
    assert told["mqtt.missing"]["bad"] > 0 < told["mqtt.wrong_type"]["bad"]
    assert told["mqtt.duplicate"]["duplicate"] > 0
    assert told["mqtt.clock"]["ahead"] > 0
    assert shown["disconnects"] > 0


# -- the other wires ---------------------------------------------------------------------------------------

CHANNELS = {"a": "load.c000", "b": "load.c001"}
REGISTERS = {
    name: {"register": f"input:{10 * place}", "encoding": "float32", "channel": channel}
    for place, (name, channel) in enumerate(CHANNELS.items())
}
NODES = {
    name: {"node": f"s={name}", "kind": "Double", "channel": channel} for name, channel in CHANNELS.items()
}
SETTINGS: dict[str, dict[str, str]] = {
    "modbus.late": {"by": "60ms"},
    "modbus.noise": {"period": "30ms"},
    "modbus.disconnect": {"every": "3"},
    "mqtt.slow": {"rate": "50000", "delay": "20ms"},
    "mqtt.disconnect": {"every": "60ms"},
    "mqtt.takeover": {"every": "60ms"},
    "mqtt.huge": {"size": "1", "every": "50ms"},
    "mqtt.burst": {"hold": "50ms"},
    "opcua.slow": {"delay": "60ms"},
    "serial.bursts": {"every": "100ms"},
    "serial.half_frames": {"every": "2"},
    "serial.flood": {"times": "20"},
}
"""Where a fault's own default would take longer than this test has, or leave nothing to be read."""
BROKEN_S = 0.12
SHOWS = {
    "mqtt.malformed": ("messages_rejected",),
    "mqtt.wrong_type": ("rejected", "type"),
    "mqtt.disconnect": ("disconnects",),
    "modbus.silence": ("wire", "silent"),
    "modbus.exception": ("rejected", "modbus_device_failure"),
    "modbus.illegal_address": ("rejected", "modbus_illegal_address"),
    "opcua.bad_status": ("rejected", "device"),
    "opcua.stop": ("disconnects",),
    "serial.checksum": ("faults", "checksum"),
    "serial.unplug": ("disconnects",),
}
"""Where any source counts a fault in its status."""
STAMPED_SHOWS = SHOWS | {
    "mqtt.duplicate": ("duplicate",),
    "mqtt.missing": ("rejected",),
    "mqtt.clock": ("lost", "ahead"),
}
"""And one that believes the devices' stamps, where these channels have to be numbers."""
PROTOCOLS = {
    "tcp": "modbus", "rtu": "modbus", "opcua": "opcua", "polled": "opcua", "serial": "serial",
    "asked": "serial", "mqtt": "mqtt",
}  # fmt: skip


def wire(kind: str, folder: Path) -> dict[str, Any]:
    """A wire with one device that shows the channels."""
    match kind:
        case "tcp":
            return {"type": "modbus", "port": 0, "devices": {"d": {"id": 1, "registers": REGISTERS}}}
        case "rtu":
            device = {"id": 1, "registers": REGISTERS}
            return {"type": "modbus", "framing": "rtu", "link": str(folder / "bus"), "devices": {"d": device}}
        case "mqtt":
            device = {"topic": "t", "period": "20ms", "time": "ts", "fields": CHANNELS}
            return {"type": "mqtt", "port": 0, "devices": {"d": device}}
        case "asked":
            device = {"fields": CHANNELS, "checksum": "xor", "query": "READ?\r\n", "error": "ERR\r\n"}
            return {"type": "serial", "link": str(folder / "line"), "devices": {"d": device}}
        case "opcua" | "polled":
            device = {"namespace": "urn:tests", "period": "20ms", "nodes": NODES}
            return {"type": "opcua", "port": 0, "devices": {"d": device}}
        case _:
            device = {"fields": CHANNELS, "checksum": "xor"}
            return {"type": "serial", "link": str(folder / "line"), "devices": {"d": device}}


def section(kind: str, endpoint: str) -> dict[str, Any]:
    """The source that reads it."""
    match kind:
        case "tcp" | "rtu":
            channels = {
                name: {"register": each["register"], "encoding": "float32"}
                for name, each in REGISTERS.items()
            }
            url = endpoint if kind == "tcp" else f"rtu://{endpoint}"
            return {
                "type": "modbus", "url": url, "timeout": "50ms", "quiet": "50ms", "retry": "100ms",
                "channels": channels,
            }  # fmt: skip
        case "mqtt":
            channels = {name: {} for name in CHANNELS}
            return {"type": "mqtt", "url": endpoint, "topic": "t", "channels": channels, "keep_alive": "5s"}
        case "asked":
            question = {"query": "READ?\r\n", "timeout": "30ms", "quiet": "20ms"}
            decode = {"kind": "csv", "columns": list(CHANNELS)}
            return {"type": "serial", "port": endpoint, "checksum": "xor", "decode": decode, **question}
        case "opcua" | "polled":
            channels = {name: {"node": each["node"]} for name, each in NODES.items()}
            more = {"publish_interval": "20ms", "timeout": "500ms", "namespace": "urn:tests"}
            more |= {"mode": "poll"} if kind == "polled" else {}
            return {"type": "opcua", "url": endpoint, "channels": channels, **more}
        case _:
            decode = {"kind": "csv", "columns": list(CHANNELS)}
            return {"type": "serial", "port": endpoint, "checksum": "xor", "decode": decode}


@asynccontextmanager
async def running(kind: str, folder: Path):
    """A load on one wire, and its source."""
    plants = {"load": {"kind": "load", "channels": len(CHANNELS), "rate_hz": 50}}
    scenario = of({"plants": plants, "wires": {"w": wire(kind, folder)}}, Origin("test"))
    async with station(scenario, *scenario.bench()) as bench:
        stepping = asyncio.create_task(bench.run([], duration_s=None))
        (endpoint,) = bench.wires[0].endpoints.values()
        try:
            async with ingesting(period="40ms", **section(kind, str(endpoint))) as ingest:
                yield bench, ingest
        finally:
            stepping.cancel()
            await asyncio.wait([stepping])


@pytest.mark.parametrize("kind", list(PROTOCOLS))
async def test_every_fault_of_a_wire_leaves_all_that_was_sent_accounted_for(kind, tmp_path):
    protocol = PROTOCOLS[kind]
    faults = [each.name for each in CATALOGUE.values() if each.wire == protocol and each.where == "wire"]
    if kind == "polled":  # what breaks questions and answers; the rest is the same as for subscriptions
        faults = ["opcua.stop", "opcua.half_open", "opcua.slow", "opcua.bad_status", "opcua.node_removed"]
    async with running(kind, tmp_path) as (bench, ingest):
        await well(ingest, 0)
        await balanced(protocol, ingest, bench)
        for name in faults:
            before = ingest.snapshot()["stored"]
            parameters = SETTINGS.get(name, {})
            async with broken(bench, ingest, name, parameters, shows=SHOWS.get(name, ())):
                assert soak_sums.inner(ingest.snapshot()) == (), name
            await balanced(protocol, ingest, bench)
            await well(ingest, before)
        await balanced(protocol, ingest, bench)
        shown, sent = ingest.snapshot(), bench.wires[0].counts
    assert len(faults) > 4
    assert soak_sums.off(protocol, shown, sent) == []
    counted, fewest = fewest_sent(kind, shown, sent)
    assert soak_sums.off(protocol, shown, {**sent, counted: fewest}) == []
    assert soak_sums.off(protocol, shown, {**sent, counted: fewest - 1}) != [], "it would be told"
    if protocol == "modbus":
        assert shown["wire"]["answered"] > 0
        assert shown["wire"]["refused"] + shown["wire"]["unfitting"] > 0 < shown["wire"]["silent"]
        assert shown["rejected"]["modbus_illegal_address"] > 0 < shown["rejected"]["modbus_device_failure"]
    elif protocol == "mqtt":
        found = shown["samples"] + shown["overflowed"] + shown["messages_rejected"] * len(CHANNELS)
        assert shown["wire"]["messages"] * len(CHANNELS) == found
        assert shown["messages_rejected"] > 0 < shown["rejected"]["type"]
    elif kind == "asked":
        assert shown["wire"]["asked"] > shown["wire"]["answered"] > 0 < shown["faults"]["checksum"]
    elif kind == "polled":
        assert shown["wire"]["asked"] > shown["wire"]["values"] > 0 < shown["rejected"]["device"]
    elif protocol == "opcua":
        assert shown["wire"]["ticks"] > 0 < shown["rejected"]["device"]
        assert sent["notified"] > 0 < shown["disconnects"]
    else:
        assert shown["messages_rejected"] > 0 < shown["faults"]["checksum"]
        assert shown["wire"]["bytes"] > 0 < shown["disconnects"]


def fewest_sent(kind: str, shown: dict[str, Any], sent: Mapping[str, int]) -> tuple[str, int]:
    """One of the simulator's counts, and the least that it can have been by what the source has counted."""
    came, breaks = shown["wire"], shown["connects"] - 1 + shown["disconnects"]
    match kind:
        case "mqtt":
            return "sent", came["messages"] - sent["retained_junk"] * shown["connects"]
        case "opcua":
            return "notified", came["values"] + sent["unsent"]
        case "polled":
            a_poll = len(shown["channels"]) * (shown["disconnects"] + 1)
            return "polled", max(came["asked"] - a_poll, came["values"])
        case "asked":
            return "requests", came["asked"] - breaks
        case "serial":
            return "bytes", came["bytes"]
        case _:
            return "requests", came["asked"] - came["silent"] - came["lost"] - 1


async def well(ingest: Ingest, stored: int) -> None:
    """It is connected, and more has come that is stored."""
    try:
        await until(lambda: ingest.connected and ingest.snapshot()["stored"] > stored)
    except AssertionError:
        pytest.fail(f"it does not recover: {ingest.snapshot()}")


@asynccontextmanager
async def broken(
    station: Station, ingest: Ingest, name: str, parameters: Mapping[str, str], *, shows: Sequence[str] = ()
):
    """A fault is on for a while, and until the source has counted something of it in its status."""

    def shown() -> int:
        found: Any = ingest.snapshot()
        for key in shows:
            found = found.get(key, 0)
        if shows:
            return sum(found.values()) if isinstance(found, dict) else found
        return 0

    before = shown()
    await station.break_(name, parameters)
    await asyncio.sleep(BROKEN_S)
    await until(lambda: not shows or shown() > before, f"told of {name}")
    yield
    await station.mend(name, parameters)
