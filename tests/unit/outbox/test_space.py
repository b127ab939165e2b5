"""A disk that others fill stops nothing; what is written to it is known."""

import errno
import os
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from dxad.outbox import Limits, Outbox
from dxad.outbox.space import Space
from dxad.outbox.wear import Wear, written_bytes
from dxad.types import Lane
from tests.unit.outbox.records import codes, record, sql

MIB = 2**20
ALL = frozenset(Lane)
HOUR_NS = 3600 * 10**9

Make = Callable[..., Outbox]


def held(path: Path) -> int:
    return path.stat().st_blocks * 512


class TestSpace:
    async def test_is_taken_step_by_step_and_does_not_count_as_used(self, make, path):
        async with make(limits=Limits(reserve_bytes=2 * MIB)) as box:
            await box.subscribe("s", ALL)
            for n in range(40):
                await box._tidy()
                await box.append(record(f"a{n}"))
                assert box.snapshot()["bytes"] < 200_000
            told = box.snapshot()
            assert (told["reserved"], told["ballast"]) == (2 * MIB, 8 * MIB)
            assert held(path.with_name("outbox.db-wal")) >= 4 * MIB
            assert held(path.with_name("outbox.db-ballast")) == 8 * MIB
            assert sql(path, "SELECT count(*) FROM reserve") == [(0,)]
        assert 2 * MIB <= path.stat().st_size < 2.5 * MIB
        assert held(path) >= 2 * MIB

    async def test_goes_on_after_a_restart(self, make, path):
        limits = Limits(reserve_bytes=2 * MIB)
        async with make(limits=limits) as box:
            for _ in range(9):
                await box._tidy()
        async with make(limits=limits) as box:
            for _ in range(36):
                await box._tidy()
            assert box.snapshot()["reserved"] == 2 * MIB
            assert sql(path, "SELECT count(*) FROM reserve") == [(0,)]

    async def test_is_never_more_than_the_quota(self, make, path):
        async with make(max_bytes=MIB, limits=Limits(reserve_bytes=64 * MIB)) as box:
            for _ in range(36):
                await box._tidy()
        assert path.stat().st_size < 1.3 * MIB

    async def test_is_written_where_it_cannot_be_reserved(self, make, path, monkeypatch):
        def unsupported(*_: object) -> None:
            raise OSError(errno.EOPNOTSUPP, "no such thing here")

        monkeypatch.setattr("dxad.outbox.space._fallocate", unsupported)
        monkeypatch.setattr("dxad.outbox.space._PIECE_BYTES", MIB)
        limits, kept = Limits(reserve_bytes=MIB), path.with_name("kept.db")
        async with make(limits=limits) as box:
            assert box.snapshot()["ballast"] == MIB
            for n in range(8):
                await box._tidy()
                await box.append(record(f"a{n}"))
            assert box.snapshot()["ballast"] == 8 * MIB
            assert path.with_name("outbox.db-wal").stat().st_size == 4 * MIB
            for end in ("", "-wal"):  # as a power cut would leave them
                kept.with_name(kept.name + end).write_bytes(path.with_name(path.name + end).read_bytes())
        async with make(kept, limits=limits) as box:
            await box.subscribe("s", ALL)
            assert len(await box.fetch("s", 99)) == 8
            assert await box.append(record("b")) == 9
            assert not box.snapshot()["set_aside"]

    async def test_is_not_taken_unless_asked_for(self, make, path):
        async with make() as box:
            await box.append(record("a"))
            assert held(path) < MIB
            assert not path.with_name("outbox.db-ballast").exists()


