"""Text that is neither JSON nor separated values: names and values, expressions, sentences of NMEA 0183."""

import contextlib
import functools
import math
import operator
import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from dxad import plugin
from dxad.decode import ABSENT, decoder
from dxad.errors import ConfigError, DecodeError


def section(kind, **settings):
    return plugin.load("decode", kind).config.model_validate({"kind": kind, **settings})


def made(kind, paths, **settings):
    return decoder(section(kind, **settings), paths)


class TestKeyValue:
    @pytest.mark.parametrize(
        ("payload", "settings", "values"),
        [
            (b"t=21.5,h=40", {}, [21.5, 40.0]),
            (b" h = 40 , t = 21.5 \r", {}, [21.5, 40.0]),
            (b"t=21.5", {}, [21.5, None]),
            (b"t=,h=nan", {}, [None, None]),
            (b"mode=auto,t=1,h=2", {}, [1.0, 2.0]),
            (b"t: 21,5; h: 40", {"separator": ";", "assign": ":", "decimal": ","}, [21.5, 40.0]),
            (b"t:1   h:2\t", {"separator": " ", "assign": ":"}, [1.0, 2.0]),
            ("t=1,name=größe,h=2".encode(), {}, [1.0, 2.0]),
        ],
    )
    def test_values_are_found_by_their_names(self, payload, settings, values):
        assert made("key_value", ["t", "h"], **settings).decode(payload) == values

    @pytest.mark.parametrize(
        ("payload", "says"),
        [
            (b"I (123) sensor: temperature of the die is 40 degC", "is no name=value"),
            (b"h=2t=3", "'2t=3' is no number"),
            (b"t=1,h=2t=3,h=4", "'h' stands there twice"),
            (b"t=1,t=2", "'t' stands there twice"),
            (b"x=1,y=2", "none of t, h in it"),
            (b"t=warm,h=2", "'warm' is no number"),
            (b"t=1,\xff=2", "not UTF-8 at byte 4"),
            (b"", "is no name=value"),
            (b"t=1,", "'' is no name=value"),
        ],
    )
    def test_what_is_malformed_is_told(self, payload, says):
        with pytest.raises(DecodeError, match=re.escape(says)):
            made("key_value", ["t", "h"]).decode(payload)

    @pytest.mark.parametrize(
        "wrong", [{"separator": "="}, {"decimal": ","}, {"separator": ";", "assign": ",", "decimal": ","}]
    )
    def test_one_text_does_not_mean_two_things(self, wrong):
        with pytest.raises(ValidationError):
            section("key_value", **wrong)


class TestRegex:
    def test_named_groups_are_found_anywhere_in_the_text(self):
        found = made("regex", ["h", "t"], pattern=r"T:\s*(?P<t>[-\d.]+) C(?:, H: (?P<h>\d+) %)?")
        assert found.decode(b"# T: -3.5 C, H: 40 % ok") == [40.0, -3.5]
        assert found.decode(b"T:7 C") == [None, 7.0]

    def test_its_groups_are_what_channels_are_made_of(self):
        assert list(section("regex", pattern=r"(?P<t>\d+) (?P<h>\d+)").names) == ["t", "h"]

    def test_a_decimal_comma_is_one_where_it_is_said_to_be(self):
        assert made("regex", ["t"], pattern=r"(?P<t>\S+) C", decimal=",").decode(b"-3,5 C") == [-3.5]
        with pytest.raises(DecodeError, match=r"'1\.000,5' is no number"):
            made("regex", ["t"], pattern=r"(?P<t>\S+) C", decimal=",").decode(b"1.000,5 C")

    @pytest.mark.parametrize(
        ("payload", "says"),
        [
            (b"H: 5", "'H: 5' does not match"),
            (b"T: 1.2.3", "'1.2.3' is no number"),
            (b"T: \xff1", "not UTF-8 at byte 3"),
            (b"T: " + b"1" * 1024, "larger than 1024"),
        ],
    )
    def test_what_does_not_match_is_told(self, payload, says):
        with pytest.raises(DecodeError, match=re.escape(says)):
            made("regex", ["t"], pattern=r"T: (?P<t>[\d.]+)").decode(payload)

    @pytest.mark.parametrize(
        ("pattern", "says"),
        [
            (r"(?P<t>\d+", "no regular expression: missing"),
            (r"\d+", "no number has a name in it"),
            ("(?P<t>a)" + "b" * 500, "at most 500"),
            (r"(?P<t>(\d+)+)x", "before character 12 something repeats that has a repetition inside"),
            (r"(?P<t>(?:[a)]*b*)*)x", "a wrong message could take hours"),
            (r"(?P<t>((\d+)x?)*)", "a wrong message could take hours"),
            (r"(?P<t>(\d{2,}){3,})", "a wrong message could take hours"),
        ],
    )
    def test_an_expression_that_cannot_work_or_may_never_end_is_refused(self, pattern, says):
        with pytest.raises(ValidationError, match=re.escape(says)):
            section("regex", pattern=pattern)

    @pytest.mark.parametrize(
        "pattern",
        [r"(?P<t>\d+)(\s+x)?", r"(?P<t>(?>\d+)+)", r"(?P<t>(?:\d++,)+)", r"(?P<t>[(+)]+)", r"(?P<t>\(\d+\)+)",
         r"(?P<t>(\d{1,3}){2})", r"(?P<t>\d+) (?:a+|b+)"],
    )  # fmt: skip
    def test_an_expression_whose_time_is_bounded_is_taken(self, pattern):
        found = made("regex", ["t"], pattern=pattern)
        begin = time.process_time()
        with contextlib.suppress(DecodeError):
            found.decode(b"1" * 1024)
        assert time.process_time() - begin < 0.5

    def test_a_group_that_there_is_not_is_refused(self):
        with pytest.raises(ConfigError, match="no group 'x'; there are t"):
            made("regex", ["x"], pattern="(?P<t>.)")


