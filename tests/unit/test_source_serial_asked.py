"""Instruments that must be asked: each answer belongs to its question, and what has none is told."""

import asyncio
import os
from collections import Counter
from collections.abc import Callable
from contextlib import asynccontextmanager

import pytest
from pydantic import ValidationError

from dxad.errors import DecodeError, NotConnected
from dxad.runtime.clock import SystemClock
from dxad.sources.serial import PLUGIN, AskedSerial, Config, Serial
from dxad.types import Quality, Reason
from tests.patience import PATIENCE_S
from tests.peers import Pty
from tests.unit.hw_sim.seriallink import FIELDS, fault, plugged, steps

pytestmark = pytest.mark.one_loop

CSV = {"kind": "csv", "columns": ["n", "p"]}
NUMBER = {"kind": "number"}
GOOD, TIMEOUT, WRONG = "good", "timeout", "type"


def config(port="/dev/null", **settings):
    document = {"type": "serial", "port": str(port), "period": "20ms", "timeout": "60ms", "quiet": "0ms"}
    return Config.model_validate({**document, "query": "?\n", "decode": CSV, **settings})


class Instrument:
    """It answers by `reply`, `delay_s` later, on a pseudo-terminal."""

    def __init__(self, link, reply: Callable[[bytes], bytes]):
        self.pty, self.reply, self.delay_s = Pty(link), reply, 0.0
        self.asked: list[bytes] = []

    async def __aenter__(self):
        self.pty.plug()
        asyncio.get_running_loop().add_reader(self.pty._ends[0], self._ready)
        return self

    async def __aexit__(self, *_):
        asyncio.get_running_loop().remove_reader(self.pty._ends[0])
        self.pty.unplug()

    def _ready(self):
        for question in os.read(self.pty._ends[0], 4096).splitlines(keepends=True):
            self.asked.append(question)
            asyncio.get_running_loop().call_later(self.delay_s, self.send, self.reply(question))

    def send(self, data: bytes) -> None:
        if self.pty._ends is not None:
            self.pty.send(data)


@asynccontextmanager
async def asking(port, **settings):
    source = PLUGIN.build("dev", config(port, **settings), clock=SystemClock())
    try:
        await source.connect()
        yield source
    finally:
        await source.close()


async def poll(source):
    """The next poll: by column, its value, or why there is none."""
    async with asyncio.timeout(PATIENCE_S):
        block = await source.read()
    assert block.through is not None
    assert (block.samples["arrival"] >= block.through - 20_000_000).all()
    return [
        value if quality == Quality.GOOD else Reason(reason).name.lower()
        for value, quality, reason in block.samples[["value", "quality", "reason"]].tolist()
    ]


@pytest.fixture
def link(tmp_path):
    return tmp_path / "device"


class TestConfig:
    def test_a_device_that_is_not_asked_is_only_listened_to(self):
        assert isinstance(PLUGIN.build("dev", config(), clock=SystemClock()), AskedSerial)
        listening = Config(type="serial", port="/dev/null", decode=CSV)
        assert listening.requests == ()
        assert isinstance(PLUGIN.build("dev", listening, clock=SystemClock()), Serial)

    def test_its_requests_are_those_of_the_source_and_its_channels_each_once(self):
        channels = {"a": {"query": "A?\n"}, "b": {}, "c": {"query": "0x02410d"}, "d": {"query": "A?\n"}}
        settings = config(decode={"kind": "key_value"}, channels=channels)
        assert settings.requests == (b"A?\n", b"?\n", b"\x02A\r")
        assert settings.clock == "arrival"

    @pytest.mark.parametrize(
        ("wrong", "says"),
        [
            ({"period": None}, "query: how often"),
            (
                {"query": None, "decode": NUMBER, "channels": {"a": {"query": "A?"}, "b": {}}},
                "channels.b: no query",
            ),
            ({"clock": "counted"}, "what is asked on the grid is not counted"),
            ({"query": ""}, "at least 1"),
            ({"query": "0x1"}, "no even number of hexadecimal digits"),
            (
                {"decode": {"kind": "json", "samples": "."}, "channels": {"a": {}}, "clock": "arrival"},
                "samples",
            ),
            ({"decode": NUMBER, "channels": {"a": {}, "b": {}}}, "a bare number is of one channel"),
        ],
    )
    def test_what_cannot_be_asked_is_refused(self, wrong, says):
        with pytest.raises(ValidationError, match=says):
            config(**wrong)


