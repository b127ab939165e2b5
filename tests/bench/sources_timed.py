"""The daemon, noting how long after its sending each message is handed over to its ring's sealer.

    python -m tests.bench.sources_timed LATENCIES.json CONFIG

The times of sending are in the load's own payloads (hw_sim/load/plan.py): channels `sentNNN`, the column
`sent` of a serial line, and an OPC-UA value's source time. They are of the same machine's clock.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np

from dxad import daemon
from dxad.ingest import Ingest
from dxad.types import Block


def main() -> int:
    """Run it until it is told to stop."""
    into, config = Path(sys.argv[1]), Path(sys.argv[2])
    noted: dict[str, list[float]] = {}
    accept = Ingest.accept

    def accepting(self: Ingest, block: Block) -> None:
        accept(self, block)
        now, samples = time.time(), block.samples
        found = noted.setdefault(self.name, [])
        sent = [place for place, each in enumerate(self.ring.channels) if ".sent" in each.id]
        if sent:
            values = samples["value"][np.isin(samples["column"], sent)]
        else:
            values = samples["stamp"][samples["stamp"] > 0] / 1e9
        found.extend(((now - values) * 1e3).tolist())

    Ingest.accept = accepting  # type: ignore[method-assign]
    try:
        return daemon.run(config)
    finally:
        # The first second is of connecting, and of what had been waiting.
        into.write_text(json.dumps({name: late[len(late) // 10 :] for name, late in noted.items()}))


if __name__ == "__main__":
    sys.exit(main())
