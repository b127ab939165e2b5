"""The serial wire, as a raw reader, pyserial and socat see it."""

import asyncio
import json
import os
import shutil
import struct
import time
import tomllib
from importlib.resources import files

import pytest
import serial
from pydantic import ValidationError

from hw_sim.bench import Bench, Rig
from hw_sim.plants import pump_skid
from hw_sim.serial.outgoing import BUFFER
from hw_sim.serial.section import Settings
from hw_sim.serial.wire import build
from tests.patience import PATIENCE_S
from tests.unit.hw_sim.rig import counting
from tests.unit.hw_sim.seriallink import FIELDS, answer, opened, plugged, read, settings, steps

pytestmark = pytest.mark.one_loop


@pytest.fixture
def link(tmp_path):
    return tmp_path / "dev"


def numbers(data, ending=b"\r\n"):
    """The counts in frames `N,0`."""
    return [int(line.split(b",")[0]) for line in data.split(ending)[:-1]]


# --- what a scenario may say ---


@pytest.mark.parametrize(
    ("device", "says"),
    [
        ({"framing": {"kind": "morse"}}, "'line', 'delimiter', 'fixed', 'length', 'cobs', 'slip', 'nmea'"),
        ({"framing": {"kind": "line", "endign": "x"}}, "Extra inputs are not permitted"),
        ({"framing": {"kind": "delimiter", "delimiter": "0x1"}}, "no even number of hexadecimal digits"),
        ({"framing": {"kind": "delimiter", "delimiter": ","}}, "the ending b',' may stand within a frame"),
        ({"framing": {"kind": "delimiter", "delimiter": "."}}, "the ending b'.' may stand within a frame"),
        ({"framing": {"kind": "delimiter", "delimiter": ""}}, "at least 1 item"),
        ({"framing": {"kind": "delimiter", "delimiter": 30}}, "bytes are written as text, or"),
        ({"framing": {"kind": "length", "size": 3}}, "Input should be 1, 2 or 4"),
        (
            {"framing": {"kind": "length"}, "payload": "json", "sequence": "n" * 240},
            "a length of 1 bytes is too small",
        ),
        ({"framing": {"kind": "fixed"}}, "fixed framing of a text needs its size"),
        ({"framing": {"kind": "fixed", "size": 5, "sync": "<<<<"}}, "nothing fits into 5 bytes"),
        (
            {"framing": {"kind": "fixed", "size": 5}, "payload": "struct", "format": "<hh"},
            "take 4 bytes, not 5",
        ),
        (
            {"framing": {"kind": "nmea", "talker": "WIMWV"}, "payload": "json"},
            "the payload of nmea framing is csv",
        ),
        (
            {"framing": {"kind": "nmea", "talker": "WIMWV"}, "checksum": "crc8"},
            "nmea framing is xor, or none",
        ),
        ({"checksum": "crc16-modbuss"}, "no checksum 'crc16-modbuss'; there are none, xor"),
        ({"checksum": {"kind": "crc8", "written": "bytes"}}, "may look like the end of a line frame"),
        ({"payload": "struct", "framing": {"kind": "cobs"}}, "a struct needs a format"),
        (
            {"payload": "struct", "framing": {"kind": "cobs"}, "format": "<h"},
            "has 1 numbers for 2 values: n, p",
        ),
        ({"payload": "struct", "format": "<hh"}, "a struct may look like the end of a line frame"),
        ({"format": "<hh"}, 'a format is for payload = "struct"'),
        ({"scale": {"q": 2.0}}, "scale: no field 'q'; there are n, p"),
        ({"scale": 0.0}, "divided by a scale of 0"),
        ({"period": 1}, "a duration is a string with a unit"),
        ({"period": "0s"}, "greater than 0"),
        ({"query": "READ?\n", "period": "1s"}, "when it is asked, or once a period; not both"),
        ({"query": "\nREAD?\n"}, "the last byte of a query ends it"),
        ({"error": "ERR\n"}, "needs a query"),
        ({"fields": {}}, "at least 1 item"),
        ({"fields": {"n": ""}}, "at least 1 character"),
    ],
)
def test_a_wrong_section_says_what_is_wrong(link, device, says):
    with pytest.raises(ValidationError) as error:
        settings(link, **device)
    assert says in str(error.value)


