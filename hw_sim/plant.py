"""What a plant is: one physical state with its sensors, stepped at a fixed beat, the same for the same seed.

A new plant is a file in `plants/` with `Settings`, what a scenario may say of it, and `build`, its maker.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, Protocol, runtime_checkable

__all__ = ["HEALTHY", "RACES", "Channel", "Place", "Plant", "Race", "Readings", "Recorded", "Stress"]

Readings = Mapping[str, float]
"""What each sensor shows, by channel; NaN where it shows nothing."""

Race = Literal["outer", "inner", "ball", "cage"]
RACES: Final[Sequence[Race]] = ("outer", "inner", "ball", "cage")
"""The parts of a bearing that can be worn."""


@dataclass(frozen=True, slots=True)
class Channel:
    """A sensor."""

    unit: str
    low: float = 0.0
    """What it shows at 4 mA."""
    high: float = 1.0
    """And at 20 mA."""
    usual: float = 1.0
    """How far it usually moves, load and noise together, as a standard deviation."""
    step_s: float = 0.0
    """From one of its readings to the next; known on the bench."""


@dataclass(frozen=True, slots=True)
class Stress:
    """What is wrong with a plant now."""

    restriction: float = 1.0
    """The friction of what flows through it, as a multiple of the clean plant's."""
    wear: float = 0.0
    """The rise of its bearing's vibration, as a share of the healthy root mean square."""
    race: Race = "outer"
    """The part of the bearing that is worn."""
    leak: float = 0.0
    """The share of what should arrive that gets lost on the way."""


HEALTHY: Final = Stress()


class Plant(Protocol):
    """A machine."""

    channels: Mapping[str, Channel]
    """Its sensors, by names such as `motor.current`."""
    step_s: float
    """The simulated seconds that a step takes."""
    shows: Mapping[str, Sequence[str]]
    """What can be wrong with it, by the name of a field of Stress: the channels that it shows in first."""

    def step(self, stress: Stress = HEALTHY) -> Readings:
        """Advance by one step; returns what the sensors of all channels show then."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where in its record a plant is, and what the record says of that row."""

    row: int
    """From 0 on."""
    time: str = ""
    """As it was written."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """What was wrong then, by the name of the label."""


@runtime_checkable
class Recorded(Plant, Protocol):
    """A plant that plays what another has shown once."""

    place: Place
    """Of the row that is shown, or was last."""
    played: int
    """How many rows it has shown."""
    left: int
    """How many rows are still to come."""
    exhausted: bool
    """Whether it was asked for a row after its last."""
