"""What was promised survives a power cut at any moment: files as the disk could hold them are opened again.

`python -m tests.bench.powercut --states 600` tries more.
"""

import random

import pytest

from tests.durability import powercut, strace
from tests.durability.disk import SECTOR, Disk
from tests.durability.strace import Call

pytestmark = pytest.mark.skipif(bool(strace.available()), reason=strace.available())

STATES = 24
FOLDER = "/somewhere"


@pytest.fixture(scope="module")
def traced(disk_folder):
    """A load, and where it was."""
    load = disk_folder / "load"
    load.mkdir()
    return powercut.record(load, disk_folder / "trace", records=80), load


@pytest.mark.timeout(120)
async def test_nothing_promised_is_missing_wherever_the_power_goes(traced, tmp_path):
    calls, load = traced
    async for each in powercut.judge(calls, load, tmp_path, STATES, seed=7):
        assert not each.faults, each
    assert each.promised > 300


@pytest.mark.timeout(120)
async def test_a_log_that_is_not_synced_is_found_out(traced, tmp_path):
    """Else the test above could not fail."""
    calls, load = traced
    ignore = powercut.wal_is_never_synced
    async for each in powercut.judge(calls, load, tmp_path, STATES, seed=7, ignore_sync=ignore):
        if any("missing" in fault for fault in each.faults):
            return
    pytest.fail("no cut has shown that the log was never synced")


def test_the_load_does_what_is_dangerous(traced):
    calls, load = traced
    disk = Disk(str(load))
    checkpoints = 0
    for each in calls:
        before = disk.unsynced("outbox.db")
        disk.do(each)
        checkpoints += each.what == "sync" and before > 0
    assert checkpoints >= 5
    assert disk.counts["sync"] > 50
    assert disk.counts["unlink"] >= 2  # the log, when the last connection closes in peace
    marks = [each.data.split()[0].decode() for each in calls if each.what == "mark"]
    assert {"stored", "had", "refused", "dropped", "began", "ended"} <= set(marks)


class TestDisk:
    """The simulated one."""

    @staticmethod
    def contents(tmp_path, *calls: Call, cuts: int = 60) -> set[bytes | None]:
        """All that is found of one file after so many cuts; None where there is none."""
        found = set()
        for seed in range(cuts):
            disk = Disk(FOLDER, seed=seed)
            for each in calls:
                disk.do(each)
            folder = tmp_path / str(seed)
            folder.mkdir()
            disk.cut(random.Random(seed), folder)
            file = folder / "f"
            found.add(file.read_bytes() if file.exists() else None)
        return found

    MADE = (Call("create", f"{FOLDER}/f"), Call("sync", FOLDER))
    SYNC = Call("sync", f"{FOLDER}/f")

    @staticmethod
    def write(byte: bytes, sectors: int, at: int = 0) -> Call:
        return Call("write", f"{FOLDER}/f", at * SECTOR, byte * SECTOR * sectors)

    def test_keeps_what_was_synced(self, tmp_path):
        found = self.contents(tmp_path, *self.MADE, self.write(b"a", 3), self.SYNC)
        assert found == {b"a" * SECTOR * 3}

    def test_may_keep_or_lose_each_sector_of_what_was_not(self, tmp_path):
        found = self.contents(
            tmp_path, *self.MADE, self.write(b"a", 2), self.SYNC, self.write(b"b", 2), cuts=200
        )
        halves = {(each[:1], each[SECTOR : SECTOR + 1]) for each in found if each is not None}
        assert halves == {(b"a", b"a"), (b"a", b"b"), (b"b", b"a"), (b"b", b"b")}
        assert any(b"ba" in each or b"ab" in each[:SECTOR] for each in found if each)  # torn within one

    def test_cuts_a_file_or_does_not(self, tmp_path):
        cut = Call("resize", f"{FOLDER}/f", SECTOR)
        found = self.contents(tmp_path, *self.MADE, self.write(b"a", 9), self.SYNC, cut)
        assert found == {b"a" * SECTOR, b"a" * SECTOR * 9}

    def test_may_lose_a_name_that_its_folder_was_not_synced_for(self, tmp_path):
        assert None in self.contents(tmp_path, self.MADE[0], self.write(b"a", 1), self.SYNC)

    def test_does_not_keep_what_a_failed_sync_may_have_lost(self, tmp_path):
        failed = Call("failed sync", f"{FOLDER}/f")
        found = self.contents(tmp_path, *self.MADE, self.write(b"a", 1), failed, self.SYNC)
        assert {len(each.strip(b"\0")) for each in found if each is not None} >= {0, SECTOR}
