"""What one run is, as TOML: which plants, wires and devices there are, and what breaks when.

    seed = 1                          # same seed, same numbers
    speed = 1                         # plant's seconds per second, or "max": as fast as the wires take it
    duration = "10min"                # by default, until it is stopped
    [plants.NAME]                     # kind = "pump_skid" …: a file in plants/
    [wires.NAME]                      # type = "mqtt" …: a package, whose section.py has the keys
    [wires.NAME.devices.NAME]         # what is on it, and which channels of the plants it shows
    [[faults]]                        # fault = "drift", onset = "30s", end = "60s", and its parameters

A mistake is told with file, line and key, all of them at once.
"""

import difflib
import importlib
import math
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar

from pydantic import BeforeValidator, ConfigDict, Field, ValidationError

from hw_sim import plants
from hw_sim.bench import Bench, Rig
from hw_sim.catalogue import Known, make, parse_all
from hw_sim.duration import DurationError, seconds
from hw_sim.fault import Fault, FaultError
from hw_sim.plants import PlantSettings
from hw_sim.section import Duration, Section, WireSection, place_of

__all__ = ["WIRES", "Origin", "Problem", "Scenario", "ScenarioError", "load", "of", "override", "shipped"]

WIRES: Final = ("mqtt", "modbus", "opcua", "serial")
"""The types of wires: packages of this one."""

_HEADER: Final = re.compile(r"^\s*\[(\[?)\s*([^\]]+?)\s*\]")
_KEY: Final = re.compile(r"""^\s*((?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*')(?:\s*\.\s*[A-Za-z0-9_-]+)*)\s*=""")

_ALIKE: Final = 1e-6

_Path = tuple[str | int, ...]
_S = TypeVar("_S", bound=Section)


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake in a scenario."""

    key: _Path
    what: str


class ScenarioError(ValueError):
    """A scenario that is wrong; a line each of its mistakes, with file, line and key."""


class Origin:
    """The text that a scenario was read from; it knows the line of each key."""

    def __init__(self, name: str, text: str = "") -> None:
        self.name = name
        self._lines = _lines_of(text)

    def error(self, problems: Sequence[Problem]) -> ScenarioError:
        """All problems as one error."""
        return ScenarioError("\n".join(self._told(each) for each in problems))

    def _told(self, problem: Problem) -> str:
        key = ".".join(map(str, problem.key))
        known = [problem.key[:length] for length in range(len(problem.key), 0, -1)]
        line = next((self._lines[each] for each in known if each in self._lines), None)
        where = self.name if line is None else f"{self.name}:{line}"
        return f"{where}: {key}: {problem.what}" if key else f"{where}: {problem.what}"


def _lines_of(text: str) -> dict[_Path, int]:
    """The line of each table and key of a TOML text, as far as they begin a line."""
    found: dict[_Path, int] = {}
    table: _Path = ()
    counts: dict[str, int] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if header := _HEADER.match(line):
            name = header[2]
            table = tuple(part.strip().strip("\"'") for part in name.split("."))
            if header[1]:
                counts[name] = counts.get(name, -1) + 1
                table = (*table, counts[name])
            for length in range(1, len(table) + 1):
                found.setdefault(table[:length], number)
        elif key := _KEY.match(line):
            parts = tuple(part.strip().strip("\"'") for part in key[1].split("."))
            found.setdefault(table + parts, number)
    return found


def _speed(value: object) -> object:
    return math.inf if value == "max" else value


class _Top(Section):
    """The top of a scenario."""

    seed: int = 1
    speed: Annotated[float, BeforeValidator(_speed), Field(gt=0)] = 1.0
    duration: Duration | None = None
    plants: Mapping[str, Any] = Field(default_factory=dict)
    wires: Mapping[str, Any] = Field(default_factory=dict)
    faults: Sequence[Any] = ()


class _FaultSection(Section):
    """A fault of the timeline; further keys are its parameters."""

    model_config = ConfigDict(extra="allow", frozen=True)
    fault: str
    onset: str = "0s"
    end: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """What one run is."""

    name: str
    seed: int = 1
    speed: float = 1.0
    """The plant's seconds per second; infinite means as fast as the wires take it."""
    duration_s: float | None = None
    plants: Mapping[str, PlantSettings] = field(default_factory=dict)
    wires: Mapping[str, WireSection] = field(default_factory=dict)
    faults: Sequence[Mapping[str, Any]] = ()
    """As they were written, checked when the plants are there."""
    origin: Origin = field(default_factory=lambda: Origin("scenario"))

    def bench(self, further: Sequence[str] = ()) -> tuple[Bench, Known]:
        """The plants with their faults, and what a fault may name.

        Args:
            further: faults beside the scenario's, as a command line has them.

        Raises:
            ScenarioError: what a wire shows or a fault breaks is not there.
            FaultError: one of the further faults is written wrong.
        """
        rigs = [_rig(name, each, self) for name, each in self.plants.items()]
        problems = _clashes(rigs) + _steps(rigs)
        channels = {name: channel for rig in rigs for name, channel in rig.channels.items()}
        known = Known(
            channels,
            {rig.name: rig.shows for rig in rigs},
            {
                name: tuple(fields.values())
                for wire in self.wires.values()
                for name, fields in wire.fields.items()
            },
            {name: (wire.type, tuple(wire.fields)) for name, wire in self.wires.items()},
        )
        problems += _dangling(self.wires, known)
        faults = []
        for number, written in enumerate(self.faults):
            try:
                faults.append(_fault(written, known))
            except (FaultError, DurationError) as error:
                problems.append(Problem(("faults", number), str(error)))
        if problems:
            raise self.origin.error(problems)
        return Bench(rigs, seed=self.seed, faults=[*faults, *parse_all(further, known)]), known


