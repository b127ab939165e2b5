"""The service that watches the wall clock: what it says of this boot's stream times dates every event.

A wall clock moves against boot time only if somebody sets it: NTP slews both alike (clock_gettime(2)). So an
offset that differs is a step, and the boot's events are dated by the new one when they are read next:

    was / is            synchronised                        not synchronised
    synchronised        the new offset, from now on         the old one stays: better than a guess
    not synchronised    the new offset, for all before too  the new guess, likewise

Receivers that have had events with a wrong time hear of it in one `dxad.clock.corrected`: the right one is
their `boottime` and the offset that it tells.
"""

import logging
from collections.abc import Callable
from typing import Final, Literal

from dxad.event import STEP_NS, Event, identity
from dxad.outbox import Outbox
from dxad.runtime.clock import Clock
from dxad.types import NS_PER_S, Document, Lane

__all__ = ["Timekeeping"]

log = logging.getLogger(__name__)

_LOOK_NS: Final = NS_PER_S
_READINGS: Final = 5
"""Of two clocks, one after the other: if something comes between, the offset seems smaller than it is."""
_SAME_NS: Final = 10_000_000
"""A difference that is not worth a write."""


class Timekeeping:
    """Tells the outbox how this boot's events are dated, and receivers when they were dated wrongly."""

    def __init__(self, outbox: Outbox, *, gateway: str, clock: Clock, tell: Callable[[Event], None]) -> None:
        self._outbox = outbox
        self._gateway = gateway
        self._clock = clock
        self._tell = tell
        self._announced: int | None = None
        """The offset that receivers know of."""
        self._since = 0
        """The stream time from which on it was in force."""

    async def run(self) -> None:
        """Look once a second, until cancelled."""
        while True:
            await self.look()
            await self._clock.sleep_until(self._clock.now() + _LOOK_NS)

    async def look(self) -> None:
        """Compare the clocks, and act if somebody has set the wall clock or if it is right at last."""
        known, offset, right = self._outbox.boot, self._offset(), self._clock.synchronised
        if self._announced is None:
            before = self._outbox.known_before
            self._announced = known.offset_ns if before is None else before.offset_ns
        if known.clock_ok and not right:
            return
        came = right and not known.clock_ok
        if came or abs(offset - known.offset_ns) > _SAME_NS:
            await self._outbox.note_clock(offset_ns=offset, clock_ok=right)
        step = offset - self._announced
        guessed = came and self._outbox.guesses_taken and abs(step) > _SAME_NS
        if abs(step) > STEP_NS or guessed:
            self._correct(offset, right=right, cause="synchronised" if came else "stepped")

    def _offset(self) -> int:
        return max(self._clock.utc(0) for _ in range(_READINGS))

    def _correct(self, offset: int, *, right: bool, cause: Literal["synchronised", "stepped"]) -> None:
        assert self._announced is not None
        at, boot = self._clock.now(), self._outbox.boot.id
        step_s = round((offset - self._announced) / NS_PER_S, 3)
        log.warning("the wall clock moved by %+.3f s: events of this boot are dated anew", step_s)
        data: Document = {
            "boot": boot,
            "cause": cause,
            "step_s": step_s,
            "offset_before_ns": self._announced,
            "offset_after_ns": offset,
            "from_boottime": str(self._since),
            "until_boottime": str(at),
            "clock_ok": right,
        }
        self._announced, self._since = offset, at
        self._tell(
            Event(
                identity(self._gateway, boot, "clock.corrected", at),
                "dxad.clock.corrected",
                f"/{self._gateway}",
                offset + at,
                data,
                lane=Lane.CRITICAL,
                at=at,
            )
        )
