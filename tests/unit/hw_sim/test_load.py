import asyncio
import json
import math
import struct
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from hw_sim.bench import Bench, Rig
from hw_sim.cli import main
from hw_sim.cli.run import moved
from hw_sim.load.check import Measured, WireMeasured, measure, sustained
from hw_sim.load.plan import Plan
from hw_sim.load.report import checked, checked_document
from hw_sim.load.tally import Order, Tally
from hw_sim.mqtt.payload import Sample, encoder
from hw_sim.plants.load import BEGAN, SENT, SEQUENCE, Load, Settings, build, channel_of, value_of
from hw_sim.scenario import WIRES
from hw_sim.wire import Due

ROOT = Path(__file__).parents[3]
SMALL = Plan(channels=40, rate_hz=20.0)


# -- the plant ---------------------------------------------------------------------------------------------


def test_each_value_tells_its_row_and_its_channel():
    plant = Load(channels=7, rate_hz=10.0, spread=1)
    for sequence in range(5000):
        readings = plant.step()
        assert readings[SEQUENCE] == sequence
        assert [readings[channel_of(number)] for number in range(7)] == [
            (sequence + 101 * number) % 4096 / 4 for number in range(7)
        ]


def test_values_survive_a_float32_and_four_decimals():
    for value in {value_of(sequence, number) for sequence in range(4096) for number in (0, 1)}:
        assert struct.unpack("f", struct.pack("f", value)) == (value,)
        assert float(f"{value:.4f}") == round(value, 4) == value


def test_a_row_lasts_as_many_steps_as_devices_send_in():
    ticks = iter(range(100))
    plant = Load(channels=1, rate_hz=10.0, spread=4, clock=lambda: float(next(ticks)))
    steps = [dict(plant.step()) for _ in range(8)]
    assert plant.step_s == pytest.approx(0.025)
    assert [step[SEQUENCE] for step in steps] == [0, 0, 0, 0, 1, 1, 1, 1]
    assert [step[SENT] for step in steps] == [0, 1, 2, 3, 4, 5, 6, 7]
    assert [step[BEGAN] for step in steps] == [0, 0, 0, 0, 4, 4, 4, 4]
    assert len({step["load.c000"] for step in steps}) == 2


def test_the_bench_keeps_what_the_plant_overwrites():
    bench = Bench([Rig("load", build(Settings(channels=3), "1"))], seed=1)
    before = bench.readings
    bench.step()
    assert (before[SEQUENCE], bench.readings[SEQUENCE]) == (0.0, 1.0)


def test_a_beat_has_a_phase_and_is_never_missed_for_a_rounding():
    for rate_hz, spread in ((10.0, 20), (30.0, 6), (3000.0, 1), (333.0, 1), (7.0, 28)):
        step_s = 1 / (rate_hz * spread)
        dues = [Due(1 / rate_hz, turn * step_s) for turn in range(spread)]
        passed = [[due.passed(round(step * step_s, 9)) for due in dues] for step in range(10_000)]
        assert passed == [[step % spread == turn for turn in range(spread)] for step in range(10_000)]


# -- the plan ----------------------------------------------------------------------------------------------


def test_the_gateway_load_is_what_a_later_benchmark_asks_for():
    wires = Plan(channels=500, rate_hz=10.0).map(dict.fromkeys(WIRES, "somewhere"))["wires"]
    assert {name: wire["values_per_s"] for name, wire in wires.items()} == {
        "mqtt": 2000,
        "modbus": 1500,
        "opcua": 1000,
        "serial": 500,
    }
    assert {name: wire["messages_per_s"] for name, wire in wires.items()} == {
        "mqtt": 670,
        "modbus": 30,
        "opcua": 1000,
        "serial": 10,
    }


@pytest.mark.parametrize(
    "plan",
    [
        Plan(),
        Plan().times(3),
        Plan(channels=1, rate_hz=0.1),
        Plan(channels=7, rate_hz=1.0),
        Plan(channels=3000, shares={"serial": 1, "modbus": 2}),
        Plan(channels=60, rate_hz=1000.0, shares={"mqtt": 1}, values_per_message=7, qos=1),
        Plan(channels=5, shares={"mqtt": 1}, broker="127.0.0.1:1883"),
    ],
    ids=repr,
)
def test_a_plan_is_a_scenario_in_which_each_channel_is_on_one_wire(plan):
    scenario = plan.scenario()
    bench, known = scenario.bench()
    shown = [name for channels in known.devices.values() for name in channels if name.startswith("load.c")]
    assert sorted(shown) == sorted(channel_of(number) for number in range(plan.channels))
    assert set(scenario.wires) == set(plan.wires)
    assert bench.step_s == pytest.approx(plan.step_s)


def test_devices_send_in_turn():
    devices = Plan(channels=300, shares={"mqtt": 1}).scenario().wires["mqtt"].devices
    phases = [device.phase for device in devices.values()]
    assert len(set(phases)) == 20
    assert max(phases) == pytest.approx(0.095)


