"""One physical Modbus link, shared by all sources of its url: one request at a time, slaves in turn.

    source ─ ask ─▶ its slave's queue ┐
    source ─ ask ─▶ its slave's queue ┼─▶ one request ─▶ port ─▶ bus
    source ─ ask ─▶ its slave's queue ┘      ▲ delay

A request that was sent is never given up before its time, also when nobody waits for it any more. Others do
not wait for a slave that takes far longer than it ever did: the bus goes on, and its answer is taken when it
comes. What keeps late answers from being taken for others: see `modbusslave`, and those that come twice:
`modbustwins`. Besides, a line is silent for a while before each question, and an answer is believed only
after that: two answers to one question mean that the line is out of step.
"""

import asyncio
import math
from collections import deque
from collections.abc import Mapping
from typing import Final

from dxad.errors import ConfigError, NotConnected
from dxad.links.modbusframe import Line, Question, Space, carried_s, question, tcp_frames, wire_of
from dxad.links.modbusjob import EXCEPTION, NOT_THERE, Answer, Job, meaning
from dxad.links.modbusport import Port, open_port
from dxad.links.modbusslave import Slave
from dxad.links.modbustwins import Twins
from dxad.links.modbusurl import Address
from dxad.types import Reason

__all__ = ["Answer", "ModbusLink", "Space", "shared"]

_GAP_S: Final = 0.005
"""A line without transactions must be silent for so long before the next question: an answer that comes twice
or that nobody asked for, would shift all that follow. More than the 3.5 characters of Modbus over Serial Line
V1.02, 2.5.1.1, for what adapters and serial servers hold back."""
_STRAYS_MOST_S: Final = 0.1
"""A line that is never silent is asked all the same after so long; checksums must do then."""
_SHOWN: Final = 12
"""Bytes of nonsense that an error shows."""

_links: Final[dict[tuple[asyncio.AbstractEventLoop, str], "ModbusLink"]] = {}

_known: Final[dict[tuple[asyncio.AbstractEventLoop, str], dict[int, Slave]]] = {}
"""By place, the slaves of a link, also when it is closed: a line may yet bring their answers."""


def shared(address: Address, *, delay_s: float, quiet_s: float) -> "ModbusLink":
    """The link of this address, made at first use; each caller closes it once.

    Raises:
        ConfigError: somebody uses the same place in another way.
    """
    key = asyncio.get_running_loop(), address.place
    for old in [each for each in _known if each[0].is_closed()]:
        del _known[old]
    link = _links.get(key)
    if link is None:
        link = _links[key] = ModbusLink(address, _known.setdefault(key, {}))
    elif link.address != address:
        raise ConfigError(
            f"{address}: another source uses it as {link.address}, or with another line setting"
        )
    link.join(delay_s=delay_s, quiet_s=quiet_s)
    return link


