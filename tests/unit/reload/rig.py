"""A running assembly on a stepped clock, whose sources are pushed by the test, and a model with a state."""

import asyncio
import copy
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np

from dxad.assembly import Assembly
from dxad.config import Config
from dxad.errors import ModelError
from dxad.event import Event
from dxad.fields import ModelSection
from dxad.outbox import Outbox
from dxad.pipeline import Pipeline
from dxad.plugin import Plugin
from dxad.runtime.clock import SteppedClock
from dxad.runtime.health import Health
from dxad.runtime.metrics import Metrics
from dxad.runtime.supervisor import Supervisor
from dxad.types import NS_PER_S, Calibration, Channel, Document, Scores, Windows
from tests.patience import PATIENCE_S

PERIOD = NS_PER_S // 100
"""100 Hz; every profile seals after 25 rows."""


class CountingConfig(ModelSection):
    """`{ type = "counting" }`."""

    type: Literal["counting"]
    limit: float = 500.0
    refuse: bool = False
    """Refuse to load."""
    fail_at_restore: bool = False


class Counting:
    """Scores how far a row is above the first it ever saw; that first row is what it has learned."""

    version = "counting"

    def __init__(self, config: CountingConfig) -> None:
        self.config = config
        self.first: float | None = None
        self.closed = False
        self.calibration: Calibration | None = None

    def load(self, channels: Sequence[Channel], rows: int | None, *, by: int | None = None) -> int:
        if self.config.refuse:
            raise ModelError("this model is for nobody")
        return rows or 1

    def score(self, windows: Windows) -> Scores:
        rows = windows.values[:, -1, 0].astype(float)
        if self.first is None:
            self._learn(float(rows[0]))
        return Scores(np.maximum(rows - self.first, 0.0))

    def _learn(self, first: float) -> None:
        self.first = first
        self.calibration = Calibration(self.config.limit)

    def state(self) -> Document:
        return {} if self.first is None else {"first": self.first}

    def restore(self, state: Document) -> None:
        if self.config.fail_at_restore:
            raise ZeroDivisionError("a bug")
        self._learn(state["first"])

    def close(self) -> None:
        self.closed = True


def _build(config: CountingConfig, *, state_dir: Path) -> Counting:
    return Counting(config)


COUNTING = Plugin(CountingConfig, _build)

BASE: Document = {
    "gateway": {"id": "gw"},
    "sources": {
        name: {"type": "memory", "period": "10ms", "lateness": "0ms", "keep": "60s", "channels": {"x": {}}}
        for name in ("a", "b")
    },
    "pipelines": {
        name: {
            "channels": [f"{name}.*"],
            "model": {"type": "counting"},
            "alarm": {"on_delay": "50ms", "off_delay": "50ms"},
        }
        for name in ("a", "b")
    },
    "sinks": {"one": {"type": "memory"}},
}


def edited(base: Document = BASE, **edits: Any) -> Document:
    """A copy in which the value at each dotted key, dots written as `__`, is another; None takes it away."""
    found = copy.deepcopy(base)
    for key, value in edits.items():
        *way, last = key.split("__")
        table = found
        for part in way:
            table = table.setdefault(part, {})
        if value is None:
            del table[last]
        else:
            table[last] = value
    return found


class Rig:
    """Everything the daemon has, but for the socket and the signals."""

    def __init__(self, folder: Path, document: Document, supervisor: type[Supervisor]) -> None:
        self.folder = folder
        self.clock = SteppedClock()
        self.health = Health(self.clock)
        self.metrics = Metrics()
        self.outbox = Outbox(
            None, max_bytes=2**20, commit_window_s=0.0, health=self.health, metrics=self.metrics,
            clock=self.clock,
        )  # fmt: skip
        self.assembly = Assembly(
            self.config(document), boot="boot", clock=self.clock, health=self.health, metrics=self.metrics,
            outbox=self.outbox,
        )  # fmt: skip
        self.supervisor = supervisor(self.clock, self.health)
        self.told: list[tuple[str, str]] = []
        """Pipeline and type of each event."""
        self.events: list[Event] = []
        self.assembly.listeners.append(self._hear)
        self.pushed = 0
        self.bias = 0.0

    def _hear(self, event: Event) -> None:
        self.events.append(event)
        if "pipeline" in event.data:
            self.told.append((event.data["pipeline"], event.type))

    def config(self, document: Document) -> Config:
        return Config.model_validate({**document, "state_dir": str(self.folder)})

    async def reload(self, **edits: Any) -> None:
        """Prepare and apply, as the daemon does: off the event loop, then on it."""
        config = self.config(edited(**edits))
        prepared = await asyncio.to_thread(self.assembly.prepare, config)
        await self.assembly.apply(prepared, self.supervisor)

    async def feed(self, rows: int) -> None:
        """One reading for each source and period: 0, 1, 2 …; with `bias` added for source a."""
        for _ in range(rows):
            for name, ingest in self.assembly.ingests.items():
                ingest.source.push({"x": self.pushed + (self.bias if name == "a" else 0.0)})
            self.pushed += 1
            await self.clock.step(PERIOD, settle=4)

    async def feed_while(self, doing: "asyncio.Task[Any]") -> None:
        """Feed until it is done, and a little longer."""
        while not doing.done():
            await self.feed(1)
            await asyncio.sleep(0.001)
        await self.feed_on()

    async def feed_on(self) -> None:
        """Feed some more, until all that was pushed has been sealed and scored."""
        await self.feed(50 - self.pushed % 25)
        await self.idle()

    async def idle(self) -> None:
        """Until everything that was sealed has been scored."""
        async with asyncio.timeout(PATIENCE_S):
            while any(each.due for each in self.assembly.pipelines.values()):
                self.assembly.scoring.wake()
                await asyncio.to_thread(lambda: None)
            async with self.assembly.scoring.between_batches():
                pass

    def seen(self, name: str) -> list[float]:
        """What a pipeline has seen, of all that it remembers."""
        rows = self.assembly.pipelines[name].rows
        return rows.read(rows.oldest, rows.sealed).values[:, 0].tolist()

    def missed_none(self, name: str) -> bool:
        """Whether a pipeline has taken every row once, and those it remembers are the last ones, in order."""
        seen = self.seen(name)
        newest = [float(each) for each in range(self.pushed - len(seen), self.pushed)]
        return seen == newest and self.rows(name) == self.pushed

    def rows(self, name: str) -> int:
        """How many rows it has taken, under this name, since the process began."""
        return sum(
            self.metrics.total(f"dxad_rows_{what}_total", pipeline=name) for what in ("scored", "unscored")
        )

    @property
    def conditions(self) -> set[tuple[str, str]]:
        return {(each.code, each.subject) for each in self.health.active}


@asynccontextmanager
async def running(
    folder: Path, document: Document = BASE, *, supervisor: type[Supervisor] = Supervisor
) -> AsyncIterator[Rig]:
    """A rig whose services run; none is left behind."""
    rig = Rig(folder, document, supervisor)
    try:
        async with rig.outbox, rig.supervisor:
            for name, service in rig.assembly.services().items():
                rig.supervisor.start(name, service)
            await rig.clock.step(0)
            yield rig
    finally:
        rig.assembly.close()


def detectors(pipeline: Pipeline) -> tuple[object, ...]:
    """What must be the same object for nothing to be forgotten."""
    return pipeline, pipeline.detector, pipeline.rows, *pipeline.watch.episodes
