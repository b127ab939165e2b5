"""Bare numbers, packed numbers and MessagePack: what is a number, and what is none of the format."""

import math
import struct

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from dxad import plugin
from dxad.decode import decoder
from dxad.errors import ConfigError, DecodeError


def made(kind, paths, **settings):
    section = plugin.load("decode", kind).config.model_validate({"kind": kind, **settings})
    return decoder(section, paths)


@pytest.mark.parametrize(
    ("payload", "value"),
    [
        (b"12.5", 12.5), (b" -3\r\n", -3.0), (b".5", 0.5), (b"1e3", 1000.0), (b"+7.", 7.0),
        (b"", None), (b"NaN", None), (b"null", None), (b"-inf", None), (b"1e999", None),
    ],
)  # fmt: skip
def test_a_bare_number_is_what_its_text_says(payload, value):
    assert made("number", ["a"]).decode(payload) == [value]


@pytest.mark.parametrize("payload", [b"1_000", b"12,5", b"0x1f", b"true", b"{}", b"12 13", b"\xff\xfe"])
def test_what_is_no_bare_number_is_none_of_the_format(payload):
    with pytest.raises(DecodeError, match="is no number"):
        made("number", ["a"]).decode(payload)


def test_a_bare_number_is_bounded_and_of_one_channel():
    with pytest.raises(DecodeError, match="larger than 8"):
        made("number", ["a"], max_payload="8B").decode(b"1" * 9)
    with pytest.raises(ConfigError, match="is of one channel, not of a, b"):
        made("number", ["a", "b"])


def test_packed_numbers_are_found_by_their_names_and_scaled():
    found = made("binary", ["speed", "x"], format="<hxxhf", fields=["x", "y", "speed"], scale={"x": 0.01})
    assert found.decode(struct.pack("<hxxhf", -250, 3, 1450.5)) == [1450.5, -2.5]
    assert found.decode(struct.pack("<hxxhf", 0, 0, math.inf))[0] is None


@pytest.mark.parametrize("length", [0, 9, 11])
def test_packed_numbers_have_one_length(length):
    with pytest.raises(DecodeError, match=f"{length} bytes, not 10"):
        made("binary", ["x"], format=">hd", fields=["x", "y"]).decode(bytes(length))


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"format": "hh", "fields": ["x", "y"]}, "format"),
        ({"format": "<hs", "fields": ["x", "y"]}, "format"),
        ({"format": "<hh", "fields": ["x"]}, "format: 2 numbers for 1 fields"),
        ({"format": "<2h", "fields": ["x", "x"]}, "'x' stands there twice"),
        ({"format": "<h", "fields": ["x"], "scale": {"y": 2.0}}, "scale: no field 'y'; there are x"),
    ],
)
def test_a_format_must_fit_its_fields(settings, says):
    with pytest.raises(ValidationError, match=says):
        made("binary", ["x"], **settings)


def test_a_field_that_there_is_not_is_refused():
    with pytest.raises(ConfigError, match="no field 'z'; there are x, y"):
        made("binary", ["z"], format="<hh", fields=["x", "y"])


def test_messagepack_is_read_by_path_as_json_is():
    payload = msgpack.packb(
        {"a": 1, "phases": [{"i": 2.5}, {"i": -1}], "on": True, "text": "3", "nan": math.nan}
    )
    found = made("msgpack", ["a", "phases[1].i", "phases[2].i", "on", "text", "nan", "no"])
    assert found.decode(payload) == [1.0, -1.0, None, None, None, None, None]


@pytest.mark.parametrize(
    ("payload", "says"),
    [
        (b"", "not MessagePack"), (b"\x81\xa1", "not MessagePack"), (b"\xc1", "not MessagePack"),
        (b"\x93\x01\x02\x03", "a MessagePack list, not a map"), (b"\x80\x80", "not MessagePack"),
        (b"\x91" * 5000, "not MessagePack"), (b"\x81\xa1\xff\x01", "not MessagePack"),
    ],
)  # fmt: skip
def test_what_is_no_messagepack_map_is_none_of_the_format(payload, says):
    with pytest.raises(DecodeError, match=says):
        made("msgpack", ["a"]).decode(payload)


@given(st.binary(max_size=60))
def test_junk_is_a_decode_error_or_a_value_and_nothing_else(data):
    for found in (
        made("msgpack", ["a"]), made("number", ["a"]), made("binary", ["x"], format="<h", fields=["x"]),
    ):  # fmt: skip
        try:
            values = found.decode(data)
        except DecodeError:
            continue
        assert all(value is None or math.isfinite(value) for value in values)


def test_messagepack_is_bounded():
    with pytest.raises(DecodeError, match="larger than 8"):
        made("msgpack", ["a"], max_payload="8B").decode(bytes(9))
