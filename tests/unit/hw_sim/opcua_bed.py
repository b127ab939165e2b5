"""An OPC-UA wire on a bench that counts, with asyncua's client before it."""

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

from asyncua import Client, ua

from hw_sim.bench import Bench, Rig
from hw_sim.catalogue import FAULTS, Known, make
from hw_sim.opcua.section import Settings
from hw_sim.opcua.wire import OpcuaWire, build
from tests.patience import PATIENCE_S
from tests.unit.hw_sim.rig import Counter

PUMP, FAN = "urn:hw-sim:tests:pump", "urn:hw-sim:tests:fan"
DEVICES = {
    "pump": {
        "namespace": PUMP,
        "object": "Pump",
        "period": "10ms",
        "nodes": {
            "count": {"node": "s=Pump.Count", "kind": "Double", "channel": "count", "history": True},
            "pain": {"node": "i=7", "kind": "Int16", "channel": "pain"},
        },
    },
    "fan": {
        "namespace": FAN,
        "period": "10ms",
        "nodes": {"count": {"node": "s=Count", "kind": "Int32", "channel": "count"}},
    },
}
COUNT, PAIN, FANNED = (PUMP, "s=Pump.Count"), (PUMP, "i=7"), (FAN, "s=Count")
NOW = 1_800_000_000.0
"""The plant's time at the first step."""


def settings(**changes):
    return Settings.model_validate(
        {"type": "opcua", "port": 0, "path": "bench", "devices": DEVICES, **changes}
    )


class Bed:
    """A wire that is up."""

    def __init__(self, chosen: Settings) -> None:
        self.bench = Bench([Rig("counter", Counter())], seed=1)
        wire = build("bed", chosen, self.bench)
        assert isinstance(wire, OpcuaWire)
        self.wire = wire
        self.wire.now = lambda: NOW + self.bench.at_s
        self._known = Known(
            self.bench.channels,
            {"counter": Counter.shows},
            {name: tuple(fields.values()) for name, fields in chosen.fields.items()},
            {"bed": ("opcua", tuple(chosen.fields))},
        )

    def step(self, steps: int = 2) -> None:
        for _ in range(steps):
            self.bench.step()
            self.wire.step()

    async def switch(self, *faults: str, **parameters: str) -> None:
        faults_on = []
        for name in faults:
            known = {key: each for key, each in parameters.items() if key in FAULTS[name].parameters}
            faults_on.append(make(name, 0.0, None, known, self._known))
        await self.wire.switch(faults_on)

    async def power_off(self, *devices: str) -> None:
        await self.wire.switch(
            [make("source_down", 0.0, None, {"device": each}, self._known) for each in devices]
        )

    async def quiet(self) -> None:
        """Until the server has noticed that all clients have left."""
        await until(lambda: not self.wire._line.gates)
        listener = self.wire._listener
        if listener is not None and listener._closing:
            await asyncio.wait(listener._closing)

    @asynccontextmanager
    async def client(self, **about) -> AsyncIterator["Watcher"]:
        client = Client(self.wire.url, timeout=about.pop("timeout", 2.0), watchdog_intervall=3600)
        async with client:
            yield Watcher(client)


class Watcher:
    """A client in its session."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.told: list[tuple[str, ua.DataValue]] = []

    async def node(self, place: tuple[str, str]):
        index = await self.client.get_namespace_index(place[0])
        return self.client.get_node(f"ns={index};{place[1]}")

    async def read(self, place: tuple[str, str] = COUNT) -> ua.DataValue:
        return await (await self.node(place)).read_data_value(raise_on_bad_status=False)

    @asynccontextmanager
    async def watching(self, *places: tuple[str, str], interval_ms: int = 10):
        """A subscription to these nodes; yields what it is told, as it comes."""
        told: list[ua.DataValue] = []

        class Handler:
            def datachange_notification(self, node, value, data):
                told.append(data.monitored_item.Value)

        subscription = await self.client.create_subscription(interval_ms, Handler())
        await subscription.subscribe_data_change([await self.node(each) for each in places], queuesize=1000)
        await until(lambda: len(told) >= len(places))
        try:
            yield told
        finally:
            if self.client.uaclient.protocol is not None:
                await subscription.delete()


async def until(true, within_s: float = PATIENCE_S) -> None:
    """Until it is so."""
    async with asyncio.timeout(within_s):
        while not true():  # noqa: ASYNC110 - what is waited for happens elsewhere
            await asyncio.sleep(0.005)


@asynccontextmanager
async def bed(**changes) -> AsyncIterator[Bed]:
    # One thread for whatever reads files, from now on: so that no test finds one more than before.
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1, "files"))
    await asyncio.to_thread(lambda: None)
    chosen = settings(**changes)
    made = Bed(chosen)
    try:
        await made.wire.start()
        # Once off and on: from now on a listener has the same descriptor, so that no test finds one left.
        await made.switch("opcua.stop")
        await made.switch()
        yield made
    finally:
        await made.wire.close()
        await made.wire.close()
