"""Disks that are full, read-only, broken or slow: nothing promised is lost, sinks are served, and it heals.

The full and the read-only disk are a small ext4 of the test's own, which takes root and a loop device. Errors
and stalls are strace's, put in place of what the kernel answers.
"""

import asyncio
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dxad.outbox.limits import Limits
from dxad.runtime.clock import SteppedClock
from dxad.types import Lane, Record
from tests.durability import powercut, strace
from tests.durability.ledger import Ledger, look, verdict
from tests.durability.load import FILE, MARKS, make
from tests.patience import PATIENCE_S

ALL = frozenset(Lane)
NO_STRACE = strace.available()
STALL_S = 0.3


def root(*command: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        list(map(str, command)), capture_output=True, text=True, check=False, timeout=PATIENCE_S
    )


class SmallDisk:
    """An ext4 of 48 MiB in a file, mounted."""

    def __init__(self, folder):
        self.path = folder / "mounted"
        self._image = folder / "image"
        self.path.mkdir()
        with self._image.open("wb") as file:
            file.truncate(48 * 2**20)
        made = root("mkfs.ext4", "-q", "-m", "0", self._image)
        self.why_not = made.stderr if made.returncode else self.mount()

    def mount(self) -> str:
        mounted = root("mount", "-o", "loop,errors=remount-ro", self._image, self.path)
        return mounted.stderr.strip() if mounted.returncode else ""

    def unmount(self) -> None:
        for _ in range(100):
            if not root("umount", self.path).returncode:
                return
            time.sleep(0.02)  # somebody looks at new mounts, or the outbox has not let go yet
        pytest.fail("the disk cannot be unmounted")

    def fill(self) -> None:
        """Until nothing goes on it any more."""
        with (self.path / "others").open("ab", buffering=0) as file:
            for size in (65536, 4096, 512):
                try:
                    while file.write(bytes(size)) == size:
                        pass
                except OSError:
                    continue

    def free(self) -> None:
        (self.path / "others").unlink()

    def break_down(self) -> None:
        """The kernel finds an error on it and makes it read-only, for as long as it is mounted."""
        device = root("findmnt", "-no", "SOURCE", self.path).stdout.strip().removeprefix("/dev/")
        Path(f"/sys/fs/ext4/{device}/trigger_fs_error").write_text("a test")

    def repair(self) -> None:
        self.unmount()
        root("e2fsck", "-fy", self._image)
        assert not self.mount()


@pytest.fixture
def small_disk(disk_folder, request):
    if os.geteuid():
        pytest.skip("only root may mount")
    folder = disk_folder / request.node.name
    folder.mkdir()
    try:
        disk = SmallDisk(folder)
    except FileNotFoundError as error:
        pytest.skip(str(error))
    if disk.why_not:
        pytest.skip(f"no disk of its own here: {disk.why_not}")
    yield disk
    disk.unmount()


def record(name: str, lane: Lane = Lane.CRITICAL) -> Record:
    return Record(name, lane, name.encode().ljust(1000, b"."))


async def stored(clock: SteppedClock, futures: list) -> list[int]:
    """Their seqs, once they are durable."""
    async with asyncio.timeout(PATIENCE_S):
        while not all(each.done() for each in futures):
            await clock.step(1_000_000_000)
            await asyncio.sleep(0.01)
    return [each.result() for each in futures]


async def ids(box, sink: str = "s") -> list[str]:
    return [each.id for each in await box.fetch(sink, 1000)]


async def fails(box) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not box.snapshot()["degraded"]:  # noqa: ASYNC110 - what is waited for happens in a thread
            await asyncio.sleep(0.01)


async def test_a_disk_that_others_fill_loses_nothing_and_stops_no_sink(small_disk):
    clock, path = SteppedClock(), small_disk.path / FILE
    early = [f"early {n}" for n in range(50)]
    late = [f"late {n}" for n in range(300)]  # more than what the file has to spare
    async with make(path, clock=clock) as box:
        await box.subscribe("s", ALL)
        await asyncio.gather(*(box.append(record(each)) for each in early))
        small_disk.fill()
        futures = [box.append(record(each)) for each in late]
        await fails(box)
        assert await ids(box) == early + late
        small_disk.free()
        assert 0 not in await stored(clock, futures)
        assert await ids(box) == early + late
    async with make(path) as box:
        await box.subscribe("s", ALL)
        assert await ids(box) == early + late


