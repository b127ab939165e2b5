"""Frames against decoders that were written from the standards, not from the encoders."""

import functools
import operator
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hw_sim.serial.checksum import Check, algorithm
from hw_sim.serial.framing import Cobs, Ended, Fixed, Length, Slip
from hw_sim.serial.uart import misread

CHECKS = (
    None, "xor", "sum8", "sum16", "lrc", "fletcher16", "crc8", "crc8-maxim", "crc16-modbus",
    "crc16-ccitt-false", "crc16-xmodem", "crc16-kermit", "crc32", "crc32c",
)  # fmt: skip


def bitwise(data, *, width, poly, init, reflected, final):
    """A CRC bit by bit, after R. Williams, "A painless guide to CRC error detection algorithms", 1993."""
    top, register = 1 << width - 1, init
    for byte in data:
        register ^= (int(f"{byte:08b}"[::-1], 2) if reflected else byte) << width - 8
        for _ in range(8):
            register = (register << 1 ^ poly if register & top else register << 1) & (1 << width) - 1
    register = int(f"{register:0{width}b}"[::-1], 2) if reflected else register
    return register ^ final


def fletcher(data):
    first = second = 0
    for byte in data:
        first = (first + byte) % 255
        second = (second + first) % 255
    return second * 256 + first


CRC = {
    "crc8": {"width": 8, "poly": 0x07, "init": 0, "reflected": False, "final": 0},
    "crc8-maxim": {"width": 8, "poly": 0x31, "init": 0, "reflected": True, "final": 0},
    "crc16-modbus": {"width": 16, "poly": 0x8005, "init": 0xFFFF, "reflected": True, "final": 0},
    "crc16-ccitt-false": {"width": 16, "poly": 0x1021, "init": 0xFFFF, "reflected": False, "final": 0},
    "crc16-xmodem": {"width": 16, "poly": 0x1021, "init": 0, "reflected": False, "final": 0},
    "crc16-kermit": {"width": 16, "poly": 0x1021, "init": 0, "reflected": True, "final": 0},
    "crc32c": {"width": 32, "poly": 0x1EDC6F41, "init": 0xFFFFFFFF, "reflected": True, "final": 0xFFFFFFFF},
}
INDEPENDENT = {
    "xor": (1, lambda data: functools.reduce(operator.xor, data, 0)),
    "sum8": (1, lambda data: sum(data) % 256),
    "sum16": (2, lambda data: sum(data) % 65536),
    "lrc": (1, lambda data: (256 - sum(data) % 256) % 256),
    "fletcher16": (2, fletcher),
    "crc32": (4, zlib.crc32),
    **{name: (form["width"] // 8, functools.partial(bitwise, **form)) for name, form in CRC.items()},
}


def unchecked(frame, name, *, endian="big", hexed=False, front=b""):
    """The payload of a body whose checksum is right."""
    if name is None:
        return frame
    size, function = INDEPENDENT[name]
    if hexed:
        frame, star, digits = frame[: -2 * size - 1], frame[-2 * size - 1 : -2 * size], frame[-2 * size :]
        assert star == b"*"
        got = int.from_bytes(bytes.fromhex(digits.decode()), endian)
    else:
        frame, got = frame[:-size], int.from_bytes(frame[-size:], endian)
    assert got == function(front + frame)
    return frame


def unstuffed(frame):
    """COBS: each code byte says after how many bytes a zero follows; 255 is followed by none."""
    out, at = bytearray(), 0
    while at < len(frame):
        code = frame[at]
        assert code, "a zero byte within a frame"
        assert at + code <= len(frame)
        out += frame[at + 1 : at + code]
        at += code
        if code < 255 and at < len(frame):
            out.append(0)
    return bytes(out)


def unescaped(frame):
    """SLIP, as the receiver of RFC 1055 does it."""
    out, escaped = bytearray(), False
    for byte in frame:
        assert byte != 0xC0
        if escaped:
            out.append({0xDC: 0xC0, 0xDD: 0xDB}[byte])
            escaped = False
        elif byte == 0xDB:
            escaped = True
        else:
            out.append(byte)
    assert not escaped
    return bytes(out)


def check_of(name, *, mark=None, **more):
    return None if name is None else Check(*algorithm(name), mark=mark, **more)


texts = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E, exclude_characters="*$"), max_size=80)
specials = st.lists(st.sampled_from([0, 0xC0, 0xDB, 0xDC, 0xDD, 0xFF, 1, 0x7F]), max_size=40).map(bytes)
payloads = (
    st.binary(max_size=700) | specials | st.just(bytes(600)) | st.just(b"\x01" * 254) | st.just(b"\2" * 255)
)
sequences = st.lists(payloads, max_size=4)
check_names = st.sampled_from(CHECKS)


