"""Readers that do nothing with what they read but check it, by the least work that each protocol allows.

What they know of a wire is its part of the map (plan.py). They read with libraries and `struct`, and share no
code with the wires: what both got wrong alike would not be seen.
"""

import asyncio
import os
import socket
import struct
import time
import tty
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Protocol, cast
from urllib.parse import urlsplit

import mqtt5
import orjson

from hw_sim.load.tally import Tally

__all__ = ["READERS", "Reader"]

_PATIENCE_S: Final = 5.0
_KEEP_ALIVE_S: Final = 60
_CHUNK: Final = 1 << 16
_LOOK_S: Final = 0.002
"""Between two looks for the first row."""
_PUBLISHING_MS: Final = 20.0
_PUBLISHED_MAX: Final = 100_000


class Reader(Protocol):
    """Reads one wire."""

    tally: Tally

    async def start(self) -> None:
        """Be connected, so that nothing is missed that is sent from now on.

        Raises:
            OSError: nobody answers.
        """

    async def close(self) -> None:
        """Leave."""


class _Subscriber(asyncio.Protocol):
    """A client of MQTT 5 with one subscription."""

    def __init__(self, wire: Mapping[str, Any], tally: Tally) -> None:
        self._topics: Mapping[str, Sequence[int]] = wire["topics"]
        self._names = {
            topic: [f"c{number:03d}" for number in numbers] for topic, numbers in self._topics.items()
        }
        self._qos = mqtt5.QoS(wire["qos"])
        self._tally = tally
        self._rest = b""
        self._now = 0.0
        self.subscribed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        greeting = mqtt5.ConnectPacket(f"load-{os.getpid()}", keep_alive=_KEEP_ALIVE_S)
        self.transport.write(greeting.write())

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        if not self.subscribed.done():
            self.subscribed.set_exception(exc or ConnectionError("the broker hangs up"))

    def data_received(self, data: bytes) -> None:
        assert self.transport is not None
        # Else the sender's Nagle algorithm and our delayed acknowledgement hold small writes up for 40 ms.
        link: socket.socket = self.transport.get_extra_info("socket")
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        self._now = time.time()
        data = self._rest + data
        view, at, end = memoryview(data), 0, len(data)
        acknowledged = []
        while at < end:
            try:
                packet, used = mqtt5.read(view[at:])
            except IndexError:  # it has not all come yet
                break
            at += used
            if type(packet) is mqtt5.PublishPacket:
                self._publish(packet)
                if packet.packet_id is not None:
                    acknowledged.append(mqtt5.PubAckPacket(packet.packet_id).write())
            else:
                self._control(packet)
        self._rest = data[at:]
        if acknowledged:
            self.transport.write(b"".join(acknowledged))

    def _publish(self, packet: mqtt5.PublishPacket) -> None:
        numbers = self._topics.get(packet.topic)
        if numbers is None or not packet.payload:
            self._tally.wrong += 1
            return
        message = orjson.loads(packet.payload)
        sequence = int(message["sequence"])
        values = [message[name] for name in self._names[packet.topic]]
        if self._tally.row(packet.topic, sequence, numbers, values) and sequence:
            self._tally.took(self._now - message["sent"])

    def _control(self, packet: mqtt5.Packet) -> None:
        assert self.transport is not None
        match packet:
            case mqtt5.ConnAckPacket():
                subscription = mqtt5.TopicFilter("load/+", max_qos=self._qos)
                self.transport.write(mqtt5.SubscribePacket(1, [subscription]).write())
                asyncio.get_running_loop().call_later(_KEEP_ALIVE_S / 2, self._ping)
            case mqtt5.SubAckPacket():
                self.subscribed.set_result(None)
            case mqtt5.DisconnectPacket():
                self.transport.close()

    def _ping(self) -> None:
        if self.transport is not None:
            self.transport.write(mqtt5.PingReqPacket().write())
            asyncio.get_running_loop().call_later(_KEEP_ALIVE_S / 2, self._ping)


class Mqtt:
    """Subscribes to all topics of the load."""

    def __init__(self, wire: Mapping[str, Any]) -> None:
        self.tally = Tally()
        self._wire = wire
        self._link: _Subscriber | None = None

    async def start(self) -> None:
        """Be subscribed."""
        at = urlsplit(self._wire["endpoint"])
        _, self._link = await asyncio.get_running_loop().create_connection(
            lambda: _Subscriber(self._wire, self.tally), at.hostname, at.port
        )
        async with asyncio.timeout(_PATIENCE_S):
            await self._link.subscribed

    async def close(self) -> None:
        """Hang up."""
        if self._link is not None and self._link.transport is not None:
            self._link.transport.write(mqtt5.DisconnectPacket().write())
            self._link.transport.close()


