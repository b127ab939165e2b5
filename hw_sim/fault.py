"""What a fault is: a kind, which is a row of the catalogue, with its times and its settings.

A fault works in one of four places: it *stresses* a plant, so that every channel feels it as physics has it;
it *distorts* what one sensor shows; it takes a *device* its power; or it breaks a *wire* in a way of its
protocol. The rows stand where the work is done: `plants/__init__.py`, `sensor.py`, `faults.py` of each wire.
"""

import math
import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from hw_sim.duration import seconds
from hw_sim.plant import Channel, Stress

__all__ = ["Distortion", "Fault", "FaultError", "Kind", "Parameter", "Settings", "share"]

Settings = Mapping[str, str | float]
"""A fault's parameters: numbers, and times in seconds, as floats; anything else as it was written."""

Distortion = Callable[[float, float], float]
"""Of what the sensor would show and the seconds since the onset, what it shows; NaN is nothing at all."""

_SIZE: Final = re.compile(r"-?\d+(\.\d+)?(e-?\d+)?(sd)?")


class FaultError(ValueError):
    """A fault that is written wrong; the message says what is and what is known."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """What may be chosen about a fault."""

    means: str
    default: str
    kind: Literal["choice", "number", "count", "time", "size", "channel", "plant", "device", "wire"] = (
        "number"
    )
    """A count is a whole number, a size a number in the channel's unit or, with `sd` after it, in its usual
    deviations. What names something of the scenario may be empty: the first channel or plant, all devices or
    wires."""
    choices: Sequence[str] = ()
    low: float = 0.0
    high: float = math.inf
    """Of a number, or of a time in seconds; nothing that is counted is infinite."""

    def read(self, text: str) -> str | float:
        """The value of what was written.

        Raises:
            FaultError: it is none; names of the scenario's things are not looked up here.
        """
        if self.kind == "choice" and text not in self.choices:
            raise FaultError(f"{text!r} is not one of {', '.join(self.choices)}")
        if self.kind == "time":
            return self._time(text)
        if self.kind == "size" and not _SIZE.fullmatch(text):
            raise FaultError(f"{text!r} is no size, such as 2.5 in the channel's unit, or 6sd")
        if self.kind == "count":
            return self._count(text)
        return self._number(text) if self.kind == "number" else text

    def _count(self, text: str) -> int:
        number = self._number(text)
        if not number.is_integer():
            raise FaultError(f"{text} is no whole number")
        return int(number)

    def _time(self, text: str) -> float:
        try:
            time_s = seconds(text)
        except ValueError as error:
            raise FaultError(str(error)) from error
        if not self.low <= time_s <= self.high:
            raise FaultError(f"{text} is not between {self.low:g} s and {self.high:g} s")
        return time_s

    def _number(self, text: str) -> float:
        try:
            number = float(text)
        except ValueError as error:
            raise FaultError(f"{text!r} is no number") from error
        if not self.low <= number <= self.high or math.isinf(number):
            raise FaultError(f"{text} is not between {self.low:g} and {self.high:g}")
        return number


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A kind of fault: a row of the catalogue."""

    name: str
    """`drift`, or with its wire `modbus.crc`."""
    does: str
    """In a line: what a client or a detector sees of it."""
    where: Literal["plant", "sensor", "device", "wire"]
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    stress: Callable[[float, Settings], Stress] | None = None
    """Of the seconds since the onset, what the plant suffers."""
    strains: str = ""
    """The field of Stress that it moves."""
    distort: Callable[[Channel, Settings, random.Random, float], Distortion] | None = None
    """Made at the onset, of the channel, the settings, a source of noise and what the sensor showed last."""

    @property
    def wire(self) -> str:
        """The protocol whose wires it breaks, or nothing."""
        return self.name.partition(".")[0] if self.where == "wire" else ""

    @property
    def short(self) -> str:
        """Its name without the wire's."""
        return self.name.rpartition(".")[2]


@dataclass(frozen=True, slots=True, eq=False)
class Fault:
    """One fault of a run; its times count in the plant's seconds from the moment all wires are up."""

    kind: Kind
    onset_s: float
    end_s: float | None
    settings: Settings
    channels: tuple[str, ...]
    """Its ground truth: where it shows first."""
    plant: str = ""
    """The plant that it stresses."""
    wires: tuple[str, ...] = ()
    """The wires that it concerns."""

    @property
    def name(self) -> str:
        """Its kind's."""
        return self.kind.name

    def active(self, at_s: float) -> bool:
        """Whether it is on so many seconds after the start."""
        return self.onset_s <= at_s and (self.end_s is None or at_s < self.end_s)


def share(since_s: float, ramp_s: float | str) -> float:
    """How much of its full size a fault has reached: 0 at the onset, 1 after the ramp and from then on."""
    ramp_s = float(ramp_s)
    return 1.0 if since_s >= ramp_s else since_s / ramp_s
