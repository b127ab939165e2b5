"""A dead gateway looks different from a quiet plant: what is told when a daemon starts, dies, stops."""

import json
import signal

import pytest

from tests.pace import Watch
from tests.patience import PATIENCE_S
from tests.system.process import needs_curl, running, status, until
from tests.system.test_daemon import Receiver

GATEWAY = """
[gateway]
id = "gw7"
heartbeat = "1s"
tell_after = "0s"

[sources.gone]
type = "mqtt"
url = "mqtt://127.0.0.1:{port}"
topic = "gone"
period = "1s"
channels = {{ x = {{}} }}
"""


@pytest.fixture
def receiver(free_port):
    receiver = Receiver(free_port)
    yield receiver
    receiver.close()


def of(receiver: Receiver, what: str) -> list[dict]:
    return [each for each in receiver.events if each["type"] == f"dxad.gateway.{what}"]


@needs_curl
def test_a_receiver_is_told_of_starts_of_life_of_what_is_wrong_and_of_the_end(config, receiver):
    config.write_text(config.read_text() + GATEWAY.format(port=1))
    with running(config) as daemon:
        until(lambda: of(receiver, "heartbeat") and of(receiver, "condition"), "signs of life", daemon)
        found = status(config)
        assert found["heartbeat"]["every_s"] == 1
        assert found["heartbeat"]["last_s"] >= 0
        daemon.send_signal(signal.SIGKILL)
        daemon.wait()
    first = of(receiver, "started")
    assert [each["data"]["previous"]["ended"] for each in first] == ["none"]
    assert first[0]["bootid"] == found["boot"]
    assert first[0]["clockok"] == found["clock_ok"]
    beat = of(receiver, "heartbeat")[-1]
    assert beat["expiresat"] > beat["time"]
    assert "gone" in beat["data"]["sources_down"]
    assert {"source.down/gone"} <= {each["subject"] for each in of(receiver, "condition")}

    with running(config) as daemon:
        until(lambda: len(of(receiver, "started")) == 2, "the second start", daemon)
        with Watch() as machine:
            daemon.send_signal(signal.SIGTERM)
            assert daemon.wait(timeout=PATIENCE_S) == 0
    if not of(receiver, "stopped"):  # it comes before the daemon is gone, which waits a second for that
        assert machine.longest_s > 0.3
        with running(config) as daemon:
            until(lambda: of(receiver, "stopped"), "told", daemon)
    (stopped,) = of(receiver, "stopped")
    assert stopped["data"]["reason"] == "SIGTERM"
    previous = of(receiver, "started")[1]["data"]["previous"]
    assert previous["ended"] == "killed"
    assert 0 < previous["off_s"] < PATIENCE_S
    assert len({each["id"] for each in receiver.events}) == len(
        {json.dumps(each) for each in receiver.events}
    )
