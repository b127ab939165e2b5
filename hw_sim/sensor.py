"""Faults of sensors: what one shows instead of the truth. Rows of the catalogue, and the arithmetic of each.

Each grows to its full size within `ramp` and stays there until the end.
"""

import math
import random
from collections.abc import Callable, Mapping
from typing import Final

from hw_sim.fault import Distortion, Kind, Parameter, Settings, share
from hw_sim.plant import Channel

__all__ = ["FAULTS"]

_CHANNEL: Final = Parameter("the sensor", "", "channel")
_OPEN_LOOP: Final = -0.25
"""Where 0 mA is on a scale on which 4 mA is 0 and 20 mA is 1."""


_SHORTEST_S: Final = 0.001
"""Of what comes again and again."""
_HAIR_S: Final = 1e-6
"""Times are sums and differences of floats: what is that close to an edge has reached it."""
_FEWEST: Final = 5
"""Readings of a swing, and from a pulse to the next: with fewer, there would be nothing of them to see."""


def _ramp(default: str) -> Parameter:
    return Parameter("from the onset to its full size", default, "time")


def _size(default: str, means: str = "how far") -> Parameter:
    return Parameter(f"{means}; in the channel's unit, or in its usual deviations (sd)", default, "size")


def _sized(settings: Settings, channel: Channel) -> float:
    text = str(settings["size"])
    return float(text.removesuffix("sd")) * channel.usual if text.endswith("sd") else float(text)


def _at_least(settings: Settings, key: str, channel: Channel, readings: int) -> float:
    """A time of the settings, or so many readings, whichever is longer."""
    return max(float(settings[key]), readings * channel.step_s)


def _pulses(channel: Channel, settings: Settings) -> Callable[[float, float], tuple[int, bool]]:
    """Which turn of `every` it is, and whether its pulse is on: at its start, for a part of `width`.

    Of the seconds since the onset, and that part.
    """
    every_s = _at_least(settings, "every", channel, _FEWEST)

    def at(since_s: float, part: float) -> tuple[int, bool]:
        turn, phase_s = divmod(since_s + _HAIR_S, every_s)
        long_s = part * _at_least(settings, "width", channel, 1)
        return int(turn), phase_s < long_s

    return at


def _offset(channel: Channel, settings: Settings, _rng: random.Random, _last: float) -> Distortion:
    size, ramp_s = _sized(settings, channel), settings["ramp"]
    return lambda value, since_s: value + size * share(since_s, ramp_s)


def _bias(_channel: Channel, settings: Settings, _rng: random.Random, _last: float) -> Distortion:
    gain, ramp_s = float(settings["percent"]) / 100, settings["ramp"]
    return lambda value, since_s: value * (1 + gain * share(since_s, ramp_s))


def _spike(channel: Channel, settings: Settings, rng: random.Random, _last: float) -> Distortion:
    size, ramp_s = _sized(settings, channel), settings["ramp"]
    pulse = _pulses(channel, settings)
    signs: dict[int, float] = {}

    def shown(value: float, since_s: float) -> float:
        turn, is_on = pulse(since_s, 1.0)
        if not is_on:
            return value
        if turn not in signs:
            signs.clear()
            signs[turn] = rng.choice((-1.0, 1.0))
        return value + signs[turn] * size * share(since_s, ramp_s)

    return shown


def _towards(value: float, end: float, part: float) -> float:
    """This part of the way from a value to the end, and there to the bit."""
    return end if part == 1.0 else value + (end - value) * part


def _stuck(_channel: Channel, settings: Settings, _rng: random.Random, last: float) -> Distortion:
    held, ramp_s = [] if math.isnan(last) else [last], settings["ramp"]

    def shown(value: float, since_s: float) -> float:
        if not held and not math.isnan(value):
            held.append(value)  # it has never shown anything: it freezes at the first
        return _towards(value, held[0], share(since_s, ramp_s)) if held else value

    return shown


