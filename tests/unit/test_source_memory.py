"""The in-process source: what is pushed is read, and a reader that is too slow loses the oldest, counted."""

import asyncio

import numpy as np
import pytest

from dxad.runtime.clock import SteppedClock
from dxad.sources.memory import Config, Memory
from dxad.types import Quality, Reason


@pytest.fixture
async def source():
    made = Memory(
        "m", Config(type="memory", channels={"a": {}, "b": {"path": "other"}}), clock=SteppedClock()
    )
    await made.connect()
    yield made
    await made.close()


@pytest.mark.parametrize("value", [1, 1.0, np.float32(1), np.float64(1), np.int16(1)])
async def test_every_kind_of_number_is_one(source, value):
    source.push({"a": value, "other": value})
    samples = (await source.read()).samples
    assert samples["value"].tolist() == [1.0, 1.0]
    assert set(samples["quality"]) == {Quality.GOOD}


@pytest.mark.parametrize("value", [None, True, np.True_, "1", float("nan"), float("-inf"), 10**400, [1], 1j])
async def test_what_is_no_finite_number_is_bad(source, value):
    source.push({"a": value, "other": 1})
    bad, good = (await source.read()).samples
    assert (bad["quality"], bad["reason"]) == (Quality.BAD, Reason.TYPE)
    assert good["quality"] == Quality.GOOD


async def test_a_missing_field_is_bad_and_one_that_nobody_wants_is_nothing(source):
    source.push({"other": 2.0, "c": 3.0})
    samples = (await source.read()).samples
    assert samples["quality"].tolist() == [Quality.BAD, Quality.GOOD]


async def test_each_push_is_a_message_with_its_own_arrival(source):
    for value in range(3):
        source.push({"a": value, "other": 0})
        await source._clock.step(10)
    samples = (await source.read()).samples
    assert samples["message"].tolist() == [0, 0, 1, 1, 2, 2]
    assert np.diff(samples["arrival"]).tolist() == [0, 10, 0, 10, 0]


def small(**keys) -> Memory:
    config = Config(type="memory", channels={"a": {}, "b": {"path": "other"}}, queue=201, **keys)
    return Memory("m", config, clock=SteppedClock())


async def test_too_many_lose_the_oldest_and_count_them():
    source = small()
    for value in range(130):
        source.push({"a": value, "other": -value})
    assert source.overflowed == 60
    assert (await source.read()).samples["value"][::2].tolist() == list(range(30, 130))


async def test_with_block_a_push_waits_for_room_and_one_that_does_not_wait_is_refused():
    source = small(overflow="block")
    for value in range(100):
        await source.room()
        source.push({"a": value, "other": 0})
    with pytest.raises(asyncio.QueueFull):
        source.push({"a": 1, "other": 0})
    waiting = asyncio.create_task(source.room())
    await asyncio.sleep(0)
    assert not waiting.done()
    assert len((await source.read()).samples) == 200
    await waiting
    source.push({"a": 101, "other": 0})
    assert (await source.read()).samples["value"].tolist() == [101.0, 0.0]
    assert source.overflowed == 0


async def test_a_message_may_bring_its_device_s_own_time(source):
    source.push({"a": 1, "other": 2}, stamp=1_700_000_000_000_000_000)
    source.push({"a": 1, "other": 2})
    stamps = (await source.read()).samples["stamp"].tolist()
    assert stamps == [1_700_000_000_000_000_000] * 2 + [0, 0]


async def test_a_large_backlog_is_read_in_pieces(source):
    for value in range(2_500):
        source.push({"a": value, "other": 0})
    sizes = [len((await source.read()).samples) for _ in range(3)]
    assert sizes == [2_000, 2_000, 1_000]
    assert source.overflowed == 0


async def test_a_reader_waits_for_the_next_push(source):
    reading = asyncio.create_task(source.read())
    await asyncio.sleep(0)
    assert not reading.done()
    source.push({"a": 1, "other": 2})
    assert len((await reading).samples) == 2
