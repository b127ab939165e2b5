"""What a probed Modbus device is told as: likely values, a document, and the configuration that reads it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from dxad.commissioning.fragment import fragment, name_for
from dxad.commissioning.modbusprobe import Device, Table
from dxad.commissioning.registers import Expected, Guess, Match, guesses, matches, prevailing_order
from dxad.types import Document

__all__ = ["Place", "device_document", "expected_places", "likely_values", "modbus_fragment", "moves"]

_CHANNELS: Final = 64
"""That a fragment proposes for one device; a larger one wants to be made by somebody who knows the device."""
_BITS: Final = ("coil", "discrete")


@dataclass(frozen=True, slots=True)
class Place:
    """Where an expected value may stand."""

    space: str
    match: Match

    @property
    def settings(self) -> dict[str, Any]:
        """The channel that reads it."""
        found = self.match
        return _channel(self.space, found.address, found.encoding, found.order, scale=found.scale)


def _channel(space: str, address: int, encoding: str, order: str, *, scale: float = 1.0) -> dict[str, Any]:
    made: dict[str, Any] = {"register": f"{space}:{address}"}
    if space in _BITS:
        return made
    made["encoding"] = encoding
    if order != "ABCD":
        made["order"] = order
    if scale != 1.0:
        made["scale"] = scale
    return made


def likely_values(device: Device) -> list[tuple[Table, Guess]]:
    """What probably stands in the registers, table by table; bits that are 1 or have changed."""
    words = [run for table in device.tables if table.space not in _BITS for run in table.runs]
    order = prevailing_order(words)
    found: list[tuple[Table, Guess]] = []
    for table in device.tables:
        if table.space in _BITS:
            found += [
                (table, Guess(at, "uint16", "ABCD", float(value), 1))
                for at, value in sorted(table.found.items())
                if value or at in table.moving
            ]
        else:
            found += [(table, each) for run in table.runs for each in guesses(run, order)]
    return found


def moves(table: Table, guess: Guess) -> bool:
    """Whether it was another value at the second look."""
    return any(at in table.moving for at in range(guess.address, guess.address + guess.registers))


def expected_places(device: Device, wanted: Sequence[Expected]) -> list[list[Place]]:
    """For each expected value, where it may stand on the device, the likeliest first."""
    found: list[list[Place]] = [[] for _ in wanted]
    for table in device.tables:
        if table.space in _BITS:
            continue
        for mine, more in zip(found, matches(table.runs, wanted), strict=True):
            mine += [Place(table.space, each) for each in more]
    return [sorted(each, key=lambda place: place.match.odd)[:8] for each in found]


def modbus_fragment(
    name: str, url: str, device: Device, *, wanted: Sequence[Expected], places: Sequence[Sequence[Place]]
) -> str:
    """The configuration that reads what was expected; without expectations, what is likely."""
    channels: dict[str, dict[str, Any]] = {}
    remarks: dict[str, str] = {}
    if wanted:
        for each, found in zip(wanted, places, strict=True):
            if found:
                best = found[0]
                channel = name_for(f"{best.space}{best.match.address}", channels)
                channels[channel] = best.settings
                remarks[channel] = f"{best.match.value:.6g}, where {each.value:g} was expected"
    else:
        likely = [(table, guess) for table, guess in likely_values(device) if guess.encoding != "string"]
        for table, guess in likely[:_CHANNELS]:
            channel = name_for(f"{table.space}{guess.address}", channels)
            channels[channel] = _channel(table.space, guess.address, guess.encoding, guess.order)
            remarks[channel] = f"{guess.value:.6g}" + (", moves" if moves(table, guess) else "")
    settings: dict[str, Any] = {"type": "modbus", "url": url}
    if device.id != 1:
        settings["device_id"] = device.id
    settings["period"] = "1s"
    head = ""
    if not channels:
        reads = any(table.found for table in device.tables)
        told = "nothing but zeros was found" if reads else "nothing could be read"
        head = f"{told}: name the registers, as in the device's manual"
    return fragment(name, settings, channels, remarks=remarks, head=head)


def device_document(
    device: Device, *, wanted: Sequence[Expected], places: Sequence[Sequence[Place]]
) -> Document:
    """All of it, for programs."""
    values: dict[str, list[Document]] = {}
    for table, guess in likely_values(device):
        values.setdefault(table.space, []).append(
            {
                "address": guess.address,
                "encoding": "bool" if table.space in _BITS else guess.encoding,
                "order": guess.order,
                "value": guess.value,
                "moves": moves(table, guess),
            }
        )
    return {
        "id": device.id,
        "first_answer": device.detail,
        "tables": {
            table.space: {
                "ranges": [list(each) for each in table.ranges],
                "not_looked_into": [list(each) for each in table.refused],
                "note": table.note,
                "not_zero": {str(at): table.found[at] for at in sorted(table.found) if table.found[at]},
                "values": values.get(table.space, []),
            }
            for table in device.tables
        },
        "expected": [
            {
                "value": each.value,
                "tolerance": each.tolerance,
                "places": [
                    {**place.settings, "value": place.match.value, "oddness": round(place.match.odd, 3)}
                    for place in found
                ],
            }
            for each, found in zip(wanted, places, strict=True)
        ],
    }
