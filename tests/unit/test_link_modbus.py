"""A Modbus line without transactions: no answer is ever taken for the next question's."""

import asyncio
import os
import struct
import tty
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from dxad.links.modbus import ModbusLink, shared
from dxad.links.modbusframe import question, wire_of
from dxad.links.modbusurl import address_of
from dxad.types import Reason
from tests.patience import PATIENCE_S
from tests.unit.hw_sim.modbus_rig import framed

pytestmark = pytest.mark.one_loop


class Slave:
    """Register n holds n; it answers late, or twice, as it is told."""

    def __init__(self) -> None:
        self.late_s = 0.0
        self.again_s: float | None = None
        self.exact = False
        """More than one register at once is an illegal address."""
        self.heard: list[tuple[int, int, int]] = []
        """Function, first, count."""
        self._near, self._far = os.openpty()
        tty.setraw(self._far)
        self.url = f"rtu://{os.ttyname(self._far)}"
        self._timers: list[asyncio.TimerHandle] = []

    def listen(self) -> None:
        loop = asyncio.get_running_loop()

        def heard() -> None:
            _, function, first, count = struct.unpack(">BBHH", os.read(self._near, 8)[:6])
            self.heard.append((function, first, count))
            if function != 4 or (self.exact and count > 1):
                pdu = bytes((function | 0x80, 2))
            else:
                pdu = bytes((4, 2 * count)) + b"".join((first + at).to_bytes(2) for at in range(count))
            answer = framed("rtu", 1, pdu)
            for after_s in (self.late_s, self.again_s):
                if after_s is not None:
                    self._timers.append(loop.call_later(after_s, os.write, self._near, answer))

        loop.add_reader(self._near, heard)

    def close(self) -> None:
        for timer in self._timers:
            timer.cancel()
        asyncio.get_running_loop().remove_reader(self._near)
        os.close(self._near)
        os.close(self._far)


@pytest.fixture
async def slave() -> AsyncIterator[Slave]:
    slave = Slave()
    slave.listen()
    yield slave
    slave.close()


@asynccontextmanager
async def link_to(slave: Slave, quiet_s: float = 0.2) -> AsyncIterator[ModbusLink]:
    link = shared(address_of(slave.url), delay_s=0.0, quiet_s=quiet_s)
    try:
        await link.open(1.0)
        yield link
    finally:
        link.close()


async def register(link: ModbusLink, at: int, more: int = 0) -> int | Reason:
    answer = await link.ask("input", at, 1, device_id=1, timeout_s=0.05, more=more)
    return answer.reason or int.from_bytes(answer.wire)


def is_right(found: int | Reason, at: int) -> bool:
    """Whether it is the register's value, or none."""
    return isinstance(found, Reason) or found == at


@pytest.mark.parametrize("again_s", [0.0, 0.0005, 0.001, 0.002])
async def test_an_answer_that_comes_twice_is_not_the_next_ones(slave, again_s):
    slave.again_s = again_s
    async with link_to(slave) as link:
        found = [await register(link, at) for at in range(100, 120)]
        assert all(is_right(value, at) for at, value in enumerate(found, 100))
        assert len([value for value in found if not isinstance(value, Reason)]) > 10


async def test_a_slave_that_answers_twice_is_told(slave):
    loop = asyncio.get_running_loop()
    async with link_to(slave) as link:
        assert await register(link, 100) == 100
        assert link.twins(1).told(loop.time()) == ""
        slave.again_s = 0.0
        await register(link, 101)
        assert link.twins(1).told(loop.time()).startswith("answers twice, or unasked (1 times)")
        assert link.traffic(1)["again"] == 1


async def test_a_late_answer_is_not_the_next_ones(slave):
    async with link_to(slave) as link:
        for at in (100, 200, 300):
            slave.late_s = 0.12
            assert await register(link, at) is Reason.TIMEOUT
            slave.late_s = 0.0
            assert await register(link, at + 1) == at + 1


async def test_a_late_answer_is_not_the_next_ones_over_a_line_that_was_closed_and_opened(slave):
    slave.late_s = 0.07
    async with link_to(slave) as link:
        assert await register(link, 100) is Reason.TIMEOUT
    slave.late_s = 0.03
    async with link_to(slave) as link:
        assert await register(link, 200) == 200


async def test_a_question_that_nobody_waits_for_is_not_forgotten_when_the_line_is_closed(slave):
    slave.late_s = 0.03
    async with link_to(slave) as link:
        asking = asyncio.create_task(register(link, 100))
        await asyncio.sleep(0.01)
        asking.cancel()
        await asyncio.wait([asking])
    slave.late_s = 0.03
    async with link_to(slave) as link:
        assert await register(link, 200) == 200


@pytest.mark.parametrize(("exact", "more"), [(False, 8), (True, 8), (False, 0)])
@pytest.mark.parametrize("late_s", [0.07, 0.16])
async def test_however_late_answers_are_none_is_the_next_ones(slave, late_s, exact, more):
    slave.late_s, slave.exact = late_s, exact
    async with link_to(slave, quiet_s=0.02) as link:
        for at in (100, 101):
            assert is_right(await register(link, at, more), at)
        slave.late_s = 0.0
        for at in range(200, 208):
            assert is_right(await register(link, at, more), at)
        await asyncio.sleep(late_s)
        assert [await register(link, at, more) for at in (300, 301)][1] == 301


async def test_a_device_that_has_no_more_registers_is_asked_without_them_from_then_on(slave):
    slave.exact = True
    async with link_to(slave) as link, asyncio.timeout(PATIENCE_S):
        for _ in range(3):
            for at in (100, 200, 300):
                assert await register(link, at, 8) == at
            heard, slave.heard = slave.heard, []
        assert {count for _, _, count in heard} == {1}


async def test_an_answer_that_comes_again_after_a_while_is_not_the_next_ones(slave):
    slave.again_s = 0.012
    async with link_to(slave) as link:
        for at in (100, 200, 300, 100, 200, 300):
            assert is_right(await register(link, at, 8), at)


async def test_a_line_that_is_never_silent_is_asked_all_the_same(slave):
    async def chatter() -> None:
        while True:
            os.write(slave._near, b"\xaa")
            await asyncio.sleep(0.001)

    chattering = asyncio.create_task(chatter())
    try:
        async with link_to(slave) as link, asyncio.timeout(PATIENCE_S):
            for at in (100, 200, 300):
                assert await register(link, at) == at
    finally:
        chattering.cancel()
        await asyncio.wait([chattering])


def test_a_request_is_framed_as_the_specification_has_it():
    """Modbus over Serial Line V1.02, 6.2.2: the CRC goes low byte first."""
    asked = question("input", 30, 2, unit=1)
    assert wire_of("rtu", asked, 0) == framed("rtu", 1, asked.pdu)
    assert wire_of("ascii", asked, 0) == framed("ascii", 1, asked.pdu)
