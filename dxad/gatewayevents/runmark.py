"""A mark in the state directory that this run is alive, by which the next one knows how it ended.

One block of 512 bytes, written in place and synced: whole after a power cut, and 4 kB of flash a minute. It
stands beside the outbox, not in it: the outbox may be what is broken.
"""

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal

import orjson

from dxad.types import NS_PER_S, Document

__all__ = ["Mark", "Previous", "RunMark"]

_BLOCK: Final = 512

Ending = Literal["none", "clean", "killed", "power_cut", "unknown"]


@dataclass(frozen=True, slots=True)
class Mark:
    """The last sign of life of a run."""

    boot: str
    at_ns: int
    """Stream time."""
    utc_ns: int
    clock_ok: bool
    version: str
    stopped: str = ""
    """Why it was stopped; empty while it runs."""


@dataclass(frozen=True, slots=True)
class Previous:
    """How the run before this one ended."""

    ended: Ending
    reason: str = ""
    """Of a clean stop."""
    version: str = ""
    off_s: float | None = None
    """Seconds from its last sign of life to the start of this one; None if nobody knows."""
    off_certain: bool = False
    """Whether no wall clock that may be wrong has a part in `off_s`."""

    def document(self) -> Document:
        """As JSON."""
        return asdict(self)


class RunMark:
    """The file; blocking, from any one thread at a time."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self, now: Mark) -> Previous:
        """How the run before ended, as seen from the start of the one that is `now`."""
        try:
            with self._path.open("rb") as file:
                last = _decoded(file.read(_BLOCK + 1))
        except FileNotFoundError:
            return Previous("none")
        except (OSError, ValueError):
            return Previous("unknown")
        return _judged(last, now)

    def write(self, mark: Mark) -> None:
        """Put down a sign of life, or that it ends.

        Raises:
            OSError: the disk does not take it.
        """
        block = orjson.dumps(asdict(mark)).ljust(_BLOCK - 1) + b"\n"
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT, 0o640)
        try:
            os.pwrite(descriptor, block, 0)
            os.fdatasync(descriptor)
        finally:
            os.close(descriptor)


def _judged(last: Mark, now: Mark) -> Previous:
    same = last.boot == now.boot
    ended: Ending = "clean" if last.stopped else "killed" if same else "power_cut"
    off_ns = now.at_ns - last.at_ns if same else now.utc_ns - last.utc_ns
    return Previous(
        ended,
        last.stopped,
        last.version,
        None if off_ns < 0 else round(off_ns / NS_PER_S, 3),
        same or (last.clock_ok and now.clock_ok),
    )


def _decoded(block: bytes) -> Mark:
    """Raises ValueError: it is no mark."""
    if len(block) != _BLOCK:
        raise ValueError(f"has {len(block)} bytes")
    found: Any = orjson.loads(block)
    if not isinstance(found, dict) or set(found) != set(Mark.__slots__):
        raise ValueError("is no mark")
    mark = Mark(**found)
    for name, value in found.items():
        if type(value) is not Mark.__annotations__[name]:
            raise ValueError(f"{name} is {value!r}")
    return mark
