"""What the sources cost, from the wire to the ring, each figure beside its reference in the same run.

One part is a file of this folder, sources_PART.py, whose docstring says what its metrics are.
"""

import importlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from tests.bench import report
from tests.bench.report import Metric

__all__ = ["measure"]

PARTS: Final = {
    "mqtt": 0.0,
    "modbus": 0.0,
    "opcua": 0.0,
    "serial": 0.0,
    "paced": 8.0,
    "gateway": 10.0,
    "flood": 12.0,
}
"""By name, for how many seconds a run of it goes on; 0 where it decides itself."""


def measure(parts: Sequence[str], *, for_s: float | None = None) -> dict[str, Metric]:
    """The metrics of these parts."""
    found: dict[str, Metric] = {}
    for part in parts:
        print(f"{part} …", file=sys.stderr, flush=True)  # noqa: T201
        module = importlib.import_module(f"tests.bench.sources_{part}")
        run: Callable[..., Mapping[str, Metric]] = getattr(module, part)
        found |= run(for_s or PARTS[part]) if PARTS[part] else run()
    return found


def main() -> int:
    """Measure, print, and say whether the goals are kept."""
    parser = report.parser("tests.bench.sources", __doc__)
    parser.add_argument("--part", choices=PARTS, action="append", help="only this, and other --part")
    parser.add_argument("--for-s", type=float, help="seconds of each run of `gateway`")
    asked = parser.parse_args()
    found = measure(asked.part or list(PARTS), for_s=asked.for_s)
    return report.show(found, title="What the sources cost", as_json=asked.json)


if __name__ == "__main__":
    sys.exit(main())
