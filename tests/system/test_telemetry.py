"""Readings leave in bulk: what a receiver has adds up with what the daemon has stored."""

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import paho.mqtt.client as paho
import pytest

from dxad.event import decode
from dxad.types import Lane
from tests.durability import rows
from tests.patience import PATIENCE_S
from tests.system.process import curl, needs_curl, running, status, until
from tests.system.test_daemon import Receiver

TELEMETRY = """lanes = ["critical", "normal", "bulk"]

[telemetry.motor]
channels = ["motor.*"]
pipelines = ["pump"]
every = "500ms"
mode = "all"

[telemetry.gateway]
health = true
every = "1s"
"""


@pytest.fixture
def receiver(free_port):
    receiver = Receiver(free_port)
    yield receiver
    receiver.close()


class Counter:
    """Publishes one number after the other."""

    def __init__(self, broker: int) -> None:
        self._client = paho.Client(paho.CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
        self._client.connect("127.0.0.1", broker)
        self._client.loop_start()

    def publish(self, begin: int, end: int) -> None:
        for number in range(begin, end):
            self._client.publish("motor", json.dumps({"current": number, "speed": -number}))
            time.sleep(0.03)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()
        del self._client  # paho closes its wake-up sockets when it is collected


@pytest.fixture
def counter(broker):
    counter = Counter(broker)
    yield counter
    counter.close()


def stored(config) -> int:
    found = re.search(
        r'^dxad_samples_stored_total\{source="motor"\} (\d+)', curl(config, "/metrics"), re.MULTILINE
    )
    return 0 if found is None else int(found[1])


def sent(receiver: Receiver, channel: str) -> list[float]:
    records = [each["data"] for each in receiver.events if each["type"] == "dxad.telemetry.readings"]
    assert all(each["lost"] == 0 for each in records)
    records.sort(key=lambda each: each["first"])
    return [
        value
        for each in records
        if channel in each["channels"]
        for value in each["channels"][channel]["values"]
    ]


@needs_curl
def test_every_good_value_arrives_once_over_a_reload_and_a_stop(config, receiver, counter):
    config.write_text(config.read_text() + TELEMETRY)
    with running(config) as daemon:
        until(lambda: status(config)["sources"]["motor"]["connected"], "connected", daemon)
        counter.publish(0, 40)
        config.write_text(config.read_text().replace('every = "500ms"', 'every = "700ms"'))
        daemon.send_signal(signal.SIGHUP)
        counter.publish(40, 80)
        rows = status(config)["sources"]["motor"]["rows"]
        until(lambda: status(config)["sources"]["motor"]["rows"] > rows + 25, "sealed", daemon)
        cells, told = stored(config), status(config)["telemetry"]["motor"]
        daemon.send_signal(signal.SIGTERM)
        assert daemon.wait(timeout=PATIENCE_S) == 0
    current, speed = sent(receiver, "motor.current"), sent(receiver, "motor.speed")
    assert sorted(current) == sorted(set(current))
    assert speed == [-each for each in current]
    assert len(current) + len(speed) == cells
    assert cells > 20  # of 160, as what comes late comes together
    scores = [each for each in receiver.events if each["type"] == "dxad.telemetry.scores"]
    assert {each["subject"] for each in scores} == {"pump"}
    health = [each["data"] for each in receiver.events if each["type"] == "dxad.telemetry.health"]
    assert any(each["metrics"]['dxad_source_up{source="motor"}'] for each in health)
    assert told["rows_lost"] == told["records_lost"] == 0
    assert "telemetry.motor changed: every" in config.with_name("dxad.log").read_text()


def killed(folder: Path) -> None:
    """Let a process store rows, and kill it in the middle of it."""
    command = [sys.executable, "-m", "tests.durability.rows", str(folder)]
    with subprocess.Popen(command, cwd=Path(__file__).parents[2], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"stored\n"
        child.kill()


async def test_after_kill_9_there_is_no_hole_in_what_is_stored_but_those_that_are_told(disk_folder):
    killed(disk_folder)
    async with rows.opened(disk_folder) as box:
        await box.subscribe("test", frozenset({Lane.BULK}))
        found = [decode(each)["data"] for each in await box.fetch("test", 100_000)]
    assert len(found) >= rows.STORED
    expected, lost = rows.FIRST, 0
    for each in found:
        assert each["first"] == expected + each["lost"]
        expected = each["first"] + each["rows"]
        assert each["channels"]["s.n"]["values"] == [*range(each["first"], expected)]
        lost += each["lost"]
    assert lost
