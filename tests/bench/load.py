"""Whether the simulator's load is more than any gateway is asked to take: each figure beside bare loops.

    gateway.WIRE.values   values a second that came to the null reader, of three times the gateway's load: 500
                          channels at 10 Hz, of which MQTT has 2,000 values/s, Modbus 1,500, OPC-UA 1,000 and
                          a serial line 500, all at once
    gateway.WIRE.lost     values that did not come, of those
    gateway.WIRE.p99      ms from the sending to the null reader; of Modbus, from a request to its answer
    gateway.cpu           processor time of the simulator, its broker included, as a share of one core, then
    mqtt_N.messages       messages a second of 3 values that came, of three times N, through a broker
    mqtt_N.lost, p99      as above
    mqtt_N.publish        us of the simulator's processor time for each of them
    mqtt_N.broker, reader us of the broker's and the null reader's

The references are the same load made by bare loops (tests/bench/load_reference.py) and read by the same
reader. That of MQTT has no broker.
"""

import asyncio
import functools
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from hw_sim.cli.run import moved
from hw_sim.load.check import FACTOR, Measured
from hw_sim.load.check import measure as simulated
from hw_sim.load.plan import Plan
from tests.bench import load_reference, report
from tests.bench.report import Metric

__all__ = ["measure"]

_GATEWAY: Final = Plan(channels=500, rate_hz=10.0)
_PER_MESSAGE: Final = 3
_MQTT: Final = {
    rate: replace(_GATEWAY, channels=rate // 10 * _PER_MESSAGE, shares={"mqtt": 1}) for rate in (5000, 20_000)
}
"""By messages a second."""
_ENOUGH: Final = 0.999


def both(plan: Plan, for_s: float) -> tuple[Measured, Measured]:
    """Three times the plan by the simulator, and by bare loops."""
    plan = plan.times(FACTOR)
    with TemporaryDirectory(prefix="hw_sim-") as folder:
        scenario = moved(plan.scenario(), any_port=True, links=Path(folder))
        mine = asyncio.run(simulated(plan, scenario, for_s=for_s))
    return mine, asyncio.run(load_reference.measure(plan, for_s=for_s))


def gateway(for_s: float) -> dict[str, Metric]:
    """All four wires at once."""
    mine, bare = both(_GATEWAY, for_s)
    found = {}
    for name, wire in mine.wires.items():
        found[f"gateway.{name}.values"] = Metric(
            value=wire.received_per_s,
            unit="1/s",
            reference=bare.wires[name].received_per_s,
            goal=_ENOUGH * wire.asked_per_s,
        )
        found |= lost_and_late(f"gateway.{name}", mine, bare, name)
    found["gateway.cpu"] = Metric(
        value=100 * (mine.simulator_cpu_s + mine.broker_cpu_s) / mine.elapsed_s,
        unit="% of a core",
        reference=100 * bare.simulator_cpu_s / bare.elapsed_s,
    )
    return found


def mqtt(rate: int, for_s: float) -> dict[str, Metric]:
    """MQTT alone."""
    mine, bare = both(_MQTT[rate], for_s)
    messages = {id(run): run.wires["mqtt"].received / _PER_MESSAGE for run in (mine, bare)}
    name = f"mqtt_{rate}"

    def us(run: Measured, cpu_s: float) -> float | None:
        return 1e6 * cpu_s / messages[id(run)] if messages[id(run)] else None

    return {
        f"{name}.messages": Metric(
            value=mine.wires["mqtt"].received_per_s / _PER_MESSAGE,
            unit="1/s",
            reference=bare.wires["mqtt"].received_per_s / _PER_MESSAGE,
            goal=_ENOUGH * FACTOR * rate,
        ),
        **lost_and_late(name, mine, bare, "mqtt"),
        f"{name}.publish": Metric(
            value=us(mine, mine.simulator_cpu_s), unit="us", reference=us(bare, bare.simulator_cpu_s)
        ),
        f"{name}.broker": Metric(value=us(mine, mine.broker_cpu_s), unit="us"),
        f"{name}.reader": Metric(
            value=us(mine, mine.reader_cpu_s), unit="us", reference=us(bare, bare.reader_cpu_s)
        ),
    }


def lost_and_late(name: str, mine: Measured, bare: Measured, wire: str) -> Mapping[str, Metric]:
    """What did not come, or not as it was, and how late the rest was."""
    spoilt = {id(run): wire_lost(run, wire) for run in (mine, bare)}
    return {
        f"{name}.lost": Metric(
            value=spoilt[id(mine)], unit="values", reference=spoilt[id(bare)], goal=0, at_most=True
        ),
        f"{name}.p99": Metric(value=mine.wires[wire].p99_ms, unit="ms", reference=bare.wires[wire].p99_ms),
    }


def wire_lost(run: Measured, wire: str) -> float:
    """Values that were lost, doubled, late or wrong."""
    of = run.wires[wire]
    return float(of.lost + of.doubled + of.late + of.wrong)


def measure(parts: Sequence[str], *, for_s: float) -> dict[str, Metric]:
    """The metrics of these parts."""
    found: dict[str, Metric] = {}
    for part in parts:
        print(f"{part} …", file=sys.stderr, flush=True)  # noqa: T201
        found |= PARTS[part](for_s)
    return found


PARTS: Final = {
    "gateway": gateway,
    **{f"mqtt_{rate}": functools.partial(mqtt, rate) for rate in _MQTT},
}


def main() -> int:
    """Measure, print, and say whether the goals are kept."""
    parser = report.parser("tests.bench.load", __doc__)
    parser.add_argument("--part", choices=PARTS, action="append", help="only this, and other --part")
    parser.add_argument("--for-s", type=float, default=10.0, help="seconds of each run")
    asked = parser.parse_args()
    found = measure(asked.part or list(PARTS), for_s=asked.for_s)
    return report.show(found, title="What load the simulator makes", as_json=asked.json)


if __name__ == "__main__":
    sys.exit(main())
