"""An outbox whose file or log is damaged: it opens, what can be read is there, what is lost is said.

Nothing is delivered that was not appended.

DXAD_DAMAGED=200 damages more of them, and prints what was lost.
"""

import asyncio
import logging
import os
import random
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.durability.damage import damage
from tests.durability.ledger import Found, Ledger, look, verdict
from tests.durability.load import FILE, MARKS, name_of
from tests.patience import PATIENCE_S

FILES = int(os.environ.get("DXAD_DAMAGED", "8"))


@pytest.fixture(scope="module")
def killed(disk_folder):
    """What a process has left that was killed: a file, and a log that is not folded in."""
    command = [sys.executable, "-m", "tests.durability.load", str(disk_folder), "--records", "300", "--kill"]
    subprocess.run(command, cwd=Path(__file__).parents[2], check=False)
    assert (disk_folder / f"{FILE}-wal").stat().st_size > 50_000
    return disk_folder


@pytest.fixture
def taken_over_soon(monkeypatch):
    monkeypatch.setattr("dxad.outbox.front._HOUSEKEEPING_S", 0.02)


def untrue(ledger: Ledger, found: Found) -> list[str]:
    """What is delivered and was not appended so; of a sound file, also what is not in order."""
    loss = ["missing", "set aside", "comes again"]
    if found.set_aside or found.damaged:
        loss += ["order", "it was promised", "went,"]
    return [each for each in verdict(ledger, found) if not any(word in each for word in loss)]


def missing(ledger: Ledger, found: Found) -> list[str]:
    """What was promised, and a sink that carries every lane does not have and is not offered."""
    offered = {name_of(each.body) for each in (*found.offered["all"], *found.refused["all"])}
    known = offered | ledger.had["all"] | found.dead["all"].keys()
    return [each for each in ledger.stored if each not in known]


@pytest.mark.timeout(120 + 2 * FILES)
@pytest.mark.usefixtures("taken_over_soon")
@pytest.mark.parametrize("part", ["", "-wal"], ids=["file", "log"])
async def test_what_reads_is_there_and_what_is_lost_is_said(killed, tmp_path, caplog, part):
    caplog.set_level(logging.CRITICAL)
    ledger = Ledger.of(killed / MARKS)
    seen: Counter[str] = Counter()
    for number in range(FILES // 2):
        rng = random.Random(number)
        folder = tmp_path / str(number)
        folder.mkdir()
        for each in (FILE, f"{FILE}-wal", f"{FILE}-shm"):
            shutil.copy(killed / each, folder)
        how = damage(folder / (FILE + part), rng)
        beheaded = part and (folder / (FILE + part)).stat().st_size < 32  # as before anything was written
        async with asyncio.timeout(PATIENCE_S):
            found = await look(folder / FILE, whole=False)
        assert not untrue(ledger, found), (number, how)
        lost = missing(ledger, found)
        assert not lost or found.set_aside or found.damaged or beheaded, (number, how, lost)
        seen[f"{how}: set aside {bool(found.set_aside)}"] += 1
        seen["lost"] += len(lost)
        shutil.rmtree(folder)
    if FILES > 50:
        print(f"of {len(ledger.stored)} promised", *seen.items(), sep="\n")  # noqa: T201
