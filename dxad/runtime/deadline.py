"""Waits that end, whatever it is that is waited for."""

import asyncio
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, Final, Self

__all__ = ["Patience", "within"]

_MERCY_S: Final = 1.0
"""So long may a coroutine take to end once it was cancelled."""

_abandoned: Final[set[asyncio.Task[Any]]] = set()
"""Those that did not: the event loop keeps weak references alone."""


class Patience:
    """Ends waits of one task that take too long, one after the other, as `asyncio.timeout` does.

        with patience.of(5.0):
            await …

    Of many short waits it costs next to nothing: its timer is not set anew for each.
    """

    def __init__(self) -> None:
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[Any] | None = None
        self._until: float | None = None
        """The loop's time at which the wait that is under way has taken too long."""
        self._cancelling = 0
        """How often the task had been asked to end before."""
        self._expired = False

    def of(self, seconds: float) -> Self:
        """For the wait that begins now."""
        loop = asyncio.get_running_loop()
        self._until = until = loop.time() + seconds
        if self._timer is None or self._timer.when() > until:
            self.close()
            self._timer = loop.call_at(until, self._look)
        return self

    def __enter__(self) -> None:
        self._task = task = asyncio.current_task()
        assert task is not None
        self._cancelling, self._expired = task.cancelling(), False

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._until = None
        if self._expired and self._task is not None:
            self._expired = False
            if self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
                raise TimeoutError from error
        self._task = None

    def _look(self) -> None:
        """Whether it has been too long; else look again when it will be."""
        self._timer = None
        if self._until is None or self._task is None:
            return
        loop = asyncio.get_running_loop()
        if loop.time() < self._until:
            self._timer = loop.call_at(self._until, self._look)
        else:
            self._expired = True
            self._task.cancel()

    def close(self) -> None:
        """Leave no timer behind."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


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
