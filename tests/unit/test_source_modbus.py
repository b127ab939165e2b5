"""The Modbus source: what it asks, how it reads the answers, when it polls; and that it never writes."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from dxad.errors import NotConnected
from dxad.links.modbus import Answer
from dxad.links.modbustwins import Twins
from dxad.runtime.clock import SteppedClock, SystemClock
from dxad.sources.modbus import Config, Modbus, ModbusChannel
from dxad.types import Block, Quality, Reason
from tests.peers import ModbusPeer, listening

MS = 1_000_000


def channel(register: str, encoding: str | None = None, **settings: Any) -> ModbusChannel:
    return ModbusChannel.model_validate({"register": register, "encoding": encoding, **settings})


def config(port: int = 1, **settings: Any) -> Config:
    document = {"type": "modbus", "url": f"tcp://127.0.0.1:{port}", "period": "10ms", "timeout": "100ms"}
    return Config.model_validate({**document, "channels": {"a": {"register": "input:30"}}, **settings})


@pytest.fixture
def peer() -> ModbusPeer:
    return ModbusPeer()


@asynccontextmanager
async def connected(peer: ModbusPeer, **channels: dict[str, Any]) -> AsyncIterator[Modbus]:
    async with listening(peer.serve) as port:
        settings = {"channels": channels} if channels else {}
        source = Modbus("plc", config(port, **settings), clock=SystemClock())
        try:
            await source.connect()
            yield source
        finally:
            await source.close()


def cells(block: Block) -> dict[int, tuple[float, Quality, Reason]]:
    """By column; a value that is no number is told as None."""
    return {
        int(each["column"]): (
            None if np.isnan(each["value"]) else float(each["value"]),
            Quality(each["quality"]),
            Reason(each["reason"]),
        )
        for each in block.samples
    }


def good(value: float) -> tuple[float, Quality, Reason]:
    return value, Quality.GOOD, Reason.NONE


def bad(reason: Reason) -> tuple[None, Quality, Reason]:
    return None, Quality.BAD, reason


class TestConfig:
    def test_a_register_is_not_optional(self):
        with pytest.raises(ValidationError, match=r"register"):
            config(channels={"a": {"encoding": "int16"}})

    @pytest.mark.parametrize(
        "register", ["30", "inputs:30", "input:", "input:-1", "input:65536", "holding:65535"]
    )
    def test_a_register_that_there_is_not_is_refused(self, register):
        with pytest.raises(ValidationError):
            channel(register, "float32")

    @pytest.mark.parametrize(
        ("register", "encoding"), [("coil:0", "int16"), ("input:0", "bool"), ("discrete:0", "float32")]
    )
    def test_bits_are_bool_and_registers_are_not(self, register, encoding):
        with pytest.raises(ValidationError, match="bool is for coil and discrete"):
            channel(register, encoding)

    def test_a_bit_has_nothing_to_scale(self):
        with pytest.raises(ValidationError, match="has no order, scale or offset"):
            channel("coil:0", scale=0.1)

    @pytest.mark.parametrize(("register", "count"), [("coil:0", 1), ("input:0", 1)])
    def test_the_encoding_may_be_left_out(self, register, count):
        assert channel(register).count == count

    @pytest.mark.parametrize(
        "url", ["10.0.0.5", "tcp://", "rtu://ttyS0", "udp://h:1", "tcp://h:70000", "rtu:///dev/t?parity=X"]
    )
    def test_refuses_what_is_no_address(self, url):
        with pytest.raises(
            ValidationError, match=r"tcp://host:port|Port out of range|rtu:///dev|is none of N, E, O"
        ):
            config(url=url)

    @pytest.mark.parametrize(
        ("settings", "told"),
        [
            ({"scale": 0.0}, "a scale of 0 makes every value the same"),
            ({"encoding": "bits", "bit": 1, "order": "CDAB"}, "bits of a register have no order"),
            ({"encoding": "bits", "bit": 12, "width": 5}, "end beyond the register"),
            ({"encoding": "bits"}, "wants a bit"),
            ({"bit": 3}, None),
            ({"encoding": "int16", "bit": 3}, "go with encoding"),
            ({"encoding": "string"}, "a text is no number"),
            ({"encoding": "string", "length": 2}, "a text is no number"),
            (
                {"encoding": "string", "length": 1, "values": {"RUN": 1}},
                "'RUN' does not fit into 1 registers",
            ),
            ({"encoding": "string", "length": 2, "values": {"RUN": 1}, "scale": 2.0}, "no scale"),
            ({"encoding": "string", "length": 2, "values": {"RUN": 1}, "absent": 3}, "absent: string"),
            ({"length": 2}, "length and values go with"),
            ({"values": {"RUN": 1}}, "length and values go with"),
            ({"encoding": "bits", "bit": 0, "absent": 1}, "absent: bits"),
        ],
    )
    def test_a_key_that_means_nothing_is_refused(self, settings, told):
        if told is None:
            assert channel("holding:0", **settings).kind == "bits"
            return
        with pytest.raises(ValidationError, match=told):
            channel("holding:0", **settings)

    @pytest.mark.parametrize(
        ("register", "space", "first", "bit", "width"),
        [
            ("holding:0x10", "holding", 16, None, 1), ("30001", "input", 0, None, 1),
            ("49999", "holding", 9998, None, 1), ("465536", "holding", 65_535, None, 1),
            ("00017", "coil", 16, None, 1), ("100001", "discrete", 0, None, 1),
            ("holding:12.3", "holding", 12, 3, 1), ("40013.4..7", "holding", 12, 4, 4),
        ],
    )  # fmt: skip
    def test_a_register_may_be_written_as_its_manual_has_it(self, register, space, first, bit, width):
        place = channel(register).place
        assert (place.space, place.first, place.bit, place.width) == (space, first, bit, width)

    @pytest.mark.parametrize(
        "register",
        ["40000", "20001", "465537", "holding:12.16", "holding:12.7..3", "coil:3.1", "holding:12.", "4"],
    )
    def test_and_one_that_cannot_be_is_told_how_to_write_it(self, register):
        with pytest.raises(ValidationError, match=r"no register: write|addresses are|bits are|is one bit"):
            channel(register)

    @pytest.mark.parametrize("device_id", [0, 248])
    def test_a_line_has_slaves_from_1_to_247(self, device_id):
        assert config(device_id=device_id).device_id == device_id
        with pytest.raises(ValidationError, match="slaves of an RTU or ASCII line are 1 to 247"):
            config(device_id=device_id, url="rtu:///dev/ttyS0")

    def test_is_polled(self):
        assert Config.polled


def cut(_pdu: bytes) -> bytes:
    """Instead of an answer, the connection ends."""
    raise ConnectionResetError


class TestAnswers:
    async def test_all_spaces_give_their_values(self, peer):
        peer.registers = {30: 0x4148, 31: 0x0000, 12: 250}
        peer.bits = {5, 17}
        channels = {
            "flow": {"register": "input:30", "encoding": "float32"},
            "pressure": {"register": "holding:12", "encoding": "int16", "scale": 0.01},
            "running": {"register": "coil:5", "encoding": "bool"},
            "door": {"register": "discrete:17"},
            "off": {"register": "discrete:9"},
        }
        async with connected(peer, **channels) as source:
            block = await source.read()
        assert cells(block) == {0: good(12.5), 1: good(2.5), 2: good(1.0), 3: good(1.0), 4: good(0.0)}
        assert peer.asked == [(1, 5, 1), (2, 9, 9), (3, 12, 1), (4, 30, 2)]

    async def test_what_is_no_finite_number_is_bad(self, peer):
        peer.registers = {0: 0x7FC0, 1: 0, 2: 0x7F80, 3: 0}
        channels = {"a": {"register": "input:0", "encoding": "float32"}}
        channels["b"] = {"register": "input:2", "encoding": "float32"}
        async with connected(peer, **channels) as source:
            assert cells(await source.read()) == {0: bad(Reason.TYPE), 1: bad(Reason.TYPE)}

    async def test_an_exception_is_of_its_own_block_and_is_counted_by_its_code(self, peer):
        peer.exceptions = {12: 6}
        channels = {"a": {"register": "input:30"}, "b": {"register": "holding:12"}}
        async with connected(peer, **channels) as source:
            for _ in range(2):
                assert cells(await source.read()) == {0: good(30), 1: bad(Reason.MODBUS_BUSY)}
            assert source.faults == {"holding:12+1: exception 6, device busy": 2}
            peer.exceptions = {}
            assert cells(await source.read()) == {0: good(30), 1: good(12)}

    @pytest.mark.parametrize("code", [*range(1, 12), 77])
    async def test_every_exception_is_a_reason_of_its_own(self, peer, code):
        peer.exceptions = {30: code}
        channels = {"a": {"register": "input:30"}, "b": {"register": "holding:12"}}
        async with connected(peer, **channels) as source:
            reason = Reason.DEVICE if code == 77 else Reason(100 + code)
            assert cells(await source.read()) == {0: bad(reason), 1: good(12)}
        assert code == 77 or reason.name.startswith("MODBUS_")

    async def test_a_device_that_takes_no_long_blocks_is_asked_for_short_ones(self, peer):
        longest = 4

        def answer(function: int, first: int, count: int) -> bytes:
            return bytes([function | 0x80, 3]) if count > longest else whole(function, first, count)

        whole, peer._answer = peer._answer, answer
        channels = {f"r{at}": {"register": f"input:{at}"} for at in range(16)}
        async with connected(peer, **channels) as source:
            wanted = {at: good(at) for at in range(16)}
            assert cells(await source.read()) == wanted
            peer.asked.clear()
            assert cells(await source.read()) == wanted
        assert [count for _, _, count in peer.asked] == [4, 4, 4, 4]

    async def test_what_a_device_does_wrong_is_counted_in_bounded_memory(self, peer):
        peer.reply = lambda pdu: pdu[:1] + b"\x02\x00\x01"
        channels = {f"r{at}": {"register": f"input:{100 * at}", "encoding": "float32"} for at in range(80)}
        async with connected(peer, **channels) as source:
            await source.read()
        assert len(source.faults) == 65
        assert sum(source.faults.values()) == 80

    async def test_a_block_that_is_not_answered_is_bad_and_the_others_are_read(self, peer):
        peer.silent = {12}
        channels = {"a": {"register": "input:30"}, "b": {"register": "holding:12"}}
        async with connected(peer, **channels) as source:
            assert cells(await source.read()) == {0: good(30), 1: bad(Reason.TIMEOUT)}

    async def test_a_device_that_answers_nothing_is_not_connected(self, peer):
        peer.silent = {30}
        async with connected(peer) as source:
            with pytest.raises(NotConnected, match=r"device 1: no answer within 0\.1 s"):
                await source.read()

    async def test_a_late_answer_is_never_taken_for_another(self, peer):
        channels = {
            "a": {"register": "input:30"},
            "b": {"register": "input:60"},
            "c": {"register": "input:90"},
        }
        async with connected(peer, **channels) as source:
            for delay_s in (0.13, 0.0, 0.25, 0.0, 0.0):
                peer.delay_s = delay_s
                try:
                    found = cells(await source.read())
                except NotConnected:
                    await source.connect()
                    continue
                for column, value in ((0, 30), (1, 60), (2, 90)):
                    assert found[column] in (good(value), bad(Reason.TIMEOUT))
            assert found == {0: good(30), 1: good(60), 2: good(90)}

    @pytest.mark.parametrize(
        ("reply", "reason"),
        [
            (lambda pdu: bytes([3]) + pdu[1:], Reason.UNFITTING),
            (lambda pdu: pdu[:1] + b"\x02\x00\x01", Reason.UNFITTING),
            (lambda pdu: pdu[:1] + b"\x03\x00\x01\x02", Reason.UNFITTING),
            (lambda pdu: pdu[:1], Reason.UNFITTING),
            (lambda pdu: pdu[:1] + b"\xff\x00", Reason.UNFITTING),
            (lambda _: b"\x63\x01\x02", Reason.UNFITTING),
            (lambda _: b"\x84", Reason.UNFITTING),
            (lambda _: b"\xde\xad\xbe\xef" * 8, Reason.UNFITTING),
        ],
    )
    async def test_an_answer_that_is_none_is_bad_and_harms_nobody(self, peer, caplog, reply, reason):
        channels = {"a": {"register": "input:30", "encoding": "float32"}, "b": {"register": "holding:12"}}
        peer.reply = lambda pdu: reply(pdu) if pdu[0] == 4 else pdu
        with caplog.at_level(logging.WARNING):
            async with connected(peer, **channels) as source:
                assert cells(await source.read()) == {0: bad(reason), 1: good(12)}
                peer.reply = bytes
                assert cells(await source.read())[1] == good(12)
        assert not caplog.records

    async def test_too_few_bits_are_an_answer_that_is_none(self, peer):
        peer.reply = lambda pdu: pdu[:1] + b"\x01\xff"
        channels = {"a": {"register": "coil:0"}, "b": {"register": "coil:8"}}
        async with connected(peer, **channels) as source:
            assert cells(await source.read()) == {0: bad(Reason.UNFITTING), 1: bad(Reason.UNFITTING)}

    async def test_a_link_that_goes_in_the_middle_of_a_poll_is_not_connected(self, peer):
        async with connected(peer) as source:
            await source.read()
            peer.reply = cut
            with pytest.raises(NotConnected, match="the device closed the connection"):
                async with asyncio.timeout(0.5):
                    await source.read()

    async def test_it_never_writes(self, peer):
        channels = {
            f"c{number}": {"register": f"{space}:{number}"}
            for number, space in enumerate(("coil", "discrete", "input", "holding") * 3)
        }
        async with connected(peer, **channels) as source:
            for fault in ({}, {"exceptions": {0: 1, 2: 6}}, {"silent": {1}}):
                for name, value in fault.items():
                    setattr(peer, name, value)
                await source.read()
            await source.connect()
            await source.read()
        assert {function for function, _, _ in peer.asked} == {1, 2, 3, 4}


class TestGrid:
    """With a clock that is stepped by hand, and a device that takes as long as it is told to."""

    PERIOD = 100 * MS

    @pytest.fixture
    def clock(self) -> SteppedClock:
        return SteppedClock(start=1_000 * self.PERIOD + 30 * MS)

    @pytest.fixture
    def source(self, clock) -> Modbus:
        made = Modbus("plc", config(period="100ms"), clock=clock)
        made._link = self.Device(clock)
        return made

    class Device:
        """Stands in for the link."""

        def __init__(self, clock: SteppedClock) -> None:
            self.clock = clock
            self.takes = 5 * MS
            self.asked_at: list[int] = []

        async def ask(self, *_: Any, **__: Any) -> Answer:
            self.asked_at.append(self.clock.now())
            await self.clock.sleep_until(self.clock.now() + self.takes)
            return Answer(b"\0\x01")

        def twins(self, _: int) -> Twins:
            return Twins()

        def close(self) -> None:
            pass

    async def polls(self, source: Modbus, clock: SteppedClock, ns: int) -> list[Block]:
        """What is read while the clock goes on by so much."""
        blocks: list[Block] = []

        async def reading() -> None:
            while True:
                blocks.append(await source.read())

        task = asyncio.create_task(reading())
        await asyncio.sleep(0)
        for _ in range(0, ns, MS):
            await clock.step(MS, settle=5)
        task.cancel()
        await asyncio.wait([task])
        return blocks

    async def test_a_poll_starts_with_its_slot_and_never_drifts(self, source, clock):
        blocks = await self.polls(source, clock, 100 * self.PERIOD)
        assert source._link.asked_at == [slot * self.PERIOD for slot in range(1_001, 1_101)]
        assert [block.through for block in blocks] == [slot * self.PERIOD for slot in range(1_002, 1_102)]
        assert source.skipped == 0

    async def test_samples_are_of_the_slot_in_which_they_were_asked(self, source, clock):
        source._link.takes = 99 * MS
        blocks = await self.polls(source, clock, 5 * self.PERIOD)
        assert len(blocks) == 4
        for block in blocks:
            assert set(block.samples["arrival"] // self.PERIOD) == {block.through // self.PERIOD - 1}

    async def test_an_answer_that_its_slot_does_not_wait_for_is_of_the_slot_in_which_it_comes(
        self, source, clock
    ):
        """It shows what is then, and has no place among values of half a second before."""
        source._link.takes = 150 * MS
        blocks = await self.polls(source, clock, 4 * self.PERIOD)
        assert set(blocks[0].samples["arrival"] // self.PERIOD) == {1_001}, "its slot waits for one period"
        source._link.takes = 350 * MS
        blocks = await self.polls(source, clock, 8 * self.PERIOD)
        asked = source._link.asked_at[-2]
        assert asked == (blocks[0].through - self.PERIOD)
        assert set(blocks[0].samples["arrival"]) == {asked + 350 * MS}

    async def test_each_block_of_a_poll_has_the_time_of_its_own_answer(self, clock):
        channels = {"a": {"register": "input:30"}, "b": {"register": "input:60"}}
        source = Modbus("plc", config(period="100ms", channels=channels), clock=clock)
        source._link = self.Device(clock)
        answers = iter((Answer(reason=Reason.TIMEOUT), Answer(b"\0\1")))

        async def ask(*_: Any, **__: Any) -> Answer:
            await clock.sleep_until(clock.now() + 500 * MS)
            return next(answers)

        source._link.ask = ask
        (block,) = await self.polls(source, clock, 1_090 * MS)
        begun = block.through - self.PERIOD
        assert dict(zip(block.samples["column"], block.samples["arrival"] - begun, strict=True)) == {
            0: 500 * MS,
            1: 1_000 * MS,
        }

    async def test_polls_that_are_missed_are_skipped_and_counted_and_not_made_up_for(self, source, clock):
        source._link.takes = 250 * MS
        await self.polls(source, clock, 10 * self.PERIOD)
        assert source._link.asked_at == [slot * self.PERIOD for slot in (1_001, 1_004, 1_007, 1_010)]
        assert source.skipped == 6
        source._link.takes = MS
        await self.polls(source, clock, 3 * self.PERIOD)
        assert source._link.asked_at[-2:] == [1_012 * self.PERIOD, 1_013 * self.PERIOD]

    async def test_a_timer_that_fires_early_or_late_changes_no_slot(self, source, clock):
        offs = iter((-1, -1, 40 * MS, -1))

        async def inexact(at: int) -> None:
            clock._now = max(clock.now(), at + next(offs))

        source._link.ask = lambda *_, **__: asyncio.sleep(0, Answer(b"\0\x01"))
        clock.sleep_until = inexact
        for slot in (1_001, 1_002, 1_003, 1_004):
            block = await source.read()
            assert block.through == (slot + 1) * self.PERIOD
            assert set(block.samples["arrival"] // self.PERIOD) == {slot}
        assert source.skipped == 0

    async def test_a_cancelled_poll_leaves_nothing_to_the_next(self, source, clock):
        source._link.takes = 50 * MS
        await self.polls(source, clock, self.PERIOD - 10 * MS)
        blocks = await self.polls(source, clock, 2 * self.PERIOD)
        assert [len(block.samples) for block in blocks] == [1]
        assert set(blocks[0].samples["arrival"] // self.PERIOD) == {blocks[0].through // self.PERIOD - 1}

    async def test_an_outage_is_not_counted_as_polls_that_took_too_long(self, source, clock, peer):
        await self.polls(source, clock, 2 * self.PERIOD)
        device = source._link
        async with listening(peer.serve) as port:
            source._config = config(port, period="100ms")
            await clock.step(50 * self.PERIOD)
            await source.connect()
            await source.close()
        source._link = device
        await self.polls(source, clock, 2 * self.PERIOD)
        assert source.skipped == 0
