"""A reload as users do it: they edit the file, and say so; nothing that they left alone is lost."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

from tests.patience import PATIENCE_S
from tests.system.process import curl, needs_curl, pump, running, status, until

SECOND = """
[sources.again]
type = "mqtt"
url = "mqtt://127.0.0.1:{broker}"
topic = "motor"
period = "10ms"
channels = {{ current = {{ unit = "A" }} }}

[pipelines.again]
channels = ["again.*"]
model = {{ type = "zscore", warm_up = 50 }}

[sinks.log]
type = "file"
path = "log.jsonl"
"""


def reload(config: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "dxad", "reload", "--socket", str(config.with_name("c.sock")), *flags],
        capture_output=True, text=True, timeout=PATIENCE_S, check=False,
    )  # fmt: skip


def edit(config: Path, old: str, new: str) -> None:
    text = config.read_text()
    assert old in text
    config.write_text(text.replace(old, new))


def conditions(config: Path) -> set[str]:
    return {each["code"] for each in status(config)["conditions"]}


def behind(config: Path) -> tuple[int, int]:
    """How many rows of its source the pipeline has not taken in yet, and how many it has lost."""
    found = status(config)
    return found["sources"]["motor"]["rows"] - found["pipelines"]["pump"]["rows"], pump(config)["lost"]


@needs_curl
def test_nodes_come_and_go_under_load_and_the_others_miss_no_row(config, sensor, broker):
    text = config.read_text()
    with running(config) as daemon:
        until(lambda: pump(config)["score"] is not None, "scoring", daemon)
        started = status(config)["sources"]["motor"]["connects"]
        for _ in range(3):
            config.write_text(text + SECOND.format(broker=broker))
            done = reload(config)
            assert (done.returncode, done.stderr) == (0, "")
            assert done.stdout.splitlines() == [
                "sources.again added", "pipelines.again added", "sinks.log added", "3 nodes untouched"
            ]  # fmt: skip
            until(lambda: status(config)["pipelines"]["again"]["score"] is not None, "scoring", daemon)
            config.write_text(text)
            assert "sources.again removed" in reload(config).stdout
            assert list(status(config)["pipelines"]) == ["pump"]
        until(lambda: behind(config)[0] <= 3, "abreast", daemon)
        assert behind(config)[1] == 0
        assert status(config)["sources"]["motor"]["connects"] == started
        assert pump(config)["rows"] > 100
        daemon.send_signal(signal.SIGTERM)
        assert daemon.wait(timeout=PATIENCE_S) == 0
    assert "Traceback" not in config.with_name("dxad.log").read_text()


@needs_curl
def test_another_limit_closes_an_incident_that_was_open_all_along(config, sensor):
    edit(config, 'off_delay = "100ms"', 'off_delay = "60s"')  # whether or not rows are missing meanwhile
    with running(config) as daemon:
        until(lambda: pump(config)["score"] is not None, "scoring", daemon)
        sensor.shift = 50.0
        until(lambda: pump(config)["incidents"], "an incident", daemon)
        opened = pump(config)["incidents"][0]["id"]
        edit(config, 'off_delay = "60s"', 'off_delay = "60s", severity = "low"')
        assert reload(config).stdout.startswith("pipelines.pump changed: alarm.severity\n")
        assert pump(config)["incidents"][0]["id"] == opened
        edit(config, 'off_delay = "60s", severity = "low"', 'off_delay = "100ms", limit = 100000.0')
        assert reload(config).returncode == 0
        until(lambda: not pump(config)["incidents"], "closed", daemon)
        assert pump(config)["limit"] == 100_000.0


@needs_curl
def test_sighup_with_a_mistake_changes_nothing_and_is_a_condition_until_a_good_one(config, sensor, folder):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified:
        notified.bind(str(folder / "n"))
        notified.settimeout(PATIENCE_S)
        with running(config, NOTIFY_SOCKET=str(folder / "n")) as daemon:
            until(lambda: pump(config)["score"] is not None, "scoring", daemon)
            assert notified.recv(4096).startswith(b"READY=1")
            edit(config, "warm_up = 50", "warmup = 50")
            daemon.send_signal(signal.SIGHUP)
            until(lambda: "config.rejected" in conditions(config), "rejected", daemon)
            assert notified.recv(4096).startswith(b"RELOADING=1\nMONOTONIC_USEC=")
            assert notified.recv(4096).startswith(b"READY=1")
            log = config.with_name("dxad.log").read_text()
            assert re.search(r"dxad.toml:\d+: pipelines.pump.model.warmup: unknown key, did you mean", log)
            assert json.loads(curl(config, "/v1/health"))["healthy"]
            done = reload(config)
            assert (done.returncode, done.stdout) == (2, "")
            assert "did you mean 'warm_up'?" in done.stderr
            edit(config, "warmup = 50", "warm_up = 60")
            daemon.send_signal(signal.SIGHUP)
            until(lambda: "config.rejected" not in conditions(config), "taken up", daemon)
            assert "pipelines.pump changed: model.warm_up; 2 nodes untouched" in (
                config.with_name("dxad.log").read_text()
            )


def test_many_signals_at_once_do_no_harm(config, sensor):
    with running(config) as daemon:
        for _ in range(50):
            os.kill(daemon.pid, signal.SIGHUP)
        until(lambda: "nothing changed" in config.with_name("dxad.log").read_text(), "answered", daemon)
        daemon.send_signal(signal.SIGTERM)
        assert daemon.wait(timeout=PATIENCE_S) == 0
