"""Devices that answer twice, where nothing says to what: no good value is another register's, or old."""

import asyncio
import random
import struct
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from dxad.links import modbus
from dxad.sources.modbus import Config, Modbus
from dxad.types import NS_PER_S, Quality, Reason
from tests.unit.hw_sim.modbus_rig import framed
from tests.virtualtime import VirtualClock, in_virtual_time

REGISTERS = {"a": 10, "b": 30, "c": 50, "d": 70}
POLLED_S = 8.0


@dataclass(frozen=True)
class Habits:
    """How a device answers; in seconds."""

    takes: float = 0.03
    jitter: float = 0.02
    twice: float = 1.0
    """The share of answers that come again."""
    after: float = 0.06
    """When they do, give or take a fifth."""
    late: float = 0.0
    """The share of answers that are late, and all behind them."""
    by: float = 0.6
    exact: bool = True
    """It refuses to have more read than the one register."""


class Device:
    """The port and the device behind it. A register holds its own number and when it was read."""

    def __init__(self, habits: Habits, framing: str, period: float) -> None:
        self.habits = habits
        self.framing = framing
        self.period = period
        self.on_data: Callable[[bytes], None] | None = None
        self._chance = random.Random(5)
        self._busy_until = 0.0
        self._loop = asyncio.get_running_loop()

    def write(self, data: bytes) -> None:
        frame = bytes.fromhex(data[1:-2].decode()) if self.framing == "ascii" else data
        unit, function, first, count = struct.unpack(">BBHH", frame[:6])
        habits, chance = self.habits, self._chance
        takes = habits.takes + chance.random() * habits.jitter
        if chance.random() < habits.late:
            takes += habits.by * (0.3 + chance.random())
        at = self._busy_until = max(self._loop.time() + takes, self._busy_until + 0.0005)
        answer = framed(self.framing, unit, self._pdu(function, first, count))
        self._loop.call_at(at, self._send, answer)
        if chance.random() < habits.twice:
            self._loop.call_at(at + habits.after * (0.8 + 0.4 * chance.random()), self._send, answer)

    def _pdu(self, function: int, first: int, count: int) -> bytes:
        if function != 4:
            return bytes((function | 0x80, 1))
        if self.habits.exact and count > 1:
            return bytes((function | 0x80, 2))
        now = int(self._loop.time() / self.period + 1e-6) & 0xFF
        return bytes((function, 2 * count)) + b"".join(bytes((first + at, now)) for at in range(count))

    def _send(self, answer: bytes) -> None:
        if self.on_data is not None:
            self.on_data(answer)

    def close(self) -> None:
        self.on_data = None


async def polled(
    habits: Habits, channels: str, *, period: float = 0.25, url: str = "rtu:///dev/ttyUSB0"
) -> Counter[str]:
    """What became of the values, and whether anything was told of the device."""
    device = Device(habits, "ascii" if url.startswith("ascii") else "rtu", period)

    async def opened(*_: Any, on_data: Callable[[bytes], None], **__: Any) -> Device:
        device.on_data = on_data
        return device

    registers = {name: {"register": f"input:{REGISTERS[name]}", "encoding": "uint16"} for name in channels}
    document = {
        "type": "modbus", "url": url, "period": f"{round(1000 * period)}ms", "timeout": "300ms",
        "channels": registers,
    }  # fmt: skip
    found: Counter[str] = Counter()
    source = Modbus("plc", Config.model_validate(document), clock=VirtualClock())
    loop = asyncio.get_running_loop()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(modbus, "open_port", opened)
        await source.connect()
        while loop.time() < POLLED_S:
            block = await source.read()
            assert block.through is not None
            oldest = round(block.through / NS_PER_S / period) - 1
            for each in block.samples:
                if each["quality"] != Quality.GOOD:
                    found[Reason(each["reason"]).name] += 1
                    continue
                register, generation = divmod(int(each["value"]), 256)
                if register != REGISTERS[channels[each["column"]]]:
                    found["wrong"] += 1
                else:
                    found["right" if (generation - oldest) & 0xFF < 0x80 else "old"] += 1
        found["told"] = bool(source.misanswers)
        await source.close()
    return found


TWICE = [(1.0, 0.0), (1.0, 0.012), (1.0, 0.15), (0.3, 0.012), (0.3, 0.06)]


@pytest.mark.parametrize("exact", [True, False], ids=["exact", "generous"])
@pytest.mark.parametrize(("twice", "after"), TWICE)
@pytest.mark.parametrize("takes", [0.03, 0.08])
def test_an_answer_that_comes_again_is_no_later_questions(takes, twice, after, exact):
    habits = Habits(takes=takes, jitter=takes * 0.7, twice=twice, after=after, exact=exact)
    found = in_virtual_time(polled(habits, "abcd"))
    assert found["wrong"] + found["old"] + found["MODBUS_ILLEGAL_ADDRESS"] == 0
    assert found["right"] > POLLED_S / (2 * takes + after + 0.1)
    assert found["told"]


def test_one_block_that_is_polled_fast_is_not_answered_with_what_it_was():
    for exact in (True, False):
        found = in_virtual_time(polled(Habits(takes=0.08, after=0.06, exact=exact), "a", period=0.1))
        assert found["wrong"] + found["old"] == 0
        assert found["right"] > POLLED_S / 0.4


def test_the_poll_in_which_it_is_found_is_not_believed():
    found = in_virtual_time(polled(Habits(twice=0.02, after=0.04), "abcd"))
    assert found["OUT_OF_STEP"] > 0
    assert found["wrong"] + found["old"] == 0
    assert found["right"] > 30


@pytest.mark.parametrize("late", [0.0, 0.05])
def test_a_device_that_answers_once_is_called_in_step(late):
    found = in_virtual_time(polled(Habits(twice=0.0, late=late), "abcd"))
    assert found["wrong"] + found["old"] + found["OUT_OF_STEP"] == 0
    assert not found["told"]
    assert found["right"] > 50


@pytest.mark.parametrize("url", ["ascii:///dev/ttyUSB0", "rtu+tcp://127.0.0.1:4001"])
def test_it_is_the_same_for_every_framing_without_transactions(url):
    found = in_virtual_time(polled(Habits(), "abcd", url=url))
    assert found["wrong"] + found["old"] == 0
    assert found["right"] > 50


@pytest.mark.parametrize("exact", [True, False], ids=["exact", "generous"])
@pytest.mark.parametrize(("channels", "period"), [("a", 0.05), ("abcd", 0.25)])
def test_a_device_that_answers_once_is_polled_as_often_as_the_line_allows(channels, period, exact):
    habits = Habits(takes=0.03, jitter=0.015, twice=0.0, exact=exact)
    found = in_virtual_time(polled(habits, channels, period=period))
    assert found["right"] >= 0.95 * len(channels) * POLLED_S / period
