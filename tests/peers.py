"""Small devices and servers for the sources to talk to; none of them knows dxad."""

import asyncio
import contextlib
import json
import os
import socket
import struct
import subprocess
import sys
import tty
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Self

import mqtt5
from asyncua import Server, ua

NAMESPACE = "urn:dxad:tests"


async def publish(
    port: int,
    topic: str,
    *payloads: bytes,
    qos: int = 1,
    retain: bool = False,
    username: str | None = None,
    password: bytes | None = None,
) -> None:
    """Publish over a connection of its own; with QoS 1 or 2, returns when the broker has them."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    hello = mqtt5.ConnectPacket(
        "publisher", username=username, password=password, clean_start=True, keep_alive=60
    )
    writer.write(hello.write())
    packets = packets_of(reader)
    assert isinstance(await anext(packets), mqtt5.ConnAckPacket)
    for number, payload in enumerate(payloads, 1):
        packet_id = number if qos else None
        packet = mqtt5.PublishPacket(topic, payload, qos=mqtt5.QoS(qos), packet_id=packet_id, retain=retain)
        writer.write(packet.write())
        if qos == 2:
            assert isinstance(await anext(packets), mqtt5.PubRecPacket)
            writer.write(mqtt5.PubRelPacket(number).write())
        if qos:
            assert isinstance(await anext(packets), mqtt5.PubAckPacket | mqtt5.PubCompPacket)
    writer.write(mqtt5.DisconnectPacket().write())
    await writer.drain()
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()


async def packets_of(reader: asyncio.StreamReader) -> AsyncIterator[object]:
    """The MQTT packets of a stream, until it ends."""
    buffer = b""
    while data := await reader.read(65_536):
        buffer += data
        while buffer:
            try:
                packet, used = mqtt5.read(memoryview(buffer))
            except IndexError:
                break
            buffer = buffer[used:]
            yield packet


@asynccontextmanager
async def listening(
    serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[object]], port: int = 0
) -> AsyncIterator[int]:
    """A TCP server that treats each connection by `serve`; yields its port, and ends what is still open."""
    tasks: set[asyncio.Task[None]] = set()

    async def connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
                await serve(reader, writer)
        finally:
            tasks.discard(task)
            writer.transport.abort()

    server = await asyncio.start_server(connection, "127.0.0.1", port)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in tuple(tasks):
            task.cancel()
        if tasks:
            await asyncio.wait(tuple(tasks))
        await server.wait_closed()


async def silence(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Take everything, say nothing."""
    while await reader.read(65_536):
        pass


class Pty:
    """A serial device; the link to it keeps its name when it is plugged out and in."""

    def __init__(self, link: Path) -> None:
        self.link = link
        self._ends: tuple[int, int] | None = None
        self._answers: asyncio.AbstractEventLoop | None = None

    def plug(self) -> None:
        near, far = os.openpty()
        tty.setraw(far)
        os.set_blocking(near, False)
        self.link.unlink(missing_ok=True)
        self.link.symlink_to(os.ttyname(far))
        self._ends = near, far

    def answering(self, reply: Callable[[bytes], bytes]) -> None:
        """Send what `reply` says to whatever comes, until it is unplugged; in the running event loop."""
        assert self._ends is not None
        near = self._ends[0]
        self._answers = asyncio.get_running_loop()
        self._answers.add_reader(near, lambda: self.send(reply(os.read(near, 4096))))

    def unplug(self) -> None:
        ends, self._ends = self._ends, None
        loop, self._answers = self._answers, None
        if ends and loop:
            loop.remove_reader(ends[0])
        for end in ends or ():
            os.close(end)
        self.link.unlink(missing_ok=True)

    def send(self, data: bytes) -> int:
        """Write what the line takes; returns how much, as a UART would lose the rest."""
        assert self._ends is not None
        try:
            return os.write(self._ends[0], data)
        except BlockingIOError:
            return 0


