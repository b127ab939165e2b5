"""A shelf keeps the newest versions, knows how each came, and survives a crash at any step."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dxad import bundle
from dxad.bundle import shelf
from dxad.bundle.manifest import Manifest
from dxad.errors import ModelRefusedError

MANIFEST = Manifest(
    channels=("s.a",),
    units=("",),
    rows=1,
    period=1,
    fill=(0.0,),
    limit=1.0,
    spans=(1,),
    scales=(1.0,),
    normal={},
)


def new(folder: Path, content: bytes) -> bundle.Bundle:
    return bundle.write(folder, MANIFEST, b"\x1c\0\0\0TFL3" + content)


def rolled_back(place: Path) -> Path:
    """What was current before is so again."""
    return shelf.activate(place, shelf.previous(place).name, why="rolled back")


@pytest.fixture
def stocked(tmp_path) -> Path:
    """A shelf with three versions, the third current."""
    for content in (b"one", b"two", b"three"):
        new(tmp_path / "new", content)
        shelf.install(tmp_path / "shelf", tmp_path / "new", why="learned")
    return tmp_path / "shelf"


def current(path: Path) -> str:
    found = bundle.current(path)
    assert found is not None
    return found.name[:4]


def test_the_newest_bundle_is_current_and_the_oldest_go(tmp_path):
    path = tmp_path / "shelf"
    assert bundle.current(path) is None
    names = []
    for number in range(4):
        made = new(tmp_path / "new", b"%d" % number)
        placed = shelf.install(path, tmp_path / "new", keep=3)
        names.append(f"{number + 1:04d}-{made.version}")
        assert bundle.current(path) == placed == path / names[-1]
        assert not (tmp_path / "new").exists()
    assert [each.name for each in shelf.versions(path)] == names[1:]


def test_a_damaged_bundle_does_not_get_onto_the_shelf(stocked, tmp_path):
    new(tmp_path / "bad", b"bad")
    (tmp_path / "bad" / "model.tflite").write_bytes(b"")
    with pytest.raises(ModelRefusedError):
        shelf.install(stocked, tmp_path / "bad")
    assert current(stocked) == "0003"
    assert len(shelf.versions(stocked)) == 3


def test_it_tells_when_and_why_each_version_came_and_became_current(stocked, tmp_path):
    new(tmp_path / "new", b"four")
    shelf.install(stocked, tmp_path / "new", make_current=False)
    rolled_back(stocked)
    first, second, third, fourth = shelf.versions(stocked)
    assert (first.why, first.reason, first.current) == ("learned", "learned", False)
    assert (second.why, second.reason, second.current) == ("learned", "rolled back", True)
    assert (third.why, third.reason, third.current) == ("learned", "learned", False)
    assert (fourth.why, fourth.reason, fourth.activated) == ("installed", None, None)
    assert first.installed is not None
    assert first.installed.endswith("+00:00")


def test_rolling_back_goes_through_those_that_were_current_and_ends(stocked):
    assert rolled_back(stocked).name[:4] == "0002"
    assert rolled_back(stocked).name[:4] == "0001"
    with pytest.raises(ModelRefusedError, match="no version before the current one"):
        rolled_back(stocked)
    assert current(stocked) == "0001"


def test_what_took_over_after_a_rollback_is_rolled_back_to_where_it_began(stocked, tmp_path):
    rolled_back(stocked)
    new(tmp_path / "new", b"four")
    shelf.install(stocked, tmp_path / "new")
    assert rolled_back(stocked).name[:4] == "0002"


def test_the_version_to_go_back_to_stays_however_many_come_that_are_not_used(stocked, tmp_path):
    shelf.activate(stocked, "1")
    for number in range(6):
        new(tmp_path / "new", b"more%d" % number)
        shelf.install(stocked, tmp_path / "new", make_current=False, keep=2)
    assert [each.name[:4] for each in shelf.versions(stocked)] == ["0001", "0003", "0008", "0009"]
    assert rolled_back(stocked).name[:4] == "0003"


@pytest.mark.parametrize("called", ["2", "0002", "whole", "head"])
def test_a_version_is_named_by_its_number_its_name_or_the_head_of_its_hash(called, stocked):
    second = shelf.versions(stocked)[1]
    name = {"whole": second.name, "head": second.name[5:10]}.get(called, called)
    assert shelf.activate(stocked, name) == second.folder
    assert current(stocked) == "0002"


@pytest.mark.parametrize("called", ["7", "zz", "", "0002-000"])
def test_a_version_that_is_not_there_changes_nothing(called, stocked):
    with pytest.raises(ModelRefusedError, match=r"no version is called .*there is 0001-"):
        shelf.activate(stocked, called)
    assert current(stocked) == "0003"


def test_a_version_that_was_damaged_on_the_shelf_is_not_gone_back_to(stocked):
    (shelf.versions(stocked)[1].folder / "model.tflite").write_bytes(b"")
    with pytest.raises(ModelRefusedError):
        rolled_back(stocked)
    assert current(stocked) == "0003"


def test_a_torn_or_a_missing_history_loses_times_and_nothing_else(stocked):
    history = stocked / "history.jsonl"
    history.write_bytes(history.read_bytes()[:-20])
    assert rolled_back(stocked).name[:4] == "0002", "by the number"
    assert shelf.versions(stocked)[1].reason == "rolled back"
    history.unlink()
    assert rolled_back(stocked).name[:4] == "0001"
    assert shelf.versions(stocked)[2].installed is None


CRASHING = """
import os, sys
from pathlib import Path
from dxad import bundle
from dxad.bundle import shelf

calls, most = 0, int(sys.argv[3])

def counted(call):
    def wrapped(*args, **keys):
        global calls
        calls += 1
        if calls > most:
            os._exit(9)
        return call(*args, **keys)
    return wrapped

os.fsync = counted(os.fsync)
for name in ("rename", "replace", "symlink_to", "unlink"):
    setattr(Path, name, counted(getattr(Path, name)))
shelf.install(Path(sys.argv[1]), Path(sys.argv[2]))
"""


@pytest.mark.parametrize("point", range(9))
def test_a_crash_at_any_step_leaves_the_old_version_current_or_the_new(point, stocked, tmp_path):
    new(tmp_path / "new", b"four")
    command = [sys.executable, "-c", CRASHING, str(stocked), str(tmp_path / "new"), str(point)]
    done = subprocess.run(command, check=False, env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)})
    assert done.returncode == (9 if point < 7 else 0)
    assert current(stocked) in {"0003", "0004"}
    assert bundle.read(stocked / "current").manifest.channels == ("s.a",)
    new(tmp_path / "next", b"five")
    placed = shelf.install(stocked, tmp_path / "next")
    assert bundle.current(stocked) == placed
