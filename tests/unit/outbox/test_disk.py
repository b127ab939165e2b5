"""What the outbox does with files that are damaged, old or new, and with disks that fail."""

import asyncio
import os
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from functools import partial

import pytest

from dxad.errors import ConfigError, NotConnected, OutboxFull
from dxad.event import decode
from dxad.outbox import Limits, Outbox, commits, database, schema
from dxad.outbox.leasing import Known
from dxad.types import Lane
from tests.unit.outbox.records import codes, file_size_limit, ids, overwrite, pragma, record, sql, until

ALL = frozenset(Lane)
MIB = 2**20

Make = Callable[..., Outbox]


class FailsLate(sqlite3.Connection):
    """Commits, and says that it could not."""

    fails = False

    def execute(self, sql, *values):
        done = super().execute(sql, *values)
        if sql == "COMMIT" and FailsLate.fails:
            FailsLate.fails = False
            raise sqlite3.OperationalError("disk I/O error")
        return done


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

    @pytest.mark.parametrize(
        ("wrong", "left"),
        [
            ("id = CAST(x'ff62' AS TEXT)", ["a", "c"]),
            ("lane = 66", ["a", "c"]),
            ("seq = 9223372036854775807", ["a", "c"]),
            ("seq = -5", ["a", "c"]),
            ("size = 9223372036854775807", ["a", "b", "c"]),
        ],
    )
    async def test_a_row_that_cannot_be_true_stops_nothing(self, make, path, metrics, wrong, left):
        async with make() as box:
            for each in "abc":
                await box.append(record(each))
        sql(path, f"UPDATE records SET {wrong} WHERE id = 'b'")
        async with make() as box:
            await box.subscribe("s", ALL)
            assert ids(await box.fetch("s", 3)) == left
            assert metrics.total("dxad_records_dead_total", reason="damaged") == 3 - len(left)
            assert await box.append(record("d")) == 4
            assert not box.snapshot()["degraded"]
            assert not box.snapshot()["set_aside"]

    @pytest.mark.parametrize(
        "wrong", ["lane = 66", "seq = 9223372036854775807", "sink = CAST(x'ff' AS TEXT)"]
    )
    async def test_a_sink_whose_place_cannot_be_true_gets_everything_again(self, make, path, wrong):
        async with make() as box:
            await box.subscribe("s", ALL)
            for each in "abc":
                await box.append(record(each))
            await box.ack("s", await box.fetch("s", 1))
        sql(path, f"UPDATE cursors SET {wrong} WHERE lane = 0")
        async with make() as box:
            await box.subscribe("s", ALL)
            assert ids(await box.fetch("s", 3)) == ["b", "c"]
            assert not box.snapshot()["set_aside"]

    @pytest.mark.parametrize("damage", ["header", "read-only", "format", "schema", "pages", "text"])
    async def test_a_damaged_file_is_set_aside(self, make, path, caplog, clock, damage):
        async with make() as box:
            for n in range(200):
                await box.append(record(f"a{n}", size=1000))
        match damage:
            case "header":
                overwrite(path, 0, bytes(100))
            case "read-only":
                overwrite(path, 18, b"\x06")
            case "format":
                overwrite(path, 47, b"\x44")
            case "schema":  # of which SQLite quotes a part that is no text
                overwrite(path, path.read_bytes().index(b"CREATE TABLE") + 8, b"\xe5")
            case "pages":
                for page in range(1, 8):
                    overwrite(path, page * 4096, b"\xff" * 64)
            case _:
                path.write_text("this is no database, " * 100)
        async with make() as box:
            stored = box.append(record("new"))
            while not stored.done():
                await clock.step(1_000_000_000)  # what is read-only is found out at the first write
            assert stored.result() > 0
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
        sql(path, "PRAGMA user_version=7")
        sql(path, "INSERT INTO _sqlite_migrations (migration_set, name) VALUES ('outbox', 'm007')")
        with pytest.raises(ConfigError, match="schema 7"):
            await make().open()

    @pytest.mark.parametrize("version", [4, 70])
    async def test_a_number_of_the_schema_that_is_damaged_is_mended(self, make, path, version):
        async with make() as box:
            await box.append(record("a"))
        sql(path, f"PRAGMA user_version={version}")
        async with make() as box:
            await box.subscribe("s", ALL)
            assert ids(await box.fetch("s", 2)) == ["a"]
            assert sql(path, "PRAGMA user_version") == [(database.SCHEMA_VERSION,)]
            assert not box.snapshot()["set_aside"]

    async def test_a_name_in_the_schema_that_is_damaged_is_damage(self, make, path):
        path.write_bytes(path.read_bytes().replace(b"attempts", b"attempt_"))
        async with make() as box:
            assert await box.append(record("a"))
            assert box.snapshot()["set_aside"]

    @pytest.mark.parametrize("table", ["cursors", "refusals"])
    async def test_a_place_that_is_not_as_it_was_written_is_no_place(self, make, path, table, caplog):
        limits = Limits(keep_ns=10**15)
        async with make(limits=limits) as box:
            for sink in ("s", "other"):
                await box.subscribe(sink, ALL)
            for each in "abc":
                await box.append(record(each))
            for sink in ("s", "other"):
                first, second = await box.fetch(sink, 2)
                await box.refuse(sink, [first], "no", most=9)
                await box.ack(sink, [second])
        wrong = {"cursors": "seq = 3 WHERE lane = 0 AND sink = 's'", "refusals": "seq = 9 WHERE sink = 's'"}
        sql(path, f"UPDATE {table} SET {wrong[table]}")
        async with make(limits=limits, gateway="gw") as box:
            for sink in ("s", "other"):
                await box.subscribe(sink, ALL)
            assert ids(await box.fetch("s", 3)) == ["a", "b", "c"]
            assert ids(await box.fetch("other", 3)) == ["c"]
            await until(lambda: box.snapshot()["stored"]["critical"] == 4)
            (event,) = (await box.fetch("other", 9))[1:]
            assert decode(event)["type"] == "dxad.outbox.rewound"
            assert decode(event)["data"]["sinks"] == ["s"]
        caplog.clear()
        async with make(limits=limits) as box:
            await box.subscribe("s", ALL)
        assert "damaged" not in caplog.text

    async def test_a_refusal_of_nobody_knows_whom_lets_all_begin_again(self, make, path):
        limits = Limits(keep_ns=10**15)
        async with make(limits=limits) as box:
            for sink in ("s", "other"):
                await box.subscribe(sink, ALL)
                await box.append(record(f"for {sink}"))
                await box.refuse(sink, await box.fetch(sink, 9), "no", most=9)
        sql(path, "UPDATE refusals SET sink = 'r' WHERE sink = 's'")
        async with make(limits=limits) as box:
            for sink in ("s", "other"):
                await box.subscribe(sink, ALL)
                assert ids(await box.fetch(sink, 9)) == ["for s", "for other"]

    async def test_a_consumer_whose_wish_is_damaged_is_given_everything(self, make, path):
        async with make() as box:
            await box.note_consumer("agent", Known("agent", {"types": ["x"]}, 7))
        sql(path, 'UPDATE consumers SET filter = \'{"types":["y\'')
        async with make() as box:
            assert await box.consumers() == [Known("agent", {}, 0)]


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
            monkeypatch.setattr(commits, "_MEMORY_MAX", 10_000)
            bulk = [box.append(record(f"b{n}", Lane.BULK, 1000)) for n in range(5)]
            critical = [box.append(record(f"c{n}", Lane.CRITICAL, 1000)) for n in range(12)]
            assert all(isinstance(each.exception(), OutboxFull) for each in bulk)
            assert [each.done() for each in critical] == [True] * 2 + [False] * 10
            assert metrics.by_label("dxad_records_dropped_total", "lane") == {"bulk": 5, "critical": 2}
            assert codes(health) == {"outbox.degraded", "outbox.full"}

    async def test_what_waited_in_memory_is_stored_in_the_order_it_came(self, make, tmp_path, clock):
        async with self.without_disk(make, tmp_path) as box:
            stored = []
            for n in range(3):
                stored.append(box.append(record(f"single {n}", Lane.BULK)))
                stored.append(box.append_bulk([b"batch %d" % n] * 3))
            in_memory = await box.fetch("s", 100)
            (tmp_path / "gone").mkdir()
            while not all(each.done() for each in stored):
                await clock.step(1_000_000_000)
            read = await box.fetch("s", 100)
            assert ids(read) == ids(in_memory)
            assert (
                [each.result() for each in stored]
                == [1, 4, 5, 8, 9, 12]
                == [read[n].seq for n in (0, 3, 4, 7, 8, 11)]
            )

    async def test_a_batch_is_told_the_place_of_its_last_record(self, make, tmp_path, clock):
        async with self.without_disk(make, tmp_path) as box:
            stored = box.append_bulk([b"1", b"2", b"3"])
            await box.ack("s", (await box.fetch("s", 100))[1:])  # the others need no disk any more
            (tmp_path / "gone").mkdir()
            while not stored.done():
                await clock.step(1_000_000_000)
            assert stored.result() == 0

    async def test_a_commit_that_failed_and_is_there_all_the_same_is_not_stored_twice(
        self, make, path, monkeypatch, clock
    ):
        """The sync failed, but not the disk: what stands in the log is read again."""
        monkeypatch.setattr(sqlite3, "connect", partial(sqlite3.connect, factory=FailsLate))
        async with make(commit_window_s=60.0) as box:
            await box.subscribe("s", ALL)
            await box.append(record("before"))
            monkeypatch.setattr(FailsLate, "fails", True)
            stored = [box.append(record("a", Lane.BULK)), box.append_bulk([b"1", b"2", b"3"])]
            stored.append(box.append(record("urgent")))
            await until(lambda: box.snapshot()["degraded"])
            stored.append(box.append_bulk([b"4"]))
            while not all(each.done() for each in stored):
                await clock.step(1_000_000_000)
            read = await box.fetch("s", 100)
            assert [each.body.strip(b".") for each in read] == [
                b"before", b"urgent", b"a", b"1", b"2", b"3", b"4",
            ]  # fmt: skip
            assert [each.result() for each in stored] == [read[n].seq for n in (2, 5, 1, 6)]
            assert box.backlog("s").pending == 7 == sum(box.snapshot()["stored"].values())

    async def test_a_disk_that_fails_is_not_asked_again_and_again(self, make, tmp_path, monkeypatch):
        async with self.without_disk(make, tmp_path) as box:
            monkeypatch.setattr(commits, "_COMMIT_BYTES", 1000)
            asked = []
            commit = box._store.commit
            monkeypatch.setattr(box._store, "commit", lambda *a, **k: (asked.append(1), commit(*a, **k))[1])
            for n in range(10):
                box.append(record(f"r{n}", size=900))
            await box._commits.commit()
            for _ in range(100):
                await asyncio.sleep(0)
            await box.fetch("s", 1)  # behind whatever the store's thread was given
            assert len(asked) == 1

    async def test_closing_tries_once_more_what_the_last_commit_did_not_store(self, make, monkeypatch):
        box = make(commit_window_s=60.0)
        await box.open()
        commit, fails = box._store.commit, [NotConnected("for a moment")]

        def commit_later(*records, **more):
            if fails:
                raise fails.pop()
            return commit(*records, **more)

        monkeypatch.setattr(box._store, "commit", commit_later)
        stored = box.append(record("a", Lane.NORMAL))
        await box.close()
        assert stored.result() == 1

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

    async def test_another_programs_database_is_left_alone(self, make, tmp_path, health):
        path = tmp_path / "theirs.db"
        sql(path, "CREATE TABLE orders (number)")
        before = path.read_bytes()
        async with make(path) as box:
            told = box.snapshot()["degraded"]
            assert "is no outbox, but another program's database (orders)" in told
            assert "outbox.degraded" in codes(health)
        assert path.read_bytes() == before

    async def test_what_cannot_be_a_file_is_named(self, make, tmp_path):
        (tmp_path / "folder").mkdir()
        async with make(tmp_path / "folder") as box:
            assert box.snapshot()["degraded"] == f"{tmp_path / 'folder'}: Is a directory"

    async def test_an_emptied_file_with_a_log_is_damage_and_what_the_log_has_is_kept(self, make, path):
        async with make() as box:
            await box.append(record("a"))
            log = path.with_name(path.name + "-wal").read_bytes()
        path.write_bytes(b"")
        path.with_name(path.name + "-wal").write_bytes(log)
        async with make() as box:
            await box.subscribe("s", ALL)
            assert box.snapshot()["set_aside"] is not None
            await until(lambda: box.backlog("s").pending)
            assert ids(await box.fetch("s", 2)) == ["a"]

    def test_the_daemons_process_never_loads_sqlite_utils(self, tmp_path):
        script = (
            "import sys; from pathlib import Path; from dxad.outbox import Outbox, database\n"
            "database.open_file(Path(sys.argv[1])).close(); assert 'sqlite_utils' not in sys.modules"
        )
        subprocess.run([sys.executable, "-c", script, str(tmp_path / "new.db")], check=True)
        assert sql(tmp_path / "new.db", "PRAGMA journal_mode") == [("wal",)]
