"""Checksums against the check values of their standards, and against sums done by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hw_sim.serial.checksum import ALGORITHMS, SHORT, Check, algorithm

# The column `check` of the catalogue of parametrised CRC algorithms (reveng.sourceforge.io).
CATALOGUE = {
    "crc8": 0xF4,
    "crc8-smbus": 0xF4,
    "crc8-maxim": 0xA1,
    "crc8-rohc": 0xD0,
    "crc8-sae-j1850": 0x4B,
    "crc8-autosar": 0xDF,
    "crc16": 0xBB3D,
    "crc16-arc": 0xBB3D,
    "crc16-modbus": 0x4B37,
    "crc16-ccitt": 0x29B1,
    "crc16-ccitt-false": 0x29B1,
    "crc16-xmodem": 0x31C3,
    "crc16-kermit": 0x2189,
    "crc16-x25": 0x906E,
    "crc16-usb": 0xB4C8,
    "crc16-dnp": 0xEA82,
    "crc32": 0xCBF43926,
    "crc32c": 0xE3069283,
    "crc32-bzip2": 0xFC891918,
    "crc32-mpeg-2": 0x0376E6E7,
    "crc64": 0x6C40DF5F0B497347,
    "crc64-xz": 0x995DC9BBDF1939FA,
}
# Published examples of Fletcher's checksum and Adler-32; the others by hand.
BY_HAND = {
    ("fletcher16", b"abcde"): 0xC8F0,
    ("fletcher16", b"abcdefgh"): 0x0627,
    ("adler32", b"Wikipedia"): 0x11E60398,
    ("sum8", b"123456789"): 477 & 0xFF,
    ("sum16", b"123456789"): 477,
    ("sum16", b"\xff" * 300): 300 * 255 - 65536,
    ("lrc", b"\x01\x03\x00\x00\x00\x0a"): 0xF2,
    ("xor", b"GPGLL,5300.97914,N,00259.98174,E,125926,A"): 0x28,
    ("fletcher8-256", b"\x06\x01\x08\x00\xf0\x00\x00\x01\x00\x00\x00\x00"): 0x2800,
}


@pytest.mark.parametrize("name", CATALOGUE)
def test_a_crc_has_the_check_value_of_the_catalogue(name):
    function, size = algorithm(name)
    assert function(b"123456789") == CATALOGUE[name]
    assert size * 8 == int("".join(filter(str.isdigit, name.partition("-")[0])))


@pytest.mark.parametrize(("name", "data"), BY_HAND)
def test_a_sum_is_what_it_is_by_hand(name, data):
    assert algorithm(name)[0](data) == BY_HAND[name, data]


@given(st.binary(max_size=600))
def test_every_checksum_fits_into_its_bytes_and_never_changes(data):
    for function, size in ALGORITHMS.values():
        assert 0 <= function(data) < 1 << 8 * size
        assert function(data) == function(data)


@given(st.binary(max_size=600))
def test_bytes_and_their_lrc_sum_up_to_zero(data):
    assert (sum(data) + algorithm("lrc")[0](data)) % 256 == 0


def test_every_short_name_is_of_a_checksum_that_is_there():
    assert set(SHORT.values()) <= set(ALGORITHMS)


def test_an_unknown_checksum_says_what_there_is():
    with pytest.raises(
        ValueError, match=r"no checksum 'crc16-modbuss'; there are none, xor, .*crc32c.*catalogue"
    ):
        algorithm("crc16-modbuss")


@pytest.mark.parametrize(
    ("mark", "endian", "written"),
    [
        (None, "big", b"\x4b\x37"),
        (None, "little", b"\x37\x4b"),
        (b"*", "big", b"*4B37"),
        (b" ", "little", b" 374B"),
        (b"", "big", b"4B37"),
    ],
)
def test_a_checksum_is_written_as_bytes_or_as_digits_in_either_order(mark, endian, written):
    check = Check(*algorithm("crc16-modbus"), endian=endian, mark=mark)
    assert check.written(b"123456789") == written
    assert check.written_size == len(written)
    assert check.written(b"123456789", wrong=1) != written
