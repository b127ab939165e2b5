"""How long a test waits for what has to come: so long that only what never comes makes it fail.

A machine may stand still for seconds at any moment. So a test waits for a state, never for a time; and where
something must not come, what would have to come after it is waited for.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Final

__all__ = ["PATIENCE_S", "until", "wait"]

PATIENCE_S: Final = 60.0


async def until(true: Callable[[], object], what: str = "so") -> None:
    """Let the event loop run until it is so."""
    try:
        async with asyncio.timeout(PATIENCE_S):
            while not true():  # noqa: ASYNC110 - whatever is waited for, in any thread or process
                await asyncio.sleep(0.002)
    except TimeoutError:
        raise AssertionError(f"not {what} after {PATIENCE_S:.0f} s") from None


def wait(true: Callable[[], object], what: str = "so") -> None:
    """Wait, where no event loop runs, until it is so."""
    end = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < end, f"not {what} after {PATIENCE_S:.0f} s"
        time.sleep(0.01)
