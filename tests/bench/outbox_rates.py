"""How fast records become durable, and how fast they go in and out.

single append            durable appends per second, one after the other, of 200 B critical records;
                         reference: append + fdatasync of the same bytes
log through the loop     what bounds it: the raw log itself, written by a thread that the event loop asks for
                         each record; reference: the same without a loop
single append, store     µs of the store thread's own time for one, SQLite and the sync within; reference: of
                         append + fdatasync
single append, syncs …   the first on a disk that is made slower, see `outbox_slow`
bulk in                  200 B bulk records per second, 256 to a commit; reference: the same in a raw log
bulk in and out          the same, while a sink takes as many out, 10,000 behind
rows in and out          the same as single events, 256 to a commit
written alone            bytes that the store had written to the disk for each of the first
written …                bytes that the store had written to the disk for each byte of records, meanwhile
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from dxad.outbox import Limits, Outbox
from dxad.outbox.wear import written_bytes
from dxad.runtime.clock import SystemClock
from dxad.runtime.health import Health
from dxad.runtime.metrics import Metrics
from dxad.runtime.worker import Worker
from dxad.types import Lane, Record
from tests.bench.outbox_disk import RECORD_BYTES, Log, percentile
from tests.bench.report import Metric

__all__ = ["make", "rates", "single"]

_BATCH: Final = 256
_BEHIND: Final = 10_000
_SLICE_S: Final = 0.25
"""What is measured and its reference take turns so long each."""
BODIES: Final = [n.to_bytes(4, "big") + b"." * (RECORD_BYTES - 4) for n in range(_BATCH)]


def make(path: Path, *, max_bytes: int = 256 * 2**20, window_s: float = 0.005, keep_ns: int = 0) -> Outbox:
    """An outbox on a real file."""
    clock = SystemClock()
    return Outbox(
        path, max_bytes=max_bytes, commit_window_s=window_s, health=Health(clock), metrics=Metrics(),
        clock=clock, limits=Limits(keep_ns=keep_ns, reserve_bytes=64 * 2**20),
    )  # fmt: skip


def rates(folder: Path, for_s: float) -> dict[str, Metric]:
    """Measure all of them."""
    return asyncio.run(_rates(folder, for_s))


async def _rates(folder: Path, for_s: float) -> dict[str, Metric]:
    found: dict[str, Metric] = {}
    found["single append"], found["written alone"] = await single(folder / "single.db", folder / "log", for_s)
    found["log through the loop"] = await _log_through_the_loop(folder / "log", for_s)
    found["single append, store"] = await _in_store(folder / "store.db", folder / "log", for_s)
    numbers = iter(range(2**31))
    async with make(folder / "bulk.db", max_bytes=64 * 2**20) as box:

        async def bulk() -> int:
            await box.append_bulk(BODIES)
            return _BATCH

        with Log.at(folder / "log") as log:
            found["bulk in"] = await _against(bulk, lambda: log.append(BODIES), for_s, 0.75, _BATCH)
    async with make(folder / "through.db") as box:
        await box.subscribe("s", frozenset(Lane))
        value, written = await _through(box, for_s, lambda: box.append_bulk(BODIES))
        found["bulk in and out"] = Metric(value=value, unit="records/s", goal=300_000)
        found["written bulk"] = Metric(value=written, unit="× the records", goal=4, at_most=True)
    async with make(folder / "kept.db", keep_ns=86_400 * 10**9) as box:
        await box.subscribe("s", frozenset(Lane))
        value, _ = await _through(box, for_s, lambda: box.append_bulk(BODIES))
        found["bulk in and out, kept until full"] = Metric(value=value, unit="records/s")
    async with make(folder / "rows.db") as box:
        await box.subscribe("s", frozenset(Lane))

        def rows() -> Awaitable[object]:
            stored = [box.append(Record(f"{next(numbers):032x}", Lane.NORMAL, each)) for each in BODIES]
            return stored[-1]

        value, written = await _through(box, for_s, rows)
        found["rows in and out"] = Metric(value=value, unit="records/s")
        found["written rows"] = Metric(value=written, unit="× the records")
    return found


async def single(path: Path, log_path: Path, for_s: float) -> tuple[Metric, Metric]:
    """One record after the other, each when the one before is durable; and what was written for each."""
    numbers = iter(range(2**31))
    async with make(path) as box:

        async def append() -> int:
            await box.append(Record(f"{next(numbers):032x}", Lane.CRITICAL, BODIES[0]))
            return 1

        await box.subscribe("s", frozenset({Lane.BULK}))
        before, _ = await box._in_thread(written_bytes)
        with Log.at(log_path) as log:
            found = await _against(append, lambda: log.append(BODIES[:1]), for_s, 0.9, 1)
        after, _ = await box._in_thread(written_bytes)
    each = None if before is None or after is None else (after - before) / next(numbers)
    return found, Metric(value=each, unit="bytes")


async def _log_through_the_loop(path: Path, for_s: float) -> Metric:
    thread = Worker("log")
    with Log.at(path) as log:

        async def append() -> int:
            await thread.run(lambda: log.append(BODIES[:1]))
            return 1

        found = await _against(append, lambda: log.append(BODIES[:1]), for_s, None, 1)
    thread.close()
    return found


async def _in_store(path: Path, log_path: Path, for_s: float) -> Metric:
    """What is not the loop's: the median, since a commit now and then folds the log in."""
    numbers = iter(range(2**31))
    took_s: list[float] = []
    async with make(path) as box:

        def commit() -> None:
            began = time.perf_counter()
            box._store.commit([Record(f"{next(numbers):032x}", Lane.CRITICAL, BODIES[0])])
            took_s.append(time.perf_counter() - began)

        async def append() -> int:
            await box._in_thread(commit)
            return 1

        with Log.at(log_path) as log:
            await _against(append, lambda: log.append(BODIES[:1]), for_s, None, 1)
            return Metric(
                value=percentile(took_s, 0.5) * 1e6, unit="µs", reference=percentile(log.took_s, 0.5) * 1e6
            )


