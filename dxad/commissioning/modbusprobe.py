"""What is on a Modbus line: which ids answer, and which addresses each has. Only four reads are ever sent.

    ids ──▶ who answers, an exception included
             │
             ▼
    blocks of 64, and a refused one by halves down to single registers ──▶ runs that read

Blocks are of even length, since some meters read in pairs of registers alone. Where the first refused blocks
of a table, taken apart, hold nothing, further ones are left alone unless the probing is thorough.
"""

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from dxad.commissioning import Patience, Watcher
from dxad.commissioning.registers import Run
from dxad.errors import NotConnected
from dxad.links.modbus import Answer, ModbusLink, Space, shared
from dxad.links.modbusurl import Address
from dxad.types import Reason

__all__ = ["SPACES", "Device", "Probe", "Survey", "Table", "answering", "likely_ids", "probing"]

SPACES: Final[tuple[Space, ...]] = ("holding", "input", "coil", "discrete")
_BITS: Final = ("coil", "discrete")
_BLOCK: Final = 64
_CONNECT_S: Final = 3.0
_FEW: Final = 16
"""So many ids are asked twice before they are called silent."""
_IN_VAIN: Final = 2
"""Refused blocks of a table that are taken apart in vain before the others are left alone."""
_HANG_UPS: Final = 20
"""Connections that a device may close on us."""
_ILLEGAL_FUNCTION, _BUSY = 1, 6
_APART: Final = (2, 3, 4)
"""Exceptions that a part of a block may be without: illegal address, illegal value, device failure."""
_GATEWAY: Final = (10, 11)
_BUSY_S: Final = 0.2


@dataclass(slots=True)
class Table:
    """One of a device's four tables."""

    space: Space
    found: dict[int, int] = field(default_factory=dict)
    """By address, what stands there."""
    moving: set[int] = field(default_factory=set)
    """Addresses whose value was another one at the second look."""
    refused: list[tuple[int, int]] = field(default_factory=list)
    """First and last address of blocks that were refused and not taken apart."""
    asked: bool = False
    """Whether there was time to look at it."""
    note: str = ""
    """Why there is nothing more of it."""

    @property
    def ranges(self) -> list[tuple[int, int]]:
        """First and last address of all that reads, in order."""
        return _ranges(self.found)

    @property
    def runs(self) -> list[Run]:
        """What stands in them."""
        return [
            Run(first, np.array([self.found[at] for at in range(first, last + 1)], np.uint16))
            for first, last in self.ranges
        ]


@dataclass(slots=True)
class Device:
    """Who answers at an id."""

    id: int
    detail: str
    """What it said first."""
    tables: list[Table] = field(default_factory=list)


def _ranges(addresses: Iterable[int]) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    for at in sorted(addresses):
        if found and at == found[-1][1] + 1:
            found[-1] = found[-1][0], at
        else:
            found.append((at, at))
    return found


def likely_ids(address: Address) -> Sequence[int]:
    """All that a device may have, where nothing is known: over TCP, first those that need none."""
    if address.framing == "tcp":
        return (1, 255, 0, *range(2, 248))
    return range(1, 248)


class Probe:
    """Asks on one line, one question at a time, with a rest after each."""

    def __init__(self, address: Address, patience: Patience, *, delay_s: float, timeout_s: float) -> None:
        self.questions = 0
        """How many were asked."""
        self.silences: Counter[str] = Counter()
        """Why there was no answer, and how often."""
        self._address = address
        self._patience = patience
        self._timeout_s = timeout_s
        self._hang_ups = 0
        quiet_s = 0.0 if address.framing == "tcp" else timeout_s
        self._link: ModbusLink = shared(address, delay_s=delay_s, quiet_s=quiet_s)

    async def open(self) -> None:
        """Connect.

        Raises:
            NotConnected: there is nobody.
            ConfigError: the line cannot be set so.
        """
        await self._link.open(_CONNECT_S)

    def close(self) -> None:
        """Let go of the line."""
        self._link.close()

    async def ask(self, space: Space, first: int, count: int, *, device_id: int) -> Answer:
        """One question; a device that was silent for long is left alone for as long as the line wants.

        Raises:
            NotConnected: the connection is gone, and gone again.
        """
        rest_s = self._link.resting_s(device_id)
        if rest_s:
            await asyncio.sleep(min(rest_s, self._patience.left_s))
        self.questions += 1
        try:
            answer = await self._link.ask(space, first, count, device_id=device_id, timeout_s=self._timeout_s)
        except NotConnected as error:
            self._hang_ups += 1
            if self._hang_ups > _HANG_UPS:
                raise
            await self._link.open(_CONNECT_S)
            answer = Answer(reason=Reason.TIMEOUT, detail=str(error))
        if answer.reason is Reason.TIMEOUT:
            self.silences[answer.detail] += 1
        return answer


@asynccontextmanager
async def probing(
    address: Address, patience: Patience, *, delay_s: float, timeout_s: float
) -> AsyncIterator[Probe]:
    """A line that is open until the block is left.

    Raises:
        NotConnected: there is nobody.
        ConfigError: the line cannot be set so.
    """
    probe = Probe(address, patience, delay_s=delay_s, timeout_s=timeout_s)
    try:
        await probe.open()
        yield probe
    finally:
        probe.close()


