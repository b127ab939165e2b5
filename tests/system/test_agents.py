"""Agents lease events of a daemon; one of them dies, and so does the daemon: none is lost."""

import json
import signal
import subprocess
import sys

from dxad.client import SyncClient
from tests.patience import PATIENCE_S
from tests.system.process import needs_curl, running, until

GATEWAY = """
[gateway]
id = "gw7"
heartbeat = "off"
tell_after = "0s"
"""


def dxad(config, *words: str) -> str:
    command = [sys.executable, "-m", "dxad", "events", *words, "-c", str(config)]
    return subprocess.run(command, capture_output=True, check=True, text=True, timeout=PATIENCE_S).stdout


@needs_curl
def test_two_agents_compete_and_one_dies_and_then_the_daemon(config, folder):
    config.write_text(config.read_text() + GATEWAY)
    client = SyncClient(folder / "c.sock")

    def lease(**how):
        return client.run(lambda each: each.consumers.lease("agents", wait="1s", **how))

    with running(config) as daemon:
        (mine,) = lease(limit=1, lease="1s", types=["dxad.gateway.started"])
        (again,) = lease(limit=1)  # its agent has died
        assert (again["event"], again["attempts"]) == (mine["event"], 2)
        assert again["lease"] != mine["lease"]
        daemon.send_signal(signal.SIGKILL)
        daemon.wait()
    with running(config) as daemon:
        found = lease(limit=10)
        assert found[0]["event"]["id"] == mine["event"]["id"]
        assert found[0]["attempts"] >= 2  # what was given in its last moment may not have been noted
        tokens = [each["lease"] for each in found]
        assert client.run(lambda each: each.consumers.ack("agents", tokens)) == {
            "acked": len(tokens), "stale": [],
        }  # fmt: skip
        daemon.send_signal(signal.SIGKILL)
        daemon.wait()
    with running(config) as daemon:
        until(lambda: lease(limit=10, lease="1h") or True, "the third start", daemon)
        (told,) = json.loads(dxad(config, "--json"))["consumers"]
        assert told["name"] == "agents"
        again = lease(limit=10, lease="1h")
        assert mine["event"]["id"] not in {each["event"]["id"] for each in again}, "it was done with for good"
