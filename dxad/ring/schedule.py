"""When a source that asks on its grid asks next, and of which slot an answer is."""

from dxad.runtime.clock import Clock

__all__ = ["Schedule"]


class Schedule:
    """A poll begins with a slot, once per slot at most; its schedule does not drift."""

    def __init__(self, *, period: int, lateness: int, clock: Clock) -> None:
        """Poll slots of `period` nanoseconds, each of which waits `lateness` nanoseconds after its end."""
        self.skipped = 0
        """Slots in which no poll could begin because the one before took too long."""
        self._period = period
        self._lateness = lateness
        self._clock = clock
        self._slot: int | None = None
        """The one that was polled last, over this connection."""

    def restart(self) -> None:
        """A new connection: slots that passed without one were not skipped."""
        self._slot = None

    async def next_slot(self, *, not_before: int = 0) -> int:
        """Wait until a slot begins that was not polled yet, at this stream time at the earliest."""
        last = self._slot
        slot = -(-max(self._clock.now(), not_before) // self._period)
        if last is not None:
            slot = max(slot, last + 1)
        await self._clock.sleep_until(slot * self._period)
        slot = max(slot, self._clock.now() // self._period)  # the loop may have been busy elsewhere
        if last is not None:
            self.skipped += slot - last - 1
        self._slot = slot
        return slot

    def end(self, slot: int) -> int:
        """The stream time at which a slot ends."""
        return (slot + 1) * self._period

    def arrival(self, slot: int) -> int:
        """The stream time of an answer that has come now to a poll of this slot.

        It is of that slot while the slot waits for it, however exact the timer was. One that comes later
        shows what was long after: it is of the slot in which it came.
        """
        now, end = self._clock.now(), self.end(slot)
        if now < end + self._lateness:
            return min(max(now, slot * self._period), end - 1)
        return now
