"""The PLC, on Modbus TCP, device 1.

===========  ========  ========  ======================
register     channel   encoding  unit
===========  ========  ========  ======================
input 30     flow      float32   l/min, big-endian ABCD
input 32     level     float32   m, likewise
holding 12   pressure  int16     bar x 100
holding 13   valve     int16     % x 10
coil 0       running   bit
===========  ========  ========  ======================
"""

import logging
import struct
from typing import Final

from pymodbus.constants import ExcCodes
from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

from hw_sim.bench import Bench
from hw_sim.scenario import LOOPBACK
from hw_sim.wire import Wire

__all__ = ["ModbusWire"]

_READ_COILS: Final = 1
_READ_HOLDING: Final = 3
_READ_INPUT: Final = 4
_FLOATS: Final = {30: "plc.flow", 32: "plc.level"}
_SCALED: Final = {12: ("plc.pressure", 100), 13: ("plc.valve", 10)}
_RUNNING: Final = 0
_REGISTERS: Final = 64


class ModbusWire(Wire):
    """A server; away means that nothing listens and all connections are closed."""

    device = "plc"
    about = "Modbus TCP, device 1, input 30 and 32 float32, holding 12 and 13 int16, coil 0"

    def __init__(self, bench: Bench, *, port: int) -> None:
        self.endpoint = f"tcp://{LOOPBACK}:{port}"
        self._bench = bench
        self._port = port
        self._server: ModbusTcpServer | None = None

    async def start(self) -> None:
        """Listen."""
        logging.getLogger("pymodbus").setLevel(logging.CRITICAL + 1)  # it dumps frames at ERROR level
        bits, unused_bits = (_block(DataType.BITS, [False] * 16) for _ in range(2))
        holding, inputs = (_block(DataType.REGISTERS, [0] * _REGISTERS) for _ in range(2))
        device = SimDevice(id=1, simdata=(bits, unused_bits, holding, inputs), action=self._refresh)
        server = ModbusTcpServer([device], address=(LOOPBACK, self._port))
        try:
            await server.serve_forever(background=True)
        except RuntimeError as error:
            raise OSError(f"nothing can listen on Modbus port {self._port}") from error
        self._server = server

    async def _refresh(
        self,
        function_code: int,
        first: int,
        _address: int,
        _count: int,
        registers: list[int],
        _written: list[int] | list[bool] | None,
    ) -> ExcCodes | None:
        """Bring the registers up to date before they are read; `registers[0]` is register `first`."""
        readings = self._bench.readings
        if function_code == _READ_INPUT:
            for address, name in _FLOATS.items():
                at = address - first
                registers[at : at + 2] = struct.unpack(">HH", struct.pack(">f", readings[name]))
        elif function_code == _READ_HOLDING:
            for address, (name, scale) in _SCALED.items():
                registers[address - first] = round(readings[name] * scale) & 0xFFFF
        elif function_code == _READ_COILS:
            registers[0] = int(readings["plc.running"]) << _RUNNING
        return None

    async def stop(self) -> None:
        """Close the listener and all its connections."""
        server, self._server = self._server, None
        if server is not None:
            await server.shutdown()  # type: ignore[no-untyped-call]


def _block(kind: DataType, values: list[int] | list[bool]) -> list[SimData]:
    return [SimData(0, values=values, datatype=kind)]