WIND = {"angle": "MWV.1", "speed": "MWV.3", "depth": "SDDBT.3"}


class TestNmea:
    def test_fields_are_found_by_sentence_and_place(self):
        found = made("nmea", ["speed", "angle"], fields=WIND)
        assert found.decode(b"$WIMWV,214.8,R,0.1,K,A*28") == [0.1, 214.8]
        assert found.decode(b"WIMWV,214.8,R,,K,A") == [None, 214.8]

    def test_a_sentence_of_another_field_leaves_the_others_alone(self):
        angle, depth = made("nmea", ["angle", "depth"], fields=WIND).decode(b"$SDDBT,7.8,f,2.4,M,1.3,F*0D")
        assert (angle, depth) == (ABSENT, 2.4) or (angle is ABSENT and depth == 2.4)

    def test_a_talker_that_is_named_is_the_only_one(self):
        found = made("nmea", ["depth"], fields=WIND)
        assert found.decode(b"$IIDBT,7.8,f,2.4,M,1.3,F") == []
        assert found.decode(b"!SDDBT,7.8,f,2.4,M,1.3,F") == [2.4]

    def test_a_sentence_that_nobody_wants_passes_by(self):
        assert made("nmea", ["angle"], fields=WIND).decode(b"$GPGLL,4916.45,N,12311.12,W,225444,A*31") == []

    @pytest.mark.parametrize(
        ("payload", "says"),
        [
            (b"$WIMWV,214.8,R,0.1,K,A*29", "checksum '29', but the sentence gives '28'"),
            (b"$WIMWV,214.8*4", "checksum '4'"),
            (b"$WIMWV,214.8,R", "WIMWV has 2 fields, not 3"),
            (b"$WIMWV,abc,R,0.1", "'abc' is no number"),
            (b"I (1) boot: ok", "is no sentence"),
            (b"", "is no sentence"),
            (b"$WIMWV,\xb0,R", "not ASCII at byte 7"),
        ],
    )
    def test_a_broken_sentence_is_told(self, payload, says):
        with pytest.raises(DecodeError, match=re.escape(says)):
            made("nmea", ["angle", "speed"], fields=WIND).decode(payload)

    @pytest.mark.parametrize("field", ["MWV", "MWV.0", "mwv.1", "MWV.100", ".1"])
    def test_a_field_is_a_sentence_and_a_place(self, field):
        with pytest.raises(ValidationError, match="is no field such as"):
            section("nmea", fields={"x": field})

    @given(st.text("ABC019.,*$", max_size=30))
    def test_any_sentence_that_is_summed_right_is_not_told_to_be_wrong(self, text):
        text = text.replace("*", "").lstrip("$!")
        whole = f"${text}*{functools.reduce(operator.xor, text.encode(), 0):02x}"
        told = ""
        try:
            made("nmea", ["angle"], fields=WIND).decode(whole.encode())
        except DecodeError as error:
            told = str(error)
        assert "checksum" not in told


@given(st.binary(max_size=60) | st.text("=,;:.+-e0123456789tTC $*WIMV\r\n", max_size=40).map(str.encode))
def test_any_bytes_give_finite_numbers_or_a_decode_error(data):
    for found in (
        made("key_value", ["t"]),
        made("regex", ["t"], pattern=r"(?P<t>\S+)"),
        made("nmea", ["angle", "depth"], fields=WIND),
    ):
        with contextlib.suppress(DecodeError):
            values = found.decode(data)
            assert all(each is None or each is ABSENT or math.isfinite(each) for each in values)
