"""Payloads, read back with the csv, json and struct of the standard library."""

import csv
import json
import math
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hw_sim.serial import payload
from hw_sim.serial.payload import Parts

readings = st.lists(st.floats(-1e6, 1e6) | st.just(math.nan), min_size=3, max_size=3)
NAN = math.nan


def parts(**more):
    return Parts(**{"fields": ("x", "y", "z"), "scales": (1.0, 1.0, 1.0), **more})


def same(got, values):
    """Whether what was read is what was meant; nothing stands for NaN."""
    assert len(got) == len(values)
    for each, value in zip(got, values, strict=True):
        if math.isnan(value):
            assert each is None
        else:
            assert each == pytest.approx(value, abs=0.00005001)


@given(values=readings, separator=st.sampled_from([",", ";", "\t", ", "]))
def test_csv_has_a_cell_for_each_field(values, separator):
    text = payload.made("csv", parts(), separator=separator)(0.0, 0, values).decode()
    (cells,) = csv.reader([text.replace(separator, ",")])
    same([float(cell) if cell else None for cell in cells], values)


@given(values=readings)
def test_json_is_an_object_by_field(values):
    text = payload.made("json", parts(time="ts", sequence="n"))(1.5e9, 7, values)
    found = json.loads(text, parse_constant=pytest.fail)
    assert found.pop("ts") == 1.5e9
    assert found.pop("n") == 7
    assert list(found) == ["x", "y", "z"]
    same(list(found.values()), values)


@given(values=readings)
def test_key_value_names_each_field(values):
    text = payload.made("key_value", parts(sequence="n"), separator=" ")(0.0, 3, values).decode()
    found = dict(pair.split("=") for pair in text.split(" "))
    assert found.pop("n") == "3"
    same([float(value) if value else None for value in found.values()], values)


@given(values=readings)
def test_a_struct_of_floats_is_exact_and_has_nan_for_nothing(values):
    data = payload.made("struct", parts(), layout="<ddd")(0.0, 0, values)
    assert struct.unpack("<ddd", data) == pytest.approx(tuple(values), nan_ok=True, rel=0)


@given(values=readings)
def test_a_struct_of_integers_counts_in_its_scale_and_never_wraps(values):
    data = payload.made("struct", parts(scales=(0.01, 0.01, 1.0)), layout=">hiH")(0.0, 0, values)
    forms = ((0.01, -(1 << 15), (1 << 15) - 1), (0.01, -(1 << 31), (1 << 31) - 1), (1.0, 0, (1 << 16) - 1))
    for got, value, (scale, low, high) in zip(struct.unpack(">hiH", data), values, forms, strict=True):
        if math.isnan(value):
            assert got == (low or high)
        else:
            assert got == pytest.approx(min(max(value / scale, low), high), abs=0.5001)


def test_text_is_rounded_to_the_decimals_that_were_asked_for():
    assert payload.made("csv", parts(decimals=2))(0.0, 0, [1.005, -2.0, NAN]) == b"1.00,-2.00,"
    assert payload.made("csv", parts(decimals=0))(0.0, 0, [1.6, -2.0, 3.0]) == b"2,-2,3"


def test_text_is_scaled_too():
    assert (
        payload.made("csv", parts(scales=(0.1, 10.0, 1.0), decimals=0))(0.0, 0, [1.5, 20.0, 3.0]) == b"15,2,3"
    )


def test_time_and_sequence_number_come_first():
    made = payload.made("csv", parts(time="t", sequence="n", decimals=1))
    assert made(1700000000.25, 12, [1.0, 2.0, 3.0]) == b"1700000000.250000,12,1.0,2.0,3.0"
    made = payload.made("csv", parts(time="t", time_unit="ms", decimals=1))
    assert made(1700000000.25, 12, [1.0, 2.0, 3.0]) == b"1700000000250,1.0,2.0,3.0"


def test_time_and_sequence_number_wrap_in_a_struct_as_firmware_counts():
    made = payload.made("struct", parts(time="t", time_unit="ms", sequence="n"), layout="<IB3f")
    data = made(1700000000.25, 300, [1.0, 2.0, 3.0])
    assert struct.unpack("<IB3f", data) == (1700000000250 % (1 << 32), 300 - 256, 1.0, 2.0, 3.0)
    made = payload.made("struct", parts(sequence="n"), layout="<bddd")
    assert [made(0.0, n, [0.0] * 3)[0] for n in (127, 128)] == [127, 0], "a counter is never below zero"


def test_a_float_of_two_or_four_bytes_takes_its_largest_value_at_most():
    data = payload.made("struct", parts(), layout="<eff")(0.0, 0, [1e9, -1e300, NAN])
    assert struct.unpack("<eff", data)[:2] == (65504.0, -3.4028234663852886e38)


def test_a_switch_is_off_without_a_reading():
    data = payload.made("struct", parts(), layout="<???")(0.0, 0, [NAN, 0.0, 2.0])
    assert struct.unpack("<???", data) == (False, False, True)


def test_what_is_not_finite_is_nothing_in_text():
    assert (
        payload.made("json", parts())(0.0, 0, [math.inf, -math.inf, NAN]) == b'{"x":null,"y":null,"z":null}'
    )


@pytest.mark.parametrize("layout", ["hhh", "<", "<hhs", "@hhh", "<h h", "<h-1h"])
def test_a_wrong_format_says_what_a_format_is(layout):
    with pytest.raises(ValueError, match="is no format of a struct: < or > for the byte order"):
        payload.letters(layout)


def test_a_format_may_repeat_letters_and_pad():
    assert payload.letters("<2hx3B?") == "hhBBB?"
