import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner

from hw_sim.catalogue import FAULTS
from hw_sim.cli import main
from hw_sim.ports import free_port
from tests.patience import PATIENCE_S, wait

ROOT = Path(__file__).parents[3]


def here(folder):
    """The options of a simulator that meets no other."""
    return ["--any-port", "--links", folder, "--control", folder / "c.sock"]


def invoke(*arguments):
    return CliRunner().invoke(main, arguments)


@contextmanager
def running(folder, *arguments, **options):
    """A simulator of its own; yields the process and its endpoints."""
    command = [sys.executable, "-m", "hw_sim", "run", "--json", *here(folder)]
    with subprocess.Popen(
        [*command, *arguments], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
    ) as child:
        try:
            yield child, json.loads(child.stdout.readline())
        finally:
            child.kill()


def children_of(pid):
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def listens(endpoint):
    """Whether something accepts connections at the host and port of this address."""
    host, port = endpoint.partition("://")[2].partition("/")[0].split(":")
    with socket.socket() as probe:
        return probe.connect_ex((host, int(port))) == 0


def assert_all_gone(endpoints, pids):
    for device, endpoint in endpoints.items():
        if "://" in endpoint:
            assert not listens(endpoint), device
    assert not os.path.lexists(endpoints["vib"])
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]


def test_a_run_says_where_all_is_and_leaves_nothing_behind_when_told_to_stop(tmp_path):
    labels = tmp_path / "labels.jsonl"
    faults = ["--fault", "source_down@100ms:device=plc", "--fault", "blockage@100ms"]
    with running(tmp_path, "--labels", labels, "--seed", "3", *faults) as (child, endpoints):
        assert endpoints.pop("type") == "endpoints"
        assert set(endpoints) == {"motor", "plc", "drive", "vib"}
        for device in ("motor", "drive"):
            assert listens(endpoints[device])
        with Path(endpoints["vib"]).open("rb") as vib:
            assert b"*" in vib.readline()
        wait(lambda: not listens(endpoints["plc"]))
        wait(lambda: labels.read_text().count("\n") >= 4)
        broker = children_of(child.pid)
        assert len(broker) == 1
        child.send_signal(signal.SIGTERM)
        assert child.wait(timeout=PATIENCE_S) == 0
        assert child.stdout.read() == ""
        assert child.stderr.read() == ""
    assert_all_gone(endpoints, broker)
    first, *others = [json.loads(line) for line in labels.read_text().splitlines()]
    assert (first["type"], first["seed"]) == ("run", 3)
    assert {(each["type"], each["fault"]) for each in others} == {
        ("fault", "source_down"),
        ("fault", "blockage"),
        ("effect", "blockage"),
    }
    assert first["started"] == pytest.approx(time.time(), abs=30)


def test_a_run_ends_with_the_one_who_started_it(tmp_path):
    options = {"stdin": subprocess.PIPE}
    with running(tmp_path, "--until-stdin-closes", **options) as (child, endpoints):
        broker = children_of(child.pid)
        header = json.loads(child.stdout.readline())
        assert header["type"] == "run", "labels follow the endpoints when they have no file"
        child.stdin.close()
        assert child.wait(timeout=PATIENCE_S) == 0
        assert child.stderr.read() == ""
    del endpoints["type"]
    assert_all_gone(endpoints, broker)


def test_ctrl_c_in_a_terminal_ends_a_run_quietly(tmp_path):
    """There the signal goes to the whole group, the broker's process too."""
    options = {"start_new_session": True}
    with running(tmp_path, "--labels", os.devnull, **options) as (child, endpoints):
        broker = children_of(child.pid)
        os.killpg(child.pid, signal.SIGINT)
        assert child.wait(timeout=PATIENCE_S) == 0
        assert child.stderr.read() == ""
    del endpoints["type"]
    assert_all_gone(endpoints, broker)


def test_a_second_simulator_at_one_place_takes_nothing_from_the_first(tmp_path):
    scenario = tmp_path / "line.toml"
    scenario.write_text(
        '[plants.pump]\nkind = "pump_skid"\n[wires.vib]\ntype = "serial"\nlink = "/tmp/line"\n'
        '[wires.vib.devices.vib]\nfields = { x = "vib.x" }\n'
    )
    options = ["run", str(scenario), *map(str, here(tmp_path)), "--labels", str(tmp_path / "labels")]
    with running(tmp_path, str(scenario)):
        (tmp_path / "labels").write_text("precious")
        found = invoke(*options)
        assert "another simulator answers" in found.output
        assert (tmp_path / "line").is_symlink()
        assert (tmp_path / "labels").read_text() == "precious"


def test_a_run_without_json_is_a_table_and_ends_after_its_duration(tmp_path):
    command = [sys.executable, "-m", "hw_sim", "run", *here(tmp_path)]
    done = subprocess.run(
        [*command, "--duration", "100ms", "--labels", os.devnull],
        cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    rows = [line.split(maxsplit=2) for line in done.stdout.splitlines()]
    assert [row[0] for row in rows] == ["motor", "plc", "drive", "vib"]
    assert "plant/motor" in rows[0][2]


@pytest.mark.parametrize("wire", ["motor", "plc", "drive"])
def test_a_port_that_is_taken_is_named_with_its_wire(tmp_path, wire):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        at = [
            f"--set=wires.{each}.port={port if each == wire else free_port()}"
            for each in ("motor", "plc", "drive")
        ]
        links = ["--links", str(tmp_path), "--control", str(tmp_path / "c.sock")]
        result = invoke("run", *at, *links)
    assert result.exit_code == 1
    assert result.output.count("\n") == 1
    assert f"wire {wire}: " in result.output
    assert str(port) in result.output


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--duration", "60"], "'60' has no unit; write 60s"),
        (["--speed", "fast"], "'fast' is no speed, such as 10 or max"),
        (["--no-wires"], "--no-wires needs a --duration"),
    ],
)
def test_a_wrong_option_is_refused_with_what_is_right(arguments, says):
    result = invoke("run", *arguments)
    assert result.exit_code == 2
    assert says in " ".join(result.output.split())


