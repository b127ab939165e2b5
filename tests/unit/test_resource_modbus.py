"""Modbus endpoints of the DXA API: every kind of line, and registers as fields."""

import pytest

from dxad.resource import IoTResource
from dxad.resource.pipeline import _SourceNode
from dxad.runtime.clock import SystemClock
from dxad.sources.modbus import Config, Modbus

pytestmark = pytest.mark.one_loop

KINDS = ["tcp://h:502", "rtu+tcp://h:4001", "rtu:///dev/ttyUSB0?baudrate=9600", "ascii:///dev/ttyUSB0"]


@pytest.mark.parametrize("endpoint", KINDS)
def test_an_endpoint_of_every_kind_is_a_modbus_source(endpoint):
    found = IoTResource("plc", endpoint=endpoint, period="1s", device_id=7).document()
    assert found == {"type": "modbus", "url": endpoint, "period": "1s", "device_id": 7}


async def test_registers_are_fields_and_have_names():
    resource = IoTResource("plc", endpoint="rtu:///dev/ttyUSB0", period="1s")
    node = _SourceNode(resource, 100, {"input:30": "float", "holding:2.3": "int"}, None)
    found = await node.document(SystemClock())
    assert found["channels"] == {
        "input_30": {"register": "input:30"}, "holding_2_3": {"register": "holding:2.3"},
    }  # fmt: skip
    assert Modbus("plc", Config.model_validate(found), clock=SystemClock()).channels[0].id == "plc.input_30"
