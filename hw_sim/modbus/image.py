"""The registers of one slave: four tables, packed from readings when these are first asked for."""

import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Final, Protocol

from hw_sim.modbus.encoding import BITS, Space, arrange, layout, raw_of
from hw_sim.modbus.section import Device, Register
from hw_sim.plant import Readings

__all__ = ["SPACES", "Image"]

SPACES: Final[tuple[Space, ...]] = ("coil", "discrete", "holding", "input")
"""In the order of the functions that read them, from 1."""


@dataclass(frozen=True, slots=True)
class _Slot:
    """What stands in one place of a table."""

    first: int
    count: int
    layout: str
    value: Callable[[Readings], float | bytes]
    register: Register
    """The first of those that share the place."""


class _Table(Protocol):
    def update(self, readings: Readings) -> None:
        """Bring it up to date."""

    def read(self, first: int, count: int) -> bytes:
        """The data of an answer: registers big-endian, or bits from the lowest of the first byte upwards."""


class Image:
    """All four tables of one slave.

    Each answer is one snapshot: it is made of the readings of one moment, whatever it covers.
    """

    def __init__(self, device: Device, channels: Mapping[str, str]) -> None:
        """Lay the tables out.

        Args:
            device: its registers.
            channels: by register, the channel that it shows.
        """
        self.size = device.addresses
        foremost = next(iter(device.registers.values()))
        self.first = SPACES.index(foremost.space), foremost.first
        """The register that the scenario names first: the place of its table in SPACES, and its address."""
        self.shown = [0, 0, 0, 0]
        """By table, a mask of the addresses that show a channel."""
        self._defined = [0, 0, 0, 0]
        self._strict = device.holes == "illegal"
        self._seen: list[Readings | None] = [None, None, None, None]
        self._tables: list[_Table] = []
        for number, space in enumerate(SPACES):
            mine = {name: each for name, each in device.registers.items() if each.space == space}
            for name, each in mine.items():
                mask = ((1 << each.count) - 1) << each.first
                self._defined[number] |= mask
                self.shown[number] |= mask if name in channels else 0
            slots = _slots(mine, channels)
            self._tables.append(_Bits(slots) if space in BITS else _Words(slots, self.size))

    def has(self, table: int, first: int, count: int) -> bool:
        """Whether all of so many addresses are there."""
        if first + count > self.size:
            return False
        if not self._strict:
            return True
        return not ~(self._defined[table] >> first) & ((1 << count) - 1)

    def read(self, table: int, first: int, count: int, readings: Readings) -> bytes:
        """The data of an answer, from addresses that are there; nobody may change `readings` afterwards."""
        if self._seen[table] is not readings:
            self._tables[table].update(readings)
            self._seen[table] = readings
        return self._tables[table].read(first, count)


def _slots(registers: Mapping[str, Register], channels: Mapping[str, str]) -> list[_Slot]:
    """What stands in a table, in order; bits of one register are one slot."""
    places: dict[int, list[str]] = {}
    for name, register in registers.items():
        places.setdefault(register.first, []).append(name)
    return [
        _slot([(registers[name], channels.get(name, "")) for name in places[first]])
        for first in sorted(places)
    ]


def _slot(there: Sequence[tuple[Register, str]]) -> _Slot:
    register, channel = there[0]
    if register.format == "string":
        text = (register.text or "").encode("ascii")
        value: Callable[[Readings], float | bytes] = lambda _readings: text  # noqa: E731
    elif register.format == "bits":
        value = _flags(there)
    else:
        raw = raw_of(register.format, scale=register.scale, offset=register.offset)
        value = lambda readings: raw(readings[channel])  # noqa: E731
    number = "" if register.format == "bool" else layout(register.format, register.count)
    return _Slot(register.first, register.count, number, value, register)


def _flags(there: Sequence[tuple[Register, str]]) -> Callable[[Readings], int]:
    """The number of a register that several share by bits."""
    parts = [
        (channel, register.bit or 0, raw_of("bits", width=register.width)) for register, channel in there
    ]
    return lambda readings: sum(int(raw(readings[channel])) << bit for channel, bit, raw in parts)


class _Bits:
    """Coils or discrete inputs: one number, whose bit n is address n."""

    def __init__(self, slots: Sequence[_Slot]) -> None:
        self._slots = slots
        self._number = 0

    def update(self, readings: Readings) -> None:
        self._number = sum(1 << slot.first for slot in self._slots if slot.value(readings))

    def read(self, first: int, count: int) -> bytes:
        return (self._number >> first & (1 << count) - 1).to_bytes(-(-count // 8), "little")


class _Words:
    """Holding or input registers: runs of slots without gaps, each packed in one go."""

    def __init__(self, slots: Sequence[_Slot], size: int) -> None:
        self._data = bytearray(2 * size)
        runs: list[list[_Slot]] = []
        for slot in slots:
            if runs and slot.first == runs[-1][-1].first + runs[-1][-1].count:
                runs[-1].append(slot)
            else:
                runs.append([slot])
        self._runs = [_Run(run) for run in runs]

    def update(self, readings: Readings) -> None:
        for run in self._runs:
            self._data[run.place] = run.packed(readings)

    def read(self, first: int, count: int) -> bytes:
        return bytes(self._data[2 * first : 2 * (first + count)])


class _Run:
    """Slots that follow each other."""

    def __init__(self, slots: Sequence[_Slot]) -> None:
        first, end = slots[0].first, slots[-1].first + slots[-1].count
        self.place = slice(2 * first, 2 * end)
        self._values = [slot.value for slot in slots]
        self._struct = struct.Struct(">" + "".join(slot.layout for slot in slots))
        self._places = None
        if any(slot.register.order != "ABCD" for slot in slots):
            self._places = itemgetter(*(at for slot in slots for at in _places(slot, first)))

    def packed(self, readings: Readings) -> bytes:
        """Its bytes, as they are on the wire."""
        data = self._struct.pack(*[value(readings) for value in self._values])
        return data if self._places is None else bytes(self._places(data))


def _places(slot: _Slot, first: int) -> list[int]:
    """For each byte on the wire, where it stands in big-endian data that begins with register `first`."""
    begin = 2 * (slot.first - first)
    numbers = arrange(bytes(range(2 * slot.count)), slot.register.order)
    return [begin + number for number in numbers]
