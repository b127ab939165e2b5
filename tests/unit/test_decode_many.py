"""Messages that hold several samples, and many messages at once: the same as one after the other."""

import math
import struct

import msgpack
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from dxad import plugin
from dxad.decode import Bulk, Sampled, decoder, stamp
from dxad.errors import DecodeError

WRITE = {"json": orjson.dumps, "msgpack": msgpack.packb}


def made(kind, paths, **settings):
    return decoder(plugin.load("decode", kind).config.model_validate({"kind": kind, **settings}), paths)


@pytest.mark.parametrize("kind", WRITE)
class TestArrays:
    def test_the_whole_message_may_be_one(self, kind):
        found = made(kind, ["x", "t"], samples=".")
        payload = WRITE[kind]([{"t": 1.5, "x": 1}, {"t": 2.5}, {"t": 3.5, "x": None}])
        assert found.decode_samples(payload) == [[1.0, 1.5], [None, 2.5], [None, 3.5]]
        assert found.decode(payload) == [None, 3.5]

    def test_one_may_stand_anywhere_and_its_elements_may_be_arrays_or_numbers(self, kind):
        payload = WRITE[kind]({"data": [{"rows": [[1, 2.5], [3, 4]], "values": [7, True, 9]}]})
        rows = made(kind, ["[1]", "[0]"], samples="data[0].rows")
        assert rows.decode_samples(payload) == [[2.5, 1.0], [4.0, 3.0]]
        assert made(kind, ["."], samples="data[0].values").decode_samples(payload) == [[7.0], [None], [9.0]]

    @pytest.mark.parametrize(
        ("document", "says"),
        [
            ({}, "its samples are a NoneType, not an array"), ({"s": {"0": 1}}, "a dict, not an array"),
            ({"s": []}, "an array of 0 samples"), ({"s": [1] * 10_001}, "an array of 10001 samples"),
        ],
    )  # fmt: skip
    def test_without_one_a_message_is_malformed(self, kind, document, says):
        with pytest.raises(DecodeError, match=says):
            made(kind, ["x"], samples="s").decode_samples(WRITE[kind](document))

    def test_its_path_must_be_one(self, kind):
        with pytest.raises(ValidationError, match=r"'a\.\.b' is no path"):
            made(kind, ["x"], samples="a..b")

    def test_a_decoder_of_single_samples_knows_of_no_arrays(self, kind):
        assert not isinstance(made(kind, ["x"]), Sampled)
        assert isinstance(made(kind, ["x"], samples="."), Sampled)


def one_by_one(found, payloads):
    """What `decode` gives, as an array's list; None where one is malformed."""
    try:
        return [[math.nan if each is None else each for each in found.decode(one)] for one in payloads]
    except DecodeError:
        return None


FIELD = (
    st.floats(allow_nan=False).map(repr)
    | st.integers(-(10**25), 10**25).map(str)
    | st.sampled_from(["", " ", "1.", ".5", "+1", "01", "1e5", "-0", "1e999", "nan", "true", "[", "1 2"])
)  # fmt: skip
LINE = st.lists(FIELD, min_size=1, max_size=4).map(lambda fields: ",".join(fields).encode())


class TestLines:
    @given(st.lists(LINE, min_size=1, max_size=6), st.sampled_from([["x", "y"], ["y"], ["y", "x"]]))
    def test_many_give_what_each_gives_or_are_left_to_be_done_singly(self, lines, paths):
        found = made("csv", paths, columns=["x", "y"])
        many = found.decode_many(lines)
        if many is not None:
            assert many.tolist() == one_by_one(found, lines)

    @pytest.mark.parametrize("separator", [",", ";", "\t", " "])
    def test_many_plain_ones_are_done_at_once(self, separator):
        found = made("csv", ["y", "x"], columns=["x", "y"], separator=separator)
        lines = [separator.join(("1.5", "-2e-3")).encode(), separator.join(("3", "0.25")).encode()]
        assert found.decode_many(lines).tolist() == [[-0.002, 1.5], [0.25, 3.0]]

    @pytest.mark.parametrize(
        "lines",
        [[b"1,2", b"3"], [b"1,2\n3,4"], [b"1", b"2,3,4"], [b"1,2", b"x,4"], [b"1,2", b"3,4,"], [b"1,"]],
    )
    def test_others_are_left_to_be_done_singly(self, lines):
        assert made("csv", ["x", "y"], columns=["x", "y"]).decode_many(lines) is None

    def test_a_decimal_comma_is_read_singly(self):
        found = made("csv", ["x", "y"], columns=["x", "y"], separator=";", decimal=",")
        assert found.decode(b"1,5;-2") == [1.5, -2.0]
        assert found.decode_many([b"1,5;-2"]) is None
        with pytest.raises(ValidationError, match="stands within the numbers"):
            made("csv", ["x"], columns=["x"], decimal=",")


class TestRecords:
    @given(st.lists(st.binary(min_size=34, max_size=34), min_size=1, max_size=5))
    def test_many_give_what_each_gives(self, payloads):
        found = made(
            "binary", ["e", "a", "g", "h"], format="<b2xHi?qefd", fields=list("abcdefgh"),
            scale={"a": 0.5, "g": 3.0}, offset={"a": 7.0, "h": 1.0},
        )  # fmt: skip
        assert struct.calcsize("<b2xHi?qefd") == 32
        payloads = [each[:32] for each in payloads]
        assert repr(found.decode_many(payloads).tolist()) == repr(one_by_one(found, payloads))

    def test_one_of_another_length_is_told_singly(self):
        found = made("binary", ["x"], format=">h", fields=["x"])
        assert isinstance(found, Bulk)
        assert found.decode_many([b"\0\1", b"\0"]) is None

    def test_an_offset_is_added_after_the_scale(self):
        found = made("binary", ["x"], format=">h", fields=["x"], scale={"x": 0.1}, offset={"x": -40.0})
        assert found.decode(b"\x01\x00") == [pytest.approx(-14.4)]
        with pytest.raises(ValidationError, match="offset: no field 'z'"):
            made("binary", ["x"], format=">h", fields=["x"], offset={"z": 1.0})


@pytest.mark.parametrize(
    ("at", "expected"),
    [
        (None, 0), (0.0, 0), (-5.0, 0), (math.nan, 0), (1.7e9, 17 * 10**17), (1.7e12, 17 * 10**17),
        (1.7e15, 17 * 10**17), (1.7e18, 17 * 10**17), (1e300, 0), (9223372037.0, 0),
    ],
)  # fmt: skip
def test_a_time_says_by_its_size_in_what_it_counts(at, expected):
    assert stamp(at) == expected
