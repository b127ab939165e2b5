"""A shelf: a folder per version of a model, a link `current` to the one in use, and the history of both.

    shelf/0001-3f2a…/  0002-9c41…/   bundles, oldest first
    shelf/current -> 0002-9c41…      moved by one rename(2): whoever looks finds the old one or the new one
    shelf/history.jsonl              who became current when and why; a torn last line is passed over

The folder itself is locked (flock(2)) by whoever changes something. Every name is made last (fsync) before
the next step begins, so a crash at any point leaves the old version current or the new one, and at worst a
folder or a line of history that nobody knows of.
"""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Literal

import orjson

from dxad import bundle
from dxad.errors import ModelRefusedError
from dxad.runtime.clock import SystemClock
from dxad.types import Document

__all__ = ["Version", "Why", "activate", "find", "install", "previous", "versions"]

Why = Literal["learned", "installed", "promoted", "activated", "rolled back"]

_KEEP: Final = 5
_UNKNOWN: Final[Document] = {"at": None, "why": None}
_PATTERN: Final = "[0-9]*-*"


@dataclass(frozen=True, slots=True)
class Version:
    """One bundle of a shelf."""

    folder: Path
    current: bool
    installed: str | None
    """When it came, UTC, ISO 8601; None where the history does not know."""
    why: Why | None
    """How it came."""
    activated: str | None
    """When it last became current."""
    reason: Why | None
    """Why it last became current."""

    @property
    def name(self) -> str:
        """What tells it from the others: `0002-9c41d2e8b7a0`."""
        return self.folder.name


def versions(shelf: Path) -> list[Version]:
    """All bundles of a shelf, oldest first."""
    history = _history(shelf)
    in_use = _current_name(shelf)
    found = []
    for folder in _folders(shelf):
        mine = [each for each in history if each["version"] == folder.name]
        came = mine[0] if mine else _UNKNOWN
        went = next((each for each in reversed(mine) if each["current"]), _UNKNOWN)
        found.append(Version(folder, folder.name == in_use, came["at"], came["why"], went["at"], went["why"]))
    return found


def install(
    shelf: Path, folder: Path, *, why: Why = "installed", make_current: bool = True, keep: int = _KEEP
) -> Path:
    """Move a bundle that was tried onto the shelf and make it current; the oldest beyond `keep` go.

    The current one and the one before it never go.

    Raises:
        ModelRefusedError: it is no whole bundle.
        OSError: the shelf cannot be written.
    """
    version = bundle.read(folder).version
    shelf.mkdir(parents=True, exist_ok=True)
    with _locked(shelf):
        numbers = [_number(each) for each in _folders(shelf)]
        target = shelf / f"{max(numbers, default=0) + 1:04d}-{version}"
        _move(folder, target)
        bundle.sync(shelf)
        _make_current(shelf, target.name, why) if make_current else _note(
            shelf, target.name, why, current=False
        )
        _clear(shelf, keep)
    return target


def activate(shelf: Path, version: str, *, why: Why = "activated") -> Path:
    """Make a version current: its name, its number or the head of its hash.

    Raises:
        ModelRefusedError: there is none of that name, or more than one, or it is damaged.
        OSError: the shelf cannot be written.
    """
    with _locked(shelf):
        found = find(shelf, version)
        bundle.read(found)
        _make_current(shelf, found.name, why)
    return found


def find(shelf: Path, version: str) -> Path:
    """The version that is meant by its name, its number or the head of its hash; nothing changes.

    Raises:
        ModelRefusedError: there is none of that name, or more than one.
    """
    found = [each for each in _folders(shelf) if _is_called(each, version)]
    if len(found) != 1:
        known = ", ".join(each.name for each in _folders(shelf)) or "none"
        fault = "more than one version is" if found else "no version is"
        raise ModelRefusedError(f"{shelf}: {fault} called {version!r}; there is {known}")
    return found[0]


