"""Nothing that was promised is missing, wherever a process was when it was killed.

DXAD_KILLS=100 kills more often.
"""

import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.durability.ledger import Ledger, look, verdict
from tests.durability.load import FILE, MARKS

KILLS = int(os.environ.get("DXAD_KILLS", "5"))


def run_and_kill(folder: Path, number: int, after_s: float) -> None:
    """Start a load that would go on for long, and kill it so long after its outbox is open."""
    command = [sys.executable, "-m", "tests.durability.load", str(folder)]
    command += ["--round", str(number), "--records", "1000000"]
    if number % 4 == 3:
        command += ["--quota", "500000"]
    marks = folder / MARKS
    with subprocess.Popen(command, cwd=Path(__file__).parents[2], stderr=subprocess.DEVNULL) as child:
        began = f"began {number} "
        while not (marks.exists() and began in marks.read_text()):
            assert child.poll() is None, f"round {number} ended by itself"
            time.sleep(0.01)
        time.sleep(after_s)
        child.kill()


@pytest.mark.timeout(60 + 10 * KILLS)
async def test_what_was_promised_is_there_after_kill_9(disk_folder):
    rng = random.Random(7)
    for number in range(KILLS):
        run_and_kill(disk_folder, number, rng.uniform(0.0, 0.4))
        copy = disk_folder / "copy"  # which is looked into, while the next round goes on with the original
        shutil.rmtree(copy, ignore_errors=True)
        copy.mkdir()
        for each in disk_folder.glob(f"{FILE}*"):
            shutil.copy(each, copy)
        ledger = Ledger.of(disk_folder / MARKS)
        assert not verdict(ledger, await look(copy / FILE)), f"round {number}"
    assert len(ledger.stored) > 20 * KILLS
    assert ledger.refused["all"]