async def _against(
    ours: Callable[[], Awaitable[int]],
    reference: Callable[[], None],
    for_s: float,
    goal: float | None,
    records: int,
) -> Metric:
    """Both in turn, until the time is over."""
    took = {True: 0.0, False: 0.0}
    done = {True: 0, False: 0}
    until = time.perf_counter() + for_s
    while (now := time.perf_counter()) < until:
        slice_ends = now + _SLICE_S
        while time.perf_counter() < slice_ends:
            done[True] += await ours()
        took[True] += time.perf_counter() - now
        now = time.perf_counter()
        while time.perf_counter() < now + _SLICE_S:
            reference()
            done[False] += records
        took[False] += time.perf_counter() - now
    return Metric(
        value=done[True] / took[True],
        unit="records/s",
        reference=done[False] / took[False],
        goal=goal,
        of_ratio=True,
    )


async def _through(
    box: Outbox, for_s: float, append: Callable[[], Awaitable[object]]
) -> tuple[float, float | None]:
    """Records per second that go in, and out as fast, `_BEHIND` after them; and bytes written for each."""
    for _ in range(_BEHIND // _BATCH):
        await append()
    before, _ = await box._in_thread(written_bytes)
    began = time.perf_counter()
    n = 0
    while time.perf_counter() < began + for_s:
        stored = append()
        records = await box.fetch("s", _BATCH)
        await box.ack("s", records)
        n += len(records)
        await stored
    took_s = time.perf_counter() - began
    after, _ = await box._in_thread(written_bytes)
    assert box.backlog("s").pending >= _BEHIND - 2 * _BATCH
    return n / took_s, None if before is None or after is None else (after - before) / n / RECORD_BYTES
