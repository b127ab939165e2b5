"""A single append where a sync takes 2 ms longer, as on an SSD without a capacitor or a good card.

This disk is not slower: strace holds each fdatasync back, of the outbox and of the raw log alike, in a
process of its own. So it is no measure of any disk; it says what is left of the hand-overs where the disk is
the slow one.

Source: strace(1), `--inject` with `delay_exit`.
"""

import asyncio
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import orjson

from tests.bench.outbox_rates import single
from tests.bench.report import Metric, document
from tests.durability import strace

__all__ = ["slow"]

_SYNCS = "fdatasync,fsync"
_LONGER_US = 2_000


def slow(folder: Path, for_s: float) -> Mapping[str, Metric]:
    """The metric; none where processes cannot be traced."""
    if strace.available():
        return {}
    command = [
        "strace", "-f", "-qq", "--seccomp-bpf", "-o", str(folder / "trace"), "-e", f"trace={_SYNCS}",
        "-e", f"inject={_SYNCS}:delay_exit={_LONGER_US}",
        sys.executable, "-m", "tests.bench.outbox_slow", str(folder), str(for_s),
    ]  # fmt: skip
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    found = orjson.loads(done.stdout)
    return {
        name: Metric(value=each["value"], unit=each["unit"], reference=each["reference"])
        for name, each in found.items()
    }


def _main() -> None:
    folder, for_s = Path(sys.argv[1]), float(sys.argv[2])
    found, _ = asyncio.run(single(folder / "slow.db", folder / "slow.log", for_s))
    metric = Metric(value=found.value, unit=found.unit, reference=found.reference)
    sys.stdout.buffer.write(orjson.dumps(document({"single append, syncs 2 ms longer": metric})))


if __name__ == "__main__":
    _main()
