"""Frames are found in any stream, however it is cut, and after whatever is none; what is kept is bounded."""

import random
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from dxad.errors import ConfigError, DecodeError
from dxad.links.checksum import SHORT, algorithm
from dxad.links.framing import Broken, Framer, uncobs, unslip
from dxad.sources.serial.framing import ChecksumSection, _validated
from hw_sim.serial import checksum as theirs
from hw_sim.serial.section import Device

PAYLOADS = [b"1.5,-2", b"3,4", b"5.25,6e3", b"7,-8", b"9,10"]
FRAMINGS = {
    "line": {"kind": "line"},
    "delimiter": {"kind": "delimiter", "delimiter": "0x1e", "start": "0x02"},
    "fixed": {"kind": "fixed", "size": 24, "sync": "0xaa55"},
    "length": {"kind": "length", "size": 2, "sync": "0xaa55"},
    "cobs": {"kind": "cobs"},
    "slip": {"kind": "slip"},
}
BLIND = {"fixed": {"kind": "fixed", "size": 24}, "length": {"kind": "length", "size": 2, "endian": "little"}}
"""Without anything in front of a frame: the checksum alone tells where one is."""
CHECKS = [
    "xor",
    "sum8",
    "sum16",
    "lrc",
    "fletcher16",
    "fletcher8-256",
    "adler32",
    *SHORT,
    "crc16-modbus",
    "crc32",
]


def framer(framing, checksum="none") -> Framer:
    section = _validated(framing)
    wanted = {"kind": checksum} if isinstance(checksum, str) else checksum
    made = section.made(ChecksumSection.model_validate(wanted).made(text=section.ended), None)
    made.join(at_begin=True)
    return made


def sender(framing, checksum="none"):
    """The simulator's idea of the same frames, which knows nothing of ours."""
    device = {"fields": {"x": "x"}, "framing": framing, "checksum": checksum}
    return Device.model_validate(device).framed.frame


def padded(framing, payloads=PAYLOADS, size=24, around=2):
    return [each.ljust(size - around) for each in payloads] if framing["kind"] == "fixed" else payloads


def good(frames):
    return [each.rstrip(b" ") for each in frames if not isinstance(each, Broken)]


EVERY = [(name, check) for name in FRAMINGS for check in ("none", *CHECKS)]


@pytest.mark.parametrize(("name", "check"), EVERY)
def test_what_the_simulator_frames_and_sums_is_found(name, check):
    found, send = framer(FRAMINGS[name], check), sender(FRAMINGS[name], check)
    frames = found.frames(b"".join(map(send, PAYLOADS)))
    assert good(frames) == PAYLOADS
    assert (found.resyncs, found.dropped, found.waiting) == (0, 0, 0)


# Without a checksum, what follows a counted frame decides over it, if it has come.
@given(st.sampled_from([each for each in EVERY if each[1] != "none"]), st.randoms(use_true_random=False))
def test_it_does_not_matter_how_a_stream_is_cut(case, rng):
    name, check = case
    stream = b"junk\0\xc0\r\n" + b"".join(map(sender(FRAMINGS[name], check), PAYLOADS)) + b"\xaa" + b"x" * 30
    whole = framer(FRAMINGS[name], check)
    frames, cut = whole.frames(stream), framer(FRAMINGS[name], check)
    pieces, at = [], 0
    while at < len(stream):
        size = rng.randint(1, 9)
        pieces += cut.frames(stream[at : at + size])
        at += size
    assert good(pieces) == good(frames)
    assert cut.waiting == whole.waiting


