"""The whole bench: plant, labels and wires, from the first sample to the last.

                    ┌─▶ MqttWire ══ broker
PumpSkid ─▶ Bench ──┼─▶ ModbusWire
(and twin)    │     ├─▶ OpcuaWire
              ▼     └─▶ SerialWire ══ pty
           Labels
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

from hw_sim.bench import Bench
from hw_sim.broker import Broker
from hw_sim.labels import Labels
from hw_sim.modbus import ModbusWire
from hw_sim.mqtt import MqttWire
from hw_sim.opcua import OpcuaWire
from hw_sim.plant import STEP_S
from hw_sim.scenario import LOOPBACK, Places, Scenario
from hw_sim.serial import SerialWire
from hw_sim.tasks import race
from hw_sim.wire import Wire

__all__ = ["Station", "station"]


class Station:
    """Runs the bench in real time."""

    def __init__(self, bench: Bench, wires: Sequence[Wire]) -> None:
        self.wires = wires
        self._bench = bench
        self._switched = asyncio.Event()

    async def run(self, labels: Labels, scenario: Scenario) -> None:
        """Step the plant to the present until the scenario's end, or until cancelled."""
        await race(self._step_plant(labels, scenario), self._switch_wires())

    async def _step_plant(self, labels: Labels, scenario: Scenario) -> None:
        loop = asyncio.get_running_loop()
        begin = loop.time()
        labels.start(seed=scenario.seed)
        self._switched.set()
        while scenario.duration_s is None or self._bench.at_s < scenario.duration_s:
            due = begin + self._bench.at_s + STEP_S
            await asyncio.sleep(max(0.0, due - loop.time()))
            down = self._bench.down
            self._bench.step()
            for wire in self.wires:
                wire.step()
            labels.step()
            if self._bench.down != down:
                self._switched.set()

    async def _switch_wires(self) -> None:
        """Take the wires away whose device is off, and bring those back whose device is on again."""
        away: frozenset[str] = frozenset()
        while True:
            await self._switched.wait()
            self._switched.clear()
            down = self._bench.down
            for wire in self.wires:
                if wire.device in down - away:
                    await wire.stop()
                elif wire.device in away - down:
                    await wire.start()
            away = down


@asynccontextmanager
async def station(bench: Bench, places: Places) -> AsyncIterator[Station]:
    """All wires, up and readable, until the block is left.

    Raises:
        OSError: a place is taken, or the broker that was named is not there.
    """
    host, port = places.broker or (LOOPBACK, places.mqtt_port)
    wires: Sequence[Wire] = (
        MqttWire(bench, host=host, port=port),
        ModbusWire(bench, port=places.modbus_port),
        OpcuaWire(bench, port=places.opcua_port),
        SerialWire(bench, link=places.serial_link),
    )
    async with AsyncExitStack() as stack:
        if places.broker is None:
            stack.enter_context(Broker(mqtt5_port=places.mqtt_port, mqtt311_port=places.mqtt311_port))
        for wire in wires:
            stack.push_async_callback(wire.close)
            await wire.start()
        yield Station(bench, wires)
