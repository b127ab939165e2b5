"""A named thread that does one thing after the other."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

__all__ = ["Worker"]

T = TypeVar("T")


class Worker:
    """Runs functions on a thread of its own, in the order they were given; asked by one event loop."""

    def __init__(self, name: str) -> None:
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)
        self._under_way: set[asyncio.Future[Any]] = set()
        self._moved = 0.0
        """The loop's time when a function last ended, or came to an idle thread."""

    @property
    def busy_s(self) -> float:
        """For how long the function that runs now has been running: the watchdog looks at it."""
        return asyncio.get_running_loop().time() - self._moved if self._under_way else 0.0

    async def run(self, call: Callable[[], T]) -> T:
        """What `call` returns or raises; cancelling the wait does not stop the call."""
        loop = asyncio.get_running_loop()
        if not self._under_way:
            self._moved = loop.time()
        future = loop.run_in_executor(self._executor, call)
        self._under_way.add(future)
        future.add_done_callback(self._ended)
        return await asyncio.shield(future)

    def _ended(self, future: asyncio.Future[Any]) -> None:
        self._under_way.discard(future)
        self._moved = asyncio.get_running_loop().time()

    def close(self) -> None:
        """Wait for what runs and let the thread go; safe twice."""
        self._executor.shutdown(cancel_futures=True)
