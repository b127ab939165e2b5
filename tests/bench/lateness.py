"""How late an event loop is, and how much of that is its own process's doing.

A machine that others use too lets a thread wait for a processor; no program can help that. The kernel counts
it for each thread, and it is deducted, of all threads of the process: one that holds the interpreter's lock
while it waits for a processor holds the loop up as well.

Source: Documentation/scheduler/sched-stats.rst, /proc/<pid>/schedstat: the second number is the time spent
waiting on a runqueue, in nanoseconds.
"""

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

__all__ = ["Lateness", "watched"]

_EVERY_S: Final = 0.001


@dataclass(slots=True)
class Lateness:
    """Of a task that wakes each millisecond."""

    late_s: list[float] = field(default_factory=lambda: [0.0])
    """Each time, with what it waited for a processor."""
    own_s: list[float] = field(default_factory=lambda: [0.0])
    """Without that."""
    _waited_ns: dict[str, int] = field(default_factory=dict)

    async def run(self) -> None:
        """Look, until cancelled."""
        self._wait_s()
        while True:
            due = time.perf_counter() + _EVERY_S
            await asyncio.sleep(_EVERY_S)
            late_s = time.perf_counter() - due
            self.late_s.append(late_s)
            self.own_s.append(late_s - self._wait_s())

    def _wait_s(self) -> float:
        """How long the threads have waited for a processor since this was asked before."""
        found: dict[str, int] = {}
        for thread in os.listdir("/proc/self/task"):  # noqa: PTH208 - a thousand times a second
            try:
                found[thread] = int(Path(f"/proc/self/task/{thread}/schedstat").read_bytes().split()[1])
            except OSError:  # it has just ended, or this kernel does not count
                continue
        waited_ns = sum(ns - self._waited_ns.get(thread, ns) for thread, ns in found.items())
        self._waited_ns = found
        return waited_ns / 1e9


@asynccontextmanager
async def watched() -> AsyncIterator[Lateness]:
    """How late the running loop is meanwhile."""
    lateness = Lateness()
    task = asyncio.create_task(lateness.run())
    try:
        yield lateness
    finally:
        task.cancel()
        await asyncio.wait([task])
