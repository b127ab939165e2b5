"""What a server takes at once is limited: many things are asked for in pieces."""

from collections.abc import Iterator, Sequence
from typing import TypeVar

__all__ = ["pieces"]

T = TypeVar("T")


def pieces(things: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """Consecutive parts of at most `size`."""
    return (things[at : at + size] for at in range(0, len(things), size))