class Modbus:
    """Polls all blocks once a row, in the middle of its time, where jitter does not make it see a row twice.

    The time on the way is that from asking for a block to its answer.
    """

    def __init__(self, wire: Mapping[str, Any]) -> None:
        self.tally = Tally()
        self._wire = wire
        self._period_s = len(wire["blocks"]) / wire["messages_per_s"]
        self._blocks = [
            (each["first"], each["count"], each["channels"], struct.Struct(f">dI{len(each['channels'])}f"))
            for each in wire["blocks"]
        ]
        self._seen: dict[int, int] = {}
        self._again: Counter[int] = Counter()
        """By block, how often the row that was seen last was there again."""
        self._transaction = 0
        self._task: asyncio.Task[None] | None = None
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def start(self) -> None:
        """Be connected, and poll from the next row on."""
        at = urlsplit(self._wire["endpoint"])
        self._streams = await asyncio.open_connection(at.hostname, at.port)
        self._task = asyncio.create_task(self._poll(), name="modbus")

    async def _poll(self) -> None:
        begin = await self._beginning() + self._period_s / 2
        row = 0
        while True:
            await asyncio.sleep(begin + row * self._period_s - time.time())
            await self._look()
            row = max(row + 1, int((time.time() - begin) / self._period_s))

    async def _look(self) -> None:
        """Read all blocks once, as they are."""
        for first, count, channels, layout in self._blocks:
            asked = time.time()
            _, sequence, *values = layout.unpack(await self._read(first, count))
            if self._seen.get(first) == sequence:
                self._again[first] += 1
                continue
            self._seen[first] = sequence
            self.tally.stale += self._again.pop(first, 0)  # after the last row there is nothing but that
            if self.tally.row(first, sequence, channels, values):
                self.tally.took(time.time() - asked)

    async def _beginning(self) -> float:
        """Note the row that is there before the load begins, wait for the next; returns when that began."""
        await self._look()
        first, count, _, layout = self._blocks[0]
        before = None
        while True:
            began, sequence, *_ = layout.unpack(await self._read(first, count))
            if before not in {None, sequence}:
                return float(began)
            before = sequence
            await asyncio.sleep(_LOOK_S)

    async def _read(self, first: int, count: int) -> bytes:
        """The registers as bytes; MODBUS Application Protocol V1.1b3, 6.4, in the frame of TCP.

        Raises:
            ConnectionError: the answer is none to that.
        """
        assert self._streams is not None
        reader, writer = self._streams
        self._transaction = (self._transaction + 1) & 0xFFFF
        writer.write(struct.pack(">HHHBBHH", self._transaction, 0, 6, self._wire["id"], 4, first, count))
        head = await reader.readexactly(9)
        transaction, _, _, _, function, size = struct.unpack(">HHHBBB", head)
        if (transaction, function, size) != (self._transaction, 4, 2 * count):
            raise ConnectionError(f"the answer for {first} is {head.hex(' ')}")
        return await reader.readexactly(size)

    async def close(self) -> None:
        """Hang up; raises what the polling has failed with."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        if self._streams is not None:
            self._streams[1].close()
            await self._streams[1].wait_closed()


class Opcua:
    """Subscribes to all nodes; a latency has half the publishing interval in it."""

    def __init__(self, wire: Mapping[str, Any]) -> None:
        self.tally = Tally()
        self._wire = wire
        self._client: Any = None
        self._numbers: dict[Any, int] = {}

    async def start(self) -> None:
        """Be subscribed; the first values are those that stand there before the load begins."""
        from asyncua import ua  # noqa: PLC0415 - a quarter of a second that other wires do not need
        from asyncua.client.client import Client  # noqa: PLC0415 - likewise

        self._client = Client(self._wire["endpoint"], timeout=_PATIENCE_S)
        await self._client.connect()
        index = await self._client.get_namespace_index(self._wire["namespace"])
        nodes = {
            self._client.get_node(f"ns={index};{node}"): number
            for node, number in self._wire["nodes"].items()
        }
        self._numbers = {node.nodeid: number for node, number in nodes.items()}
        parameters = ua.CreateSubscriptionParameters(
            RequestedPublishingInterval=_PUBLISHING_MS,
            RequestedLifetimeCount=10_000,
            RequestedMaxKeepAliveCount=100,
            MaxNotificationsPerPublish=_PUBLISHED_MAX,
        )
        subscription = await self._client.create_subscription(parameters, self)
        answers = await subscription.subscribe_data_change(list(nodes), queuesize=100, sampling_interval=0)
        refused = [answer for answer in answers if isinstance(answer, ua.StatusCode)]
        if refused:
            raise OSError(f"{len(refused)} nodes are refused: {refused[0].name}")

    def datachange_notification(self, node: Any, value: float, data: Any) -> None:
        """A value came."""
        sequence = self.tally.value(self._numbers[node.nodeid], value)
        stamp = data.monitored_item.Value.SourceTimestamp
        if sequence > 0 and stamp is not None:
            self.tally.took(time.time() - stamp.timestamp())

    async def close(self) -> None:
        """Leave."""
        if self._client is not None:
            await self._client.disconnect()


class Serial:
    """Reads lines from a terminal."""

    def __init__(self, wire: Mapping[str, Any]) -> None:
        self.tally = Tally()
        self._channels = wire["channels"]
        self._path = Path(wire["endpoint"])
        self._rest = b""
        self._end: int | None = None

    async def start(self) -> None:
        """Have it open."""
        self._end = os.open(self._path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
        tty.setraw(self._end)
        asyncio.get_running_loop().add_reader(self._end, self._read)

    def _read(self) -> None:
        assert self._end is not None
        try:
            data = os.read(self._end, _CHUNK)
        except BlockingIOError:
            return
        except OSError:  # unplugged
            data = b""
        if not data:
            self._leave()
            return
        now = time.time()
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            try:
                sent, sequence, *values = map(float, line.split(b","))
            except ValueError:
                self.tally.wrong += len(self._channels)
                continue
            if self.tally.row("", int(sequence), self._channels, values) and sequence:
                self.tally.took(now - sent)

    def _leave(self) -> None:
        end, self._end = self._end, None
        if end is not None:
            asyncio.get_running_loop().remove_reader(end)
            os.close(end)

    async def close(self) -> None:
        """Close it."""
        self._leave()


READERS: Final[Mapping[str, type[Mqtt | Modbus | Opcua | Serial]]] = {
    "mqtt": Mqtt,
    "modbus": Modbus,
    "opcua": Opcua,
    "serial": Serial,
}
"""By the type of wire."""
