"""Brokers for MQTT sources and sinks: some that do as they are told, and mosquitto; none knows dxad."""

import asyncio
import os
import shutil
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import mqtt5
import pytest

from hw_sim.ports import free_port
from tests.peers import packets_of

__all__ = ["PASSWORD", "FakeBroker", "TakingBroker", "hearing", "running_mosquitto"]

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


class TakingBroker:
    """A broker that speaks MQTT 5, keeps what is published, and answers each message as it is told to."""

    def __init__(self) -> None:
        self.connack = mqtt5.ConnAckPacket()
        self.hellos: list[mqtt5.ConnectPacket] = []
        self.published: list[mqtt5.PublishPacket] = []
        self.goodbyes = 0
        self.under_way = self.most_under_way = 0
        self.answer: Callable[[mqtt5.PublishPacket], mqtt5.PubAckReasonCode | str] = lambda _: (
            mqtt5.PubAckReasonCode.SUCCESS
        )
        """A reason code; or `hang up`, `say nothing`, `take and hang up`."""
        self.delay_s = 0.0
        self.writer: asyncio.StreamWriter | None = None

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writer = writer
        self.under_way = 0
        async for packet in packets_of(reader):
            match packet:
                case mqtt5.ConnectPacket():
                    self.hellos.append(packet)
                    writer.write(self.connack.write())
                case mqtt5.PublishPacket():
                    if not self._take(packet, writer):
                        return
                case mqtt5.PingReqPacket():
                    writer.write(mqtt5.PingRespPacket().write())
                case mqtt5.DisconnectPacket():
                    self.goodbyes += 1

    def _take(self, packet: mqtt5.PublishPacket, writer: asyncio.StreamWriter) -> bool:
        """Answer; whether the connection goes on."""
        said = self.answer(packet)
        if said == "hang up":
            return False
        self.published.append(packet)
        if said == "take and hang up":
            return False
        if isinstance(said, mqtt5.PubAckReasonCode):
            assert packet.packet_id is not None
            self.under_way += 1
            self.most_under_way = max(self.most_under_way, self.under_way)
            ack = mqtt5.PubAckPacket(packet.packet_id, reason_code=said)
            asyncio.get_running_loop().call_later(self.delay_s, self._acknowledge, ack, writer)
        return True

    def _acknowledge(self, ack: mqtt5.PubAckPacket, writer: asyncio.StreamWriter) -> None:
        self.under_way -= 1
        if not writer.is_closing():
            writer.write(ack.write())

    @property
    def events(self) -> list[mqtt5.PublishPacket]:
        """What is no status."""
        return [each for each in self.published if not each.topic.endswith("/status")]

    @property
    def status(self) -> list[bytes]:
        return [each.payload for each in self.published if each.topic.endswith("/status")]


@asynccontextmanager
async def hearing(port: int, *filters: str) -> AsyncIterator[list[mqtt5.PublishPacket]]:
    """Subscribe; what comes is in the list, retained messages first."""
    heard: list[mqtt5.PublishPacket] = []
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(mqtt5.ConnectPacket("listener", clean_start=True, keep_alive=60).write())
    packets = packets_of(reader)
    assert isinstance(await anext(packets), mqtt5.ConnAckPacket)
    topics = [mqtt5.TopicFilter(each, max_qos=mqtt5.QoS.AT_MOST_ONCE) for each in filters or ("#",)]
    writer.write(mqtt5.SubscribePacket(1, topics).write())
    assert isinstance(await anext(packets), mqtt5.SubAckPacket)

    async def listen() -> None:
        async for packet in packets:
            if isinstance(packet, mqtt5.PublishPacket):
                heard.append(packet)  # noqa: PERF401 - what has come is looked at meanwhile

    task = asyncio.create_task(listen())
    try:
        yield heard
    finally:
        task.cancel()
        await asyncio.wait([task])
        await packets.aclose()
        writer.transport.abort()
        await asyncio.sleep(0)
