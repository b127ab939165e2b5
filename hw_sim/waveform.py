"""Vibration at a bearing housing, sample by sample.

A housing's velocity is harmonics of the shaft and broadband noise from the flow (ISO 20816-1:2016, annex A).
A worn bearing adds a tone at the ball-pass frequency of the outer race, about 3.58 shaft turns for nine balls
(T. Harris, "Rolling Bearing Analysis", ch. 25), and noise around it.
"""

import math
import random
from typing import Final

__all__ = ["AXES", "Vibration"]

AXES: Final = ("x", "y", "z")

_BPFO: Final = 3.58
"""Ball passes per shaft turn."""
_SHAFT: Final = {"x": 0.9, "y": 1.1, "z": 0.5}
"""Amplitude of the shaft's own frequency at nominal load, mm/s."""
_CAGE: Final = {"x": 0.25, "y": 0.2, "z": 0.15}
_NOISE: Final = {"x": 0.35, "y": 0.4, "z": 0.3}
"""Standard deviation of the broadband part, mm/s."""
_SUSCEPTIBLE: Final = {"x": 1.0, "y": 1.0, "z": 0.15}
"""How much of a radial bearing's wear each axis feels."""


class Vibration:
    """Three axes, phase-continuous with the shaft."""

    def __init__(self, seed: str) -> None:
        self._noise = {axis: random.Random(f"{seed}/vib.{axis}") for axis in AXES}  # noqa: S311 - physics
        self._wear_noise = {axis: random.Random(f"{seed}/wear.{axis}") for axis in AXES}  # noqa: S311
        self._angle = 0.0

    def step(self, dt_s: float, *, speed_rpm: float, load: float, wear: float) -> dict[str, float]:
        """The velocity of each axis after `dt_s`, mm/s.

        Args:
            dt_s: since the last step.
            speed_rpm: of the shaft.
            load: 1 at the nominal operating point.
            wear: by how much the root mean square of the axes that feel it has risen: 0.1 is 10 %.
        """
        self._angle += 2 * math.pi * speed_rpm / 60 * dt_s
        vigour = load**1.5
        velocity = {}
        for place, axis in enumerate(AXES):
            phase = self._angle + place * 2 * math.pi / 3
            healthy = vigour * (
                _SHAFT[axis] * math.sin(phase)
                + _CAGE[axis] * math.sin(0.41 * phase)
                + _NOISE[axis] * self._noise[axis].gauss(0.0, 1.0)
            )
            velocity[axis] = healthy + self._worn(axis, phase, vigour, wear * _SUSCEPTIBLE[axis])
        return velocity

    def _worn(self, axis: str, phase: float, vigour: float, wear: float) -> float:
        """What wear adds, such that the axis's root mean square becomes (1 + wear) times the healthy one."""
        rough = self._wear_noise[axis].gauss(0.0, 1.0)  # drawn always, so that a healthy twin stays in step
        if wear <= 0:
            return 0.0
        healthy = vigour * math.sqrt((_SHAFT[axis] ** 2 + _CAGE[axis] ** 2) / 2 + _NOISE[axis] ** 2)
        added = healthy * math.sqrt((1 + wear) ** 2 - 1)
        return added * (math.sin(_BPFO * phase) + 0.71 * rough)