@pytest.mark.parametrize(
    ("wire", "says"),
    [
        ({"link": "dev/here"}, "is no path from the root"),
        ({"baudrate": 5}, "greater than or equal to 50"),
        ({"devices": {}}, "at least 1 item"),
        ({"devices": {"a b": {"fields": FIELDS}}}, "should match pattern"),
    ],
)
def test_a_wrong_wire_says_what_is_wrong(link, wire, says):
    with pytest.raises(ValidationError) as error:
        settings(link, wire=wire)
    assert says in str(error.value)


def test_a_wire_tells_the_channels_of_its_devices_and_where_they_are(link):
    wire = build("w", settings(link, checksum="crc8", period="100ms"), counting())
    assert wire.devices == {"dev": FIELDS}
    assert wire.endpoints == {"dev": str(link)}
    assert wire.endpoints["dev"].about == "line frames of csv with crc8: n, p every 0.1 s"


# --- frames on the wire ---


async def test_the_vibration_sensor_of_the_shipped_scenario_sends_its_lines(link):
    written = tomllib.loads((files("hw_sim") / "scenarios" / "pump_skid.toml").read_text())["wires"]["vib"]
    bench = Bench([Rig("pump", pump_skid.build(pump_skid.Settings(), "1/pump"))], seed=1)
    wire = build("vib", Settings.model_validate(written | {"link": str(link)}), bench)
    await wire.start()
    try:
        with opened(link) as end:
            steps(wire, 100)
            *lines, rest = read(end).split(b"\r\n")
    finally:
        await wire.close()
    assert len(lines) == 100
    assert rest == b""
    for line in lines:
        text, digits = line.split(b"*")
        value = 0
        for byte in text:
            value ^= byte
        assert int(digits, 16) == value
        assert [len(cell.partition(b".")[2]) for cell in text.split(b",")] == [4, 4, 4]
    assert lines[-1].split(b"*")[0].decode() == ",".join(
        f"{bench.readings[f'vib.{axis}']:.4f}" for axis in "xyz"
    )


def modbus(data):
    """CRC of Modbus over serial line, 6.2.2, bit by bit; its low byte comes first."""
    crc = 0xFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ 0xA001 if crc & 1 else crc >> 1
    return bytes([crc & 255, crc >> 8])


SHAPES = {
    "line": ({}, b"1,0\r\n2,0\r\n"),
    "line of json": (
        {"framing": {"kind": "line", "ending": "\n"}, "payload": "json"},
        b'{"n":1,"p":0}\n{"n":2,"p":0}\n',
    ),
    "delimiter": (
        {"framing": {"kind": "delimiter", "delimiter": "0x1e", "start": "0x02"}, "separator": ";"},
        b"\x021;0\x1e\x022;0\x1e",
    ),
    "nmea": ({"framing": {"kind": "nmea", "talker": "IIXDR"}}, b"$IIXDR,1,0*4F\r\n$IIXDR,2,0*4C\r\n"),
    "nmea without": (
        {"framing": {"kind": "nmea", "talker": "IIXDR"}, "checksum": "none"},
        b"$IIXDR,1,0\r\n$IIXDR,2,0\r\n",
    ),
    "fixed text": ({"framing": {"kind": "fixed", "size": 6}, "checksum": "sum8"}, b"1,0  \xcd2,0  \xce"),
    "fixed": (
        {"framing": {"kind": "fixed", "sync": "<<"}, "checksum": "xor", "payload": "struct", "format": "<hB"},
        b"<<\1\0\0\1<<\2\0\0\2",
    ),
    "length": (
        {"framing": {"kind": "length", "size": 2, "endian": "little"}, "payload": "key_value"},
        b"\7\0n=1,p=0\7\0n=2,p=0",
    ),
    "cobs": (
        {"framing": {"kind": "cobs"}, "payload": "struct", "format": ">HB"},
        b"\1\2\1\1\0\1\2\2\1\0",
    ),
    "length with a checksum": (
        {"framing": {"kind": "length"}, "payload": "struct", "format": ">hB", "checksum": "crc16-modbus"},
        b"\3\0\1\0" + modbus(b"\0\1\0") + b"\3\0\2\0" + modbus(b"\0\2\0"),
    ),
    "slip": (
        {"framing": {"kind": "slip"}, "payload": "struct", "format": "<BB", "scale": {"n": 1 / 0xC0}},
        b"\xc0\xdb\xdc\0\xc0\xc0\xff\0\xc0",
    ),
    "slip without start": ({"framing": {"kind": "slip", "start": False}}, b"1,0\xc02,0\xc0"),
}  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES)
async def test_a_raw_reader_sees_each_shape(link, shape):
    section, seen = SHAPES[shape]
    async with plugged(link, **section) as wire:
        with opened(link) as end:
            steps(wire, 2)
            got = read(end)
    assert got == seen
    assert wire.counts == {"sent": 2, "bytes": len(got), "lost_bytes": 0}


