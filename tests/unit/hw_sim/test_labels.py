import io
import itertools
import json

import numpy as np
import pytest

from hw_sim.bench import Bench
from hw_sim.fault import parse
from hw_sim.labels import Labels
from hw_sim.plant import CHANNELS


def lines(seed, span_s, *faults):
    """The labels of a run whose clock starts at 1000 and moves with the plant."""
    file, bench = io.StringIO(), Bench(seed, [parse(text) for text in faults])
    labels = Labels(file, bench, now=lambda: 1000.0 + bench.at_s)
    labels.start(seed=seed)
    for _ in range(round(span_s * 100)):
        bench.step()
        labels.step()
    return [json.loads(line) for line in file.getvalue().splitlines()]


def test_the_first_line_describes_the_run():
    assert lines(7, 0.1) == [
        {"type": "run", "seed": 7, "started": 1000.0, "plant": "pump skid", "channels": dict(CHANNELS)}
    ]


def test_onset_and_end_are_labelled_when_they_happen():
    edges = [line for line in lines(1, 4.0, "source_down@1s..3s:device=plc") if line["type"] == "fault"]
    assert [(edge["phase"], edge["time"], edge["t_s"]) for edge in edges] == [
        ("onset", 1001.0, 1.0),
        ("end", 1003.0, 3.0),
    ]
    assert edges[0]["fault"] == "source_down"
    assert edges[0]["parameters"] == {"device": "plc"}
    assert edges[0]["channels"] == [name for name in CHANNELS if name.startswith("plc.")]


def test_a_fault_from_the_start_has_its_onset_at_zero():
    assert lines(1, 0.1, "blockage@0s")[1]["t_s"] == 0.0


def test_the_effect_is_told_once_a_second_while_the_fault_is_on():
    effects = [line for line in lines(1, 6.0, "bearing_wear@1.5s..4.6s") if line["type"] == "effect"]
    assert [(effect["since_onset_s"], effect["t_s"]) for effect in effects] == [
        (1.0, 2.5),
        (2.0, 3.5),
        (3.0, 4.5),
    ]
    assert all(effect["fault"] == "bearing_wear" for effect in effects)
    assert set(effects[0]["channels"]) == {"vib.x", "vib.y"}
    assert effects[0]["channels"]["vib.x"]["unit"] == "mm/s"


def test_a_device_that_is_off_shows_no_effect():
    assert not [line for line in lines(1, 5.0, "source_down@1s") if line["type"] == "effect"]


def test_an_effect_is_the_mean_and_rms_of_the_last_second(record):
    trace = record(1, 12.0, "bearing_wear@1s")
    *_, last = lines(1, 11.99, "bearing_wear@1s")
    assert last["since_onset_s"] == 10.0
    for key, values in (("actual", trace.actual), ("healthy", trace.healthy)):
        second = values["vib.x"][1001:1101]
        told = last["channels"]["vib.x"][key]
        assert told["mean"] == pytest.approx(second.mean())
        assert told["rms"] == pytest.approx(np.sqrt((second.reshape(10, 10) ** 2).mean(axis=1)).mean())


def test_overlapping_faults_are_labelled_each():
    found = lines(1, 3.0, "blockage@1s", "sensor_stuck@1.5s:channel=plc.flow")
    kinds = [(line["type"], line["fault"]) for line in found[1:]]
    assert kinds == [
        ("fault", "blockage"),
        ("fault", "sensor_stuck"),
        ("effect", "blockage"),
        ("effect", "sensor_stuck"),
        ("effect", "blockage"),
    ]


def test_lines_are_flushed_at_once():
    class Spy(io.StringIO):
        flushed = 0

        def flush(self):
            self.flushed = len(self.getvalue())

    spy, bench = Spy(), Bench(1, [parse("blockage@0s")])
    labels = Labels(spy, bench, now=itertools.count(1.0).__next__)
    labels.start(seed=1)
    assert spy.flushed == len(spy.getvalue()) > 0