class TestAnswers:
    async def test_the_simulator_s_instrument_is_read_on_the_grid(self, link):
        async with plugged(link, query="?\n", error="ERR\n") as wire, asking(link) as source:
            for turn in range(1, 6):
                steps(wire, 1)
                assert await poll(source) == [turn, 0.0]
            assert wire.counts["requests"] - source.skipped <= 6
            assert source.faults == {}

    async def test_several_questions_have_answers_of_their_own(self, link):
        replies = {b"V?\n": b"230.5\r\n", b"I?\n": b"-1.25\r\n"}
        channels = {"volt": {"query": "V?\n"}, "amp": {"query": "I?\n"}}
        async with Instrument(link, replies.__getitem__) as instrument:
            async with asking(link, query=None, decode=NUMBER, channels=channels) as source:
                assert await poll(source) == [230.5, -1.25]
            assert instrument.asked == [b"V?\n", b"I?\n"]

    async def test_a_request_may_be_bytes_and_its_answer_framed_and_summed(self, link):
        settings = {
            "query": "0x0203", "framing": {"kind": "fixed"}, "checksum": "crc8", "clock": "arrival",
            "decode": {"kind": "binary", "format": ">hh", "fields": ["n", "p"]},
        }  # fmt: skip
        device = {"fields": FIELDS, "framing": {"kind": "fixed"}, "checksum": "crc8", "payload": "struct"}
        device |= {"format": ">hh", "query": "0x0203"}
        async with plugged(link, devices={"dev": device}) as wire, asking(link, **settings) as source:
            steps(wire, 7)
            assert await poll(source) == [7.0, 0.0]

    async def test_an_adapter_that_hears_itself_gives_no_answer(self, link):
        async with Instrument(link, lambda question: question + b"1,2\r\n"), asking(link) as source:
            assert await poll(source) == [1.0, 2.0]

    async def test_what_came_before_a_question_answers_none(self, link):
        async with Instrument(link, lambda _: b"1,2\r\n") as instrument, asking(link) as source:
            instrument.send(b"7,7\r\n8,")
            await asyncio.sleep(0.01)
            assert await poll(source) == [1.0, 2.0]

    async def test_a_device_that_talks_without_being_asked_takes_no_memory(self, link):
        async with Instrument(link, lambda _: b"1,2\r\n") as instrument, asking(link) as source:
            for _ in range(50):
                instrument.send(b"7,7\r\n" * 500)
                await asyncio.sleep(0)
            await asyncio.sleep(0.02)
            assert len(source._came) <= 16
            assert await poll(source) in ([1.0, 2.0], [7.0, 7.0])