async def test_pyserial_reads_lines(link):
    async with plugged(link) as wire:
        with serial.Serial(str(link), 115200, timeout=1.0, exclusive=True) as port:
            steps(wire, 3)
            assert [port.readline() for _ in range(3)] == [b"1,0\r\n", b"2,0\r\n", b"3,0\r\n"]


@pytest.mark.skipif(shutil.which("socat") is None, reason="socat is not installed")
async def test_socat_reads_bytes(link):
    async with plugged(link, framing={"kind": "cobs"}) as wire:
        command = ("socat", "-u", f"{link},rawer", "STDOUT")
        reader = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
        await wire._tty.writable()
        await asyncio.sleep(0.02)  # it sets the terminal up, and forgets what was there
        steps(wire, 2)
        assert await reader.stdout.readexactly(10) == b"\x041,0\0\x042,0\0"
        await wire.close()
        assert await reader.stdout.read() == b""
        assert await reader.wait() in {0, 1}, "it sees the hang-up and ends"
        reader._transport.close()


async def test_frames_keep_to_their_period_in_the_plants_time(link):
    async with plugged(link, period="50ms") as wire:
        with opened(link) as end:
            steps(wire, 20)
            assert numbers(read(end)) == [1, 5, 10, 15, 20]


async def test_the_frames_of_several_devices_interleave_as_they_come(link):
    counted = {"fields": {"n": "count"}, "decimals": 0}
    devices = {
        "fast": counted,
        "slow": counted | {"period": "20ms", "framing": {"kind": "nmea", "talker": "XX"}},
    }
    async with plugged(link, devices=devices) as wire:
        assert set(wire.endpoints) == {"fast", "slow"}
        with opened(link) as end:
            steps(wire, 4)
            seen = [line.split(b"*")[0] for line in read(end).split()]
    assert seen == [b"1", b"$XX,1", b"2", b"$XX,2", b"3", b"4", b"$XX,4"]


async def test_a_frame_carries_the_plants_time_and_its_number(link):
    async with plugged(link, payload="json", time="ts", sequence="seq") as wire:
        wire.now = lambda: 1.7e9 + wire.bench.at_s
        with opened(link) as end:
            steps(wire, 2)
            found = [json.loads(line) for line in read(end).splitlines()]
    assert found == [
        {"ts": 1700000000.01, "seq": 0, "n": 1, "p": 0},
        {"ts": 1700000000.02, "seq": 1, "n": 2, "p": 0},
    ]


async def test_a_sensor_without_a_reading_leaves_its_cell_empty(link):
    bench = counting("dropout@0s:channel=count,every=10s,width=15ms")
    async with plugged(link, bench=bench) as wire:
        with opened(link) as end:
            steps(wire, 2)
            assert read(end) == b",0\r\n2,0\r\n"


# --- readers that sleep, go or never come ---


async def test_what_nobody_hears_is_lost_and_counted(link):
    async with plugged(link) as wire:
        steps(wire, 5)
        assert wire.counts == {"lost": 5, "lost_bytes": 25, "bytes": 0}
        with opened(link) as end:
            steps(wire, 1)
            assert numbers(read(end)) == [6]


async def test_the_next_reader_does_not_find_what_the_last_has_left(link):
    async with plugged(link) as wire:
        with opened(link):
            steps(wire, 5)
        steps(wire, 1)
        with opened(link) as end:
            steps(wire, 1)
            assert numbers(read(end)) == [7]


