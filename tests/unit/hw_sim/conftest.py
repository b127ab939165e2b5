"""The bench without wires and without waiting: a minute of plant in a second."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from hw_sim.bench import Bench, Rig
from hw_sim.catalogue import Known, parse
from hw_sim.plants import module


@dataclass(frozen=True)
class Trace:
    """What the sensors showed at each step, and what they would have shown without faults."""

    step_s: float
    actual: Mapping[str, np.ndarray]
    healthy: Mapping[str, np.ndarray]

    def rows(self, begin_s: float, end_s: float) -> slice:
        """The steps of this span of the plant's time."""
        return slice(round(begin_s / self.step_s), round(end_s / self.step_s))


@functools.cache
def _record(seed: int, span_s: float, *faults: str, plant: str = "pump_skid", **settings: Any) -> Trace:
    kind = module(plant)
    rig = Rig(plant, kind.build(kind.Settings(kind=plant, **settings), str(seed)))
    known = Known(rig.channels, {plant: rig.shows})
    bench = Bench([rig], seed=seed, faults=[parse(text, known) for text in faults])
    shown = [(bench.readings, bench.healthy)]
    for _ in range(round(span_s / rig.step_s) - 1):
        bench.step()
        shown.append((bench.readings, bench.healthy))
    actual, healthy = (
        {name: np.array([readings[name] for readings in each]) for name in rig.channels}
        for each in zip(*shown, strict=True)
    )
    return Trace(rig.step_s, actual, healthy)


@pytest.fixture(scope="session")
def record():
    """Runs a plant on the bench: `record(seed, span_s, *faults, plant="pump_skid", **settings)`."""
    return _record
