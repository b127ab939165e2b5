"""A beat that does not drift, however long the work between two beats takes."""

import asyncio

__all__ = ["Pace"]


class Pace:
    """Beats at every multiple of a period from its making; those that were missed are not made up for."""

    def __init__(self, period_s: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._begin = self._loop.time()
        self._period_s = period_s
        self._beat = 0

    async def beat(self) -> None:
        """Wait for the next beat."""
        self._beat = max(self._beat + 1, int((self._loop.time() - self._begin) / self._period_s))
        await asyncio.sleep(self._begin + self._beat * self._period_s - self._loop.time())
