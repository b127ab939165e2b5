from contextlib import asynccontextmanager

import pytest
from pymodbus.client import AsyncModbusTcpClient
from pymodbus.exceptions import ModbusException

from hw_sim.bench import Bench
from hw_sim.modbus import ModbusWire
from hw_sim.scenario import free_port
from tests.peers import plugged


def serving():
    return plugged(ModbusWire(Bench(1, ()), port=free_port()))


@asynccontextmanager
async def client_of(wire):
    host, port = wire.endpoint.removeprefix("tcp://").split(":")
    client = AsyncModbusTcpClient(host, port=int(port), timeout=0.5, retries=0, reconnect_delay=0)
    try:
        yield client
    finally:
        client.close()


async def test_each_register_reads_as_the_plant_is_now():
    async with serving() as wire, client_of(wire) as client:
        assert await client.connect()
        for _ in range(3):
            wire._bench.step()
            now = wire._bench.readings
            inputs = (await client.read_input_registers(30, count=4, device_id=1)).registers
            floats = client.convert_from_registers(inputs, client.DATATYPE.FLOAT32)
            assert floats == pytest.approx([now["plc.flow"], now["plc.level"]])
            holding = (await client.read_holding_registers(12, count=2, device_id=1)).registers
            assert holding[0] / 100 == pytest.approx(now["plc.pressure"], abs=0.005)
            assert holding[1] / 10 == pytest.approx(now["plc.valve"], abs=0.05)
            assert (await client.read_coils(0, count=1, device_id=1)).bits[0]


async def test_registers_that_are_not_there_are_an_exception():
    async with serving() as wire, client_of(wire) as client:
        assert await client.connect()
        assert (await client.read_input_registers(64, count=2, device_id=1)).exception_code == 2


async def test_off_the_plc_drops_its_clients_and_refuses_new_ones_and_comes_back_on_its_port():
    async with serving() as wire, client_of(wire) as before, client_of(wire) as after:
        assert await before.connect()
        await wire.stop()
        await wire.stop()
        with pytest.raises(ModbusException):
            await before.read_input_registers(30, count=2, device_id=1)
        assert not await after.connect()
        await wire.start()
        assert await after.connect()
        assert not (await after.read_input_registers(30, count=2, device_id=1)).isError()


async def test_a_port_that_is_taken_is_named():
    async with serving() as wire:
        port = int(wire.endpoint.rpartition(":")[2])
        with pytest.raises(OSError, match=str(port)):
            await ModbusWire(wire._bench, port=port).start()
