"""The serial source on the simulator's wire: every framing with a checksum, and whatever happens to it."""

import asyncio
import math
from contextlib import asynccontextmanager

import pytest

from dxad.errors import DecodeError
from dxad.runtime.clock import SystemClock
from dxad.sources.serial import Config, Serial
from hw_sim.serial.faults import FAULTS
from tests.patience import PATIENCE_S
from tests.unit.hw_sim.seriallink import fault, plugged, steps

FIELDS = {"n": "count", "p": "count"}

TEXT = {"kind": "csv", "columns": ["n", "p"]}
BINARY = {"kind": "binary", "format": "<if", "fields": ["n", "p"]}
SHAPES = {
    "line": ({"checksum": "xor"}, {"decode": TEXT}),
    "delimiter": (
        {"framing": {"kind": "delimiter", "delimiter": "0x1e", "start": "0x02"}, "checksum": "crc16-modbus",
         "payload": "key_value"},
        {"decode": {"kind": "key_value"}, "channels": {"n": {}, "p": {}}},
    ),
    "fixed": (
        {"framing": {"kind": "fixed", "sync": "0xaa55"}, "checksum": "sum16", "payload": "struct"},
        {"decode": BINARY},
    ),
    "fixed, no sync": (
        {"framing": {"kind": "fixed"}, "checksum": "crc32", "payload": "struct"},
        {"decode": BINARY},
    ),
    "fixed text": (
        {"framing": {"kind": "fixed", "size": 20, "sync": "#"}, "checksum": "crc16"},
        {"decode": TEXT},
    ),
    "length": (
        {"framing": {"kind": "length", "size": 2, "sync": "0xaa"}, "checksum": "crc16-ccitt",
         "payload": "struct"},
        {"decode": BINARY},
    ),
    "cobs": ({"framing": {"kind": "cobs"}, "checksum": "crc32", "payload": "struct"}, {"decode": BINARY}),
    "slip": ({"framing": {"kind": "slip"}, "checksum": "crc8", "payload": "json"},
             {"decode": {"kind": "json"}, "channels": {"n": {}, "p": {}}}),
    "nmea": (
        {"framing": {"kind": "nmea", "talker": "PHWS"}},
        {"framing": {"kind": "line"}, "decode": {"kind": "nmea", "fields": {"n": "PHWS.1", "p": "PHWS.2"}}},
    ),
    "regex": ({"payload": "key_value", "checksum": "lrc"},
              {"decode": {"kind": "regex", "pattern": r"n=(?P<n>\d+),p=(?P<p>-?\d+)"}}),
}  # fmt: skip
"""What a device is like, and what is said of it; its framing and checksum are written alike on both sides."""
COUNTED = {"fixed", "fixed, no sync", "fixed text", "length"}
FAULTY = {
    "stall": {}, "half_frames": {"every": "3"}, "merged": {"every": "3"}, "checksum": {"every": "4"},
    "dropped": {"share": "0.02"}, "bit_errors": {"share": "0.02"}, "noise": {}, "wrong_baud": {},
    "chatter": {"every": "2"}, "overlong": {"every": "5", "size": "3000"}, "repeated": {"every": "2"},
    "flood": {"times": "20"},
}  # fmt: skip


def device(shape, **more):
    theirs, _ = SHAPES[shape]
    return {
        "fields": FIELDS,
        "decimals": 0,
        **({"format": "<if"} if theirs.get("payload") == "struct" else {}),
        **theirs,
        **more,
    }


def config(link, shape, **more):
    theirs, ours = SHAPES[shape]
    same = {key: theirs[key] for key in ("framing", "checksum") if key in theirs}
    return Config.model_validate(
        {"type": "serial", "port": str(link), "period": "10ms", **same, **ours, **more}
    )


REJECTED = {"half_frames", "noise", "wrong_baud", "overlong", "bit_errors"}
"""Of these each framing must tell."""


class Counting(Serial):
    """It tells how many bytes have come."""

    received = 0

    def _received(self, data):
        self.received += len(data)
        super()._received(data)
        self.came.set()


@asynccontextmanager
async def reading(settings):
    source = Counting("dev", settings, clock=SystemClock())
    source.came = asyncio.Event()
    try:
        await source.connect()
        yield source
    finally:
        await source.close()


async def rows(wire, source):
    """All that was sent: messages as [n, p], and how many were rejected."""
    async with asyncio.timeout(PATIENCE_S):
        while source.received < wire.counts["bytes"]:
            source.came.clear()
            await source.came.wait()
    found, rejected = {}, 0
    while True:
        try:
            async with asyncio.timeout(0):
                samples = (await source.read()).samples
        except TimeoutError:
            return list(found.values()), rejected
        except DecodeError as error:
            rejected += error.rejected
        else:
            for message, column, value in samples[["message", "column", "value"]].tolist():
                found.setdefault(message, [math.nan, math.nan])[column] = value


@pytest.fixture
def link(tmp_path):
    return tmp_path / "device"


def test_each_fault_of_the_wire_is_met_here():
    assert {each.short for each in FAULTS} == {*FAULTY, "unplug", "bursts"}


@pytest.mark.parametrize("shape", SHAPES)
async def test_every_shape_of_frame_is_read_and_survives_all_that_can_happen_to_it(link, shape):
    async with plugged(link, devices={"dev": device(shape)}) as wire, reading(config(link, shape)) as source:
        steps(wire, 20)
        got, rejected = await rows(wire, source)
        assert [n for n, _ in got][-18:] == [3.0 + place for place in range(18)]
        assert rejected == 0
        for name, parameters in FAULTY.items():
            await wire.switch([fault(wire, f"serial.{name}", **parameters)])
            got, rejected = [], 0
            for _ in range(6):
                steps(wire, 5)
                more, bad = await rows(wire, source)
                got, rejected = got + more, rejected + bad
            assert source._framer.waiting <= 1_100
            await wire.switch([])
            steps(wire, 100 if shape in COUNTED else 3)  # a length that is none is waited for, to its bound
            more, bad = await rows(wire, source)
            got, rejected = got + more, rejected + bad
            numbers = [n for n, _ in got]
            assert all(n == p for n, p in got), name
            assert numbers == sorted(numbers), name
            assert rejected > 0 or name not in REJECTED, name
            steps(wire, 10)
            got, rejected = await rows(wire, source)
            assert rejected == 0, name
            assert [n for n, _ in got] == [got[0][0] + place for place in range(10)], name
            assert all(n == p for n, p in got), name