@given(texts=st.lists(texts, max_size=4), name=check_names, endian=st.sampled_from(["big", "little"]))
def test_lines_come_apart_at_their_ending(texts, name, endian):
    framing = Ended(check=check_of(name, mark=b"*", endian=endian), ending=b"\r\n")
    stream = b"".join(framing.frame(text.encode()) for text in texts)
    *lines, rest = stream.split(b"\r\n")
    assert rest == b""
    assert [unchecked(line, name, endian=endian, hexed=True).decode() for line in lines] == texts


@given(texts=st.lists(texts, max_size=4), name=check_names)
def test_delimited_frames_come_apart_at_their_delimiter(texts, name):
    framing = Ended(check=check_of(name, mark=b"*"), ending=b"\x1e", start=b"\x02")
    *frames, rest = b"".join(framing.frame(text.encode()) for text in texts).split(b"\x1e")
    assert rest == b""
    assert all(frame[:1] == b"\x02" for frame in frames)
    assert [unchecked(frame[1:], name, hexed=True).decode() for frame in frames] == texts


@given(text=texts)
def test_an_nmea_sentence_has_its_checksum_between_dollar_and_star(text):
    sentence = Ended(check=check_of("xor", mark=b"*"), ending=b"\r\n", start=b"$", lead=b"WIMWV,").frame(
        text.encode()
    )
    assert sentence[:7] == b"$WIMWV,"
    assert sentence[-5:-4] == b"*"
    assert sentence[-2:] == b"\r\n"
    value = 0
    for byte in sentence[1:-5]:
        value ^= byte
    assert int(sentence[-4:-2], 16) == value


@given(payload=st.binary(max_size=20), name=check_names, front=st.booleans())
def test_frames_of_a_fixed_size_are_filled_up(payload, name, front):
    framing = Fixed(check=check_of(name, front=front), size=30, sync=b"\xaa\x55")
    frame = framing.frame(payload)
    assert len(frame) == 30
    assert frame[:2] == b"\xaa\x55"
    body = unchecked(frame[2:], name, front=b"\xaa\x55" if front else b"")
    assert body == payload + bytes(len(body) - len(payload))


def test_what_does_not_fit_into_a_fixed_frame_is_no_number():
    assert Fixed(size=8, filler=b" ").frame(b"1.5") == b"1.5     "
    assert Fixed(size=8, filler=b" ").frame(b"123456.789") == b"********"


@given(
    payloads=sequences,
    name=check_names,
    size=st.sampled_from([2, 4]),
    endian=st.sampled_from(["big", "little"]),
    counts=st.tuples(st.booleans(), st.booleans(), st.booleans()),
)
def test_frames_with_their_length_in_front_come_apart_by_it(payloads, name, size, endian, counts):
    itself, checksum, front = counts
    framing = Length(
        check=check_of(name, endian=endian, front=front),
        size=size,
        endian=endian,
        counts_itself=itself,
        counts_checksum=checksum,
        sync=b"\x42\x4d",
    )
    stream = b"".join(map(framing.frame, payloads))
    own = INDEPENDENT[name][0] if name else 0
    got = []
    while stream:
        head, stream = stream[: 2 + size], stream[2 + size :]
        assert head[:2] == b"\x42\x4d"
        length = int.from_bytes(head[2:], endian) - size * itself + own * (not checksum)
        got.append(unchecked(stream[:length], name, endian=endian, front=head if front else b""))
        stream = stream[length:]
    assert got == payloads