class TestFaults:
    async def test_a_silent_one_is_bad_and_after_three_polls_not_connected(self, link):
        async with plugged(link, query="?\n") as wire, asking(link) as source:
            steps(wire, 1)
            assert await poll(source) == [1.0, 0.0]
            await wire.switch([fault(wire, "serial.stall")])
            assert [await poll(source), await poll(source)] == [[TIMEOUT, TIMEOUT]] * 2
            with pytest.raises(NotConnected, match=r"device: no answer within 0.06 s, 3 times"):
                await poll(source)
            assert source.faults == {"timeout": 3}
            await wire.switch([])
            await source.connect()
            assert await poll(source) == [1.0, 0.0]

    async def test_one_that_says_no_is_told_and_its_samples_are_bad(self, link):
        async with plugged(link, query="READ\n", error="ERR\n"), asking(link) as source:
            assert await poll(source) == [WRONG, WRONG]
            with pytest.raises(DecodeError, match="1 answers rejected, the first: 1 fields, not 2"):
                await poll(source)
            assert await poll(source) == [WRONG, WRONG]
            assert source.faults == {"malformed": 2}

    async def test_of_several_on_one_line_a_dead_one_soon_costs_the_others_nothing(self, link):
        channels = {name: {"query": f"{name}?\n"} for name in ("one", "two", "three")}
        settings = {"query": None, "decode": NUMBER, "channels": channels, "timeout": "60ms"}
        replies = {b"one?\n": b"1\n", b"two?\n": b"", b"three?\n": b"3\n"}
        async with Instrument(link, replies.__getitem__) as instrument, asking(link, **settings) as source:
            for _ in range(8):
                assert await poll(source) == [1.0, TIMEOUT, 3.0]
            asked = Counter(instrument.asked)
            assert (asked[b"one?\n"], asked[b"two?\n"], asked[b"three?\n"]) == (8, 3, 8)
            assert source.faults == {"timeout": 3}
            replies[b"two?\n"] = b"2\n"
            source._turns[1].ask_at = 0
            assert [await poll(source), await poll(source)] == [[1.0, 2.0, 3.0]] * 2

    async def test_chatter_before_the_answer_does_not_hide_it(self, link):
        async with Instrument(link, lambda _: b"I (7) adc: ok\r\n1,2\r\n"), asking(link) as source:
            assert await poll(source) == [1.0, 2.0]

    async def test_a_late_answer_is_taken_for_no_other(self, link):
        replies = {b"V?\n": b"230\r\n", b"I?\n": b"-1\r\n"}
        channels = {"volt": {"query": "V?\n"}, "amp": {"query": "I?\n"}}
        settings = {"query": None, "decode": NUMBER, "channels": channels, "quiet": "60ms"}
        async with Instrument(link, replies.__getitem__) as instrument, asking(link, **settings) as source:
            instrument.delay_s = 0.09
            assert await poll(source) == [TIMEOUT, TIMEOUT]
            instrument.delay_s = 0.0
            assert await poll(source) == [230.0, -1.0]

    async def test_a_poll_that_was_cancelled_leaves_its_answer_to_nobody(self, link):
        async with Instrument(link, lambda _: b"1,2\r\n") as instrument, asking(link, quiet="60ms") as source:
            instrument.delay_s = 0.04
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.03):
                    await source.read()
            instrument.reply, instrument.delay_s = (lambda _: b"3,4\r\n"), 0.0
            assert await poll(source) == [3.0, 4.0]

    @pytest.mark.parametrize("name", ["noise", "half_frames", "wrong_baud", "dropped", "bit_errors", "flood"])
    async def test_broken_answers_are_no_values_and_it_is_well_afterwards(self, link, name):
        async with plugged(link, query="?\n", checksum="crc16", fields={"n": "count", "p": "count"}) as wire:
            parameters = {"share": "0.2"} if name in {"dropped", "bit_errors"} else {}
            async with asking(link, checksum="crc16", timeout="15ms") as source:
                await wire.switch([fault(wire, f"serial.{name}", **parameters)])
                for _ in range(6):
                    steps(wire, 1)
                    try:
                        found = await poll(source)
                    except DecodeError:
                        continue
                    except NotConnected:
                        await source.connect()
                        continue
                    assert found[0] == found[1]
                await wire.switch([])
                await source.connect()
                assert (await poll(source))[0] == wire.bench.readings["count"]

    async def test_one_that_is_pulled_is_not_connected_and_another_name_is_found_by_a_pattern(self, link):
        async with plugged(link, query="?\n") as wire, asking(f"{link}*") as source:
            steps(wire, 1)
            assert await poll(source) == [1.0, 0.0]
            await wire.switch([fault(wire, "serial.unplug", link="another")])
            with pytest.raises(NotConnected, match="device: the device hung up"):
                await poll(source)
            with pytest.raises(NotConnected, match=r"device\*: no device has such a name"):
                await source.connect()
            await wire.switch([])
            await source.connect()
            assert await poll(source) == [1.0, 0.0]

    async def test_of_several_devices_that_match_none_is_taken(self, tmp_path):
        for name in ("tty0", "tty1"):
            (tmp_path / name).touch()
        source = PLUGIN.build("dev", config(tmp_path / "tty*"), clock=SystemClock())
        with pytest.raises(NotConnected, match=r"2 devices have such names: .*/tty0, .*/tty1"):
            await source.connect()
