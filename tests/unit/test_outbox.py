"""What the outbox promises, on real files."""

import asyncio
import os
import resource
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path

import pytest

from dxad.errors import ConfigError, NotConnected, OutboxFull
from dxad.outbox import Outbox, database, front, schema
from dxad.runtime.clock import SteppedClock
from dxad.runtime.health import Health
from dxad.runtime.metrics import Metrics
from dxad.types import Lane, Record

ALL = frozenset(Lane)
MIB = 2**20

Make = Callable[..., Outbox]


def record(id_: str, lane: Lane = Lane.CRITICAL, size: int = 20) -> Record:
    return Record(id_, lane, id_.encode().ljust(size, b"."))


def ids(records: list[Record]) -> list[str]:
    return [each.id for each in records]


async def until(true: Callable[[], object]) -> None:
    async with asyncio.timeout(5):
        while not true():  # noqa: ASYNC110 - what is waited for happens in a thread
            await asyncio.sleep(0.002)


@pytest.fixture
def clock() -> SteppedClock:
    return SteppedClock()


@pytest.fixture
def health(clock) -> Health:
    return Health(clock)


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture(scope="session")
def empty_file(tmp_path_factory) -> Path:
    """A migrated file, made once."""
    path = tmp_path_factory.mktemp("outbox") / "empty.db"
    database.open_file(path).close()
    return path


@pytest.fixture
def path(tmp_path, empty_file) -> Path:
    return Path(shutil.copy(empty_file, tmp_path / "outbox.db"))


@pytest.fixture
def make(path, clock, health, metrics) -> Make:
    """Makes outboxes on the test's file, to be make by `async with`."""

    def outbox(at: Path | None = path, *, max_bytes: int = 16 * MIB, commit_window_s: float = 0.0) -> Outbox:
        return Outbox(
            at,
            max_bytes=max_bytes,
            commit_window_s=commit_window_s,
            health=health,
            metrics=metrics,
            clock=clock,
        )

    return outbox


def sql(path: Path, statement: str, *values: object) -> list[tuple]:
    with closing(sqlite3.connect(path)) as connection, connection:
        return connection.execute(statement, values).fetchall()


async def pragma(box: Outbox, text: str) -> list[tuple]:
    """Ask SQLite something on the outbox's own connection."""
    answer, _ = await box._in_thread(lambda: box._store._connection.execute(f"PRAGMA {text}").fetchall())
    return answer


