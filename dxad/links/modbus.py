"""One physical Modbus link, shared by all sources of its url: one request at a time, slaves in turn.

    source ─ ask ─▶ its slave's queue ┐
    source ─ ask ─▶ its slave's queue ┼─▶ one request ─▶ port ─▶ bus
    source ─ ask ─▶ its slave's queue ┘      ▲ delay, or quiet after a silence

RTU and ASCII have no transaction id: a late answer would be taken for the next one's, and every one after it
(pymodbus#2636). So a request that was sent is never given up before its time, also when nobody waits for it
any more; and after a silence the bus stays quiet until the late answer has come, or cannot come any more.
"""

import asyncio
from collections import deque
from dataclasses import dataclass, field
from typing import Final

from dxad.errors import ConfigError, NotConnected
from dxad.links.modbusframe import Question, Space, answer_in, question, wire_of
from dxad.links.modbusport import Port, open_port
from dxad.links.modbusurl import Address
from dxad.types import Reason

__all__ = ["Answer", "ModbusLink", "Space", "shared"]

_EXCEPTIONS: Final = {
    1: "illegal function", 2: "illegal data address", 3: "illegal data value", 4: "device failure",
    5: "acknowledge", 6: "device busy", 7: "refused", 8: "memory parity error",
    10: "gateway path unavailable", 11: "gateway target does not respond",
}  # fmt: skip
"""Modbus Application Protocol V1.1b3, 7; 7 is of older editions, 9 was never defined."""
_SILENCES: Final = frozenset({10, 11})
"""Exceptions by which a gateway says that the slave is silent."""
_HELD_MOST: Final = 4096
"""Bytes that may wait to become an answer."""
_MISSES: Final = 3
"""So many silences in a row, and a slave is asked seldom."""
_SHARE: Final = 10
"""A silent slave may take one part in so many of the bus's time."""
_AGAIN_LEAST_S: Final = 1.0
_AGAIN_MOST_S: Final = 30.0
_GAP_S: Final = 0.005
"""A line without transactions must be silent for so long before the next question: an answer that comes twice
or that nobody asked for, would shift all that follow. More than the 3.5 characters of Modbus over Serial Line
V1.02, 2.5.1.1, for what adapters and serial servers hold back."""
_STRAYS_MOST_S: Final = 0.1
"""A line that is never silent is asked all the same after so long; checksums must do then."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a device said to one question."""

    wire: bytes = b""
    """The data as it came: two bytes per register; bits eight to a byte, the first lowest."""
    reason: Reason = Reason.NONE
    """Why there is nothing."""
    detail: str = ""
    code: int = 0
    """The exception, 1 to 255; 0 where it is none."""


@dataclass(slots=True, eq=False)
class _Job:
    asked: Question
    timeout_s: float
    done: asyncio.Future[Answer]
    transaction: int = 0


@dataclass(slots=True)
class _Slave:
    jobs: deque[_Job] = field(default_factory=deque)
    misses: int = 0
    ask_at: float = 0.0
    """The loop's time before which it is not asked."""

    def missed(self, now: float, cost_s: float) -> None:
        """It was silent, which has cost the bus so long."""
        self.misses += 1
        if self.misses >= _MISSES:
            wait_s = max(_AGAIN_LEAST_S, _SHARE * cost_s)
            doubled = wait_s * 2.0 ** min(self.misses - _MISSES, 10)
            self.ask_at = now + min(doubled, max(wait_s, _AGAIN_MOST_S))

    def answered(self) -> None:
        """It is alive."""
        self.misses, self.ask_at = 0, 0.0


_links: Final[dict[tuple[asyncio.AbstractEventLoop, str], "ModbusLink"]] = {}

_rests: Final[dict[tuple[asyncio.AbstractEventLoop, str], float]] = {}
"""The loop's time until which a line that was closed may still bring an answer."""


def shared(address: Address, *, delay_s: float, quiet_s: float) -> "ModbusLink":
    """The link of this address, made at first use; each caller closes it once.

    Raises:
        ConfigError: somebody uses the same place in another way.
    """
    key = asyncio.get_running_loop(), address.place
    for old in [each for each in _rests if each[0].is_closed()]:
        del _rests[old]
    link = _links.get(key)
    if link is None:
        link = _links[key] = ModbusLink(address, free_at=_rests.pop(key, 0.0))
    elif link.address != address:
        raise ConfigError(
            f"{address}: another source uses it as {link.address}, or with another line setting"
        )
    link.join(delay_s=delay_s, quiet_s=quiet_s)
    return link


