"""Alarms as an operator meets them: a daemon that watches a limit, and the commands about it."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.patience import PATIENCE_S
from tests.system.test_daemon import Sensor, running, until

CONFIG = """
state_dir = "{folder}/state"
control.socket = "{folder}/c.sock"

[sources.motor]
type = "mqtt"
url = "mqtt://127.0.0.1:{broker}"
topic = "motor"
period = "20ms"
channels = {{ current = {{ unit = "A" }}, speed = {{ unit = "rpm" }} }}

[pipelines.pump]
channels = ["motor.*"]
alarm = {{ on_delay = "2s" }}

[[pipelines.pump.alarms]]
name = "overload"
channel = "motor.current"
high = 30.0
on_delay = "100ms"
off_delay = "100ms"
latch = true

[incidents]
evidence = {{ before = "1s", after = "200ms" }}

[sinks.log]
type = "file"
path = "incidents.jsonl"
"""


@pytest.fixture
def config(tmp_path_factory, broker):
    folder = tmp_path_factory.mktemp("a")
    path = folder / "dxad.toml"
    path.write_text(CONFIG.format(folder=folder, broker=broker))
    return path


@pytest.fixture
def sensor(broker):
    sensor = Sensor(broker)
    yield sensor
    sensor.close()


def dxad(config: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "dxad", *arguments, "--socket", str(config.with_name("c.sock"))],
        capture_output=True, text=True, timeout=PATIENCE_S, check=False, env=os.environ | {"COLUMNS": "150"},
    )  # fmt: skip


def alarm(config: Path) -> dict:
    found = json.loads(dxad(config, "alarms", "--json").stdout)["alarms"]
    return next(each for each in found if each["id"] == "pump.overload.high")


def events(config: Path) -> list[dict]:
    path = config.parent / "state" / "incidents.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [event for event in map(json.loads, lines) if event["type"].startswith("dxad.incident")]


def test_a_latched_alarm_from_its_first_row_to_the_rows_in_a_file(config, sensor):
    with running(config) as daemon:
        until(lambda: alarm(config)["state"] == "normal", "watching", daemon)
        sensor.shift = 50.0
        until(lambda: alarm(config)["state"] == "unacknowledged", "raised", daemon)
        sensor.shift = 0.0
        until(lambda: alarm(config)["state"] == "latched", "back, and latched", daemon)
        told = dxad(config, "alarms", "ack", "pump.overload.high")
        assert (told.returncode, told.stdout) == (0, "pump.overload.high is normal\n")
        assert dxad(config, "alarms", "ack", "pump.overload.high").returncode == 1

        (incident,) = json.loads(dxad(config, "incidents", "--json").stdout)["incidents"]
        assert (incident["state"], incident["first_out"]["channel"]) == ("closed", "motor.current")
        shown = dxad(config, "incidents", "show", incident["incident"]).stdout
        assert "pump.overload.high" in shown
        rows = config.with_name("rows.csv")
        save = ("incidents", "show", incident["incident"], "--window", str(rows))
        until(lambda: dxad(config, *save).returncode == 0, "the rows stored", daemon)
        head, *lines = rows.read_text().splitlines()
        assert head == "time,score,motor.current,motor.speed"
        current = [float(line.split(",")[2]) for line in lines if line.split(",")[2]]
        assert len(current) > 50
        assert min(current) < 30 < max(current)

        until(lambda: len(events(config)) == 2, "both events", daemon)
        opened, closed = events(config)
        assert opened["subject"] == closed["subject"] == incident["incident"]
        assert closed["data"]["ended_by"] == "acknowledged"
        log = config.with_name("dxad.log").read_text()
        assert f"uid {os.getuid()}, pid" in log
        assert "/v1/alarms/pump.overload.high/ack, done" in log


def test_a_shelved_alarm_opens_nothing_and_what_lasts_is_told_when_its_time_is_over(config, sensor):
    with running(config) as daemon:
        until(lambda: alarm(config)["state"] == "normal", "watching", daemon)
        assert dxad(config, "alarms", "shelve", "pump.overload.high", "--for", "1h").returncode == 0
        sensor.shift = 50.0
        until(lambda: alarm(config)["worst"] is not None, "the excursion", daemon)
        assert alarm(config)["state"] == "shelved"
        assert events(config) == []
        assert dxad(config, "alarms", "shelve", "pump.overload.high", "--for", "1s").returncode == 0
        until(lambda: alarm(config)["state"] == "unacknowledged", "told", daemon)
        until(lambda: events(config), "the event", daemon)
        daemon.send_signal(signal.SIGTERM)
        assert daemon.wait(timeout=PATIENCE_S) == 0
        assert len(list((config.parent / "state" / "evidence").iterdir())) == 1, "stored at the stop"
