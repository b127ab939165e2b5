"""The Modbus wire, read by clients that others have written, and byte by byte."""

import asyncio
import contextlib
import os
import shutil
import struct
import time

import pytest
from pymodbus.client import AsyncModbusSerialClient, AsyncModbusTcpClient
from pymodbus.framer import FramerType

from tests.patience import PATIENCE_S
from tests.unit.hw_sim.modbus_rig import KINDS, client_of, framed, place_of, serving, until, wire_of
from tests.unit.hw_sim.rig import plugged
from tests.unit.hw_sim.seriallink import opened, read

VALUES = {
    "plc.flow": 812.5,
    "plc.level": 1.25,
    "plc.valve": -61.2,
    "plc.running": 1.0,
    "plc.open": 0.0,
    "fan.rpm": 1450.0,
}
PLC = {
    "id": 1,
    "registers": {
        "flow": {"register": "input:30", "encoding": "float32"},
        "level": {"register": "input:32", "encoding": "float64", "order": "CDAB"},
        "valve": {"register": "holding:12", "encoding": "int16", "scale": 0.1},
        "running": {"register": "coil:0"},
        "open": {"register": "discrete:9"},
        "make": {"register": "holding:20", "encoding": "string", "text": "pump 7", "length": 4},
    },
}
FAN = {"id": 17, "registers": {"rpm": {"register": "holding:12", "encoding": "uint32", "order": "CDAB"}}}
BOTH = {"plc": PLC, "fan": FAN}

FRAMERS = {"tcp": FramerType.SOCKET, "rtu": FramerType.RTU, "ascii": FramerType.ASCII}


@contextlib.asynccontextmanager
async def pymodbus_of(wire, timeout_s=0.5):
    framer, place = FRAMERS[wire._settings.framing], wire.endpoints["plc"]
    options = {"framer": framer, "timeout": timeout_s, "retries": 0, "reconnect_delay": 0}
    if place.startswith("tcp://"):
        client = AsyncModbusTcpClient("127.0.0.1", port=int(place.rpartition(":")[2]), **options)
    else:
        client = AsyncModbusSerialClient(place, **options)
    try:
        assert await client.connect()
        yield client
    finally:
        client.close()
        await asyncio.sleep(0)


@pytest.mark.parametrize("kind", KINDS)
async def test_pymodbus_reads_every_table_of_every_slave(kind, tmp_path):
    async with serving(VALUES, devices=BOTH, **place_of(kind, tmp_path)) as wire, pymodbus_of(wire) as client:
        for flow, rpm in ((812.5, 1450.0), (-3.0, 2900.0)):
            wire.show(plc_flow=flow, fan_rpm=rpm, plc_running=float(flow > 0), plc_open=float(flow < 0))
            inputs = await client.read_input_registers(30, count=6, device_id=1)
            assert struct.unpack(">f", struct.pack(">2H", *inputs.registers[:2])) == (flow,)
            assert struct.unpack(">d", struct.pack(">4H", *inputs.registers[:1:-1])) == (1.25,)
            holding = await client.read_holding_registers(12, count=12, device_id=1)
            assert holding.registers[0] == -612 & 0xFFFF
            assert struct.pack(">4H", *holding.registers[8:]) == b"pump 7\0\0"
            assert (await client.read_coils(0, count=3, device_id=1)).bits[:3] == [flow > 0, False, False]
            assert (await client.read_discrete_inputs(9, count=1, device_id=1)).bits[0] is (flow < 0)
            words = (await client.read_holding_registers(12, count=2, device_id=17)).registers
            assert words[1] << 16 | words[0] == rpm