def test_times_are_sent_as_they_are():
    section = Plan(channels=1, shares={"mqtt": 1}).scenario().wires["mqtt"].devices["mqtt000"]
    at = 1764045123.1234567
    message = encoder(section)([Sample(0.0, {"sequence": 3.0, "sent": at, "c000": math.nan})])
    assert json.loads(message) == {"sequence": 3, "sent": at, "c000": None}


def test_a_plan_knows_what_is_offered_until_any_step():
    plan = Plan(channels=100, rate_hz=10.0, shares={"mqtt": 1, "serial": 1})
    bench, _ = plan.scenario().bench()
    dues = [Due(0.1, number % plan.spread * plan.step_s) for number in range(plan.wires["mqtt"].messages)]
    sent = 0
    for step in range(100):
        sent += sum(due.passed(bench.time_of(step)) for due in dues)
        assert plan.offered(plan.wires["mqtt"], step) == sent
        assert plan.offered(plan.wires["serial"], step) == step // plan.spread + 1


def test_a_run_ends_with_a_whole_row():
    for plan in (Plan(), Plan(rate_hz=1000.0), Plan(rate_hz=0.5)):
        last = plan.duration_s(4.0) / plan.step_s
        assert last > 0
        assert (int(last) + 2) % plan.spread == 0


# -- the tally ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("numbers", "missed", "doubled", "late"),
    [
        ([0, 1, 2, 3], 0, 0, 0),
        ([5, 6, 7], 0, 0, 0),
        ([0, 1, 4, 5], 2, 0, 0),
        ([0, 1, 1, 2, 2], 0, 2, 0),
        ([0, 2, 1, 3], 0, 0, 1),
        ([0, 3, 1, 1, 4], 1, 1, 1),
        ([4, 3, 5], 0, 1, 0),
    ],
)
def test_an_order_knows_what_is_missing_doubled_or_late(numbers, missed, doubled, late):
    order = Order()
    for number in numbers:
        order.came(number)
    assert (order.missed, order.doubled, order.late) == (missed, doubled, late)


def test_a_tally_counts_values_that_are_what_they_should_be():
    tally = Tally()
    for sequence in (0, 1, 3, 3):
        tally.row("a", sequence, [0, 5], [value_of(sequence, 0), value_of(sequence, 5)])
    tally.row("b", 9, [1, 2, 3], [value_of(9, 1), value_of(8, 2)])
    tally.took(0.001)
    tally.took(0.003)
    found = tally.document()
    assert (found["values"], found["messages"], found["wrong"]) == (7, 4, 2)
    assert (found["missed"], found["doubled"], found["late"]) == (1, 1, 0)
    assert (found["p50_ms"], found["p99_ms"], found["max_ms"]) == (1.0, 3.0, 3.0)


def test_a_value_that_comes_alone_tells_its_row_over_the_turn():
    tally = Tally()
    rows = [tally.value(17, value_of(sequence, 17)) for sequence in range(10_000) if sequence % 1000 != 999]
    assert rows == [sequence for sequence in range(10_000) if sequence % 1000 != 999]
    tally.value(17, 0.1)
    tally.value(17, float("nan"))
    found = tally.document()
    assert (found["values"], found["missed"], found["wrong"]) == (9990, 9, 2)
    assert found["p50_ms"] is None


# -- the wires and the null reader ---------------------------------------------------------------------------


def in_real_time(job):
    """Run it beside the reader, which is another process."""
    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
        return runner.run(job)


def run(plan, folder, for_s):
    scenario = moved(plan.scenario(), any_port=True, links=folder)
    return in_real_time(measure(plan, scenario, for_s=for_s))


async def watched(job):
    """What it returns, and for how long at most the loop stood still meanwhile, in milliseconds."""
    loop, task, longest_s = asyncio.get_running_loop(), asyncio.ensure_future(job), 0.0
    while not task.done():
        before = loop.time()
        await asyncio.sleep(0.005)
        longest_s = max(longest_s, loop.time() - before - 0.005)
    return task.result(), 1000 * longest_s


def test_all_that_is_sent_on_all_wires_comes_once_and_as_it_was(tmp_path):
    for run_number in range(3):  # a machine that is too slow for it now may not be the next time
        began = time.monotonic()
        (links := tmp_path / str(run_number)).mkdir()
        scenario = moved(SMALL.scenario(), any_port=True, links=links)
        measured, stood_ms = in_real_time(watched(measure(SMALL, scenario, for_s=1.5)))
        took_ms = 1000 * (time.monotonic() - began)
        if all(wire.received == wire.offered and not wire.doubled for wire in measured.wires.values()):
            break
    assert list(measured.wires) == list(WIRES)
    slowest_ms = max(stood_ms, *(wire.max_ms for wire in measured.wires.values()))
    for name, wire in measured.wires.items():
        # Who asks for registers in the middle of each row misses those in which one of the two stood still.
        missed_some = name == "modbus" and slowest_ms > 500 / SMALL.rate_hz
        assert missed_some or (wire.received, wire.lost) == (wire.offered, 0), name
        assert (wire.doubled, wire.late, wire.wrong) == (0, 0, 0), name
        assert wire.offered == round(wire.asked_per_s * 1.5), name
        assert 0 < wire.p50_ms <= wire.p99_ms <= wire.max_ms < took_ms, name
    assert measured.reader_cpu_s > 0


