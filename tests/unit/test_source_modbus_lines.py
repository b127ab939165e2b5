"""The Modbus source on every kind of line, with every kind of register, shared, and broken as lines break."""

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from dxad.errors import ConfigError, NotConnected
from dxad.runtime.clock import SystemClock
from dxad.sources.modbus import Config, Modbus
from dxad.types import Quality, Reason
from hw_sim.scenario import Origin, of
from hw_sim.station import station

pytestmark = pytest.mark.one_loop

KINDS = ("tcp", "rtu", "rtu+tcp", "ascii")
FLOW = {"register": "input:30", "encoding": "float32", "channel": "plc.flow"}
SLAVES = {
    "one": {
        "id": 1,
        "registers": {"flow": FLOW, "level": {**FLOW, "register": "input:32", "channel": "plc.level"}},
    },
    "two": {
        "id": 2,
        "registers": {"valve": {"register": "holding:12", "scale": 0.1, "channel": "plc.valve"}},
    },
    "three": {
        "id": 3,
        "registers": {"speed": {"register": "input:0", "scale": 0.1, "channel": "motor.speed"}},
    },
}
ONE = {
    "flow": {"register": "input:30", "encoding": "float32"},
    "level": {"register": "input:32", "encoding": "float32"},
}
TWO = {"valve": {"register": "holding:12", "scale": 0.1}}
THREE = {"speed": {"register": "input:0", "scale": 0.1}}


@asynccontextmanager
async def bus(kind, folder, devices=SLAVES):
    """The simulator's slaves on a line of this kind; its station and url."""
    framing, _, network = kind.partition("+")
    place = {"port": 0} if network or kind == "tcp" else {"link": str(folder / "bus")}
    scenario = of(
        {
            "plants": {"pump": {"kind": "pump_skid"}},
            "wires": {"bus": {"type": "modbus", "framing": framing, "devices": devices, **place}},
        },
        Origin("bus"),
    )
    async with station(scenario, *scenario.bench()) as running:
        stepping = asyncio.create_task(running.run([], duration_s=None))
        try:
            at = next(iter(running.wires[0].endpoints.values()))
            yield running, f"{kind}://{at.removeprefix('tcp://')}"
        finally:
            stepping.cancel()
            await asyncio.wait([stepping])


@asynccontextmanager
async def connected(url, device_id, channels, **settings):
    document = {"type": "modbus", "url": url, "device_id": device_id, "period": "20ms", "timeout": "100ms"}
    config = Config.model_validate({**document, "channels": channels, **settings})
    source = Modbus("plc", config, clock=SystemClock())
    try:
        await source.connect()
        yield source
    finally:
        await source.close()


async def polled(source):
    """By channel, value, quality and reason of the next poll."""
    samples = (await source.read()).samples
    names = [channel.id.partition(".")[2] for channel in source.channels]
    return {
        names[each["column"]]: (float(each["value"]), Quality(each["quality"]), Reason(each["reason"]))
        for each in samples
    }


async def gone(source):
    """Poll until there is nobody."""
    while True:
        await polled(source)


def is_well(found):
    return all(quality is Quality.GOOD for _, quality, _ in found.values())


@pytest.mark.parametrize("kind", KINDS)
async def test_three_slaves_share_a_line_of_any_kind(kind, tmp_path):
    async with bus(kind, tmp_path) as (_, url), AsyncExitStack() as stack:
        one, two, three = [
            await stack.enter_async_context(connected(url, number, channels))
            for number, channels in ((1, ONE), (2, TWO), (3, THREE))
        ]
        assert one._link is two._link is three._link
        for _ in range(3):
            found = {}
            for each in await asyncio.gather(polled(one), polled(two), polled(three)):
                found |= each
            assert is_well(found)
            assert 700 < found["flow"][0] < 1100
            assert 50 < found["valve"][0] < 75
            assert 1300 < found["speed"][0] < 1600


async def polling(source, found, *, until):
    """Read as ingest does, and note what comes."""
    while asyncio.get_running_loop().time() < until:
        try:
            if source._link is None:
                await source.connect()
            found.append(is_well(await polled(source)))
        except NotConnected:
            await source.close()
            await asyncio.sleep(0.15)


@pytest.mark.parametrize("kind", ["rtu", "tcp"])
async def test_a_slave_that_falls_silent_costs_its_neighbours_nothing(kind, tmp_path):
    async with bus(kind, tmp_path) as (running, url), AsyncExitStack() as stack:
        sources = [
            await stack.enter_async_context(
                connected(url, number, channels, period="100ms", timeout="500ms")  # as by default
            )
            for number, channels in ((1, ONE), (2, TWO), (3, THREE))
        ]
        found = [[], [], []]
        polls = [
            asyncio.create_task(polling(source, each, until=asyncio.get_running_loop().time() + 2.0))
            for source, each in zip(sources, found, strict=True)
        ]
        await asyncio.sleep(0.35)
        await running.break_("modbus.silence", {"device": "two"})
        await asyncio.wait(polls)
        one, two, three = found
        assert all(one)
        assert all(three)
        assert sources[0].skipped == sources[2].skipped == 0
        assert len(one) >= 19
        assert not all(two) or len(two) < 6


