"""Signals over time that the plant is made of: cycles that repeat, never twice alike, and vibration.

A bearing housing's velocity is harmonics of the shaft and broadband noise from the flow (ISO 20816-1:2016,
annex A). A worn part of the bearing adds a tone at its defect frequency (see bearing.py) and noise around it.
The sensor takes a hundred samples a second without a filter before them, as cheap ones do, so that the tone
of the outer race at 87 Hz shows folded, at 13 Hz.
"""

import hashlib
import math
import random
from collections.abc import Iterable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from hw_sim.bearing import Bearing
from hw_sim.plant import Race

__all__ = ["AXES", "TURN_POINTS", "Cycle", "Vibration", "generator", "turn"]

AXES: Final = ("x", "y", "z")
TURN_POINTS: Final = 4096
"""The points of a turn as `turn` draws it; a power of two, so that a mask wraps an index."""

_TURN: Final = 2 * math.pi
_SHORTEST: Final = 0.84
"""The shortest turn of a cycle, as a share of the longest."""
_HEIGHTS: Final = (0.85, 1.15)
_LEAN: Final = 0.35

_SHAFT: Final = {"x": 0.9, "y": 1.1, "z": 0.5}
"""Amplitude of the shaft's own frequency at nominal load, mm/s: unbalance."""
_SECOND: Final = {"x": 0.25, "y": 0.3, "z": 0.15}
"""Amplitude of its second harmonic: misalignment."""
_NOISE: Final = {"x": 0.35, "y": 0.42, "z": 0.3}
"""Standard deviation of the broadband part, mm/s."""
_LOAD_EXPONENT: Final = 1.5
_BEARING: Final = Bearing(balls=9, ball_mm=9.2, pitch_mm=45.0)
"""A deep-groove ball bearing whose outer race is met 3.58 times a turn."""
_TONE: Final = 0.9
"""The tone's part in the power that wear adds; the rest is noise."""
_FEELS: Final = {"x": 1.0, "y": 1.0, "z": 0.15}
"""How much of a radial bearing's wear each axis feels."""


def generator(seed: str) -> np.random.Generator:
    """Noise by the block, the same for the same text."""
    digest = hashlib.sha256(seed.encode()).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest[:16], "big")))


def turn(harmonics: Iterable[tuple[int, float, float]]) -> NDArray[np.float64]:
    """One turn of the shaft with these harmonics, (order, amplitude, phase in turns); shape (TURN_POINTS,).

    Drawn with `math.sin`, since numpy's differs in its last bits from one processor to the next.
    """
    parts = list(harmonics)
    return np.array(
        [
            sum(
                size * math.sin(_TURN * (order * point / TURN_POINTS + phase)) for order, size, phase in parts
            )
            for point in range(TURN_POINTS)
        ]
    )


class Cycle:
    """A swing around zero whose every turn has a length, a height and a lean of its own.

    A turn is `height · sin(a + lean · sin(a))` with a from 0 to 2π. That is odd in a, so each turn sums to
    zero whatever its jitter: what integrates a cycle, such as a tank or a winding, does not wander.
    """

    def __init__(self, seed: str, *, longest_s: float) -> None:
        self._rng = random.Random(seed)  # noqa: S311 - physics, not secrets
        self._longest_s = longest_s
        self._begin()
        self._done = self._rng.random()

    def _begin(self) -> None:
        self._length_s = self._longest_s * self._rng.uniform(_SHORTEST, 1.0)
        self._height = self._rng.uniform(*_HEIGHTS)
        self._lean = self._rng.uniform(-_LEAN, _LEAN)

    def step(self, dt_s: float) -> None:
        """Go on by `dt_s`."""
        self._done += dt_s / self._length_s
        if self._done >= 1.0:
            beyond_s = (self._done - 1.0) * self._length_s
            self._begin()
            self._done = beyond_s / self._length_s

    @property
    def value(self) -> float:
        """Where the swing is: within ±1.15, on average up to ±1."""
        return self._at(self._done)

    def stair(self, stairs: int) -> float:
        """The same with each turn in so many level parts."""
        return self._at((math.floor(self._done * stairs) + 0.5) / stairs)

    def _at(self, done: float) -> float:
        angle = _TURN * done
        return self._height * math.sin(angle + self._lean * math.sin(angle))


class Vibration:
    """Velocity of a bearing housing in three axes, phase-continuous with the shaft."""

    def __init__(self, seed: str) -> None:
        self._noise = {axis: random.Random(f"{seed}/vib.{axis}") for axis in AXES}  # noqa: S311
        self._wear_noise = {axis: random.Random(f"{seed}/wear.{axis}") for axis in AXES}  # noqa: S311
        self._angle = 0.0

    def step(
        self, dt_s: float, *, speed_rpm: float, load: float, wear: float, race: Race = "outer"
    ) -> dict[str, float]:
        """The velocity of each axis after `dt_s`, mm/s.

        Args:
            dt_s: since the last step.
            speed_rpm: of the shaft.
            load: shaft power, as a multiple of the nominal.
            wear: by how much the root mean square of an axis that feels it has risen; 0.1 is 10 %.
            race: the part that is worn.
        """
        self._angle += _TURN * speed_rpm / 60 * dt_s
        vigour = load**_LOAD_EXPONENT
        velocity = {}
        for place, axis in enumerate(AXES):
            phase = self._angle + place * _TURN / len(AXES)
            healthy = (
                _SHAFT[axis] * math.sin(phase)
                + _SECOND[axis] * math.sin(2 * phase)
                + _NOISE[axis] * self._noise[axis].gauss(0.0, 1.0)
            )
            velocity[axis] = vigour * (healthy + self._worn(axis, phase, wear * _FEELS[axis], race))
        return velocity

    def _worn(self, axis: str, phase: float, wear: float, race: Race) -> float:
        """What wear adds at nominal load, so that the root mean square is 1 + wear times the healthy one."""
        rough = self._wear_noise[axis].gauss(0.0, 1.0)  # drawn always, so that a healthy twin stays in step
        if wear <= 0.0:
            return 0.0
        healthy = math.sqrt((_SHAFT[axis] ** 2 + _SECOND[axis] ** 2) / 2 + _NOISE[axis] ** 2)
        added = healthy * math.sqrt((1 + wear) ** 2 - 1)
        tone = math.sqrt(2 * _TONE) * math.sin(_BEARING.orders[race] * phase)
        return added * (tone + math.sqrt(1 - _TONE) * rough)
