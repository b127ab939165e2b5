"""What the OPC-UA source has missed is read from the server's history, into the slots that stayed empty."""

import asyncio
import datetime as dt
from contextlib import asynccontextmanager

import numpy as np
import pytest
import pytest_asyncio

from dxad.ingest import Ingest
from dxad.ring.ringbuffer import RingBuffer
from dxad.runtime.backoff import Backoff
from dxad.runtime.clock import SystemClock
from dxad.runtime.health import Health
from dxad.runtime.metrics import Metrics
from dxad.sources.opcua import filling, past
from dxad.sources.opcua.holding import Gap, Stretch
from dxad.sources.opcua.past import Delay
from dxad.types import NS_PER_S, Reason, State
from hw_sim.opcua.history import History
from tests.patience import PATIENCE_S
from tests.unit.hw_sim.opcua_bed import DEVICES, FAN, bed
from tests.unit.opcua_rig import COUNT, source

pytestmark = pytest.mark.asyncio(loop_scope="module")
PERIOD = NS_PER_S // 50
STILL = "urn:hw-sim:tests:still"
RATE = 100
"""Of the bench's counter, a second."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def served():
    still = {"node": "s=Still", "kind": "Int16", "channel": "pain", "history": True}
    device = {"namespace": STILL, "period": "10ms", "nodes": {"still": still}}
    async with bed(devices={**DEVICES, "still": device}) as made:
        yield made


@pytest_asyncio.fixture(loop_scope="module", autouse=True)
async def _goes_on(served, monkeypatch):
    """The plant goes on in real time, and nobody is patient."""
    monkeypatch.setattr(filling, "LISTEN_NS", NS_PER_S // 10)

    async def go():
        loop = asyncio.get_running_loop()
        begun, at_s = loop.time(), served.bench.at_s
        while True:
            await asyncio.sleep(0.005)
            while served.bench.at_s - at_s < loop.time() - begun:
                served.step(1)

    task = asyncio.create_task(go())
    yield
    task.cancel()
    await asyncio.wait([task])


@asynccontextmanager
async def ingested(served, **settings):
    """The source with its ingest, as it runs in the daemon."""
    clock = SystemClock()
    quick = {"period": "20ms", "publish_interval": "10ms", "channels": {"count": COUNT}}
    made = source(served.wire.url, **{**quick, **settings})
    ring = RingBuffer(made.channels, period=PERIOD, slots=1000, start=clock.now() // PERIOD)
    ingest = Ingest(
        "pump", made, made._config, ring, clock=clock, health=Health(clock), metrics=Metrics(),
        backoff=Backoff(first_s=0.01, most_s=0.02),
    )  # fmt: skip

    async def tick():
        while True:
            await asyncio.sleep(0.01)
            ingest.tick(clock.now())

    tasks = [asyncio.create_task(ingest.run()), asyncio.create_task(tick())]
    try:
        yield made, ingest, ring
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        await served.quiet()
        await served.switch("opcua.stop")  # off and on, so that its listener has the descriptor it had
        await served.switch()


async def until(true, within_s=PATIENCE_S):
    async with asyncio.timeout(within_s):
        while not true():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def outage(served, ingest, ring, *, for_s: float = 0.3) -> tuple[int, int]:
    """Have the server away for a while; returns the first slot of the gap, and the one behind."""
    await until(lambda: ingest.snapshot()["samples"] > 5)
    await served.switch("opcua.stop")
    await until(lambda: not ingest.connected)
    begin = ring.sealed
    await asyncio.sleep(for_s)
    end = ring.sealed
    await served.switch()
    await until(lambda: ingest.connected)
    return begin + 4, end


@pytest.mark.parametrize("settings", [{}, {"clock": "device"}, {"mode": "poll"}, {"queue": 40}], ids=str)
async def test_a_gap_is_filled_with_what_the_server_remembers(served, monkeypatch, settings):
    monkeypatch.setattr(past, "_VALUES", 10)  # so that it takes several answers
    async with ingested(served, **settings) as (made, ingest, ring):
        begin, end = await outage(served, ingest, ring)
        filled = [begin]

        def all_filled() -> bool:
            filled[:] = [slot for slot in range(begin, end) if ring.reasons_at(slot)[0] == Reason.BACKFILLED]
            return len(filled) >= end - begin - 1

        await until(all_filled)
        assert ingest.snapshot()["lost"].get("queue", 0) == 0
        assert {name for name in made.faults if "history" in name} == set()
        await asyncio.sleep(0.1)
        reading = ring.read(begin, ring.sealed)
        values, states = reading.values[:, 0], reading.states[:, 0]
        assert np.count_nonzero(states == State.GOOD) > 0.8 * len(states)
        # It counts 100 a second: what was filled in stands where it belongs, give or take a slot.
        expected = values[-1] - (len(values) - 1 - np.arange(len(values))) * PERIOD / NS_PER_S * RATE
        assert np.nanmax(np.abs(values - expected)) <= 3 * RATE * PERIOD / NS_PER_S


@pytest.mark.parametrize(
    ("settings", "bounds"),
    [({"hold": "session"}, True), ({"mode": "poll"}, False)],
    ids=["told, by a server that tells bounds", "polled, from one that does not"],
)
async def test_what_did_not_change_is_held_through_the_gap(served, settings, bounds, monkeypatch):
    if bounds:
        bounding(monkeypatch)
    channels = {"count": COUNT, "still": {"node": f"nsu={STILL};s=Still"}}
    async with ingested(served, channels=channels, **settings) as (made, ingest, ring):
        begin, end = await outage(served, ingest, ring)

        def all_filled() -> bool:
            return all(ring.reasons_at(slot)[1] == Reason.BACKFILLED for slot in range(begin, end))

        await until(all_filled)
        reading = ring.read(begin, ring.sealed)
        assert (reading.states[: end - begin, 1] == State.GOOD).all()
        assert len(set(reading.values[: end - begin, 1])) == 1, "the value of before"
        assert {name for name in made.faults if "history" in name} == set()


async def test_a_value_holds_no_longer_than_its_channel_says(served):
    channels = {
        "count": {**COUNT, "hold": "session"},
        "still": {"node": f"nsu={STILL};s=Still", "hold": "60ms"},
    }
    async with ingested(served, channels=channels) as (_, ingest, ring):
        _, end = await outage(served, ingest, ring)
        await until(lambda: ring.reasons_at(end - 1)[0] == Reason.BACKFILLED)
        await asyncio.sleep(0.1)
        assert ring.reasons_at(end - 1)[1] != Reason.BACKFILLED


def bounding(monkeypatch):
    """Have the server tell the value before a gap with those in it, as OPC 10000-11, 6.5.3.2 says."""
    plain = History.read_node_history

    async def bounded(self, node_id, start, end, nb_values):
        assert start is not None, "it has told by itself"
        values, more = await plain(self, node_id, start, end, nb_values)
        before = [each for each in self.pasts[node_id] if each.SourceTimestamp <= start]
        return (before[-1:] + values, more) if before and before[-1] not in values else (values, more)

    monkeypatch.setattr(History, "read_node_history", bounded)


class TestStretch:
    """Slots of 10 ns in a gap from 100 to 160."""

    GAP = Gap(100, 160)

    def shown(self, *entries, hold=None):
        stretch = Stretch(self.GAP, period=10, hold=hold)
        found = [each for entry in entries for each in stretch.take(*entry)] + list(stretch.close())
        return [(value, at) for value, _, at in found]

    async def test_an_entry_shows_until_the_next_and_the_last_to_the_end(self):
        assert self.shown((1.0, 0, 105), (2.0, 0, 133)) == [
            (1.0, 105), (1.0, 110), (1.0, 120), (2.0, 133), (2.0, 140), (2.0, 150),
        ]  # fmt: skip

    async def test_one_of_before_the_gap_shows_in_it_from_the_first_slot(self):
        assert self.shown((1.0, 0, 3), (2.0, 0, 125)) == [
            (1.0, 100), (1.0, 110), (2.0, 125), (2.0, 130), (2.0, 140), (2.0, 150),
        ]  # fmt: skip

    async def test_one_that_is_bad_ends_what_was_before_and_shows_nothing(self):
        assert self.shown((1.0, 0, 100), (None, 0x80000000, 115), (2.0, 0, 145)) == [
            (1.0, 100), (2.0, 145), (2.0, 150),
        ]  # fmt: skip

    async def test_it_keeps_the_status_that_the_server_gave(self):
        stretch = Stretch(self.GAP, period=10, hold=None)
        assert [*stretch.take(1.0, 0x40000000, 90), *stretch.close()][0] == (1.0, 0x40000000, 100)

    async def test_it_shows_no_longer_than_it_holds(self):
        assert self.shown((1.0, 0, 105), hold=20) == [(1.0, 105), (1.0, 110), (1.0, 120)]


async def test_without_history_nothing_is_read_and_only_who_asked_is_told(served):
    channels = {"count": {"node": f"nsu={FAN};s=Count"}}
    for history, told in (("auto", 0), (True, 1)):
        async with ingested(served, channels=channels, history=history) as (made, ingest, ring):
            await outage(served, ingest, ring, for_s=0.05)
            await asyncio.sleep(0.3)
            assert ingest.snapshot()["backfilled"] == 0
            assert sum("history: the server keeps none" in name for name in made.faults) == told


async def test_it_can_be_switched_off(served):
    async with ingested(served, history=False) as (made, ingest, ring):
        await outage(served, ingest, ring, for_s=0.1)
        await asyncio.sleep(0.3)
        assert ingest.snapshot()["backfilled"] == 0
        assert made._filling is None


async def test_a_gap_is_bounded_by_what_the_ring_keeps_and_by_answers(served, monkeypatch):
    monkeypatch.setattr(past, "_VALUES", 1)
    monkeypatch.setattr(past, "_ANSWERS_MOST", 3)
    async with ingested(served) as (_, ingest, ring):
        await outage(served, ingest, ring)
        await asyncio.sleep(0.4)
        assert 0 < ingest.snapshot()["backfilled"] <= 3


async def test_a_value_that_did_not_change_does_not_tell_the_delay():
    delay = Delay()
    assert delay.ns is None
    delay.server(5 * NS_PER_S, dt.datetime(1970, 1, 1, 0, 0, 1, tzinfo=dt.UTC))
    assert delay.ns == 4 * NS_PER_S
    delay.value(9 * NS_PER_S, 2 * NS_PER_S)
    delay.value(10 * NS_PER_S, 4 * NS_PER_S)
    delay.value(10 * NS_PER_S, 0)
    assert delay.ns == 6 * NS_PER_S
