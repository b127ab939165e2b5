"""The plants on their bench, with their faults, and beside each a healthy twin with the same noise.

The twin gives the truth about every fault: what each sensor would have read without it. As long as nothing
has stressed a plant the two are one, so the twin is made at the first stress.

Plants have steps of their own; the bench's is the shortest, and the others are multiples of it.
"""

import copy
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

from hw_sim.fault import Distortion, Fault
from hw_sim.plant import HEALTHY, Channel, Plant, Readings, Recorded, Stress

__all__ = ["Bench", "Edge", "Rig"]


Edge = tuple[Fault, Literal["onset", "end"], float]
"""A fault that has come or gone, and when, in the plant's seconds."""


class Rig:
    """One plant on the bench, by the channel names of the scenario."""

    def __init__(self, name: str, plant: Plant, *, prefix: str = "") -> None:
        self.name = name
        self.step_s = plant.step_s
        self.channels: Mapping[str, Channel] = {
            f"{prefix}{each}": replace(at, step_s=plant.step_s) for each, at in plant.channels.items()
        }
        self.shows: Mapping[str, Sequence[str]] = {
            stress: tuple(f"{prefix}{each}" for each in channels) for stress, channels in plant.shows.items()
        }
        self.every = 1
        """The bench's steps between two of the plant's."""
        self.recorded = plant if isinstance(plant, Recorded) else None
        """The plant, if it plays a record."""
        self._prefix = prefix
        self._plant = plant
        self._twin: Plant | None = None

    def step(self, stress: Stress) -> tuple[Readings, Readings]:
        """What the sensors show after a step, and what they would show without the stress."""
        if self._twin is None and stress != HEALTHY:
            self._twin = copy.deepcopy(self._plant)
        now = self._named(self._plant.step(stress))
        return now, now if self._twin is None else self._named(self._twin.step())

    def _named(self, readings: Readings) -> Readings:
        return {self._prefix + name: each for name, each in readings.items()} if self._prefix else readings


class Bench:
    """Steps the plants and their twins."""

    def __init__(self, rigs: Sequence[Rig], *, seed: int, faults: Sequence[Fault] = ()) -> None:
        self.rigs = tuple(rigs)
        self.seed = seed
        self.channels: Mapping[str, Channel] = {
            name: channel for rig in rigs for name, channel in rig.channels.items()
        }
        self.step_s = min((rig.step_s for rig in rigs), default=1.0)
        self.readings: Readings = {}
        """What the sensors show now, by channel; NaN where one shows nothing."""
        self.healthy: Readings = {}
        """What they would show without any fault."""
        self.stepped: Sequence[Rig] = ()
        """The plants that have made a step just now."""
        self.faults = list(faults)
        """Those that are on or will be."""
        self.active: Sequence[Fault] = ()
        """Those that are on now."""
        self._distortions: dict[Fault, Distortion] = {}
        self._sensors: Sequence[tuple[Fault, str, Distortion]] = ()
        self._plants: Mapping[str, Sequence[Fault]] = {}
        self._edges: list[Edge] = []
        self._edge = 0
        """The step at which a fault comes or goes next."""
        self._steps = -1
        for rig in self.rigs:
            rig.every = round(rig.step_s / self.step_s)
        self._records = [(rig.recorded, rig.every) for rig in self.rigs if rig.recorded is not None]
        self.step()

    @property
    def at_s(self) -> float:
        """Seconds since the start, of the plant's time."""
        return self.time_of(self._steps)

    @property
    def steps(self) -> int:
        """How many steps have been made since the first."""
        return self._steps

    def time_of(self, steps: int) -> float:
        """Seconds from the start until after so many steps."""
        return round(steps * self.step_s, 9)

    @property
    def over(self) -> bool:
        """Whether there are records to play and the next step would have nothing of any of them."""
        return bool(self._records) and all(
            record.exhausted or (record.left == 0 and (self._steps + 1) % every == 0)
            for record, every in self._records
        )

    @property
    def down(self) -> frozenset[str]:
        """The devices that are without power now."""
        return frozenset(str(each.settings["device"]) for each in self.active if each.kind.where == "device")

    def take_edges(self) -> Sequence[Edge]:
        """Which faults have come and gone since the last call, also those that did between two steps."""
        edges, self._edges = self._edges, []
        return edges

    def add(self, fault: Fault) -> None:
        """One more fault, from now on."""
        self.faults.append(fault)
        self._switch()

    def end(self, fault: Fault) -> None:
        """This fault is over now."""
        self.faults.remove(fault)
        self._switch()

    def step(self) -> None:
        """Advance by the shortest of the plants' steps."""
        self._steps += 1
        if self._steps >= self._edge:
            self._switch()
        at_s = self.at_s
        shown: dict[str, float] = {}
        healthy: dict[str, float] = {}
        self.stepped = [rig for rig in self.rigs if self._steps % rig.every == 0]
        for rig in self.stepped:
            now, truth = rig.step(self._stress(rig.name, at_s))
            shown |= now
            healthy |= truth
        for fault, channel, distortion in self._sensors:
            if channel in shown:
                shown[channel] = distortion(shown[channel], at_s - fault.onset_s)
        self.readings = shown if len(self.stepped) == len(self.rigs) else {**self.readings, **shown}
        self.healthy = healthy if len(self.stepped) == len(self.rigs) else {**self.healthy, **healthy}

    def _switch(self) -> None:
        """Find out which faults are on, and when that will change."""
        at_s = self.at_s
        self.faults = [each for each in self.faults if each.end_s is None or at_s < each.end_s]
        before, self.active = self.active, tuple(each for each in self.faults if each.active(at_s))
        self._edges += [(fault, "end", at_s) for fault in before if fault not in self.active]
        self._edges += [(fault, "onset", at_s) for fault in self.active if fault not in before]
        sensors = [each for each in self.active if each.kind.distort is not None]
        self._distortions = {each: self._distortions.get(each) or self._distortion(each) for each in sensors}
        self._sensors = [(each, each.channels[0], self._distortions[each]) for each in sensors]
        stresses = [each for each in self.active if each.kind.stress is not None]
        self._plants = {rig.name: [each for each in stresses if each.plant == rig.name] for rig in self.rigs}
        edges = [each.onset_s if at_s < each.onset_s else each.end_s for each in self.faults]
        self._edge = min(
            (math.ceil(each / self.step_s - 1e-6) for each in edges if each is not None), default=1 << 62
        )

    def _distortion(self, fault: Fault) -> Distortion:
        assert fault.kind.distort is not None
        channel = fault.channels[0]
        number = self.faults.index(fault)
        rng = random.Random(f"{self.seed}/{fault.name}/{channel}/{fault.onset_s}/{number}")  # noqa: S311
        last = self.readings.get(channel, math.nan)
        return fault.kind.distort(self.channels[channel], fault.settings, rng, last)

    def _stress(self, plant: str, at_s: float) -> Stress:
        """All stresses of a plant together."""
        active = self._plants[plant]
        if not active:
            return HEALTHY
        restriction, wear, race, passed = 1.0, 0.0, HEALTHY.race, 1.0
        for fault in active:
            assert fault.kind.stress is not None
            stress = fault.kind.stress(at_s - fault.onset_s, fault.settings)
            restriction *= stress.restriction
            wear += stress.wear
            passed *= 1 - stress.leak
            race = stress.race if stress.wear else race
        return Stress(restriction, wear, race, 1 - passed)
