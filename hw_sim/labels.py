"""The ground truth: what was broken when, and how large that was; as JSON lines, or as a table of edges.

    {"type": "run", "seed", "started", "plants", "channels"}          once; `started` is t = 0, unix seconds
    {"type": "fault", "fault", "phase": "onset" | "end", "time", "t_s", "channels", "parameters"}
    {"type": "effect", "fault", "t_s", "since_onset_s", "channels"}   each second of a fault's first minute,
                                                                      then each minute
    {"type": "label", "label", "phase", "time", "t_s", "plant", "row", "recorded", "says"}
                                                                      what a record says of itself

An effect has per channel its `unit`, and of the last second, `healthy` (the twin's) and `actual`, each with
the `mean` and the `rms`, which is the mean of the ten 100 ms root mean squares; null where the sensor showed
nothing. What breaks a device or a wire shows no effect in the plant.

A label's `row` counts in the record's file from 0, `recorded` is the time that the file has there, and `says`
what the label said. It is on from its onset's row to the one before its end's; one that is on at the end of
the record has no end.

The table is CSV with a line per edge and channel: `time,t_s,phase,fault,channel,parameters`. A label's fault
is `label:` and its name, and its channel is empty, for all of its plant. Both are flushed line by line.
"""

import csv
import json
import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TextIO

from hw_sim.bench import Bench
from hw_sim.fault import Fault
from hw_sim.plant import Place, Readings

__all__ = ["Labels"]

_TENTHS: Final = 10
_EACH_SECOND_S: Final = 60
_COLUMNS: Final = ("time", "t_s", "phase", "fault", "channel", "parameters")


class Labels:
    """Writes the labels of one run."""

    def __init__(self, file: TextIO, bench: Bench, *, now: Callable[[], float], as_csv: bool = False) -> None:
        self._file = file
        self._bench = bench
        self._now = now
        self._table = csv.writer(file, lineterminator="\n") if as_csv else None
        self._said: dict[str, Mapping[str, str]] = {}
        """By plant that plays a record, what that said of its last row."""
        self._second = max(1, round(1 / bench.step_s))
        self._actual: deque[Readings] = deque(maxlen=self._second)
        self._healthy: deque[Readings] = deque(maxlen=self._second)

    def start(self) -> None:
        """All wires are up, and t = 0 is now."""
        if self._table is not None:
            self._table.writerow(_COLUMNS)
        else:
            self._write(
                type="run",
                seed=self._bench.seed,
                started=self._now(),
                plants=[rig.name for rig in self._bench.rigs],
                channels={name: channel.unit for name, channel in self._bench.channels.items()},
            )
        self.step()

    def step(self) -> None:
        """Note what the bench's last step changed."""
        self._actual.append(self._bench.readings)
        self._healthy.append(self._bench.healthy)
        self.finish()
        for rig in self._bench.rigs:
            if rig.recorded is not None:
                self._record(rig.name, rig.recorded.place)
        for fault in self._bench.active:
            if fault.kind.where in {"plant", "sensor"}:
                self._effect(fault)

    def finish(self) -> None:
        """Note what has been switched since the last step."""
        for fault, phase, at_s in self._bench.take_edges():
            self._edge(fault, phase, at_s)

    def _edge(self, fault: Fault, phase: str, at_s: float) -> None:
        time, t_s = self._now() - (self._bench.at_s - at_s), round(at_s, 6)
        parameters = dict(fault.settings)
        if self._table is not None:
            told = json.dumps(parameters)
            self._table.writerows([time, t_s, phase, fault.name, each, told] for each in fault.channels)
            self._file.flush()
            return
        self._write(
            type="fault",
            fault=fault.name,
            phase=phase,
            time=time,
            t_s=t_s,
            channels=fault.channels,
            parameters=parameters,
        )

    def _record(self, plant: str, place: Place) -> None:
        before = self._said.get(plant, {})
        if place.labels == before:
            return
        self._said[plant] = place.labels
        for label, said in before.items():
            if place.labels.get(label) != said:
                self._label(plant, place, label, "end", said)
        for label, says in place.labels.items():
            if before.get(label) != says:
                self._label(plant, place, label, "onset", says)

    def _label(self, plant: str, place: Place, label: str, phase: str, says: str) -> None:
        time, t_s = self._now(), round(self._bench.at_s, 6)
        row: Mapping[str, Any] = {"plant": plant, "row": place.row, "recorded": place.time, "says": says}
        if self._table is not None:
            self._table.writerow([time, t_s, phase, f"label:{label}", "", json.dumps(row)])
            self._file.flush()
            return
        self._write(type="label", label=label, phase=phase, time=time, t_s=t_s, **row)

    def _effect(self, fault: Fault) -> None:
        if self._table is not None:
            return
        since_steps = self._bench.steps - math.ceil(fault.onset_s / self._bench.step_s - 1e-6)
        whole_s, before_s = (
            math.floor(self._bench.time_of(steps)) for steps in (since_steps, since_steps - 1)
        )
        every_s = 1 if whole_s <= _EACH_SECOND_S else _EACH_SECOND_S
        if since_steps == 0 or whole_s // every_s == before_s // every_s:
            return
        channels = {
            name: {
                "unit": self._bench.channels[name].unit,
                "healthy": _measured([readings[name] for readings in self._healthy]),
                "actual": _measured([readings[name] for readings in self._actual]),
            }
            for name in fault.channels
        }
        self._write(
            type="effect",
            fault=fault.name,
            t_s=round(self._bench.at_s, 6),
            since_onset_s=self._bench.time_of(since_steps),
            channels=channels,
        )

    def _write(self, **line: Any) -> None:
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()


def _measured(values: Sequence[float]) -> Mapping[str, float | None]:
    shown = [value for value in values if not math.isnan(value)]
    if not shown:
        return {"mean": None, "rms": None}
    tenth = max(1, len(shown) // _TENTHS)
    pieces = [shown[at : at + tenth] for at in range(0, len(shown), tenth)]
    rms = [math.sqrt(math.fsum(value * value for value in piece) / len(piece)) for piece in pieces]
    return {"mean": math.fsum(shown) / len(shown), "rms": math.fsum(rms) / len(rms)}
