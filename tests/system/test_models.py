"""Models come and go while the daemon runs: none of them costs a row, and a bad one comes near nothing."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from dxad.bundle import shelf
from dxad.training import Recording, learn
from dxad.types import Channel
from tests.patience import PATIENCE_S
from tests.system.process import needs_curl, pump, running, status, until

CHANNELS = (Channel("motor.current", "A"), Channel("motor.speed", "rpm"))
PERIOD = 20_000_000
TFLITE = 'model = { type = "tflite", path = "models/pump" }'


def models(config: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "dxad", "models", *words, "--socket", str(config.with_name("c.sock"))],
        capture_output=True, text=True, timeout=PATIENCE_S, check=False,
    )  # fmt: skip


def learned(folder: Path, seed: int) -> Path:
    """A bundle for what the sensor sends: two channels around ten."""
    values = 10 + np.random.default_rng(seed).normal(size=(1500, 2))
    learn(Recording(CHANNELS, PERIOD, values, {}), folder, rows_most=3)
    return folder


@pytest.fixture
def tflite(config, tmp_path):
    """A configuration whose pipeline has a model on its shelf; yields the folder of another one."""
    text = config.read_text()
    (line,) = [line for line in text.splitlines() if line.startswith("model = ")]
    config.write_text(text.replace(line, TFLITE) + '\n[pipelines.pump.promotion]\nafter = "1s"\n')
    shelf.install(config.with_name("state") / "models" / "pump", learned(tmp_path / "first", seed=1))
    return learned(tmp_path / "new", seed=2)


def versions(config: Path) -> dict:
    done = models(config, "beside", "pump", "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def current(config: Path) -> str:
    (found,) = [each["name"] for each in versions(config)["versions"] if each["current"]]
    return found


def live(config: Path) -> str:
    return pump(config)["model"]["version"]


@needs_curl
def test_a_model_is_swapped_shadowed_promoted_and_rolled_back_and_no_row_is_missed(config, sensor, tflite):
    with running(config) as daemon:
        until(lambda: pump(config)["score"] is not None, "scoring", daemon)
        first = live(config)

        assert models(config, "shadow", "pump", str(tflite)).returncode == 0
        until(lambda: (versions(config)["beside"] or {}).get("role") == "shadow", "a shadow", daemon)
        until(lambda: versions(config)["beside"]["comparison"]["rows"] > 50, "a comparison", daemon)
        assert live(config) == first
        assert "beside it" in models(config, "beside", "pump").stdout

        assert models(config, "promote", "pump").returncode == 0
        until(lambda: live(config) != first, "promoted", daemon)
        second = live(config)
        until(lambda: second in current(config), "the shelf has followed", daemon)

        assert models(config, "rollback", "pump").returncode == 0
        until(lambda: live(config) == first, "rolled back", daemon)

        assert models(config, "install", "pump", str(tflite)).returncode == 0
        until(lambda: live(config) == second, "installed", daemon)
        assert models(config, "dismiss", "pump").returncode == 0
        until(lambda: versions(config)["beside"] is None, "alone", daemon)

        found = pump(config)
        assert found["lost"] == 0
        assert found["rows"] == found["scored"] + found["unscored"]
        assert "model.failed" not in {each["code"] for each in status(config)["conditions"]}
    with running(config) as daemon:
        until(lambda: pump(config)["model"] is not None, "its model", daemon)
        assert live(config) == second, "what was installed last counts after a restart"


@needs_curl
def test_a_bad_bundle_is_refused_with_the_reason_and_the_old_one_goes_on(config, sensor, tflite, tmp_path):
    damaged = tmp_path / "damaged"
    shutil.copytree(tflite, damaged)
    blob = bytearray((damaged / "model.tflite").read_bytes())
    blob[len(blob) // 2] ^= 0x10
    (damaged / "model.tflite").write_bytes(blob)
    (tmp_path / "empty").mkdir()
    with running(config) as daemon:
        until(lambda: pump(config)["score"] is not None, "scoring", daemon)
        first = live(config)
        for folder, reason in ((damaged, "sha256"), (tmp_path / "empty", "No such file")):
            done = models(config, "install", "pump", str(folder))
            assert done.returncode == 1
            assert reason in done.stderr
        assert models(config, "promote", "pump").returncode == 1
        assert live(config) == first
        assert versions(config)["beside"] is None
        assert len(versions(config)["versions"]) == 1