@pytest.mark.parametrize("kind", ["tcp", "rtu tty"])
async def test_mbpoll_reads_what_the_sensors_show(kind, tmp_path):
    if shutil.which("mbpoll") is None:
        pytest.skip("mbpoll is not installed")
    async with serving(VALUES, devices=BOTH, **place_of(kind, tmp_path)) as wire:
        place = wire.endpoints["plc"]
        at = (
            ["-p", place.rpartition(":")[2], "127.0.0.1"]
            if kind == "tcp"
            else ["-m", "rtu", "-P", "none", place]
        )

        async def polled(*options):
            process = await asyncio.create_subprocess_exec(
                "mbpoll", "-1", "-0", "-o", "1", *options, *at, stdout=asyncio.subprocess.PIPE
            )
            out, _ = await process.communicate()
            assert process.returncode == 0, out
            lines = [line.split() for line in out.decode().splitlines() if line.startswith("[")]
            return {int(line[0].strip("[]:")): line[1] for line in lines}

        assert await polled("-t", "3:float", "-B", "-r", "30") == {30: "812.5"}
        assert await polled("-t", "4", "-r", "11", "-c", "3") == {11: "0", 12: "64924", 13: "0"}
        assert await polled("-t", "4:int", "-a", "17", "-r", "12") == {12: "1450"}
        assert await polled("-t", "0", "-r", "0", "-c", "2") == {0: "1", 1: "0"}
        assert await polled("-t", "1", "-r", "9") == {9: "0"}


async def test_an_endpoint_says_what_is_found_there(tmp_path):
    wire = wire_of(VALUES, devices=BOTH, **place_of("rtu tty", tmp_path))
    assert wire.endpoints["fan"] == str(tmp_path / "bus")
    assert wire.endpoints["fan"].about == "Modbus RTU, id 17: holding 12 uint32 CDAB rpm"
    async with serving(VALUES, devices={"plc": PLC}, framing="rtu", port=0) as over_tcp:
        assert over_tcp.endpoints["plc"].startswith("tcp://127.0.0.1:")
        assert over_tcp.endpoints["plc"].about.startswith(
            "Modbus RTU over TCP, id 1: input 30 float32 flow, "
        )
        assert "holding 12 int16 x0.1 valve" in over_tcp.endpoints["plc"].about


READ_LEVEL = b"\x04\x00\x1e\x00\x02"


@pytest.mark.parametrize(
    ("pdu", "code"),
    [
        ("03 0000 0000", 3), ("03 0000 007E", 3), ("04 0000 FFFF", 3), ("01 0000 07D1", 3),
        ("02 0000 0000", 3), ("03 0000", 3), ("03 0040 0001", 2), ("03 003F 0002", 2), ("01 0040 0001", 2),
        ("01 0000 0041", 2),
        ("05 0000 FF00", 1), ("06 0000 0001", 1), ("0F 0000 0001 01 01", 1), ("10 0000 0001 02 0001", 1),
        ("16 0000 0000 0000", 1), ("07", 1), ("2B 0D 00", 1), ("08 0001 0000", 1), ("63", 1),
    ],
)  # fmt: skip
async def test_what_is_not_there_is_the_standard_s_exception(pdu, code):
    async with serving(VALUES, devices=BOTH, port=0) as wire, client_of(wire) as client:
        request = bytes.fromhex(pdu)
        await client.gets(request, bytes((request[0] | 0x80, code)))
        assert wire.counts == {"requests": 1, "sent": 1}


async def test_the_longest_reads_are_answered():
    device = {**PLC, "size": 4000}
    async with serving(VALUES, devices={"plc": device}, port=0) as wire, client_of(wire) as client:
        assert len(await client.ask(bytes.fromhex("03 0000 007D"), length=259)) == 259
        assert len(await client.ask(bytes.fromhex("01 0000 07D0"), length=259)) == 259


async def test_a_device_without_holes_refuses_a_block_with_one():
    registers = {"flow": {"register": "input:30", "encoding": "float32"}, "level": {"register": "input:33"}}
    device = {"registers": registers, "holes": "illegal"}
    async with serving(VALUES, devices={"plc": device}, port=0) as wire, client_of(wire) as client:
        await client.gets(bytes.fromhex("04 001E 0002"), bytes.fromhex("04 04 444B2000"))
        await client.gets(bytes.fromhex("04 0021 0001"), bytes.fromhex("04 02 0001"))
        for block in ("04 001E 0003", "04 001D 0002", "04 001E 0004", "04 0022 0001", "03 001E 0001"):
            pdu = bytes.fromhex(block)
            await client.gets(pdu, bytes((pdu[0] | 0x80, 2)))


