"""`dxad demo`, as a stranger runs it."""

import json
import subprocess
import sys


def test_the_demonstration_shows_what_it_promises(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "dxad", "demo", "--json", "--seed", "7", "--keep", str(tmp_path)],
        capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    verdict = json.loads(done.stdout)
    assert done.returncode == 0, verdict["reasons"]
    assert verdict["ok"]
    assert verdict["duration_s"] < 75
    assert set(verdict["sources"]) == {"motor", "plc", "drive", "vib"}
    assert all(each["rows"] > 100 for each in verdict["sources"].values())
    assert all(abs(size) <= 3 for size in verdict["injected"]["size_sd_after_10s"].values())
    assert verdict["found"]["after_s"] > 0
    assert verdict["events_delivered"] >= 1
    assert verdict["lost"] == {}
    for name in ("demo.toml", "conf.d/endpoints.toml", "labels.jsonl", "dxad.log", "state/outbox.db"):
        assert (tmp_path / name).exists()
