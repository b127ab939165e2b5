"""Rows of a real daemon in a file, and what a replay makes of them."""

import contextlib
import json
import re
import signal
import subprocess
import sys

import pytest

from tests.patience import PATIENCE_S
from tests.system.process import needs_curl, pump, running, status, until


@needs_curl
def test_rows_are_recorded_over_a_restart_and_replay_as_they_were_seen(config, sensor):
    recording = config.with_name("rec.jsonl")

    def recorded() -> int:
        """How many rows with a value."""
        return recording.read_bytes().count(b"motor.speed") if recording.exists() else 0

    command = [sys.executable, "-m", "dxad", "record", "-c", str(config), "-o", str(recording)]
    with contextlib.ExitStack() as stack:
        with running(config) as daemon:
            until(lambda: pump(config)["score"] is not None, "scoring", daemon)
            recorder = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            stack.callback(recorder.wait)
            stack.callback(recorder.kill)
            until(lambda: recorded() > 80, "recorded", daemon)
            before = recorded()
            daemon.send_signal(signal.SIGTERM)
            daemon.wait(timeout=PATIENCE_S)
        with running(config) as daemon:
            until(lambda: recorded() > before + 80, "recorded again", daemon)
            recorder.send_signal(signal.SIGINT)
            told, complained = recorder.communicate(timeout=PATIENCE_S)
    assert recorder.returncode == 0
    assert "waiting for it to come back" in complained
    rows, lost = map(int, re.search(r"rec.jsonl: (\d+) rows; (\d+) rows were lost", told).groups())
    assert rows > 160
    assert lost > 5  # it was away for at least as long as a process takes to start
    done = subprocess.run(
        [sys.executable, "-m", "dxad", "replay", "-c", str(config), "--data", str(recording), "--json"],
        capture_output=True, check=True, timeout=PATIENCE_S,
    )  # fmt: skip
    document = json.loads(done.stdout)
    assert document["recording"]["rows"] == rows
    assert document["recording"]["channels_missing"] == []
    assert document["sources"]["motor"]["late"] == document["sources"]["motor"]["folded"] == 0
    assert document["pipelines"]["pump"]["rows"] == pytest.approx(rows + lost, abs=1)
    assert document["pipelines"]["pump"]["scored"] > 0  # how many depends on how long the daemon was away


@needs_curl
def test_a_recording_ends_by_itself_and_may_be_of_a_pipeline(config, sensor):
    recording = config.with_name("rec.csv")
    with running(config) as daemon:
        until(lambda: status(config)["sources"]["motor"]["rows"] > 10, "rows", daemon)
        done = subprocess.run(
            [
                sys.executable, "-m", "dxad", "record", "-c", str(config), "-o", str(recording),
                "--pipeline", "pump", "--for", "2s",
            ],
            capture_output=True, text=True, check=True, timeout=PATIENCE_S,
        )  # fmt: skip
    assert done.stdout == f"{recording}: 100 rows\n"
    lines = recording.read_text().splitlines()
    assert lines[0] == "time,motor.current,motor.speed"
    assert len(lines) == 101