async def test_tools_find_out_who_is_there():
    async with serving(VALUES, devices=BOTH, port=0) as wire, client_of(wire) as client:
        await client.gets(bytes.fromhex("08 0000 ABCD"), bytes.fromhex("08 0000 ABCD"))
        await client.gets(b"\x11", b"\x11\x05\x01\xffplc")
        objects = b"\x00\x06hw_sim\x01\x03plc\x02\x011"
        await client.gets(bytes.fromhex("2B 0E 01 00"), bytes.fromhex("2B 0E 01 81 00 00 03") + objects)
        await client.gets(bytes.fromhex("2B 0E 01 01"), bytes.fromhex("2B 0E 01 81 00 00 02") + objects[8:])
        await client.gets(bytes.fromhex("2B 0E 01 77"), bytes.fromhex("2B 0E 01 81 00 00 03") + objects)
        await client.gets(
            bytes.fromhex("2B 0E 04 01"), bytes.fromhex("2B 0E 04 81 00 00 01") + b"\x01\x03plc"
        )
        await client.gets(bytes.fromhex("2B 0E 04 07"), bytes.fromhex("AB 02"))
        await client.gets(bytes.fromhex("2B 0E 03 00"), bytes.fromhex("AB 03"))


@pytest.mark.parametrize("kind", KINDS)
async def test_an_id_that_nobody_has_is_silence_on_a_bus_and_a_gateway_s_exception_over_tcp(kind, tmp_path):
    async with serving(VALUES, devices=BOTH, **place_of(kind, tmp_path)) as wire, client_of(wire) as client:
        if kind == "tcp":
            await client.gets(READ_LEVEL, b"\x84\x0b", unit=5)
        else:
            assert await client.ask(READ_LEVEL, unit=5) == b""
            assert await client.ask(READ_LEVEL, unit=0) == b""
        assert wire.counts["unknown_id"] == (1 if kind == "tcp" else 2)
        assert wire.counts["lost"] == (0 if kind == "tcp" else 2)
        await client.gets(READ_LEVEL, bytes.fromhex("04 04 444B2000"))


async def test_many_clients_are_answered_each_with_its_own():
    async with serving(VALUES, devices=BOTH, port=0) as wire, contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(client_of(wire)) for _ in range(8)]
        for number, client in enumerate(clients):
            client.send(framed("tcp", 1, READ_LEVEL, number) + framed("tcp", 1, READ_LEVEL, number + 100))
        for number, client in enumerate(clients):
            answer = bytes.fromhex("04 04 444B2000")
            wanted = framed("tcp", 1, answer, number) + framed("tcp", 1, answer, number + 100)
            assert await client.receive(length=len(wanted)) == wanted
    assert wire.counts == {"requests": 16, "sent": 16}


async def test_a_block_is_one_moment():
    registers = {f"r{at}": {"register": f"input:{at}", "channel": "fan.rpm"} for at in range(100)}
    async with (
        serving(VALUES, devices={"plc": {"registers": registers}}, port=0) as wire,
        client_of(wire) as client,
    ):
        for rpm in range(20):
            client.send(framed("tcp", 1, bytes.fromhex("04 0000 0064")))
            wire.show(fan_rpm=float(rpm))
            words = {word for (word,) in struct.iter_unpack(">H", (await client.receive(length=209))[9:])}
            assert len(words) == 1


async def test_a_client_that_reads_nothing_is_not_read_from_any_more():
    async with serving(VALUES, devices=BOTH, port=0) as wire, client_of(wire) as client:
        client._transport.pause_reading()
        request = framed("tcp", 1, bytes.fromhex("03 0000 0040"))
        sent = 0
        while client._transport.get_write_buffer_size() == 0:
            client.send(request * 1000)
            sent += 1000
            await asyncio.sleep(0)
        await asyncio.sleep(0.02)
        assert wire.counts["requests"] < sent