@pytest.mark.parametrize("name", ["line", "delimiter", "fixed", "length", "cobs", "slip"])
@given(rng=st.randoms(use_true_random=False))
def test_after_noise_a_cut_or_a_lost_byte_the_frames_that_are_whole_are_found(name, rng):
    framing, check = (BLIND.get(name) or FRAMINGS[name]), "crc32"
    send, found = sender(framing, check), framer(framing, check)
    frames = [send(each) for each in PAYLOADS * 3]
    spoilt = rng.sample(range(1, len(frames) - 5), 2)
    for place in spoilt:
        frame = frames[place]
        cut = rng.randrange(1, len(frame) - 1)
        frames[place] = rng.choice(
            [frame[:cut] + frame[cut + 1 :], frame[:cut], b"", frame + rng.randbytes(9)]
        )
    stream = b"".join(frames)
    more = 150 if name == "length" else 0  # a length that is none is waited for, to its bound
    stream += b"".join(send(PAYLOADS[0]) for _ in range(more))
    got = good(found.frames(stream))
    lost = len(frames) + more - len(got)
    assert 0 <= lost <= 4, "a frame that runs into its neighbour takes that with it, and no more"
    assert set(got) <= set(PAYLOADS)


@pytest.mark.parametrize("name", FRAMINGS)
def test_noise_is_bounded_counted_and_no_frame(name):
    rng = random.Random(7)
    found = framer(FRAMINGS[name], "crc32")
    told = []
    for _ in range(100):
        told += found.frames(rng.randbytes(3_000))
        assert found.waiting <= 1_100
    assert good(told) == []
    assert found.dropped + found.waiting >= 299_000 - 300_000 // 64, "but for what separates frames"
    assert found.resyncs > 0 or name in {"line", "cobs", "slip", "delimiter"}


@pytest.mark.parametrize("framing", [*FRAMINGS.values(), *BLIND.values()], ids=lambda each: str(each)[:40])
def test_a_stream_may_be_joined_in_the_middle_of_a_frame(framing):
    send, found = sender(framing, "crc16-modbus"), framer(framing, "crc16-modbus")
    found.join()
    stream = b"".join(map(send, PAYLOADS))[3:] + b"".join(map(send, PAYLOADS * 40))
    frames = found.frames(stream)
    assert good(frames)[:4] == PAYLOADS[1:]
    assert not any(isinstance(each, Broken) for each in frames[:4]), "half a frame is no fault of anybody's"
    assert (found.resyncs, found.dropped) == (0, 0)


class TestEnded:
    def test_empty_frames_are_none(self):
        assert framer(FRAMINGS["line"]).frames(b"\n\r\n1\r\n\r\n\n") == [b"1"]
        assert framer(FRAMINGS["slip"]).frames(b"\xc0\xc01\xc0\xc0") == [b"1"]

    def test_what_comes_before_the_start_is_dropped(self):
        found = framer(FRAMINGS["delimiter"])
        told = found.frames(b"chatter\r\n\x021,2\x1e3,4\x1e\x02\x1e")
        assert told[:2] == [Broken("start", "9 bytes before the start of a frame"), b"1,2"]
        assert told[2] == Broken("start", "no start of the frame")
        assert (found.resyncs, found.dropped) == (1, 9 + 3)

    def test_a_frame_without_an_end_is_told_as_it_grows_and_its_rest_is_not_taken_for_one(self):
        found = framer({"kind": "delimiter", "delimiter": "\r\n", "max_length": "16B"})
        assert found.frames(b"1" * 40) == [Broken("overlong", "no end of a frame in 39 bytes")]
        assert found.frames(b"2" * 10) == []
        assert found.frames(b"\r\n3,4\r") == []
        assert found.frames(b"\n5") == [b"3,4"]
        assert (found.resyncs, found.dropped, found.waiting) == (1, 50, 1)

    @pytest.mark.parametrize(
        ("over", "summed"),
        [("payload", b"1,2"), ("frame", b"\x021,2\x03"), ("after_start", b"1,2\x03")],
    )
    def test_a_checksum_may_stand_behind_the_end(self, over, summed):
        """As IEC 62056-21 has it, with `after_start`: its BCC is of all behind STX, ETX included."""
        framing = {"kind": "delimiter", "start": "0x02", "delimiter": "0x03"}
        found = framer(framing, {"kind": "xor", "at": "behind", "written": "bytes", "over": over})
        value, _ = algorithm("xor")
        frame = b"\x021,2\x03" + bytes([value(summed)])
        assert found.frames(frame + frame[:-1]) == [b"1,2"]
        assert found.frames(frame[-1:] + b"\x021,2\x03\0") == [
            b"1,2", Broken("checksum", f"checksum 00, but the frame gives {value(summed):02x}"),
        ]  # fmt: skip

    def test_a_checksum_behind_the_end_may_look_like_the_end(self):
        framing = {"kind": "delimiter", "delimiter": "\n"}
        found = framer(framing, {"kind": "sum8", "at": "behind", "written": "bytes"})
        assert found.frames(b"\x05\x05\n\n\x05\x05\n\n\x05\x05\n") == [b"\x05\x05", b"\x05\x05"]


