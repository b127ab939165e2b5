"""A recorded data set and wires to play it through, as a scenario: what `replay` runs.

What goes where is written as `[WIRE:][NAME=]COLUMN`: a column, by another name if one is given, on one wire
or on all that have no such lines of their own. A wire for which there are none carries every column.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from hw_sim.replay.record import Record, identifier
from hw_sim.replay.wiring import Encoding, Plain, written

__all__ = ["PLANT", "WIRES", "Line", "MapError", "Playing", "line", "topic_of", "wires_of"]

PLANT: Final = "record"
"""What the scenario calls its plant."""
WIRES: Final = ("mqtt", "modbus", "opcua", "serial")
_LINE: Final = re.compile(
    rf"(?:(?P<wire>{'|'.join(WIRES)}):)?(?:(?P<name>[A-Za-z_][A-Za-z0-9_]*)=)?(?P<column>.+)"
)
_MOST_DECIMALS: Final = 15


class MapError(ValueError):
    """Columns, names and wires that do not fit together."""


@dataclass(frozen=True, slots=True)
class Line:
    """A column that is chosen."""

    wire: str
    """Or nothing, for all."""
    name: str
    column: str


def line(text: str) -> Line:
    """Read `[WIRE:][NAME=]COLUMN`.

    Raises:
        MapError: it is written wrong.
    """
    found = _LINE.fullmatch(text)
    if found is None:
        raise MapError(f"{text!r} is not [WIRE:][NAME=]COLUMN, such as flow=Flow or modbus:flow=Flow")
    return Line(found["wire"] or "", found["name"] or identifier(found["column"]), found["column"])


def wires_of(chosen: Sequence[str], lines: Sequence[Line]) -> Sequence[str]:
    """The wires that are asked for, or those that the lines name, or MQTT.

    Raises:
        MapError: a line names a wire that is not asked for.
    """
    named = list(dict.fromkeys(each.wire for each in lines if each.wire))
    if chosen and (others := [wire for wire in named if wire not in chosen]):
        raise MapError(f"columns are mapped to {others[0]}, but the wires are {', '.join(chosen)}")
    return tuple(dict.fromkeys(chosen)) or named or WIRES[:1]


def topic_of(path: Path) -> str:
    """The topic of a file: `replay/` and its name, without what a topic may not have."""
    return "replay/" + re.sub(r"[+#/\0]", "_", path.stem)


class Playing:
    """What is played, and through which wires.

    Raises:
        MapError: a name stands for two columns.
    """

    def __init__(
        self,
        record: Record,
        *,
        wires: Sequence[str],
        lines: Sequence[Line] = (),
        topic: str = "",
        encoding: Encoding = "float32",
    ) -> None:
        self.record = record
        carried = {wire: _of(wire, lines) or list(record.columns.items()) for wire in wires}
        self.columns = _together(carried.values())
        """By name, its column."""
        self.names = {wire: [name for name, _ in each] for wire, each in carried.items()}
        """By wire, the names of what it carries."""
        self.plain = Plain(
            period_s=record.period_s,
            topic=topic or topic_of(record.path),
            decimals=_decimals(record.values),
            encoding=encoding,
        )

    def document(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """The scenario, as TOML has it; with what is to be said of the plant besides."""
        plant = {
            "kind": "replay",
            "file": str(self.record.path.absolute()),
            "period": written(self.record.period_s),
            "columns": dict(self.columns),
            **settings,
        }
        wires = {wire: self.plain.wire(wire, names) for wire, names in self.names.items()}
        return {"plants": {PLANT: plant}, "wires": wires}

    def about(self) -> Mapping[str, Mapping[str, str | int]]:
        """By wire, what a client must know besides."""
        return {wire: self.plain.about(wire, names) for wire, names in self.names.items()}

    def places(self) -> Mapping[str, Mapping[str, str]]:
        """By wire, where a client finds each name."""
        return {wire: self.plain.places(wire, names) for wire, names in self.names.items()}


def _of(wire: str, lines: Sequence[Line]) -> Sequence[tuple[str, str]]:
    """Name and column of the lines of a wire, or of those for all."""
    own = [each for each in lines if each.wire == wire] or [each for each in lines if not each.wire]
    return list(dict.fromkeys((each.name, each.column) for each in own))


def _together(carried: Iterable[Sequence[tuple[str, str]]]) -> Mapping[str, str]:
    columns: dict[str, str] = {}
    for each in carried:
        for name, column in each:
            if columns.setdefault(name, column) != column:
                raise MapError(f"{name} is both {columns[name]!r} and {column!r}")
    return columns


def _decimals(values: NDArray[np.float64]) -> int:
    """How many decimals tell every value as the file has it."""
    shown = values[~np.isnan(values)]
    for decimals in range(_MOST_DECIMALS):
        if np.array_equal(np.round(shown, decimals), shown):
            return decimals
    return _MOST_DECIMALS
