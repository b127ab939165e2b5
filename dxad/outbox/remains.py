"""Damaged files that were set aside: named by the UTC they were found at, kept for a while, then deleted.

Each has a marker beside it once what reads of it is taken over: before that, it is never deleted.
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Final

__all__ = ["clear", "left", "mark", "set_aside"]

_MARK: Final = ".taken-over"
_BELONGS: Final = ("", "-wal", "-shm", _MARK)
_STAMP: Final = "%Y%m%dT%H%M%S"
_MOST: Final = 8
_LEAST_YEAR: Final = 2020
"""A date before it says of a clock that it was not set."""


def set_aside(path: Path, utc_ns: int) -> Path:
    """Rename a damaged file and what belongs to it, so that a fresh one can take its place."""
    stamp = datetime.fromtimestamp(utc_ns / 1e9, UTC).strftime(_STAMP)
    names = (f"{path.name}.damaged-{stamp}{f'.{n}' if n else ''}Z" for n in count())
    target = next(each for name in names if not (each := path.with_name(name)).exists())
    for suffix in ("", "-wal", "-shm"):
        source = path.with_name(path.name + suffix)
        if source.exists():
            source.rename(target.with_name(target.name + suffix))
    return target


def left(path: Path) -> list[Path]:
    """Those of the file at `path` that nobody has taken over yet, the oldest first."""
    return [each for each in _all(path) if not _beside(each, _MARK).exists()]


def mark(aside: Path) -> None:
    """What reads of it is taken over."""
    _beside(aside, _MARK).touch()


def clear(path: Path, *, keep_ns: int, most_bytes: int, now_utc: int) -> list[tuple[Path, str]]:
    """Delete those that were taken over long enough ago, or that are too many.

    Args:
        path: whose they are.
        keep_ns: how long each is kept.
        most_bytes: what they may take together; the newest may take more, but goes with its age.
        now_utc: the wall time.

    Returns:
        What is deleted, and why.
    """
    gone: list[tuple[Path, str]] = []
    size = 0
    for number, each in enumerate(reversed(_all(path))):
        own = sum(_beside(each, suffix).stat().st_blocks * 512 for suffix in _belonging(each))
        size += own
        age_ns = _age_ns(each, now_utc)
        why = ""
        if age_ns is not None and age_ns >= keep_ns:
            why = f"it was set aside {age_ns / 86_400e9:.0f} days ago"
        elif number and (number >= _MOST or size > most_bytes):
            why = "newer ones take the room there is for such files"
        if why and _beside(each, _MARK).exists():
            size -= own
            for suffix in _belonging(each):  # the marker last: what was begun is gone on with
                _beside(each, suffix).unlink()
            gone.append((each, why))
    return gone


def _all(path: Path) -> list[Path]:
    """The oldest first, by their names."""
    return sorted(path.parent.glob(f"{path.name}.damaged-*Z"), key=lambda each: each.name.removesuffix("Z"))


def _belonging(aside: Path) -> Iterator[str]:
    return (each for each in _BELONGS if _beside(aside, each).exists())


def _beside(aside: Path, suffix: str) -> Path:
    return aside.with_name(aside.name + suffix)


def _age_ns(aside: Path, now_utc: int) -> int | None:
    """Since when it is there, by its name; None if that cannot be."""
    stamp = aside.name.rpartition("-")[2].removesuffix("Z").partition(".")[0]
    try:
        since = datetime.strptime(stamp, _STAMP).replace(tzinfo=UTC)
    except ValueError:
        return None
    return now_utc - int(since.timestamp()) * 10**9 if since.year >= _LEAST_YEAR else None
