"""The plant on its bench, with its faults, and beside it a healthy twin with the same noise.

The twin costs a second plant and gives the truth about every fault: what each sensor would have read without.
"""

from collections.abc import Mapping, Sequence

from hw_sim.fault import Fault
from hw_sim.plant import STEP_S, PumpSkid, Stress

__all__ = ["Bench"]


class Bench:
    """Steps both plants; `readings` is what the sensors show now."""

    def __init__(self, seed: int, faults: Sequence[Fault]) -> None:
        self.faults = tuple(faults)
        self._plant = PumpSkid(seed)
        self._twin = PumpSkid(seed)
        self.readings: Mapping[str, float] = self._plant.step()
        self.healthy: Mapping[str, float] = self._twin.step()
        self._stuck: dict[str, float] = {}

    @property
    def at_s(self) -> float:
        """Seconds since the start."""
        return (self._plant.steps - 1) * STEP_S

    def active(self) -> list[Fault]:
        """The faults that are on now."""
        return [fault for fault in self.faults if fault.active(self.at_s)]

    def step(self) -> None:
        """Advance by one step of the plant."""
        now = self.at_s + STEP_S
        active = [fault for fault in self.faults if fault.active(now)]
        readings = self._plant.step(_stress(active, now))
        self.healthy = self._twin.step()
        stuck = [fault.kind.sticks(fault.parameters) for fault in active if fault.kind.sticks is not None]
        self._stuck = {name: self._stuck.get(name, self.readings[name]) for name in stuck}
        self.readings = {**readings, **self._stuck}


def _stress(active: Sequence[Fault], now: float) -> Stress:
    """All stresses together."""
    restriction, wear = 1.0, 0.0
    for fault in active:
        if fault.kind.stress is not None:
            stress = fault.kind.stress(now - fault.onset_s)
            restriction *= stress.restriction
            wear += stress.wear
    return Stress(restriction, wear)
