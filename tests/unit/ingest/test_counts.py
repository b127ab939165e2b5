"""Nothing is lost uncounted: what a source brought is stored, folded, waiting, or lost by reason."""

import numpy as np
import pytest

from dxad.sources.memory import Memory
from dxad.types import NS_PER_S, Quality, State
from tests.unit.ingest.rig import NAN, PERIOD, Rig


def balance(rig: Rig) -> tuple[int, int]:
    """Both sides of the equation in `dxad.ring.admission`."""
    shown = rig.ingest.snapshot()
    lost = sum(count for reason, count in shown["lost"].items() if reason != "queue")
    return shown["samples"], sum(shown[key] for key in ("stored", "folded", "duplicate", "pending")) + lost


@pytest.mark.parametrize("clock", ["arrival", "device", "counted"])
async def test_what_was_received_is_stored_folded_a_duplicate_lost_or_pending_at_any_time(clock):
    rig = Rig(clock=clock, queue=64)
    source = Memory("s", rig.section, clock=rig.clock)
    rig.ingest.source = source
    rng = np.random.default_rng(5)
    sent = 0
    async with rig.running():
        for turn in range(150):
            for _ in range(int(rng.integers(1, 60))):
                offset = int(rng.choice([0, 0, 0, 0, -3, -60, 90, 4000])) if turn > 10 else 0
                stamp = rig.clock.utc(rig.clock.now()) + offset * NS_PER_S
                value = float(rng.choice([1.0, 2.0, NAN]))
                source.push({"a": value, "b": float(rng.normal())}, stamp=stamp)
                sent += 2
            if turn % 40 == 39:
                await rig.step(25.0)
            await rig.step(float(rng.choice([0.01, 0.1, 0.25])))
            received, accounted = balance(rig)
            assert received == accounted
            assert sent == received + rig.ingest.overflowed
    shown = rig.ingest.snapshot()
    assert shown["stored"] == rig.metrics.total("dxad_samples_stored_total", source="s") > 0
    if clock == "device":
        assert shown["lost"]["ahead"] > 0 < shown["duplicate"]


async def test_the_cells_of_the_ring_are_what_is_counted_as_stored(rig):
    rng = np.random.default_rng(1)
    async with rig.running():
        for _ in range(150):
            await rig.step(float(rng.choice([0.01, 0.07])))
            ago = int(rng.choice([0, 0, 150, 400])) * 1_000_000
            quality = Quality(int(rng.choice([0, 0, 1, 2])))
            await rig.deliver(rig.source.block(*rng.normal(size=3), ago=ago, quality=quality))
        await rig.step(1.0)
    states = rig.ring.read(rig.ring.start, rig.ring.sealed).states
    filled = int(np.isin(states, (State.GOOD, State.UNCERTAIN, State.BAD)).sum())
    assert rig.ingest.snapshot()["stored"] == filled


async def test_what_came_before_with_the_same_stamp_is_dropped_and_counted():
    rig = Rig(clock="device")
    async with rig.running():
        for n in range(20):
            stamp = rig.clock.utc(rig.clock.now())
            await rig.deliver(*[rig.source.block(float(n), stamp=stamp)] * 2)
            await rig.step(0.1)
        await rig.step(0.2)
    shown = rig.ingest.snapshot()
    assert (shown["samples"], shown["duplicate"], shown["folded"]) == (40, 20, 0)
    assert rig.column()[0][:20] == [float(n) for n in range(20)]


async def test_without_the_device_s_clock_and_by_session_nothing_is_a_duplicate():
    for section in ({"clock": "arrival"}, {"clock": "device", "hold": "session"}):
        rig = Rig(**section)
        async with rig.running():
            await rig.deliver(*[rig.source.block(1.0, stamp=rig.clock.utc(rig.clock.now()))] * 2)
        assert rig.ingest.snapshot()["duplicate"] == 0


async def test_each_device_of_a_source_has_counts_of_its_own():
    rig = Rig({"a": {"range": [0, 10]}, "b": {}}, devices=["pump", "fan"], clock="device")
    async with rig.running():
        for _ in range(20):
            for column in (0, 1):
                stamp = rig.clock.utc(rig.clock.now())
                await rig.deliver(rig.source.block(1.0, column=column, stamp=stamp))
            await rig.step(0.1)
        now = rig.clock.utc(rig.clock.now())
        await rig.deliver(
            rig.source.block(1.0, 99.0, NAN, stamp=now),
            rig.source.block(1.0, column=1, stamp=now),
            rig.source.block(1.0, column=1, stamp=now),
            rig.source.block(1.0, column=1, stamp=now + 100 * NS_PER_S),
            rig.source.block(1.0, column=1, ago=NS_PER_S),
        )
        shown = rig.ingest.snapshot()["devices"]
    assert shown == {
        "pump": {"received": 23, "rejected": {"range": 1, "type": 1}},
        "fan": {"received": 24, "late": 1, "duplicate": 1, "ahead": 1, "rejected": {}},
    }


async def test_a_source_of_one_device_counts_once():
    rig = Rig(devices=["pump", "pump"])
    async with rig.running():
        await rig.deliver(rig.source.block(1.0))
    assert "devices" not in rig.ingest.snapshot()


def test_of_very_many_devices_the_last_are_counted_together():
    names = [f"d{n}" for n in range(300)]
    rig = Rig({name: {} for name in names}, devices=names)
    for column in range(300):
        rig.ingest.accept(rig.source.block(1.0, column=column))
    shown = rig.ingest.devices
    assert len(shown) == 101
    assert shown["other"]["received"] == 200
    assert sum(each["received"] for each in shown.values()) == 300


async def test_rows_that_a_reader_did_not_come_to_read_are_counted_at_their_source(rig):
    from dxad.frame import Feed, Frame

    frame = Frame([Feed(rig.ring, (0, 1))], period=2 * PERIOD)
    async with rig.running():
        await rig.step(30)
    assert frame.read(1000) is not None
    assert frame.losses["overwritten"] == (rig.ring.sealed - rig.ring.slots - rig.ring.start + 1) // 2
    assert rig.ingest.snapshot()["overwritten"] == rig.ring.sealed - rig.ring.slots - rig.ring.start
