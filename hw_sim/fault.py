"""The faults there are: a row in a table each, with where it works, what it shows in, and how fast.

A fault works in one of three places: it *stresses* the plant, so that every channel feels it as physics has
it; it *sticks* a sensor; or it takes a device's *wire* away. A new fault of these is a row in FAULTS.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from hw_sim.duration import DurationError, seconds
from hw_sim.plant import CHANNELS, HEALTHY, Stress

__all__ = ["DEVICES", "FAULTS", "Fault", "FaultError", "Kind", "Parameter", "parse", "parse_all"]

DEVICES: Final = tuple(dict.fromkeys(name.partition(".")[0] for name in CHANNELS))

Settings = Mapping[str, str]
"""A fault's parameters, by name."""


class FaultError(ValueError):
    """A fault that is written wrong; the message says what is and what is known."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """What may be chosen about a fault."""

    default: str
    choices: Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A kind of fault."""

    does: str
    channels: Callable[[Settings], tuple[str, ...]]
    """The channels it shows in first: the ground truth."""
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    stress: Callable[[float], Stress] | None = None
    """Of the seconds since the onset, what the plant suffers."""
    sticks: Callable[[Settings], str] | None = None
    """The channel whose reading freezes."""
    takes_down: Callable[[Settings], str] | None = None
    """The device whose wire goes."""

    @property
    def defaults(self) -> dict[str, str]:
        """Its parameters, when nothing is said of them."""
        return {name: parameter.default for name, parameter in self.parameters.items()}


def _wear(since_s: float) -> Stress:
    """Ever faster, as a spall grows."""
    return Stress(wear=0.14 * (since_s / 10.0) ** 2)


def _clog(since_s: float) -> Stress:
    """Smoothly to its end within ten seconds."""
    share = 0.5 - 0.5 * math.cos(math.pi * min(since_s / 10.0, 1.0))
    return Stress(restriction=1.0 + 1.2 * share)


def _channels_of(device: str) -> tuple[str, ...]:
    return tuple(name for name in CHANNELS if name.startswith(f"{device}."))


FAULTS: Final[Mapping[str, Kind]] = {
    "bearing_wear": Kind(
        does="the bearing's radial vibration grows: 14 % after 10 s, some 1.7 usual deviations, and on",
        channels=lambda _: ("vib.x", "vib.y"),
        stress=_wear,
    ),
    "blockage": Kind(
        does="the pipe clogs within 10 s, to 2.2 times its friction: flow falls, pressure rises",
        channels=lambda _: ("plc.flow", "plc.pressure"),
        stress=_clog,
    ),
    "sensor_stuck": Kind(
        does="a sensor's reading freezes at its last value",
        channels=lambda settings: (settings["channel"],),
        parameters={"channel": Parameter("plc.pressure", tuple(CHANNELS))},
        sticks=lambda settings: settings["channel"],
    ),
    "source_down": Kind(
        does="a device goes from its wire; with an end, it comes back",
        channels=lambda settings: _channels_of(settings["device"]),
        parameters={"device": Parameter("motor", DEVICES)},
        takes_down=lambda settings: settings["device"],
    ),
}


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault of a run; its times count from the moment all wires are up."""

    name: str
    onset_s: float
    end_s: float | None = None
    parameters: Settings = field(default_factory=dict)

    @property
    def kind(self) -> Kind:
        """Its row in the table."""
        return FAULTS[self.name]

    @property
    def channels(self) -> tuple[str, ...]:
        """Its ground truth."""
        return self.kind.channels(self.parameters)

    @property
    def stuck_channels(self) -> tuple[str, ...]:
        """The channels whose reading it freezes."""
        return () if self.kind.sticks is None else (self.kind.sticks(self.parameters),)

    @property
    def downed_devices(self) -> tuple[str, ...]:
        """The devices whose wire it takes away."""
        return () if self.kind.takes_down is None else (self.kind.takes_down(self.parameters),)

    def active(self, at_s: float) -> bool:
        """Whether it is on so many seconds after the start."""
        return self.onset_s <= at_s and (self.end_s is None or at_s < self.end_s)

    def stress(self, at_s: float) -> Stress:
        """What the plant suffers of it, while it is on."""
        return HEALTHY if self.kind.stress is None else self.kind.stress(at_s - self.onset_s)


def parse_all(texts: Sequence[str]) -> tuple[Fault, ...]:
    """The faults of a command line; `none` is none.

    Raises:
        FaultError: one is written wrong, or `none` is not alone.
    """
    written = [text for text in texts if text != "none"]
    if len(written) < len(texts) and written:
        raise FaultError("'none' and a fault exclude each other")
    return tuple(parse(text) for text in written)


def parse(text: str) -> Fault:
    """Read `NAME@ONSET[..END][:PARAMETER=VALUE,...]`, such as `source_down@30s..40s:device=plc`.

    Raises:
        FaultError: it is written wrong.
    """
    head, colon, settings = text.partition(":")
    name, at, times = head.partition("@")
    if name not in FAULTS:
        raise FaultError(f"no fault {name!r}; there are {', '.join(FAULTS)}")
    if not at:
        raise FaultError(f"{text!r} does not say when; write {name}@40s or {name}@40s..60s")
    onset_s, end_s = _times(text, times)
    parameters = _parameters(name, settings.split(",")) if colon else FAULTS[name].defaults
    return Fault(name, onset_s, end_s, parameters)


def _times(text: str, times: str) -> tuple[float, float | None]:
    onset, until, end = times.partition("..")
    try:
        onset_s, end_s = seconds(onset), seconds(end) if until else None
    except DurationError as error:
        raise FaultError(f"{text!r}: {error}") from error
    if end_s is not None and end_s <= onset_s:
        raise FaultError(f"{text!r} ends before it begins")
    return onset_s, end_s


def _parameters(name: str, pairs: Sequence[str]) -> dict[str, str]:
    known = FAULTS[name].parameters
    given: dict[str, str] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if key not in known:
            raise FaultError(f"{name} has no parameter {key!r}; it has {', '.join(known) or 'none'}")
        if not equals:
            raise FaultError(f"{name}: {key} is given no value; write {key}={known[key].default}")
        if key in given:
            raise FaultError(f"{name}: {key} is given twice")
        if value not in known[key].choices:
            raise FaultError(f"{name}: no {key} {value!r}; there are {', '.join(known[key].choices)}")
        given[key] = value
    return FAULTS[name].defaults | given