class TestCounted:
    def test_half_a_frame_takes_no_other_with_it(self):
        framing = {"kind": "length", "sync": "0xaa"}
        found, send = framer(framing, "crc16"), sender(framing, "crc16")
        told = found.frames(send(b"one") + send(b"two")[:4] + send(b"three") + send(b"four"))
        assert good(told) == [b"one", b"three", b"four"]
        assert [each for each in told if isinstance(each, Broken)] == [
            Broken(told[1].kind, "4 bytes that are no frame: " + told[1].reason.partition(": ")[2])
        ]
        assert (found.resyncs, found.dropped) == (1, 4)

    def test_without_a_checksum_a_frame_counts_if_the_next_begins_behind_it(self):
        framing = {"kind": "fixed", "size": 6, "sync": "0xaa55"}
        found = framer(framing)
        told = found.frames(b"\xaa\x55abcd\xaa\x55ab\xaa\x55efgh\xaa")
        assert good(told) == [b"abcd", b"efgh"]
        assert (found.resyncs, found.dropped, found.waiting) == (1, 4, 1)

    @pytest.mark.parametrize("itself", [False, True])
    @pytest.mark.parametrize("checksum", [False, True])
    @pytest.mark.parametrize("endian", ["big", "little"])
    def test_a_length_may_count_itself_and_the_checksum(self, itself, checksum, endian):
        framing = {"kind": "length", "size": 2, "endian": endian, "counts_itself": itself}
        framing["counts_checksum"] = checksum
        over = {"kind": "crc16-xmodem", "over": "frame"}
        assert framer(framing, over).frames(sender(framing, over)(b"12,34")) == [b"12,34"]

    def test_a_length_beyond_the_bound_is_none_and_is_not_waited_for(self):
        found = framer({"kind": "length", "size": 4, "sync": "0xaa", "max_length": "64B"}, "crc8")
        send = sender({"kind": "length", "size": 4, "sync": "0xaa"}, "crc8")
        assert good(found.frames(b"\xaa\0\0\0\x41" + send(b"1,2"))) == [b"1,2"]

    def test_silence_is_what_noise_of_less_than_a_frame_is_met_with_at_first(self):
        found = framer(FRAMINGS["fixed"], "crc8")
        found.join()
        assert found.frames(b"x" * 20) == []
        assert [type(each) for each in found.frames(b"x" * 20)] == [Broken]


class TestStuffing:
    @given(st.binary(max_size=600))
    def test_whatever_was_stuffed_comes_out_again(self, data):
        """By the simulator's library for COBS, and for SLIP by the RFC's own two rules."""
        stuffed = sender(FRAMINGS["cobs"])(data)
        assert uncobs(stuffed[:-1]) == data
        escaped = data.replace(b"\xdb", b"\xdb\xdd").replace(b"\xc0", b"\xdb\xdc")
        assert unslip(escaped) == data

    @given(st.binary(max_size=80))
    def test_any_bytes_come_out_or_are_a_decode_error(self, data):
        for undo in (uncobs, unslip):
            try:
                out = undo(data)
            except DecodeError:
                continue
            assert len(out) <= len(data)


