"""Which blocks of registers the Modbus source reads, and how it reads their bytes."""

import math
import struct
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dxad.sources.modbus import Layout, ModbusChannel, Request, plan
from dxad.types import Reason


def channel(register: str, encoding: str | None = None, **settings: Any) -> ModbusChannel:
    return ModbusChannel.model_validate({"register": register, "encoding": encoding, **settings})


class TestPlan:
    def test_neighbours_are_read_together(self):
        channels = [channel("input:30", "float32"), channel("input:32", "float32")]
        assert plan(channels) == [Request("input", 30, 4, (0, 1))]

    def test_a_small_hole_is_read_along_and_a_large_one_is_not(self):
        channels = [channel("holding:0"), channel("holding:9"), channel("holding:19")]
        assert plan(channels) == [Request("holding", 0, 10, (0, 1)), Request("holding", 19, 1, (2,))]

    def test_spaces_are_read_apart(self):
        channels = [channel("input:0"), channel("coil:0"), channel("holding:0"), channel("discrete:0")]
        assert {each.space for each in plan(channels)} == {"input", "coil", "holding", "discrete"}

    def test_a_value_inside_another_costs_nothing(self):
        channels = [channel("input:0", "float64"), channel("input:1", "uint16"), channel("input:4", "int16")]
        assert plan(channels) == [Request("input", 0, 5, (0, 1, 2))]

    def test_a_value_is_never_cut(self):
        channels = [channel(f"input:{at}", "float32") for at in range(0, 126, 2)]
        assert [(each.first, each.count) for each in plan(channels)] == [(0, 124), (124, 2)]

    def test_bits_come_two_thousand_at_a_time(self):
        channels = [channel(f"coil:{at}") for at in range(2001)]
        assert [(each.first, each.count) for each in plan(channels)] == [(0, 2000), (2000, 1)]

    @given(
        st.lists(
            st.builds(
                lambda space, at, encoding: channel(f"{space}:{at}", None if space == "coil" else encoding),
                st.sampled_from(["input", "holding", "coil"]),
                st.integers(0, 600),
                st.sampled_from(["int16", "float32", "float64"]),
            ),
            max_size=40,
        )
    )
    def test_every_channel_is_read_once_within_the_limits(self, channels):
        requests = plan(channels)
        assert sorted(column for each in requests for column in each.columns) == list(range(len(channels)))
        for request in requests:
            assert request.count <= (2000 if request.space == "coil" else 125)
            mine = sorted((channels[column].first, channels[column].count) for column in request.columns)
            for first, count in mine:
                assert request.first <= first
                assert first + count <= request.first + request.count
            reached = 0
            for (first, count), (following, _) in pairwise(mine):
                reached = max(reached, first + count)
                assert following - reached <= 8


def arranged(value: bytes, order: str) -> bytes:
    """A value's bytes, the most significant first, as a device of this order sends them."""
    pairs = [value[at : at + 2] for at in range(0, len(value), 2)]
    letters = {"ABCD": (False, False), "BADC": (False, True), "CDAB": (True, False), "DCBA": (True, True)}
    reversed_pairs, swapped = letters[order]
    if reversed_pairs:
        pairs.reverse()
    return b"".join(pair[::-1] if swapped else pair for pair in pairs)


VALUES = {
    "int16": ("h", -12_345),
    "uint16": ("H", 54_321),
    "int32": ("i", -1_234_567_890),
    "uint32": ("I", 4_012_345_678),
    "float32": ("f", -1234.5),
    "float64": ("d", 3.141592653589793),
}


def decoded(wire: bytes, *channels: ModbusChannel) -> tuple[list[float], list[Reason]]:
    """By channel, the value that stands in the only block of these, and why there is none."""
    (request,) = plan(channels, hole=125)
    values, reasons = np.empty(len(channels)), np.zeros(len(channels), "u1")
    Layout(request, channels, values, reasons).decode(wire)
    at = [request.columns.index(column) for column in range(len(channels))]
    return values[at].tolist(), [Reason(each) for each in reasons[at]]


