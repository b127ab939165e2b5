"""A plant that counts, and a wire that notes what is done to it."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from hw_sim.bench import Bench, Rig
from hw_sim.catalogue import Known, parse_all
from hw_sim.fault import Fault
from hw_sim.plant import HEALTHY, Channel, Stress
from hw_sim.section import WireSection
from hw_sim.wire import Endpoint, Wire


class Counter:
    """Its first channel is the number of its step, its second suffers."""

    channels: Mapping[str, Channel] = {
        "count": Channel("", 0.0, 100.0, 2.0),
        "pain": Channel("bar", 0.0, 8.0, 0.5),
    }
    shows: Mapping[str, tuple[str, ...]] = {"wear": ("pain",), "restriction": ("pain",), "leak": ("pain",)}

    def __init__(self, step_s: float = 0.01) -> None:
        self.step_s = step_s
        self.steps = -1

    def step(self, stress: Stress = HEALTHY) -> dict[str, float]:
        self.steps += 1
        return {"count": float(self.steps), "pain": stress.wear + stress.restriction - 1 + stress.leak}


class Section(WireSection):
    type: str = "modbus"
    at: Mapping[str, Mapping[str, str]]

    @property
    def fields(self) -> Mapping[str, Mapping[str, str]]:
        return self.at


class Recorder(Wire):
    """A wire that notes what is switched, and at which time of the plant."""

    kind = "modbus"

    def __init__(self, bench: Bench, *devices: str, slow_s: float = 0.0, fails: bool = False) -> None:
        super().__init__(devices[0], Section(at={each: {"count": "count"} for each in devices}), bench)
        self.done: list[tuple[str, bool, float]] = []
        self.steps = 0
        self._slow_s = slow_s
        self._fails = fails

    @property
    def endpoints(self) -> Mapping[str, Endpoint]:
        return {device: Endpoint(f"nowhere://{device}", "nothing") for device in self.devices}

    async def start(self) -> None:
        """It is there."""

    async def close(self) -> None:
        """Nothing to let go of."""

    def step(self) -> None:
        self.steps += 1

    async def switched(self, fault: Fault, *, on: bool) -> None:
        if self._fails:
            raise OSError("the port is taken")
        await asyncio.sleep(self._slow_s)
        self.done.append((fault.name, on, self.bench.at_s))


def known(*devices: str) -> Known:
    """What a bench with a counter and a wire per device has."""
    return Known(
        Counter.channels,
        {"counter": Counter.shows},
        dict.fromkeys(devices, ("count",)),
        {device: ("modbus", (device,)) for device in devices},
    )


def counting(*faults: str, devices: tuple[str, ...] = ("plc", "vib"), step_s: float = 0.01) -> Bench:
    """A bench with a counter on it."""
    return Bench([Rig("counter", Counter(step_s))], seed=1, faults=parse_all(faults, known(*devices)))


@asynccontextmanager
async def plugged(wire: Wire) -> AsyncIterator[Wire]:
    """A wire of the simulator, up until the block is left."""
    try:
        await wire.start()
        yield wire
    finally:
        await wire.close()
