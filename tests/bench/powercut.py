"""Does an outbox keep what it promised, wherever the power goes? Many times, after one traced load.

``states.broken`` of so many states that a disk could be in after a cut; its reference is what the same cuts
do to an outbox that does not sync its log before it promises, as `synchronous=NORMAL` does not.
``states.promised`` is how many records were promised at the last cut. With ``--fault`` the disk fails
besides, and there is no reference.
"""

import asyncio
import logging
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.progress import Progress

from tests.bench import report
from tests.bench.report import Metric
from tests.durability import powercut, strace
from tests.durability.load import FILE, make
from tests.durability.powercut import Cut

__all__ = ["measure"]


_FAULTS: Final = {
    "sync": "fdatasync:error=EIO:when=8..10",
    "syncs": "fdatasync:error=EIO:when=6+5",
    "write": "pwrite64:error=EIO:when=60..62",
    "full": "pwrite64:error=ENOSPC:when=60..70",
}
"""What strace puts in place of the kernel's answers, in each round of the load."""


def measure(folder: Path, *, states: int, records: int, seed: int, fault: str | None) -> dict[str, Metric]:
    """Trace a load in the folder, on whose disk it writes, and try the states."""
    load = folder / "load"
    load.mkdir()
    options = ["-e", f"inject={_FAULTS[fault]}"] if fault else []
    if fault:  # it is to be there when the faults begin
        asyncio.run(_made(load / FILE))
    before = powercut.contents(load)
    calls = powercut.record(load, folder / "trace", records=records, options=options)
    logging.disable(logging.CRITICAL)
    judge = partial(powercut.judge, calls, load, folder / "scratch", states, seed=seed, before=before)
    cuts = asyncio.run(_watched("cuts", judge(), states))
    lying: list[Cut] = []
    if not fault:
        ignore = powercut.wal_is_never_synced
        lying = asyncio.run(_watched("without syncs", judge(ignore_sync=ignore), states))
    broken = [each for each in cuts if each.faults]
    for each in broken:
        print(each, file=sys.stderr)  # noqa: T201
    return {
        "states.broken": Metric(
            value=len(broken),
            unit=f"of {states}",
            reference=sum(bool(each.faults) for each in lying) if lying else None,
            goal=0,
            at_most=True,
        ),
        "states.promised": Metric(value=cuts[-1].promised, unit="records"),
    }


async def _made(path: Path) -> None:
    async with make(path):
        pass


async def _watched(what: str, cuts: AsyncIterator[Cut], states: int) -> list[Cut]:
    judged = []
    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task(what, total=states)
        async for each in cuts:
            judged.append(each)
            progress.advance(task)
    return judged


def main() -> int:
    """Measure, print, and say whether the promise is kept."""
    parser = report.parser("tests.bench.powercut", __doc__)
    parser.add_argument("--states", type=int, default=600)
    parser.add_argument("--records", type=int, default=500, help="per round of the load")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--fault", choices=_FAULTS, help="what the disk does besides")
    parser.add_argument("--folder", type=Path, default=Path(), help="where, on a real disk (default: here)")
    asked = parser.parse_args()
    if why := strace.available():
        sys.exit(why)
    folder = Path(tempfile.mkdtemp(prefix=".powercut-", dir=asked.folder.absolute()))
    try:
        found = measure(
            folder, states=asked.states, records=asked.records, seed=asked.seed, fault=asked.fault
        )
    finally:
        shutil.rmtree(folder)
    return report.show(found, title="What power cuts do to the outbox", as_json=asked.json)


if __name__ == "__main__":
    sys.exit(main())
