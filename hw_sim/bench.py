"""The plant on its bench, with its faults, and beside it a healthy twin with the same noise.

The twin gives the truth about every fault: what each sensor would have read without it. As long as nothing
has stressed the plant the two are one, so the twin is made at the first stress.
"""

import copy
from collections.abc import Mapping, Sequence

from hw_sim.fault import Fault
from hw_sim.plant import HEALTHY, STEP_S, PumpSkid, Stress

__all__ = ["Bench"]


class Bench:
    """Steps the plant, and its twin; step n is at n · 10 ms."""

    def __init__(self, seed: int, faults: Sequence[Fault]) -> None:
        self.faults = tuple(faults)
        self.readings: Mapping[str, float] = {}
        """What the sensors show now, by channel."""
        self.healthy: Mapping[str, float] = {}
        """What they would show without any fault."""
        self.down: frozenset[str] = frozenset()
        """The devices that are off now."""
        self._plant = PumpSkid(seed)
        self._twin: PumpSkid | None = None
        self._stuck: dict[str, float] = {}
        self._steps = -1
        self.step()

    @property
    def at_s(self) -> float:
        """Seconds since the start."""
        return self._steps * STEP_S

    def active(self) -> list[Fault]:
        """The faults that are on now."""
        at_s = self.at_s
        return [fault for fault in self.faults if fault.active(at_s)]

    def step(self) -> None:
        """Advance by 10 ms."""
        self._steps += 1
        active = self.active()
        stress = _stress(active, self.at_s)
        if self._twin is None and stress != HEALTHY:
            self._twin = copy.deepcopy(self._plant)
        now = self._plant.step(stress)
        last = self.readings or now
        self._stuck = {
            name: self._stuck.get(name, last[name]) for fault in active for name in fault.stuck_channels
        }
        self.readings = {**now, **self._stuck}
        self.healthy = now if self._twin is None else self._twin.step()
        self.down = frozenset(device for fault in active for device in fault.downed_devices)


def _stress(active: Sequence[Fault], at_s: float) -> Stress:
    """All stresses together."""
    restriction, wear = 1.0, 0.0
    for fault in active:
        stress = fault.stress(at_s)
        restriction *= stress.restriction
        wear += stress.wear
    return Stress(restriction, wear)
