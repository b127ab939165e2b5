"""What is done about a damaged file: what reads of it is taken over, whatever is broken, and that is told."""

import asyncio
import os
import random
import sqlite3
import zlib
from collections.abc import Callable
from contextlib import closing

import pytest
import sqlite_utils

from dxad.event import decode
from dxad.outbox import Outbox, carving, database, salvage, schema, tables
from dxad.types import Lane, Record
from tests.patience import PATIENCE_S
from tests.unit.outbox.records import codes, ids, overwrite, record, sql

ALL = frozenset(Lane)
PAGE = 4096

Make = Callable[..., Outbox]


@pytest.fixture(autouse=True)
def often(monkeypatch):
    monkeypatch.setattr("dxad.outbox.front._HOUSEKEEPING_S", 0.02)


async def taken(box: Outbox, sink: str = "s") -> list[str]:
    found: list[str] = []
    while records := await box.fetch(sink, 1000):
        found += ids(records)
        await box.ack(sink, records)
    return found


async def filled(make: Make, *, delivered: int = 0) -> set[str]:
    """A file with records of all kinds; returns the ids of those that no sink has."""
    async with make() as box:
        await box.subscribe("s", ALL)
        for n in range(0, 300, 10):
            for k in range(n, n + 10):
                stored = box.append(record(f"a{k}", Lane.NORMAL, 900))
            await stored
            await box.append_bulk([b"%d" % k * 200 for k in range(n, n + 10)])
        had = await box.fetch("s", delivered) if delivered else []
        await box.ack("s", had)
        await box.append(record("last"))
        return set(ids(await box.fetch("s", 10_000)))


async def until_taken_over(box: Outbox) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while box.snapshot()["salvaged"] is None:  # noqa: ASYNC110 - what is waited for is a process
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("damage", ["header", "root", "leaves"])
async def test_what_reads_is_taken_over(make, path, damage):
    left = await filled(make)
    pages = path.stat().st_size // PAGE
    spoilt = {
        "header": lambda: overwrite(path, 0, bytes(100)),
        "root": lambda: [overwrite(path, page * PAGE, b"\xff" * 64) for page in range(1, 9)],
        "leaves": lambda: [overwrite(path, page * PAGE, os.urandom(64)) for page in range(10, pages, 10)],
    }
    spoilt[damage]()
    async with make(gateway="gw") as box:
        await box.subscribe("s", ALL)
        new = await box.append(record("new"))
        await until_taken_over(box)
        found = await taken(box)
        assert new
        assert len(found) == len(set(found))
        assert len(set(found) & left) > len(left) * (0.98 if damage == "header" else 0.6)
        assert box.snapshot()["salvaged"] == len(set(found) & left)
        (aside,) = path.parent.glob("outbox.db.damaged-*Z")
        assert aside.with_name(aside.name + ".taken-over").exists()


async def test_what_was_delivered_is_left_behind_and_the_report_says_so(make, path, monkeypatch):
    left = await filled(make, delivered=200)
    with monkeypatch.context() as patched:
        verdicts = iter(["it is said to be damaged"])
        patched.setattr(database, "check", lambda _: next(verdicts, "ok"))
        box = make(gateway="gw")
        await box.open()
    await box.subscribe("s", ALL)
    await until_taken_over(box)
    read: list[Record] = []
    while not any(each.id not in left for each in read):
        read = await box.fetch("s", 10_000)
    assert {each.id for each in read} >= left
    (report,) = [each for each in read if each.id not in left]
    told = decode(report)
    assert told["type"] == "dxad.outbox.salvaged"
    assert told["data"]["taken_over"] == len(left)
    assert (told["data"]["damaged"], told["data"]["complete"]) == (0, True)
    await box.close()


