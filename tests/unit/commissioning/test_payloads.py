"""What messages are taken for, by their bytes alone."""

import math
import random
import struct

import msgpack
import pytest

from dxad import plugin
from dxad.commissioning.packed import layout_of
from dxad.commissioning.payloads import payload_of
from dxad.commissioning.topics import Tally, usual_period_s
from dxad.decode import decoder

JSON = {"kind": "json"}
TWO = {"kind": "csv", "columns": ["c1", "c2"]}
PAIRS = {"kind": "key_value"}
WIND = {"kind": "nmea", "fields": {"MWV_1": "MWV.1", "MWV_3": "MWV.3"}}


@pytest.mark.parametrize(
    ("messages", "decode", "numbers"),
    [
        ([b'{"a": 1.5, "b": {"c": 2}, "on": true, "s": "x"}'], JSON, {"a": 1.5, "b.c": 2}),
        ([b'{"p": [{"i": 1}, {"i": 2}], "f": 50}'], JSON, {"p[0].i": 1, "p[1].i": 2, "f": 50}),
        ([b'{"ts": 1790000000.5, "a": 3}'], JSON, {"a": 3}),
        ([b'[{"t": 1790000000.5, "x": 1}, {"t": 1790000000.6, "x": 2}]'], JSON | {"samples": "."}, {"x": 2}),
        ([b'{"d": {"v": [1,2,3,4,5,6,7,8,9]}}'], JSON | {"samples": "d.v"}, {".": 9}),
        ([msgpack.packb({"a": 1.5})], {"kind": "msgpack"}, {"a": 1.5}),
        ([b"12.5", b" 13 \r\n"], {"kind": "number"}, {".": 13}),
        ([b"1,2.5", b"2,", b"2,7"], TWO, {"c1": 2, "c2": 7}),
        ([b"1,5;2,7"], TWO | {"separator": ";", "decimal": ","}, {"c1": 1.5, "c2": 2.7}),
        ([b"temp=21.5,hum=40"], PAIRS, {"temp": 21.5, "hum": 40}),
        ([b"T:1.5 H:2"], PAIRS | {"separator": " ", "assign": ":"}, {"T": 1.5, "H": 2}),
        ([b"$WIMWV,214.8,R,0.1,K,A*28"], WIND, {"MWV_1": 214.8, "MWV_3": 0.1}),
    ],
)  # fmt: skip
def test_a_format_is_known_and_its_decoder_reads_it(messages, decode, numbers):
    found = payload_of(messages)
    assert found.decode == decode
    assert {each.path: each.last for each in found.numbers} == numbers
    section = plugin.load("decode", decode["kind"]).config.model_validate(decode)
    paths = [each.path for each in found.numbers]
    if found.kind != "csv":
        assert list(decoder(section, paths).decode(messages[-1])) == [each.last for each in found.numbers]


def test_values_with_names_of_their_own_are_no_samples():
    found = payload_of([b'[{"n": "t", "v": 20.5}, {"n": "h", "v": 40}]'])
    assert (found.kind, found.decode) == ("json", {})


def test_a_time_is_no_channel():
    found = payload_of([b'{"ts": 1790000000500, "count": 1790000000500, "a": 1}'])
    assert found.time == "ts"
    assert list(found.channels(9)) == ["count", "a"]


def test_numbers_in_any_text_are_found_by_a_pattern():
    found = payload_of([b"ST,GS,+  12.34kg", b"US,GS,+   1.24kg", b"ST,GS,-   0.10kg"])
    assert found.kind == "regex"
    assert [each.last for each in found.numbers] == [0.1]
    assert found.note == "a sign stands apart from its number, and is not read"
    found = payload_of([b"Temp: 21.5 C, Hum 40 %", b"Temp:  -3.5 C, Hum 41 %"])
    assert {each.path: (each.low, each.high) for each in found.numbers} == {
        "Temp": (-3.5, 21.5),
        "Hum": (40, 41),
    }


@pytest.mark.parametrize(("message", "kind"), [(b"", "empty"), (b"hello", "text"), (b"on", "text")])
def test_what_has_no_numbers_says_so(message, kind):
    found = payload_of([message])
    assert (found.kind, found.decode) == (kind, {})


@pytest.mark.parametrize("layout", ["<ff", ">ff", "<dd", ">dd", "<hh", ">hhh", ">hf"])
def test_packed_numbers_are_cut_as_they_were_packed(layout):
    dice = random.Random(1)
    kinds = layout[1:]
    centres = [(850.0, 2.8, 41.0)[place] * (10 if kinds[place] == "h" else 1) for place in range(len(kinds))]

    def values(step):
        for kind, centre in zip(kinds, centres, strict=True):
            value = centre + 0.01 * centre * math.sin(step / 5) + dice.random() / 10
            yield int(value) if kind == "h" else value

    messages = [struct.pack(layout, *values(step)) for step in range(40)]
    assert layout_of(messages).format == layout


def test_a_tally_is_bounded():
    tally = Tally(topics_most=2, bytes_most=100)
    for place in range(5):
        tally.message(f"t{place}", b"x" * 30, retained=False, now=place)
    assert (list(tally.topics), tally.others, tally.full) == (["t0", "t1"], 3, True)


@pytest.mark.parametrize(("seconds", "period"), [(0.0998, 0.1), (0.0104, 0.01), (0.97, 1.0), (0.33, 0.33)])
def test_a_period_is_one_that_people_choose(seconds, period):
    assert usual_period_s(seconds) == period
