"""The gateway's own numbers and conditions as the data of telemetry records."""

from collections.abc import Iterator
from typing import Final

import msgpack

from dxad.runtime.health import Health
from dxad.runtime.metrics import Metrics, series
from dxad.telemetry.readings import BODY_BYTES
from dxad.types import Document

__all__ = ["vitals"]

_NUMBER_BYTES: Final = 9 + 3
"""In msgpack: a float64, and the length of its name."""


def vitals(health: Health, metrics: Metrics) -> Iterator[Document]:
    """The data of one record after the other, each small enough."""
    conditions = health.snapshot()
    found: Document = {}
    left = BODY_BYTES - len(msgpack.packb(conditions))
    for sample in metrics.everything():
        name = series(sample)
        size = len(name.encode()) + _NUMBER_BYTES
        if size > left and (found or conditions):
            yield {"mode": "health", "conditions": conditions, "metrics": found}
            found, conditions, left = {}, [], BODY_BYTES
        found[name] = sample.value
        left -= size
    yield {"mode": "health", "conditions": conditions, "metrics": found}
