"""A connection over which Modbus devices are asked, one question at a time.

It only reads: the function codes below are all that it knows.
"""

import logging
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
from pymodbus.client import AsyncModbusTcpClient
from pymodbus.exceptions import ConnectionException, ModbusException

from dxad.errors import NotConnected
from dxad.links import words
from dxad.types import Reason

__all__ = ["Answer", "ModbusLink", "Space"]

Space = Literal["coil", "discrete", "holding", "input"]

_FUNCTIONS: Final[dict[Space, int]] = {"coil": 1, "discrete": 2, "holding": 3, "input": 4}
"""Modbus Application Protocol V1.1b3, 6.1 to 6.4."""
_PREFIX: Final = 7
"""Bytes before the function code (Modbus Messaging on TCP/IP V1.0b, 3.1.3); a length stands in 4 and 5."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a device said to one question."""

    wire: bytes = b""
    """Two bytes per register, as they came; one per bit."""
    reason: Reason = Reason.NONE
    """Why there is nothing."""
    detail: str = ""


class ModbusLink:
    """One TCP connection; made anew for every attempt."""

    def __init__(self, host: str, port: int, *, timeout_s: float) -> None:
        self._where = f"tcp://{host}:{port}"
        self._host = host
        self._port = port
        self._timeout_s = timeout_s
        self._client: AsyncModbusTcpClient | None = None
        self._nonsense = ""
        """What came instead of an answer to the last question."""

    async def open(self) -> None:
        """Connect.

        Raises:
            NotConnected: nobody listens there.
        """
        # It logs whole frames at ERROR for what is also raised.
        logging.getLogger("pymodbus").setLevel(logging.CRITICAL + 1)
        client = AsyncModbusTcpClient(
            self._host,
            port=self._port,
            timeout=self._timeout_s,
            retries=0,
            reconnect_delay=0,
            trace_packet=self._sensible,
        )
        self._client = client
        why = f"no connection within {self._timeout_s:g} s"
        create = client.ctx.call_create

        async def remembered() -> Any:
            """It says only whether it is connected, not why not."""
            nonlocal why
            try:
                return await create()
            except OSError as error:
                why = words(error)
                raise

        client.ctx.call_create = remembered
        if not await client.connect():
            raise NotConnected(f"{self._where}: {why}")

    def _sensible(self, sending: bool, data: bytes) -> bytes:  # noqa: FBT001 - pymodbus calls it so
        """Pass on what pymodbus can read; at the rest it would raise inside asyncio, with a traceback."""
        end = 6 + int.from_bytes(data[4:6])
        if sending or len(data) < max(end, _PREFIX):
            return data
        pdu = data[_PREFIX:end]
        known = len(pdu) > 1 and pdu[0] & 0x7F in _FUNCTIONS.values()
        if known and (pdu[0] & 0x80 or pdu[1] == len(pdu) - 2):
            return data
        self._nonsense = f", but {data[:12].hex(' ')}"
        return b""

    async def ask(self, space: Space, first: int, count: int, *, device_id: int) -> Answer:
        """Ask once for consecutive registers or bits; an answer that does not fit counts as none in time.

        Raises:
            NotConnected: the connection is gone.
        """
        client = self._client
        if client is None:
            raise NotConnected("not connected")
        read = {
            "coil": client.read_coils,
            "discrete": client.read_discrete_inputs,
            "holding": client.read_holding_registers,
            "input": client.read_input_registers,
        }[space]
        self._nonsense = ""
        try:
            answer = await read(first, count=count, device_id=device_id)
        except ConnectionException as error:
            raise NotConnected(f"{self._where}: the connection is gone") from error
        except ModbusException as error:
            if not client.connected:
                raise NotConnected(f"{self._where}: the device closed the connection") from error
            return Answer(
                reason=Reason.TIMEOUT, detail=f"no answer within {self._timeout_s:g} s{self._nonsense}"
            )
        if answer.isError():
            return Answer(reason=Reason.DEVICE, detail=f"exception {answer.exception_code}")
        if answer.function_code != _FUNCTIONS[space]:
            return Answer(reason=Reason.DEVICE, detail=f"an answer to function {answer.function_code}")
        bits = space in ("coil", "discrete")
        wire = bytes(answer.bits) if bits else np.array(answer.registers, dtype=">u2").tobytes()
        if len(wire) < count if bits else len(wire) != 2 * count:
            return Answer(reason=Reason.DEVICE, detail=f"an answer of {len(wire)} bytes")
        return Answer(wire)

    def close(self) -> None:
        """Close the connection; safe twice."""
        client, self._client = self._client, None
        if client is not None:
            client.close()
