"""A state file is whole, or it is not taken up."""

import os
import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dxad import statefile
from dxad.statefile import StateError

DOCUMENTS = st.dictionaries(
    st.text(max_size=5), st.one_of(st.floats(allow_nan=False, allow_infinity=False), st.text(), st.none())
)


@given(DOCUMENTS)
def test_what_was_written_is_read_to_the_bit(document):
    assert statefile.decode(statefile.encode(document)) == document


@given(DOCUMENTS, st.data())
def test_no_flipped_bit_and_no_missing_byte_is_taken_for_a_state(document, data):
    raw = bytearray(statefile.encode(document))
    cut = data.draw(st.integers(0, len(raw) - 1))
    with pytest.raises(StateError):
        statefile.decode(bytes(raw[:cut]))
    raw[cut] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(StateError):
        statefile.decode(bytes(raw))


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "is no state"),
        (b"{}", "is no state"),
        (b"dxad-state 2 crc32=00000000 bytes=0\n", "has format 2"),
        (b"dxad-state 1 crc32=00000000 bytes=5\n{}", "has 2 of 5 bytes"),
        (b"dxad-state 1 crc32=00000000 bytes=2\n{}", "damaged"),
        (b"dxad-state 1 crc32=223bb855 bytes=2\n[]", "damaged"),
    ],
)
def test_what_is_no_state_is_refused_with_the_reason(raw, message):
    with pytest.raises(StateError, match=message):
        statefile.decode(raw)


def test_what_could_not_be_read_again_is_not_written():
    with pytest.raises(StateError, match=r"takes 17\.0 MiB, more than 16 MiB"):
        statefile.encode({"a": "x" * 17 * 2**20})


def test_the_largest_state_is_read_again(tmp_path):
    largest = {"a": "x" * (16 * 2**20 - 8)}
    statefile.write(tmp_path / "p.state", statefile.encode(largest))
    assert statefile.read(tmp_path / "p.state") == largest


def test_equal_documents_are_equal_bytes():
    assert statefile.encode({"a": 1, "b": 2.5}) == statefile.encode({"b": 2.5, "a": 1})


def test_a_file_that_is_not_there_is_nothing(tmp_path):
    assert statefile.read(tmp_path / "none.state") is None


def test_a_write_replaces_the_file_in_one_step_and_leaves_nothing_beside_it(tmp_path):
    path = tmp_path / "made" / "p.state"
    for number in range(3):
        statefile.write(path, statefile.encode({"n": number}))
        assert statefile.read(path) == {"n": number}
    assert [each.name for each in path.parent.iterdir()] == ["p.state"]
    assert stat.S_ISREG(path.stat().st_mode)


def test_it_is_on_disk_before_it_has_its_name(tmp_path, monkeypatch):
    order = []
    fsync, replace = os.fsync, type(tmp_path).replace
    monkeypatch.setattr(os, "fsync", lambda fd: (order.append("sync"), fsync(fd)))
    monkeypatch.setattr(
        type(tmp_path), "replace", lambda path, to: (order.append("rename"), replace(path, to))[1]
    )
    statefile.write(tmp_path / "p.state", statefile.encode({}))
    assert order == ["sync", "rename", "sync"]


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "p.state"
    statefile.write(path, statefile.encode({"n": 1}))

    def full(_fd):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        statefile.write(path, statefile.encode({"n": 2}))
    assert statefile.read(path) == {"n": 1}


def test_a_folder_in_its_place_is_told(tmp_path):
    (tmp_path / "p.state").mkdir()
    with pytest.raises(StateError, match="cannot be read: Is a directory"):
        statefile.read(tmp_path / "p.state")


def test_what_is_set_aside_stands_beside_it(tmp_path):
    path = tmp_path / "p.state"
    path.write_bytes(b"junk")
    assert statefile.set_aside(path).read_bytes() == b"junk"
    assert not path.exists()
