"""Separated values give numbers by their position, or say what is wrong with the line."""

import contextlib
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from dxad.decode import decoder
from dxad.decode.csv import Config, Csv
from dxad.errors import ConfigError, DecodeError

XYZ = Config(columns=("x", "y", "z"))


def decoded(payload: bytes, *paths: str, config: Config = XYZ) -> list[float | None]:
    return Csv(config, paths or config.columns).decode(payload)


@pytest.mark.parametrize(
    ("payload", "values"),
    [
        (b"1,2,3", [1.0, 2.0, 3.0]),
        (b"0.12,-3.4,5e-3", [0.12, -3.4, 0.005]),
        (b" 1 , +2 ,\t3 ", [1.0, 2.0, 3.0]),
        (b"1,,3", [1.0, None, 3.0]),
        (b",,", [None, None, None]),
        (b"1, ,3", [1.0, None, 3.0]),
        (b"nan,inf,-Infinity", [None, None, None]),
        (b"1e999,1,1", [None, 1.0, 1.0]),
    ],
)
def test_a_line_gives_its_numbers_and_none_where_there_is_none(payload, values):
    assert decoded(payload) == values


def test_channels_take_the_columns_they_name():
    assert decoded(b"1,2,3", "z", "x") == [3.0, 1.0]


def test_a_column_that_nobody_wants_may_hold_anything():
    assert decoded(b"12:30:01,2,3", "y") == [2.0]


@pytest.mark.parametrize(
    ("separator", "payload"), [(";", b"1;2;3"), ("\t", b"1\t2\t3"), (" ", b"1 2 3"), ("|", b"1|2|3")]
)
def test_the_separator_can_be_another(separator, payload):
    assert decoded(payload, config=Config(columns=("x", "y", "z"), separator=separator)) == [1.0, 2.0, 3.0]


@pytest.mark.parametrize(
    ("payload", "says"),
    [
        (b"", "1 fields, not 3"),
        (b"1,2", "2 fields, not 3"),
        (b"1,2,3,4", "4 fields, not 3"),
        (b"1;2;3", "1 fields, not 3"),
        (b"1,two,3", "'two' is no number"),
        (b"1,1_000,3", "'1_000' is no number"),
        (b"1,0x10,3", "'0x10' is no number"),
        (b"1,12.5V,3", "'12.5V' is no number"),
        (b"1,\xb2,3", "not ASCII at byte 2"),
        ("1,٣,3".encode(), "not ASCII"),
        (b"1,\x00,3", "is no number"),
    ],
)
def test_a_malformed_line_is_told(payload, says):
    with pytest.raises(DecodeError, match=says):
        decoded(payload)


def test_a_malformed_line_does_not_fill_the_log():
    with pytest.raises(DecodeError) as told:
        decoded(b"1,%s,3" % (b"x" * 10_000))
    assert len(str(told.value)) < 60


def test_a_line_larger_than_the_bound_is_rejected():
    with pytest.raises(DecodeError, match="larger than 8"):
        decoded(b"1,2,3.000", config=Config(columns=("x", "y", "z"), max_payload="8B"))


def test_a_channel_of_no_column_is_a_config_error():
    with pytest.raises(ConfigError, match="no column 'w'; there are x, y, z"):
        Csv(XYZ, ["x", "w"])


@pytest.mark.parametrize(
    "wrong",
    [
        {"columns": []},
        {"columns": ["x", "x"]},
        {"columns": ["a b"]},
        {"columns": ["x"], "separator": ""},
        {"columns": ["x"], "separator": ", "},
        {"columns": ["x"], "separator": "."},
        {"columns": ["x"], "separator": "1"},
        {"columns": ["x"], "separator": "\n"},
    ],
)
def test_a_section_that_cannot_work_is_refused(wrong):
    with pytest.raises(ValidationError):
        Config.model_validate({"kind": "csv", **wrong})


def test_its_section_makes_it():
    assert decoder(XYZ, ["y"]).decode(b"1,2,3") == [2.0]


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=3, max_size=3))
def test_what_was_written_is_read_back_exactly(numbers):
    assert decoded(",".join(map(repr, numbers)).encode()) == numbers


@given(st.binary(max_size=60) | st.text(alphabet="0123456789.,+-eEinfa_ \t", max_size=40).map(str.encode))
def test_any_bytes_give_finite_numbers_or_a_decode_error(payload):
    with contextlib.suppress(DecodeError):
        values = decoded(payload)
        assert len(values) == 3
        assert all(value is None or math.isfinite(value) for value in values)
