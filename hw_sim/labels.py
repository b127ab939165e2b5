"""The ground truth: what was broken when, and how large that was, as JSON lines.

    {"type": "run", "seed", "started", "plant", "channels"}           once; `started` is t = 0, unix seconds
    {"type": "fault", "fault", "phase": "onset" | "end", "time", "t_s", "channels", "parameters"}
    {"type": "effect", "fault", "t_s", "since_onset_s", "channels"}   each second that a fault is on

An effect has per channel its `unit`, and of the last second, `healthy` (the twin's) and `actual`, each with
the `mean` and the `rms`, which is the mean of the ten 100 ms root mean squares. A device that is off shows
no effect. Flushed line by line.
"""

import json
import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TextIO

from hw_sim.bench import Bench
from hw_sim.fault import Fault
from hw_sim.plant import CHANNELS, STEP_S

__all__ = ["Labels"]

_SECOND: Final = round(1 / STEP_S)
_TENTH: Final = _SECOND // 10

_Readings = Mapping[str, float]


class Labels:
    """Writes the labels of one run."""

    def __init__(self, file: TextIO, bench: Bench, *, now: Callable[[], float]) -> None:
        self._file = file
        self._bench = bench
        self._now = now
        self._on: set[int] = set()
        self._actual: deque[_Readings] = deque(maxlen=_SECOND)
        self._healthy: deque[_Readings] = deque(maxlen=_SECOND)

    def start(self, *, seed: int) -> None:
        """All wires are up, and t = 0 is now."""
        self._write(type="run", seed=seed, started=self._now(), plant="pump skid", channels=dict(CHANNELS))
        self.step()

    def step(self) -> None:
        """Note what the bench's last step changed."""
        self._actual.append(self._bench.readings)
        self._healthy.append(self._bench.healthy)
        at_s = self._bench.at_s
        faults = self._bench.faults
        on = {place for place, fault in enumerate(faults) if fault.active(at_s)}
        for place in sorted(on ^ self._on):
            self._edge(faults[place], "onset" if place in on else "end", at_s)
        self._on = on
        for place in sorted(on):
            since_steps = round((at_s - faults[place].onset_s) / STEP_S)
            if since_steps and since_steps % _SECOND == 0 and not faults[place].downed_devices:
                self._effect(faults[place], at_s, since_s=since_steps // _SECOND)

    def _edge(self, fault: Fault, phase: str, at_s: float) -> None:
        self._write(
            type="fault",
            fault=fault.name,
            phase=phase,
            time=self._now(),
            t_s=round(at_s, 3),
            channels=fault.channels,
            parameters=dict(fault.parameters),
        )

    def _effect(self, fault: Fault, at_s: float, *, since_s: float) -> None:
        channels = {
            name: {
                "unit": CHANNELS[name],
                "healthy": _measured([readings[name] for readings in self._healthy]),
                "actual": _measured([readings[name] for readings in self._actual]),
            }
            for name in fault.channels
        }
        self._write(
            type="effect",
            fault=fault.name,
            t_s=round(at_s, 3),
            since_onset_s=float(since_s),
            channels=channels,
        )

    def _write(self, **line: Any) -> None:
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()


def _measured(values: Sequence[float]) -> Mapping[str, float]:
    pieces = [values[at : at + _TENTH] for at in range(0, len(values), _TENTH)]
    rms = [math.sqrt(math.fsum(value * value for value in piece) / len(piece)) for piece in pieces]
    return {"mean": math.fsum(values) / len(values), "rms": math.fsum(rms) / len(rms)}
