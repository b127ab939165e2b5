"""The whole bench: plants, labels and wires, from the first sample to the last.

                     ┌─▶ MQTT ═════ broker
plants ─▶ Bench ─────┼─▶ Modbus ═══ TCP or tty
(and twins)   │      ├─▶ OPC-UA ═══ TCP
              ▼      └─▶ serial ═══ tty
        labels, trace
"""

import asyncio
import logging
import math
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from importlib import import_module
from typing import Any, Final, Protocol

from hw_sim.bench import Bench
from hw_sim.catalogue import Known, make
from hw_sim.fault import Fault, FaultError
from hw_sim.scenario import Scenario
from hw_sim.tasks import race
from hw_sim.wire import Wire

__all__ = ["Station", "Writer", "station"]

_TICK_S: Final = 0.005
"""Shorter steps are made several at a time; and after so long without a pause, others have their turn."""
_BEHIND_S: Final = 2.0

_log = logging.getLogger(__name__)


class Writer(Protocol):
    """What notes each step of the bench: labels, a trace."""

    def start(self) -> None:
        """All wires are up, and t = 0 is now."""

    def step(self) -> None:
        """The bench has made a step."""


class Station:
    """Runs the bench at its speed."""

    def __init__(self, bench: Bench, known: Known, wires: Sequence[Wire], *, speed: float = 1.0) -> None:
        self.bench = bench
        self.wires = wires
        self.speed = speed
        self.behind_s = 0.0
        """By how many real seconds the plant is late."""
        self._known = known
        self._started = 0.0
        self._active: Sequence[Fault] = ()
        self._switches = {wire.name: asyncio.Event() for wire in wires}
        self._applied = {wire.name: asyncio.Event() for wire in wires}
        self._told = False
        for wire in wires:
            wire.now = self.now
            self._applied[wire.name].set()

    def now(self) -> float:
        """The plant's time as a clock on its wall would show it, in unix seconds."""
        return (self._started or time.time()) + self.bench.at_s

    async def run(self, writers: Sequence[Writer], *, duration_s: float | None) -> None:
        """Step the plants to the present until the end, or until cancelled."""
        await race(self._step_plants(writers, duration_s), *map(self._switch, self.wires))

    async def break_(self, name: str, parameters: Mapping[str, str]) -> Fault:
        """Have a fault on from now; returns when every wire that it concerns is broken.

        Raises:
            FaultError: it is written wrong.
        """
        fault = make(name, self.bench.at_s, None, parameters, self._known)
        self.bench.add(fault)
        await self._apply()
        return fault

    async def mend(self, name: str, parameters: Mapping[str, str]) -> Sequence[Fault]:
        """End the faults of this name whose settings are these; returns when every wire of theirs is well.

        Raises:
            FaultError: there is none that is on.
        """
        wanted = make(name, 0.0, None, parameters, self._known).settings
        ended = [
            fault
            for fault in self.bench.active
            if fault.name == name and all(fault.settings[key] == wanted[key] for key in parameters)
        ]
        if not ended:
            on = ", ".join(fault.name for fault in self.bench.active) or "none"
            raise FaultError(f"no such fault is on: {name}; on are: {on}")
        for fault in ended:
            self.bench.end(fault)
        await self._apply()
        return ended

    def document(self) -> dict[str, Any]:
        """What a look at it shows."""
        return {
            "t_s": self.bench.at_s,
            "speed": "max" if math.isinf(self.speed) else self.speed,
            "behind_s": round(self.behind_s, 3),
            "seed": self.bench.seed,
            "faults": [
                {"fault": fault.name, "since_s": fault.onset_s, "settings": dict(fault.settings)}
                for fault in self.bench.active
            ],
            "wires": {
                wire.name: {"type": wire.kind, "endpoints": dict(wire.endpoints), "counts": dict(wire.counts)}
                for wire in self.wires
            },
            "readings": {
                name: None if math.isnan(value) else value for name, value in self.bench.readings.items()
            },
        }

    async def _step_plants(self, writers: Sequence[Writer], duration_s: float | None) -> None:
        loop, bench = asyncio.get_running_loop(), self.bench
        if math.isinf(self.speed):
            await self._ready()
        self._started = time.time() - bench.at_s
        begin = loop.time() - bench.at_s / self.speed
        for wire in self.wires:
            wire.step()
        for writer in writers:
            writer.start()
        self._look()
        paused = loop.time()
        while duration_s is None or bench.at_s < duration_s:
            if math.isinf(self.speed):
                await self._ready()
            elif (due := begin + bench.time_of(bench.steps + 1) / self.speed) > loop.time():
                await asyncio.sleep(max(due, paused + min(_TICK_S, bench.step_s)) - loop.time())
                paused, self.behind_s = loop.time(), 0.0
            else:
                self._late(loop.time() - due)
            if loop.time() - paused > _TICK_S:
                await asyncio.sleep(0)
                paused = loop.time()
            if bench.over:
                break
            bench.step()
            self._show(writers)

    async def _ready(self) -> None:
        for wire in self.wires:
            await wire.ready()

    def _show(self, writers: Sequence[Writer]) -> None:
        """Have wires and writers see what the bench's step has brought."""
        for wire in self.wires:
            wire.step()
        for writer in writers:
            writer.step()
        self._look()

    def _late(self, by_s: float) -> None:
        self.behind_s = by_s
        if by_s > _BEHIND_S and not self._told:
            self._told = True
            _log.warning(
                "the plant is %.1f s late: this machine cannot step it at speed %g", by_s, self.speed
            )

    def _look(self) -> None:
        """Tell the wires when other faults are on."""
        if self.bench.active is self._active:
            return
        for wire in self.wires:
            before, now = (
                [fault for fault in faults if wire.name in fault.wires]
                for faults in (self._active, self.bench.active)
            )
            if before != now:
                self._applied[wire.name].clear()
                self._switches[wire.name].set()
        self._active = self.bench.active

    async def _apply(self) -> None:
        self._look()
        for applied in self._applied.values():
            await applied.wait()

    async def _switch(self, wire: Wire) -> None:
        """Break and mend a wire as its faults come and go; one that is slow at it delays no other."""
        switch, applied = self._switches[wire.name], self._applied[wire.name]
        while True:
            await switch.wait()
            switch.clear()
            await wire.switch([fault for fault in self.bench.active if wire.name in fault.wires])
            if not switch.is_set():
                applied.set()


@asynccontextmanager
async def station(scenario: Scenario, bench: Bench, known: Known) -> AsyncIterator[Station]:
    """All wires of a scenario, up and readable, until the block is left.

    Raises:
        OSError: a place is taken, or a broker that was named is not there.
    """
    async with AsyncExitStack() as stack:
        wires = []
        for name, settings in scenario.wires.items():
            wire: Wire = import_module(f"hw_sim.{settings.type}.wire").build(name, settings, bench)
            stack.push_async_callback(wire.close)
            try:
                await wire.start()
            except OSError as error:
                raise OSError(f"wire {name}: {error}") from error
            wires.append(wire)
        yield Station(bench, known, wires, speed=scenario.speed)
