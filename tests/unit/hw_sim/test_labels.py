"""The ground truth of a run, as JSON lines and as a table; and the trace of what the plants did."""

import csv
import io
import itertools
import json

import numpy as np
import pytest

from hw_sim.bench import Bench, Rig
from hw_sim.catalogue import Known, parse, parse_all
from hw_sim.labels import Labels
from hw_sim.plants import pump_skid
from hw_sim.trace import Trace
from tests.unit.hw_sim.rig import Counter, counting, known
from tests.unit.hw_sim.test_bench import Slow

DEVICES = {"plc": tuple(name for name in pump_skid.CHANNELS if name.startswith("plc."))}


def pump_bench(seed, *faults):
    rig = Rig("pump", pump_skid.build(pump_skid.Settings(), str(seed)))
    there = Known(rig.channels, {"pump": rig.shows}, DEVICES, {"plc": ("modbus", tuple(DEVICES))})
    return Bench([rig], seed=seed, faults=parse_all(faults, there))


def run(bench, span_s, *, as_csv=False):
    """What the labels of a run say whose clock starts at 1000 and moves with the plant."""
    file = io.StringIO()
    labels = Labels(file, bench, now=lambda: 1000.0 + bench.at_s, as_csv=as_csv)
    labels.start()
    while bench.at_s < span_s - 1e-9:
        bench.step()
        labels.step()
    return file.getvalue()


def lines(seed, span_s, *faults):
    return [json.loads(line) for line in run(pump_bench(seed, *faults), span_s).splitlines()]


def effects(bench, span_s):
    found = [json.loads(line) for line in run(bench, span_s).splitlines()]
    return [line for line in found if line["type"] == "effect"]


def test_the_first_line_describes_the_run():
    units = {name: channel.unit for name, channel in pump_skid.CHANNELS.items()}
    assert lines(7, 0.1) == [
        {"type": "run", "seed": 7, "started": 1000.0, "plants": ["pump"], "channels": units}
    ]


def test_onset_and_end_are_labelled_when_they_happen():
    edges = [line for line in lines(1, 4.0, "source_down@1s..3s:device=plc") if line["type"] == "fault"]
    assert [(edge["phase"], edge["time"], edge["t_s"]) for edge in edges] == [
        ("onset", 1001.0, 1.0),
        ("end", 1003.0, 3.0),
    ]
    assert edges[0]["fault"] == "source_down"
    assert edges[0]["parameters"] == {"device": "plc"}
    assert edges[0]["channels"] == [name for name in pump_skid.CHANNELS if name.startswith("plc.")]


def test_a_fault_from_the_start_has_its_onset_at_zero():
    assert lines(1, 0.1, "blockage@0s")[1]["t_s"] == 0.0


def test_a_fault_that_is_switched_by_hand_is_labelled_too():
    bench, file = counting(), io.StringIO()
    labels = Labels(file, bench, now=lambda: 1000.0 + bench.at_s)
    labels.start()
    fault = parse("stuck@0s:channel=count", known())
    for act in (lambda: None, lambda: bench.add(fault), lambda: bench.end(fault)):
        act()
        bench.step()
        labels.step()
    edges = [json.loads(line) for line in file.getvalue().splitlines()][1:]
    assert [(edge["phase"], edge["t_s"]) for edge in edges] == [("onset", 0.01), ("end", 0.02)]


def test_the_effect_is_told_once_a_second_while_the_fault_is_on():
    told = [line for line in lines(1, 6.0, "bearing_wear@1.5s..4.6s") if line["type"] == "effect"]
    assert [(effect["since_onset_s"], effect["t_s"]) for effect in told] == [
        (1.0, 2.5),
        (2.0, 3.5),
        (3.0, 4.5),
    ]
    assert all(effect["fault"] == "bearing_wear" for effect in told)
    assert set(told[0]["channels"]) == {"vib.x", "vib.y"}
    assert told[0]["channels"]["vib.x"]["unit"] == "mm/s"


def test_after_a_minute_the_effect_is_told_once_a_minute():
    told = effects(counting("step@1s:channel=count", step_s=0.1), 250.0)
    assert [each["since_onset_s"] for each in told] == [*map(float, range(1, 61)), 120.0, 180.0, 240.0]


@pytest.mark.parametrize(
    ("step_s", "since_s"),
    [
        (0.4, [1.2, 2.0, 3.2, 4.0, 5.2, 6.0]),  # at the first step of each second
        (2.0, [2.0, 4.0, 6.0]),
        (30.0, [30.0, 60.0, 120.0, 180.0]),
    ],
)
def test_the_effect_on_a_slow_plant_is_told_when_it_steps(step_s, since_s):
    bench = counting(f"step@{10 * step_s}s:channel=count", step_s=step_s)
    told = effects(bench, 10 * step_s + since_s[-1])
    assert [each["since_onset_s"] for each in told] == since_s
    assert all(each["t_s"] == pytest.approx(10 * step_s + each["since_onset_s"]) for each in told)


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


def test_an_effect_of_a_step_is_the_step():
    (effect,) = effects(counting("step@1s:channel=count,size=5"), 2.5)
    (told,) = effect["channels"].values()
    assert told["actual"]["mean"] - told["healthy"]["mean"] == pytest.approx(5.0)