class TestChecksum:
    @pytest.mark.parametrize("name", [*theirs.ALGORITHMS, *theirs.SHORT])
    def test_every_one_of_the_simulator_s_gives_the_same(self, name):
        ours, size = algorithm(name)
        value, other = theirs.algorithm(name)
        assert size == other
        assert all(ours(data) == value(data) for data in (b"", b"123456789", bytes(range(256))))

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("crc8", 0xF4), ("crc8-maxim", 0xA1), ("crc16", 0xBB3D), ("crc16-modbus", 0x4B37),
            ("crc16-ccitt", 0x29B1), ("crc16-xmodem", 0x31C3), ("crc16-kermit", 0x2189),
            ("crc16-x25", 0x906E), ("crc32", 0xCBF43926), ("crc32c", 0xE3069283),
            ("fletcher16", 0x1EDE), ("lrc", 0x23), ("xor", 0x31), ("sum16", 0x1DD),
            ("adler32", zlib.adler32(b"123456789")),
        ],
    )  # fmt: skip
    def test_the_catalogue_s_check_values(self, name, value):
        """RevEng's, and for the sums those of the nine digits by hand."""
        assert algorithm(name)[0](b"123456789") == value

    def test_an_unknown_one_is_told_with_what_may_be_meant(self):
        with pytest.raises(ConfigError, match="no checksum 'crc16-modbsu', did you mean 'crc16-modbus'"):
            algorithm("crc16-modbsu")
        with pytest.raises(ConfigError, match="no checksum 'md5', known: none, xor"):
            algorithm("md5")

    def test_it_leaves_out_the_mark_of_a_sentence(self):
        """An example of NMEA 0183 that everybody prints."""
        sentence = b"$GPGLL,4916.45,N,12311.12,W,225444,A"
        assert framer(FRAMINGS["line"], "xor").frames(sentence + b"*31\r\n") == [sentence]

    @pytest.mark.parametrize(
        ("checksum", "frame"),
        [
            ({"kind": "sum8", "written": "hex", "mark": ""}, b"1,28F\n"),
            ({"kind": "sum8", "written": "hex", "mark": ";"}, b"1,2;8f\n"),
            ({"kind": "sum16", "endian": "little", "mark": "*"}, b"1,2*8F00\n"),
            ({"kind": "sum8", "at": "start", "written": "bytes"}, b"\x8f1,2\n"),
            ({"kind": "sum8", "at": "start", "written": "hex", "mark": ""}, b"8F1,2\n"),
        ],
    )
    def test_it_may_be_written_otherwise_and_stand_elsewhere(self, checksum, frame):
        assert framer(FRAMINGS["line"], checksum).frames(frame) == [b"1,2"]

    @pytest.mark.parametrize(
        "frame", [b"1,2*", b"1,2", b"*", b"1,2*0", b"1,2*xx", b"1,2*\xff\xff", b"1,3*1F"]
    )
    def test_one_that_is_missing_or_wrong_is_told(self, frame):
        (told,) = framer(FRAMINGS["line"], "xor").frames(frame + b"\n")
        assert isinstance(told, Broken)
        assert "checksum" in told.reason

    def test_digits_at_the_start_have_no_mark(self):
        with pytest.raises(ValidationError, match='say mark = ""'):
            ChecksumSection(kind="sum8", at="start", written="hex")


@pytest.mark.parametrize(
    ("framing", "says"),
    [
        ({"kind": "cob"}, "no framing of kind 'cob', did you mean 'cobs'"),
        ({}, "no framing of kind None, known: line, delimiter"),
        ({"kind": "delimiter", "delimiter": ""}, "at least 1"),
        ({"kind": "delimiter", "delimiter": "0x0"}, "'0x0' is no even number of hexadecimal digits"),
        ({"kind": "delimiter", "delimiter": 3}, 'expected a text, or "0x" and hexadecimal digits'),
        ({"kind": "length", "size": 3}, "1, 2 or 4"),
        ({"kind": "slip", "max_length": "1B"}, "is not at least 8B"),
        ({"kind": "slip", "end": "x"}, "unknown key"),
    ],
)
def test_a_framing_that_is_none_is_told(framing, says):
    with pytest.raises(ValidationError, match=says):
        _validated(framing)
