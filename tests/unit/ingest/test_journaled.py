"""A source that waits for the outbox: its journal has every sample, and it is told when that is stored."""

import asyncio

from tests.patience import PATIENCE_S
from tests.unit.ingest.rig import Rig


def store(rig: Rig) -> list[float]:
    """As telemetry does, and the disk; the values."""
    stretch = rig.journal.take(1000)
    rig.journal.settle(stretch)
    return stretch.samples["value"].tolist()


async def test_it_is_told_when_a_block_is_stored_also_of_samples_that_share_a_slot_or_are_late():
    rig = Rig(journaled=100)
    async with rig.running():
        await rig.step(1.0)
        await rig.deliver(rig.source.block(1.0, 2.0, ticket=1), rig.source.block(3.0, ago=10**9, ticket=2))
        assert rig.source.confirmed == []
        assert store(rig) == [1.0, 2.0, 3.0]
        assert rig.source.confirmed == [2]


async def until(holds) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not holds():  # noqa: ASYNC110 - of what real time brings, nobody tells
            await asyncio.sleep(0.005)


async def test_silence_is_no_reason_to_connect_anew_while_the_outbox_takes_nothing():
    rig = Rig(journaled=100, max_silence="10ms")
    async with rig.running():
        await rig.deliver(rig.source.block(1.0, ticket=1))
        await asyncio.sleep(0.05)
        assert rig.source.closes == 0
        store(rig)
        await until(lambda: rig.source.closes == 1)


async def test_no_more_is_read_than_may_wait():
    rig = Rig(journaled=3)
    async with rig.running():
        await rig.deliver(rig.source.block(1.0, 2.0, 3.0, 4.0, ticket=1), rig.source.block(5.0, ticket=2))
        assert store(rig) == [1.0, 2.0, 3.0, 4.0]
        await rig.settle()
        assert store(rig) == [5.0]


async def test_that_the_outbox_takes_nothing_is_told_until_it_does():
    rig = Rig(journaled=100)
    async with rig.running():
        await rig.deliver(rig.source.block(1.0, 2.0, ticket=1))
        await rig.step(14)
        assert rig.conditions == {}
        await rig.step(3)
        assert rig.conditions == {"source.unacknowledged": "2 samples wait for the outbox, for 17 s now"}
        store(rig)
        await rig.step(1)
        assert rig.conditions == {}


async def test_the_broker_is_left_when_what_was_read_is_stored_or_a_while_later(monkeypatch):
    monkeypatch.setattr("dxad.ingest._LAST_STORING_TIMEOUT_S", 5.0)
    rig = Rig(journaled=100)
    async with rig.running():
        await rig.deliver(rig.source.block(1.0, ticket=1))
        asyncio.get_running_loop().call_later(0.02, store, rig)
    assert rig.source.confirmed == [1]
    assert rig.source.closes == 1
    monkeypatch.setattr("dxad.ingest._LAST_STORING_TIMEOUT_S", 0.01)
    rig = Rig(journaled=100)
    async with rig.running():
        await rig.deliver(rig.source.block(1.0, ticket=1))
    assert (rig.source.confirmed, rig.source.closes) == ([], 1)