async def test_a_sleeping_reader_loses_bytes_and_the_count_of_whole_frames_is_right(link):
    async with plugged(link) as wire:
        with opened(link) as end:
            begin = time.monotonic()
            steps(wire, 8000)
            assert time.monotonic() - begin < PATIENCE_S, "a full terminal holds nobody up"
            before = read(end)
            steps(wire, 3)
            after = read(end)
    torn = before + after
    lines = torn.split(b"\r\n")
    whole = sum(1 for line in lines[:-1] if line.count(b",") == 1 and line.endswith(b",0") and len(line) <= 6)
    assert numbers(after)[-3:] == [8001, 8002, 8003]
    assert len(torn) == wire.counts["bytes"] < 8003 * 6
    assert wire.counts["sent"] + wire.counts["lost"] == 8003
    assert wire.counts["lost"] > 1000
    assert abs(whole - wire.counts["sent"]) <= 2, "torn frames may run into one that looks whole"


async def test_a_run_as_fast_as_its_wire_loses_nothing(link):
    async with plugged(link) as wire:
        got = bytearray()
        ready = asyncio.create_task(wire.ready())
        await asyncio.sleep(0.02)
        assert not ready.done(), "it waits for a reader"
        with opened(link) as end:
            await ready

            def take():
                got.extend(os.read(end, 700))

            asyncio.get_running_loop().add_reader(end, take)
            for _ in range(10_000):
                await wire.ready()
                steps(wire, 1)
            await wire.close()
            asyncio.get_running_loop().remove_reader(end)
    assert numbers(bytes(got)) == list(range(1, 10_001))
    assert wire.counts["sent"] == 10_000
    assert wire.counts["lost"] == 0


async def test_a_run_as_fast_as_its_wire_ends_although_its_reader_has_gone_to_sleep(link):
    async with plugged(link) as wire:
        with opened(link):
            await wire.ready()
            steps(wire, 8000)
            waiting = asyncio.create_task(wire.ready())
            await asyncio.sleep(0.02)
            assert not waiting.done()
            async with asyncio.timeout(PATIENCE_S):
                waiting.cancel()
                await asyncio.wait([waiting])
                await wire.close()


async def test_a_line_carries_no_more_than_its_baud_rate(link):
    async with plugged(link, wire={"baudrate": 1200}, framing={"kind": "fixed", "size": 3}) as wire:
        with opened(link) as end:
            steps(wire, 100)
            got = read(end)
        assert len(got) == pytest.approx(120, abs=2), "a second of 1200 baud"
        assert wire.counts["lost"] == 0, "the device still holds the rest"
    assert 300 - len(got) <= BUFFER


async def test_what_a_line_cannot_carry_overruns_the_devices_buffer(link):
    async with plugged(link, wire={"baudrate": 1200}, framing={"kind": "fixed", "size": 50}) as wire:
        with opened(link) as end:
            steps(wire, 100)
            got = read(end)
        assert len(got) == pytest.approx(120, abs=2)
        assert wire.counts["sent"] == 2
        assert wire.counts["lost"] == pytest.approx(100 - (BUFFER + 120) / 50, abs=1)


async def test_a_burst_on_a_slow_line_comes_at_its_pace(link):
    async with plugged(
        link, wire={"baudrate": 9600}, period="1s", framing={"kind": "fixed", "size": 96}
    ) as wire:
        with opened(link) as end:
            steps(wire, 1)
            assert len(read(end)) == pytest.approx(10, abs=1)
            steps(wire, 5)
            assert len(read(end)) == pytest.approx(48, abs=2)
            steps(wire, 5)
            assert len(read(end)) == pytest.approx(38, abs=2)


# --- the link ---


async def test_the_link_is_a_link_and_gone_at_the_end(link):
    async with plugged(link) as wire:
        assert link.is_symlink()
        assert str(link.readlink()).startswith("/dev/pts/")
        assert [each.name for each in link.parent.iterdir()] == ["dev"], "nothing else is left there"
        await wire.close()
    assert not link.is_symlink()


async def test_a_stale_link_is_replaced_and_never_followed(link, tmp_path):
    precious = tmp_path / "precious"
    precious.write_text("as it was")
    link.symlink_to(precious)
    async with plugged(link) as wire:
        with opened(link) as end:
            steps(wire, 1)
            assert read(end)
    assert precious.read_text() == "as it was"


