"""Each row of the catalogue, switched on and off, as a client finds it on the wire."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

import pytest
from pymodbus.client import AsyncModbusTcpClient
from pymodbus.exceptions import ModbusIOException
from pymodbus.framer import FramerType

from hw_sim.modbus.breaking import EFFECTS
from hw_sim.modbus.faults import FAULTS
from tests.patience import PATIENCE_S
from tests.unit.hw_sim.modbus_rig import (
    KINDS,
    QUIET_S,
    Client,
    Wired,
    client_of,
    framed,
    place_of,
    serving,
    until,
)

VALUES = {"one.a": 5.0, "one.b": 1.5, "one.c": -7.0, "one.on": 1.0, "one.shut": 1.0, "two.a": 9.0}
DEVICES = {
    "one": {
        "id": 1,
        "registers": {
            "a": {"register": "holding:10", "encoding": "uint16"},
            "b": {"register": "holding:11", "encoding": "float32"},
            "c": {"register": "input:5"},
            "on": {"register": "coil:0"},
            "shut": {"register": "discrete:3"},
        },
    },
    "two": {"id": 2, "registers": {"a": {"register": "holding:10"}}},
}
A = bytes.fromhex("03 000A 0001")
A_ANSWER = bytes.fromhex("03 02 0005")
B = bytes.fromhex("03 000B 0002")
B_ANSWER = bytes.fromhex("03 04 3FC00000")
C = bytes.fromhex("04 0005 0001")
C_ANSWER = bytes.fromhex("04 02 FFF9")
ON = bytes.fromhex("01 0000 0001")
ON_ANSWER = bytes.fromhex("01 01 01")
SHUT = bytes.fromhex("02 0003 0001")
SHUT_ANSWER = bytes.fromhex("02 01 01")
TWO_ANSWER = bytes.fromhex("03 02 0009")
WELL = {A: A_ANSWER, B: B_ANSWER, C: C_ANSWER, ON: ON_ANSWER, SHUT: SHUT_ANSWER}


class Bus:
    """A wire, a client of it, and what is expected between them."""

    def __init__(self, wire: Wired, client: Client) -> None:
        self.wire = wire
        self.client = client
        self.tcp = client.framing == "tcp"

    async def on(self, name: str, **parameters: str) -> None:
        await self.wire.switch([self.wire.broken(f"modbus.{name}", **parameters)])

    def well(self, pdu: bytes, unit: int = 1) -> bytes:
        answer = WELL[pdu] if unit == 1 else TWO_ANSWER
        return framed(self.client.framing, unit, answer, 0x107)

    async def gets(self, pdu: bytes, wanted: bytes, unit: int = 1) -> None:
        """These bytes come, and no others."""
        assert await self.client.ask(pdu, unit=unit, length=len(wanted) or None) == wanted

    async def gets_pdu(self, pdu: bytes, answer: bytes) -> None:
        await self.gets(pdu, framed(self.client.framing, 1, answer, 0x107))

    async def two_is_well(self) -> None:
        await self.gets(A, self.well(A, 2), unit=2)

    async def all_is_well(self) -> None:
        for pdu in WELL:
            await self.gets(pdu, self.well(pdu))
        await self.two_is_well()
        assert await self.client.receive(quiet_s=0.005) == b""


CHECKS: dict[str, Callable[[Bus], Awaitable[None]]] = {}


def check(row: Callable[[Bus], Awaitable[None]]) -> Callable[[Bus], Awaitable[None]]:
    CHECKS[row.__name__] = row
    return row


@check
async def silence(bus):
    await bus.on("silence")
    await bus.gets(A, b"")
    await bus.on("silence", device="one")
    await bus.gets(C, b"")
    await bus.two_is_well()
    assert bus.wire.counts["lost"] == bus.wire.counts["modbus.silence"] == 2


@check
async def dead_slave(bus):
    await bus.on("dead_slave", device="one")
    if bus.tcp:
        await bus.gets_pdu(A, b"\x83\x0b")
    else:
        await bus.gets(A, b"")
    await bus.two_is_well()


@check
async def disconnect(bus):
    await bus.on("disconnect")
    for _ in range(2):
        async with client_of(bus.wire) as client:
            assert await client.ask(A) == b""
            await asyncio.wait_for(client.closed.wait(), PATIENCE_S)
    assert bus.wire.counts["modbus.disconnect"] == 2


@check
async def refuse(bus):
    await bus.on("refuse")
    await asyncio.wait_for(bus.client.closed.wait(), PATIENCE_S)
    with pytest.raises((ConnectionRefusedError, FileNotFoundError)):
        async with client_of(bus.wire):
            pass


@check
async def exception(bus):
    await bus.on("exception")
    await bus.gets_pdu(A, b"\x83\x04")
    for code in range(1, 12):
        await bus.on("exception", code=str(code), device="one")
        await bus.gets_pdu(C, bytes((0x84, code)))
    await bus.two_is_well()


@check
async def illegal_address(bus):
    await bus.on("illegal_address")
    await bus.gets_pdu(A, b"\x83\x02")
    await bus.gets_pdu(bytes.fromhex("03 0009 0003"), b"\x83\x02")
    for pdu in (B, C, ON):
        await bus.gets(pdu, bus.well(pdu))
    await bus.on("illegal_address", address="5", table="input")
    await bus.gets_pdu(bytes.fromhex("04 0000 0010"), b"\x84\x02")
    await bus.gets_pdu(bytes.fromhex("03 0005 0001"), bytes.fromhex("03 02 0000"))
    await bus.on("illegal_address", address="5", table="holding")
    await bus.gets(C, bus.well(C))
    await bus.on("illegal_address", address="3")
    await bus.gets_pdu(SHUT, b"\x82\x02")
    await bus.gets_pdu(bytes.fromhex("03 0000 0004"), b"\x83\x02")


@check
async def frozen(bus):
    bus.wire.show(one_a=6.0)
    await bus.on("frozen", device="one")
    bus.wire.show(one_a=7.0, two_a=8.0)
    await bus.gets_pdu(A, bytes.fromhex("03 02 0006"))
    await bus.gets(A, framed(bus.client.framing, 2, bytes.fromhex("03 02 0008"), 0x107), unit=2)
    await bus.wire.switch([])
    await bus.gets_pdu(A, bytes.fromhex("03 02 0007"))
    bus.wire.show(one_a=5.0, two_a=9.0)


@check
async def wrong_id(bus):
    await bus.on("wrong_id")
    await bus.gets(A, framed(bus.client.framing, 2, A_ANSWER, 0x107))


@check
async def wrong_function(bus):
    await bus.on("wrong_function")
    for pdu, function in {A: 4, C: 3, ON: 2, SHUT: 1}.items():
        await bus.gets_pdu(pdu, bytes((function,)) + WELL[pdu][1:])
    await bus.gets_pdu(bytes.fromhex("03 0000 0000"), b"\x84\x03")


@check
async def wrong_length(bus):
    await bus.on("wrong_length")
    await bus.gets_pdu(B, bytes.fromhex("03 06 3FC00000"))
    await bus.on("wrong_length", what="header")
    if bus.tcp:
        wanted = bytearray(bus.well(B))
        wanted[5] += 2
        await bus.gets(B, bytes(wanted))
    else:
        await bus.gets_pdu(B, bytes.fromhex("03 06 3FC00000"))
    await bus.on("wrong_length", what="data")
    await bus.gets_pdu(B, bytes.fromhex("03 02 3FC0"))
    await bus.gets_pdu(A, bytes.fromhex("03 00"))
    await bus.gets_pdu(ON, bytes.fromhex("01 00"))
    await bus.gets_pdu(bytes.fromhex("03 0000 0000"), b"\x83\x03")


@check
async def wrong_transaction(bus):
    await bus.on("wrong_transaction")
    await bus.gets(A, framed(bus.client.framing, 1, A_ANSWER, 0x106))
    assert bus.wire.counts["modbus.wrong_transaction"] == bus.tcp


@check
async def crc(bus):
    await bus.on("crc")
    well = bus.well(B)
    came = await bus.client.ask(B, length=len(well))
    if bus.tcp:
        assert came == well
    elif bus.client.framing == "rtu":
        assert came != well
        assert came[:-2] == well[:-2]
    else:
        assert came != well
        assert came[:-4] == well[:-4]
        assert came[-2:] == b"\r\n"
    assert bus.wire.counts["modbus.crc"] == (not bus.tcp)


@check
async def half_frame(bus):
    await bus.on("half_frame")
    well = bus.well(B)
    await bus.gets(B, well[: len(well) // 2])
    await bus.on("half_frame", device="two")
    await bus.gets(B, well)


@check
async def duplicate(bus):
    await bus.on("duplicate")
    await bus.gets(B, bus.well(B) * 2)


@check
async def garbage(bus):
    await bus.on("garbage")
    well = bus.well(B)
    came = [await bus.client.ask(B, length=len(well) + 8) for _ in range(2)]
    assert [each[8:] for each in came] == [well, well]
    assert came[0][:8] != came[1][:8]
    await bus.on("garbage", where="after", bytes="3")
    came = [await bus.client.ask(B, length=len(well) + 3)]
    assert came[0][:-3] == well


@check
async def noise(bus):
    await bus.on("noise", bytes="5", period="30ms")
    bus.client.arrivals.clear()
    await until(lambda: len(bus.client.arrivals) >= 3)
    came = [data for _, data in bus.client.arrivals]
    assert {len(data) for data in came} <= {5, 10}
    assert len(set(came)) == len(came), "never the same"
    await bus.wire.switch([])
    bus.client.arrivals.clear()


@check
async def echo(bus):
    await bus.on("echo")
    asked = b"" if bus.tcp else framed(bus.client.framing, 1, B)
    await bus.gets(B, asked + bus.well(B))
    if not bus.tcp:
        await bus.gets(B, framed(bus.client.framing, 9, B), unit=9)


@check
async def split(bus):
    await bus.on("split", gap="30ms")
    bus.client.send(framed(bus.client.framing, 1, B, 0x107))
    await until(lambda: len(bus.client.arrivals) == 2)
    (first_s, first), (second_s, second) = bus.client.arrivals
    assert first + second == bus.well(B)
    assert second_s - first_s > 0.02
    bus.client.arrivals.clear()
    assert bus.wire.counts["sent"] == bus.wire.counts["requests"]


@check
async def late(bus):
    await bus.on("late", by="120ms", device="one")
    bus.client.send(framed(bus.client.framing, 1, B, 0x107))
    await bus.two_is_well()
    assert await bus.client.receive(quiet_s=QUIET_S) == b""
    assert await bus.client.receive(length=len(bus.well(B))) == bus.well(B)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("row", [kind.short for kind in FAULTS])
async def test_a_row_does_what_it_says_and_then_all_is_well(row, kind, tmp_path):
    async with serving(VALUES, devices=DEVICES, **place_of(kind, tmp_path)) as wire:
        async with client_of(wire) as client:
            await Bus(wire, client).all_is_well()
            wire.counts.clear()
            await CHECKS[row](Bus(wire, client))
            await wire.switch([])
        async with client_of(wire) as client:
            await Bus(wire, client).all_is_well()


def test_every_row_is_checked_and_has_its_effect():
    assert {kind.short for kind in FAULTS} == set(CHECKS)
    acts = {"refuse", "frozen", "echo", "noise"}
    assert {kind.short for kind in FAULTS} == set(EFFECTS) | acts
    for kind in FAULTS:
        assert kind.wire == "modbus"
        assert "wire" in kind.parameters
        assert ("device" in kind.parameters) == (kind.short not in {"refuse", "echo", "noise"})


async def test_every_so_many_answers_are_broken():
    async with serving(VALUES, devices=DEVICES, port=0) as wire, client_of(wire) as client:
        await wire.switch([wire.broken("modbus.exception", every="3")])
        codes = [(await client.ask(A, length=9))[7] for _ in range(7)]
        assert codes == [3, 3, 0x83, 3, 3, 0x83, 3]
        assert wire.counts["modbus.exception"] == 2


async def test_faults_go_together():
    async with serving(VALUES, devices=DEVICES, framing="rtu", port=0) as wire, client_of(wire) as client:
        faults = [wire.broken("modbus.duplicate"), wire.broken("modbus.exception", code="6")]
        await wire.switch([*faults, wire.broken("modbus.wrong_id", device="one")])
        assert await client.ask(A, length=10) == framed("rtu", 2, b"\x83\x06") * 2
        await wire.switch(faults[:1])
        assert await client.ask(A, length=14) == framed("rtu", 1, A_ANSWER) * 2


async def test_a_fault_that_stays_on_counts_on_when_others_come():
    async with serving(VALUES, devices=DEVICES, port=0) as wire, client_of(wire) as client:
        exception = wire.broken("modbus.exception", every="2")
        await wire.switch([exception])
        assert (await client.ask(A, length=11))[7] == 3
        await wire.switch([exception, wire.broken("modbus.split", device="two")])
        assert (await client.ask(A, length=9))[7] == 0x83


async def _noise(seed):
    section = {"devices": DEVICES, "framing": "rtu", "port": 0}
    async with serving(VALUES, seed=seed, **section) as wire, client_of(wire) as client:
        await wire.switch([wire.broken("modbus.garbage", bytes="16"), wire.broken("modbus.crc")])
        return [await client.ask(A, length=23) for _ in range(3)]


async def test_the_same_seed_makes_the_same_noise():
    assert await _noise(1) == await _noise(1) != await _noise(2)


async def test_what_is_late_does_not_come_after_the_end_of_its_fault():
    async with serving(VALUES, devices=DEVICES, port=0) as wire, client_of(wire) as client:
        await wire.switch([wire.broken("modbus.late", by="20ms")])
        assert await client.ask(A, length=11) == framed("tcp", 1, A_ANSWER, 0x107)  # late, not lost
        client.send(framed("tcp", 1, A, 2))
        await until(lambda: wire.counts["requests"] == 2)
        await wire.switch([])
        assert await client.receive(quiet_s=0.04) == b""
        assert wire.counts["lost"] == 1


async def test_what_is_under_way_from_others_arrives_when_a_slave_is_late_no_more(tmp_path):
    place = {**place_of("rtu tty", tmp_path), "baudrate": 19_200}
    async with serving(VALUES, devices=DEVICES, **place) as wire, client_of(wire) as client:
        await wire.switch([wire.broken("modbus.late", device="two")])
        client.send(framed("rtu", 1, A))
        await until(lambda: wire.counts["requests"])
        await wire.switch([])
        wanted = framed("rtu", 1, A_ANSWER)
        assert await client.receive(length=len(wanted)) == wanted


@contextlib.asynccontextmanager
async def pymodbus_of(wire, framer):
    port = int(wire.endpoints["one"].rpartition(":")[2])
    client = AsyncModbusTcpClient(
        "127.0.0.1", port=port, framer=framer, timeout=0.2, retries=0, reconnect_delay=0
    )
    try:
        assert await client.connect()
        yield client
    finally:
        client.close()
        await asyncio.sleep(0)


async def test_a_late_answer_in_tcp_framing_is_not_taken_for_the_next_one():
    async with serving(VALUES, devices=DEVICES, port=0) as wire, client_of(wire) as client:
        await wire.switch([wire.broken("modbus.late", by="60ms", every="2")])
        for transaction, pdu in enumerate((A, B, C), 1):
            client.send(framed("tcp", 1, pdu, transaction))
        answers = ((1, A_ANSWER), (3, C_ANSWER), (2, B_ANSWER))
        wanted = b"".join(framed("tcp", 1, answer, transaction) for transaction, answer in answers)
        assert await client.receive(length=len(wanted)) == wanted


async def test_a_late_answer_in_rtu_is_taken_for_the_next_one():
    section = {"devices": DEVICES, "framing": "rtu", "port": 0}
    async with serving(VALUES, **section) as wire, pymodbus_of(wire, FramerType.RTU) as client:
        # Answered while the second request waits, whose own answer is later still.
        await wire.switch([wire.broken("modbus.late", by="300ms")])
        with pytest.raises(ModbusIOException):
            await client.read_holding_registers(10, count=1, device_id=1)
        second = await client.read_holding_registers(11, count=1, device_id=1)
        assert second.registers == [5]  # which is what register 10 holds
