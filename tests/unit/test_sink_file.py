"""What the file sink does to files."""

import gzip
import json
import resource
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from dxad.errors import NotConnected, Rejected
from dxad.event import Event, to_record
from dxad.sinks.file import Config, File
from dxad.types import Record


def record(id_: str, **data: object) -> Record:
    return to_record(Event(id_, "dxad.test", "/gw", 1, data))


@asynccontextmanager
async def connected(folder: Path, **config: object) -> AsyncIterator[File]:
    sink = File(
        "s",
        Config.model_validate({"type": "file", "path": "events.jsonl", **config}),
        state_dir=folder,
    )
    await sink.connect()
    try:
        yield sink
    finally:
        await sink.close()


def ids(file: Path) -> list[str]:
    return [json.loads(line)["id"] for line in file.read_text().splitlines()]


async def test_a_file_that_would_grow_too_large_is_rotated_first(tmp_path):
    line = len(json.dumps({"id": "0"})) + 150
    async with connected(tmp_path, max_size=f"{3 * line}B", keep=2) as sink:
        for n in range(12):
            await sink.write([record(str(n))])
    files = sorted(each.name for each in tmp_path.iterdir())
    assert files == ["events.jsonl", "events.jsonl.1", "events.jsonl.2"]
    newest_first = [ids(tmp_path / each) for each in files]
    kept = [each for file in reversed(newest_first) for each in file]
    assert kept == [str(n) for n in range(12 - len(kept), 12)]
    assert all((tmp_path / each).stat().st_size <= 3 * line for each in files)


def lines_of(file: Path) -> list[str]:
    text = gzip.decompress(file.read_bytes()).decode() if file.suffix == ".gz" else file.read_text()
    return [json.loads(line)["id"] for line in text.splitlines()]


async def test_rotated_files_are_compressed_where_that_is_asked_for(tmp_path):
    async with connected(tmp_path, max_size="300B", keep=3, compress="gzip") as sink:
        for n in range(8):
            await sink.write([record(str(n))])
    names = sorted(each.name for each in tmp_path.iterdir())
    assert names == ["events.jsonl", *(f"events.jsonl.{n}.gz" for n in (1, 2, 3))]
    found = [each for name in reversed(names) for each in lines_of(tmp_path / name)]
    assert found == [str(n) for n in range(8 - len(found), 8)]
    modes = {(tmp_path / name).stat().st_mode & 0o777 for name in names}
    assert len(modes) == 1


async def test_plain_and_compressed_ones_age_together(tmp_path):
    async with connected(tmp_path, max_size="100B", keep=3) as sink:
        for n in range(3):
            await sink.write([record(str(n))])
    (tmp_path / "events.jsonl.1.gz.part").write_bytes(b"cut short by a crash")
    async with connected(tmp_path, max_size="100B", keep=3, compress="gzip") as sink:
        for n in range(3, 5):
            await sink.write([record(str(n))])
    names = sorted(each.name for each in tmp_path.iterdir())
    assert names == ["events.jsonl", "events.jsonl.1.gz", "events.jsonl.2.gz", "events.jsonl.3"]
    assert [lines_of(tmp_path / name) for name in names] == [["4"], ["3"], ["2"], ["1"]]


async def test_what_the_disk_does_not_compress_stays_plain(tmp_path):
    async with connected(tmp_path, max_size="100B", keep=2, compress="gzip") as sink:
        await sink.write([record("a")])
        (tmp_path / "events.jsonl.1.gz.part").mkdir()
        await sink.write([record("b")])
    assert lines_of(tmp_path / "events.jsonl.1") == ["a"]
    assert lines_of(tmp_path / "events.jsonl") == ["b"]


async def test_with_keep_0_there_is_one_file_only(tmp_path):
    async with connected(tmp_path, max_size="200B", keep=0) as sink:
        for n in range(5):
            await sink.write([record(str(n))])
    assert [each.name for each in tmp_path.iterdir()] == ["events.jsonl"]
    assert ids(tmp_path / "events.jsonl") == ["4"]


async def test_a_batch_larger_than_the_file_may_be_is_written_whole(tmp_path):
    async with connected(tmp_path, max_size="100B") as sink:
        await sink.write([record("a"), record("b")])
    assert ids(tmp_path / "events.jsonl") == ["a", "b"]


async def test_a_line_that_a_crash_tore_is_ended(tmp_path):
    (tmp_path / "events.jsonl").write_text('{"id": "torn')
    async with connected(tmp_path) as sink:
        await sink.write([record("a")])
    torn, whole = (tmp_path / "events.jsonl").read_text().splitlines()
    assert torn == '{"id": "torn'
    assert json.loads(whole)["id"] == "a"


async def test_a_file_moved_away_by_somebody_is_begun_anew(tmp_path):
    async with connected(tmp_path) as sink:
        await sink.write([record("a")])
        (tmp_path / "events.jsonl").rename(tmp_path / "archived")
        await sink.write([record("b")])
    assert ids(tmp_path / "archived") == ["a"]
    assert ids(tmp_path / "events.jsonl") == ["b"]


async def test_a_disk_that_takes_half_a_batch_keeps_none_of_it(tmp_path):
    async with connected(tmp_path) as sink:
        await sink.write([record("a")])
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
        try:
            with pytest.raises(NotConnected, match="File too large"):
                await sink.write([record("b", text="x" * 500), record("c", text="x" * 500)])
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert ids(tmp_path / "events.jsonl") == ["a"]
        await sink.write([record("b"), record("c")])
    assert ids(tmp_path / "events.jsonl") == ["a", "b", "c"]


async def test_what_is_no_json_is_rejected_and_the_others_are_written(tmp_path):
    async with connected(tmp_path) as sink:
        with pytest.raises(Rejected) as caught:
            await sink.write([record("a"), record("bad", raw=b"\x00"), record("c")])
    assert caught.value.indices == (1,)
    assert ids(tmp_path / "events.jsonl") == ["a", "c"]


async def test_an_absolute_path_stays_where_it_is(tmp_path):
    async with connected(Path("/nonexistent"), path=str(tmp_path / "here.jsonl")) as sink:
        await sink.write([record("a")])
    assert ids(tmp_path / "here.jsonl") == ["a"]
