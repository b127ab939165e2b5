"""`dxad run` in a process of its own, a sensor that publishes to it, and how to ask it."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import paho.mqtt.client as paho
import pytest

from tests.patience import PATIENCE_S

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
model = {{ type = "zscore", warm_up = 50 }}
alarm = {{ on_delay = "40ms", off_delay = "100ms" }}

[sinks.reasoning]
type = "http"
url = "http://127.0.0.1:{sink}/events"
"""


class Sensor:
    """Publishes steadily; `shift` moves the current away from normal."""

    def __init__(self, broker: int) -> None:
        self.shift = 0.0
        self._stop = threading.Event()
        self._client = paho.Client(paho.CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
        self._client.connect("127.0.0.1", broker)
        self._client.loop_start()
        self._thread = threading.Thread(target=self._publish)
        self._thread.start()

    def _publish(self) -> None:
        step = 0
        while not self._stop.wait(0.01):
            step += 1
            values = {"current": 10 + (step * 7 % 11) / 10 + self.shift, "speed": 1450 + step * 5 % 13}
            self._client.publish("motor", json.dumps(values))

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        self._client.disconnect()
        self._client.loop_stop()
        del self._client  # paho closes its wake-up sockets when it is collected


@contextlib.contextmanager
def running(config: Path, **environment: str):
    """`dxad run`, ended at the latest when the block is left."""
    log = config.with_name("dxad.log")
    before = log.read_text().count("ready:") if log.exists() else 0
    with log.open("ab") as file:
        daemon = subprocess.Popen(
            [sys.executable, "-m", "dxad", "run", "-c", str(config)],
            stdout=file, stderr=file, env=os.environ | environment,
        )  # fmt: skip
    try:
        until(lambda: log.read_text().count("ready:") > before, "ready", daemon)
        yield daemon
    finally:
        if daemon.poll() is None:
            daemon.kill()
        daemon.wait()


def ended(config: Path) -> subprocess.CompletedProcess[str]:
    """`dxad run` of what it refuses to run."""
    return subprocess.run(
        [sys.executable, "-m", "dxad", "run", "-c", str(config)],
        capture_output=True, text=True, timeout=PATIENCE_S, check=False,
    )  # fmt: skip


def until(true, what: str, daemon: subprocess.Popen | None = None, timeout_s: float = PATIENCE_S) -> None:
    deadline = time.monotonic() + timeout_s
    while not true():
        assert daemon is None or daemon.poll() is None, f"the daemon ended before {what}"
        assert time.monotonic() < deadline, f"not {what} after {timeout_s} s"
        time.sleep(0.05)


def curl(config: Path, path: str, body: object = None):
    """What `curl --unix-socket` answers."""
    command = ["curl", "-sS", "--max-time", "60", "--unix-socket", str(config.with_name("c.sock"))]
    if body is not None:
        command += ["-H", "Content-Type: application/json", "-d", json.dumps(body)]
    done = subprocess.run([*command, f"http://dxad{path}"], capture_output=True, text=True, check=True)
    return done.stdout


def status(config: Path) -> dict:
    return json.loads(curl(config, "/v1/status"))


def pump(config: Path) -> dict:
    return status(config)["pipelines"]["pump"]


needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
