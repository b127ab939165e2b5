"""The time of the tests: it stands still while the machine does.

A machine may stop for seconds, or give a process little of itself. Whoever waits in an event loop then sees
all its limits pass at once, though nobody was slow: those it waits for had no time either. So the event loops
of the tests, and the daemon's clock in them, count no more than some milliseconds between two looks at the
time, and they look often. Where everybody who takes part is in the test's own event loop (`one_loop`), time
goes on only when nobody has anything to do, and then to whatever is due next. Clocks that are stepped wait
for threads that were asked something.

Between processes nothing is gained by it: there a test waits for what is to come (`tests.patience`), or has
the machine watched.
"""

import asyncio
import os
import selectors
import threading
import time
import tty
import weakref
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any, Final, Self, TypeVar

from dxad.runtime.clock import SteppedClock, SystemClock
from dxad.runtime.worker import Worker

__all__ = [
    "REAL_TIME",
    "Loop",
    "PatientClock",
    "Selector",
    "Watch",
    "new_event_loop",
    "note_worker",
    "one_loop",
    "settle",
]

T = TypeVar("T")

_MOST_NS: Final = 2_000_000
"""What is counted at most between two looks, while somebody in an event loop has something to do."""
_IDLE_NS: Final = 6_000_000
"""The same while nobody has."""
_TURN_NS: Final = 10_000
"""The same where time only goes on when nobody has: so that whoever looks at it until it has come ends."""
_LOOK_S: Final = 0.004
"""How long a loop waits without a look."""


_workers: Final[weakref.WeakSet[Worker]] = weakref.WeakSet()
_REST_S: Final = 0.5
"""How long a step waits for a thread: one that hangs may be what is tested."""


class _Time:
    """Boot time, less what the machine stood still."""

    def __init__(self) -> None:
        self.loops = 0
        """How many event loops run."""
        self.most = _MOST_NS
        """What is counted at most between two looks, while one does."""
        self._lock = threading.Lock()
        self._stood_ns = 0
        self._looked = time.clock_gettime_ns(time.CLOCK_BOOTTIME)

    def look(self, most: int | None = None) -> int:
        """The time, in nanoseconds; it never goes back, nor on by more than `most`."""
        with self._lock:
            now = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
            if self.loops:
                self._stood_ns += max(0, now - self._looked - (self.most if most is None else most))
            self._looked = now
            return now - self._stood_ns

    def jump(self, ns: int) -> None:
        """Go on by so much at once."""
        with self._lock:
            self._stood_ns -= ns

    def begin(self) -> None:
        """A loop runs from now on."""
        self.look()
        self.loops += 1

    def end(self) -> None:
        """It has ended."""
        self.look()
        self.loops -= 1


_time: Final = _Time()


class Selector(selectors.DefaultSelector):
    """Looks at the time while it waits."""

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        end = None if timeout is None else _time.look() / 1e9 + timeout
        while True:
            left = _LOOK_S if end is None else min(_LOOK_S, max(0.0, end - _time.look() / 1e9))
            found = super().select(left)
            now = _time.look(_MOST_NS + int(left * 1e9) if found else _IDLE_NS)
            if found or (end is not None and now / 1e9 >= end):
                return found


class _OneLoopSelector(selectors.DefaultSelector):
    """Goes on to what is due next as soon as there is nothing to be read or written."""

    loop: "_OneLoop"

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        found = super().select(0)
        if found or (timeout is not None and timeout <= 0):
            return found
        end = time.monotonic() + _REST_S
        while self.loop.waits_for_threads and time.monotonic() < end:
            if found := super().select(_LOOK_S):
                return found
        _flush_terminals()
        if timeout is None or (found := super().select(0)):
            return found or super().select(None)
        _time.jump(int(timeout * 1e9) + 1000)
        return []


class Loop(asyncio.SelectorEventLoop):
    """Goes by that time, and knows what it has asked of threads."""

    def __init__(self, selector: selectors.BaseSelector) -> None:
        super().__init__(selector)
        self.in_threads: set[asyncio.Future[Any]] = set()

    def run_in_executor(
        self, executor: Executor | None, func: Callable[..., T], *args: Any
    ) -> asyncio.Future[T]:
        future = super().run_in_executor(executor, func, *args)
        self.in_threads.add(future)
        future.add_done_callback(self.in_threads.discard)
        return future

    def time(self) -> float:
        return _time.look() / 1e9

    @property
    def waits_for_threads(self) -> bool:
        """Whether a thread has been asked something that it has not answered."""
        return bool(self.in_threads) or any(each._waiting for each in _workers)

    def run_forever(self) -> None:
        _time.begin()
        try:
            super().run_forever()
        finally:
            _time.end()


class _OneLoop(Loop):
    """Its time stands still while anybody in it has something to do."""

    def __init__(self, selector: _OneLoopSelector) -> None:
        super().__init__(selector)
        selector.loop = self

    def run_forever(self) -> None:
        before, _time.most = _time.most, _TURN_NS
        try:
            super().run_forever()
        finally:
            _time.most = before


_near, _far = os.openpty()
tty.setraw(_far)


def _flush_terminals() -> None:
    """Wait until what was written to terminals can be read: the kernel takes it there later, and in turn."""
    for _ in range(2):
        os.write(_near, b".")
        os.read(_far, 1)


def one_loop() -> asyncio.AbstractEventLoop:
    """A loop for tests in which everybody is in that loop, and threads that answer at once."""
    return _OneLoop(_OneLoopSelector())


def new_event_loop() -> asyncio.AbstractEventLoop:
    """A loop whose time stands still while the machine does."""
    return Loop(Selector())


class PatientClock(SystemClock):
    """Shows the same time."""

    def now(self) -> int:
        return _time.look()

    def utc(self, at: int) -> int:
        """By the offset of the real clocks: what the machine stood still is missing in both."""
        return time.time_ns() - time.clock_gettime_ns(time.CLOCK_BOOTTIME) + at


_init: Final = Worker.__init__
REAL_TIME: Final = {"now": SystemClock.now, "utc": SystemClock.utc}
"""What the daemon's clock does elsewhere."""


def note_worker(self: Worker, name: str) -> None:
    """Stands in for the constructor of threads, so that `settle` knows them."""
    _init(self, name)
    _workers.add(self)


async def settle(_clock: SteppedClock, turns: int) -> None:
    """Stands in for what a stepped clock waits for: also for threads that have been asked something."""
    loop, quiet = asyncio.get_running_loop(), 0
    end = loop.time() + _REST_S
    while quiet < turns:
        if isinstance(loop, Loop) and loop.waits_for_threads and loop.time() < end:
            quiet = 0
            await asyncio.sleep(0.0005)
        else:
            quiet += 1
            await asyncio.sleep(0)


_LOOK_AWAKE_S: Final = 0.01


class Watch:
    """Sees, from a thread of its own, for how long the machine has stood still; a context manager."""

    def __init__(self) -> None:
        self.longest_s = 0.0
        """The longest time that it has taken nothing up."""
        self.stood_s = 0.0
        """All such times together."""
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, name="watch")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        looked = time.monotonic()
        while not self._over.wait(_LOOK_AWAKE_S):
            now = time.monotonic()
            late_s = now - looked - 2 * _LOOK_AWAKE_S
            if late_s > 0:
                self.longest_s = max(self.longest_s, late_s)
                self.stood_s += late_s
            looked = now
