"""What Modbus costs, by processor time of this process; the device is another.

    modbus.read           us for a block of 125 registers, asked for and answered over TCP
    modbus.poll           us for the same as a source does it: until its 125 samples can be handed over
    modbus.decode.KIND    ns a value to read such a block: int16, float32, and float32 in order CDAB, each
                          scaled; both by turns; int16 of which one number stands for none

The reference of a read is libmodbus's client, in C, called over ctypes in the same run with the same device,
by turns with ours; a poll has the same one. Where there is no libmodbus (Debian: libmodbus5), it is the bare
system calls, made from Python: send, and recv until all is there. The reference of a decoding is struct,
value by value. The device and we have a processor each, where there are two: what a call costs depends on it.
"""

import asyncio
import ctypes
import multiprocessing
import multiprocessing.connection
import os
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from ctypes.util import find_library
from typing import Any, Final

import numpy as np

from dxad.links.modbus import ModbusLink, shared
from dxad.links.modbusurl import address_of
from dxad.runtime.clock import SystemClock
from dxad.sources.modbus import Config, Layout, Modbus, ModbusChannel, plan
from tests.bench.report import Metric

__all__ = ["modbus"]

_REGISTERS: Final = 125
_READS: Final = 2000
_DECODINGS: Final = 2000
_BEST_OF: Final = 5
_GOAL_NS: Final = 20.0
_GOAL_RATIO: Final = 3.0
_ANSWER: Final = b"\0\0\0\xfd\x01\x04\xfa" + bytes(range(250))
"""Behind the transaction: of 125 input registers of slave 1."""
_QUESTION: Final = struct.pack(">HHHBBHH", 1, 0, 6, 1, 4, 0, _REGISTERS)


