"""An event loop whose time goes on by itself when nobody has anything to do: hours in a moment."""

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

from dxad.types import NS_PER_S

__all__ = ["VirtualClock", "in_virtual_time"]

T = TypeVar("T")


class _Selector(selectors.DefaultSelector):
    """Waits by setting the clock on."""

    passed_s = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0 if timeout is not None else None)
        if not ready and timeout is not None:
            self.passed_s += max(0.0, timeout)
        return ready


class _Loop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._waiting = _Selector()
        super().__init__(self._waiting)

    def time(self) -> float:
        return self._waiting.passed_s


class VirtualClock:
    """The stream clock of such a loop."""

    synchronised = True

    def now(self) -> int:
        return round(asyncio.get_running_loop().time() * NS_PER_S)

    def utc(self, at: int) -> int:
        return at

    async def sleep_until(self, at: int) -> None:
        await asyncio.sleep(max(0, at - self.now()) / NS_PER_S)


def in_virtual_time(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run it to its end."""
    with asyncio.Runner(loop_factory=_Loop) as runner:
        return runner.run(coroutine)
