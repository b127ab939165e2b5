"""A pipeline over a ring that the test seals by hand."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import settings

from dxad.config import IncidentsSection, PipelineSection
from dxad.event import Event
from dxad.frame import Feed, Frame
from dxad.incident import Identity
from dxad.incident.docket import Docket
from dxad.models.tflite import TFLite
from dxad.pipeline import Pipeline, Stages
from dxad.ring.ringbuffer import RingBuffer
from dxad.runtime.clock import SteppedClock
from dxad.runtime.health import Health
from dxad.runtime.metrics import Metrics
from dxad.shape import chain
from dxad.training import Recording, learn
from dxad.types import NS_PER_S, Channel, State

settings.register_profile("dxad", deadline=None)  # a shared machine may pause in the middle of an example
settings.load_profile("dxad")

PERIOD = NS_PER_S // 10
START = 10_000


class Plant:
    """One source of a few channels at 10 Hz, and a pipeline that watches all of them."""

    def __init__(
        self,
        channels: Sequence[str] = ("s.a", "s.b", "s.c"),
        *,
        slots: int = 4000,
        history: int = 1000,
        start: int = START,
        batch: int = 256,
        backlog: int | None = None,
        incidents: dict[str, Any] | None = None,
        **section: Any,
    ) -> None:
        self.clock = SteppedClock(start=start * PERIOD)
        self.health = Health(self.clock)
        self.metrics = Metrics()
        self.channels = tuple(Channel(name, "mm") for name in channels)
        self.ring = RingBuffer(self.channels, period=PERIOD, slots=slots, start=start)
        found = {"model": {"type": "zscore"}, "alarm": {"on_delay": "500ms", "off_delay": "1s"}} | section
        self.section = PipelineSection.model_validate({"channels": ["s.*"], **found})
        found_incidents = IncidentsSection.model_validate(incidents or {"reopen_within": "0s"})
        self.docket = Docket(found_incidents, gateway="gw", boot="boot", health=self.health)
        frame = Frame([Feed(self.ring, tuple(range(len(channels))))], period=PERIOD)
        sections = self.section.transforms
        self.pipeline = Pipeline(
            "p",
            self.section,
            Stages((), frame, chain(sections, frame.schema)[1], lambda: chain(sections, frame.schema)[0]),
            identity=Identity("gw", "boot", "p"),
            history=history,
            batch=batch,
            backlog=backlog,
            docket=self.docket,
            clock=self.clock,
            health=self.health,
            metrics=self.metrics,
        )

    def seal(self, values: np.ndarray, states: np.ndarray | None = None) -> None:
        """Rows that came; a cell is bad where its value is NaN, unless `states` says otherwise."""
        if states is None:
            states = np.where(np.isnan(values), State.BAD, State.GOOD).astype(np.uint8)
        self.ring.append(self.ring.sealed, values, states)

    def feed(
        self, values: np.ndarray, states: np.ndarray | None = None, *, cut: int | None = None
    ) -> list[Event]:
        """Seal rows and step the pipeline, after every `cut` rows; returns what it told."""
        told: list[Event] = []
        for at in range(0, len(values), cut or max(1, len(values))):
            piece = slice(at, at + cut if cut else None)
            self.seal(values[piece], None if states is None else states[piece])
            told += self.pipeline.step()
        return told

    def counted(self, name: str) -> int:
        """One of the pipeline's counters."""
        return self.metrics.total(f"dxad_{name}_total")

    @property
    def conditions(self) -> dict[str, str]:
        """What is wrong with the gateway: code to detail."""
        return {each.code: each.detail for each in self.health.active}


@pytest.fixture
def make_plant() -> Callable[..., Plant]:
    return Plant


@pytest.fixture
def plant() -> Plant:
    return Plant()


@pytest.fixture
def normal_rows() -> Callable[..., np.ndarray]:
    """Makes rows of normal running: channels that follow one motion, each with noise of its own."""

    def rows(n: int, channels: int = 3, seed: int = 0) -> np.ndarray:
        rng = np.random.default_rng(seed)
        motion = np.sin(np.arange(n) / 9 + seed)[:, None] * np.arange(1, channels + 1)
        return 10.0 + motion + 0.2 * rng.normal(size=(n, channels))

    return rows


@pytest.fixture
def learned(tmp_path, normal_rows):
    """Makes the model that a plant's recorder has led to."""

    def model(plant, rows: int = 600, name: str = "bundle") -> TFLite:
        recorder = plant.pipeline.record(rows)
        told = plant.feed(normal_rows(rows))
        assert told == []
        assert recorder.full
        recording = Recording(
            plant.pipeline.stages.schema.channels,
            plant.pipeline.stages.schema.period,
            recorder.take(),
            plant.pipeline.check.learned(),
        )
        plant.pipeline.recorder = None
        return TFLite(learn(recording, tmp_path / name, rows_most=5))

    return model


@pytest.fixture
def watching(plant, learned):
    """A plant whose pipeline has learned what is normal."""
    plant.pipeline.offer(learned(plant))
    return plant
