"""JSON gives numbers where numbers stand, and never anything else."""

import contextlib
import math

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from dxad.decode import DecodeSection, decoder
from dxad.decode.json import Config, Json, discover
from dxad.errors import ConfigError, DecodeError


def decoded(payload: bytes, *paths: str) -> list[float | None]:
    return Json(Config(), paths).decode(payload)


@pytest.mark.parametrize(
    ("payload", "path", "value"),
    [
        (b'{"a": 1.5}', "a", 1.5),
        (b'{"a": -3}', "a", -3.0),
        (b'{"motor": {"current": 2}}', "motor.current", 2.0),
        (b'{"values": [{"v": 7}, {"v": 8}]}', "values[1].v", 8.0),
        (b'{"grid": [[1, 2], [3, 4]]}', "grid[1][0]", 3.0),
        ('{"Temperatur °C": 21.5}'.encode(), "Temperatur °C", 21.5),
        (b'{"a-b": {"$c": 1}}', "a-b.$c", 1.0),
        (b'{"a": 1, "a": 2}', "a", 2.0),
        (b'{"a": 18446744073709551615}', "a", 1.8446744073709552e19),
    ],
)
def test_a_path_leads_to_its_number(payload, path, value):
    assert decoded(payload, path) == [value]


@pytest.mark.parametrize(
    "payload",
    [
        b"{}",
        b'{"a": null}',
        b'{"a": true}',
        b'{"a": false}',
        b'{"a": "12.5"}',
        b'{"a": ""}',
        b'{"a": [1]}',
        b'{"a": {"value": 1}}',
        b'{"A": 1}',
    ],
)
def test_what_is_missing_or_no_number_is_none(payload):
    assert decoded(payload, "a") == [None]


@pytest.mark.parametrize("path", ["a.b", "a[0]", "a[0].b", "a.b[3].c"])
@pytest.mark.parametrize("inner", [b"1", b'"x"', b"null", b"[]", b"{}", b"[[]]", b'{"b": []}'])
def test_a_path_that_ends_in_nothing_is_none(path, inner):
    assert decoded(b'{"a": %s}' % inner, path) == [None]


def test_good_fields_stand_beside_bad_ones_in_the_order_of_the_channels():
    assert decoded(b'{"a": 1, "b": "x", "c": 3}', "c", "b", "a") == [3.0, None, 1.0]


@pytest.mark.parametrize(
    ("payload", "says"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b'{"a": 1', "not JSON"),
        (b'{"a": NaN}', "not JSON"),
        (b'{"a": Infinity}', "not JSON"),
        (b'{"a": 1} {"a": 2}', "not JSON"),
        (b'{"a": 1e999}', "not JSON"),
        (b'{"a": "\xff"}', "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"\x00", "not JSON"),
        (b'{"a":' * 5000 + b"1" + b"}" * 5000, "not JSON"),
        (b"[" * 200_000, "not JSON"),
        (b"[1, 2]", "JSON list"),
        (b"12.5", "JSON float"),
        (b'"a"', "JSON str"),
        (b"null", "JSON NoneType"),
    ],
)
def test_a_malformed_message_is_told(payload, says):
    with pytest.raises(DecodeError, match=says):
        decoded(payload, "a")


def test_a_huge_number_is_finite_or_none_but_no_crash():
    assert decoded(b'{"a": %s}' % (b"9" * 300), "a") == [1e300]
    with pytest.raises(DecodeError):
        decoded(b'{"a": %s}' % (b"9" * 400), "a")


def test_a_message_larger_than_the_bound_is_not_even_parsed():
    payload = b'{"a": 1, "b": "%s"}' % (b"x" * 100)
    assert Json(Config(max_payload="1KiB"), ["a"]).decode(payload) == [1.0]
    with pytest.raises(DecodeError, match="larger than 64"):
        Json(Config(max_payload="64B"), ["a"]).decode(payload)
    with pytest.raises(DecodeError, match="larger than 262144"):
        decoded(b" " * 262_145, "a")


@pytest.mark.parametrize(
    "path", ["", ".", "a.", ".a", "a..b", "a[", "a[]", "a[x]", "a[-1]", "[0]", "a[0]b", "a]"]
)
def test_a_path_that_is_written_wrong_is_a_config_error(path):
    with pytest.raises(ConfigError, match="is no path"):
        Json(Config(), [path])


def test_its_section_makes_it():
    assert decoder(Config(), ["a"]).decode(b'{"a": 1}') == [1.0]
    assert isinstance(Config(), DecodeSection)
    with pytest.raises(ValidationError, match="max_payload"):
        Config(max_payload="0B")


def test_discovers_the_numeric_top_level_fields():
    payload = b'{"z": 1, "b": 2.5, "on": true, "s": "1", "n": null, "o": {"x": 1}, "l": [1]}'
    assert discover(payload) == ["b", "z"]


def test_discovers_64_fields_at_most():
    found = discover(orjson.dumps({f"c{number:03}": number for number in range(100)}))
    assert found == [f"c{number:03}" for number in range(64)]


def test_discovers_nothing_in_what_is_no_object():
    with pytest.raises(DecodeError):
        discover(b"[1]")


scalars = (
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False) | st.text("a1.°")
)
documents = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from("abc"), inner),
    max_leaves=20,
)
PATHS = ("a", "a.b", "b[0]", "c[1].a", "a.b.c[0][1]")


@given(documents)
@settings(max_examples=50)
def test_any_document_gives_finite_numbers_or_none_or_a_decode_error(document):
    payload = orjson.dumps(document)
    try:
        values = decoded(payload, *PATHS)
    except DecodeError:
        assert not isinstance(document, dict)
    else:
        assert len(values) == len(PATHS)
        assert all(value is None or (type(value) is float and math.isfinite(value)) for value in values)
        assert all(type(document[name]) in (int, float) for name in discover(payload))


@given(
    st.binary(max_size=200) | st.text(alphabet='{}[]":,0123456789.eE+-abnul tr', max_size=60).map(str.encode)
)
def test_any_bytes_give_numbers_or_a_decode_error(payload):
    for parse in (lambda: decoded(payload, *PATHS), lambda: discover(payload)):
        with contextlib.suppress(DecodeError):
            parse()
