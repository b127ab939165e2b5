"""An outbox whose file is damaged: it opens, says what is lost, and delivers nothing that was not appended.

DXAD_DAMAGED=200 damages more of them.
"""

import asyncio
import logging
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.durability.damage import damage
from tests.durability.ledger import Found, Ledger, lane_of, look, verdict
from tests.durability.load import FILE, MARKS, name_of
from tests.patience import PATIENCE_S

FILES = int(os.environ.get("DXAD_DAMAGED", "12"))


@pytest.fixture(scope="module")
def killed(disk_folder):
    """What a process has left that was killed: a file, and a log that is not folded in."""
    command = [sys.executable, "-m", "tests.durability.load", str(disk_folder), "--records", "300", "--kill"]
    subprocess.run(command, cwd=Path(__file__).parents[2], check=False)
    assert (disk_folder / f"{FILE}-wal").stat().st_size > 50_000
    return disk_folder


def silently_lost(ledger: Ledger, found: Found) -> list[str]:
    """What is missing although the outbox said nothing of damage."""
    if found.set_aside or found.damaged:
        return []
    return [each for each in verdict(ledger, found) if "missing" in each]


def untrue(ledger: Ledger, found: Found) -> list[str]:
    """What is delivered and was not appended so, or not in that order."""
    loss = ("missing", "set aside")
    return [each for each in verdict(ledger, found) if not any(word in each for word in loss)]


def holes(ledger: Ledger, found: Found) -> list[str]:
    """What is missing although something later is there: the end of a log may be lost, not its middle."""
    names = [name_of(each.body) for each in found.offered["all"]]
    known = {*names, *ledger.had["all"], *ledger.refused["all"]}
    newest = {lane: max((ledger.appended[each] for each in names if lane_of(each) is lane), default=-1)
              for lane in map(lane_of, ledger.stored)}  # fmt: skip
    return [
        each
        for each in ledger.stored
        if each not in known and ledger.appended[each] < newest[lane_of(each)] and not each.endswith("-m")
    ]


@pytest.mark.timeout(60 + FILES)
@pytest.mark.parametrize("part", ["", "-wal"], ids=["file", "log"])
async def test_it_opens_and_loses_nothing_unsaid(killed, tmp_path, caplog, part):
    caplog.set_level(logging.CRITICAL)
    ledger = Ledger.of(killed / MARKS)
    seen = set()
    for number in range(FILES // 2):
        rng = random.Random(number)
        folder = tmp_path / str(number)
        folder.mkdir()
        for each in (FILE, f"{FILE}-wal"):
            shutil.copy(killed / each, folder)
        how = f"{number}: {damage(folder / (FILE + part), rng)}"
        async with asyncio.timeout(PATIENCE_S):
            found = await look(folder / FILE, whole=False)
        assert not untrue(ledger, found), how
        if part:  # SQLite takes a damaged log for one that ends there, as after a power cut
            assert found.set_aside or not holes(ledger, found), how
        else:
            assert not silently_lost(ledger, found), how
        seen.add((bool(found.set_aside), bool(silently_lost(ledger, found))))
        shutil.rmtree(folder)
    assert FILES < 50 or len(seen) > 1  # some damage mattered, some did not
