"""The whole bench: plant, labels and wires, from the first sample to the last.

                    ┌─▶ MqttWire ══ broker
PumpSkid ─▶ Bench ──┼─▶ ModbusWire
(and twin)    │     ├─▶ OpcuaWire
              ▼     └─▶ SerialWire ══ pty
           Labels
"""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Protocol

from hw_sim.bench import Bench
from hw_sim.broker import Broker
from hw_sim.labels import Labels
from hw_sim.modbus import ModbusWire
from hw_sim.mqtt import MqttWire
from hw_sim.opcua import OpcuaWire
from hw_sim.plant import STEP_S
from hw_sim.scenario import Places
from hw_sim.serial import SerialWire

__all__ = ["Station", "Wire", "station"]


class Wire(Protocol):
    """A device on its protocol."""

    @property
    def device(self) -> str:
        """The part of its channels' names before the dot."""

    @property
    def endpoint(self) -> str:
        """Where a client finds it."""

    async def start(self) -> None:
        """Come up; a second time after `stop`, under the same endpoint."""

    async def stop(self) -> None:
        """Go away; safe twice."""


class Station:
    """Runs the bench in real time."""

    def __init__(self, bench: Bench, wires: Sequence[Wire], serial: SerialWire, labels: Labels) -> None:
        self.bench = bench
        self._wires = {wire.device: wire for wire in wires}
        self._serial = serial
        self._labels = labels
        self._down: set[str] = set()

    @property
    def endpoints(self) -> Mapping[str, str]:
        """Where each device is, by name."""
        return {name: wire.endpoint for name, wire in self._wires.items()}

    async def run(self, *, seed: int, duration_s: float | None) -> None:
        """Step the plant on a schedule that does not drift, for so long or until cancelled."""
        async with asyncio.TaskGroup() as group:
            wires = group.create_task(self._mind_wires(), name="wires")
            await self._step_plant(seed, duration_s)
            wires.cancel()

    async def _step_plant(self, seed: int, duration_s: float | None) -> None:
        loop = asyncio.get_running_loop()
        begin = loop.time()
        self._labels.start(seed=seed, started=time.time())
        steps = 0
        while duration_s is None or steps * STEP_S < duration_s:
            steps += 1
            await asyncio.sleep(max(0.0, begin + steps * STEP_S - loop.time()))
            self.bench.step()
            self._serial.step()
            self._labels.step()

    async def _mind_wires(self) -> None:
        """Take down the wires whose device is off, and bring back those whose device is on again."""
        while True:
            await self._follow_faults()
            await asyncio.sleep(STEP_S)

    async def _follow_faults(self) -> None:
        off = {
            fault.kind.takes_down(fault.parameters)
            for fault in self.bench.active()
            if fault.kind.takes_down is not None
        }
        for device in off - self._down:
            await self._wires[device].stop()
        for device in self._down - off:
            await self._wires[device].start()
        self._down = off


@asynccontextmanager
async def station(bench: Bench, labels: Labels, places: Places) -> AsyncIterator[Station]:
    """All wires, up and readable, until the block is left."""
    async with AsyncExitStack() as stack:
        if places.broker is None:
            stack.enter_context(Broker(mqtt5_port=places.mqtt_port, mqtt311_port=places.mqtt311_port))
        host, port = places.broker or ("127.0.0.1", places.mqtt_port)
        serial = SerialWire(bench, link=places.serial_link)
        wires: list[Wire] = [
            MqttWire(bench, host=host, port=port),
            ModbusWire(bench, port=places.modbus_port),
            OpcuaWire(bench, port=places.opcua_port),
            serial,
        ]
        for wire in wires:
            stack.push_async_callback(wire.stop)
            await wire.start()
        yield Station(bench, wires, serial, labels)
