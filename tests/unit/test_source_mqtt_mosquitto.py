"""The MQTT source against mosquitto."""

import json
import signal
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from tests.mqttbrokers import PASSWORD, running_mosquitto
from tests.peers import publish
from tests.unit.mqtt_source_rig import arriving, connected, lost, refused


@pytest.fixture
def mosquitto(tmp_path) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """A mosquitto that knows the user `gw`; its port and process."""
    users = tmp_path / "users"
    with running_mosquitto(tmp_path, "allow_anonymous false", f"password_file {users}") as found:
        yield found


@pytest.fixture
def login(monkeypatch) -> dict[str, Any]:
    monkeypatch.setenv("MQTT_PASSWORD", PASSWORD)
    return {"username": "gw", "password": {"env": "MQTT_PASSWORD"}}


class TestMosquitto:
    @pytest.mark.parametrize("qos", [0, 1])
    async def test_messages_arrive(self, mosquitto, login, qos):
        port, _ = mosquitto
        async with connected(port, qos=qos, **login) as source:
            messages = [json.dumps({"a": number, "b": -number}).encode() for number in range(100)]
            await publish(port, "t", *messages, qos=qos, username="gw", password=PASSWORD.encode())
            values = await arriving(source, 200)
            assert [value for column, value in values if column == 0] == list(range(100))

    async def test_a_wrong_password_is_told(self, mosquitto, login, monkeypatch):
        monkeypatch.setenv("MQTT_PASSWORD", "wrong")
        assert "the broker refuses us: NOT_AUTHORIZED" in await refused(mosquitto[0], **login)

    async def test_packets_over_the_bound_are_kept_away_and_the_others_come(self, mosquitto, login):
        port, _ = mosquitto
        async with connected(port, **login) as source:
            messages = [b'{"a": 1, "b": "%s"}' % (b"x" * 400_000), b'{"a": 2, "b": 2}']
            await publish(port, "t", *messages, username="gw", password=PASSWORD.encode())
            assert await arriving(source, 2) == [(0, 2.0), (1, 2.0)]

    async def test_a_killed_broker_is_noticed_at_once(self, mosquitto, login):
        port, process = mosquitto
        async with connected(port, **login) as source:
            process.send_signal(signal.SIGKILL)
            assert f"127.0.0.1:{port}" in await lost(source)
