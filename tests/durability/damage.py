"""Ways in which a file is damaged: cells that forget, sectors that are gone, writes that went astray."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Final

__all__ = ["damage"]

_PAGE: Final = 4096
_SECTOR: Final = 512


def damage(file: Path, rng: random.Random) -> str:
    """Damage a file in some way; returns how, in words."""
    content = bytearray(file.read_bytes())
    way = rng.choice(_WAYS)
    way(content, rng)
    file.write_bytes(content)
    return f"{file.name}: {way.__name__.strip('_').replace('_', ' ')}"


def _flipped(content: bytearray, rng: random.Random) -> None:
    for _ in range(rng.choice((1, 1, 3, 30))):
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)


def _flipped_head(content: bytearray, rng: random.Random) -> None:
    content[rng.randrange(min(100, len(content)))] ^= 1 << rng.randrange(8)


def _truncated(content: bytearray, rng: random.Random) -> None:
    del content[rng.randrange(len(content)) :]


def _zeroed_pages(content: bytearray, rng: random.Random) -> None:
    for _ in range(rng.choice((1, 1, 4))):
        _put(content, rng, bytes(_PAGE))


def _garbage_sector(content: bytearray, rng: random.Random) -> None:
    _put(content, rng, rng.randbytes(_SECTOR))


def _stray_page(content: bytearray, rng: random.Random) -> None:
    start = rng.randrange(len(content)) // _PAGE * _PAGE
    _put(content, rng, bytes(content[start : start + _PAGE]))


def _longer(content: bytearray, rng: random.Random) -> None:
    content += rng.randbytes(rng.randrange(1, 3 * _PAGE))


def _put(content: bytearray, rng: random.Random, data: bytes) -> None:
    start = rng.randrange(len(content)) // len(data) * len(data)
    length = len(content)
    content[start : start + len(data)] = data
    del content[length:]


_WAYS: Final[tuple[Callable[[bytearray, random.Random], None], ...]] = (
    _flipped, _flipped_head, _truncated, _zeroed_pages, _garbage_sector, _stray_page, _longer,
)  # fmt: skip
