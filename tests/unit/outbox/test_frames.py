"""A log that is damaged is told from one that a power cut has left."""

import random
import shutil
import sqlite3
from contextlib import closing

import pytest

from dxad.outbox.frames import Log

PAGE = 4096
FRAME = PAGE + 24


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A log of two generations: the newer one has 15 transactions, of some frames each."""
    path = tmp_path_factory.mktemp("log") / "f.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for each in ("journal_mode=WAL", "wal_autocheckpoint=0"):
            connection.execute(f"PRAGMA {each}")
        connection.execute("CREATE TABLE t (body BLOB)")
        older = path.with_name("older")
        for n in range(110):
            connection.execute("INSERT INTO t VALUES (?)", (b"%d" % n * 300,))
        shutil.copy(path.with_name("f.db-wal"), older)
        connection.execute("PRAGMA wal_checkpoint(RESTART)").fetchone()
        for n in range(15):
            connection.execute("BEGIN")
            connection.executemany("INSERT INTO t VALUES (?)", [(b"%d" % n * 2000,)] * 4)
            connection.execute("COMMIT")
        return path.with_name("f.db-wal").read_bytes(), older.read_bytes()


@pytest.fixture
def look(tmp_path):
    def look(data: bytes) -> Log:
        (tmp_path / "log").write_bytes(data)
        return Log(tmp_path / "log")

    return look


def commits(data: bytes) -> list[int]:
    """The frames of the newer generation that end a transaction."""
    frames = range((len(data) - 32) // FRAME)
    heads = [data[32 + n * FRAME : 56 + n * FRAME] for n in frames]
    return [
        n
        for n, head in zip(frames, heads, strict=True)
        if head[4:8] != bytes(4) and head[8:16] == data[16:24]
    ]


def flipped(data: bytes, *places: int) -> bytes:
    spoilt = bytearray(data)
    for each in places:
        spoilt[each] ^= 1
    return bytes(spoilt)


def test_a_sound_log_is_none(made, look):
    data, _ = made
    log = look(data)
    assert not log.damage
    assert 15 == len(commits(data)) < commits(data)[-1] < (len(data) - 32) // FRAME - 1  # older frames follow
    assert len(log.pages()) > 10
    assert not look(b"").damage
    assert not look(bytes(100_000)).damage


@pytest.mark.parametrize("at", [0, 3, 9, 100, 4000])
def test_one_bad_frame_before_others_is_damage(made, look, at):
    data, _ = made
    ends = commits(data)
    for frame in range(0, ends[-2], 4):
        log = look(flipped(data, 32 + frame * FRAME + at))
        assert log.damage, frame
        assert log.damaged <= 1
    pages = look(data).pages()
    assert len(log.pages()) >= len(pages) - 1
    assert sum(log.pages().get(number) == page for number, page in pages.items()) >= len(pages) - 1


def test_what_a_power_cut_leaves_of_the_last_transaction_is_none(made, look):
    """Some pages of it arrived, in place of others there is what the generation before has left."""
    data, older = made
    ends = commits(data)
    rng = random.Random(1)
    for _ in range(60):
        last = rng.randrange(1, len(ends))
        begin, end = 32 + (ends[last - 1] + 1) * FRAME, 32 + (ends[last] + 1) * FRAME
        torn = bytearray(data[:end] + older[end:])
        unit = rng.choice((512, FRAME))
        for start in range(begin, end, unit):
            if rng.random() < 0.5:
                torn[start : start + unit] = older[start : start + unit]
        assert not look(bytes(torn)).damage
    for cut in range(0, len(data), 5555):
        assert not look(data[:cut]).damage


def test_what_two_power_cuts_leave_is_none(tmp_path, look):
    """The second one in a log that goes on where the first one has cut it off, over what that has left."""
    path = tmp_path / "f.db"
    torn = (30, 60)
    for cut, rows in enumerate((60, 3)):
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            for each in ("journal_mode=WAL", "wal_autocheckpoint=0"):
                connection.execute(f"PRAGMA {each}")
            connection.execute("CREATE TABLE IF NOT EXISTS t (body BLOB)")
            connection.execute("INSERT INTO t VALUES (x'00')")
            before = (Log(tmp_path / "f.db-wal")._taken) * FRAME + 32
            connection.execute("BEGIN")
            connection.executemany("INSERT INTO t VALUES (?)", [(bytes(PAGE * (2 - cut)),)] * rows)
            connection.execute("COMMIT")
            data = bytearray((tmp_path / "f.db-wal").read_bytes())
            file = path.read_bytes()
        data[before + 5 : before + 500] = bytes(495)
        path.write_bytes(file)
        (tmp_path / "f.db-wal").write_bytes(data)
        (tmp_path / "f.db-shm").unlink(missing_ok=True)
        log = look(bytes(data))
        assert not log.damage
        assert log._end - log._taken > torn[cut]  # what the first has left is behind the second


def test_a_log_that_ends_before_what_its_index_knows_is_damaged(tmp_path):
    path, log = tmp_path / "f.db", tmp_path / "copy-wal"
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("CREATE TABLE t (body BLOB)")
        older = (tmp_path / "f.db-shm").read_bytes()
        for _ in range(5):
            connection.execute("INSERT INTO t VALUES (x'00')")
        data, index = (tmp_path / "f.db-wal").read_bytes(), (tmp_path / "f.db-shm").read_bytes()
        connection.execute("PRAGMA wal_checkpoint(RESTART)").fetchone()
        connection.execute("INSERT INTO t VALUES (x'00')")
        restarted = (tmp_path / "f.db-shm").read_bytes()
    for frame in range(1, len(data) // FRAME):
        log.write_bytes(data[: 32 + frame * FRAME])
        for known, expected in ((older, frame < 2), (index, True), (restarted, False), (bytes(96), False)):
            (tmp_path / "copy-shm").write_bytes(known)
            assert bool(Log(log).damage) == expected, frame
    log.write_bytes(data)
    (tmp_path / "copy-shm").write_bytes(index)
    assert not Log(log).damage
    log.write_bytes(flipped(data, len(data) - 5))
    assert "7 were written" in Log(log).damage
    (tmp_path / "copy-shm").write_bytes(flipped(index, 17))
    assert not Log(log).damage


def test_a_damaged_header_is_damage(made, look):
    data, _ = made
    whole = look(data).pages()
    for at in range(32):
        log = look(flipped(data, at))
        assert log.damage, at
        assert len(log.pages().items() & whole.items()) >= len(whole) - 1


def test_a_header_that_is_being_written_is_none(made, look):
    data, older = made
    assert look(older).pages()
    for cut in (0, 12, 16, 20, 24, 28, 32):
        assert not look(data[:cut] + older[cut:]).damage