async def test_of_a_file_that_was_cut_off_is_told_how_much_is_gone(make, path):
    await filled(make)
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.truncate(size // 2)
    async with make(gateway="gw") as box:
        await box.subscribe("s", ALL)
        await until_taken_over(box)
        (told,) = [decode(each)["data"] for each in await box.fetch("s", 1000) if b"salvaged" in each.body]
        assert told["taken_over"] > 50
        assert told["missing_bytes"] == size - size // 2 // PAGE * PAGE


async def test_a_damaged_log_is_read_behind_the_damage(make, path, health):
    async with make() as box:
        await box.subscribe("s", ALL)
        for n in range(30):
            await box.append(record(f"r{n}", Lane.NORMAL, 1500))
            await box.append_bulk([b"%d" % n * 200])
        left = ids(await box.fetch("s", 100))
        log = path.with_name(path.name + "-wal").read_bytes()
        file = path.read_bytes()
    path.write_bytes(file)
    spoilt = bytearray(log)
    spoilt[32 + 10 * (PAGE + 24) + 2000] ^= 4
    path.with_name(path.name + "-wal").write_bytes(spoilt)
    async with make(gateway="gw") as box:
        await box.subscribe("s", ALL)
        assert "outbox.damaged" in codes(health) or box.snapshot()["salvaged"] is None
        await until_taken_over(box)
        assert not codes(health)
        found = await box.fetch("s", 1000)
        told = [decode(each)["data"] for each in found if each.id not in left]
        assert ids(found)[1:] == left  # in order, behind the event
        assert [each["damaged_log_frames"] for each in told] == [1]
        assert "frames of its log are damaged" in told[0]["reason"]


async def test_a_restart_goes_on_with_what_is_not_taken_over(make, path):
    left = await filled(make)
    overwrite(path, 0, bytes(100))
    async with make() as box:
        await box.append(record("new"))
    async with make() as box:
        await box.subscribe("s", ALL)
        await until_taken_over(box)
        assert set(await taken(box)) >= left | {"new"}
    async with make() as box:
        await box.subscribe("s", ALL)
        assert await taken(box) == []


async def test_a_large_file_is_checked_after_the_start(make, path, monkeypatch, clock):
    left = await filled(make)
    pages = path.stat().st_size // PAGE
    for page in range(20, pages, 7):
        overwrite(path, page * PAGE, os.urandom(64))
    monkeypatch.setattr(database, "_CHECKED_MOST", 0)
    async with make() as box:
        assert box.snapshot()["set_aside"] is None
        await box.subscribe("s", ALL)
        async with asyncio.timeout(PATIENCE_S):
            while box.snapshot()["salvaged"] is None:
                await clock.step(10**8)
                await asyncio.sleep(0.005)
        assert len(set(await taken(box)) & left) > len(left) * 0.5


def test_random_damage_never_makes_a_record_of_what_was_none(tmp_path, empty_file):
    rng = random.Random(5)
    path = tmp_path / "outbox.db"
    path.write_bytes(empty_file.read_bytes())
    with closing(database.open_file(path)) as connection:
        records = [record(f"r{n}", Lane(n % 3), rng.randrange(10, 9000)) for n in range(150)]
        tables.insert(connection, records, 1, 0)
    original = path.read_bytes()
    known = {(each.id, each.body) for each in records}
    for _ in range(60):
        data = bytearray(original)
        for _ in range(rng.randrange(1, 40)):
            at = rng.randrange(len(data) - 64)
            data[at : at + rng.randrange(1, 64)] = rng.randbytes(rng.randrange(1, 64))
        path.write_bytes(data)
        found = [row for kind, rows in salvage.said(path) if kind == "records" for row in rows]
        assert {(row[2], row[5]) for row in found} <= known
        path.with_name("outbox.db-wal").unlink(missing_ok=True)


def test_the_log_counts_as_far_as_it_is_whole(tmp_path, empty_file):
    path, copy = tmp_path / "outbox.db", tmp_path / "copy.db"
    path.write_bytes(empty_file.read_bytes())
    with closing(database.open_file(path)) as connection:
        for n in range(20):
            tables.insert(connection, [record(f"r{n}", size=5000)], n + 1, 0)
        copy.write_bytes(path.read_bytes())
        log = path.with_name("outbox.db-wal").read_bytes()
    kept = []
    for length in (len(log), len(log) // 2, 20):
        copy.with_name("copy.db-wal").write_bytes(log[:length])
        found = [values for _, values in carving.rows(carving.Pages(copy)) if len(values) == 8]
        kept.append(sum(str(values[2]).startswith("r") for values in found))
    assert kept[0] == 20 > kept[1] > kept[2] == 0


async def test_a_file_of_the_first_version_is_migrated(make, tmp_path):
    path = tmp_path / "old.db"
    body, id_, at_utc = b"body", "old", 1_600_000_000_000_000_000
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        schema.migrations.apply(
            sqlite_utils.Database(connection), stop_before="m002_segments_boots_consumers"
        )
        connection.execute("PRAGMA user_version=1")
        crc = zlib.crc32(body, zlib.crc32(id_.encode(), Lane.NORMAL))
        for seq, name, checksum in ((7, id_, crc), (8, "bad", crc)):
            connection.execute(
                "INSERT INTO records VALUES (?, 1, ?, ?, ?, ?)", (seq, name, at_utc, checksum, body)
            )
        connection.execute("INSERT INTO cursors VALUES ('s', 1, 3)")
        connection.execute("INSERT INTO refusals VALUES ('s', 7, 2, 'no')")
        connection.execute(
            "INSERT INTO dead_letters VALUES (1, 2, 's', 1, 'dead', ?, 'no', ?)", (body, at_utc)
        )
    async with make(path) as box:
        assert sql(path, "PRAGMA user_version") == [(database.SCHEMA_VERSION,)]
        await box.subscribe("s", ALL)
        (old,) = await box.fetch("s", 10)
        assert (old.id, old.seq, old.body, old.utc_ns) == (id_, 7, body, at_utc)
        assert old.boot.id == ""
        assert box.backlog("s").refused == 1
        assert box.snapshot()["dead_letters"] == 2
        assert box.snapshot()["lane_bytes"]["normal"] > 0
        assert await box.append(record("new", Lane.NORMAL)) > 8