def test_a_length_of_one_byte_wraps_as_in_firmware():
    assert Length(size=1).frame(bytes(255))[0] == 255
    assert Length(size=1).frame(bytes(300))[0] == 300 - 256


def test_a_frame_of_a_plantower_dust_sensor():
    """PMS5003 data manual, appendix I: 0x42 0x4d, length 28, 13 words, the sum of all bytes before."""
    framing = Length(
        check=Check(*algorithm("sum16"), front=True), size=2, sync=b"\x42\x4d", counts_checksum=True
    )
    frame = framing.frame(b"".join(value.to_bytes(2, "big") for value in range(13)))
    assert len(frame) == 32
    assert frame[:4] == b"\x42\x4d\x00\x1c"
    assert frame[-2:] == sum(frame[:-2]).to_bytes(2, "big")


@given(payloads=sequences, name=check_names)
def test_cobs_frames_come_apart_at_zero_bytes(payloads, name):
    framing = Cobs(check=check_of(name))
    *frames, rest = b"".join(map(framing.frame, payloads)).split(b"\0")
    assert rest == b""
    assert [unchecked(unstuffed(frame), name) for frame in frames] == payloads


@pytest.mark.parametrize(
    ("plain", "stuffed"),
    [
        (b"\0", b"\1\1\0"),
        (b"\x11\x22\0\x33", b"\3\x11\x22\2\x33\0"),
        (b"\x11\0\0\0", b"\2\x11\1\1\1\0"),
        (bytes(range(1, 255)), b"\xff" + bytes(range(1, 255)) + b"\0"),
    ],
)
def test_cobs_as_its_authors_and_encyclopedias_have_it(plain, stuffed):
    assert Cobs().frame(plain) == stuffed


@given(
    payloads=st.lists(payloads.filter(bool), max_size=4),
    name=check_names,
    start=st.sampled_from([b"\xc0", b""]),
)
def test_slip_frames_come_apart_at_end(payloads, name, start):
    framing = Slip(check=check_of(name), start=start)
    stream = b"".join(map(framing.frame, payloads))
    frames = [frame for frame in stream.split(b"\xc0") if frame]  # a receiver ignores empty ones
    assert [unchecked(unescaped(frame), name) for frame in frames] == payloads


@given(payload=payloads, name=st.sampled_from(CHECKS[1:]), wrong=st.integers(1, 255))
def test_a_wrong_checksum_is_wrong_and_all_else_is_right(payload, name, wrong):
    framing = Length(check=check_of(name), size=4)
    right, bad = framing.frame(payload), framing.frame(payload, wrong)
    assert right != bad
    assert right[: 4 + len(payload)] == bad[: 4 + len(payload)]


@pytest.mark.parametrize(
    ("framing", "unended"),
    [
        (Ended(ending=b"\r\n"), b"ab"),
        (Ended(ending=b";", start=b"<"), b"<ab"),
        (Fixed(size=2), b"a"),
        (Fixed(size=4, sync=b"<<"), b"ab"),
        (Length(size=1, sync=b"<"), b"ab"),
        (Cobs(), b"\3ab"),
        (Slip(), b"ab"),
    ],
)
def test_an_unended_frame_lacks_what_tells_it_from_the_next(framing, unended):
    assert framing.unended(framing.frame(b"ab")) == unended


@given(data=st.binary(max_size=60), ratio=st.floats(0.96, 1.04))
def test_a_receiver_of_nearly_the_same_baud_rate_reads_the_same(data, ratio):
    assert misread(data, ratio) == data


@pytest.mark.parametrize(
    ("data", "ratio", "seen"),
    [
        (b"\x00", 2.0, b"\x00"),  # the stop bit is 0: a framing error; no edge follows until the line idles
        (b"\xff", 2.0, b"\xfe"),  # the start bit alone is a start bit and a 0
        (b"\x00", 0.5, b"\xf8"),  # nine bits of 0 are a start bit, three of 0, and the idle line
        (b"\xff", 0.5, b""),  # the start bit is over before its middle
        (b"\xf0", 2.0, b"\x00"),  # five bits of 0 are ten
    ],
)
def test_a_receiver_of_another_baud_rate_sees_what_a_uart_sees(data, ratio, seen):
    assert misread(data, ratio) == seen
