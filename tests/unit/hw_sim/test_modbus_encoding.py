"""Each encoding in each order, read back by a decoder that shares nothing with the simulator."""

import math
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hw_sim.modbus.encoding import raw_of
from hw_sim.modbus.image import Image
from hw_sim.modbus.section import Device

INTEGERS = {f"{sign}int{bits}": bits for bits in (8, 16, 32, 64) for sign in ("", "u")}
FLOATS = {"float16": "e", "float32": "f", "float64": "d"}
ORDERS = ("ABCD", "BADC", "CDAB", "DCBA")


def wire_bytes(value, *, count=None, **register):
    """What a register and those after it hold, when the sensor shows a value."""
    device = Device.model_validate({"registers": {"x": {"register": "holding:3", **register}}})
    image = Image(device, {"x": "x"})
    return image.read(2, 3, count or device.registers["x"].count, {"x": value})


def in_order(wire, order):
    """As others read: swap the bytes of each register first, then take one end or the other first."""
    swapped, end = {
        "ABCD": (False, "big"), "BADC": (True, "big"), "CDAB": (True, "little"), "DCBA": (False, "little"),
    }[order]  # fmt: skip
    if swapped:
        wire = b"".join(struct.pack("<H", word) for (word,) in struct.iter_unpack(">H", wire))
    return wire if end == "big" else wire[::-1]


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("encoding", INTEGERS)
@given(data=st.data())
def test_integers_come_as_they_are(encoding, order, data):
    bits, signed = INTEGERS[encoding], not encoding.startswith("u")
    low = -(1 << bits - 1) if signed else 0
    # A reading is a float: beyond 2^53 it cannot hold every integer.
    value = data.draw(st.integers(max(low, -(1 << 53)), min(low + (1 << bits) - 1, 1 << 53)))
    read = in_order(wire_bytes(float(value), encoding=encoding, order=order), order)
    if bits == 8:
        assert read[0] == 0
        read = read[1:]
    assert int.from_bytes(read, "big", signed=signed) == value


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("encoding", FLOATS)
@given(data=st.data())
def test_floats_come_as_they_are(encoding, order, data):
    value = data.draw(
        st.floats(width=int(encoding.removeprefix("float")), allow_nan=False, allow_infinity=False)
    )
    read = in_order(wire_bytes(value, encoding=encoding, order=order), order)
    assert struct.unpack(f">{FLOATS[encoding]}", read) == (value,)


def test_the_orders_are_named_by_the_bytes_on_the_wire():
    value = float(0x0A0B0C0D)
    found = {order: wire_bytes(value, encoding="uint32", order=order).hex() for order in ORDERS}
    assert found == {"ABCD": "0a0b0c0d", "BADC": "0b0a0d0c", "CDAB": "0c0d0a0b", "DCBA": "0d0c0b0a"}


def test_four_registers_follow_the_same_two_rules():
    value = float(0x0102030405060000)
    found = {order: wire_bytes(value, encoding="uint64", order=order).hex() for order in ORDERS}
    assert found == {
        "ABCD": "0102030405060000",
        "BADC": "0201040306050000",
        "CDAB": "0000050603040102",
        "DCBA": "0000060504030201",
    }


def test_a_string_has_its_first_character_where_a_number_has_its_first_byte():
    found = {
        order: wire_bytes(0.0, encoding="string", text="pump 7", length=4, order=order) for order in ORDERS
    }
    assert found == {
        "ABCD": b"pump 7\0\0",
        "BADC": b"uppm7 \0\0",
        "CDAB": bytes(2) + b" 7mppu",
        "DCBA": bytes(2) + b"7 pmup",
    }


@given(
    raw=st.integers(-32768, 32767),
    scale=st.sampled_from([0.01, 0.1, 0.25, 3.0, -0.5]),
    offset=st.sampled_from([0.0, -40.0, 273.15]),
)
def test_scale_and_offset_make_the_reading_of_the_raw_number(raw, scale, offset):
    held = wire_bytes(raw * scale + offset, encoding="int16", scale=scale, offset=offset)
    assert struct.unpack(">h", held) == (raw,)


def test_a_reading_that_is_not_there_is_the_number_that_means_so():
    missing = {name: wire_bytes(math.nan, encoding=name).hex() for name in (*INTEGERS, *FLOATS)}
    for name, bits in INTEGERS.items():
        number = (1 << bits) - 1 if name.startswith("u") else 1 << bits - 1
        assert int(missing[name], 16) == number, name
    for name, letter in FLOATS.items():
        assert math.isnan(struct.unpack(f">{letter}", bytes.fromhex(missing[name]))[0])
    assert raw_of("bool")(math.nan) == raw_of("bits", width=3)(math.nan) == 0


@pytest.mark.parametrize("value", [1e300, math.inf])
def test_what_is_out_of_range_is_the_nearest_that_is_within(value):
    for sign in (1, -1):
        for name, bits in INTEGERS.items():
            signed = not name.startswith("u")
            low = -(1 << bits - 1) if signed else 0
            held = wire_bytes(sign * value, encoding=name)[-max(1, bits // 8) :]
            found = int.from_bytes(held, "big", signed=signed)
            assert found == (low + (1 << bits) - 1 if sign > 0 else low), name
        for name, largest in {"float16": 65504.0, "float32": (2 - 2**-23) * 2.0**127}.items():
            found = struct.unpack(f">{FLOATS[name]}", wire_bytes(sign * value, encoding=name))[0]
            assert found == sign * largest
        assert struct.unpack(">d", wire_bytes(sign * value, encoding="float64"))[0] == sign * value


def test_bits_share_a_register():
    device = Device.model_validate(
        {
            "registers": {
                "on": {"register": "input:0", "encoding": "bits", "bit": 0},
                "mode": {"register": "input:0", "encoding": "bits", "bit": 4, "width": 3},
                "trip": {"register": "input:0", "encoding": "bits", "bit": 15},
            }
        }
    )
    image = Image(device, {name: name for name in device.registers})
    assert image.read(3, 0, 1, {"on": 1.0, "mode": 5.0, "trip": 1.0}).hex() == "8051"
    assert image.read(3, 0, 1, {"on": 0.0, "mode": 99.0, "trip": 0.0}).hex() == "0070"
    assert image.read(3, 0, 1, {"on": math.nan, "mode": -1.0, "trip": 0.2}).hex() == "0000"


def test_neighbours_of_every_order_stand_side_by_side():
    registers = {
        "a": {"register": "holding:0", "encoding": "float32", "order": "CDAB"},
        "b": {"register": "holding:2", "encoding": "uint16"},
        "c": {"register": "holding:3", "encoding": "uint32", "order": "BADC"},
        "d": {"register": "holding:6", "encoding": "uint16", "order": "DCBA"},
    }
    image = Image(Device.model_validate({"registers": registers}), {name: name for name in registers})
    data = image.read(2, 0, 8, {"a": 1.0, "b": 2.0, "c": 3.0, "d": 4.0})
    assert data.hex(" ", 2) == "0000 3f80 0002 0000 0300 0000 0400 0000"
