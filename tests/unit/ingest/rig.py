"""An ingest with a source that does what the test says, on a clock that is stepped."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import numpy as np

from dxad.ingest import Ingest
from dxad.ring.journal import Journal
from dxad.ring.ringbuffer import RingBuffer
from dxad.ring.stage import Stage
from dxad.runtime.backoff import Backoff
from dxad.runtime.clock import SteppedClock
from dxad.runtime.health import Health
from dxad.runtime.metrics import Metrics
from dxad.runtime.ticker import Ticker
from dxad.sources.memory import Config
from dxad.types import NS_PER_S, Block, Quality, Reason, State

PERIOD = NS_PER_S // 10
START = 1000 * PERIOD
NAN = float("nan")

HANG = object()
"""In a script: nothing comes, ever."""
STUBBORN = object()
"""In a script: nothing comes, and the first cancellation is swallowed, as some libraries do."""


class Scripted:
    """A source that does what the test says; when the script is over, nothing more comes."""

    misanswers = ""
    """What is wrong with how the device answers."""

    def __init__(self, clock: SteppedClock) -> None:
        self.clock = clock
        self.stage = Stage(1000)
        self.connecting: list[Any] = []
        """One for each attempt; None connects."""
        self.reading: asyncio.Queue[Any] = asyncio.Queue()
        self.let_go = asyncio.Event()
        """Ends what is stubborn."""
        self.connects = 0
        self.closes = 0
        self.closing: list[Any] = []
        """One for each close; HANG does not end, STUBBORN not even when it is cancelled."""
        self.confirmed: list[int] = []
        self.pressed = False
        self.attempts: list[float] = []
        """When each attempt to connect was made, in seconds from the start."""

    async def connect(self) -> None:
        self.connects += 1
        self.attempts.append((self.clock.now() - START) / NS_PER_S)
        await self._do(self.connecting.pop(0) if self.connecting else None)

    async def read(self) -> Block:
        found = await self.reading.get()
        await self._do(found)
        return found

    async def _do(self, step: Any) -> None:
        if step is HANG:
            await asyncio.Event().wait()
        if step is STUBBORN:
            with suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
            await self.let_go.wait()
        if isinstance(step, Exception):
            raise step

    def confirm(self, ticket: int) -> None:
        self.confirmed.append(ticket)

    async def close(self) -> None:
        self.closes += 1
        await self._do(self.closing.pop(0) if self.closing else None)

    def then(self, *steps: Any) -> None:
        for step in steps:
            self.reading.put_nowait(step)

    def block(
        self,
        *values: float,
        column: int = 0,
        ago: int = 0,
        quality=Quality.GOOD,
        through: int | None = None,
        stamp: int = 0,
        ticket: int = 0,
    ) -> Block:
        """One message per value, that arrived so many nanoseconds ago."""
        for value in values:
            self.stage.begin(self.clock.now() - ago, stamp=stamp)
            reason = Reason.DEVICE if quality is Quality.BAD else Reason.NONE
            self.stage.put(column, value, quality, reason)
        return Block(self.stage.take(), through=through, ticket=ticket)


class Rig:
    """An ingest with a scripted source, on a clock that is stepped; it ticks every 50 ms."""

    def __init__(
        self,
        channels: dict[str, Any] | None = None,
        *,
        devices: list[str] | None = None,
        journaled: int | None = None,
        **section: Any,
    ) -> None:
        self.clock = SteppedClock(start=START)
        self.health = Health(self.clock)
        self.metrics = Metrics()
        self.source = Scripted(self.clock)
        if devices is not None:
            self.source.devices = devices
        self.woken = 0
        section = {"period": "100ms", "max_silence": "1h"} | section
        channels = channels or {"a": {}, "b": {}}
        self.section = Config.model_validate({"type": "memory", "channels": channels, **section})
        period = self.section.period or 1
        self.ring = RingBuffer(
            self.section.declared("s"),
            period=period,
            slots=200,
            start=START // period if self.section.period else 0,
        )
        self.journal = None
        if journaled is not None:
            self.journal = Journal(self.ring.channels, period=period, capacity=journaled)
        self.ingest = Ingest(
            "s", self.source, self.section, self.ring, clock=self.clock, health=self.health,
            metrics=self.metrics, backoff=Backoff(first_s=1.0, most_s=8.0, rng=HalfWay()), on_rows=self.wake,
            journal=self.journal,
        )  # fmt: skip
        self.ticker = Ticker(self.clock, period=PERIOD // 2, calls=[self.ingest.tick, self.health.tick])

    def wake(self) -> None:
        self.woken += 1

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(self.ingest.run()), asyncio.create_task(self.ticker.run())]
        await self.settle()
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task

    async def settle(self) -> None:
        await self.clock.step(0)

    async def step(self, seconds: float) -> None:
        await self.clock.step(round(seconds * NS_PER_S))

    async def deliver(self, *steps: Any) -> None:
        """Hand steps to the source and let the ingest take them."""
        self.source.then(*steps)
        await self.settle()

    def count(self, name: str, **labels: str) -> int:
        return self.metrics.total(f"dxad_{name}_total", source="s", **labels)

    def column(self, column: int = 0) -> tuple[list[float], list[State]]:
        reading = self.ring.read(self.ring.oldest, self.ring.sealed)
        states = [State(state) for state in reading.states[:, column]]
        return np.round(reading.values[:, column], 6).tolist(), states

    @property
    def conditions(self) -> dict[str, str]:
        return {each.code: each.detail for each in self.health.active}


class HalfWay:
    """A dice that always falls in the middle."""

    def uniform(self, low: float, high: float) -> float:
        return (low + high) / 2


def told(caplog) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name.startswith("dxad")]
