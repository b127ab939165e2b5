"""Whether anything grows, stays broken or is wrong: the gateway's load, and a wire fault every few seconds.

    soak.faults        wire faults that were switched on and off again, of all kinds
    soak.healed.p50    seconds from the end of a fault to the source being well: connected, with fresh samples
    soak.healed.max    and the longest
    soak.wrong         cells of the rings that are good and hold a value that the wire did not carry then
    soak.checked       cells that were good, and right
    soak.values        samples a second that came all the same; the reference is what was sent
    soak.resident      MiB by which the daemon has grown since its rings were full
    soak.descriptors   descriptors by which it has
    soak.log           lines a minute on its log
    soak.sums          sums of `soak_sums` that are off: what was sent, and is not accounted for

Each value of the load tells its channel and row (hw_sim/plants/load.py), so that a stale or shifted one
cannot look well. What no receiver can see is left out: lines without a checksum that have lost bits.
"""

import json
import random
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import numpy as np

from dxad.client import SyncClient
from dxad.types import State
from hw_sim.control import ask
from tests.bench import report, soak_sums
from tests.bench.report import Metric
from tests.bench.sources_gateway import VALUES_PER_S, configuration, load, process, ready

__all__ = ["measure"]

_INVISIBLE: Final = frozenset({"serial.dropped", "serial.bit_errors"})
_FAULT_S: Final = (1.0, 4.0)
_APART_S: Final = 2.0
_HEALS_WITHIN_S: Final = 60.0
_LOOK_S: Final = 0.1
_TURN: Final = 4096
_PER_UNIT: Final = 4
_APART: Final = 101
_EARLY, _STALE = 2, 150
"""Rows by which a value may be ahead of its slot, or behind: a slot waits one row for its poll's answer, and
that shows what is then; some faults hold values back, or freeze them."""
_FILLED_S: Final = 70.0
"""After so long the rings, which remember a minute, are all in memory."""
_FRESH: Final = 3


