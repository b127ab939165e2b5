"""What all wires have in common: a link with devices on it, which can break in the ways of its kind.

A new kind of wire is a package beside the others: `section.py` with `Settings`, what a scenario may say of
it; `faults.py` with its rows of the catalogue; `wire.py` with `build(name, settings, bench)`, its maker.
"""

import math
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Self

from hw_sim.bench import Bench
from hw_sim.fault import Fault, Settings
from hw_sim.section import WireSection

__all__ = ["Due", "Endpoint", "Wire"]

_ALIKE: Final = 1e-4
"""Of a period: what sums of steps may be off by."""


class Endpoint(str):
    """Where a client finds a device, as a URL or a path; `about` says what it finds there, in a line."""

    __slots__ = ("about",)
    about: str

    def __new__(cls, url: str, about: str) -> Self:
        """An endpoint with its line."""
        self = super().__new__(cls, url)
        self.about = about
        return self


class Wire(ABC):
    """A link, whatever is on it, and what is wrong with it."""

    kind: str
    """The protocol: what the names of its faults begin with."""

    def __init__(self, name: str, section: WireSection, bench: Bench) -> None:
        self.name = name
        self.devices: Mapping[str, Mapping[str, str]] = section.fields
        """By device, the plant's channel of each of its fields."""
        self.bench = bench
        self.now: Callable[[], float] = time.time
        """The plant's time as a clock on its wall would show it, in unix seconds."""
        self.active: Sequence[Fault] = ()
        """The faults of this wire and of its devices that are on."""
        self.counts: Counter[str] = Counter()
        """What went over it since the start, by what it was."""

    @property
    @abstractmethod
    def endpoints(self) -> Mapping[str, Endpoint]:
        """By device, where a client finds it; known once it has started."""

    @property
    def delivered(self) -> int:
        """How much has gone to clients by itself, in a unit of its own; what is polled does not count."""
        return 0

    @abstractmethod
    async def start(self) -> None:
        """Come up and be readable, for the first time.

        Raises:
            OSError: the place is taken, or a broker that it needs is not there.
        """

    @abstractmethod
    async def close(self) -> None:
        """Go away for good and leave nothing behind; safe twice, and without `start`."""

    def step(self) -> None:
        """The bench has made a step. Polled wires look when they are asked; streams send what is due."""
        return

    async def ready(self) -> None:
        """Wait until the next step would lose nothing; asked when a run shall be as fast as its wires."""
        return

    async def switch(self, active: Sequence[Fault]) -> None:
        """Have these faults on, and no others. Faults that only colour an answer need no more than this."""
        before, self.active = self.active, tuple(active)
        for fault in before:
            if fault not in self.active:
                await self.switched(fault, on=False)
        for fault in self.active:
            if fault not in before:
                await self.switched(fault, on=True)

    async def switched(self, fault: Fault, *, on: bool) -> None:  # noqa: ARG002 - for those who override it
        """A fault has come or gone, after `active` has been brought up to date: do what takes an act."""
        return

    def fault(self, name: str, device: str = "") -> Settings | None:
        """The settings of a fault such as `late` of `modbus.late`, while it is on for this device."""
        for fault in self.active:
            if fault.kind.wire == self.kind and fault.kind.short == name:
                of = fault.settings.get("device", "")
                if not of or not device or of == device:
                    return fault.settings
        return None

    def off(self, device: str) -> bool:
        """Whether this device is without power."""
        return any(
            fault.kind.name == "source_down" and fault.settings["device"] == device for fault in self.active
        )


class Due:
    """The beats of a period in the plant's time, whatever the steps are."""

    def __init__(self, period_s: float, phase_s: float = 0.0) -> None:
        """Have a beat each period.

        Args:
            period_s: seconds of the plant's time.
            phase_s: when the first is.
        """
        self.period_s = period_s
        self.phase_s = phase_s
        self._beat = 0

    def passed(self, at_s: float) -> bool:
        """Whether a beat has come since the last call; those that were missed are not made up for."""
        beat = math.floor((at_s - self.phase_s) / self.period_s + _ALIKE)
        if beat < self._beat:
            return False
        self._beat = beat + 1
        return True
