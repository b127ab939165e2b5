"""A beat that does not drift."""

from collections.abc import Callable, Sequence

from dxad.runtime.clock import Clock

__all__ = ["Ticker"]


class Ticker:
    """Calls functions in order at every multiple of `period` on the stream clock."""

    def __init__(self, clock: Clock, *, period: int, calls: Sequence[Callable[[int], None]]) -> None:
        """Call each of `calls` with the time of the beat, in nanoseconds."""
        self.last = clock.now()
        """When it last beat; the watchdog looks at it."""
        self._clock = clock
        self._period = period
        self._calls = tuple(calls)

    def adjust(self, *, period: int, calls: Sequence[Callable[[int], None]]) -> None:
        """From the next beat on, call these; and beat at another pace from the one after it."""
        self._period = period
        self._calls = tuple(calls)

    async def run(self) -> None:
        """Beat until cancelled; beats that were slept through are not made up for."""
        while True:
            now = self._clock.now()
            await self._clock.sleep_until((now // self._period + 1) * self._period)
            self.last = self._clock.now()
            for call in self._calls:
                call(self.last)
