"""The journal of a source: what came in goes out in order, and blocks are stored when all before them are."""

import asyncio

import numpy as np
import pytest

from dxad.ring.journal import Journal
from dxad.types import NS_PER_S, SAMPLE, Channel
from tests.patience import PATIENCE_S


class Rig:
    def __init__(self, capacity: int = 10) -> None:
        self.stored: list[int] = []
        self.journal = Journal([Channel("s.a")], period=10, capacity=capacity)
        self.journal.on_stored = self.stored.append
        self.added = 0

    def block(self, samples: int, *, pressed: bool = False) -> None:
        found = np.zeros(samples, SAMPLE)
        found["value"] = np.arange(self.added, self.added + samples)
        self.added += samples
        self.journal.add(found, np.arange(samples, dtype=np.int64))
        self.tickets = getattr(self, "tickets", 0) + 1
        self.journal.mark(self.tickets, pressed=pressed)


@pytest.fixture
def rig() -> Rig:
    return Rig()


def test_samples_are_taken_in_order_and_blocks_are_not_cut(rig):
    for size in (3, 2, 4):
        rig.block(size)
    first, second = rig.journal.take(5), rig.journal.take(1)
    assert first.samples["value"].tolist() == [0, 1, 2, 3, 4]
    assert second.samples["value"].tolist() == [5, 6, 7, 8]
    assert rig.journal.take(5) is None


def test_a_block_is_stored_when_it_is_and_all_before_it_are(rig):
    for size in (3, 2, 4):
        rig.block(size)
    first, second, third = (rig.journal.take(1) for _ in range(3))
    rig.journal.settle(second)
    assert rig.stored == []
    rig.journal.settle(first)
    assert rig.stored == [2]
    rig.journal.settle(third)
    assert rig.stored == [2, 3]
    assert len(rig.journal) == 0


def test_a_block_without_samples_is_stored_with_those_before_it(rig):
    rig.block(0)
    assert rig.stored == [1]
    rig.block(2)
    rig.block(0)
    assert rig.stored == [1]
    rig.journal.settle(rig.journal.take(9))
    assert rig.stored == [1, 3]


async def test_who_adds_waits_for_room_and_says_so(rig):
    rig.block(11)
    waiting = asyncio.create_task(rig.journal.room())
    await asyncio.sleep(0)
    assert rig.journal.wanted.is_set()
    stretch = rig.journal.take(100)
    await asyncio.sleep(0)
    assert not waiting.done(), "it is not stored yet"
    rig.journal.settle(stretch)
    await asyncio.wait_for(waiting, PATIENCE_S)


async def test_it_is_emptied_when_all_that_is_there_now_is_stored(rig):
    rig.block(2)
    waiting = asyncio.create_task(rig.journal.emptied())
    await asyncio.sleep(0)
    stretch = rig.journal.take(100)
    rig.block(2)
    rig.journal.settle(stretch)
    await asyncio.wait_for(waiting, PATIENCE_S)


def test_who_is_pressed_is_served_at_once(rig):
    rig.block(2)
    assert not rig.journal.wanted.is_set()
    rig.block(2, pressed=True)
    assert rig.journal.wanted.is_set()


def test_it_tells_for_how_long_nothing_was_stored(rig):
    rig.journal.stands_for(100 * NS_PER_S)
    rig.block(2)
    rig.block(2)
    assert rig.journal.stands_for(101 * NS_PER_S) == NS_PER_S
    rig.journal.settle(rig.journal.take(1))
    assert rig.journal.stands_for(105 * NS_PER_S) == 0
    assert rig.journal.stands_for(107 * NS_PER_S) == 2 * NS_PER_S