def _noise(channel: Channel, settings: Settings, rng: random.Random, _last: float) -> Distortion:
    size, ramp_s = _sized(settings, channel), settings["ramp"]
    return lambda value, since_s: value + rng.gauss(0.0, size) * share(since_s, ramp_s)


def _dropout(channel: Channel, settings: Settings, _rng: random.Random, _last: float) -> Distortion:
    ramp_s, pulse = settings["ramp"], _pulses(channel, settings)
    return lambda value, since_s: math.nan if pulse(since_s, share(since_s, ramp_s))[1] else value


def _oscillation(channel: Channel, settings: Settings, _rng: random.Random, _last: float) -> Distortion:
    size, ramp_s = _sized(settings, channel), settings["ramp"]
    turn = math.tau / _at_least(settings, "period", channel, _FEWEST)
    return lambda value, since_s: value + size * share(since_s, ramp_s) * math.sin(turn * since_s)


def _disconnect(channel: Channel, settings: Settings, _rng: random.Random, _last: float) -> Distortion:
    open_loop, ramp_s = channel.low + _OPEN_LOOP * (channel.high - channel.low), settings["ramp"]
    return lambda value, since_s: _towards(value, open_loop, share(since_s, ramp_s))


_PULSES: Final[Mapping[str, Parameter]] = {
    "every": Parameter("from one to the next; at least five readings", "5s", "time", low=_SHORTEST_S),
    "width": Parameter("how long each is; at least one reading", "200ms", "time"),
}

FAULTS: Final = (
    Kind(
        name="spike",
        does="single outliers, up or down",
        where="sensor",
        parameters={"channel": _CHANNEL, "size": _size("10sd"), **_PULSES, "ramp": _ramp("0s")},
        distort=_spike,
    ),
    Kind(
        name="step",
        does="the reading jumps and stays beside the truth",
        where="sensor",
        parameters={"channel": _CHANNEL, "size": _size("6sd"), "ramp": _ramp("0s")},
        distort=_offset,
    ),
    Kind(
        name="drift",
        does="the reading wanders off slowly",
        where="sensor",
        parameters={"channel": _CHANNEL, "size": _size("6sd"), "ramp": _ramp("60s")},
        distort=_offset,
    ),
    Kind(
        name="stuck",
        does="the reading freezes at its last value, bit for bit; with a ramp, it sticks harder and harder",
        where="sensor",
        parameters={"channel": _CHANNEL, "ramp": _ramp("0s")},
        distort=_stuck,
    ),
    Kind(
        name="noise_burst",
        does="noise on top of the reading",
        where="sensor",
        parameters={"channel": _CHANNEL, "size": _size("4sd", "its standard deviation"), "ramp": _ramp("0s")},
        distort=_noise,
    ),
    Kind(
        name="dropout",
        does="now and then no reading at all: null in JSON, NaN in a float, the lowest or highest integer, a "
        "bad status, an empty field",
        where="sensor",
        parameters={"channel": _CHANNEL, **_PULSES, "ramp": _ramp("0s")},
        distort=_dropout,
    ),
    Kind(
        name="bias",
        does="out of calibration: the reading is off by a share of itself",
        where="sensor",
        parameters={
            "channel": _CHANNEL,
            "percent": Parameter("too high by so much; below zero, too low", "10", low=-100.0),
            "ramp": _ramp("1s"),
        },
        distort=_bias,
    ),
    Kind(
        name="oscillation",
        does="a swing on top of the reading, as of a badly tuned loop",
        where="sensor",
        parameters={
            "channel": _CHANNEL,
            "size": _size("4sd", "its amplitude"),
            "period": Parameter("of one swing; at least five readings", "2s", "time", low=_SHORTEST_S),
            "ramp": _ramp("5s"),
        },
        distort=_oscillation,
    ),
    Kind(
        name="sensor_disconnect",
        does="a broken wire of a 4-20 mA loop: the reading of 0 mA, a quarter of the range below it",
        where="sensor",
        parameters={"channel": _CHANNEL, "ramp": _ramp("0s")},
        distort=_disconnect,
    ),
)
