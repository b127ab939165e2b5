"""The faults there are: a row in a table each, with where it works, what it shows in, and how fast.

A fault works in one of three places: it *stresses* the plant, so that every channel feels it as physics has
it; it *sticks* a sensor; or it takes a device's *wire* away.
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from hw_sim.plant import CHANNELS, Stress

__all__ = ["DEVICES", "FAULTS", "Fault", "FaultError", "Kind", "parse"]

DEVICES: Final = tuple(dict.fromkeys(name.partition(".")[0] for name in CHANNELS))


class FaultError(ValueError):
    """A fault that is written wrong."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of fault; `channels` and the effects are functions of the parameters."""

    does: str
    channels: Callable[[Mapping[str, str]], tuple[str, ...]]
    """The channels it shows in first: the ground truth."""
    parameters: Mapping[str, str] = field(default_factory=dict)
    """Names and defaults."""
    choices: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """By parameter, what it may be."""
    stress: Callable[[float], Stress] | None = None
    """Of the seconds since the onset, what the plant suffers."""
    sticks: Callable[[Mapping[str, str]], str] | None = None
    """The channel whose reading freezes."""
    takes_down: Callable[[Mapping[str, str]], str] | None = None
    """The device whose wire goes."""


def _wear(since_s: float) -> Stress:
    """Vibration that has risen by 16.5 % after ten seconds, some 2.2 usual deviations, and grows."""
    return Stress(wear=0.165 * (since_s / 10.0) ** 1.25)


def _blockage(since_s: float) -> Stress:
    """A strainer that silts up: the pipe's resistance goes to 2.2 times the clean one's, in ten seconds."""
    share = 0.5 - 0.5 * math.cos(math.pi * min(since_s / 10.0, 1.0))
    return Stress(restriction=1.0 + 1.2 * share)


def _channels_of(device: str) -> tuple[str, ...]:
    return tuple(name for name in CHANNELS if name.startswith(f"{device}."))


FAULTS: Final[Mapping[str, Kind]] = {
    "bearing_wear": Kind(
        "the bearing's vibration grows slowly, radially; some 2 usual deviations after 10 s",
        channels=lambda _: ("vib.x", "vib.y"),
        stress=_wear,
    ),
    "blockage": Kind(
        "the pipe clogs within 10 s: flow falls, pressure rises",
        channels=lambda _: ("plc.flow", "plc.pressure"),
        stress=_blockage,
    ),
    "sensor_stuck": Kind(
        "a sensor's reading freezes at its last value",
        channels=lambda parameters: (parameters["channel"],),
        parameters={"channel": "plc.pressure"},
        choices={"channel": tuple(CHANNELS)},
        sticks=lambda parameters: parameters["channel"],
    ),
    "source_down": Kind(
        "a device goes from its wire; with an end, it comes back",
        channels=lambda parameters: _channels_of(parameters["device"]),
        parameters={"device": "motor"},
        choices={"device": DEVICES},
        takes_down=lambda parameters: parameters["device"],
    ),
}


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault of a run."""

    name: str
    onset_s: float
    end_s: float | None
    parameters: Mapping[str, str]

    @property
    def kind(self) -> Kind:
        """Its row in the table."""
        return FAULTS[self.name]

    @property
    def channels(self) -> tuple[str, ...]:
        """Its ground truth."""
        return self.kind.channels(self.parameters)

    def active(self, at_s: float) -> bool:
        """Whether it is on at this time since the start."""
        return self.onset_s <= at_s and (self.end_s is None or at_s < self.end_s)


_WRITTEN: Final = re.compile(
    r"(?P<name>[a-z_]+)@(?P<onset>\d+(?:\.\d+)?)s(?:\.\.(?P<end>\d+(?:\.\d+)?)s)?(?::(?P<parameters>.+))?"
)


def parse(text: str) -> Fault:
    """Read `NAME@ONSET[..END][:parameter=value,...]`, such as `source_down@30s..40s:device=plc`.

    Raises:
        FaultError: it is written wrong; the message says what is known.
    """
    found = _WRITTEN.fullmatch(text)
    if found is None:
        raise FaultError(f"{text!r} is not NAME@ONSET[..END][:parameter=value], such as bearing_wear@40s")
    name, onset_s = found["name"], float(found["onset"])
    end_s = None if found["end"] is None else float(found["end"])
    if name not in FAULTS:
        raise FaultError(f"no fault {name!r}; there are {', '.join(FAULTS)}")
    if end_s is not None and end_s <= onset_s:
        raise FaultError(f"{text!r} ends before it begins")
    kind = FAULTS[name]
    parameters = dict(kind.parameters)
    for pair in filter(None, (found["parameters"] or "").split(",")):
        key, _, value = pair.partition("=")
        if key not in parameters:
            known = ", ".join(parameters) or "none"
            raise FaultError(f"{name} has no parameter {key!r}; it has {known}")
        if value not in kind.choices[key]:
            raise FaultError(f"{name}: {key} cannot be {value!r}; one of {', '.join(kind.choices[key])}")
        parameters[key] = value
    return Fault(name, onset_s, end_s, parameters)
