"""What the plants did, step by step, as CSV: the same scenario and seed give the same bytes.

    t_s,motor.current,…,anomaly

`t_s` is the plant's time since the start. A cell is empty where the plant has made no step then, or its
sensor showed nothing; `anomaly` is 1 while a fault of a plant or a sensor is on, or the labels of
a recording say so.
"""

import math
from typing import TextIO

from hw_sim.bench import Bench

__all__ = ["Trace"]


class Trace:
    """Writes the trace of one run."""

    def __init__(self, file: TextIO, bench: Bench) -> None:
        self._file = file
        self._bench = bench

    def start(self) -> None:
        """Write the names of the columns, and the first row."""
        self._file.write(",".join(["t_s", *self._bench.channels, "anomaly"]) + "\n")
        self.step()

    def step(self) -> None:
        """Note the bench's last step."""
        bench = self._bench
        if not bench.stepped:
            return
        readings, cells = bench.readings, [repr(bench.at_s)]
        for rig in bench.rigs:
            if rig in bench.stepped:
                cells += ["" if math.isnan(value := readings[name]) else repr(value) for name in rig.channels]
            else:
                cells += [""] * len(rig.channels)
        broken = any(fault.kind.where in {"plant", "sensor"} for fault in bench.active)
        labelled = any(rig.recorded.place.labels for rig in bench.rigs if rig.recorded is not None)
        cells.append("1" if broken or labelled else "0")
        self._file.write(",".join(cells) + "\n")