async def answering(
    probe: Probe, ids: Sequence[int], patience: Patience, watcher: Watcher
) -> tuple[list[Device], int]:
    """Who answers, and how many of the ids there was time for.

    Raises:
        NotConnected: the line is gone.
    """
    found: list[Device] = []
    for number, each in enumerate(ids):
        if patience.over:
            return found, number
        watcher.doing(f"id {each}: is anybody there? {len(found)} found so far")
        answer = await probe.ask("holding", 0, 1, device_id=each)
        if answer.reason is Reason.TIMEOUT and len(ids) <= _FEW:
            answer = await probe.ask("input", 0, 1, device_id=each)
        if answer.reason is Reason.TIMEOUT or answer.code in _GATEWAY:
            continue
        found.append(Device(each, answer.detail or "reads holding:0"))
        watcher.seen(f"id {each} answers: {found[-1].detail}")
    return found, len(ids)


class Survey:
    """Finds out what one device has."""

    def __init__(
        self, probe: Probe, device: Device, first: int, last: int, *, patience: Patience, thorough: bool
    ) -> None:
        """Look at the addresses from `first` to `last`."""
        self._probe = probe
        self._device = device
        self._first, self._last = first, last
        self._patience = patience
        self._thorough = thorough

    async def run(self, spaces: Sequence[Space], watcher: Watcher) -> None:
        """Fill the device's tables, as far as there is time.

        Raises:
            NotConnected: the line is gone.
        """
        device = self._device
        device.tables = [Table(space) for space in spaces]
        refused: dict[Space, list[tuple[int, int]]] = {}
        whole, left = self._patience, 2 * len(device.tables)
        for table in device.tables:  # none takes the others' time
            self._patience = whole.part(1 / left)
            refused[table.space] = await self._blocks(table, watcher)
            left -= 1
        for table in device.tables:
            self._patience = whole.part(1 / left)
            await self._apart(table, refused[table.space], watcher)
            left -= 1
        self._patience = whole
        for table in device.tables:
            told = ", ".join(f"{a}" if a == b else f"{a}-{b}" for a, b in table.ranges)
            watcher.seen(f"id {device.id} {table.space}: {told or table.note or 'nothing'}")

    async def _blocks(self, table: Table, watcher: Watcher) -> list[tuple[int, int]]:
        """Read all blocks; returns those that are refused."""
        refused = []
        for first in range(self._first, self._last + 1, _BLOCK):
            if self._patience.over:
                table.note = table.note or "no time was left for it"
                table.refused.append((first, self._last))
                break
            last = min(first + _BLOCK - 1, self._last)
            watcher.doing(f"id {self._device.id} {table.space}:{first}-{last}")
            table.asked = True
            answer = await self._read(table, first, last)
            if answer.code == _ILLEGAL_FUNCTION:
                table.note = "the device has no such table"
                return []
            if answer.code in _APART:
                refused.append((first, last))
            elif answer.reason is not Reason.NONE:
                table.note = f"{table.space}:{first}-{last}: {answer.detail}"
                table.refused.append((first, last))
        return refused

    async def _apart(self, table: Table, refused: list[tuple[int, int]], watcher: Watcher) -> None:
        """Look into refused blocks: first those beside something that reads."""
        beside = [each for each in refused if {each[0] - 1, each[1] + 1} & table.found.keys()]
        in_vain = 0
        for block in beside + [each for each in refused if each not in beside]:
            if self._patience.over or (in_vain >= _IN_VAIN and not self._thorough):
                table.refused.append(block)
                continue
            before = len(table.found)
            await self._halves(table, block, watcher)
            in_vain = in_vain + 1 if len(table.found) == before else 0
        table.refused = _joined(table.refused)

    async def _halves(self, table: Table, block: tuple[int, int], watcher: Watcher) -> None:
        waiting = deque([block])
        while waiting:
            first, last = waiting.popleft()
            if first == last:
                continue
            middle = (first + last) // 2
            for half in ((first, middle), (middle + 1, last)):
                if self._patience.over:
                    table.refused.append(half)
                    continue
                watcher.doing(f"id {self._device.id} {table.space}:{half[0]}-{half[1]}")
                answer = await self._read(table, *half)
                if answer.code in _APART:
                    waiting.append(half)
                elif answer.reason is not Reason.NONE:
                    table.refused.append(half)

    async def _read(self, table: Table, first: int, last: int) -> Answer:
        answer = await self._probe.ask(table.space, first, last - first + 1, device_id=self._device.id)
        if answer.code == _BUSY or answer.reason is Reason.TIMEOUT:
            await asyncio.sleep(min(_BUSY_S, self._patience.left_s))
            answer = await self._probe.ask(table.space, first, last - first + 1, device_id=self._device.id)
        if answer.reason is Reason.NONE:
            self._keep(table, first, last, answer.wire)
        return answer

    def _keep(self, table: Table, first: int, last: int, wire: bytes) -> None:
        if table.space in _BITS:
            found = np.unpackbits(np.frombuffer(wire, "u1"), bitorder="little")[: last - first + 1].tolist()
        else:
            found = np.frombuffer(wire, ">u2").tolist()
        for at, value in enumerate(found, first):
            if table.found.setdefault(at, value) != value:
                table.moving.add(at)
                table.found[at] = value

    async def again(self, patience: Patience, watcher: Watcher) -> None:
        """Read all once more, to see what moves.

        Raises:
            NotConnected: the line is gone.
        """
        for table in self._device.tables:
            for first, last in table.ranges:
                for begin in range(first, last + 1, _BLOCK):
                    if patience.over:
                        return
                    end = min(begin + _BLOCK - 1, last)
                    watcher.doing(f"id {self._device.id} {table.space}:{begin}-{end}, a second time")
                    await self._read(table, begin, end)


def _joined(blocks: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    return _ranges(at for first, last in blocks for at in range(first, last + 1))
