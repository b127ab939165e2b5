"""A named thread that does one thing after the other.

What it has done is handed over by one wake-up of the event loop, to a plain function: a task and two futures
for each call, as `run_in_executor` makes them, would cost more than a fast disk takes for a sync.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from queue import Empty, SimpleQueue
from threading import Thread
from types import TracebackType
from typing import Any, Generic, TypeVar, cast

__all__ = ["Outcome", "Worker"]

T = TypeVar("T")


class Outcome(Generic[T]):
    """What became of a call: whatever it raises is for whoever asked, and the thread goes on."""

    __slots__ = ("_value", "error")

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error
        self._value: T | None = None

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        self.error = error
        return True

    def note(self, value: T) -> None:
        """It has returned this."""
        self._value = value

    def result(self) -> T:
        """What it returned; raises what it raised."""
        if self.error is not None:
            raise self.error
        return cast("T", self._value)


class Worker:
    """Runs functions on a thread of its own, in the order they were given; asked by one event loop."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._waiting: list[Callable[[Outcome[Any]], None]] = []
        """Who waits for the calls that are under way, in their order."""
        self._thread: Thread | None = None
        self._closed = False
        self._moved = 0.0
        """The loop's time when a function last ended, or came to an idle thread."""

    @property
    def busy_s(self) -> float:
        """For how long the function that runs now has been running: the watchdog looks at it."""
        return asyncio.get_running_loop().time() - self._moved if self._waiting else 0.0

    def start(self, call: Callable[[], T], then: Callable[[Outcome[T]], None]) -> None:
        """Have `call` run; `then` is told on the event loop what became of it.

        Raises:
            RuntimeError: the thread was closed.
        """
        if self._closed:
            raise RuntimeError(f"the thread {self._name} is closed")
        loop = asyncio.get_running_loop()
        if not self._waiting:
            self._moved = loop.time()
        self._waiting.append(then)
        if self._thread is None:
            self._thread = Thread(target=self._work, name=self._name, daemon=True)
            self._thread.start()
        self._calls.put(partial(self._run, loop, call))

    async def run(self, call: Callable[[], T]) -> T:
        """What `call` returns or raises; cancelling the wait does not stop the call."""
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self.start(call, partial(_resolve, future))
        return await future

    async def run_all(self, calls: Sequence[Callable[[], T]]) -> list[T | BaseException]:
        """What each call returns or raises, in order; the loop is woken once, when the last has ended."""
        if not calls:
            return []
        outcomes = await self.run(partial(self._each, asyncio.get_running_loop(), calls))
        return [each.result() if each.error is None else each.error for each in outcomes]

    def close(self) -> None:
        """Wait for what runs and let the thread go; what has not begun never will. Safe twice."""
        self._closed = True
        begun = len(self._waiting)
        with suppress(Empty):
            while True:
                self._calls.get_nowait()
                begun -= 1
        self._calls.put(None)
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        for then in self._waiting[begun:]:
            then(Outcome(asyncio.CancelledError()))
        del self._waiting[begun:]

    # -- on the thread ------------------------------------------------------------------------------------

    def _work(self) -> None:
        while (run := self._calls.get()) is not None:
            run()
            del run  # what it holds may go while nothing is to be done

    def _run(self, loop: asyncio.AbstractEventLoop, call: Callable[[], T]) -> None:
        outcome: Outcome[T] = Outcome()
        with outcome:
            outcome.note(call())
        with suppress(RuntimeError):  # the loop is closed: nobody waits
            loop.call_soon_threadsafe(self._ended, loop, outcome)

    def _each(self, loop: asyncio.AbstractEventLoop, calls: Sequence[Callable[[], T]]) -> list[Outcome[T]]:
        outcomes: list[Outcome[T]] = []
        for call in calls:
            outcome: Outcome[T] = Outcome()
            with outcome:
                outcome.note(call())
            outcomes.append(outcome)
            self._moved = loop.time()  # a sign of life between two calls
        return outcomes

    # -- on the event loop --------------------------------------------------------------------------------

    def _ended(self, loop: asyncio.AbstractEventLoop, outcome: Outcome[Any]) -> None:
        then = self._waiting.pop(0)
        self._moved = loop.time()
        then(outcome)


def _resolve(future: asyncio.Future[T], outcome: Outcome[T]) -> None:
    """Give it to whoever waits, if somebody still does."""
    if future.done():
        return
    if isinstance(outcome.error, asyncio.CancelledError):
        future.cancel()
    elif outcome.error is not None:
        future.set_exception(outcome.error)
    else:
        future.set_result(outcome.result())