class OpcuaPeer:
    """A server in a process of its own, since it takes seconds to start; a context manager.

    Its variables are `a` and `b`, which are Double, `on`, which is Boolean, and `text`.
    """

    def __init__(self) -> None:
        self.port = 0

    def __enter__(self) -> Self:
        command = [sys.executable, "-W", "ignore", __file__]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.port = int(self._answer())
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def _answer(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the OPC-UA server has died"
        return line

    def write(self, status: int = ua.StatusCodes.Good, **values: float) -> None:
        """Give variables their values, with this status."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"status": status, "values": values}) + "\n")
        self._process.stdin.flush()
        self._answer()

    @staticmethod
    async def serve() -> None:
        """What the process does, until its standard input ends."""
        server = Server()
        await server.init()
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        server.set_endpoint(f"opc.tcp://127.0.0.1:{port}/test")
        server.set_security_policy([ua.SecurityPolicyType.NoSecurity])
        await server.register_namespace("urn:dxad:tests:another")  # so that the index is none to guess
        index = await server.register_namespace(NAMESPACE)
        for name, value in (("a", 0.0), ("b", 0.0), ("on", False), ("text", "12.5")):
            await server.nodes.objects.add_variable(ua.NodeId(name, index), name, value)
        async with server:
            sys.stdout.write(f"{port}\n")
            sys.stdout.flush()
            while line := await asyncio.to_thread(sys.stdin.readline):
                told = json.loads(line)
                for name, value in told["values"].items():
                    data = ua.DataValue(ua.Variant(value), StatusCode=ua.StatusCode(told["status"]))
                    await server.write_attribute_value(ua.NodeId(name, index), data)
                sys.stdout.write("done\n")
                sys.stdout.flush()


class Relay:
    """A cable to a server elsewhere, which can be cut, or go dead without anybody noticing."""

    def __init__(self, server_port: int) -> None:
        self._server_port = server_port
        self.dead = False

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._server_port)
        try:
            await asyncio.gather(self._carry(reader, far_writer), self._carry(far_reader, writer))
        finally:
            far_writer.transport.abort()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            if not self.dead:
                writer.write(data)
        writer.transport.abort()


class ModbusPeer:
    """A Modbus TCP device written from the specification: it can be late, silent, wrong, and it remembers."""

    def __init__(self) -> None:
        self.registers: dict[int, int] = {}
        """Of both register spaces; others read as their own address."""
        self.bits: set[int] = set()
        """Those that are on, of both bit spaces."""
        self.asked: list[tuple[int, int, int]] = []
        """Function code, first, count."""
        self.delay_s = 0.0
        self.exceptions: dict[int, int] = {}
        """By the first address that is asked for."""
        self.silent: set[int] = set()
        """Likewise."""
        self.reply: Callable[[bytes], bytes] = bytes
        """What becomes of the answer's function code and data."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            transaction, _, length, unit = struct.unpack(">HHHB", await reader.readexactly(7))
            function, first, count = struct.unpack(">BHH", await reader.readexactly(length - 1))
            self.asked.append((function, first, count))
            await asyncio.sleep(self.delay_s)
            if first in self.silent:
                continue
            pdu = self.reply(self._answer(function, first, count))
            writer.write(struct.pack(">HHHB", transaction, 0, len(pdu) + 1, unit) + pdu)

    def _answer(self, function: int, first: int, count: int) -> bytes:
        if first in self.exceptions:
            return bytes([function | 0x80, self.exceptions[first]])
        places = range(first, first + count)
        if function in (1, 2):
            number = sum((place in self.bits) << at for at, place in enumerate(places))
            data = number.to_bytes(-(-count // 8), "little")
        else:
            data = b"".join(struct.pack(">H", self.registers.get(place, place)) for place in places)
        return bytes([function, len(data)]) + data


if __name__ == "__main__":
    asyncio.run(OpcuaPeer.serve())
