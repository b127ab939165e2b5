"""Long work on the event loop, in turns with everybody else's."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import TypeVar

__all__ = ["in_turns"]

T = TypeVar("T")


async def in_turns(items: Iterable[T], *, every: int = 16) -> AsyncIterator[T]:
    """The items; after so many of them others have their turn."""
    for count, each in enumerate(items, 1):
        yield each
        if count % every == 0:
            await asyncio.sleep(0)
