"""What a pipeline has learned while it ran is there again after the process has died."""

import json
import os
from pathlib import Path

import pytest

from tests.system.process import needs_curl, pump, running, status, until

PLUGIN = """
from typing import Literal
import numpy as np
from dxad.fields import ModelSection
from dxad.plugin import Plugin
from dxad.types import Calibration, Scores

class Config(ModelSection):
    type: Literal["patient"]

class Patient:
    '''Takes two hundred rows as normal before its first score.'''
    version = "patient"

    def __init__(self, config, *, state_dir):
        self.seen, self.sum, self.calibration = 0, 0.0, None

    def load(self, channels, rows, *, by=None):
        return rows or 1

    def score(self, windows):
        values = windows.values[:, -1, 0].astype(float)
        found = np.full(len(values), np.nan)
        for place, value in enumerate(values):
            if self.seen < 200:
                self.seen, self.sum = self.seen + 1, self.sum + float(value)
            else:
                self.calibration = Calibration(5.0)
                found[place] = abs(value - self.sum / self.seen)
        return Scores(found)

    def state(self):
        return {"seen": self.seen, "sum": self.sum} if self.seen else {}

    def restore(self, state):
        self.seen, self.sum = state["seen"], state["sum"]

    def close(self):
        pass

PLUGIN = Plugin(Config, Patient)
"""


@pytest.fixture
def patient(config, folder, monkeypatch):
    """The daemon's model is a plug-in that takes four seconds to warm up."""
    (folder / "patient.py").write_text(PLUGIN)
    info = folder / "patient-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: patient\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[dxad.models]\npatient = patient:PLUGIN\n")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")]))
    text = config.read_text()
    config.write_text(text.replace('{ type = "zscore", warm_up = 50 }', '{ type = "patient" }'))
    return folder / "state" / "pipelines" / "pump.state"


def warm(state: Path) -> bool:
    if not state.exists():
        return False
    return json.loads(state.read_bytes().partition(b"\n")[2])["model"]["state"]["seen"] == 200


@needs_curl
def test_a_warm_up_survives_kill_9(config, sensor, patient):
    with running(config) as daemon:
        until(lambda: warm(patient), "saved", daemon)
        assert pump(config)["rows"] > 200
        daemon.kill()
        daemon.wait()
    with running(config) as daemon:
        until(lambda: pump(config)["score"] is not None, "scoring", daemon)
        found = pump(config)
        assert found["scored"] > 0
        assert found["unscored"] < 50
        assert "pump: goes on with what it knew" in config.with_name("dxad.log").read_text()


@needs_curl
def test_a_damaged_state_is_set_aside_and_the_daemon_starts(config, sensor, patient):
    patient.parent.mkdir(parents=True)
    patient.write_bytes(b"dxad-state 1 crc32=00000000 bytes=9\nnot ours!")
    with running(config) as daemon:
        until(lambda: pump(config)["rows"] > 0, "rows", daemon)
        assert status(config)["state"] == "running"
        assert patient.with_name("pump.state.damaged").exists()
