"""Clocks that are wrong: the gateway's, set by ten years at once; and a device's, which says anything."""

from collections.abc import Callable
from typing import Any

import pytest

from dxad.types import NS_PER_S, State
from tests.unit.ingest.rig import PERIOD, Rig

TEN_YEARS = 10 * 365 * 86_400 * NS_PER_S
SECTIONS: dict[str, dict[str, Any]] = {
    "arrival": {"clock": "arrival"},
    "device": {"clock": "device"},
    "counted": {"clock": "counted"},
    "session": {"clock": "arrival", "hold": "session"},
}


async def seen(section: dict[str, Any], step: int) -> tuple[bytes, bytes, dict[str, Any], set[str]]:
    """What is in the ring, counted, and told, after the gateway's clock was set by `step` on the way."""
    keys = {"max_rate": 100, "stuck_after": "1s", "max_noise": 9, "noise_window": "1s", "expect_every": "1s"}
    rig = Rig({"a": keys, "b": {}}, **section)
    rig.source.alive_until = rig.clock.now() + 3600 * NS_PER_S
    device_utc = rig.clock.utc(0)  # a device that nobody has set
    async with rig.running():
        for turn in range(100):
            if turn == 50:
                rig.clock._utc_offset += step
            stamp = device_utc + rig.clock.now()
            await rig.deliver(rig.source.block(float(turn % 7), stamp=stamp))
            await rig.step(0.1)
        told = set(rig.conditions)
        await rig.step(1.0)
    reading = rig.ring.read(rig.ring.oldest, rig.ring.sealed)
    shown = rig.ingest.snapshot()
    return reading.values.tobytes(), reading.states.tobytes(), shown, told


@pytest.mark.parametrize("name", SECTIONS)
@pytest.mark.parametrize("step", [TEN_YEARS, -TEN_YEARS])
async def test_setting_the_gateway_s_clock_by_ten_years_moves_no_sample_and_no_count(name, step):
    still, stepped = await seen(SECTIONS[name], 0), await seen(SECTIONS[name], step)
    assert stepped[:3] == still[:3]
    assert still[3] == set()
    assert stepped[3] == ({"source.clock_skew"} if name == "device" else set())


async def device(odd: Callable[[int, int], int]) -> Rig:
    """A device that stamps 100 samples, a tenth of a second apart, with its own time as `odd` says."""
    rig = Rig(clock="device")
    async with rig.running():
        for turn in range(100):
            stamp = rig.clock.utc(rig.clock.now())
            await rig.deliver(rig.source.block(float(turn), stamp=odd(turn, stamp)))
            await rig.step(0.1)
        await rig.step(0.5)
    return rig


def cells(rig: Rig) -> list[float]:
    values, states = rig.column()
    return [value for value, state in zip(values, states, strict=True) if state is State.GOOD]


YEAR = 365 * 86_400 * NS_PER_S


@pytest.mark.parametrize("ahead", [61 * NS_PER_S, 3600 * NS_PER_S, 10 * YEAR])
async def test_a_stamp_in_the_future_is_rejected_and_moves_nothing(ahead):
    rig = await device(lambda turn, stamp: stamp + ahead if turn % 30 == 20 else stamp)
    assert rig.ingest.snapshot()["lost"] == {"ahead": 3}
    assert cells(rig) == [float(turn) for turn in range(100) if turn % 30 != 20]
    assert rig.conditions == {}


@pytest.mark.parametrize("ago", [3600 * NS_PER_S, 50 * YEAR])
async def test_an_ancient_stamp_counts_as_its_arrival_and_moves_nothing(ago):
    rig = await device(lambda turn, stamp: max(1, stamp - ago) if turn % 30 == 20 else stamp)
    assert cells(rig) == [float(turn) for turn in range(100)]
    assert rig.ingest.snapshot()["lost"] == {}


@pytest.mark.parametrize("stamp", [0, -5, -(10**18)])
async def test_no_stamp_and_one_before_1970_are_their_arrivals(stamp):
    rig = await device(lambda _turn, _stamp: stamp)
    assert cells(rig) == [float(turn) for turn in range(100)]


async def test_samples_out_of_order_find_their_slots():
    rig = await device(lambda turn, stamp: stamp + (PERIOD if turn % 2 == 0 else -PERIOD) // 2 * 3)
    found = cells(rig)
    assert len(found) > 90
    assert rig.ingest.snapshot()["lost"].get("ahead", 0) == 0


async def test_a_backlog_fills_the_slots_it_belongs_to_once():
    rig = Rig(clock="device", max_silence="1h")
    async with rig.running():
        for turn in range(30):
            await rig.deliver(rig.source.block(float(turn), stamp=rig.clock.utc(rig.clock.now())))
            await rig.step(0.1)
        away = rig.clock.utc(rig.clock.now())
        await rig.step(4.0)
        for turn in [*range(40), *range(40)]:  # no acknowledgement has reached whoever sends it
            await rig.deliver(rig.source.block(30.0 + turn, stamp=away + turn * PERIOD))
        await rig.step(0.5)
    assert cells(rig) == [float(turn) for turn in range(70)]
    assert rig.count("samples_backfilled") >= 38
    assert rig.count("samples_duplicate") == 40


async def test_a_device_that_is_ten_years_off_for_good_costs_its_first_seconds_at_most():
    rig = await device(lambda turn, stamp: stamp + (10 * YEAR if turn >= 30 else 0))
    lost = rig.ingest.snapshot()["lost"]
    assert set(lost) == {"ahead"}
    assert 40 <= lost["ahead"] <= 51
    assert cells(rig)[-19:] == [float(turn) for turn in range(81, 100)]
    assert set(rig.conditions) == {"source.clock_skew"}


async def test_each_device_of_a_source_has_a_clock_of_its_own():
    rig = Rig(clock="device", devices=["north", "south"])
    years = {"north": 0, "south": -5 * YEAR}
    async with rig.running():
        for turn in range(50):
            for column, wrong in enumerate(years.values()):
                stamp = rig.clock.utc(rig.clock.now()) + wrong
                await rig.deliver(rig.source.block(float(turn), column=column, stamp=stamp))
            await rig.step(0.1)
        await rig.step(0.2)
    shown = rig.ingest.snapshot()
    assert (shown["lost"], shown["late"], shown["duplicate"]) == ({}, 0, 0)
    for column in (0, 1):
        assert rig.column(column)[0][:50] == [float(turn) for turn in range(50)]
    assert rig.conditions == {"source.clock_skew": "the clock of south is 157680000.0 s behind"}


async def test_a_device_that_is_found_later_gets_a_clock_and_the_others_keep_theirs():
    devices = ["north", ""]
    rig = Rig(clock="device", devices=devices)
    async with rig.running():
        for turn in range(60):
            devices[1] = "south" if turn >= 30 else ""
            await rig.deliver(rig.source.block(float(turn), stamp=rig.clock.utc(rig.clock.now())))
            if turn >= 30:
                ahead = rig.clock.utc(rig.clock.now()) + YEAR
                both = [rig.source.block(1.0, column=1, stamp=ahead + at) for at in range(2)]
                await rig.deliver(*both)
            await rig.step(0.1)
        await rig.step(0.2)
    assert rig.ingest.snapshot()["lost"] == {}
    assert rig.column(1)[1][30:60] == [State.GOOD] * 30
    assert set(rig.ingest.devices) == {"north", "south"}
