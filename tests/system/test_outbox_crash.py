"""Nothing that was acknowledged is missing, wherever a process was when it was killed."""

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dxad.outbox import Outbox
from dxad.runtime.clock import SystemClock
from dxad.runtime.health import Health
from dxad.runtime.metrics import Metrics
from dxad.types import Lane

ROUNDS = 8


def make(path: Path) -> Outbox:
    clock = SystemClock()
    return Outbox(
        path, max_bytes=2**30, commit_window_s=0.005, health=Health(clock), metrics=Metrics(), clock=clock
    )


CHILD = """
import asyncio, itertools, os, sys
from pathlib import Path
sys.path.insert(0, str(Path(sys.argv[2]).parent))
from dxad.types import Lane, Record
from test_outbox_crash import make

def acknowledged(id, done):
    os.write(1, (id + "\\n").encode())

async def main(path, round):
    async with make(path) as box:
        await box.subscribe("sink", frozenset(Lane))
        for n in itertools.count():
            lane = list(Lane)[n % 3]
            stored = box.append(Record(f"{round}-{n}", lane, os.urandom(300)))
            stored.add_done_callback(lambda done, id=f"{round}-{n}": acknowledged(id, done))
            if n % 50 == 0:
                await stored
            if n % 500 == 499:
                records = await box.fetch("sink", 100)
                os.write(1, "".join(f"taken {each.id}\\n" for each in records).encode())
                await box.ack("sink", records)

asyncio.run(main(Path(sys.argv[1]), sys.argv[3]))
"""


def run_and_kill(path: Path, round_: int, after_s: float) -> list[str]:
    """What a process said before it was killed: lines that it finished."""
    command = [sys.executable, "-c", CHILD, str(path), __file__, str(round_)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        first = child.stdout.readline()
        killer = time.monotonic() + after_s
        said = first
        while time.monotonic() < killer:
            said += child.stdout.read1(65536)
        child.send_signal(signal.SIGKILL)
        said += child.stdout.read()
    return [each for each in said.decode().split("\n")[:-1] if each]


async def stored_ids(path: Path) -> set[str]:
    async with make(path) as box:
        assert box.snapshot()["set_aside"] is None
        await box.subscribe("reader", frozenset(Lane))
        found: set[str] = set()
        while records := await box.fetch("reader", 1000):
            found |= {each.id for each in records}
            await box.ack("reader", records)
        await box.unsubscribe("reader")
        return found


@pytest.mark.timeout(60)
async def test_what_was_acknowledged_is_there_after_kill_9(tmp_path):
    path = tmp_path / "outbox.db"
    rng = random.Random(7)
    acknowledged: set[str] = set()
    taken: set[str] = set()
    for round_ in range(ROUNDS):
        said = run_and_kill(path, round_, rng.uniform(0.0, 0.4))
        taken |= {each.removeprefix("taken ") for each in said if each.startswith("taken ")}
        acknowledged |= {each for each in said if not each.startswith("taken ")}
        missing = acknowledged - taken - await stored_ids(path)
        assert not missing, f"round {round_}: {len(missing)} of {len(acknowledged)} are gone"
    assert len(acknowledged) > 100 * ROUNDS
