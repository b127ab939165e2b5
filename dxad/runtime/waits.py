"""Waits for something, or until the stream time says that it was long enough."""

import asyncio
from collections.abc import Coroutine
from typing import Any

from dxad.runtime.clock import Clock

__all__ = ["comes_within"]


async def comes_within(coming: Coroutine[Any, Any, object], ns: int, clock: Clock, name: str) -> bool:
    """Whether what is waited for comes within so many nanoseconds; either way nothing is waited for then."""
    comes = asyncio.create_task(coming, name=f"{name} waits")
    ends = asyncio.create_task(clock.sleep_until(clock.now() + ns), name=f"{name} waits no longer")
    try:
        await asyncio.wait([comes, ends], return_when=asyncio.FIRST_COMPLETED)
        return comes.done()
    finally:
        for each in (comes, ends):
            each.cancel()
        await asyncio.wait([comes, ends])
