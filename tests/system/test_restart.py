"""What a pipeline has learned while it ran is there again after the process has died."""

from pathlib import Path

import pytest

from dxad import statefile
from tests.system.process import needs_curl, pump, running, status, until


@pytest.fixture
def patient(config, folder):
    """The file of a model that takes four seconds to warm up."""
    edited = config.read_text().replace("warm_up = 50", "warm_up = 200")
    assert edited != config.read_text()
    config.write_text(edited)
    return folder / "state" / "pipelines" / "pump.state"


def regimes(file: Path) -> list[dict]:
    """What the model has learned for each way of running, as the file has it."""
    found = statefile.read(file)
    return [] if found is None else found["model"]["state"]["regimes"]


@needs_curl
def test_a_warm_up_survives_kill_9(config, sensor, patient):
    with running(config) as daemon:
        until(lambda: pump(config)["score"] is not None, "scoring", daemon)
        assert pump(config)["unscored"] >= 199
        until(lambda: regimes(patient), "saved", daemon)
        daemon.kill()
        daemon.wait()
    with running(config) as daemon:
        until(lambda: pump(config)["score"] is not None, "scoring", daemon)
        found = pump(config)
        assert found["scored"] > 0
        assert found["unscored"] < 199, "as many as it warms up for"
        assert "pump: goes on with what it knew" in config.with_name("dxad.log").read_text()


@needs_curl
def test_a_damaged_state_is_set_aside_and_the_daemon_starts(config, sensor, patient):
    patient.parent.mkdir(parents=True)
    patient.write_bytes(b"dxad-state 1 crc32=00000000 bytes=9\nnot ours!")
    with running(config) as daemon:
        until(lambda: pump(config)["rows"] > 0, "rows", daemon)
        assert status(config)["state"] == "running"
        assert patient.with_name("pump.state.damaged").exists()
