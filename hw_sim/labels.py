"""The ground truth: what was broken when, and how large that was, as JSON lines.

    {"type": "run", "seed", "started", "plant", "channels"}           once; `started` is t = 0, unix seconds
    {"type": "fault", "fault", "phase": "onset" | "end", "time", "t_s", "channels", "parameters"}
    {"type": "effect", "fault", "t_s", "since_onset_s", "channels"}   each second that a fault is on

An effect has, per channel, `healthy` and `actual`, each with the `mean` over the last second and its `rms`,
the mean of the ten 100 ms root mean squares. Flushed line by line.
"""

import json
import math
from collections.abc import Mapping
from typing import Any, TextIO

from hw_sim.bench import Bench
from hw_sim.fault import Fault
from hw_sim.plant import CHANNELS, STEP_S

__all__ = ["Labels"]

_SECOND = round(1 / STEP_S)
_TENTH = _SECOND // 10


class Labels:
    """Writes the labels of one run."""

    def __init__(self, file: TextIO, bench: Bench) -> None:
        self._file = file
        self._bench = bench
        self._started = 0.0
        self._on: set[int] = set()
        self._actual: dict[str, list[float]] = {}
        self._healthy: dict[str, list[float]] = {}

    def start(self, *, seed: int, started: float) -> None:
        """The run begins: all wires are up, and t = 0 is now, in unix seconds."""
        self._started = started
        self._write(type="run", seed=seed, started=started, plant="pump skid", channels=CHANNELS)

    def step(self) -> None:
        """Note what the bench's last step changed."""
        at_s = self._bench.at_s
        active = {place for place, fault in enumerate(self._bench.faults) if fault.active(at_s)}
        for place in sorted(active ^ self._on):
            self._edge(self._bench.faults[place], "onset" if place in active else "end", at_s)
        self._on = active
        for name in {name for place in active for name in self._bench.faults[place].channels}:
            for kept, now in ((self._actual, self._bench.readings), (self._healthy, self._bench.healthy)):
                values = kept.setdefault(name, [])
                values.append(now[name])
                del values[:-_SECOND]
        for place in sorted(active):
            self._effect(self._bench.faults[place], at_s)

    def _edge(self, fault: Fault, phase: str, at_s: float) -> None:
        self._write(
            type="fault", fault=fault.name, phase=phase, time=self._started + at_s, t_s=round(at_s, 3),
            channels=fault.channels, parameters=dict(fault.parameters),
        )  # fmt: skip
        for name in fault.channels:
            self._actual.pop(name, None)
            self._healthy.pop(name, None)

    def _effect(self, fault: Fault, at_s: float) -> None:
        since = at_s - fault.onset_s
        if round(since / STEP_S) % _SECOND or since < 1 or fault.kind.takes_down is not None:
            return
        channels = {
            name: {
                "unit": CHANNELS[name],
                "healthy": _measured(self._healthy[name]),
                "actual": _measured(self._actual[name]),
            }
            for name in fault.channels
        }
        self._write(
            type="effect",
            fault=fault.name,
            t_s=round(at_s, 3),
            since_onset_s=round(since, 3),
            channels=channels,
        )

    def _write(self, **line: Any) -> None:
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()


def _measured(values: list[float]) -> Mapping[str, float]:
    pieces = [values[at : at + _TENTH] for at in range(0, len(values) - _TENTH + 1, _TENTH)]
    rms = [math.sqrt(math.fsum(value * value for value in piece) / len(piece)) for piece in pieces]
    return {"mean": math.fsum(values) / len(values), "rms": math.fsum(rms) / len(rms)}