class _Rings:
    """Reads what is new in the daemon's rings, and holds it against what was sent."""

    def __init__(self, client: SyncClient, sources: Sequence[str]) -> None:
        self._client = client
        self._next: dict[str, int | None] = dict.fromkeys(sources)
        self._offset: dict[str, int] = {}
        """By source: the row of the load less the slot of the ring, as it was at first."""
        self.wrong: dict[str, int] = {}
        self.right = 0

    def look(self) -> None:
        """Check all rows since the last look."""
        for source, begin in self._next.items():
            found = self._client.rows("sources", source, start=begin)
            self._next[source] = found["next"]
            if found["values"]:
                self._check(source, found)

    def _check(self, source: str, found: Mapping[str, Any]) -> None:
        names = [each["id"].partition(".")[2] for each in found["channels"]]
        mine = [place for place, name in enumerate(names) if name[:1] == "c"]
        numbers = np.array([int(names[place][1:]) for place in mine])
        values = np.array(found["values"], dtype=np.float64)[:, mine]
        states = np.array([[int(each) for each in row] for row in found["states"]])[:, mine]
        good = states == State.GOOD
        if not good.any():
            return
        rows = (np.where(good, values, 0) * _PER_UNIT - _APART * numbers) % _TURN
        ahead = (rows - (found["first"] + np.arange(len(rows)))[:, None]) % _TURN
        if source not in self._offset:
            self._offset[source] = int(np.median(ahead[good]))
        off = (ahead - self._offset[source] + _TURN // 2) % _TURN - _TURN // 2
        bad = good & ((off > _EARLY) | (off < -_STALE) | (off != np.rint(off)))
        self.right += int(np.count_nonzero(good & ~bad))
        if bad.any():
            _say(f"           {source}: by {sorted(set(off[bad].tolist()))[:5]} rows")
            self.wrong[source] = self.wrong.get(source, 0) + int(np.count_nonzero(bad))


def measure(for_s: float, *, seed: int = 0, only: Sequence[str] = ()) -> dict[str, Metric]:
    """Soak it for about so many seconds; `only` are the faults to take, or the beginnings of their names."""
    rng = random.Random(seed)
    faults = [each for each in _faults() if not only or each.startswith(tuple(only))]
    with TemporaryDirectory(prefix="dxad-soak-") as name, load(Path(name), "") as offered:
        folder = Path(name)
        config = folder / "dxad.toml"
        config.write_text(configuration(folder, offered))
        log = folder / "dxad.log"
        with (
            log.open("wb") as file,
            process([sys.executable, "-m", "dxad", "run", "-c", str(config)], stderr=file) as daemon,
        ):
            before = ready(folder, daemon)
            lines, begun = _lines(log), time.monotonic()
            client = SyncClient(folder / "c.sock")
            rings = _Rings(client, list(before["sources"]))
            healed: list[tuple[float, str]] = []
            sizes: list[tuple[float, float, int]] = []
            while time.monotonic() < begun + for_s:
                fault = rng.choice(faults)
                ask(folder / "sim.sock", do="fault", fault=fault, on=True, settings={})
                time.sleep(rng.uniform(*_FAULT_S))
                ask(folder / "sim.sock", do="fault", fault=fault, on=False, settings={})
                took_s = _healed(client, fault.partition(".")[0])
                healed.append((took_s, fault))
                _say(f"{time.monotonic() - begun:7.1f} s  {fault:28} well after {took_s:5.2f} s")
                wrong = dict(rings.wrong)
                rings.look()
                if rings.wrong != wrong and fault not in _INVISIBLE:
                    _say(f"           wrong values marked good: {rings.wrong}")
                elif fault in _INVISIBLE:
                    rings.wrong = wrong
                sizes.append((time.monotonic() - begun, _resident_mib(daemon.pid), _descriptors(daemon.pid)))
                time.sleep(_APART_S)
            took_s = time.monotonic() - begun
            after = client.status()
            off = soak_sums.settled(
                lambda: soak_sums.of_all(client.status(), ask(folder / "sim.sock", do="status"))
            )
            for each in off:
                _say(f"           off: {each}")
            logged = _lines(log) - lines
    early = next((each for each in sizes if each[0] > _FILLED_S), sizes[0])
    times = sorted(each for each, _ in healed)
    came = sum(each["samples"] for each in after["sources"].values())
    came -= sum(each["samples"] for each in before["sources"].values())
    return {
        "soak.faults": Metric(value=len(healed), unit="faults"),
        "soak.healed.p50": Metric(value=times[len(times) // 2], unit="s"),
        "soak.healed.max": Metric(value=times[-1], unit="s", goal=30.0, at_most=True),
        "soak.wrong": Metric(value=sum(rings.wrong.values()), unit="values", goal=0, at_most=True),
        "soak.checked": Metric(value=rings.right, unit="values"),
        "soak.values": Metric(value=came / took_s, unit="1/s", reference=VALUES_PER_S),
        "soak.resident": Metric(value=sizes[-1][1] - early[1], unit="MiB", goal=5.0, at_most=True),
        "soak.descriptors": Metric(value=sizes[-1][2] - early[2], unit="descriptors", goal=1, at_most=True),
        "soak.sums": Metric(value=len(off), unit="sums", goal=0, at_most=True),
        "soak.log": Metric(value=60 * logged / took_s, unit="1/min", goal=60, at_most=True),
    }


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)  # noqa: T201


def _faults() -> list[str]:
    told = subprocess.run(
        [sys.executable, "-m", "hw_sim", "faults", "--json"], capture_output=True, check=True
    )
    wires = ("mqtt", "modbus", "opcua", "serial")
    return [each["fault"] for each in json.loads(told.stdout) if each["where"] in wires]


def _healed(client: SyncClient, source: str) -> float:
    """Seconds until the source is well."""
    begun, fresh, before = time.monotonic(), 0, -1
    while fresh < _FRESH:
        if time.monotonic() > begun + _HEALS_WITHIN_S:
            return _HEALS_WITHIN_S
        status = client.status()
        down = any(
            each["subject"] == source and each["code"] == "source.down" for each in status["conditions"]
        )
        of = status["sources"][source]
        grown = of["samples"] - sum(of["rejected"].values())
        fresh = fresh + 1 if not down and of["connected"] and -1 < before < grown else 0
        before = grown
        time.sleep(_LOOK_S)
    return time.monotonic() - begun - _FRESH * _LOOK_S


def _resident_mib(pid: int) -> float:
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(fields["VmRSS"].split()[0]) / 1024


def _descriptors(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def _lines(log: Path) -> int:
    return log.read_bytes().count(b"\n")


def main() -> int:
    """Soak, print, and say whether the goals are kept."""
    parser = report.parser("tests.bench.soak", __doc__)
    parser.add_argument("--for-s", type=float, default=600.0, help="seconds")
    parser.add_argument("--seed", type=int, default=0, help="of the order of the faults")
    parser.add_argument("--fault", action="append", default=[], help="only these, or those that begin so")
    asked = parser.parse_args()
    found = measure(asked.for_s, seed=asked.seed, only=asked.fault)
    return report.show(found, title="Faults for a long time", as_json=asked.json)


if __name__ == "__main__":
    sys.exit(main())
