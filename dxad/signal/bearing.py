"""How often the parts of a rolling-element bearing strike, from its geometry and the shaft's speed.

Source: R. B. Randall, J. Antoni, "Rolling element bearing diagnostics - a tutorial", Mechanical Systems and
Signal Processing 25 (2011) 485-520, equations 1 to 4: inner ring turning, outer ring at rest, no slip. True
frequencies differ by one or two percent, since the contact angle varies with the load.
"""

from dataclasses import dataclass
from math import cos, radians

__all__ = ["Strikes", "strikes"]


@dataclass(frozen=True, slots=True)
class Strikes:
    """The characteristic frequencies, in hertz."""

    bpfo: float
    """Ball pass frequency, outer race: how often balls pass a point of it."""
    bpfi: float
    """Ball pass frequency, inner race."""
    bsf: float
    """Ball spin frequency. A damaged ball strikes both races in a turn: its even harmonics are strongest."""
    ftf: float
    """Fundamental train frequency: the speed of the cage."""


def strikes(*, balls: int, ball_mm: float, pitch_mm: float, angle_deg: float, shaft_hz: float) -> Strikes:
    """The characteristic frequencies of a bearing.

    Args:
        balls: the number of rolling elements in a row, n.
        ball_mm: their diameter, d.
        pitch_mm: the diameter of the circle through their centres, D > d.
        angle_deg: the contact angle from the radial plane, φ.
        shaft_hz: turns of the inner ring in a second, f.
    """
    ratio = ball_mm / pitch_mm * cos(radians(angle_deg))
    return Strikes(
        bpfo=balls * shaft_hz / 2 * (1 - ratio),
        bpfi=balls * shaft_hz / 2 * (1 + ratio),
        bsf=pitch_mm / (2 * ball_mm) * shaft_hz * (1 - ratio * ratio),
        ftf=shaft_hz / 2 * (1 - ratio),
    )
