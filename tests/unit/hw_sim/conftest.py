"""The bench without wires and without waiting: a minute of plant in a second."""

import functools
from dataclasses import dataclass

import numpy as np
import pytest

from hw_sim.bench import Bench
from hw_sim.fault import parse
from hw_sim.plant import CHANNELS


@dataclass(frozen=True)
class Trace:
    """What the sensors showed, and what they would have shown without faults, 100 times a second."""

    actual: dict[str, np.ndarray]
    healthy: dict[str, np.ndarray]


@functools.cache
def _record(seed: int, span_s: float, *faults: str) -> Trace:
    bench = Bench(seed, [parse(text) for text in faults])
    shown = [(bench.readings, bench.healthy)]
    for _ in range(round(span_s * 100) - 1):
        bench.step()
        shown.append((bench.readings, bench.healthy))
    actual, healthy = (
        {name: np.array([readings[name] for readings in each]) for name in CHANNELS}
        for each in zip(*shown, strict=True)
    )
    return Trace(actual, healthy)


@pytest.fixture(scope="session")
def record():
    """Runs the bench for so many seconds with these faults."""
    return _record
