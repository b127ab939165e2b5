"""Requests are found in whatever comes."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hw_sim.modbus.framing import FRAMINGS, Answer, crc, lrc
from tests.unit.hw_sim.modbus_rig import checksum, framed

READ = b"\x03\x00\x0a\x00\x02"
FRAMING = pytest.mark.parametrize("framing", FRAMINGS)


def requests(framing, *pieces):
    decoder = FRAMINGS[framing]()
    return [each for piece in pieces for each in decoder.requests(piece)], decoder.skipped


@pytest.mark.parametrize(
    "pdu", [READ, b"\x11", b"\x08\x00\x00\xab\xcd", b"\x2b\x0e\x01\x00", b"\x0f\0\0\0\x0a\x02\xff\x03"]
)
@FRAMING
def test_a_request_is_found_in_any_pieces(framing, pdu):
    wire = framed(framing, 7, pdu, 0x1234)
    for at in range(1, len(wire)):
        found, skipped = requests(framing, wire[:at], wire[at:])
        assert [(each.unit, each.pdu, each.wire) for each in found] == [(7, pdu, wire)]
        assert found[0].transaction == (0x1234 if framing == "tcp" else 0)
        assert skipped == 0


@FRAMING
def test_requests_that_come_at_once_are_all_found(framing):
    wire = b"".join(framed(framing, unit, READ, unit) for unit in (1, 2, 3))
    found, skipped = requests(framing, wire)
    assert [each.unit for each in found] == [1, 2, 3]
    assert skipped == 0


@pytest.mark.parametrize("framing", ["rtu", "ascii"])
def test_a_request_is_found_between_garbage(framing):
    noise = random.Random(3)
    for size in range(1, 60):
        before, after = noise.randbytes(size), noise.randbytes(size)
        wire = framed(framing, 9, READ)
        found, skipped = requests(framing, before + wire, after, b"\n", wire)
        assert [each.unit for each in found] == [9, 9]
        assert skipped == 2 * size + 1


def test_after_a_header_that_is_none_the_next_piece_is_read_afresh():
    good = framed("tcp", 1, READ, 5)
    for bad in (b"\0\1\0\1\0\6\1\3\0\0\0\1", b"\0\1\0\0\0\1\1", b"\0\1\0\0\1\0\1\3"):
        found, skipped = requests("tcp", bad, good)
        assert [each.transaction for each in found] == [5]
        assert skipped == len(bad)


@pytest.mark.parametrize("framing", ["rtu", "ascii"])
def test_a_request_whose_checksum_is_wrong_is_none(framing):
    wire = bytearray(framed(framing, 9, READ))
    wire[5] ^= 1
    found, _ = requests(framing, bytes(wire), framed(framing, 9, READ))
    assert len(found) == 1


@FRAMING
def test_what_never_ends_does_not_pile_up(framing):
    decoder = FRAMINGS[framing]()
    for _ in range(30):
        decoder.requests(b"\x00\x01\x00\x00\x00\xfe\x01" if framing == "tcp" else b"\x01\x63" * 50)
    assert len(decoder._rest) < 600


@given(data=st.binary(min_size=1, max_size=300))
def test_the_checksums_are_the_specification_s(data):
    assert crc(data).to_bytes(2, "little") == checksum("rtu", data)
    assert bytes((lrc(data),)) == checksum("ascii", data)
    assert crc(data + checksum("rtu", data)) == lrc(data + checksum("ascii", data)) == 0


def test_an_answer_of_the_specification():
    """The example of Application Protocol V1.1b3, 6.3."""
    answer = Answer(0x11, bytes.fromhex("03 06 022B 0000 0064"), 0x1501)
    assert FRAMINGS["tcp"]().framed(answer).hex() == "15010000000911" + "0306022b00000064"
    assert FRAMINGS["ascii"]().framed(answer) == b":110306022B0000006455\r\n"
    assert (
        FRAMINGS["rtu"]().framed(answer).hex()
        == "110306022b00000064" + checksum("rtu", bytes.fromhex("110306022b00000064")).hex()
    )