def shipped() -> Mapping[str, str]:
    """The scenarios that come with the simulator, by name, with the first line of each."""
    folder = files("hw_sim") / "scenarios"
    texts = {path.name.removesuffix(".toml"): path.read_text() for path in folder.iterdir() if path.is_file()}
    return {name: text.partition("\n")[0].lstrip("# ") for name, text in sorted(texts.items())}


def load(name: str, overrides: Sequence[str] = ()) -> Scenario:
    """Read a scenario.

    Args:
        name: of a file, or of one that comes with the simulator.
        overrides: `KEY=VALUE` each, such as `wires.plc.port=0`, with VALUE as TOML has it, or a plain string.

    Raises:
        ScenarioError: it is not there, or something in it is wrong.
    """
    text = _text(name)
    origin = Origin(name, text)
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ScenarioError(f"{name}: {error}") from error
    for each in overrides:
        override(document, each)
    return of(document, origin)


def _text(name: str) -> str:
    there = shipped()
    if name in there:
        return (files("hw_sim") / "scenarios" / f"{name}.toml").read_text()
    try:
        return Path(name).read_text()
    except FileNotFoundError as error:
        raise ScenarioError(
            f"{name}: no such file, and no scenario of that name; there are {', '.join(there)}"
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise ScenarioError(f"{name}: {error}") from error


def override(document: dict[str, Any], said: str) -> None:
    """Change a key of a document, as `KEY=VALUE` says.

    Raises:
        ScenarioError: it is written wrong.
    """
    key, equals, written = said.partition("=")
    if not equals:
        raise ScenarioError(f"{said!r} is not KEY=VALUE, such as wires.plc.port=0")
    try:
        value = tomllib.loads(f"value = {written}")["value"]
    except tomllib.TOMLDecodeError:
        value = written
    *tables, last = key.split(".")
    at = document
    for name in tables:
        at = at.setdefault(name, {})
        if not isinstance(at, dict):
            raise ScenarioError(f"{said!r}: {name} is no table")
    at[last] = value


def of(document: Mapping[str, Any], origin: Origin) -> Scenario:
    """Check a scenario.

    Raises:
        ScenarioError: something in it is wrong.
    """
    problems: list[Problem] = []
    top = _valid(_Top, document, (), problems) or _Top()
    found_plants = {
        name: settings
        for name, each in _tables(document, "plants")
        if (settings := _plant(each, ("plants", name), problems, origin)) is not None
    }
    found_wires = {
        name: section
        for name, each in _tables(document, "wires")
        if (section := _wire(each, ("wires", name), problems)) is not None
    }
    for number, each in enumerate(top.faults):
        _valid(_FaultSection, each, ("faults", number), problems)
    problems += _twice(found_wires)
    if problems:
        raise origin.error(problems)
    return Scenario(
        name=Path(origin.name).stem,
        seed=top.seed,
        speed=top.speed,
        duration_s=top.duration,
        plants=found_plants,
        wires=found_wires,
        faults=top.faults,
        origin=origin,
    )


def _tables(document: Mapping[str, Any], key: str) -> Iterable[tuple[str, Any]]:
    """What stands below a key, also where the rest of the document is wrong."""
    found = document.get(key, {})
    return found.items() if isinstance(found, Mapping) else ()


def _valid(
    section: type[_S], written: object, at: _Path, problems: list[Problem], folder: Path | None = None
) -> _S | None:
    try:
        return section.model_validate(written, context={"folder": folder})
    except ValidationError as error:
        for each in error.errors():
            place, keys = place_of(section, each["loc"])
            problems.append(Problem((*at, *place), _said(each, keys)))
        return None


def _said(error: Mapping[str, Any], keys: Iterable[str]) -> str:
    if error["type"] == "extra_forbidden":
        return "there is no such key" + _like(str(error["loc"][-1]), sorted(keys))
    if error["type"] == "missing":
        return "is missing"
    if error["type"] == "string_pattern_mismatch":
        return f"{error['input']!r} is not of the form {error['ctx']['pattern']}"
    said = str(error["msg"]).removeprefix("Value error, ")
    return said[0].lower() + said[1:]


def _plant(written: object, at: _Path, problems: list[Problem], origin: Origin) -> PlantSettings | None:
    kind = _chosen(written, "kind", at, plants.kinds(), problems)
    if kind is None:
        return None
    return _valid(plants.module(kind).Settings, written, at, problems, Path(origin.name).parent)


def _wire(written: object, at: _Path, problems: list[Problem]) -> WireSection | None:
    kind = _chosen(written, "type", at, WIRES, problems)
    if kind is None:
        return None
    settings: type[WireSection] = importlib.import_module(f"hw_sim.{kind}.section").Settings
    return _valid(settings, written, at, problems)


def _chosen(
    written: object, key: str, at: _Path, choices: Sequence[str], problems: list[Problem]
) -> str | None:
    """The kind of a plant or wire, if there is such a one."""
    if not isinstance(written, Mapping):
        problems.append(Problem(at, "is no table"))
    elif written.get(key) in choices:
        return str(written[key])
    else:
        known = ", ".join(choices)
        meant = difflib.get_close_matches(key, map(str, written), n=1)
        said = (
            f"no {key} {written[key]!r}; there are {known}"
            if key in written
            else f"is missing; one of {known}" + (f"; there is a key {meant[0]}" if meant else "")
        )
        problems.append(Problem((*at, key), said))
    return None


def _twice(wires: Mapping[str, WireSection]) -> list[Problem]:
    """Devices whose name another wire has used."""
    seen: dict[str, str] = {}
    return [
        Problem(("wires", name, "devices", device), f"wire {wire} has a device of that name")
        for name, settings in wires.items()
        for device in settings.fields
        if (wire := seen.setdefault(device, name)) != name
    ]


def _rig(name: str, settings: PlantSettings, scenario: Scenario) -> Rig:
    # The first plant's numbers depend on the seed alone, so that a scenario may grow around it.
    seed = str(scenario.seed) if name == next(iter(scenario.plants)) else f"{scenario.seed}/{name}"
    try:
        plant = plants.module(settings.kind).build(settings, seed)
    except (OSError, ValueError) as error:
        raise scenario.origin.error([Problem(("plants", name), str(error))]) from error
    return Rig(name, plant, prefix=settings.prefix)


def _clashes(rigs: Sequence[Rig]) -> list[Problem]:
    owner: dict[str, str] = {}
    problems = []
    for rig in rigs:
        shared = [name for name in rig.channels if owner.setdefault(name, rig.name) != rig.name]
        if shared:
            said = f"plant {owner[shared[0]]} has a channel {shared[0]}, too; give one of them a prefix"
            problems.append(Problem(("plants", rig.name, "prefix"), said))
    return problems


def _steps(rigs: Sequence[Rig]) -> list[Problem]:
    """Plants whose steps do not fit into the bench's."""
    shortest = min((rig.step_s for rig in rigs), default=1.0)
    return [
        Problem(("plants", rig.name), f"its steps of {rig.step_s:g} s are no multiple of {shortest:g} s")
        for rig in rigs
        if abs(rig.step_s / shortest - round(rig.step_s / shortest)) > _ALIKE
    ]


def _dangling(wires: Mapping[str, WireSection], known: Known) -> list[Problem]:
    """Fields that show a channel that no plant has."""
    return [
        Problem(
            ("wires", wire, "devices", device, settings.holds, name),
            f"shows {channel!r}, which no plant has{_like(channel, known.channels)}",
        )
        for wire, settings in wires.items()
        for device, fields in settings.fields.items()
        for name, channel in fields.items()
        if channel and channel not in known.channels
    ]


def _like(name: str, there: Iterable[str]) -> str:
    known = list(there)
    alike = difflib.get_close_matches(name, known, n=1)
    return f"; is it {alike[0]}?" if alike else f"; there are {', '.join(known) or 'none'}"


def _fault(written: Mapping[str, Any], known: Known) -> Fault:
    parameters = {key: str(value) for key, value in written.items() if key not in _FaultSection.model_fields}
    end = written.get("end")
    onset_s = seconds(written.get("onset", "0s"))
    return make(written["fault"], onset_s, None if end is None else seconds(end), parameters, known)
