"""The PLC, on Modbus TCP, device 1.

===========  ===========  ==========  =============================
register     channel      encoding    unit
===========  ===========  ==========  =============================
input 30     flow         float32     l/min, big-endian (ABCD)
input 32     level        float32     m, likewise
holding 12   pressure     int16       bar x 100
holding 13   valve        int16       % x 10
coil 0       running      bit
===========  ===========  ==========  =============================
"""

import logging
import struct
from typing import Final

from pymodbus.constants import ExcCodes
from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

from hw_sim.bench import Bench

__all__ = ["ModbusWire"]

_FLOATS: Final = {30: "plc.flow", 32: "plc.level"}
_SCALED: Final = {12: ("plc.pressure", 100), 13: ("plc.valve", 10)}
_READ_HOLDING: Final = 3
_READ_INPUT: Final = 4


class ModbusWire:
    """A server; down means that nothing listens."""

    device = "plc"

    def __init__(self, bench: Bench, *, port: int) -> None:
        logging.getLogger("pymodbus").setLevel(logging.CRITICAL + 1)
        self.endpoint = f"tcp://127.0.0.1:{port}"
        self._bench = bench
        self._port = port
        self._server: ModbusTcpServer | None = None

    async def start(self) -> None:
        """Listen."""
        bits = [SimData(0, values=[True] + [False] * 15, datatype=DataType.BITS)]
        unset = [SimData(0, values=[False] * 16, datatype=DataType.BITS)]
        registers = [SimData(0, values=[0] * 64, datatype=DataType.REGISTERS)]
        inputs = [SimData(0, values=[0] * 64, datatype=DataType.REGISTERS)]
        device = SimDevice(id=1, simdata=(bits, unset, registers, inputs), action=self._fill)
        self._server = ModbusTcpServer([device], address=("127.0.0.1", self._port))
        await self._server.serve_forever(background=True)

    async def _fill(
        self,
        function_code: int,
        start_address: int,
        _address: int,
        _count: int,
        registers: list[int],
        _set_values: list[int] | list[bool] | None,
    ) -> ExcCodes | None:
        """Bring the registers up to date before they are read; `registers[0]` is `start_address`."""
        readings = self._bench.readings
        if function_code == _READ_INPUT:
            for address, name in _FLOATS.items():
                at = address - start_address
                registers[at : at + 2] = struct.unpack(">HH", struct.pack(">f", readings[name]))
        elif function_code == _READ_HOLDING:
            for address, (name, scale) in _SCALED.items():
                registers[address - start_address] = round(readings[name] * scale) & 0xFFFF
        return None

    async def stop(self) -> None:
        """Close the listener and all its connections; safe twice."""
        server, self._server = self._server, None
        if server is not None:
            await server.shutdown()  # type: ignore[no-untyped-call]
