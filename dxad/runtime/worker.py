"""A named thread that does one thing after the other."""

import asyncio
from collections.abc import Callable, Sequence
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

    async def run_all(self, calls: Sequence[Callable[[], T]]) -> list[T | BaseException]:
        """What each call returns or raises, in order; the loop is woken once, when the last has ended."""
        if not calls:
            return []
        loop = asyncio.get_running_loop()
        if not self._under_way:
            self._moved = loop.time()
        ended = [self._executor.submit(call) for call in calls]
        for each in ended[:-1]:
            each.add_done_callback(lambda _: self._move(loop))
        last = asyncio.wrap_future(ended[-1])
        self._under_way.add(last)
        last.add_done_callback(self._ended)
        await asyncio.wait([last])
        last.exception()  # it is among those returned
        return [each.exception() or each.result() for each in ended]

    def _move(self, loop: asyncio.AbstractEventLoop) -> None:
        """On the thread itself: a sign of life between two calls."""
        self._moved = loop.time()

    def _ended(self, future: asyncio.Future[Any]) -> None:
        self._under_way.discard(future)
        self._moved = asyncio.get_running_loop().time()

    def close(self) -> None:
        """Wait for what runs and let the thread go; safe twice."""
        self._executor.shutdown(cancel_futures=True)