async def test_what_is_no_link_is_left_alone(link):
    link.write_text("as it was")
    wire = build("w", settings(link), counting())
    with pytest.raises(FileExistsError, match="is no link"):
        await wire.start()
    await wire.close()
    assert link.read_text() == "as it was"


async def test_a_folder_that_is_not_there_is_an_error_that_leaves_nothing_open(tmp_path):
    wire = build("w", settings(tmp_path / "no" / "dev"), counting())
    with pytest.raises(FileNotFoundError):
        await wire.start()
    await wire.close()


async def test_a_link_that_somebody_else_has_taken_stays(link):
    async with plugged(link):
        link.unlink()
        link.symlink_to("/dev/null")
    assert str(link.readlink()) == "/dev/null"


async def test_closing_is_safe_twice_and_without_a_start(link):
    wire = build("w", settings(link), counting())
    await wire.close()
    await wire.start()
    await wire.close()
    await wire.close()
    steps(wire, 1)


# --- devices that are asked ---


async def test_a_device_with_a_query_speaks_only_when_it_is_asked(link):
    async with plugged(link, query="READ?\r\n") as wire:
        with opened(link) as end:
            steps(wire, 5)
            assert read(end, 0.01) == b""
            assert await answer(end, b"READ?\r\n") == b"5,0\r\n"
            assert await answer(end, b"READ?\r\nREAD?\r\n") == b"5,0\r\n5,0\r\n"
            assert await answer(end, b"RESET\r\nREAD?\n", 0.05) == b"", (
                "it says nothing to what it does not know"
            )
            assert await answer(end, b"REA", 0.02) == b""
            assert await answer(end, b"D?\r\n") == b"5,0\r\n", "a request may come in pieces"
    assert wire.counts["requests"] == 6
    assert wire.counts["unknown"] == 2
    assert wire.counts["sent"] == 4


async def test_a_run_as_fast_as_its_wires_does_not_wait_for_somebody_to_ask(link):
    async with plugged(link, query="READ?\n") as wire:
        await wire.ready()
        steps(wire, 2)
        with opened(link) as end:
            assert await answer(end, b"READ?\n") == b"2,0\r\n"


async def test_an_unknown_request_gets_its_error(link):
    async with plugged(link, query="READ?\n", error="ERR\n"):
        with opened(link) as end:
            assert await answer(end, b"RAED?\n") == b"ERR\n"
            assert await answer(end, b"READ?\n") == b"0,0\r\n"
            for _ in range(3):
                assert await answer(end, b"x" * 2000, 0.01) == b""
            assert await answer(end, b"\n") == b"ERR\n"


async def test_instruments_on_one_line_answer_to_their_own_address(link):
    device = {"fields": {"n": "count"}, "decimals": 0}
    devices = {
        "one": device | {"query": "#01\r", "framing": {"kind": "nmea", "talker": "ONE"}},
        "two": device | {"query": "#02\r", "framing": {"kind": "nmea", "talker": "TWO"}},
        "bin": device
        | {"query": "0x0510ff", "framing": {"kind": "cobs"}, "payload": "struct", "format": "<H"},
    }
    async with plugged(link, devices=devices) as wire:
        steps(wire, 258)
        with opened(link) as end:
            assert (await answer(end, b"#02\r")).startswith(b"$TWO,258*")
            assert (await answer(end, b"#01\r")).startswith(b"$ONE,258*")
            assert await answer(end, b"\x05\x10\xff") == b"\3" + struct.pack("<H", 258) + b"\0"


async def test_a_device_answers_the_next_who_opens_it(link):
    async with plugged(link, query="?\n"):
        for _ in range(2):
            with serial.Serial(str(link), 9600, timeout=0, exclusive=True) as port:
                assert await answer(port.fileno(), b"?\n") == b"0,0\r\n"
            await asyncio.sleep(0.01)


async def test_a_device_that_is_told_something_takes_no_notice(link):
    async with plugged(link) as wire:
        with opened(link) as end:
            taken = 0
            for _ in range(50):
                taken += os.write(end, b"y" * 500)
                steps(wire, 1)
            assert taken == 25_000, "it never holds the writer up"
            assert numbers(read(end)) == list(range(1, 51))
