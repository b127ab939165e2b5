"""What becomes of samples: a cell of the ring, or a count with its reason."""

import numpy as np
import pytest
from pydantic import ValidationError

from dxad import plugin
from dxad.sources.memory import Config, Memory
from dxad.types import NS_PER_S, Quality, Reason, State
from tests.unit.ingest.rig import NAN, PERIOD, START, Rig


async def test_slots_are_sealed_one_period_after_they_ended_also_when_nothing_comes(rig):
    async with rig.running():
        await rig.step(0.15)
        assert rig.ring.sealed == START // PERIOD
        await rig.step(0.05)
        assert rig.ring.sealed == START // PERIOD + 1
        await rig.step(1.0)
        assert rig.ring.sealed == START // PERIOD + 11
    assert rig.count("rows_sealed") == 11
    assert set(rig.column()[1]) == {State.EMPTY}


async def test_a_sample_stands_in_the_slot_of_its_arrival_and_is_held_for_two_more(rig):
    async with rig.running():
        await rig.step(0.12)
        await rig.deliver(rig.source.block(5.0))
        await rig.step(1.0)
    values, states = rig.column()
    assert states[:5] == [State.EMPTY, State.GOOD, State.HELD, State.HELD, State.EMPTY]
    assert values[1:4] == [5.0, 5.0, 5.0]


async def test_every_sample_is_in_a_cell_or_counted(rig):
    rng = np.random.default_rng(0)
    sent = 0
    async with rig.running():
        for _ in range(200):
            await rig.step(float(rng.choice([0.001, 0.01, 0.07])))
            n = int(rng.integers(1, 5))
            ago = int(rng.choice([0, 0, 0, 150, 400])) * 1_000_000
            quality = Quality(int(rng.choice([0, 0, 1, 2])))
            column = int(rng.integers(0, 2))
            await rig.deliver(rig.source.block(*rng.normal(size=n), column=column, ago=ago, quality=quality))
            sent += n
        await rig.step(1.0)
    states = rig.ring.read(rig.ring.start, rig.ring.sealed).states
    filled = int(np.isin(states, (State.GOOD, State.UNCERTAIN, State.BAD)).sum())
    assert rig.ring.sealed - rig.ring.start < rig.ring.slots
    assert rig.count("samples_received") == sent
    assert sent == filled + rig.count("samples_folded") + rig.ingest.ledger.total
    late = rig.ingest.snapshot()["lost"]["late"]
    assert 0 < rig.count("samples_backfilled") < rig.count("samples_late") - late
    assert late > 0
    assert rig.count("rows_sealed") == rig.ring.sealed - rig.ring.start


@pytest.mark.parametrize(
    ("value", "reason"),
    [(-0.1, "range"), (400.1, "range"), (NAN, "type"), (float("inf"), "type"), (float("-inf"), "type")],
)
async def test_a_value_that_cannot_be_is_bad_and_counted_by_its_reason(value, reason):
    rig = Rig({"a": {"range": [0, 400]}, "b": {}})
    async with rig.running():
        await rig.deliver(rig.source.block(value), rig.source.block(400.0, column=1))
        await rig.step(0.2)
        assert rig.ring.reasons_at(rig.ring.sealed - 1)[0] == Reason[reason.upper()]
    values, states = rig.column()
    assert (np.isnan(values[0]), states[0]) == (True, State.BAD)
    assert rig.column(1) == ([400.0], [State.GOOD])
    assert rig.count("samples_rejected", reason=reason) == 1
    assert rig.ingest.snapshot()["rejected"] == {reason: 1}


@pytest.mark.parametrize("value", [NAN, float("inf"), float("-inf")])
async def test_a_number_that_is_not_finite_is_bad_without_a_range_too(rig, value):
    async with rig.running():
        await rig.deliver(rig.source.block(value))
        await rig.step(0.2)
    assert rig.column()[1] == [State.BAD]
    assert rig.count("samples_rejected", reason="type") == 1


