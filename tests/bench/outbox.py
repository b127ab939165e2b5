"""What the outbox costs, each figure beside its reference in the same run; on a real disk, please.

One part is a file of this folder, outbox_PART.py, whose docstring says what its metrics are.
"""

import importlib
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from tests.bench import report
from tests.bench.report import Metric

__all__ = ["measure"]

PARTS: Final = {"rates": 4.0, "slow": 4.0, "latency": 10.0, "telemetry": 10.0, "drain": 0.0}
"""By name, for how many seconds each of its figures is measured; 0 where it is a fixed number of records."""


def measure(parts: Sequence[str], folder: Path, *, for_s: float | None = None) -> dict[str, Metric]:
    """The metrics of these parts, on the disk that `folder` is on."""
    found: dict[str, Metric] = {}
    for part in parts:
        print(f"{part} …", file=sys.stderr, flush=True)  # noqa: T201
        module = importlib.import_module(f"tests.bench.outbox_{part}")
        run: Callable[[Path, float], Mapping[str, Metric]] = getattr(module, part)
        with tempfile.TemporaryDirectory(prefix="outbox-bench-", dir=folder) as scratch:
            found |= run(Path(scratch), for_s or PARTS[part])
    return found


def main() -> int:
    """Measure, print, and say whether the goals are kept."""
    parser = report.parser("tests.bench.outbox", __doc__)
    parser.add_argument("--part", choices=PARTS, action="append", help="only this, and other --part")
    parser.add_argument("--for-s", type=float, help="seconds of each figure")
    parser.add_argument("--folder", type=Path, default=Path(), help="on the disk to measure; default: here")
    asked = parser.parse_args()
    found = measure(asked.part or list(PARTS), asked.folder, for_s=asked.for_s)
    return report.show(found, title="What the outbox costs", as_json=asked.json)


if __name__ == "__main__":
    sys.exit(main())
