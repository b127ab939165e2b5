"""The plants there are, one a file, and what can go wrong with their physics: rows of the catalogue.

Each file has `Settings`, a section of a scenario, and `build(settings, seed)`, which makes a Plant.
"""

import importlib
import math
import pkgutil
from collections.abc import Callable
from typing import Any, Final, Protocol, cast

from pydantic import Field

from hw_sim.fault import Kind, Parameter, Settings
from hw_sim.plant import RACES, Plant, Race, Stress
from hw_sim.section import Section

__all__ = ["FAULTS", "Module", "PlantSettings", "kinds", "module"]


class PlantSettings(Section):
    """What a scenario may say of any plant."""

    kind: str
    """The file in `plants/`."""
    prefix: str = Field(default="", pattern=r"^([A-Za-z_][A-Za-z0-9_]*\.)?$")
    """In front of its channels' names, such as `pump2.`, where two plants would have the same."""


class Module(Protocol):
    """What a file of this folder has."""

    Settings: type[PlantSettings]
    build: Callable[[Any, str], Plant]


def kinds() -> tuple[str, ...]:
    """The names of all plants."""
    return tuple(sorted(each.name for each in pkgutil.iter_modules(__path__)))


def module(kind: str) -> Module:
    """The file of a plant.

    Raises:
        ValueError: there is none of that name.
    """
    if kind not in kinds():
        raise ValueError(f"no plant {kind!r}; there are {', '.join(kinds())}")
    return cast("Module", importlib.import_module(f"{__name__}.{kind}"))


_WORN_OUT: Final = 10.0
"""The wear at which there is no more of the bearing to lose."""


def _wear(since_s: float, settings: Settings) -> Stress:
    """Ever faster, as a spall grows, until nothing is left of it."""
    grown = float(settings["size"]) * (since_s / float(settings["ramp"])) ** 2
    return Stress(wear=min(grown, _WORN_OUT), race=cast("Race", settings["race"]))


def _smooth(since_s: float, settings: Settings) -> float:
    """From 0 at the onset to the size after the ramp, without a corner."""
    share = 0.5 - 0.5 * math.cos(math.pi * min(since_s / float(settings["ramp"]), 1.0))
    return float(settings["size"]) * share


def _clog(since_s: float, settings: Settings) -> Stress:
    return Stress(restriction=1.0 + _smooth(since_s, settings))


def _leak(since_s: float, settings: Settings) -> Stress:
    return Stress(leak=_smooth(since_s, settings))


_PLANT: Final = Parameter("the plant", "", "plant")

FAULTS: Final = (
    Kind(
        name="bearing_wear",
        does="the bearing's vibration grows by 14 % in 10 s, then with the square of time, up to elevenfold",
        where="plant",
        parameters={
            "plant": _PLANT,
            "size": Parameter("the rise of the root mean square after `ramp`, as a share", "0.14"),
            "ramp": Parameter("from the onset to that rise", "10s", "time", low=0.001),
            "race": Parameter("what is worn: races, a ball or the cage", "outer", "choice", RACES),
        },
        stress=_wear,
        strains="wear",
    ),
    Kind(
        name="blockage",
        does="pipe, filter or condenser clogs within 10 s, to 2.2 times its friction",
        where="plant",
        parameters={
            "plant": _PLANT,
            "size": Parameter("the added friction, as a share of the clean one", "1.2"),
            "ramp": Parameter("from the onset to its full size", "10s", "time", low=0.001),
        },
        stress=_clog,
        strains="restriction",
    ),
    Kind(
        name="leak",
        does="a share of what should arrive gets lost on the way: water, coolant or refrigerant",
        where="plant",
        parameters={
            "plant": _PLANT,
            "size": Parameter("the share that is lost", "0.15", high=0.9),
            "ramp": Parameter("from the onset to its full size", "10s", "time", low=0.001),
        },
        stress=_leak,
        strains="leak",
    ),
)
