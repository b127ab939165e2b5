"""Each fault of a plant, a sensor or a device, switched on and off and looked at by a client on a wire.

The faults of wires have tests of this kind of their own, a file each.
"""

import asyncio
import math
import struct
from contextlib import asynccontextmanager

import numpy as np
import pytest

from hw_sim.catalogue import FAULTS, make
from hw_sim.modbus.section import Settings
from hw_sim.modbus.wire import build
from hw_sim.scenario import load
from tests.unit.hw_sim.rig import plugged

CHANNELS = ("plc.flow", "plc.pressure", "vib.x", "vib.y")
SECOND = 100
"""In steps of the pump skid."""


class Client:
    """Reads all registers over TCP, as the specification has it."""

    def __init__(self, bench, known, wire, reader, writer):
        self.bench, self.known, self.wire = bench, known, wire
        self._reader, self._writer = reader, writer

    async def read(self):
        self._writer.write(struct.pack(">HHHBBHH", 7, 0, 6, 1, 4, 0, 2 * len(CHANNELS)))
        header = await self._reader.readexactly(9)
        assert header[7:] == bytes([4, 4 * len(CHANNELS)])
        return struct.unpack(f">{len(CHANNELS)}f", await self._reader.readexactly(header[8]))

    async def watch(self, seconds):
        """By channel, what the wire shows and what it would without a fault, a hundred times a second."""
        shown, healthy = [], []
        for _ in range(round(seconds * SECOND)):
            self.bench.step()
            self.wire.step()
            shown.append(await self.read())
            healthy.append([np.float32(self.bench.healthy[name]) for name in CHANNELS])
        return (dict(zip(CHANNELS, np.array(each).T, strict=True)) for each in (shown, healthy))

    @asynccontextmanager
    async def broken(self, name, **settings):
        """With a fault on, from this moment until the block is left."""
        fault = make(name, self.bench.at_s, None, settings, self.known)
        self.bench.add(fault)
        await self.wire.switch([each for each in self.bench.active if self.wire.name in each.wires])
        try:
            yield fault
        finally:
            self.bench.end(fault)
            await self.wire.switch(())


@pytest.fixture
async def client():
    bench, known = load("pump_skid").bench()
    registers = {
        channel.replace(".", "_"): {"register": f"input:{2 * at}", "encoding": "float32", "channel": channel}
        for at, channel in enumerate(CHANNELS)
    }
    settings = Settings.model_validate(
        {"type": "modbus", "port": 0, "devices": {"plc": {"registers": registers}}}
    )
    async with plugged(build("plc", settings, bench)) as wire:
        port = int(wire.endpoints["plc"].rpartition(":")[2])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            yield Client(bench, known, wire, reader, writer)
        finally:
            writer.close()
            await asyncio.wait([asyncio.ensure_future(writer.wait_closed())])


def rms(values):
    return math.sqrt(np.mean(values**2))


def off(values, truth):
    return values.astype(float) - truth


CHECKS = {
    "spike": lambda value, truth: set(np.round(np.abs(off(value, truth)))) == {0.0, 250.0},
    "step": lambda value, truth: np.allclose(off(value, truth), 150.0, atol=1e-3),
    "drift": lambda value, truth: off(value, truth)[-1] == pytest.approx(150.0 * 2 / 60, abs=0.1),
    "stuck": lambda value, truth: len(set(value)) == 1 and len(set(truth)) > 100,
    "noise_burst": lambda value, truth: np.std(off(value, truth)) == pytest.approx(100.0, rel=0.3),
    "dropout": lambda value, truth: np.isnan(value).sum() == 19 and np.isfinite(truth).all(),
    "bias": lambda value, truth: np.allclose(value[SECOND:], 1.1 * truth[SECOND:], rtol=1e-5),
    "oscillation": lambda value, truth: 20.0 < np.ptp(off(value, truth)) < 100.0,
    "sensor_disconnect": lambda value, truth: set(value) == {-400.0} and truth.min() > 700,
}
"""By fault of a sensor: two seconds of the flow beside the truth, from the step after its onset."""
SIZES = {
    "bearing_wear": ("vib.x", lambda value, truth: rms(value) / rms(truth) == pytest.approx(1.5, abs=0.35)),
    "blockage": ("plc.flow", lambda value, truth: (value - truth)[-1] < -60),
    "leak": ("plc.flow", lambda value, truth: (value - truth)[-1] < -60),
}
"""By fault of a plant, after two seconds."""


@pytest.mark.parametrize("name", CHECKS)
async def test_a_sensors_fault_shows_on_the_wire_and_is_gone_when_it_is_off(client, name):
    async with client.broken(name, channel="plc.flow"):
        shown, healthy = await client.watch(2.0)
        assert CHECKS[name](shown["plc.flow"], healthy["plc.flow"])
        for other in CHANNELS[1:]:
            assert np.array_equal(shown[other], healthy[other]), "no other sensor is wrong"
    shown, healthy = await client.watch(0.2)
    assert np.array_equal(shown["plc.flow"], healthy["plc.flow"])


@pytest.mark.parametrize("name", SIZES)
async def test_a_plants_fault_shows_on_the_wire_and_the_plant_recovers(client, name):
    channel, check = SIZES[name]
    settings = {"ramp": "1s", "size": "0.125"} if name == "bearing_wear" else {"ramp": "1s"}
    async with client.broken(name, **settings) as fault:
        assert channel in fault.channels
        shown, healthy = await client.watch(2.0)
        assert check(shown[channel], healthy[channel])
    await client.watch(3.0)
    shown, healthy = await client.watch(0.2)
    assert shown[channel] == pytest.approx(healthy[channel], rel=1e-2, abs=0.05)


async def test_a_device_without_power_is_gone_and_comes_back(client):
    async with client.broken("source_down", device="plc"):
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await client.read()
    port = int(client.wire.endpoints["plc"].rpartition(":")[2])
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.close()
    await writer.wait_closed()


def test_each_fault_that_is_of_no_wire_is_looked_at():
    assert {*CHECKS, *SIZES, "source_down"} == {name for name, kind in FAULTS.items() if kind.where != "wire"}