async def test_what_cannot_be_is_bad_before_it_is_folded_or_held_and_counted_by_its_reason():
    keys = {"max_rate": 10, "stuck_after": "300ms", "max_noise": 0.1, "noise_window": "1s"}
    rig = Rig({"a": {**keys, "fold": "max"}, "b": {}})
    async with rig.running():
        for value in [1.0, 99.0, 1.1, 1.2, 1.2, 1.2, 1.2, *[1.4, 1.9] * 15]:
            await rig.deliver(rig.source.block(value), rig.source.block(7.0, column=1))
            await rig.step(0.1)
        await rig.step(0.1)
    values, states = rig.column()
    good, bad = State.GOOD, State.BAD
    assert states[:8] == [good, bad, good, good, good, good, bad, good]
    assert values[2:8] == [1.1, 1.2, 1.2, 1.2, pytest.approx(NAN, nan_ok=True), 1.4]
    assert set(states[8:10]) == {good}
    assert set(states[10:37]) == {State.UNCERTAIN}
    assert set(rig.column(1)[1][:37]) == {good}
    shown = rig.ingest.snapshot()
    assert (shown["rejected"], shown["doubted"]) == ({"rate": 1, "stuck": 1}, {"noise": 27})


async def test_what_the_device_calls_bad_is_counted_as_its_own_reason(rig):
    async with rig.running():
        await rig.deliver(rig.source.block(3.0, quality=Quality.BAD))
        await rig.step(0.2)
    assert rig.ingest.snapshot()["rejected"] == {"device": 1}


async def test_a_sample_of_a_sealed_slot_fills_it_and_one_older_than_the_ring_is_lost(rig):
    async with rig.running():
        await rig.step(30)
        sealed = rig.ring.sealed
        await rig.deliver(rig.source.block(9.0, ago=5 * PERIOD), rig.source.block(9.0, ago=250 * PERIOD))
        assert rig.ring.sealed == sealed
    assert rig.column()[1].count(State.GOOD) == 1
    assert rig.ring.backfilled(rig.ring.oldest, rig.ring.sealed).sum() == 1
    shown = rig.ingest.snapshot()
    assert (shown["late"], shown["backfilled"], shown["lost"]) == (2, 1, {"too_old": 1})
    assert rig.metrics.total("dxad_lost_total", place="sources.s", reason="too_old") == 1


@pytest.mark.parametrize("overflow", ["drop_newest", "drop_oldest", "thin", "block"])
async def test_what_a_source_was_given_is_stored_folded_or_lost_by_reason_exactly(overflow):
    rig = Rig(queue=64, overflow=overflow)
    source = Memory("s", rig.section, clock=rig.clock)
    rig.ingest.source = source
    rng = np.random.default_rng(3)
    given = 0
    async with rig.running():
        for _ in range(60):
            for _ in range(int(rng.integers(1, 60))):
                await source.room()
                source.push({"a": float(rng.normal()), "b": float(rng.choice([1.0, NAN]))})
                given += 2
            await rig.step(float(rng.choice([0.01, 0.1, 0.25])))
        await rig.step(1.0)
    lost = rig.ingest.snapshot()["lost"]
    states = rig.ring.read(rig.ring.start, rig.ring.sealed).states
    stored = int(np.isin(states, (State.GOOD, State.UNCERTAIN, State.BAD)).sum())
    assert rig.ring.sealed - rig.ring.start < rig.ring.slots
    assert given == stored + rig.count("samples_folded") + sum(lost.values())
    assert given == rig.count("samples_received") + lost.get("queue", 0)
    assert (lost.get("queue", 0) > 0) == (overflow != "block")
    told = [each.code for each in rig.health.active]
    assert told == ([] if overflow == "block" else ["source.overflow"])
    assert rig.metrics.total("dxad_lost_total", place="sources.s") == sum(lost.values())