class ModbusLink:
    """Asks one question at a time; opened again by whoever needs it first."""

    def __init__(self, address: Address, *, free_at: float = 0.0) -> None:
        """Ask nothing before the loop's time `free_at`."""
        self.address = address
        self._users = 0
        self._delay_s = 0.0
        self._quiet_s = 0.0
        self._loop = asyncio.get_running_loop()
        self._opening = asyncio.Lock()
        self._port: Port | None = None
        self._slaves: dict[int, _Slave] = {}
        self._turns: deque[int] = deque()
        """The slaves that have jobs waiting, the next one first."""
        self._job: _Job | None = None
        """What was asked and is not answered."""
        self._late: _Job | None = None
        """What was not answered in time, and may still be."""
        self._transaction = 0
        self._held = bytearray()
        self._nonsense = b""
        self._free_at = free_at
        self._ended_at = 0.0
        """When the last exchange ended, or the rest after it."""
        self._timer: asyncio.TimerHandle | None = None

    def join(self, *, delay_s: float, quiet_s: float) -> None:
        """One more source uses it; the most patient one says how long the bus rests."""
        self._users += 1
        self._delay_s = max(self._delay_s, delay_s)
        self._quiet_s = max(self._quiet_s, quiet_s)

    async def open(self, timeout_s: float) -> None:
        """Connect, unless somebody has.

        Raises:
            NotConnected: there is nobody.
            ConfigError: the line cannot be set so.
        """
        async with self._opening:
            if self._port is None:
                port = await open_port(
                    self.address, timeout_s=timeout_s, on_data=self._received, on_lost=self._lost
                )
                if not self._users:
                    port.close()
                    raise NotConnected(f"{self.address}: closed")
                self._port = port
                quiet_s = self._quiet_after(failed=self._late is not None)
                self._free_at = max(self._free_at, self._loop.time() + quiet_s)

    def _quiet_after(self, *, failed: bool) -> float:
        return self._quiet_s if failed and self.address.framing != "tcp" else 0.0

    @property
    def _gap_s(self) -> float:
        """Seconds from an answer to the next question."""
        return self._delay_s if self.address.framing == "tcp" else max(self._delay_s, _GAP_S)

    def resting_s(self, device_id: int) -> float:
        """Seconds for which a slave that was silent too often is not asked; 0 where it is."""
        slave = self._slaves.get(device_id)
        return 0.0 if slave is None else max(0.0, slave.ask_at - self._loop.time())

    async def ask(self, space: Space, first: int, count: int, *, device_id: int, timeout_s: float) -> Answer:
        """Wait for the slave's turn, then ask once. Whoever is cancelled leaves the request on its way.

        Raises:
            NotConnected: the connection is gone.
        """
        if self._port is None:
            raise NotConnected(f"{self.address}: not connected")
        slave = self._slaves.setdefault(device_id, _Slave())
        job = _Job(question(space, first, count, unit=device_id), timeout_s, self._loop.create_future())
        if not slave.jobs:
            self._turns.append(device_id)
        slave.jobs.append(job)
        if self._job is None and self._timer is None:
            self._next()
        return await job.done

    def _next(self) -> None:
        """Send what is next, when the bus is free."""
        self._timer = None
        while self._turns and self._port is not None and self._job is None:
            now = self._loop.time()
            if now < self._free_at:
                self._timer = self._loop.call_at(self._free_at, self._next)
                return
            unit = self._turns.popleft()
            slave = self._slaves[unit]
            job = slave.jobs.popleft()
            if slave.jobs:
                self._turns.append(unit)
            if job.done.done():
                continue  # whoever asked was cancelled before it was sent
            if slave.ask_at > now:
                detail = f"silent {slave.misses} times; asked again in {slave.ask_at - now:.1f} s"
                job.done.set_result(Answer(reason=Reason.TIMEOUT, detail=detail))
                continue
            self._send(job)

    def _send(self, job: _Job) -> None:
        assert self._port is not None
        self._transaction = job.transaction = (self._transaction + 1) & 0xFFFF
        self._job, self._late = job, None
        self._held.clear()
        self._nonsense = b""
        self._timer = self._loop.call_later(job.timeout_s, self._missed)
        self._port.write(wire_of(self.address.framing, job.asked, job.transaction))

    def _received(self, data: bytes) -> None:
        job = self._job or self._late
        framing = self.address.framing
        if job is None:  # nobody has asked: on a line without transactions it must be over before we do
            if framing != "tcp":
                self._rest(self._gap_s)
            return
        self._held += data
        if len(self._held) > _HELD_MOST:
            del self._held[:-_HELD_MOST]
        self._nonsense = self._nonsense or data[:12]
        pdu = answer_in(framing, self._held, job.asked, job.transaction)
        if pdu is None:
            return
        if job is self._late:  # the slate is clean
            self._late = None
            self._free_at, self._ended_at = 0.0, self._loop.time()
            self._rest(self._gap_s)
        else:
            self._finish(job, self._meaning(job, pdu))

    def _rest(self, seconds: float) -> None:
        """Leave the bus alone for so long, though not for ever."""
        most = max(self._free_at, self._ended_at + max(seconds, _STRAYS_MOST_S))
        self._free_at = max(self._free_at, min(self._loop.time() + seconds, most))
        if self._job is None and self._turns:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self._loop.call_at(self._free_at, self._next)

    def _meaning(self, job: _Job, pdu: bytes) -> Answer:
        slave, asked = self._slaves[job.asked.unit], job.asked
        if pdu[0] == asked.function | 0x80:
            code = pdu[1]
            detail = f"exception {code}" + (f", {_EXCEPTIONS[code]}" if code in _EXCEPTIONS else "")
            if code in _SILENCES:
                slave.missed(self._loop.time(), job.timeout_s)
                return Answer(reason=Reason.TIMEOUT, detail=detail, code=code)
            slave.answered()
            return Answer(reason=Reason.DEVICE, detail=detail, code=code)
        slave.answered()
        if pdu[0] != asked.function:
            return Answer(reason=Reason.DEVICE, detail=f"an answer to function {pdu[0]}")
        if len(pdu) != asked.size + 2:
            return Answer(reason=Reason.DEVICE, detail=f"an answer of {len(pdu) - 2} bytes")
        return Answer(pdu[2:])

    def _missed(self) -> None:
        """The time for an answer is over."""
        job = self._job
        assert job is not None
        quiet_s = self._quiet_after(failed=True)
        self._slaves[job.asked.unit].missed(self._loop.time(), job.timeout_s + quiet_s)
        what = f", but {self._nonsense.hex(' ')}" if self._nonsense else ""
        self._timer = None
        if self.address.framing != "tcp":
            self._late = job
            self._free_at = self._loop.time() + quiet_s
        self._finish(job, Answer(reason=Reason.TIMEOUT, detail=f"no answer within {job.timeout_s:g} s{what}"))

    def _finish(self, job: _Job, answer: Answer) -> None:
        self._job = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if gap_s := self._gap_s:
            self._ended_at = self._loop.time()
            self._free_at = max(self._free_at, self._ended_at + gap_s)
        if not job.done.done():
            job.done.set_result(answer)
        if self._turns:
            self._next()

    def _lost(self, reason: str) -> None:
        self._drop(f"{self.address}: {reason}")

    def _drop(self, reason: str) -> None:
        """Tell everybody who waits."""
        port, self._port = self._port, None
        if port is not None:
            port.close()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        waiting = [job for slave in self._slaves.values() for job in slave.jobs]
        if self._job is not None:
            waiting.append(self._job)
            self._late, self._job = self._job, None
        for slave in self._slaves.values():
            slave.jobs.clear()
        self._turns.clear()
        for job in waiting:
            if not job.done.done():
                job.done.set_exception(NotConnected(reason))

    def close(self) -> None:
        """One source less; the last one closes the connection."""
        self._users -= 1
        if self._users <= 0:
            key = self._loop, self.address.place
            if self.address.framing != "tcp":  # the device knows nothing of it, and answers yet
                waits_s = 0.0 if self._job is None else self._job.timeout_s + self._quiet_s
                _rests[key] = max(self._free_at, self._loop.time() + waits_s)
            self._drop(f"{self.address}: closed")
            if _links.get(key) is self:
                del _links[key]
