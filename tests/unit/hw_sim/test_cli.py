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

from hw_sim.cli import main
from hw_sim.fault import FAULTS
from hw_sim.scenario import free_ports

ROOT = Path(__file__).parents[3]
ANY_PORT = [part for name in ("mqtt", "mqtt311", "modbus", "opcua") for part in (f"--{name}-port", "0")]


def invoke(*arguments):
    return CliRunner().invoke(main, arguments)


@contextmanager
def running(folder, *arguments, **options):
    """A simulator of its own; yields the process and its endpoints."""
    command = [sys.executable, "-m", "hw_sim", "run", "--json", *ANY_PORT, "--serial-link", folder / "vib"]
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
        assert set(endpoints) == {"motor", "motor_mqtt311", "plc", "drive", "vib"}
        for device in ("motor", "motor_mqtt311", "drive"):
            assert listens(endpoints[device])
        with Path(endpoints["vib"]).open("rb") as vib:
            assert b"*" in vib.readline()
        time.sleep(1.3)
        assert not listens(endpoints["plc"])
        broker = children_of(child.pid)
        assert len(broker) == 1
        child.send_signal(signal.SIGTERM)
        begin = time.monotonic()
        assert child.wait(timeout=5) == 0
        assert time.monotonic() - begin < 2.0
        assert child.stdout.read() == ""
        assert child.stderr.read() == ""
    assert_all_gone(endpoints, broker)
    first, *others = [json.loads(line) for line in labels.read_text().splitlines()]
    assert (first["type"], first["seed"]) == ("run", 3)
    assert [(each["type"], each["fault"]) for each in others] == [
        ("fault", "source_down"),
        ("fault", "blockage"),
        ("effect", "blockage"),
    ]
    assert first["started"] == pytest.approx(time.time(), abs=30)


def test_a_run_ends_with_the_one_who_started_it(tmp_path):
    options = {"stdin": subprocess.PIPE}
    with running(tmp_path, "--until-stdin-closes", **options) as (child, endpoints):
        broker = children_of(child.pid)
        header = json.loads(child.stdout.readline())
        assert header["type"] == "run", "labels follow the endpoints when they have no file"
        child.stdin.close()
        assert child.wait(timeout=5) == 0
        assert child.stderr.read() == ""
    del endpoints["type"]
    assert_all_gone(endpoints, broker)


def test_ctrl_c_in_a_terminal_ends_a_run_quietly(tmp_path):
    """There the signal goes to the whole group, the broker's process too."""
    options = {"start_new_session": True}
    with running(tmp_path, "--labels", os.devnull, **options) as (child, endpoints):
        broker = children_of(child.pid)
        os.killpg(child.pid, signal.SIGINT)
        assert child.wait(timeout=5) == 0
        assert child.stderr.read() == ""
    del endpoints["type"]
    assert_all_gone(endpoints, broker)


def test_a_run_without_json_is_a_table_and_ends_after_its_duration(tmp_path):
    command = [sys.executable, "-m", "hw_sim", "run", *ANY_PORT, "--serial-link", tmp_path / "vib"]
    done = subprocess.run(
        [*command, "--duration", "100ms", "--labels", os.devnull],
        cwd=ROOT, capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    rows = [line.split(maxsplit=2) for line in done.stdout.splitlines()]
    assert [row[0] for row in rows] == ["motor", "plc", "drive", "vib", "motor_mqtt311"]
    assert "plant/motor" in rows[0][2]


@pytest.mark.parametrize("option", ["--mqtt-port", "--mqtt311-port", "--modbus-port", "--opcua-port"])
def test_a_port_that_is_taken_is_named_with_the_option_that_moves_it(tmp_path, option):
    ports = dict(
        zip(("--mqtt-port", "--mqtt311-port", "--modbus-port", "--opcua-port"), free_ports(4), strict=True)
    )
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", ports[option]))
        taken.listen()
        arguments = [str(part) for pair in ports.items() for part in pair]
        result = invoke("run", *arguments, "--serial-link", str(tmp_path / "vib"))
    assert result.exit_code == 1
    assert result.output.count("\n") == 1
    assert f"port {ports[option]}" in result.output
    assert option in result.output


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--fault", "bearing_waer@40s"], "no fault 'bearing_waer'; there are bearing_wear"),
        (["--fault", "blockage@40"], "'40' has no unit; write 40s"),
        (["--duration", "60"], "'60' has no unit; write 60s"),
        (["--broker", "mosquitto"], "is not HOST:PORT"),
        (["--mqtt-port", "70000"], "70000 is not in the range"),
    ],
)
def test_a_wrong_option_is_refused_with_what_is_right(arguments, says):
    result = invoke("run", *arguments)
    assert result.exit_code == 2
    assert says in " ".join(result.output.split())


def test_the_faults_are_listed():
    result = invoke("faults")
    assert result.exit_code == 0
    for name, kind in FAULTS.items():
        assert name in result.output
        assert kind.does in result.output


def test_the_faults_are_listed_for_machines():
    table = {row.pop("fault"): row for row in json.loads(invoke("faults", "--json").output)}
    assert set(table) == set(FAULTS)
    assert table["bearing_wear"]["channels"] == ["vib.x", "vib.y"]
    assert table["source_down"]["parameters"]["device"]["default"] == "motor"


def test_help_shows_examples():
    assert "--fault bearing_wear@40s" in invoke("run", "--help").output


def test_closing_stdin_can_only_be_watched_where_it_can_close(tmp_path):
    command = [sys.executable, "-m", "hw_sim", "run", "--until-stdin-closes", *ANY_PORT]
    with (tmp_path / "file").open("w+") as file:
        done = subprocess.run(
            command, cwd=ROOT, stdin=file, capture_output=True, text=True, timeout=30, check=False
        )
    assert done.returncode == 2
    assert "needs a pipe or a terminal" in done.stderr