def _device(port: multiprocessing.connection.Connection) -> None:
    """Answer each question of whoever comes, one after the other, until killed."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port.send(server.getsockname()[1])
        while True:
            client, _ = server.accept()
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with client:
                while question := client.recv(64):
                    client.sendall(question[:2] + _ANSWER)


@contextmanager
def _apart() -> Iterator[tuple[set[int], set[int]]]:
    """The processors for us and for devices; afterwards we have all of them again."""
    all_ = os.sched_getaffinity(0)
    ours = set(sorted(all_)[:1])
    try:
        yield ours, (all_ - ours) or all_
    finally:
        os.sched_setaffinity(0, all_)


@contextmanager
def _serving(processors: set[int]) -> Iterator[int]:
    """Such a device in a process of its own; its port."""
    spawn = multiprocessing.get_context("spawn")
    near, far = spawn.Pipe()
    process = spawn.Process(target=_device, args=(far,), daemon=True)
    process.start()
    assert process.pid is not None
    os.sched_setaffinity(process.pid, processors)
    try:
        yield near.recv()
    finally:
        process.kill()
        process.join()


def _us_each(times: int, run: Callable[[], object]) -> float:
    """The processor time of a run that does something so often, us each."""
    begun = time.process_time_ns()
    run()
    return (time.process_time_ns() - begun) / times / 1e3


def _best_us(times: int, run: Callable[[], object]) -> float:
    return min(_us_each(times, run) for _ in range(_BEST_OF))


@contextmanager
def _libmodbus(library: str, port: int) -> Iterator[Callable[[], None]]:
    """What reads the block _READS times."""
    modbus_ = ctypes.CDLL(library)
    modbus_.modbus_new_tcp.restype = ctypes.c_void_p
    context = ctypes.c_void_p(modbus_.modbus_new_tcp(b"127.0.0.1", port))
    if modbus_.modbus_connect(context):
        raise OSError(ctypes.get_errno(), "libmodbus cannot connect")
    modbus_.modbus_set_slave(context, 1)
    registers = (ctypes.c_uint16 * _REGISTERS)()

    def run() -> None:
        for _ in range(_READS):
            assert modbus_.modbus_read_input_registers(context, 0, _REGISTERS, registers) == _REGISTERS

    try:
        yield run
    finally:
        modbus_.modbus_close(context)
        modbus_.modbus_free(context)


@contextmanager
def _bare_calls(port: int) -> Iterator[Callable[[], None]]:
    """The same without any library."""
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

        def run() -> None:
            for _ in range(_READS):
                client.sendall(_QUESTION)
                left = 2 + len(_ANSWER)
                while left:
                    left -= len(client.recv(left))

        yield run


@contextmanager
def _reference(port: int) -> Iterator[Callable[[], None]]:
    library = find_library("modbus")
    if library is None:
        print("no libmodbus: the reference is bare system calls from Python", file=sys.stderr)  # noqa: T201
    with _bare_calls(port) if library is None else _libmodbus(library, port) as run:
        yield run


async def _reads(link: ModbusLink) -> None:
    for _ in range(_READS):
        await link.ask("input", 0, _REGISTERS, device_id=1, timeout_s=1.0)


async def _polls(source: Modbus) -> None:
    for _ in range(_READS):
        await source.read()


def _measured(ports: Sequence[int]) -> tuple[float, float, float]:
    """Of a read, a poll, and a read by the reference: us each, the least of several turns."""
    channels = {f"c{at}": {"register": f"input:{at}", "scale": 0.1} for at in range(_REGISTERS)}
    document = {"type": "modbus", "url": f"tcp://127.0.0.1:{ports[0]}", "period": "1us", "channels": channels}
    source = Modbus("plc", Config.model_validate(document), clock=SystemClock())
    rounds = []
    with asyncio.Runner() as runner, _reference(ports[1]) as reference:

        async def opened() -> ModbusLink:
            link = shared(address_of(f"tcp://127.0.0.1:{ports[0]}"), delay_s=0.0, quiet_s=0.0)
            await source.connect()
            answer = await link.ask("input", 0, _REGISTERS, device_id=1, timeout_s=1.0)
            assert answer.wire == _ANSWER[-2 * _REGISTERS :]
            assert not (await source.read()).samples["quality"].any()
            return link

        link = runner.run(opened())
        for _ in range(_BEST_OF):
            read_us = _us_each(_READS, lambda: runner.run(_reads(link)))
            poll_us = _us_each(_READS, lambda: runner.run(_polls(source)))
            rounds.append((read_us, poll_us, _us_each(_READS, reference)))

        async def closed() -> None:
            await source.close()
            link.close()

        runner.run(closed())
    read, poll, reference_us = (min(each) for each in zip(*rounds, strict=True))
    return read, poll, reference_us


def _channels(kinds: tuple[tuple[str, int], ...], **settings: Any) -> list[ModbusChannel]:
    """As many of these kinds, in turn, as fit into a block."""
    found: list[ModbusChannel] = []
    at = 0
    while True:
        kind, registers = kinds[len(found) % len(kinds)]
        if at + registers > _REGISTERS:
            return found
        document = {"register": f"input:{at}", "encoding": kind, **settings}
        found.append(ModbusChannel.model_validate(document))
        at += registers


def _decode(channels: list[ModbusChannel]) -> Metric:
    (request,) = plan(channels)
    layout = Layout(request, channels, np.empty(len(channels)), np.zeros(len(channels), "u1"))
    wire = bytes(2 * request.count)
    letters = {"int16": ">h", "float32": ">f"}
    each = [(letters[one.kind], 2 * one.first, one.scale, one.offset) for one in channels]

    def by_numpy() -> None:
        for _ in range(_DECODINGS):
            layout.decode(wire)

    def by_value() -> None:
        for _ in range(_DECODINGS // 10):
            [scale * struct.unpack_from(letter, wire, at)[0] + offset for letter, at, scale, offset in each]

    return Metric(
        value=1e3 * _best_us(_DECODINGS, by_numpy) / len(channels),
        unit="ns",
        reference=1e3 * _best_us(_DECODINGS // 10, by_value) / len(channels),
        goal=_GOAL_NS,
        at_most=True,
    )


def modbus() -> Mapping[str, Metric]:
    """All of them."""
    with _apart() as (ours, its), _serving(its) as first, _serving(its) as second:
        os.sched_setaffinity(0, ours)
        read, poll, reference = _measured((first, second))
    short, long = ("int16", 1), ("float32", 2)
    return {
        "modbus.read": Metric(
            value=read, unit="us", reference=reference, goal=_GOAL_RATIO, at_most=True, of_ratio=True
        ),
        "modbus.poll": Metric(value=poll, unit="us", reference=reference),
        "modbus.decode.int16": _decode(_channels((short,), scale=0.1)),
        "modbus.decode.float32": _decode(_channels((long,), scale=0.1)),
        "modbus.decode.cdab": _decode(_channels((long,), scale=0.1, order="CDAB")),
        "modbus.decode.by_turns": _decode(_channels((short, long), scale=0.1)),
        "modbus.decode.absent": _decode(_channels((short,), absent="sunspec")),
    }
