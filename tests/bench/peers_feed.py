"""A plant for gateways: devices on a broker, 2,000 messages of `{"a":…,"b":…,"c":…}` a second between them.

    python -m tests.bench.peers_feed HOST:PORT SECONDS

It is the load of `python -m hw_sim load`, with one name for the first value of every device, and so on, as a
plant of many alike would have it. At the end it prints how many messages it has sent.
"""

import asyncio
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from hw_sim.cli.run import Outputs, operate
from hw_sim.load.plan import Plan
from hw_sim.scenario import Origin, Scenario, of

__all__ = ["DEVICES", "FIELDS", "PER_S", "TOPIC"]

PER_S: Final = 2_000
"""Messages."""
_RATE_HZ: Final = 100
DEVICES: Final = PER_S // _RATE_HZ
FIELDS: Final = ("a", "b", "c")
TOPIC: Final = "load/{:03d}"
"""Of a device."""


def main() -> int:
    """Send for so many seconds."""
    broker, for_s = sys.argv[1], float(sys.argv[2])
    outputs = Outputs(labels=Path(os.devnull), endpoints=False)
    ran = asyncio.run(operate(_scenario(broker, for_s), outputs))
    print(ran.wires[0].counts["sent"])  # noqa: T201
    return 0


def _scenario(broker: str, for_s: float) -> Scenario:
    plan = Plan(
        channels=DEVICES * len(FIELDS),
        rate_hz=_RATE_HZ,
        shares={"mqtt": 1.0},
        values_per_message=len(FIELDS),
        broker=broker,
    )
    document: dict[str, Any] = plan.document()
    for device in document["wires"]["mqtt"]["devices"].values():
        # The first two fields are the row's number and its time, which only a benchmark's devices send.
        device["fields"] = dict(zip(FIELDS, list(device["fields"].values())[2:], strict=True))
    return replace(of(document, Origin("peers")), duration_s=plan.duration_s(for_s))


if __name__ == "__main__":
    sys.exit(main())
