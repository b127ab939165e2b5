"""Rolling bearings: how often each part meets a spot that is worn, and how the housing rings when it does.

For n balls of diameter d on a pitch circle D at contact angle φ, with the outer race at rest and the shaft
turning at f (R. B. Randall, "Vibration-based Condition Monitoring", 2nd ed., §2.2.3):

    BPFO = n·f/2 · (1 - d/D·cos φ)      balls pass a spot of the outer race
    BPFI = n·f/2 · (1 + d/D·cos φ)      balls pass a spot of the inner race
    FTF  = f/2 · (1 - d/D·cos φ)        the cage turns
    BSF  = f·D/(2·d) · (1 - (d/D·cos φ)²)   a ball turns; a spot on it meets a race twice a turn

Each pass strikes the structure, whose modes ring and decay: h(t) = exp(-a·t)·sin(b·t) with a = ζ·ω and
b = ω·√(1-ζ²). The balls slip, so that the time between two passes varies by 1-2 % at random and the phase is
not kept (Randall and Antoni, "Rolling element bearing diagnostics: a tutorial", MSSP 25 (2011), §2.1). How
hard a pass strikes depends on where the load is: a spot of the inner race goes in and out of the loaded zone
with the shaft, one of a ball with the cage, and strikes the inner race harder than the outer; one of the
outer race stays in it.
"""

import cmath
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import NDArray

from hw_sim.plant import Race

__all__ = ["Bearing", "Defect", "Mode"]

_SLIP: Final = 0.012
"""Standard deviation of the time between two passes, as a share of it."""
_UNEVEN: Final[Mapping[Race, float]] = {"outer": 0.1, "inner": 0.1, "ball": 0.1, "cage": 0.3}
"""Standard deviation of how hard a pass strikes, as a share of it."""
_SWING: Final[Mapping[Race, float]] = {"outer": 0.0, "inner": 0.7, "ball": 0.6, "cage": 0.0}
"""How much of it goes up and down as the spot goes around."""
_OUTER_STRIKE: Final = 0.6
"""How hard a ball's spot strikes the outer race, as a share of the inner."""


@dataclass(frozen=True)
class Bearing:
    """The geometry of one."""

    balls: int
    ball_mm: float
    pitch_mm: float
    contact_deg: float = 0.0

    @cached_property
    def orders(self) -> Mapping[Race, float]:
        """How often a spot on each part is met in a turn of the shaft: BPFO, BPFI, 2·BSF and FTF, over f."""
        ratio = self.ball_mm / self.pitch_mm * math.cos(math.radians(self.contact_deg))
        return {
            "outer": self.balls / 2 * (1 - ratio),
            "inner": self.balls / 2 * (1 + ratio),
            "ball": self.pitch_mm / self.ball_mm * (1 - ratio**2),
            "cage": (1 - ratio) / 2,
        }


@dataclass(frozen=True, slots=True)
class Mode:
    """A way in which the structure rings."""

    natural_hz: float
    damping: float
    """ζ, as a share of the critical."""
    share: float
    """Its part in the power, relative to the other modes'."""

    @property
    def pole(self) -> complex:
        """-a + i·b, in rad/s: exp(pole·t) is the decaying turn whose imaginary part is the ring."""
        natural = math.tau * self.natural_hz
        return complex(-self.damping * natural, natural * math.sqrt(1 - self.damping**2))

    def power(self, passes_hz: float) -> float:
        """The mean square of the ring when strikes of 1 come so often.

        One strike has the energy ∫h² = b²/(4a·(a²+b²)). Neighbours k passes apart add the autocorrelation
        of h there, E·exp(-a·k·T)·cos(b·k·T), times what slip leaves of it, exp(-k·(b·σ·T)²/2); its sum over
        k is that of a geometric series.
        """
        a, b = -self.pole.real, self.pole.imag
        energy = b**2 / (4 * a * (a**2 + b**2))
        between_s = 1 / passes_hz
        kept = cmath.exp(self.pole * between_s - (b * _SLIP * between_s) ** 2 / 2)
        return passes_hz * energy * ((1 + kept) / (1 - kept)).real


class Defect:
    """What a worn spot makes a structure do, in blocks: a signal whose mean square is 1 as the shaft turns.

    Below `full_hz` of the shaft the strikes get no harder to make up for their being fewer.
    """

    def __init__(
        self,
        seed: str,
        bearing: Bearing,
        modes: Sequence[Mode],
        *,
        rate_hz: int,
        samples: int,
        full_hz: float,
    ) -> None:
        self._rng = random.Random(seed)  # noqa: S311 - physics, not secrets
        self._orders = bearing.orders
        self._modes = modes
        self._all = sum(mode.share for mode in modes)
        self._rate_hz = rate_hz
        self._samples = samples
        self._full_hz = full_hz
        times_s = [place / rate_hz for place in range(1, samples + 1)]
        self._turns_of = [np.array([cmath.exp(mode.pole * at_s) for at_s in times_s]) for mode in modes]
        self._rings = [0j] * len(modes)
        self._turns = 0.0
        self._left = 0.0
        """Passes until the next strike."""
        self._strikes = 0

    def block(self, turns_hz: float, race: Race) -> NDArray[np.float64]:
        """The next samples, with the shaft at so many turns a second and this part worn; shape (samples,)."""
        strikes = self._next(turns_hz, race)
        passes_hz = max(turns_hz, self._full_hz) * self._orders[race]
        signal = np.zeros(self._samples)
        for place, (mode, turn) in enumerate(zip(self._modes, self._turns_of, strict=True)):
            begun = np.zeros(self._samples, dtype=np.complex128)
            begun[0] = self._rings[place]
            for at_s, strength in strikes:
                begun[min(int(at_s * self._rate_hz), self._samples - 1)] += strength * cmath.exp(
                    -mode.pole * at_s
                )
            ring = np.cumsum(begun) * turn
            self._rings[place] = complex(ring[-1])
            signal += ring.imag * math.sqrt(mode.share / self._all / mode.power(passes_hz))
        return signal

    def _next(self, turns_hz: float, race: Race) -> list[tuple[float, float]]:
        """The strikes within the next block: seconds into it, and how hard, with a mean square of 1."""
        span_s = self._samples / self._rate_hz
        passes_hz = turns_hz * self._orders[race]
        passed = passes_hz * span_s
        strikes = []
        while self._left < passed:
            at_s = self._left / passes_hz
            strikes.append((at_s, self._strength(race, self._turns + turns_hz * at_s)))
            self._left += max(0.5, self._rng.gauss(1.0, _SLIP))
        self._left -= passed
        self._turns += turns_hz * span_s
        return strikes

    def _strength(self, race: Race, turns: float) -> float:
        around = turns * (self._orders["cage"] if race == "ball" else 1.0)
        swing, uneven = _SWING[race], _UNEVEN[race]
        strength = (1 + swing * math.cos(math.tau * around)) * self._rng.gauss(1.0, uneven)
        square = (1 + swing**2 / 2) * (1 + uneven**2)
        if race == "ball":
            self._strikes += 1
            strength *= _OUTER_STRIKE if self._strikes % 2 else 1.0
            square *= (1 + _OUTER_STRIKE**2) / 2
        return strength / math.sqrt(square)