async def test_one_that_was_never_there_takes_a_tenth_of_the_line(tmp_path):
    async with bus("rtu", tmp_path) as (running, url), AsyncExitStack() as stack:
        await running.break_("modbus.silence", {"device": "two"})
        one, two = [
            await stack.enter_async_context(connected(url, number, channels, timeout="500ms"))
            for number, channels in ((1, ONE), (2, TWO))
        ]
        found, silent = [], []
        until = asyncio.get_running_loop().time() + 1.0
        await asyncio.gather(polling(one, found, until=until), polling(two, silent, until=until))
        assert all(found)
        assert len(found) + one.skipped >= 45
        assert one.skipped <= 15, "of 50: 0.2 s once, and then a tenth"
        assert one._link.resting_s(2) > 0.5


TYPES = {
    "int8": ("plc.valve", 1.0), "uint8": ("plc.valve", 1.0), "int16": ("plc.flow", 0.1),
    "uint16": ("plc.flow", 0.1),
    "int32": ("plc.flow", 0.001), "uint32": ("plc.flow", 0.001), "int64": ("plc.flow", 1e-6),
    "uint64": ("plc.flow", 1e-6), "float16": ("plc.pressure", 1.0), "float32": ("plc.flow", 1.0),
    "float64": ("plc.flow", 1.0),
}  # fmt: skip
WIDTHS = {"int8": 1, "uint8": 1, "int16": 1, "uint16": 1, "float16": 1, "int64": 4, "uint64": 4, "float64": 4}


async def test_every_type_in_every_order_and_flags_within_a_register(tmp_path):
    registers, at = {}, 0
    for order in ("ABCD", "BADC", "CDAB", "DCBA"):
        for encoding, (channel, scale) in TYPES.items():
            registers[f"{encoding}-{order}"] = {
                "register": f"input:{at}", "encoding": encoding, "order": order, "scale": scale,
                "channel": channel,
            }  # fmt: skip
            at += WIDTHS.get(encoding, 2)
    for bit, width in ((3, 2), (15, 1)):
        registers[f"bits-{bit}"] = {
            "register": "holding:5", "encoding": "bits", "bit": bit, "width": width, "channel": "plc.running",
        }  # fmt: skip
    devices = {"one": {"id": 1, "size": 200, "registers": registers}}
    channels = {
        name: {key: value for key, value in each.items() if key != "channel"}
        for name, each in registers.items()
    }
    async with bus("tcp", tmp_path, devices) as (running, url), connected(url, 1, channels) as source:
        for channel in ("plc.flow", "plc.valve", "plc.pressure"):
            await running.break_("stuck", {"channel": channel})
        await asyncio.sleep(0.05)
        found = await polled(source)
        readings = running.bench.readings
    assert is_well(found)
    for name, each in registers.items():
        least = {"float16": 2e-3, "float32": 1e-4, "bits": 0.0}.get(
            each["encoding"], each.get("scale", 1) / 2 + 1e-6
        )
        assert found[name][0] == pytest.approx(readings[each["channel"]], abs=least), name


HOLED = {f"r{at}": {"register": f"input:{at}"} for at in (0, 1, 2, 5, 6, 7, 20)}


@pytest.mark.parametrize(("address", "bad"), [(1, {"r1"}), (20, {"r20"}), (4, set())])
async def test_an_address_that_is_not_there_costs_its_own_channel_alone(address, bad, tmp_path):
    shown = {name: {**each, "scale": 0.1, "channel": "plc.valve"} for name, each in HOLED.items()}
    devices = {"one": {"id": 1, "registers": shown}}
    async with bus("tcp", tmp_path, devices) as (running, url), AsyncExitStack() as stack:
        source = await stack.enter_async_context(connected(url, 1, HOLED, retry="1h", hole=20))
        await running.break_("modbus.illegal_address", {"address": str(address)})
        for _ in range(2):
            found = await polled(source)
            assert {name for name, (_, quality, _) in found.items() if quality is Quality.BAD} == bad
            assert {reason for _, quality, reason in found.values() if quality is Quality.BAD} <= {
                Reason.MODBUS_ILLEGAL_ADDRESS
            }
        asked = running.wires[0].counts["requests"]
        await polled(source)
        assert running.wires[0].counts["requests"] - asked <= 2, "what is known is not asked for again"
        await running.mend("modbus.illegal_address", {})
        source._retry_at = 0
        assert is_well(await polled(source))
        await polled(source)
        assert len(source._requests) == 1


async def test_a_line_is_used_in_one_way(tmp_path):
    async with bus("rtu", tmp_path) as (_, url), connected(f"{url}?baudrate=9600", 1, ONE):
        with pytest.raises(ConfigError, match="another source uses it"):
            async with connected(f"{url}?baudrate=19200", 2, TWO):
                pytest.fail("it took both")


async def test_a_terminal_that_is_not_there_or_goes_is_told(tmp_path):
    with pytest.raises(NotConnected, match=r"rtu:///.*nowhere: No such file or directory"):
        async with connected(f"rtu://{tmp_path}/nowhere", 1, ONE):
            pytest.fail("it is not there")
    async with bus("rtu", tmp_path) as (running, url), connected(url, 1, ONE) as source:
        assert is_well(await polled(source))
        await running.break_("modbus.refuse", {})
        with pytest.raises(NotConnected):
            await gone(source)
        await running.mend("modbus.refuse", {})
        await source.connect()
        assert is_well(await polled(source))
