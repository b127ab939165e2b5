"""CloudEvents as JSON lines in a file that rotates by size: `events.jsonl`, `events.jsonl.1` and so on.

With `compress`, those that were rotated are `events.jsonl.1.gz`; what was cut short stays as it was.
"""

import gzip
import os
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Final, Literal

import orjson
from pydantic import Field

from dxad import event
from dxad.errors import NotConnected, Rejected
from dxad.fields import Size
from dxad.plugin import Plugin
from dxad.runtime.worker import Worker
from dxad.sinksection import SinkSection
from dxad.types import Record

__all__ = ["PLUGIN", "Config", "File"]

_ZIPPED: Final = ".gz"
_CHUNK: Final = 2**18


class Config(SinkSection):
    """`{ type = "file", path = "events.jsonl", max_size = "16MiB", keep = 5 }`."""

    type: Literal["file"]
    path: Path = Field(strict=False, description="the file; relative to the state directory")
    max_size: Size = Field(16 * 2**20, gt=0, description="a file that would grow beyond it is rotated first")
    keep: int = Field(5, ge=0, le=999, description="how many rotated files are kept")
    compress: Literal["none", "gzip"] = Field("none", description="of rotated files")


class File:
    """Appends records to a file; each write opens it anew, so that others may move it away."""

    def __init__(self, name: str, config: Config, *, state_dir: Path) -> None:
        self._name = name
        self._path = state_dir / config.path
        self._max_bytes = config.max_size
        self._keep = config.keep
        self._compress = config.compress == "gzip"
        self._thread: Worker | None = None

    async def connect(self) -> None:
        """See that the file can be written; a line that a crash tore is ended.

        Raises:
            NotConnected: it cannot.
        """
        if self._thread is None:
            self._thread = Worker(f"sink {self._name}")
        await self._in_thread(partial(_end_torn_line, self._path))

    async def write(self, records: Sequence[Record]) -> None:
        """Append the records; returns when they are on the disk.

        Raises:
            NotConnected: the file system does not take them.
            Rejected: these cannot be written as JSON.
        """
        refused: dict[int, str] = {}
        await self._in_thread(partial(self._write, records, refused))
        if refused:
            raise Rejected(tuple(refused), next(iter(refused.values())))

    async def close(self) -> None:
        """Let go of the thread, when it has ended what it does."""
        thread, self._thread = self._thread, None
        if thread is not None:
            await thread.run(lambda: None)
            thread.close()

    async def _in_thread(self, do: Callable[[], None]) -> None:
        if self._thread is None:
            raise NotConnected("not connected")
        try:
            await self._thread.run(do)
        except OSError as error:
            raise NotConnected(f"{self._path}: {error.strerror}") from error

    def _write(self, records: Sequence[Record], refused: dict[int, str]) -> None:
        lines: list[bytes] = []
        for index, record in enumerate(records):
            try:
                lines.append(orjson.dumps(event.decode(record), option=orjson.OPT_APPEND_NEWLINE))
            except (TypeError, ValueError) as error:
                refused[index] = f"cannot be written as JSON: {error}"
        self._append(b"".join(lines))

    def _append(self, data: bytes) -> None:
        with suppress(FileNotFoundError):
            size = self._path.stat().st_size
            if size and size + len(data) > self._max_bytes:
                self._rotate()
        _append_durably(self._path, data)

    def _rotate(self) -> None:
        """Move each file one on; the oldest goes."""
        for n in range(self._keep, 0, -1):
            for ending in ("", _ZIPPED):
                newer = self._rotated(n - 1, ending)
                if newer.exists():
                    self._forget(n)
                    newer.replace(self._rotated(n, ending))
        if not self._keep:
            self._path.unlink()
        _sync_directory(self._path.parent)
        if self._compress and self._keep:
            _zip(self._rotated(1), self._rotated(1, _ZIPPED))

    def _rotated(self, n: int, ending: str = "") -> Path:
        number = f".{n}" if n else ""
        return self._path.with_name(f"{self._path.name}{number}{ending}")

    def _forget(self, n: int) -> None:
        for ending in ("", _ZIPPED):
            self._rotated(n, ending).unlink(missing_ok=True)


def _zip(plain: Path, zipped: Path) -> None:
    """Compress a file, which stays where the disk does not take that."""
    part = zipped.with_name(f"{zipped.name}.part")
    try:
        with plain.open("rb") as source, part.open("wb") as file:
            with gzip.GzipFile(plain.name, "wb", fileobj=file, mtime=0) as target:
                shutil.copyfileobj(source, target, _CHUNK)
            file.flush()
            os.fsync(file.fileno())
        shutil.copymode(plain, part)
        part.replace(zipped)
        plain.unlink()
        _sync_directory(plain.parent)
    except OSError:
        with suppress(OSError):
            part.unlink()


def _append_durably(path: Path, data: bytes) -> None:
    new = not path.exists()
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
    try:
        size = os.fstat(file).st_size
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(file, rest) :]
            os.fdatasync(file)
        except OSError:
            with suppress(OSError):
                os.ftruncate(file, size)  # all of it will be written again
            raise
    finally:
        os.close(file)
    if new:
        _sync_directory(path.parent)


def _end_torn_line(path: Path) -> None:
    if path.exists() and path.stat().st_size:
        with path.open("rb") as file:
            file.seek(-1, os.SEEK_END)
            whole = file.read() == b"\n"
    else:
        whole = True
    _append_durably(path, b"" if whole else b"\n")


def _sync_directory(path: Path) -> None:
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


PLUGIN = Plugin(Config, File)
