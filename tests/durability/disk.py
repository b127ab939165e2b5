"""A disk that loses power: what of a file is certain, and what may or may not have arrived.

    write ──▶ live (what the process reads) ──▶ versions of each sector since the last sync ──▶ certain

Each sector (or page) of a file that was written since its last sync is on disk as it was at some moment since
then, each at its own: so writes are lost, reordered and torn. Likewise a file's size. Names made, moved and
removed since the folder's last sync arrive in order, up to some moment: journalling file systems promise that
much. A file's own sync does not make its name certain, though on many file systems it does.
"""

import random
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.durability.strace import Call

__all__ = ["Disk"]

SECTOR: Final = 512
_PAGE: Final = 8  # sectors


@dataclass
class _File:
    live: bytearray = field(default_factory=bytearray)
    certain: bytearray = field(default_factory=bytearray)
    versions: dict[int, list[tuple[int, bytes]]] = field(default_factory=dict)
    """By sector: when it was written since the last sync, and what it held then."""
    sizes: list[tuple[int, int]] = field(default_factory=list)
    """When the file had which size since then."""
    cuts: list[tuple[int, int]] = field(default_factory=list)
    """When it was cut to which size since then: on disk it was, or was not, as a whole."""
    since: int = 0

    def write(self, now: int, offset: int, data: bytes) -> None:
        if offset + len(data) > len(self.live):
            self.resize(now, offset + len(data))
        self.live[offset : offset + len(data)] = data
        for sector in range(offset // SECTOR, (offset + len(data) - 1) // SECTOR + 1):
            self.versions.setdefault(sector, []).append((now, self._sector(self.live, sector)))

    def resize(self, now: int, size: int) -> None:
        if size < len(self.live):
            self.cuts.append((now, size))
            last = (len(self.live) - 1) // SECTOR
            del self.live[size:]
            for sector in range(size // SECTOR, last + 1):
                self.versions.setdefault(sector, []).append((now, self._sector(self.live, sector)))
        self.live += bytes(size - len(self.live))
        self.sizes.append((now, size))

    def sync(self, now: int) -> None:
        for sector, versions in self.versions.items():
            self._put(self.certain, sector, versions[-1][1])
        del self.certain[len(self.live) :]
        self.certain += bytes(len(self.live) - len(self.certain))
        self._forget(now)

    def fail_sync(self, now: int, rng: random.Random) -> None:
        """The kernel tells once, and holds what it could not write for written: no later sync tries again."""
        self.certain = self.after(now, rng, rng.random())
        self._forget(now)

    def _forget(self, now: int) -> None:
        self.versions.clear()
        self.sizes.clear()
        self.cuts.clear()
        self.since = now

    def after(self, now: int, rng: random.Random, arrived: float) -> bytearray:
        """What is found after the power went: `arrived` is about the share of what was written last."""
        found = bytearray(self.certain)
        unit = rng.choice((1, _PAGE))
        sized = self._moment(now, rng, arrived)
        moments: dict[int, float] = {}
        for sector, versions in self.versions.items():
            if sector // unit not in moments:
                moments[sector // unit] = self._moment(now, rng, arrived)
            moment = self._as_cut(sector, moments[sector // unit], sized)
            known = [data for at, data in versions if at <= moment]
            if not known:
                continue
            data = known[-1]
            if rng.random() < 0.02:  # torn within the sector
                cut = rng.randrange(SECTOR)
                data = data[:cut] + self._sector(found, sector)[cut:]
            self._put(found, sector, data)
        sizes = [len(self.certain)] + [size for at, size in self.sizes if at <= sized]
        del found[sizes[-1] :]
        return found + bytes(sizes[-1] - len(found))

    def _as_cut(self, sector: int, moment: float, sized: float) -> float:
        """A sector that was cut off is as it was before if the cut is not on disk, and since, if it is."""
        for at, size in self.cuts:
            if sector >= size // SECTOR:
                moment = max(moment, at) if at <= sized else min(moment, at - 1)
        return moment

    def _moment(self, now: int, rng: random.Random, arrived: float) -> float:
        if rng.random() < arrived:
            return now
        return rng.choice((self.since - 1, rng.uniform(self.since, now)))

    @staticmethod
    def _sector(content: bytearray, sector: int) -> bytes:
        return bytes(content[sector * SECTOR : (sector + 1) * SECTOR]).ljust(SECTOR, b"\0")

    @staticmethod
    def _put(content: bytearray, sector: int, data: bytes) -> None:
        if len(content) < sector * SECTOR:
            content += bytes(sector * SECTOR - len(content))
        content[sector * SECTOR : (sector + 1) * SECTOR] = data


class Disk:
    """One folder on it."""

    def __init__(
        self,
        folder: str,
        *,
        ignore_sync: Callable[[str], bool] = lambda _: False,
        before: Mapping[str, bytes] | None = None,
        seed: int = 0,
    ):
        """A folder that holds what was there `before`, by name.

        `ignore_sync` says of which files syncs do nothing: a disk that lies, or a program that forgets.
        """
        self._folder = folder
        self._ignore_sync = ignore_sync
        self._rng = random.Random(seed)
        self._now = 0
        self._live: dict[str, _File] = {}
        for name, content in (before or {}).items():
            self._live[f"{folder}/{name}"] = _File(bytearray(content), bytearray(content))
        self._certain: dict[str, _File] = dict(self._live)
        self._renamed: list[dict[str, _File]] = []
        """All names after each change since the folder's last sync."""
        self.counts: Counter[str] = Counter()

    @property
    def open_names(self) -> int:
        """How many changes of names may be lost."""
        return len(self._renamed)

    def unsynced(self, name: str) -> int:
        """How many sectors of a file may be lost."""
        file = self._live.get(f"{self._folder}/{name}")
        return 0 if file is None else len(file.versions)

    def do(self, call: Call) -> None:
        """Take a call into account."""
        self._now += 1
        self.counts[call.what] += 1
        file = self._live.get(call.path)
        match call.what:
            case "create":
                if file is None:
                    self._live[call.path] = _File(since=self._now)
                    self._note_names()
            case "unlink":
                self._live.pop(call.path, None)
                self._note_names()
            case "rename":
                self._live[call.data.decode()] = self._live.pop(call.path)
                self._note_names()
            case "sync":
                self._sync(call.path, file)
            case "write" | "resize" | "grow" | "failed sync":
                self._change(call, file)

    def _change(self, call: Call, file: _File | None) -> None:
        if call.what == "failed sync" and file is None:
            return  # the folder's
        assert file is not None, call.path
        match call.what:
            case "write":
                file.write(self._now, call.offset, call.data)
            case "resize":
                file.resize(self._now, call.offset)
            case "grow":
                file.resize(self._now, max(len(file.live), call.offset))
            case _:
                file.fail_sync(self._now, self._rng)

    def cut(self, rng: random.Random, folder: Path) -> None:
        """Write into a folder what could be found in this one, had the power gone now."""
        arrived = rng.choice((0.0, 0.1, 0.5, 0.9, 1.0))
        names = rng.choice([self._certain, *self._renamed, self._live])
        for path, file in names.items():
            name = Path(path).name
            if name.endswith("-shm"):
                continue  # shared memory that is never synced: whatever is found, SQLite makes it anew
            (folder / name).write_bytes(file.after(self._now, rng, arrived))
            if name.endswith("-wal") and rng.random() < 0.3:
                (folder / (name.removesuffix("wal") + "shm")).write_bytes(rng.randbytes(32768))

    def _sync(self, path: str, file: _File | None) -> None:
        if self._ignore_sync(path):
            return
        if path == self._folder:
            self._certain = dict(self._live)
            self._renamed.clear()
        elif file is not None:
            file.sync(self._now)

    def _note_names(self) -> None:
        self._renamed.append(dict(self._live))
