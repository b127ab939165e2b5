"""With `ack = "outbox"` a broker keeps each message until the outbox has it: kill -9 loses none."""

import json
import signal
from collections.abc import Iterable
from pathlib import Path

from dxad.event import decode
from dxad.outbox import Outbox
from dxad.runtime.clock import SystemClock
from dxad.runtime.health import Health
from dxad.runtime.metrics import Metrics
from dxad.types import Lane
from tests.mqttbrokers import running_mosquitto
from tests.patience import PATIENCE_S
from tests.peers import publish
from tests.system.process import curl, needs_curl, running, status, until

CONFIG = """
state_dir = "{folder}/state"
control.socket = "{folder}/c.sock"
"""
SOURCE = """
[sources.{name}]
type = "mqtt"
url = "mqtt://127.0.0.1:{broker}"
topic = "t"
version = "{version}"
period = "20ms"
session = "1h"
client_id = "{name}"
ack = "{ack}"
channels = {{ a = {{}} }}

[telemetry.{name}]
channels = ["{name}.*"]
mode = "all"
every = "60s"
"""


def source(broker: int, ack: str, version: str) -> str:
    name = f"{ack}{version[0]}"
    return SOURCE.format(name=name, ack=ack, version=version, broker=broker)


def bodies(numbers: Iterable[int]) -> list[bytes]:
    return [json.dumps({"a": number}).encode() for number in numbers]


def received(config: Path) -> dict[str, int]:
    return {name: each["samples"] for name, each in status(config)["sources"].items()}


def arrived(config: Path, number: int) -> bool:
    """Whether each ring has this value."""
    return all(f"[{number}.0]" in curl(config, f"/v1/sources/{name}/rows") for name in received(config))


async def in_outbox(folder: Path) -> dict[str, list[float]]:
    """The values of each source in the file of a daemon that is down."""
    clock = SystemClock()
    box = Outbox(
        folder / "state/outbox.db", max_bytes=2**28, commit_window_s=0.0, health=Health(clock),
        metrics=Metrics(), clock=clock,
    )  # fmt: skip
    found: dict[str, list[float]] = {}
    async with box:
        await box.subscribe("test", frozenset({Lane.BULK}))
        for each in map(decode, await box.fetch("test", 10_000)):
            for channel in each["data"]["channels"].values():
                found.setdefault(each["subject"], []).extend(channel["values"])
    return found


@needs_curl
async def test_what_was_not_in_the_outbox_comes_again_after_kill_9(disk_folder, tmp_path):
    folder, config = disk_folder, disk_folder / "dxad.toml"
    with running_mosquitto(tmp_path, "allow_anonymous true") as (port, _):
        sources = [source(port, *each) for each in (("outbox", "5"), ("outbox", "3.1.1"), ("ring", "5"))]
        config.write_text(CONFIG.format(folder=folder) + "".join(sources))
        with running(config) as daemon:
            until(lambda: len(received(config)) == 3 and "connected" in curl(config, "/v1/status"), "up")
            until(lambda: all(e["connected"] for e in status(config)["sources"].values()), "connected")
            await publish(port, "t", *bodies(range(15)), qos=1)
            until(lambda: set(received(config).values()) == {15}, "received", daemon)
            daemon.kill()
        with running(config) as daemon:
            until(lambda: all(e["connected"] for e in status(config)["sources"].values()), "connected")
            await publish(port, "t", *bodies(range(15, 20)), qos=1)
            until(lambda: arrived(config, 19), "received", daemon)
            config.write_text(config.read_text().replace('every = "60s"', 'every = "50s"'))
            daemon.send_signal(signal.SIGHUP)
            until(lambda: "telemetry.outbox5 changed" in config.with_name("dxad.log").read_text(), "reloaded")
            await publish(port, "t", *bodies(range(20, 25)), qos=1)
            until(lambda: arrived(config, 24), "received", daemon)
            daemon.send_signal(signal.SIGTERM)
            assert daemon.wait(timeout=PATIENCE_S) == 0
    found = await in_outbox(folder)
    assert set(found["outbox5"]) == set(found["outbox3"]) == set(range(25))
    assert [each for each in found["outbox5"] if each >= 15] == [*range(15, 25)], "once, also over a reload"
    assert not set(found["ring5"]) & set(range(15)), "the counter-proof"
