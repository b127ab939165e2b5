"""The file of a daemon that does not run is looked at, and nothing is written beside it."""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from sqlite_utils import Database

from dxad.errors import ConfigError
from dxad.outbox import schema
from dxad.outbox.inspection import Wanted
from dxad.outbox.offline import looking, saving
from dxad.types import Lane
from tests.unit.outbox.records import record, sql


def seen(path: Path) -> list[str]:
    with looking(path) as inspection:
        return [each["id"] for each in inspection.page(Wanted()).found]


async def test_a_file_that_was_closed_is_read_and_nothing_is_made_beside_it(make, path):
    async with make() as box:
        await box.append(record("a", Lane.NORMAL))
    before = {each.name: each.read_bytes() for each in path.parent.iterdir()}
    assert seen(path) == ["a"]
    assert {each.name: each.read_bytes() for each in path.parent.iterdir()} == before


def test_the_log_beside_a_file_that_was_emptied_stays(tmp_path):
    path, log = tmp_path / "outbox.db", tmp_path / "outbox.db-wal"
    path.touch()
    log.write_bytes(bytes(100))
    with pytest.raises(ConfigError, match="is empty"):
        seen(path)
    assert log.read_bytes() == bytes(100)


@pytest.mark.parametrize("left", [("-wal",), ("-wal", "-shm")])
async def test_what_stands_in_the_log_of_a_daemon_that_was_killed_is_read_too(make, path, tmp_path, left):
    killed = tmp_path / "killed" / path.name
    killed.parent.mkdir()
    async with make() as box:
        await box.append(record("a", Lane.NORMAL))
        for suffix in ("", *left):
            shutil.copy(f"{path}{suffix}", f"{killed}{suffix}")
    before = {each.name: each.stat().st_size for each in killed.parent.iterdir()}
    assert before[f"{path.name}-wal"] > 0
    assert seen(killed) == ["a"]
    assert {each.name: each.stat().st_size for each in killed.parent.iterdir()} == before


def test_a_file_of_an_older_dxad_is_read_by_way_of_a_copy(tmp_path):
    old = tmp_path / "old.db"
    with closing(sqlite3.connect(old, isolation_level=None)) as connection:
        schema.migrations.apply(Database(connection), stop_before="m002_segments_boots_consumers")
        connection.execute("PRAGMA user_version=1")
        connection.execute("INSERT INTO records VALUES (1, 1, 'a', 5, 0, x'80')")
    before = old.read_bytes()
    with looking(old) as inspection:
        assert inspection.page(Wanted()).damaged == 1  # its checksum was made up
        assert inspection.overview()["lanes"]["normal"]["stored"] == 1
    assert old.read_bytes() == before


def test_what_is_no_outbox_is_told(tmp_path):
    for name, content, told in (
        ("none.db", None, "there is no such file"),
        ("text.db", b"hello, this is no database at all" * 40, "not a database"),
        ("other.db", b"", "this is no outbox"),
    ):
        file = tmp_path / name
        if content is not None:
            file.write_bytes(content)
        with pytest.raises(ConfigError, match=told), looking(file):
            pass


def test_a_file_of_a_newer_dxad_is_not_read(path):
    sql(path, "PRAGMA user_version=99")
    sql(path, "INSERT INTO _sqlite_migrations (migration_set, name) VALUES ('outbox', 'm099')")
    with pytest.raises(ConfigError, match="update dxad"), looking(path):
        pass


async def test_what_can_be_read_of_a_damaged_file_is_saved_and_the_file_left_as_it_is(make, path):
    async with make() as box:
        for each in "abcdef":
            await box.append(record(each, Lane.NORMAL, size=3000))
    data = bytearray(path.read_bytes())
    for page in range(len(data) // 4096):
        if data[page * 4096] == 5:  # the inner pages of all trees: without them SQL finds nothing
            data[page * 4096 : page * 4096 + 100] = b"\xff" * 100
    path.write_bytes(data)
    with pytest.raises(ConfigError, match=f"dxad outbox export --file {path}"):
        seen(path)
    with saving(path) as (inspection, _):
        assert [each["id"] for each in inspection.page(Wanted()).found] == list("abcdef")
    assert path.read_bytes() == bytes(data)
    assert {each.name for each in path.parent.iterdir()} == {"outbox.db"}


async def test_a_sound_file_is_saved_as_it_is(make, path):
    async with make() as box:
        await box.append(record("a", Lane.NORMAL))
    with saving(path) as (inspection, damaged):
        assert ([each["id"] for each in inspection.page(Wanted()).found], damaged) == (["a"], 0)