async def test_a_restart_on_a_full_disk_still_delivers(small_disk, monkeypatch):
    monkeypatch.setattr("dxad.outbox.front._HOUSEKEEPING_S", 0.02)  # the file grows a step each time
    clock, path = SteppedClock(), small_disk.path / FILE
    early = [f"early {n}" for n in range(50)]
    limits = Limits(reserve_bytes=2**19)  # the disk has hardly more to spare
    async with make(path, clock=clock, max_bytes=16 * 2**20, limits=limits) as box:
        await box.subscribe("s", ALL)
        await asyncio.gather(*(box.append(record(each)) for each in early))
        async with asyncio.timeout(PATIENCE_S):
            while box.snapshot()["reserved"] < limits.reserve_bytes:  # when nothing else is to be done
                await clock.step(1_000_000_000)
                await asyncio.sleep(0.01)
    small_disk.fill()
    async with make(path, clock=clock, max_bytes=16 * 2**20, limits=limits) as box:
        await box.subscribe("s", ALL)
        assert await stored(clock, [box.append(record("alarm"))]) == [51]
        assert await ids(box) == [*early, "alarm"]


async def test_a_disk_that_goes_read_only_loses_nothing_and_is_taken_up_again(small_disk):
    clock, path = SteppedClock(), small_disk.path / FILE
    async with make(path, clock=clock) as box:
        await box.subscribe("s", ALL)
        await box.append(record("before"))
        small_disk.break_down()
        futures = [box.append(record(each)) for each in ("alarm", "another")]
        await fails(box)
        assert {"alarm", "another"} <= set(await ids(box))
        small_disk.repair()
        assert 0 not in await stored(clock, futures)
        assert await ids(box) == ["before", "alarm", "another"]
        assert box.snapshot()["set_aside"] is None


async def run_load(folder: Path, inject: str, *, records: int = 150) -> tuple[Ledger, dict[str, bytes]]:
    """Run a load whose disk fails so; returns its marks, and what was there before it."""
    async with make(folder / FILE):
        pass
    before = powercut.contents(folder)
    command = [sys.executable, "-m", "tests.durability.load", str(folder), "--records", str(records)]
    strace.run(shlex.join(command), folder / "trace", options=["-e", f"inject={inject}"], timeout_s=60)
    return Ledger.of(folder / MARKS), before


@pytest.mark.skipif(bool(NO_STRACE), reason=NO_STRACE)
@pytest.mark.parametrize(
    "fault",
    [
        "fdatasync:error=EIO:when=8..9",
        "pwrite64:error=EIO:when=60..62",
        "pwrite64:error=ENOSPC:when=60..70",
    ],
)
async def test_errors_in_the_middle_of_a_load_lose_nothing(disk_folder, tmp_path, fault):
    folder = disk_folder / fault.replace(":", " ")
    folder.mkdir()
    ledger, before = await run_load(folder, fault)
    assert "INJECTED" in (folder / "trace").read_text()
    assert len(ledger.stored) >= 150
    assert not verdict(ledger, await look(folder / FILE))
    calls = list(strace.calls(folder / "trace", folder))
    async for each in powercut.judge(
        calls, folder, tmp_path, 6, seed=3, before=before
    ):  # and then the power goes
        assert not each.faults, each


@pytest.mark.skipif(bool(NO_STRACE), reason=NO_STRACE)
async def test_a_disk_that_stalls_does_not_stop_the_loop(disk_folder):
    folder = disk_folder / "stall"
    folder.mkdir()
    ledger, _ = await run_load(folder, f"fdatasync:delay_exit={STALL_S * 1e6:.0f}:when=8..10", records=100)
    assert "DELAYED" in (folder / "trace").read_text()
    assert ledger.late_ms < STALL_S * 1000 / 2
    assert not verdict(ledger, await look(folder / FILE))