@pytest.mark.parametrize("option", ["--labels", "--trace"])
def test_a_place_that_cannot_be_written_is_named(tmp_path, option):
    nowhere = str(tmp_path / "no" / "file")
    refused = invoke("run", "--no-wires", "--duration", "10ms", option, nowhere)
    assert (refused.exit_code, refused.output) == (1, f"Error: {nowhere}: No such file or directory\n")


def test_labels_and_trace_do_not_go_to_one_file(tmp_path):
    same = str(tmp_path / "file.csv")
    refused = invoke("run", "--no-wires", "--duration", "10ms", "--labels", same, "--trace", same)
    assert refused.exit_code == 2
    assert f"labels and trace cannot both go to {same}" in " ".join(refused.output.split())


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--fault", "bearing_waer@40s"], "no fault 'bearing_waer'; there are bearing_wear"),
        (["--fault", "blockage@40"], "'40' has no unit; write 40s"),
        (["--set", "wires.plc.port=70000"], "wires.plc.port: input should be less than or equal to 65535"),
        (["pump_skit"], "no such file, and no scenario of that name; there are cold_store, pump_skid"),
    ],
)
def test_what_a_scenario_cannot_have_is_told(arguments, says):
    result = invoke("run", *arguments)
    assert result.exit_code == 1
    assert says in " ".join(result.output.split())


def test_a_fault_is_switched_while_it_runs(tmp_path):
    control = ["--control", str(tmp_path / "c.sock")]
    with running(tmp_path, "--labels", tmp_path / "labels.jsonl") as (child, endpoints):
        assert listens(endpoints["plc"])
        told = invoke("ctl", "fault", "source_down", "on", "device=plc", *control)
        assert told.output.startswith("source_down is on since ")
        assert not listens(endpoints["plc"])
        assert "source_down" in invoke("ctl", "status", *control).output
        status = json.loads(invoke("ctl", "status", "--json", *control).output)
        assert [each["fault"] for each in status["faults"]] == ["source_down"]
        assert invoke("ctl", "fault", "source_down", "off", *control).output == "source_down is off\n"
        assert listens(endpoints["plc"])
        refused = invoke("ctl", "fault", "source_down", "off", *control)
        assert (refused.exit_code, refused.output) == (
            1,
            "Error: no such fault is on: source_down; on are: none\n",
        )
        assert invoke("ctl", "stop", *control).exit_code == 0
        assert child.wait(timeout=PATIENCE_S) == 0
    lines = [json.loads(line) for line in (tmp_path / "labels.jsonl").read_text().splitlines()]
    assert [line["phase"] for line in lines if line["type"] == "fault"] == ["onset", "end"]


def test_two_runs_of_a_seed_leave_the_same_trace_with_wires_and_without(tmp_path):
    traces = []
    for name, options in (
        ("a", ["--no-wires"]),
        ("b", ["--no-wires"]),
        ("c", here(tmp_path)),
        ("d", ["--seed=2"]),
    ):
        trace = tmp_path / f"{name}.csv"
        extra = ["--no-wires"] if name == "d" else []
        result = invoke(
            "run", "--duration", "1s", "--fault", "blockage@300ms", "--fault", "noise_burst@500ms..700ms",
            "--trace", str(trace), "--labels", os.devnull, *map(str, options), *extra,
        )  # fmt: skip
        assert result.exit_code == 0, result.output
        traces.append(trace.read_text())
    assert traces[0].count("\n") == 102, "a line of names, and 0 to 1 s in steps of 10 ms"
    assert traces[0] == traces[1] == traces[2]
    assert traces[0] != traces[3]


def test_a_scenario_of_ones_own_is_checked(tmp_path):
    assert "wire   motor          mqtt: motor" in invoke("check", "pump_skid").output
    assert json.loads(invoke("check", "pump_skid", "--json").output)["plants"]["pump"]["step_s"] == 0.01
    (tmp_path / "mine.toml").write_text('[plants.a]\nkind = "b"\n')
    refused = invoke("check", str(tmp_path / "mine.toml"))
    assert refused.exit_code == 1
    assert "mine.toml:2: plants.a.kind: no kind 'b'" in refused.output
    assert "pump_skid" in json.loads(invoke("scenarios", "--json").output)
    assert "pump_skid" in invoke("scenarios").output


def test_the_faults_are_listed():
    result = invoke("faults")
    assert result.exit_code == 0
    for name, kind in FAULTS.items():
        assert name in result.output
        assert kind.does in result.output


def test_the_faults_are_listed_for_machines():
    table = {row.pop("fault"): row for row in json.loads(invoke("faults", "--json").output)}
    assert set(table) == set(FAULTS)
    assert table["bearing_wear"]["parameters"]["race"]["choices"] == ["outer", "inner", "ball", "cage"]
    assert table["source_down"]["where"] == "device"


def test_help_shows_examples():
    assert "--fault bearing_wear@40s" in invoke("run", "--help").output


def test_closing_stdin_can_only_be_watched_where_it_can_close(tmp_path):
    command = [sys.executable, "-m", "hw_sim", "run", "--until-stdin-closes", *here(tmp_path)]
    with (tmp_path / "file").open("w+") as file:
        done = subprocess.run(
            command, cwd=ROOT, stdin=file, capture_output=True, text=True, timeout=PATIENCE_S, check=False
        )
    assert done.returncode == 2
    assert "needs a pipe or a terminal" in done.stderr