def previous(shelf: Path) -> Path:
    """The version that was current before this one; nothing changes.

    Raises:
        ModelRefusedError: there is none.
    """
    before = _before(shelf)
    if before is None:
        raise ModelRefusedError(f"{shelf}: there is no version before the current one")
    return before


def _before(shelf: Path) -> Path | None:
    """Whom the current version took over from; without a history, the one of the next lower number."""
    held: list[str] = []
    for each in _history(shelf):
        if not each["current"]:
            continue
        if each["why"] == "rolled back":
            while held and held[-1] != each["version"]:
                held.pop()
        if not held or held[-1] != each["version"]:
            held.append(each["version"])
    in_use = _current_name(shelf)
    folders = _folders(shelf)
    there = {each.name for each in folders}
    if held and held[-1] == in_use:
        earlier = [name for name in held[:-1] if name in there and name != in_use]
    else:
        earlier = [
            each.name for each in folders if in_use is not None and _number(each) < _number(Path(in_use))
        ]
    return shelf / earlier[-1] if earlier else None


def _folders(shelf: Path) -> list[Path]:
    found = [each for each in shelf.glob(_PATTERN) if each.name.split("-")[0].isdigit() and each.is_dir()]
    return sorted(found, key=_number)


def _number(folder: Path) -> int:
    return int(folder.name.split("-")[0])


def _is_called(folder: Path, version: str) -> bool:
    number, _, digest = folder.name.partition("-")
    if version.isdigit() and len(version) <= len(number):
        return int(version) == int(number)
    return version == folder.name or (len(version) >= 4 and digest.startswith(version))


def _current_name(shelf: Path) -> str | None:
    try:
        return (shelf / "current").readlink().name
    except OSError:
        return None


def _make_current(shelf: Path, name: str, why: Why) -> None:
    link = shelf / ".current.new"
    link.unlink(missing_ok=True)
    link.symlink_to(name)
    link.replace(shelf / "current")
    bundle.sync(shelf)
    _note(shelf, name, why, current=True)


def _note(shelf: Path, name: str, why: Why, *, current: bool) -> None:
    clock = SystemClock()
    at = datetime.fromtimestamp(clock.utc(clock.now()) / 1e9, UTC).isoformat(timespec="seconds")
    line = orjson.dumps({"version": name, "at": at, "why": why, "current": current}) + b"\n"
    path = shelf / "history.jsonl"
    new = not path.exists()
    with path.open("ab") as file:
        if file.tell() and not path.read_bytes().endswith(b"\n"):
            file.write(b"\n")  # a crash tore the last line
        file.write(line)
        file.flush()
        os.fsync(file.fileno())
    if new:
        bundle.sync(shelf)


def _history(shelf: Path) -> list[Document]:
    try:
        lines = (shelf / "history.jsonl").read_bytes().splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        try:
            entry = orjson.loads(line)
        except orjson.JSONDecodeError:
            continue
        if isinstance(entry, dict) and entry.keys() >= {"version", "at", "why", "current"}:
            found.append(entry)
    return found


def _move(folder: Path, target: Path) -> None:
    """By a rename; from another file system by a copy that is whole before it gets its name."""
    try:
        folder.rename(target)
    except OSError:
        incoming = Path(tempfile.mkdtemp(prefix=".incoming-", dir=target.parent))
        try:
            copy = Path(shutil.copytree(folder, incoming / "bundle"))
            for each in copy.iterdir():
                with each.open("rb") as file:
                    os.fsync(file.fileno())
            bundle.sync(copy)
            copy.rename(target)
        finally:
            shutil.rmtree(incoming, ignore_errors=True)
        shutil.rmtree(folder)


def _clear(shelf: Path, keep: int) -> None:
    before = _before(shelf)
    kept = {_current_name(shelf), None if before is None else before.name}
    for old in _folders(shelf)[:-keep]:
        if old.name not in kept:
            shutil.rmtree(old)


@contextmanager
def _locked(shelf: Path) -> Iterator[None]:
    """One change at a time, also between the daemon and a command."""
    descriptor = os.open(shelf, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