async def test_a_device_s_own_time_is_mapped_to_ours_and_its_skew_is_told():
    rig = Rig(clock="device", lateness="300ms")
    source = Memory("s", rig.section, clock=rig.clock)
    rig.ingest.source = source
    ahead_s = 3.0
    async with rig.running():
        for _ in range(40):
            taken = rig.clock.now()
            await rig.step(0.1)
            source.push({"a": 1.0, "b": 2.0}, stamp=rig.clock.utc(taken) + int(ahead_s * NS_PER_S))
        assert rig.conditions == {"source.clock_skew": "the device's clock is 2.9 s ahead"}
        source.push({"a": 1.0, "b": 2.0}, stamp=rig.clock.utc(rig.clock.now()) + 100 * NS_PER_S)
        await rig.step(1)
    assert rig.ingest.snapshot()["lost"] == {"ahead": 2}
    assert rig.count("samples_late") == 0


@pytest.mark.parametrize(("key", "value"), [("clock", "device"), ("overflow", "block")])
def test_what_a_kind_of_source_cannot_do_is_refused(key, value):
    modbus = plugin.load("sources", "modbus").config
    with pytest.raises(ValidationError, match=key):
        modbus.model_validate({"type": "modbus", "url": "tcp://h:502", "channels": {}, key: value})


async def test_several_samples_of_a_slot_are_folded_as_the_channel_says():
    rig = Rig({"a": {"fold": "mean"}, "b": {}})
    async with rig.running():
        await rig.deliver(rig.source.block(1.0, 2.0, 6.0), rig.source.block(1.0, 2.0, 6.0, column=1))
        await rig.step(0.2)
    assert (rig.column(0)[0], rig.column(1)[0]) == ([3.0], [6.0])
    assert rig.count("samples_folded") == 4


async def test_a_block_of_a_finished_poll_seals_its_slot_at_once(rig):
    async with rig.running():
        await rig.step(0.01)
        through = START + PERIOD
        await rig.deliver(rig.source.block(5.0, through=through))
        assert rig.ring.sealed == START // PERIOD + 1
    assert rig.column() == ([5.0], [State.GOOD])


@pytest.mark.parametrize("period_s", [0.1, 5.0])
async def test_a_slot_waits_a_period_but_a_second_at_most_for_a_poll_that_is_under_way(monkeypatch, period_s):
    monkeypatch.setattr(Config, "polled", True)
    rig = Rig(period=f"{period_s * 1000:g}ms")
    wait_s = min(period_s, 1.0)
    async with rig.running():
        await rig.step(period_s + wait_s - 0.05)
        through = START + round(period_s * NS_PER_S)
        await rig.deliver(rig.source.block(5.0, ago=round(wait_s * NS_PER_S), through=through))
        assert rig.column() == ([5.0], [State.GOOD])
        await rig.step(period_s + 0.05)
    assert rig.count("samples_late") == 0
    assert rig.ring.sealed == START // rig.ring.period + 2


async def test_an_even_stream_is_timed_by_counting():
    rig = Rig(period="10ms", clock="counted", lateness="40ms")
    async with rig.running():
        for n in range(25):
            await rig.step(0.04)
            await rig.deliver(rig.source.block(*range(4 * n, 4 * n + 4)))
        await rig.step(0.2)
    values, states = rig.column()
    known = [value for value, state in zip(values, states, strict=True) if state is State.GOOD]
    assert known == list(range(100)), "four at a time, and each has a slot of its own"
    assert (rig.count("samples_folded"), rig.count("samples_late")) == (0, 0)


async def test_without_a_period_every_message_is_a_row_and_wakes_who_waits_for_it():
    rig = Rig(period=None)
    async with rig.running():
        await rig.deliver(rig.source.block(1.0))
        assert rig.ring.sealed == 1
        await rig.deliver(rig.source.block(2.0, 3.0))
        assert rig.woken == 2
        await rig.step(60)
    assert rig.column() == ([1.0, 2.0, 3.0], [State.GOOD] * 3)
    assert rig.count("rows_sealed") == 3
    assert rig.ingest.snapshot()["period_ms"] is None
