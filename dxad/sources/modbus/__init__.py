"""Readings over Modbus, polled on the source's grid. Only the four read functions are ever sent.

url = "tcp://host:502"    or rtu+tcp://host:port, rtu:///dev/tty?baudrate=19200&parity=E, ascii:///dev/tty
map = "meter.csv"         channels from a table, see mapfile.py
register = "input:30"     space and address, see register.py; spaces: coil, discrete, input, holding
encoding = "float32"      bool for the bit spaces; int8 to int64, uint8 to uint64, float16 to float64, bits,
                          bcd16, bcd32, mod10_32 to mod10_64, and string with the number of each text
order = "ABCD"            of the bytes on the wire: ABCD, BADC, CDAB or DCBA
scale, offset             value = scale * raw + offset
absent = "sunspec"        the raw number that means that there is no value

Sources of one url share the line: one question at a time, slaves in turn.

    register ◀ section ◀ mapfile      what is configured
    plan, layout                      which blocks are read, and where the values stand in them
    source                            polls
"""

from dxad.plugin import Plugin
from dxad.sources.modbus.layout import Layout
from dxad.sources.modbus.plan import Request, plan
from dxad.sources.modbus.section import Config, ModbusChannel
from dxad.sources.modbus.source import Modbus

__all__ = ["PLUGIN", "Config", "Layout", "Modbus", "ModbusChannel", "Request", "plan"]

PLUGIN = Plugin(Config, Modbus)
