"""Tasks that end together, and errors that do not get lost on the way."""

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any, Final

__all__ = ["background", "end", "race"]

_AGAIN_S: Final = 1.0

_log = logging.getLogger(__name__)


def background(job: Coroutine[Any, Any, None], *, name: str) -> asyncio.Task[None]:
    """Start a task whose failure is told when it happens, not when somebody waits for it."""
    task = asyncio.create_task(job, name=name)
    task.add_done_callback(_tell)
    return task


def _tell(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        _log.error("%s failed", task.get_name(), exc_info=error)


async def end(task: asyncio.Task[Any]) -> None:
    """Cancel a task and wait until it is done; raises what it had failed with."""
    while not task.done():
        task.cancel()  # again and again: wait_for of Python 3.11 may swallow one (cpython#86296)
        await asyncio.wait([task], timeout=_AGAIN_S)
    if not task.cancelled():
        task.result()


async def race(*jobs: Coroutine[Any, Any, object]) -> None:
    """Do all jobs until the first ends, then cancel the others; raises what it ended with."""
    tasks = [asyncio.create_task(job) for job in jobs]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    for task in done:
        task.result()
