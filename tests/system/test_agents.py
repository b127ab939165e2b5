"""Agents lease events of a daemon; one of them dies, and so does the daemon: none is lost.

Somebody looks on meanwhile, and sees each event once.
"""

import contextlib
import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

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


@contextlib.contextmanager
def looking_on(config: Path) -> Iterator[Callable[[], list[dict]]]:
    """`dxad tail` from now until Ctrl-C: what it has printed."""
    with config.with_name("tail.jsonl").open("w+") as out, config.with_name("tail.log").open("w+") as told:
        tail = subprocess.Popen(
            [sys.executable, "-m", "dxad", "tail", "--json", "--retry", "-n", "100", "-c", str(config)],
            stdout=out, stderr=told,
        )  # fmt: skip
        try:
            yield lambda: [json.loads(each) for each in Path(out.name).read_text().split("\n")[:-1]]
            tail.send_signal(signal.SIGINT)
            assert tail.wait(timeout=20) == 0
            assert "trying again" in Path(told.name).read_text()
            assert "Traceback" not in Path(told.name).read_text()
        finally:
            tail.kill()
            tail.wait()


@needs_curl
def test_two_agents_compete_and_one_dies_and_then_the_daemon(config, folder):
    config.write_text(config.read_text() + GATEWAY)
    client = SyncClient(folder / "c.sock")

    def lease(**how):
        return client.run(lambda each: each.consumers.lease("agents", wait="1s", **how))

    with looking_on(config) as seen:
        _compete(config, client, lease, seen)
        assert len({each["id"] for each in seen()}) == len(seen())


def _compete(config, client, lease, seen) -> None:
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
        late = [sys.executable, "-m", "dxad", "events", "ack", "agents", mine["lease"], "-c", str(config)]
        assert subprocess.run(late, capture_output=True, check=False, timeout=PATIENCE_S).returncode == 1
        assert mine["event"]["id"] not in {each["event"]["id"] for each in again}, "it was done with for good"
        until(lambda: [each["type"] for each in seen()].count("dxad.gateway.started") == 3, "seen", daemon)