FULL = """
import asyncio, os, sys
from pathlib import Path
from dxad.outbox import Limits, Outbox
from dxad.runtime.clock import SystemClock
from dxad.runtime.health import Health
from dxad.runtime.metrics import Metrics
from dxad.types import Lane, Record

folder = Path(sys.argv[1])
clock = SystemClock()
health = Health(clock)

def make():
    return Outbox(
        folder / "outbox.db", max_bytes=64 * 2**20, commit_window_s=0.001, health=health, metrics=Metrics(),
        clock=clock, limits=Limits(reserve_bytes=8 * 2**20),
    )

def fill():
    with (folder / "others").open("ab", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            pass
    assert os.statvfs(folder).f_bavail == 0

async def append(box, name, n, size=300):
    for k in range(n):
        await asyncio.wait_for(box.append(Record(f"{name}{k}", Lane.CRITICAL, bytes(size))), 60)

async def main():
    async with make() as box:
        await append(box, "before", 10)
        while box.snapshot()["reserved"] < 8 * 2**20:
            await box._tidy()
        await box._tidy()
        fill()
        await append(box, "full", 3000)
        assert not box.snapshot()["degraded"]
        await box._tidy()
        assert {each.code for each in health.active} == set(), health.active
    fill()
    async with make() as box:
        assert not (folder / "outbox.db-ballast").exists()
        await append(box, "again", 500)
        assert not box.snapshot()["degraded"]
        await box._tidy()
        assert {each.code for each in health.active} == {"outbox.cramped"}
        assert box.snapshot()["stored"]["critical"] == 3510
        stored = [box.append_bulk([bytes(1000)] * 50) for _ in range(500)]
        done = await asyncio.gather(*stored)
        assert not box.snapshot()["degraded"]
        left = box.snapshot()["stored"]
        assert left["critical"] == 3510 and 0 < left["bulk"] < 25_000, left
        assert box.snapshot()["dropped"]["bulk"] == 25_000 - left["bulk"]
        assert box.snapshot()["dropped_for"][0]["reason"] == "disk"
        (folder / "others").unlink()
        await box._tidy()
        assert (folder / "outbox.db-ballast").exists()
        assert "outbox.cramped" not in {each.code for each in health.active}

asyncio.run(main())
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small disk")
def test_a_full_disk_stops_neither_appends_nor_a_restart(tmp_path):
    (tmp_path / "full.py").write_text(textwrap.dedent(FULL))
    script = f'mount -t tmpfs -o size=40m none "$1" && exec {sys.executable} "$2" "$1"'
    folder = tmp_path / "disk"
    folder.mkdir()
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script, "sh", str(folder), str(tmp_path / "full.py")],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if "mount" in done.stderr and done.returncode == 32:
        pytest.skip("may not mount")
    assert done.returncode == 0, done.stderr


class TestWear:
    def test_is_what_was_written_in_a_day(self):
        wear = Wear()
        assert wear.per_day(0) is None
        wear.note(1000, 0)
        for tenth in range(1, 480):
            wear.note(1000 + tenth, tenth * HOUR_NS // 10)
        assert wear.per_day(48 * HOUR_NS) == 240
        wear.note(100, 48 * HOUR_NS - 1)  # another thread
        assert wear.per_day(48 * HOUR_NS - 1) == 240

    def test_a_young_run_is_measured_by_what_there_is_of_it(self):
        wear = Wear()
        wear.note(0, 0)
        wear.note(50, HOUR_NS // 2)
        assert wear.per_day(HOUR_NS // 2) == 2400

    def test_the_kernel_counts_it(self, tmp_path):
        before = written_bytes()
        (tmp_path / "file").write_bytes(bytes(100_000))
        after = written_bytes()
        assert before is None or after is None or after == before or after - before >= 100_000

    async def test_room_that_is_taken_once_is_not_what_a_day_writes(self, make, tmp_path, clock):
        async with make(tmp_path / "new.db", limits=Limits(reserve_bytes=8 * MIB)) as box:
            await box._tidy()
            for _ in range(140):
                await box._tidy()
            assert box.snapshot()["reserved"] >= 7 * MIB
            await clock.step(61 * 10**9)
            await box._tidy()
            told = box.snapshot()["written_per_day"]
            assert told is None or told < 24 * 60 * MIB

    async def test_beyond_the_budget_is_a_condition(self, make, health, clock):
        async with make(limits=Limits(wear_budget_bytes=1000)) as box:
            await box._tidy()
            for n in range(20):
                await box.append(record(f"a{n}", size=3000))
            await clock.step(61 * 10**9)
            await box._tidy()
            told = box.snapshot()["written_per_day"]
            if told is None:
                pytest.skip("the kernel does not count")
            assert (codes(health) == {"outbox.wear"}) == (told > 1000)
            box.adjust(max_bytes=MIB, commit_window_s=0.0)
            await box.append(record("b"))
            await clock.step(10**9)
            await box._tidy()
            assert codes(health) == set()


async def test_the_log_is_folded_in_between_commits(make, path):
    async with make(max_bytes=16 * MIB) as box:
        for _ in range(60):
            await box.append_bulk([bytes(1000)] * 20)
        size = path.stat().st_size
        await box._tidy()
        assert path.stat().st_size > size + 300_000
        assert sql(path, "SELECT count(*) FROM segments") == [(60,)]


async def test_a_file_that_is_made_anew_is_used_at_once(make, tmp_path):
    async with make(tmp_path / "new.db", limits=Limits(reserve_bytes=2**20)) as box:
        assert box.snapshot()["degraded"] is None


def test_a_log_that_a_full_disk_does_not_take_stays_and_nothing_else_fails(tmp_path):
    class Full:
        def execute(self, sql):
            error = sqlite3.OperationalError("database or disk is full")
            error.sqlite_errorcode = sqlite3.SQLITE_FULL if "checkpoint" in sql else sqlite3.SQLITE_IOERR
            raise error

    space = Space(tmp_path / "outbox.db", reserve=0, max_bytes=MIB)
    space.fold(Full())
