"""Brokers for the MQTT source to talk to: one that does as it is told, and mosquitto; neither knows dxad."""

import asyncio
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mqtt5
import pytest

from hw_sim.ports import free_port
from tests.peers import packets_of

__all__ = ["PASSWORD", "FakeBroker", "running_mosquitto"]

PASSWORD = "hush"


class FakeBroker:
    """It records what comes, and answers as it is told to."""

    def __init__(self) -> None:
        self.got: list[Any] = []
        self.connack = mqtt5.ConnAckPacket()
        self.granted = mqtt5.SubAckReasonCode.GRANTED_QOS_AT_LEAST_ONCE
        self.pongs = True
        self.writer: asyncio.StreamWriter | None = None

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writer = writer
        async for packet in packets_of(reader):
            self.got.append(packet)
            match packet:
                case mqtt5.ConnectPacket():
                    writer.write(self.connack.write())
                case mqtt5.SubscribePacket():
                    granted = [self.granted] * len(packet.topic_filters)
                    writer.write(mqtt5.SubAckPacket(packet.packet_id, granted).write())
                case mqtt5.PingReqPacket() if self.pongs:
                    writer.write(mqtt5.PingRespPacket().write())

    def send(self, *payloads: bytes, qos: int = 0) -> bytes:
        """The bytes of these messages."""
        return b"".join(
            mqtt5.PublishPacket("t", payload, qos=mqtt5.QoS(qos), packet_id=number if qos else None).write()
            for number, payload in enumerate(payloads, 1)
        )

    def kinds(self) -> list[str]:
        return [type(packet).__name__.removesuffix("Packet") for packet in self.got]


@contextmanager
def running_mosquitto(
    folder: Path, *lines: str, port: int | None = None
) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """A mosquitto with these lines of configuration, and the file `users` that has `gw`; port and process."""
    program = shutil.which("mosquitto", path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")
    if program is None or shutil.which("mosquitto_passwd") is None:
        pytest.skip("mosquitto is not installed (apt install mosquitto)")
    port = port or free_port()
    users, settings = folder / "users", folder / "mosquitto.conf"
    subprocess.run(["mosquitto_passwd", "-b", "-c", users, "gw", PASSWORD], check=True, capture_output=True)
    users.chmod(0o644)
    own = [f"listener {port} 127.0.0.1", *(["user root"] if os.getuid() == 0 else [])]
    settings.write_text("\n".join([*own, *lines, ""]))
    with subprocess.Popen([program, "-c", settings], stderr=subprocess.DEVNULL) as process:
        try:
            _wait_for(port)
            yield port, process
        finally:
            process.kill()


def _wait_for(port: int) -> None:
    for _ in range(250):
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1.0).close()
        except OSError:
            time.sleep(0.02)
        else:
            return
    pytest.fail("mosquitto does not listen")