def overwrite(path: Path, at: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(data)


async def fill(box: Outbox, name: str, lane: Lane, n: int) -> None:
    """Append records of a kilobyte, 20 to a commit."""
    for first in range(0, n, 20):
        await asyncio.gather(
            *(box.append(record(f"{name}{k}", lane, 1000)) for k in range(first, min(n, first + 20)))
        )


def codes(health: Health) -> set[str]:
    return {each.code for each in health.active}


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """Writes beyond `size` fail with EFBIG, in any file: the nearest thing to a broken disk without root."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


class TestAppend:
    async def test_resolves_with_rising_seqs(self, make):
        async with make() as box:
            assert [await box.append(record(each)) for each in "abc"] == [1, 2, 3]

    async def test_what_resolved_is_in_the_file(self, make, path):
        async with make() as box:
            await box.append(record("a"))
            assert sql(path, "SELECT id FROM records") == [("a",)]

    async def test_an_id_is_stored_once(self, make, path):
        async with make() as box:
            first = await box.append(record("a"))
            again, other, twin = box.append(record("a")), box.append(record("b")), box.append(record("b"))
            assert await again == first
            assert await other == await twin
            assert sql(path, "SELECT count(*) FROM records") == [(2,)]

    async def test_an_id_is_stored_once_over_a_restart(self, make):
        async with make() as box:
            first = await box.append(record("a"))
        async with make() as box:
            assert await box.append(record("a")) == first

    async def test_a_normal_record_waits_for_the_window_and_a_critical_one_takes_it_along(self, make):
        async with make(commit_window_s=60) as box:
            normal = box.append(record("n", Lane.NORMAL))
            await asyncio.sleep(0.05)
            assert not normal.done()
            await box.append(record("c"))
            assert normal.done()

    async def test_256_records_do_not_wait(self, make):
        async with make(commit_window_s=60) as box:
            await asyncio.gather(*(box.append(record(str(n), Lane.BULK)) for n in range(256)))

    async def test_closing_makes_durable_what_waits(self, make):
        async with make(commit_window_s=60) as box:
            waiting = box.append(record("n", Lane.NORMAL))
            await box.close()
            await box.close()
            assert waiting.result() == 1
            with pytest.raises(RuntimeError, match="not open"):
                box.append(record("late"))

    async def test_a_caller_that_gave_up_does_no_harm(self, make, path):
        async with make(commit_window_s=60) as box:
            box.append(record("n", Lane.NORMAL)).cancel()
            await box.append(record("c"))
            assert sql(path, "SELECT count(*) FROM records") == [(2,)]

    async def test_works_in_memory(self, make):
        async with make(None) as box:
            await box.subscribe("s", ALL)
            await box.append(record("a"))
            assert ids(await box.fetch("s", 10)) == ["a"]

    async def test_leaves_no_thread(self, make):
        async with make() as box:
            assert any(each.name.startswith("store") for each in threading.enumerate())
            await box.close()
            assert not any(each.name.startswith("store") for each in threading.enumerate())


class TestSinks:
    async def test_get_the_most_important_lane_first_and_each_in_order(self, make):
        async with make() as box:
            for n, lane in enumerate([Lane.BULK, Lane.NORMAL, Lane.CRITICAL, Lane.BULK, Lane.CRITICAL]):
                box.append(record(f"{lane.name[0]}{n}", lane))
            await box.subscribe("s", ALL)
            await box.append(record("N5", Lane.NORMAL))
            assert ids(await box.fetch("s", 10)) == ["C2", "C4", "N1", "N5", "B0", "B3"]
            assert ids(await box.fetch("s", 3)) == ["C2", "C4", "N1"]

    async def test_get_the_same_again_until_they_ack(self, make):
        async with make() as box:
            await box.subscribe("s", ALL)
            for each in "abc":
                await box.append(record(each))
            first = await box.fetch("s", 2)
            assert await box.fetch("s", 2) == first
            await box.ack("s", first)
            assert ids(await box.fetch("s", 2)) == ["c"]

    async def test_a_new_one_gets_everything_still_stored(self, make):
        async with make() as box:
            await box.append(record("a"))
            await box.subscribe("late", ALL)
            assert ids(await box.fetch("late", 10)) == ["a"]

    async def test_see_their_lanes_only(self, make):
        async with make() as box:
            await box.subscribe("s", frozenset({Lane.NORMAL}))
            await box.append(record("c"))
            await box.append(record("n", Lane.NORMAL))
            assert ids(await box.fetch("s", 10)) == ["n"]
            assert box.backlog("s").pending == 1

    async def test_keep_their_place_over_a_restart(self, make):
        async with make() as box:
            await box.subscribe("s", ALL)
            await box.subscribe("other", ALL)
            for each in "ab":
                await box.append(record(each))
            await box.ack("s", await box.fetch("s", 1))
        async with make() as box:
            assert box.sinks == {"s", "other"}
            await box.subscribe("s", ALL)
            assert ids(await box.fetch("s", 10)) == ["b"]
            assert (box.backlog("s").pending, box.backlog("other").pending) == (1, 2)

    async def test_free_a_record_when_the_last_of_them_is_past_it(self, make, path):
        async with make() as box:
            await box.subscribe("s", ALL)
            await box.subscribe("slow", ALL)
            await box.append(record("a"))
            await box.ack("s", await box.fetch("s", 1))
            await box.append(record("b"))
            assert sql(path, "SELECT id FROM records") == [("a",), ("b",)]
            await box.ack("slow", await box.fetch("slow", 1))
            await until(lambda: sql(path, "SELECT id FROM records") == [("b",)])

    async def test_hold_nothing_once_unsubscribed(self, make, path):
        async with make() as box:
            await box.subscribe("s", ALL)
            await box.subscribe("gone", ALL)
            await box.append(record("a"))
            await box.ack("s", await box.fetch("s", 1))
            await box.unsubscribe("gone")
            await until(lambda: not sql(path, "SELECT id FROM records"))
        async with make() as box:
            assert box.sinks == {"s"}

    async def test_that_drop_a_lane_free_it(self, make, path):
        async with make() as box:
            await box.subscribe("s", ALL)
            await box.subscribe("other", ALL)
            await box.append(record("b", Lane.BULK))
            await box.ack("other", await box.fetch("other", 1))
            await box.subscribe("s", frozenset({Lane.CRITICAL}))
            await until(lambda: not sql(path, "SELECT id FROM records"))

    async def test_none_at_all_means_that_records_stay(self, make):
        async with make() as box:
            await box.append(record("a"))
        async with make() as box:
            assert box.snapshot()["stored"]["critical"] == 1

    async def test_seqs_do_not_go_back_when_everything_is_gone(self, make, path):
        async with make() as box:
            await box.subscribe("s", ALL)
            last = await box.append(record("a"))
            await box.ack("s", await box.fetch("s", 1))
            await until(lambda: not sql(path, "SELECT id FROM records"))
        async with make() as box:
            await box.subscribe("s", ALL)
            assert await box.append(record("b")) > last
            assert ids(await box.fetch("s", 1)) == ["b"]

    async def test_wait_without_polling(self, make):
        async with make() as box:
            await box.subscribe("s", ALL)
            assert await box.fetch("s", 10) == []
            waiting = asyncio.create_task(box.wait("s"))
            await asyncio.sleep(0.02)
            assert not waiting.done()
            box.append(record("a"))
            await waiting
            assert ids(await box.fetch("s", 10)) == ["a"]

    async def test_do_not_miss_what_comes_between_fetch_and_wait(self, make):
        async with make() as box:
            await box.subscribe("s", ALL)
            assert await box.fetch("s", 10) == []
            await box.append(record("a"))
            await asyncio.wait_for(box.wait("s"), 1)

    async def test_backlog_tells_how_much_and_how_old(self, make, clock):
        async with make() as box:
            await box.subscribe("s", ALL)
            await box.append(record("a"))
            await clock.step(7_000_000_000)
            await box.append(record("b"))
            told = box.snapshot()["sinks"]["s"]
            assert (told["pending"], told["oldest_s"]) == (2, 7.0)
            await box.ack("s", await box.fetch("s", 10))
            await box.append(record("c"))
            told = box.snapshot()["sinks"]["s"]
            assert (told["pending"], told["oldest_s"]) == (1, 0.0)


class TestRefused:
    @staticmethod
    @asynccontextmanager
    async def three(make) -> AsyncIterator[Outbox]:
        async with make() as box:
            await box.subscribe("s", ALL)
            for each in ("a", "poison", "c"):
                await box.append(record(each))
            yield box

    async def test_stands_aside_and_blocks_nobody(self, make):
        async with self.three(make) as box:
            a, poison, c = await box.fetch("s", 10)
            await box.refuse("s", [poison], "no", most=3)
            await box.ack("s", [a, c])
            assert await box.fetch("s", 10) == []
            assert await box.refused("s", 10) == [poison]
            assert (box.backlog("s").pending, box.backlog("s").refused) == (1, 1)

    async def test_last_of_a_batch_does_not_come_twice(self, make):
        async with self.three(make) as box:
            a, b, c = await box.fetch("s", 10)
            await box.refuse("s", [c], "no", most=3)
            await box.ack("s", [a, b])
            assert await box.fetch("s", 10) == []

    async def test_is_kept_until_it_is_taken(self, make, path):
        async with self.three(make) as box:
            a, poison, c = await box.fetch("s", 10)
            await box.refuse("s", [poison], "no", most=3)
            await box.ack("s", [a, c])
            await until(lambda: sql(path, "SELECT id FROM records") == [("poison",)])
            await box.ack("s", await box.refused("s", 10))
            await until(lambda: not sql(path, "SELECT id FROM records"))
            assert box.backlog("s").pending == 0

    async def test_goes_to_the_dead_letters_after_so_many_times_also_over_a_restart(
        self, make, path, metrics
    ):
        async with self.three(make) as box:
            a, poison, c = await box.fetch("s", 10)
            assert await box.refuse("s", [poison], "once", most=3) == 0
            await box.ack("s", [a, c])
        async with make() as box:
            await box.subscribe("s", ALL)
            assert await box.refuse("s", await box.refused("s", 10), "twice", most=3) == 0
            assert await box.refuse("s", await box.refused("s", 10), "thrice", most=3) == 1
            await until(lambda: box.snapshot()["dead_letters"] == 1)
            assert sql(path, "SELECT id, sink, reason FROM dead_letters") == [("poison", "s", "thrice")]
            assert not sql(path, "SELECT id FROM records")
            assert metrics.total("dxad_records_dead_total", sink="s") == 1

    async def test_by_one_sink_is_still_due_to_the_others(self, make, path):
        async with self.three(make) as box:
            await box.subscribe("other", ALL)
            a, poison, c = await box.fetch("s", 10)
            await box.dead_letter("s", poison, "no")
            await box.ack("s", [a, c])
            assert ids(await box.fetch("other", 10)) == ["a", "poison", "c"]
            await box.ack("other", await box.fetch("other", 10))
            await until(lambda: not sql(path, "SELECT id FROM records"))


class TestQuota:
    async def test_takes_the_oldest_of_the_least_important_lane(self, make, health, metrics):
        async with make(max_bytes=MIB) as box:
            await fill(box, "c", Lane.CRITICAL, 200)
            await fill(box, "n", Lane.NORMAL, 200)
            await fill(box, "b", Lane.BULK, 1000)
            told = box.snapshot()
            assert told["stored"]["critical"] == told["stored"]["normal"] == 200
            assert told["dropped"] == {"bulk": 1000 - told["stored"]["bulk"]}
            assert MIB * 0.9 < told["bytes"] <= MIB
            await box.subscribe("s", frozenset({Lane.BULK}))
            left = await box.fetch("s", 1000)
            assert ids(left) == [f"b{n}" for n in range(1000 - len(left), 1000)]
            (full,) = health.active
            assert full.code == "outbox.full"
            assert f"{metrics.total('dxad_records_dropped_total', lane='bulk')} bulk" in full.detail

    async def test_takes_critical_ones_only_when_there_is_nothing_else(self, make):
        async with make(max_bytes=MIB) as box:
            await fill(box, "n", Lane.NORMAL, 300)
            await fill(box, "c", Lane.CRITICAL, 1500)
            told = box.snapshot()
            assert told["stored"]["normal"] == 0
            assert told["dropped"] == {"normal": 300, "critical": 1500 - told["stored"]["critical"]}

    async def test_refuses_bulk_when_all_else_is_more_important(self, make):
        async with make(max_bytes=MIB) as box:
            await fill(box, "c", Lane.CRITICAL, 1200)
            with pytest.raises(OutboxFull):
                await box.append(record("b", Lane.BULK, 8000))

    async def test_is_no_condition_any_more_when_there_is_room(self, make, health):
        async with make(max_bytes=MIB) as box:
            await box.subscribe("s", ALL)
            await fill(box, "n", Lane.NORMAL, 1200)
            assert codes(health) == {"outbox.full"}
            await box.ack("s", await box.fetch("s", 1000))
            await until(lambda: not health.active)

    async def test_takes_dead_letters_first(self, make, metrics):
        async with make(max_bytes=MIB) as box:
            await box.subscribe("s", ALL)
            await fill(box, "p", Lane.NORMAL, 500)
            await box.refuse("s", await box.fetch("s", 1000), "no", most=1)
            await fill(box, "b", Lane.BULK, 400)
            assert box.snapshot()["stored"]["bulk"] == 400
            assert box.snapshot()["dead_letters"] < 500
            assert set(metrics.by_label("dxad_records_dropped_total", "lane")) == {"dead_letter"}

    async def test_takes_from_a_sinks_backlog_what_it_drops(self, make):
        async with make(max_bytes=MIB) as box:
            await box.subscribe("s", ALL)
            await fill(box, "n", Lane.NORMAL, 1500)
            assert box.backlog("s").pending == box.snapshot()["stored"]["normal"] < 1000


class TestDamage:
    async def test_a_record_whose_checksum_does_not_fit_is_never_delivered(self, make, path, metrics):
        async with make() as box:
            for each in "abc":
                await box.append(record(each))
        sql(path, "UPDATE records SET body = x'00' WHERE id = 'b'")
        async with make() as box:
            await box.subscribe("s", ALL)
            assert ids(await box.fetch("s", 2)) == ["a", "c"]
            assert sql(path, "SELECT id, reason FROM dead_letters") == [("b", "damaged")]
            assert metrics.total("dxad_records_dead_total", reason="damaged") == 1
            assert (box.backlog("s").pending, box.snapshot()["dead_letters"]) == (2, 1)

    @pytest.mark.parametrize("damage", ["header", "pages", "text"])
    async def test_a_damaged_file_is_set_aside(self, make, path, caplog, damage):
        async with make() as box:
            for n in range(200):
                await box.append(record(f"a{n}", size=1000))
        match damage:
            case "header":
                overwrite(path, 0, bytes(100))
            case "pages":
                for page in range(1, 8):
                    overwrite(path, page * 4096, b"\xff" * 64)
            case _:
                path.write_text("this is no database, " * 100)
        async with make() as box:
            assert await box.append(record("new")) == 1
            (aside,) = path.parent.glob("outbox.db.damaged-2023*Z")
            assert box.snapshot()["set_aside"] == str(aside)
            assert "set aside" in caplog.text

    async def test_damage_found_while_running_starts_a_fresh_file_without_losing_what_comes(
        self, make, path, clock
    ):
        async with make() as box:
            await box.subscribe("s", ALL)
            for n in range(200):
                await box.append(record(f"a{n}", size=1000))
            await box.ack("s", await box.fetch("s", 100))
            await box.append(record("last"))
            await pragma(box, "wal_checkpoint(TRUNCATE)")
            overwrite(path, 4096, os.urandom(path.stat().st_size - 4096))
            await pragma(box, "shrink_memory")  # or it would go on with the pages it has in memory
            stored = box.append(record("after"))
            await until(lambda: box.snapshot()["degraded"])
            while not stored.done():
                await clock.step(1_000_000_000)
            assert stored.result() > 0
            assert ids(await box.fetch("s", 10)) == ["after"]
            assert box.snapshot()["set_aside"]

    async def test_a_file_of_a_newer_dxad_is_refused(self, make, path):
        sql(path, "PRAGMA user_version=99")
        with pytest.raises(ConfigError, match="schema 99"):
            await make().open()


class TestBrokenDisk:
    @staticmethod
    @asynccontextmanager
    async def without_disk(make, tmp_path) -> AsyncIterator[Outbox]:
        """An outbox that cannot make its file: there is no such folder, until a test makes it."""
        async with make(tmp_path / "gone" / "outbox.db") as box:
            await box.subscribe("s", ALL)
            yield box

    async def test_records_wait_in_memory_and_become_durable_when_it_heals(
        self, make, tmp_path, clock, health
    ):
        async with self.without_disk(make, tmp_path) as box:
            waiting = [box.append(record(each)) for each in "ab"]
            await clock.step(60_000_000_000)
            assert codes(health) == {"outbox.degraded"}
            assert box.snapshot()["in_memory"] == 2
            assert not any(each.done() for each in waiting)
            (tmp_path / "gone").mkdir()
            while not waiting[0].done():
                await clock.step(1_000_000_000)
            assert [each.result() for each in waiting] == [1, 2]
            assert not health.active
            assert sql(tmp_path / "gone" / "outbox.db", "SELECT id FROM records") == [("a",), ("b",)]
            assert ids(await box.fetch("s", 10)) == ["a", "b"]

    async def test_sinks_are_served_from_memory(self, make, tmp_path):
        async with self.without_disk(make, tmp_path) as box:
            waiting = box.append(record("alarm"))
            await box.wait("s")
            (alarm,) = await box.fetch("s", 10)
            assert (alarm.id, alarm.seq) == ("alarm", 0)
            await box.ack("s", [alarm])
            assert await waiting == 0
            assert box.snapshot()["in_memory"] == 0
            assert await box.fetch("s", 10) == []

    async def test_memory_lets_go_of_a_record_only_when_all_sinks_have_it(self, make, tmp_path):
        async with self.without_disk(make, tmp_path) as box:
            await box.subscribe("other", ALL)
            box.append(record("alarm"))
            await box.ack("s", await box.fetch("s", 10))
            assert await box.fetch("s", 10) == []
            await box.refuse("other", await box.fetch("other", 10), "no", most=1)
            assert await box.fetch("other", 10) == []
            assert box.snapshot()["in_memory"] == 1

    async def test_memory_is_bounded(self, make, tmp_path, monkeypatch, metrics, health):
        async with self.without_disk(make, tmp_path) as box:
            monkeypatch.setattr(front, "_MEMORY_MAX", 10_000)
            bulk = [box.append(record(f"b{n}", Lane.BULK, 1000)) for n in range(5)]
            critical = [box.append(record(f"c{n}", Lane.CRITICAL, 1000)) for n in range(12)]
            assert all(isinstance(each.exception(), OutboxFull) for each in bulk)
            assert [each.done() for each in critical] == [True] * 2 + [False] * 10
            assert metrics.by_label("dxad_records_dropped_total", "lane") == {"bulk": 5, "critical": 2}
            assert codes(health) == {"outbox.degraded", "outbox.full"}

    async def test_closing_says_what_is_lost(self, make, tmp_path, metrics):
        async with self.without_disk(make, tmp_path) as box:
            waiting = box.append(record("a"))
            await box.close()
            assert isinstance(waiting.exception(), NotConnected)
            assert metrics.total("dxad_records_dropped_total") == 1

    async def test_a_restart_on_it_remembers_the_sinks_once_it_heals(self, make, path, clock):
        async with make() as box:
            await box.subscribe("s", ALL)
            for each in "ab":
                await box.append(record(each))
            await box.ack("s", await box.fetch("s", 1))
        hidden = path.rename(path.with_name("hidden"))
        path.mkdir()  # what cannot be opened as a file
        async with make() as box:
            await box.subscribe("s", ALL)
            assert box.snapshot()["degraded"]
            path.rmdir()
            hidden.rename(path)
            while box.snapshot()["degraded"]:
                await clock.step(1_000_000_000)
            assert ids(await box.fetch("s", 10)) == ["b"]

    async def test_failing_in_the_middle_loses_nothing_that_was_acknowledged(self, make, clock, health):
        async with make() as box:
            await box.subscribe("s", ALL)
            for n in range(20):
                await box.append(record(f"a{n}", size=1000))
            with file_size_limit(32 * 1024):
                waiting = [box.append(record(f"b{n}", size=1000)) for n in range(20)]
                await until(lambda: box.snapshot()["degraded"])
                assert codes(health) == {"outbox.degraded"}
            while not all(each.done() for each in waiting):
                await clock.step(1_000_000_000)
            assert ids(await box.fetch("s", 100)) == [f"a{n}" for n in range(20)] + [
                f"b{n}" for n in range(20)
            ]
            assert not health.active

    async def test_a_full_one_is_still_read_from(self, make, clock):
        async with make() as box:
            await box.subscribe("s", ALL)
            await box.append(record("a", size=1000))
            await pragma(box, "max_page_count=1")  # SQLite takes the present size: no page to spare
            waiting = box.append(record("b", size=20_000))
            await until(lambda: box.snapshot()["degraded"])
            assert "full" in box.snapshot()["degraded"]
            assert ids(await box.fetch("s", 10)) == ["a", "b"]
            await box.ack("s", await box.fetch("s", 1))
            assert ids(await box.fetch("s", 10)) == ["b"]
            await pragma(box, "max_page_count=100000")
            while not waiting.done():
                await clock.step(1_000_000_000)
            assert ids(await box.fetch("s", 10)) == ["b"]


class TestSchema:
    def test_version_is_the_number_of_migrations(self, empty_file):
        assert sql(empty_file, "PRAGMA user_version") == [(database.SCHEMA_VERSION,)]
        with closing(sqlite3.connect(":memory:")) as connection:
            schema.apply(connection)
            assert connection.execute("PRAGMA user_version").fetchone() == (database.SCHEMA_VERSION,)

    async def test_a_commit_is_synced_and_nothing_is_mapped(self, make):
        async with make() as box:
            assert await pragma(box, "synchronous") == [(2,)]
            assert await pragma(box, "journal_mode") == [("wal",)]
            assert await pragma(box, "mmap_size") == [(0,)]

    def test_the_daemons_process_never_loads_sqlite_utils(self, tmp_path):
        script = (
            "import sys; from pathlib import Path; from dxad.outbox import Outbox, database\n"
            "database.open_file(Path(sys.argv[1])).close(); assert 'sqlite_utils' not in sys.modules"
        )
        subprocess.run([sys.executable, "-c", script, str(tmp_path / "new.db")], check=True)
        assert sql(tmp_path / "new.db", "PRAGMA journal_mode") == [("wal",)]