class TestDecoding:
    @pytest.mark.parametrize("order", ["ABCD", "BADC", "CDAB", "DCBA"])
    @pytest.mark.parametrize("encoding", VALUES)
    def test_every_encoding_in_every_order(self, encoding, order):
        letter, value = VALUES[encoding]
        channels = [channel("input:3", encoding, order=order), channel("input:0")]
        wire = bytes([0xFF, 0xFE]) + bytes(4) + arranged(struct.pack(f">{letter}", value), order)
        assert decoded(wire, *channels)[0] == [value, -2]

    def test_the_letters_are_those_of_the_first_value_everybody_tries(self):
        """123456.0 is 0x47F12000: `47 F1 20 00` in ABCD."""
        for order, wire in (
            ("ABCD", "47f12000"),
            ("BADC", "f1470020"),
            ("CDAB", "200047f1"),
            ("DCBA", "0020f147"),
        ):
            assert decoded(bytes.fromhex(wire), channel("input:0", "float32", order=order))[0] == [123456.0]

    def test_scale_and_offset_apply_to_the_raw_number(self):
        assert decoded(b"\x10\x00", channel("input:0", scale=0.01, offset=-40.0))[0] == [pytest.approx(0.96)]

    @pytest.mark.parametrize("order", ["ABCD", "BADC", "CDAB", "DCBA"])
    @pytest.mark.parametrize(
        ("encoding", "wire", "value"),
        [
            ("bcd16", "1234", 1234.0), ("bcd32", "12345678", 12_345_678.0), ("bcd16", "12a4", math.nan),
            ("mod10_32", "04d2162e", 12_345_678.0), ("mod10_48", "0001000215b3", 100_025_555.0),
            ("mod10_64", "00000001000a270f", 1_00_109_999.0), ("mod10_32", "04d22711", math.nan),
        ],
    )  # fmt: skip
    def test_decimal_numbers(self, encoding, wire, value, order):
        found, _ = decoded(arranged(bytes.fromhex(wire), order), channel("input:0", encoding, order=order))
        assert found == [pytest.approx(value, nan_ok=True)]

    def test_bits_of_a_register_are_a_number(self):
        wire = (0b1010_0110_1100_0001).to_bytes(2)
        wanted = {"holding:0.0": 1, "holding:0.15": 1, "holding:0.4..7": 12, "holding:0.0..15": 0xA6C1}
        assert decoded(wire, *map(channel, wanted))[0] == list(wanted.values())

    @pytest.mark.parametrize(
        ("encoding", "wire", "absent", "gone"),
        [
            ("int16", "8000", "sunspec", True), ("int16", "8001", "sunspec", False),
            ("uint16", "ffff", "sunspec", True), ("int32", "80000000", "sunspec", True),
            ("uint32", "ffffffff", "sunspec", True), ("uint64", "ff" * 8, "sunspec", True),
            ("int16", "8000", 0x8000, True), ("int16", "8000", -32768, True),
            ("int16", "7fff", 0x8000, False), ("int16", "7fff", [0x8000, 0x7FFF], True),
            ("float32", "c61c3c00", -9999, True),
            ("uint16", "0000", None, False),
        ],
    )  # fmt: skip
    def test_the_number_that_stands_for_no_value_is_none(self, encoding, wire, absent, gone):
        one = channel("input:0", encoding, absent=absent, scale=0.1, offset=5.0)
        other = channel(f"input:{one.count}", encoding)
        values, reasons = decoded(bytes.fromhex(wire) * 2, one, other)
        assert [math.isnan(each) for each in values] == [gone, False]
        assert reasons == [Reason.ABSENT if gone else Reason.NONE, Reason.NONE]

    @pytest.mark.parametrize("order", ["ABCD", "BADC", "CDAB", "DCBA"])
    @pytest.mark.parametrize(
        ("text", "value"), [(b"RUN\0\0\0", 1.0), (b"STOP  ", 0.0), (b"RUN\0xy", 1.0), (b"\xff" * 6, None)]
    )
    def test_a_text_is_the_number_that_it_stands_for(self, text, value, order):
        one = channel("input:1", "string", length=3, values={"RUN": 1, "STOP": 0}, order=order)
        values, reasons = decoded(b"\0\7" + arranged(text, order), one, channel("input:0"))
        assert values[1] == 7
        assert (reasons[0], values[0]) == (Reason.NONE, value) or value is None
        assert value is not None or (reasons[0] is Reason.UNKNOWN_TEXT and math.isnan(values[0]))

    def test_alternating_encodings_and_uneven_places_are_read_alike(self):
        places = [(0, "int16"), (1, "float32"), (3, "int16"), (4, "float32"), (9, "int16"), (10, "uint16")]
        wire = b"".join(struct.pack(">H", at) for at in range(11))
        channels = [channel(f"input:{at}", encoding) for at, encoding in reversed(places)]
        for each, value in zip(channels, decoded(wire, *channels)[0], strict=True):
            letter = {"int16": "h", "uint16": "H", "float32": "f"}[each.kind]
            assert value == struct.unpack_from(f">{letter}", wire, 2 * each.first)[0]
