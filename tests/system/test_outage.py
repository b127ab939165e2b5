"""Long without a peer, into a quota that cannot hold it: what is left, and what is told of what is not.

DXAD_OUTAGE_DAYS=30 makes it a month.
"""

import asyncio
import os
import random
from collections import Counter

import pytest

from dxad import event
from dxad.outbox import Outbox, front
from dxad.runtime.clock import SteppedClock
from dxad.runtime.health import Health
from dxad.runtime.metrics import Metrics
from dxad.types import Lane, Record
from tests.patience import PATIENCE_S

ALL = frozenset(Lane)
DAYS = float(os.environ.get("DXAD_OUTAGE_DAYS", "1"))
PER_MINUTE = 10
AT_ONCE_MIN = 60
"""Minutes of it that are appended together."""
SHARES = {Lane.CRITICAL: 1, Lane.NORMAL: 3, Lane.BULK: 6}
KEPT = 0.25
"""About what share of it the quota can hold: all that is critical, and a part of the rest."""
BODY_BYTES = 150


def outbox(path, clock: SteppedClock, metrics: Metrics) -> Outbox:
    """With a quota that holds the share that is to be kept."""
    events = DAYS * 24 * 60 * PER_MINUTE
    return Outbox(
        path,
        max_bytes=int(KEPT * events * (BODY_BYTES + 120)),
        commit_window_s=0.0,
        health=Health(clock),
        metrics=metrics,
        clock=clock,
        gateway="gw",
    )


async def outage(box: Outbox, clock: SteppedClock) -> dict[Lane, list[str]]:
    """Append it; returns the ids in order."""
    rng = random.Random(1)
    appended: dict[Lane, list[str]] = {lane: [] for lane in Lane}
    for _ in range(int(DAYS * 24 * 60 / AT_ONCE_MIN)):
        futures = []
        for _ in range(AT_ONCE_MIN):
            clock.advance(clock.now() + 60_000_000_000)
            for lane in rng.choices(list(SHARES), list(SHARES.values()), k=PER_MINUTE):
                id_ = f"{lane.name}-{len(appended[lane])}"
                appended[lane].append(id_)
                futures.append(box.append(Record(id_, lane, id_.encode().ljust(BODY_BYTES, b"."))))
        await asyncio.gather(*futures, return_exceptions=True)
    return appended


async def drained(box: Outbox, sink: str) -> list[Record]:
    records: list[Record] = []
    while batch := await box.fetch(sink, 1000):
        await box.ack(sink, batch)
        records += batch
    return records


def told_of(record: Record) -> int:
    """How many records this one says were dropped."""
    if record.body.startswith(record.id.encode()):
        return 0
    told = event.decode(record)
    assert told["type"] == "dxad.outbox.dropped"
    return told["data"]["records"]


@pytest.mark.timeout(60 + 20 * DAYS)
async def test_the_newest_of_the_most_important_is_left_and_the_rest_is_told(disk_folder, monkeypatch):
    monkeypatch.setattr(front, "_HOUSEKEEPING_S", 0.05)
    clock, metrics = SteppedClock(), Metrics()
    path = disk_folder / "outage.db"
    async with outbox(path, clock, metrics) as box:
        await box.subscribe("s", ALL)
        appended = await outage(box, clock)
    async with outbox(path, clock, metrics) as box:  # the power comes back, and with it the peer
        await box.subscribe("s", ALL)
        found = await drained(box, "s")
        async with asyncio.timeout(PATIENCE_S):
            while metrics.total("dxad_records_dropped_total") > sum(map(told_of, found)):
                await asyncio.sleep(0.02)
                found += await drained(box, "s")
    told = [each for each in found if told_of(each)]
    got = {lane: [each.id for each in found if each.lane is lane and not told_of(each)] for lane in Lane}

    assert got[Lane.CRITICAL] == appended[Lane.CRITICAL]
    for lane in (Lane.NORMAL, Lane.BULK):
        assert len(got[lane]) < len(appended[lane])
        assert got[lane] == appended[lane][len(appended[lane]) - len(got[lane]) :], "not the newest"
    assert got[Lane.NORMAL], "all of it went"
    assert len(got[Lane.BULK]) < 0.05 * len(got[Lane.NORMAL]), "less important, and still there"

    lost = Counter({lane.name.lower(): len(appended[lane]) - len(got[lane]) for lane in Lane})
    assert +lost == Counter(metrics.by_label("dxad_records_dropped_total", "lane"))
    said = Counter()
    for each in told:
        for part in event.decode(each)["data"]["dropped"]:
            said[part["lane"]] += part["records"]
    assert said == +lost
