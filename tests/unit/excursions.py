"""What goes wrong with a plant of three channels, and what is told of it."""

import numpy as np

from dxad.event import Event

__all__ = ["FAULT", "phases"]

FAULT = np.array([0.0, 9.0, 0.0])
"""What is added to the three channels when something is wrong with the second."""


def phases(events: list[Event]) -> list[tuple[str, str]]:
    return [(event.data["kind"], event.data["phase"]) for event in events]