def test_a_reader_of_qos_1_acknowledges_all(tmp_path):
    measured = run(replace(SMALL, shares={"mqtt": 1}, qos=1, rate_hz=100.0), tmp_path, 0.5)
    assert measured.wires["mqtt"].received == measured.wires["mqtt"].offered == 2000


def test_a_reader_that_finds_nobody_says_so(tmp_path):
    document = SMALL.map(dict.fromkeys(WIRES, tmp_path / "none"))
    document["wires"] = {"serial": document["wires"]["serial"]}
    reader = subprocess.run(
        [sys.executable, "-m", "hw_sim.load.null"],
        cwd=ROOT,
        input=json.dumps(document, default=str) + "\n",
        capture_output=True,
        text=True,
        check=True,
    )
    assert "No such file" in json.loads(reader.stdout)["error"]


# -- the verdict -------------------------------------------------------------------------------------------


def measured_as(**changes):
    wire = WireMeasured(
        asked_per_s=100.0,
        received_per_s=99.95,
        offered=1000,
        received=1000,
        lost=0,
        doubled=0,
        late=0,
        wrong=0,
        p50_ms=1.0,
        p99_ms=2.0,
        max_ms=None,
    )
    return Measured(
        rate_hz=10.0,
        elapsed_s=10.0,
        simulator_cpu_s=1.0,
        broker_cpu_s=0.1,
        reader_cpu_s=0.5,
        wires={"mqtt": replace(wire, **changes)},
    )


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, []),
        ({"received": 999, "lost": 1}, ["mqtt: 1 of 1000 values did not come"]),
        ({"received_per_s": 99.8}, ["mqtt: 100 values/s of 100"]),
        ({"late": 2}, ["mqtt: 0 doubled, 2 late, 0 wrong"]),
    ],
)
def test_a_verdict_names_what_speaks_against_it(changes, said):
    measured = measured_as(**changes)
    assert sustained(measured) == said
    assert measured.holds == (not said)
    _, verdict = checked([measured])
    assert ("not sustained" in verdict) == bool(said)
    document = json.loads(json.dumps(checked_document([measured])))
    assert document["sustained"] == document["runs"][0]["wires"]["mqtt"]["holds"] == (not said)


# -- the command -------------------------------------------------------------------------------------------


def here(folder):
    return ["--any-port", "--links", str(folder), "--control", str(folder / "c.sock")]


def test_the_command_tells_where_the_load_is_and_what_became_of_it(tmp_path):
    options = ["--channels", "12", "--rate", "20", "--wires", "mqtt,modbus", "--duration", "0.5s", "--json"]
    done = CliRunner().invoke(main, ["load", *here(tmp_path), *options])
    assert done.exit_code == 0, done.output
    there, summary = map(json.loads, done.stdout.splitlines())
    assert there["wires"]["mqtt"]["endpoint"].startswith("mqtt://127.0.0.1:")
    assert there["wires"]["mqtt"]["topics"] == {"load/000": [0, 1, 2], "load/001": [3, 4, 5], "load/002": [6]}
    assert there["wires"]["modbus"]["blocks"] == [{"first": 0, "count": 16, "channels": [7, 8, 9, 10, 11]}]
    mqtt = summary["wires"]["mqtt"]
    assert mqtt["sent"] == mqtt["offered"] > 0
    assert mqtt["lost"] == 0


def test_the_command_tells_people_a_line_for_each_wire(tmp_path):
    options = [
        "--channels",
        "12",
        "--wires",
        "mqtt,serial",
        "--share",
        "mqtt=1,serial=1",
        "--duration",
        "0.2s",
    ]
    done = CliRunner().invoke(main, ["load", *here(tmp_path), *options])
    assert done.exit_code == 0, done.output
    assert "load/000 … load/001" in done.stdout
    assert str(tmp_path / "hw_sim-load") in done.stdout
    assert "rows in" in done.stdout


def test_a_check_ends_with_its_verdict(tmp_path):
    options = ["--channels", "12", "--wires", "mqtt", "--check", "--for", "500ms", "--json"]
    done = CliRunner().invoke(main, ["load", *here(tmp_path), *options])
    document = json.loads(done.stdout)
    assert [run["rate_hz"] for run in document["runs"]] == [10.0, 30.0]
    assert [run["wires"]["mqtt"]["lost"] for run in document["runs"]] == [0, 0]
    assert done.exit_code == (0 if document["sustained"] else 1)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--wires", "canbus"], "no wire 'canbus'"),
        (["--share", "mqtt=none"], "'mqtt=none' is not WIRE=SHARE"),
        (["--rate", "0"], "not in the range"),
        (["--broker", "nonsense", "--wires", "mqtt"], "broker"),
        (["--channels", "40000", "--wires", "modbus"], "load: wires.modbus"),
    ],
)
def test_a_load_that_cannot_be_is_told(tmp_path, options, said):
    done = CliRunner().invoke(main, ["load", *here(tmp_path), *options])
    assert done.exit_code != 0
    assert said in done.output
    assert "Traceback" not in done.output