def test_a_sensor_that_shows_nothing_has_no_mean():
    (effect,) = effects(counting("dropout@1s:channel=count,every=10s,width=5s"), 2.5)
    told = effect["channels"]["count"]
    assert told["actual"] == {"mean": None, "rms": None}
    assert told["healthy"]["mean"] == pytest.approx(150.5)


def test_overlapping_faults_are_labelled_each():
    found = lines(1, 3.0, "blockage@1s", "stuck@1.5s:channel=plc.flow")
    kinds = [(line["type"], line["fault"]) for line in found[1:]]
    assert kinds == [
        ("fault", "blockage"),
        ("fault", "stuck"),
        ("effect", "blockage"),
        ("effect", "stuck"),
        ("effect", "blockage"),
    ]


def test_the_table_has_a_line_for_each_edge_and_channel():
    bench = pump_bench(1, "blockage@1s..2s:size=0.5", "stuck@1.5s:channel=vib.z")
    rows = list(csv.DictReader(io.StringIO(run(bench, 3.0, as_csv=True))))
    assert [(row["t_s"], row["phase"], row["fault"], row["channel"]) for row in rows] == [
        ("1.0", "onset", "blockage", "plc.flow"),
        ("1.0", "onset", "blockage", "plc.pressure"),
        ("1.5", "onset", "stuck", "vib.z"),
        ("2.0", "end", "blockage", "plc.flow"),
        ("2.0", "end", "blockage", "plc.pressure"),
    ]
    assert float(rows[0]["time"]) == 1001.0
    assert json.loads(rows[0]["parameters"]) == {"plant": "pump", "size": 0.5, "ramp": 10.0}


def test_table_and_lines_tell_the_same_edges():
    faults = ("blockage@0s..2s", "source_down@500ms..1s:device=plc", "dropout@1s:channel=vib.y")
    told = [line for line in lines(3, 3.0, *faults) if line["type"] == "fault"]
    expected = {
        (each["time"], each["phase"], each["fault"], name) for each in told for name in each["channels"]
    }
    rows = csv.DictReader(io.StringIO(run(pump_bench(3, *faults), 3.0, as_csv=True)))
    assert {(float(row["time"]), row["phase"], row["fault"], row["channel"]) for row in rows} == expected


@pytest.mark.parametrize("as_csv", [False, True])
def test_lines_are_flushed_at_once(as_csv):
    class Spy(io.StringIO):
        flushed = 0

        def flush(self):
            self.flushed = len(self.getvalue())

    spy, bench = Spy(), counting("blockage@0s")
    Labels(spy, bench, now=itertools.count(1.0).__next__, as_csv=as_csv).start()
    assert spy.flushed == len(spy.getvalue()) > 0


# --- the trace ---


def traced(bench, span_s):
    file = io.StringIO()
    trace = Trace(file, bench)
    trace.start()
    while bench.at_s < span_s - 1e-9:
        bench.step()
        trace.step()
    return file.getvalue()


def test_the_same_scenario_and_seed_give_the_same_bytes():
    faults = ("noise_burst@1s:channel=vib.x", "spike@500ms:channel=plc.flow,every=300ms", "blockage@1s")
    one, again = (traced(pump_bench(5, *faults), 3.0) for _ in range(2))
    assert one == again
    assert one != traced(pump_bench(6, *faults), 3.0)
    labels = [run(pump_bench(5, *faults), 3.0) for _ in range(2)]
    assert labels[0] == labels[1]


def test_a_trace_has_a_row_for_each_step_with_every_digit():
    bench = pump_bench(1, "blockage@1s..2s")
    header, *rows = csv.reader(io.StringIO(traced(bench, 3.0)))
    assert header == ["t_s", *pump_skid.CHANNELS, "anomaly"]
    assert [float(row[0]) for row in rows] == [round(0.01 * step, 9) for step in range(301)]
    assert dict(zip(header[1:-1], map(float, rows[-1][1:-1]), strict=True)) == bench.readings
    assert [row[-1] for row in rows] == ["0"] * 100 + ["1"] * 100 + ["0"] * 101


def test_a_trace_is_empty_where_a_sensor_shows_nothing():
    header, *rows = csv.reader(io.StringIO(traced(counting("dropout@20ms:channel=count,width=20ms"), 0.05)))
    assert [row[header.index("count")] for row in rows] == ["0.0", "1.0", "", "", "4.0", "5.0"]


def test_a_trace_is_empty_where_a_plant_has_made_no_step():
    bench = Bench([Rig("fast", Counter(0.01)), Rig("slow", Slow(0.02))], seed=1)
    header, *rows = csv.reader(io.StringIO(traced(bench, 0.04)))
    assert [row[header.index("slow")] for row in rows] == ["0.0", "", "1.0", "", "2.0"]


def test_what_breaks_a_wire_is_no_anomaly_of_a_plant():
    _, *rows = csv.reader(io.StringIO(traced(counting("source_down@0s:device=plc"), 0.05)))
    assert {row[-1] for row in rows} == {"0"}