@pytest.mark.parametrize("kind", ["rtu tty", "ascii tty"])
async def test_clients_of_a_terminal_come_and_go(kind, tmp_path):
    async with serving(VALUES, devices=BOTH, **place_of(kind, tmp_path)) as wire:
        for _ in range(3):
            async with client_of(wire) as client:
                await client.gets(READ_LEVEL, bytes.fromhex("04 04 444B2000"))
        before = time.process_time()
        await asyncio.sleep(0.05)  # nobody has it open
        assert time.process_time() - before < 0.04, "it does not spin"
    assert not (tmp_path / "bus").is_symlink()


async def test_what_one_client_of_a_terminal_leaves_behind_is_not_there_for_the_next(tmp_path):
    async with serving(VALUES, devices=BOTH, **place_of("rtu tty", tmp_path)) as wire:
        await wire.switch([wire.broken("modbus.late", by="20ms")])
        async with client_of(wire) as client:
            client.send(framed("rtu", 1, READ_LEVEL))
            await until(lambda: wire.counts["requests"])
        await until(lambda: wire.counts["lost"])
        await wire.switch([wire.broken("modbus.noise", period="1ms", bytes="1000")])
        await asyncio.sleep(0.02)
        await wire.switch([])
        with opened(wire.endpoints["plc"]) as end:
            assert read(end) == b""


async def test_what_a_client_of_a_terminal_asks_as_it_leaves_is_not_answered_to_the_next(tmp_path):
    async with serving(VALUES, devices=BOTH, **place_of("rtu tty", tmp_path)) as wire:
        with opened(wire.endpoints["plc"]) as end:
            os.write(end, framed("rtu", 1, READ_LEVEL))
        await asyncio.sleep(0.02)
        async with client_of(wire) as client:
            await client.gets(bytes.fromhex("03 000C 0001"), bytes.fromhex("03 02 05AA"), unit=17)


async def test_a_terminal_nobody_reads_from_loses_what_does_not_fit(tmp_path):
    async with (
        serving(VALUES, devices=BOTH, **place_of("rtu tty", tmp_path)) as wire,
        client_of(wire) as client,
    ):
        asyncio.get_running_loop().remove_reader(client._end)
        while not wire.counts["lost"]:
            client.send(framed("rtu", 1, bytes.fromhex("03 0000 0040")))
            await asyncio.sleep(0)
        assert wire.counts["requests"] == wire.counts["sent"] + wire.counts["lost"]


async def test_at_a_baudrate_an_answer_takes_as_long_as_on_such_a_line(tmp_path):
    place = {**place_of("rtu tty", tmp_path), "baudrate": 19_200}
    async with serving(VALUES, devices=BOTH, **place) as wire, client_of(wire) as client:
        begin = time.monotonic()
        answer = await client.ask(bytes.fromhex("03 0000 0010"), length=37)
        assert len(answer) == 37
        assert time.monotonic() - begin > (8 + 3.5 + 37) * 11 / 19_200 - 0.001


async def test_what_is_in_the_way_is_named(tmp_path):
    async with serving(VALUES, devices=BOTH, port=0) as wire:
        port = int(wire.endpoints["plc"].rpartition(":")[2])
        with pytest.raises(OSError, match=str(port)):
            await wire_of(VALUES, devices=BOTH, port=port).start()
    (tmp_path / "bus").write_text("precious")
    with pytest.raises(FileExistsError, match="left alone"):
        await wire_of(VALUES, devices=BOTH, **place_of("rtu tty", tmp_path)).start()
    with pytest.raises(FileNotFoundError):
        await wire_of(VALUES, devices=BOTH, framing="rtu", link=tmp_path / "no" / "bus").start()


@pytest.mark.parametrize("kind", KINDS)
async def test_a_wire_closes_twice_and_without_a_start(kind, tmp_path):
    wire = wire_of(VALUES, devices=BOTH, **place_of(kind, tmp_path))
    await wire.close()
    async with plugged(wire):
        pass
    await wire.close()


def down(wire, device):
    from hw_sim.catalogue import make

    return make("source_down", 0.0, None, {"device": device}, wire.known)


