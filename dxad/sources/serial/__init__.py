r"""Readings of a device on a serial port, that speaks by itself or is asked.

framing = { kind = "line" }                     where a message begins and ends: framing.py
checksum = "crc16-modbus"                       what proves it whole
decode = { kind = "csv", columns = ["x", "y"] } what is in it
query = "READ?\r\n"                             what the device is asked; without it, nothing is sent

section.py    what a configuration says of it
framing.py    of the framing and the checksum
listening.py  a device that speaks by itself
asking.py     an instrument that is asked on the source's grid
"""

from dxad.plugin import Plugin
from dxad.runtime.clock import Clock
from dxad.sources.serial.asking import AskedSerial
from dxad.sources.serial.listening import Serial
from dxad.sources.serial.section import Config

__all__ = ["PLUGIN", "AskedSerial", "Config", "Serial"]


def _built(name: str, config: Config, *, clock: Clock) -> Serial | AskedSerial:
    return (AskedSerial if config.requests else Serial)(name, config, clock=clock)


PLUGIN = Plugin(Config, _built)
