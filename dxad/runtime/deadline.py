"""Waits that end, whatever it is that is waited for."""

import asyncio
from collections.abc import Coroutine
from typing import Any, Final

__all__ = ["within"]

_MERCY_S: Final = 1.0
"""So long may a coroutine take to end once it was cancelled."""

_abandoned: Final[set[asyncio.Task[Any]]] = set()
"""Those that did not: the event loop keeps weak references alone."""


async def within(seconds: float, work: Coroutine[Any, Any, None], *, name: str) -> None:
    """Run `work` to its end, in a task called `name`; after so long it is cancelled, and left to itself.

    Unlike `asyncio.timeout`, this ends even if `work` swallows its cancellation.

    Raises:
        TimeoutError: it did not end in time.
    """
    task = asyncio.create_task(work, name=name)
    try:
        done, _ = await asyncio.wait({task}, timeout=seconds)
        if done:
            task.result()
            return
    finally:
        if not task.done():
            task.cancel()
            _abandoned.add(task)
            task.add_done_callback(_let_go)
            await asyncio.wait({task}, timeout=_MERCY_S)
    raise TimeoutError


def _let_go(task: asyncio.Task[Any]) -> None:
    _abandoned.discard(task)
    if not task.cancelled():
        task.exception()  # nobody will ask for it any more