async def test_a_device_without_power_takes_its_port_along_and_comes_back_on_it():
    async with serving(VALUES, devices={"plc": PLC}, port=0) as wire, client_of(wire) as before:
        place = wire.endpoints["plc"]
        await wire.switch([down(wire, "plc")])
        await asyncio.wait_for(before.closed.wait(), PATIENCE_S)
        with pytest.raises(ConnectionRefusedError):
            async with client_of(wire):
                pass
        await wire.switch([])
        assert wire.endpoints["plc"] == place
        async with client_of(wire) as after:
            await after.gets(READ_LEVEL, bytes.fromhex("04 04 444B2000"))


@pytest.mark.parametrize("kind", KINDS)
async def test_a_slave_without_power_leaves_the_others_alone(kind, tmp_path):
    async with serving(VALUES, devices=BOTH, **place_of(kind, tmp_path)) as wire, client_of(wire) as client:
        await wire.switch([down(wire, "plc")])
        if kind == "tcp":
            await client.gets(READ_LEVEL, b"\x84\x0b")
        else:
            assert await client.ask(READ_LEVEL) == b""
        await client.gets(bytes.fromhex("03 000C 0001"), bytes.fromhex("03 02 05AA"), unit=17)
        await wire.switch([])
        await client.gets(READ_LEVEL, bytes.fromhex("04 04 444B2000"))


async def test_a_terminal_stays_when_all_slaves_are_without_power(tmp_path):
    async with (
        serving(VALUES, devices=BOTH, **place_of("rtu tty", tmp_path)) as wire,
        client_of(wire) as client,
    ):
        await wire.switch([down(wire, "plc"), down(wire, "fan")])
        assert await client.ask(READ_LEVEL) == b""
        await wire.switch([])
        await client.gets(READ_LEVEL, bytes.fromhex("04 04 444B2000"))


READS = {1: ["04 001E 0006", "03 000C 0001", "01 0000 0001", "02 0009 0001"], 17: ["03 000C 0002"]}


async def waits(wire):
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(wire.ready(), 0.01)
        return False
    return True


async def test_a_run_that_goes_as_fast_as_it_is_read_waits_until_every_register_is():
    async with serving(VALUES, devices=BOTH, port=0) as wire, client_of(wire) as client:
        for _ in range(2):
            for unit, blocks in READS.items():
                for block in blocks:
                    assert await waits(wire)
                    await client.ask(bytes.fromhex(block), unit=unit, length=9)
            await asyncio.wait_for(wire.ready(), PATIENCE_S)
            wire.show()


async def test_a_run_does_not_wait_for_what_cannot_be_read():
    async with serving(VALUES, devices=BOTH, port=0) as wire, client_of(wire) as client:
        await client.ask(bytes.fromhex(READS[17][0]), unit=17, length=9)
        assert await waits(wire)
        for name in ("silence", "dead_slave"):
            await wire.switch([wire.broken(f"modbus.{name}", device="plc")])
            await asyncio.wait_for(wire.ready(), PATIENCE_S)
        await wire.switch([down(wire, "plc")])
        await asyncio.wait_for(wire.ready(), PATIENCE_S)
        await wire.switch([])
        waiting = asyncio.create_task(wire.ready())
        await asyncio.sleep(0)
        await wire.switch([wire.broken("modbus.refuse")])
        await asyncio.wait_for(waiting, PATIENCE_S)


async def test_a_run_that_waits_for_long_says_for_what(caplog, monkeypatch):
    monkeypatch.setattr("hw_sim.modbus.wire._PATIENCE_S", 0.001)
    async with serving(VALUES, devices=BOTH, port=0) as wire:
        assert await waits(wire)
    assert "wire bus waits for somebody to read plc, fan" in caplog.text


def test_the_far_end_of_a_terminal_is_raw(tmp_path):
    import termios

    async def attributes():
        async with serving(VALUES, devices=BOTH, **place_of("rtu tty", tmp_path)) as wire:
            end = os.open(wire.endpoints["plc"], os.O_RDWR | os.O_NOCTTY)
            try:
                return termios.tcgetattr(end)
            finally:
                os.close(end)

    iflag, oflag, _, lflag, *_ = asyncio.run(attributes())
    assert not lflag & (termios.ECHO | termios.ICANON)
    assert not iflag & termios.ICRNL
    assert not oflag & termios.OPOST
