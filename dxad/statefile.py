"""What must last, in a file: one JSON document behind a line that vouches for it.

    dxad-state 1 crc32=1f2e3d4c bytes=211
    {"model": …}

A file is there whole or not at all: it is written beside its place, synced, and renamed (`man 2 rename`,
`man 2 fsync`: the folder is synced too, else the rename may be lost). Blocking: call it off the event loop.
"""

import os
import re
import zlib
from pathlib import Path
from typing import Any, Final

import orjson

from dxad.types import Document

__all__ = ["StateError", "decode", "encode", "read", "set_aside", "write"]

_FORMAT: Final = 1
_HEAD: Final = re.compile(rb"dxad-state (\d{1,9}) crc32=([0-9a-f]{8}) bytes=(\d{1,9})\n")
_BYTES_MOST: Final = 16 * 2**20
"""A document that is larger is not ours."""


class StateError(ValueError):
    """A file is damaged, was written by something else, or would be too large; the text says how."""


def encode(document: Document) -> bytes:
    """A document as the bytes of its file; equal documents give equal bytes.

    Raises:
        TypeError: it holds something that JSON has no word for.
        StateError: it is too large.
    """
    body = orjson.dumps(document, option=orjson.OPT_SORT_KEYS)
    if len(body) > _BYTES_MOST:
        raise StateError(f"takes {len(body) / 2**20:.1f} MiB, more than {_BYTES_MOST >> 20} MiB")
    return b"dxad-state %d crc32=%08x bytes=%d\n" % (_FORMAT, zlib.crc32(body), len(body)) + body


def decode(raw: bytes) -> Document:
    """The document of a file.

    Raises:
        StateError: it is damaged, of a newer dxad, or something else altogether.
    """
    head = _HEAD.match(raw)
    if head is None:
        raise StateError("is no state of dxad")
    if int(head[1]) != _FORMAT:
        raise StateError(f"has format {int(head[1])}, this dxad knows format {_FORMAT}")
    body = raw[head.end() :]
    if len(body) != int(head[3]):
        raise StateError(f"has {len(body)} of {int(head[3])} bytes")
    if zlib.crc32(body) != int(head[2], 16):
        raise StateError("is damaged: its checksum is another one")
    try:
        document: Any = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise StateError(f"is no JSON: {error}") from error
    if not isinstance(document, dict):
        raise StateError("is no JSON object")
    return document


def read(path: Path) -> Document | None:
    """The document at `path`; None where there is no file.

    Raises:
        StateError: what is there is not one of ours, or cannot be read.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(_BYTES_MOST + 100)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StateError(f"cannot be read: {error.strerror}") from error
    return decode(raw)


def write(path: Path, raw: bytes) -> None:
    """Put `raw`, made by `encode`, at `path`: after a power cut there is the old file or the new one.

    Raises:
        OSError: the disk does not take it; the old file is still there.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.new")
    with fresh.open("wb") as file:
        file.write(raw)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def set_aside(path: Path) -> Path:
    """Move a file out of the way, over one that was moved before; returns where to.

    Raises:
        OSError: it cannot be moved.
    """
    aside = path.with_name(f"{path.name}.damaged")
    return path.replace(aside)
