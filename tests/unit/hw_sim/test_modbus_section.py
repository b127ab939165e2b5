"""What a scenario may say of a Modbus wire, and how its mistakes are told."""

import pytest
from pydantic import ValidationError

from hw_sim.modbus.section import Settings

FLOW = {"register": "input:30", "encoding": "float32"}


def section(*, registers=None, device=None, **keys):
    device = {"registers": {"flow": FLOW} if registers is None else registers, **(device or {})}
    return Settings.model_validate({"type": "modbus", "port": 0, "devices": {"plc": device}, **keys})


def registers(**each):
    return {"registers": each}


def test_a_register_shows_the_channel_that_is_named_after_it_or_the_one_it_names():
    made = section(
        registers={
            "flow": FLOW,
            "level": {"register": "input:32", "encoding": "float32", "channel": "tank.level"},
            "make": {"register": "holding:0", "encoding": "string", "text": "pump"},
        }
    )
    assert made.fields == {"plc": {"flow": "plc.flow", "level": "tank.level"}}


def test_a_bit_is_a_bool_and_a_register_an_int16_unless_it_says_otherwise():
    made = section(registers={"on": {"register": "coil:0"}, "n": {"register": "holding:0"}}).devices["plc"]
    assert [each.format for each in made.registers.values()] == ["bool", "int16"]


def test_a_device_has_64_addresses_or_as_many_as_it_takes():
    assert section().devices["plc"].addresses == 64
    assert section(registers={"far": {**FLOW, "register": "input:30000"}}).devices["plc"].addresses == 30_002
    assert section(device={"size": 40}).devices["plc"].addresses == 40


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        (registers(a=FLOW, b={"register": "input:31"}), "a and b both take input:31"),
        (
            registers(
                a={"register": "input:1", "encoding": "bits", "bit": 2, "width": 3},
                b={"register": "input:1", "encoding": "bits", "bit": 4},
            ),
            "a and b both take input:1",
        ),
        (
            registers(a={"register": "input:1", "encoding": "bits", "bit": 2}, b={"register": "input:1"}),
            "a and b both take input:1",
        ),
        (registers(a={"register": "coil:0", "encoding": "int16"}), "coil:0 cannot hold int16"),
        (registers(a={"register": "holding:0", "encoding": "bool"}), "holding:0 cannot hold bool"),
        (registers(a={"register": "coil:0", "scale": 2.0}), "bool has no scale"),
        (registers(a={"register": "coil:0", "order": "BADC"}), "bool has no order"),
        (registers(a={**FLOW, "scale": 0.0}), "a scale of 0"),
        (registers(a={**FLOW, "bit": 3}), "bit and width are of bits; this is float32"),
        (registers(a={**FLOW, "text": "x"}), "text and length are of a string; this is float32"),
        (registers(a={"register": "input:0", "encoding": "bits"}), "bits say which: bit = 0 … 15"),
        (
            registers(a={"register": "input:0", "encoding": "bits", "bit": 14, "width": 3}),
            "3 bits from bit 14 end beyond the register",
        ),
        (registers(a={"register": "input:0", "encoding": "string"}), "a string has a text"),
        (registers(a={"register": "input:0", "encoding": "string", "text": "µ"}), "in ASCII"),
        (
            registers(a={"register": "input:0", "encoding": "string", "text": "pump", "length": 1}),
            "'pump' does not fit into 1 registers",
        ),
        (
            registers(a={"register": "input:0", "encoding": "string", "text": "pump", "channel": "a.b"}),
            "no channel",
        ),
        (registers(a={**FLOW, "register": "input:65535"}), "ends beyond 65535"),
        (registers(a={**FLOW, "register": "output:3"}), "String should match pattern"),
        (registers(a={**FLOW, "encoding": "float128"}), "Input should be"),
        (registers(), "at least 1 item"),
        ({"device": {"size": 30}}, "flow ends beyond the size of 30"),
        ({"device": {"id": 248}}, "less than or equal to 247"),
        ({"port": None}, "a port, or a link"),
        ({"link": "/tmp/x"}, "a port, or a link"),
        ({"link": "/tmp/x", "port": None}, 'framing of a terminal is "rtu" or "ascii"'),
        ({"baudrate": 9600}, "a baudrate is of a terminal"),
        ({"devices": {"a": registers(f=FLOW), "b": registers(f=FLOW)}}, "a and b both have id 1"),
        ({"devices": {}}, "at least 1 item"),
        ({"parity": "even"}, "Extra inputs are not permitted"),
    ],
)
def test_a_mistake_is_told(keys, said):
    with pytest.raises(ValidationError) as told:
        section(**keys)
    assert said in str(told.value)