class ModbusLink:
    """Asks one question at a time; opened again by whoever needs it first."""

    def __init__(self, address: Address, slaves: dict[int, Slave]) -> None:
        """Ask these slaves, and those that are named later."""
        self.address = address
        self._users = 0
        self._delay_s = 0.0
        self._quiet_s = 0.0
        self._loop = asyncio.get_running_loop()
        self._opening = asyncio.Lock()
        self._port: Port | None = None
        self._slaves = slaves
        self._turns: deque[int] = deque()
        """The slaves that have jobs waiting, the next one first."""
        self._job: Job | None = None
        """What was asked and is not answered, and all wait for it."""
        self._parked: dict[int, Job] = {}
        """By slave, what was asked and is not answered, while others are asked."""
        self._parked_timers: dict[int, asyncio.TimerHandle] = {}
        self._impatient = False
        """The answer takes so long that nobody else needs to wait for it."""
        self._transaction = 0
        self._is_line = address.framing != "tcp"
        self._line = Line(address.framing)
        self._received_tcp = bytearray()
        self._nonsense = b""
        self._free_at = 0.0
        self._strays_since = 0.0
        """When what nobody asked for began to come."""
        self._strayed_at = 0.0
        """When it came last."""
        self._timer: asyncio.TimerHandle | None = None
        """Of the job, or, where there is none, for the next one."""

    def join(self, *, delay_s: float, quiet_s: float) -> None:
        """One more source uses it; the most patient one says how long the bus and silent slaves rest."""
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
                self._line.clear()
                self._received_tcp.clear()

    @property
    def _gap_s(self) -> float:
        """Seconds of silence that an answer is followed by."""
        return _GAP_S if self._is_line else 0.0

    def traffic(self, device_id: int) -> Mapping[str, int]:
        """What was asked of a slave and what became of it, see `Slave.traffic`."""
        return self._slaves.setdefault(device_id, Slave()).traffic

    def twins(self, device_id: int) -> Twins:
        """What is known of a slave's answers that came more than once."""
        return self._slaves.setdefault(device_id, Slave()).twins

    def resting_s(self, device_id: int) -> float:
        """Seconds for which a slave that was silent too often is not asked; 0 where it is."""
        slave = self._slaves.get(device_id)
        return 0.0 if slave is None else max(0.0, slave.ask_at - self._loop.time())

    async def ask(
        self, space: Space, first: int, count: int, *, device_id: int, timeout_s: float, more: int = 0,
        idle_s: float = math.inf,
    ) -> Answer:  # fmt: skip
        """Wait for the slave's turn, then ask once. Whoever is cancelled leaves the request on its way.

        Args:
            space: the table.
            first: register or bit.
            count: of registers or bits.
            device_id: the slave.
            timeout_s: for its answer, once it was asked.
            more: so many addresses behind may be read along, so that answers can be told by their lengths.
            idle_s: so long the slave is asked nothing more, which may prove all answers so far: when `mixed`
                of its `twins` has risen then, none of them is to be believed.

        Raises:
            NotConnected: the connection is gone.
        """
        if self._port is None:
            raise NotConnected(f"{self.address}: not connected")
        slave = self._slaves.get(device_id)
        if slave is None:
            slave = self._slaves[device_id] = Slave()
        done: asyncio.Future[Answer] = self._loop.create_future()
        idle_until = self._loop.time() + idle_s
        if not slave.jobs:
            self._turns.append(device_id)
        slave.jobs.append(
            Job(question(space, first, count, unit=device_id), timeout_s, more, done, idle_until=idle_until)
        )
        self._next()
        if self._job is not None and self._job.proof_until:
            self._job.proof_until = 0.0  # the bus has something to do
            self._keep(self._job, 0.0)
        if self._impatient:
            self._park()
        return await done

    def _next(self) -> None:
        """Send what is next, when the bus is free: now, or at another time than was thought."""
        if self._job is not None:
            return
        self._cancel_timer()
        while self._turns and self._port is not None and self._job is None:
            now = self._loop.time()
            if now < self._free_at:
                self._timer = self._loop.call_at(self._free_at, self._next)
                return
            unit = self._whose_turn(now)
            if unit is None:
                return
            self._turns.remove(unit)
            slave = self._slaves[unit]
            job = slave.jobs.popleft()
            if slave.jobs:
                self._turns.append(unit)
            if not job.wanted:
                continue  # whoever asked was cancelled before it was sent
            if slave.ask_at > now:
                detail = f"silent {slave.misses} times; asked again in {slave.ask_at - now:.1f} s"
                job.settle(Answer(reason=Reason.TIMEOUT, detail=detail))
                continue
            sent = slave.next_on_line(job, now) if self._is_line else job
            if sent is None:
                self._again(slave, job)
            else:
                self._send(sent, now)

    def _whose_turn(self, now: float) -> int | None:
        """The next slave that may be asked now; sets a timer where one may be later."""
        soonest = None
        for unit in self._turns:
            if unit in self._parked:
                continue
            quiet_until = self._slaves[unit].quiet_until
            if quiet_until <= now or self._slaves[unit].ask_at > now:
                return unit
            soonest = quiet_until if soonest is None else min(soonest, quiet_until)
        if soonest is not None:
            self._timer = self._loop.call_at(soonest, self._next)
        return None

    def _send(self, job: Job, now: float) -> None:
        assert self._port is not None
        self._transaction = job.transaction = (self._transaction + 1) & 0xFFFF
        slave = self._slaves[job.asked.unit]
        slave.asked(job, now)
        self._job, self._impatient = job, False
        if not self._parked:
            self._line.clear()
        self._line.garbled = False
        self._nonsense = b""
        patience_s = slave.patience_s(job, carried_s(self.address, job.sent))
        self._timer = self._loop.call_later(patience_s, self._is_impatient)
        self._port.write(wire_of(self.address.framing, job.sent, job.transaction))

    def _is_impatient(self) -> None:
        """The answer takes longer than others should wait."""
        job = self._job
        assert job is not None
        self._impatient = True
        left_s = job.sent_at + job.timeout_s - self._loop.time()
        if left_s <= 0:
            self._missed(job)
            return
        self._timer = self._loop.call_later(left_s, self._missed, job)
        if self._turns and set(self._turns) - {job.asked.unit}:
            self._park()

    def _park(self) -> None:
        """Ask others, while the answer may still come; its slave waits for it."""
        job = self._job
        if job is None or job.came or set(self._turns) <= {job.asked.unit}:
            return
        self._cancel_timer()
        unit = job.asked.unit
        self._parked[unit] = job
        left_s = job.sent_at + job.timeout_s - self._loop.time()
        self._parked_timers[unit] = self._loop.call_later(left_s, self._missed_parked, unit)
        self._job = None
        self._free_at = max(self._free_at, self._loop.time() + self._gap_s)
        self._next()

    def _unpark(self, unit: int) -> Job:
        self._parked_timers.pop(unit).cancel()
        return self._parked.pop(unit)

    def _received(self, data: bytes) -> None:
        if self._is_line:
            self._received_on_line(data)
            return
        self._received_tcp += data
        nonsense = data
        for transaction, unit, pdu in tcp_frames(self._received_tcp):
            job = self._job
            if unit in self._slaves:
                nonsense = b""  # it is late, if nothing else
            if job is not None and transaction == job.transaction and unit == job.sent.unit:
                self._answered(job, pdu)
            elif unit in self._parked and transaction == self._parked[unit].transaction:
                self._parked[unit].came_at = self._loop.time()
                self._settle(self._unpark(unit), pdu)
            elif unit in self._slaves:
                self._slaves[unit].traffic["late"] += 1
        self._nonsense = self._nonsense or nonsense[:_SHOWN]

    def _received_on_line(self, data: bytes) -> None:
        self._line.add(data)
        job = self._job
        if job is None or job.came:
            self._stray()
        else:
            self._nonsense = self._nonsense or data[:_SHOWN]
        while (found := self._line.take(self._awaited())) is not None:
            asked, pdu = found
            if job is not None and asked is job.sent:
                if job.pdu:
                    job.doubled |= pdu != job.pdu
                    self._slaves[asked.unit].twin(job, pdu, self._loop.time())
                else:
                    self._answered(job, pdu)
            elif (parked := self._parked.get(asked.unit)) is not None and asked is parked.sent:
                parked.came_at = self._loop.time()
                self._slaves[asked.unit].twins.answered(asked, pdu, parked.came_at)
                self._settle(self._unpark(asked.unit), pdu)
                self._next()
            else:
                self._nonsense = b""
                self._slaves[asked.unit].arrived(asked, pdu, self._loop.time())
                self._next()
        if job is not None and not job.came and self._line.garbled:
            job.garbled = True
            self._strays_since = self._strayed_at = self._loop.time()
            self._keep(job, self._strays_since + self._gap_s)

    def _awaited(self) -> list[Question]:
        """The questions to which answers may come; the one that all wait for stands first."""
        asked = [] if self._job is None else [self._job.sent]
        asked += [each.sent for each in self._parked.values()]
        for slave in self._slaves.values():
            asked += slave.late()
        return asked

    def _stray(self) -> None:
        """Nobody has asked for what comes: leave the bus alone until it is over, though not for ever."""
        now = self._loop.time()
        if now > self._strayed_at + self._gap_s:
            self._strays_since = now
        self._strayed_at = now
        until = min(now + self._gap_s, self._strays_since + _STRAYS_MOST_S)
        if self._job is not None:
            self._keep(self._job, until)
        elif until > self._free_at:
            self._free_at = until
            self._next()

    def _answered(self, job: Job, pdu: bytes) -> None:
        """The answer that all wait for has come; on a line, see whether it is alone."""
        now = job.came_at = self._loop.time()
        slave = self._slaves[job.asked.unit]
        if not self._is_line:
            self._cancel_timer()
            self._job = None
            self._settle(job, pdu)
            self._free(self._delay_s)
            return
        job.pdu, job.garbled = pdu, False
        slave.twins.answered(job.sent, pdu, now)
        self._strays_since = self._strayed_at = now
        if not self._turns and (proof_s := slave.proof_s(job, self._gap_s, now)):
            job.proof_until = now + proof_s
        self._keep(job, now + slave.hold_s(job, self._gap_s, now))

    def _keep(self, job: Job, until: float) -> None:
        """Believe its answer only then."""
        job.kept_until = max(job.kept_until, until)
        self._cancel_timer()
        self._timer = self._loop.call_at(max(job.kept_until, job.proof_until), self._believed, job)

    def _believed(self, job: Job) -> None:
        """It is silent since the answer."""
        self._timer = self._job = None
        now = self._loop.time()
        slave = self._slaves[job.asked.unit]
        slave.twins.unproved &= not job.proof_until
        if job.doubled or job.garbled:
            if job.garbled:  # noise, perhaps, and the answer is yet to come
                slave.doubt(job, now, 0.0, for_s=job.timeout_s + self._quiet_s)
            slave.traffic["unfitting"] += 1
            slave.answered()
            self._clashed()
            reason = Reason.OUT_OF_STEP if job.doubled else Reason.CHECKSUM
            detail = "two answers to one question" if job.doubled else "an answer with a wrong checksum"
            job.settle(Answer(reason=reason, detail=detail))
        else:
            self._settle(job, job.pdu)
        self._free(max(0.0, self._delay_s - self._gap_s))

    def _free(self, after_s: float) -> None:
        """The bus is free after so long."""
        if after_s:
            self._free_at = max(self._free_at, self._loop.time() + after_s)
        self._next()

    def _settle(self, job: Job, pdu: bytes) -> None:
        """Tell what an answer means, or ask what it allows to ask."""
        now, slave = self._loop.time(), self._slaves[job.asked.unit]
        code = pdu[1] if pdu[0] & EXCEPTION else 0
        slave.told(job, pdu)
        again = job.before
        if again is not None and not slave.proved(job, refused=code != 0):
            slave.doubt(job, now, self._quiet_s)
            job.settle(Answer(reason=Reason.OUT_OF_STEP, detail="a refusal that proves nothing"))
            return
        if code and self._is_line:
            slave.refused(job, now)
        if job.sent is not job.asked:
            if code in NOT_THERE:
                slave.exact(job, now)
                again = job
            else:
                slave.along(job, now, answered=True)
        if again is not None:
            slave.answered(job)
            self._again(slave, again.afresh())
            return
        job.settle(self._meaning(job, pdu, now))

    def _again(self, slave: Slave, job: Job) -> None:
        """Ask it before anything else of its slave."""
        if not slave.jobs:
            self._turns.append(job.asked.unit)
        slave.jobs.appendleft(job)

    def _meaning(self, job: Job, pdu: bytes, now: float) -> Answer:
        slave, answer = self._slaves[job.asked.unit], meaning(job, pdu)
        if answer.silent:
            slave.missed(now, now - job.sent_at, shared=len(self._slaves) > 1)
        else:
            slave.answered(job)
        return answer

    def _missed(self, job: Job) -> None:
        """The time for an answer that all wait for is over."""
        self._timer = self._job = None
        self._gave_up(job, self._loop.time() - job.sent_at)
        self._free(max(self._gap_s, self._delay_s))

    def _missed_parked(self, unit: int) -> None:
        """The time for an answer is over that others did not wait for."""
        job = self._unpark(unit)
        self._gave_up(job, self._slaves[unit].patience_s(job, carried_s(self.address, job.sent)))
        self._next()

    def _gave_up(self, job: Job, cost_s: float) -> None:
        now, slave = self._loop.time(), self._slaves[job.asked.unit]
        slave.traffic["silent"] += 1
        slave.missed(now, cost_s, shared=len(self._slaves) > 1)
        if self._is_line:
            slave.doubt(job, now, self._quiet_s)
            if job.sent is not job.asked:
                slave.along(job, now, answered=False)
        nonsense, self._nonsense = self._nonsense, b""
        if nonsense:
            self._clashed()
        what = f", but {nonsense.hex(' ')}" if nonsense else ""
        reason = Reason.UNFITTING if nonsense else Reason.TIMEOUT
        detail = f"no answer within {job.timeout_s:g} s{what}"
        job.settle(Answer(reason=reason, detail=detail, lost=not self._is_line))

    def _clashed(self) -> None:
        """An answer was spoilt, perhaps by one that was not waited for."""
        for unit in self._parked:
            self._slaves[unit].clashed()

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _lost(self, reason: str) -> None:
        self._drop(f"{self.address}: {reason}")

    def _drop(self, reason: str) -> None:
        """Tell everybody who waits. What was sent over a line may be answered yet."""
        port, self._port = self._port, None
        if port is not None:
            port.close()
        self._cancel_timer()
        sent = [self._unpark(unit) for unit in tuple(self._parked)]
        if self._job is not None:
            sent.append(self._job)
            self._job = None
        waiting = [job for slave in self._slaves.values() for job in slave.jobs]
        for slave in self._slaves.values():
            slave.jobs.clear()
        self._turns.clear()
        for job in sent:
            self._slaves[job.asked.unit].traffic["lost"] += 1
            if self._is_line:
                self._slaves[job.asked.unit].doubt(job, self._loop.time(), job.timeout_s + self._quiet_s)
        for job in (*sent, *waiting):
            job.settle(NotConnected(reason))

    def close(self) -> None:
        """One source less; the last one closes the connection."""
        self._users -= 1
        if self._users <= 0:
            self._drop(f"{self.address}: closed")
            if len(self._slaves) == 1:  # nobody else is spared when it is asked seldom
                for slave in self._slaves.values():
                    slave.answered()
            key = self._loop, self.address.place
            if _links.get(key) is self:
                del _links[key]
