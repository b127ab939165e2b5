"""Polls one Modbus device."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from dxad.errors import ConfigError, NotConnected
from dxad.links.modbus import Answer, ModbusLink, Space, shared
from dxad.ring.schedule import Schedule
from dxad.runtime.clock import Clock
from dxad.sources.modbus.layout import Layout
from dxad.sources.modbus.plan import Request, plan
from dxad.sources.modbus.section import REGISTERS_MAX, Config
from dxad.types import NS_PER_S, SAMPLE, U1, Block, Channel, Quality, Reason

__all__ = ["Modbus"]

_CONNECT_S: Final = 3.0
"""A SYN that was lost is sent again after one."""
_QUIET_LEAST: Final = NS_PER_S
_ROOM: Final = 2
"""Registers that questions on a line leave room for: answers are told by their length there."""
_VALUE: Final = 3
_NOT_THERE: Final = {2: Reason.MODBUS_ILLEGAL_ADDRESS, _VALUE: Reason.MODBUS_ILLEGAL_VALUE}
"""Exceptions that are of one address, or of so many (Modbus Application Protocol V1.1b3, 7)."""
_FAULTS_MOST: Final = 64
_OTHER_FAULTS: Final = "others"


@dataclass(frozen=True, slots=True)
class _Block:
    """A request, and where its values go."""

    request: Request
    layout: Layout
    places: slice


class Modbus:
    """Polls one device: all its requests, one after the other, once per slot."""

    def __init__(self, name: str, config: Config, *, clock: Clock) -> None:
        self.channels: Sequence[Channel] = config.declared(name)
        self.faults: dict[str, int] = {}
        """What the device answered instead of values, and how often."""
        self._config = config
        self._clock = clock
        self._period = config.period or NS_PER_S
        self._sections = list(config.channels.values())
        self._longest = config.block if config.place.framing == "tcp" else self._shorter(config.block)
        self._illegal: dict[int, Reason] = {}
        """Columns whose address the device does not have."""
        self._avoid: set[tuple[Space, int]] = set()
        """Addresses that it does not have, and nobody wants."""
        self._block = self._longest
        self._retry_at = 0
        self._messages = 0
        # One cell for each channel: those of a request stand side by side, in its order.
        self._cells = np.zeros(len(self._sections), SAMPLE)
        self._values = np.zeros(len(self._sections))
        self._reasons: U1 = np.zeros(len(self._sections), "u1")
        self._known: U1 = self._reasons.copy()
        """The reasons before anything was asked."""
        self._place: dict[int, int] = {}
        """By column, its cell."""
        self._requests: list[_Block] = []
        self._planned = False
        self._link: ModbusLink | None = None
        self.traffic: Mapping[str, int] = {}
        """What was asked of the slave and what became of it, see `dxad.links.modbusslave`."""
        self._schedule = Schedule(
            period=self._period, lateness=config.slot_lateness(self._period), clock=clock
        )
        self._slot = 0
        """The one that is polled."""

    @property
    def skipped(self) -> int:
        """Slots in which no poll could begin because the one before took too long."""
        return self._schedule.skipped

    @property
    def misanswers(self) -> str:
        """How the device answers out of step, if it does."""
        if self._link is None:
            return ""
        told = self._link.twins(self._config.device_id).told(asyncio.get_running_loop().time())
        return f"device {self._config.device_id} {told}" if told else ""

    def _shorter(self, block: int) -> int:
        most = max((each.count for each in self._sections), default=1)
        return max(most, min(block, REGISTERS_MAX - _ROOM))

    def _plan(self) -> None:
        """Ask for everything that the device is not known to lack."""
        wanted = [column for column in range(len(self._sections)) if column not in self._illegal]
        requests = plan(self._sections, wanted, block=self._block, hole=self._config.hole, avoid=self._avoid)
        order: list[int] = []
        self._requests = []
        for request in requests:
            places = slice(len(order), len(order) + len(request.columns))
            layout = Layout(request, self._sections, self._values[places], self._reasons[places])
            self._requests.append(_Block(request, layout, places))
            order += request.columns
        order += self._illegal
        self._known[:] = Reason.NONE
        self._known[len(order) - len(self._illegal) :] = list(self._illegal.values())
        self._cells["column"] = order
        self._place = {column: at for at, column in enumerate(order)}
        self._planned = True

    async def connect(self) -> None:
        """Have the line open, which other sources may share.

        Raises:
            NotConnected: nobody listens there, or the terminal is not there.
            ConfigError: another source uses the line in another way.
        """
        await self.close()
        config = self._config
        self._schedule.restart()
        quiet = max(config.timeout, _QUIET_LEAST) if config.quiet is None else config.quiet
        link = shared(config.place, delay_s=config.delay / NS_PER_S, quiet_s=quiet / NS_PER_S)
        self._link = link
        self.traffic = link.traffic(config.device_id)
        try:
            await link.open(max(_CONNECT_S, config.timeout / NS_PER_S))
        except (ConfigError, NotConnected):
            await self.close()
            raise

    async def read(self) -> Block:
        """Wait for the next slot, poll all of it, and seal it.

        Raises:
            NotConnected: the link is gone, or every request of the poll timed out.
        """
        if self._link is None:
            raise NotConnected("not connected")
        self._slot = await self._schedule.next_slot()
        reduced = self._illegal or self._avoid or self._block < self._longest
        if reduced and self._clock.now() >= self._retry_at:
            self._illegal, self._avoid, self._block = {}, set(), self._longest
            self._planned = False
        if not self._planned:
            self._plan()
        self._values.fill(np.nan)
        self._reasons[:] = self._known
        self._cells["arrival"] = self._schedule.arrival(self._slot)
        link, device_id = self._link, self._config.device_id
        twins, last = link.twins(device_id), self._requests[-1] if self._requests else None
        mixed = twins.mixed
        answers = [await self._poll(link, each, last=each is last) for each in self._requests]
        if answers and all(answer.silent for answer in answers):
            raise NotConnected(f"{self._config.url} device {self._config.device_id}: {answers[0].detail}")
        if twins.mixed > mixed:  # one of the answers may have been another question's
            self._reasons[self._reasons == Reason.NONE] = Reason.OUT_OF_STEP
        return Block(self._samples(), through=self._schedule.end(self._slot))

    def _samples(self) -> np.ndarray[tuple[int], np.dtype[np.void]]:
        """All cells as samples of one message."""
        cells, reasons = self._cells.copy(), self._reasons
        cells["message"] = self._messages
        self._messages += 1
        cells["value"] = self._values
        finite = np.isfinite(self._values)
        if not finite.all() or reasons.any():
            reasons[(reasons == Reason.NONE) & ~finite] = Reason.TYPE
            bad = reasons != Reason.NONE
            cells["value"][bad] = np.nan
            cells["quality"][bad] = Quality.BAD
            cells["reason"] = reasons
        return cells

    async def _poll(self, link: ModbusLink, block: _Block, *, last: bool) -> Answer:
        """Ask once and take what comes; a block that the device does not have is taken apart."""
        answer = await self._ask(link, block.request, last=last)
        if answer.code in _NOT_THERE:
            await self._take_apart(link, block.request, answer)
            self._retry_at = self._clock.now() + self._config.retry
            self._planned = False
        else:
            self._cells["arrival"][block.places] = self._schedule.arrival(self._slot)
            if answer.reason is not Reason.NONE:
                self._reasons[block.places] = answer.reason
            else:
                block.layout.decode(answer.wire)
        return answer

    async def _ask(self, link: ModbusLink, request: Request, *, last: bool = False) -> Answer:
        config = self._config
        answer = await link.ask(
            request.space,
            request.first,
            request.count,
            device_id=config.device_id,
            timeout_s=config.timeout / NS_PER_S,
            more=config.hole,
            idle_s=(self._schedule.end(self._slot) - self._clock.now()) / NS_PER_S if last else 0.0,
        )
        if answer.reason is Reason.UNFITTING or not (answer.silent or answer.reason is Reason.NONE):
            fault = f"{request}: {answer.detail}"
            if fault not in self.faults and len(self.faults) >= _FAULTS_MOST:
                fault = _OTHER_FAULTS
            self.faults[fault] = self.faults.get(fault, 0) + 1
        return answer

    async def _take_apart(self, link: ModbusLink, request: Request, refusal: Answer) -> bool:
        """Find out by halves which address is not there; returns whether any half was refused so, too.

        Where both halves are answered, what lies between them is not there, or the device takes no block as
        long as the whole.
        """
        if len(request.columns) == 1:
            reason = _NOT_THERE[refusal.code]
            self._illegal.update(dict.fromkeys(request.columns, reason))
            self._give_up(request.columns, reason)
            return True
        middle = len(request.columns) // 2
        halves = [
            plan(self._sections, columns, block=REGISTERS_MAX, hole=REGISTERS_MAX)[0]
            for columns in (request.columns[:middle], request.columns[middle:])
        ]
        refused = False
        for half in halves:
            answer = await self._ask(link, half)
            if answer.code in _NOT_THERE:
                refused = await self._take_apart(link, half, answer) or refused
            elif answer.reason is not Reason.NONE:
                self._give_up(half.columns, answer.reason)
            else:
                self._put(half, answer)
        if not refused:
            between = range(halves[0].first + halves[0].count, halves[1].first)
            if between and refusal.code != _VALUE:
                self._avoid.update((request.space, at) for at in between)
            else:
                self._block = max(1, *(half.count for half in halves))
        return True

    def _give_up(self, columns: Iterable[int], reason: Reason) -> None:
        places = [self._place[column] for column in columns]
        self._reasons[places] = reason
        self._cells["arrival"][places] = self._schedule.arrival(self._slot)

    def _put(self, request: Request, answer: Answer) -> None:
        """Take the values of a part of a block."""
        values, reasons = np.empty(len(request.columns)), np.zeros(len(request.columns), "u1")
        Layout(request, self._sections, values, reasons).decode(answer.wire)
        places = [self._place[column] for column in request.columns]
        self._values[places], self._reasons[places] = values, reasons
        self._cells["arrival"][places] = self._schedule.arrival(self._slot)

    async def close(self) -> None:
        """Let go of the line; safe twice, and without `connect`."""
        link, self._link = self._link, None
        if link is not None:
            link.close()
