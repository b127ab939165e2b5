"""Events as they are stored, for whoever looks: without a lease or a cursor, and nothing is kept for it.

Whoever looks reads from the file at their own pace: nothing waits in memory for a slow reader, and none is
missed for being slow, as long as it is kept (`[outbox] keep`, and the quotas).
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from typing import Final

from dxad.errors import NotConnected
from dxad.outbox import Outbox
from dxad.outbox.inspection import Inspection, Page, Wanted, event_of
from dxad.runtime.clock import Clock
from dxad.runtime.waits import comes_within
from dxad.types import NS_PER_S, Document

__all__ = ["HEARTBEAT_NS", "Tailing"]

HEARTBEAT_NS: Final = 15 * NS_PER_S
"""How often something is said when there is nothing. Source: HTML, §9.2.7 Authoring notes."""
_AT_ONCE: Final = 100
_BACK_AT_ONCE: Final = 256
"""Records that the first look back covers; each further one covers four times as many."""


class Tailing:
    """Follows the outbox."""

    def __init__(self, outbox: Outbox, clock: Clock) -> None:
        self._outbox = outbox
        self._clock = clock
        self._turn = asyncio.Lock()
        """One look at a time, however many look: commits wait for it."""

    async def follow(
        self, wanted: Wanted, *, after: int | None = None, lines: int | None = None
    ) -> AsyncGenerator[Document]:
        """Events that are wanted, as soon as they are stored; ends when the outbox is closed.

        Args:
            wanted: which.
            after: the seq to go on behind.
            lines: without `after`, begin with so many of those that are stored; None: with none, or where
                `wanted` begins with some time, with all since then.

        Yields:
            `records`, each with `event` and `seq`, which is None while it is in memory alone; `next`, the seq
            that is reached; `remark`, what has to be said besides. The first comes at once; without news one
            comes each 15 s, without records.

        Raises:
            NotConnected: the disk cannot be read at the beginning; later, a remark tells of it.
        """
        with self._outbox.watching(wanted.lanes) as news:
            remark = ""
            place, newest = await self._begin(wanted, after, lines)
            if place > newest:
                place, remark = 0, "the outbox is another one than it was: this is its beginning"
            yield _told([], place, remark)
            memory = _Memory(self._outbox, wanted)
            while self._outbox.is_open:
                news.clear()
                page, place = await self._next(wanted, place)
                remark = f"{page.damaged} records are damaged, and were passed over" if page.damaged else ""
                if found := memory.unseen(page.found, whole=page.next is None):
                    yield _told(found, place, remark)
                elif remark := memory.remark() or remark:
                    yield _told([], place, remark)
                elif page.next is None and not await comes_within(
                    news.wait(), HEARTBEAT_NS, self._clock, "tail"
                ):
                    yield _told([], place)

    async def _next(self, wanted: Wanted, place: int) -> tuple[Page, int]:
        """Some more, and the place that is reached; nothing while the disk cannot be read."""
        try:
            page, newest = await self._look(wanted, place)
        except NotConnected:
            return Page(), place
        return page, newest if page.next is None else page.next

    async def _begin(self, wanted: Wanted, after: int | None, lines: int | None) -> tuple[int, int]:
        """The seq to begin behind, and the newest there is."""
        if after is None and lines:
            return await self._back(wanted, lines)
        _, newest = await self._look(wanted, 0, limit=0)
        if after is not None:
            return after, newest
        return (0 if lines is None and wanted.since_utc is not None else newest), newest

    async def _back(self, wanted: Wanted, lines: int) -> tuple[int, int]:
        """The seq behind which so many begin: further and further back, until they are found."""
        back = _BACK_AT_ONCE
        _, newest = await self._look(wanted, 0, limit=0)
        while True:
            begin = place = max(0, newest - back)
            found: deque[int] = deque(maxlen=lines)
            following: int | None = place
            while following is not None:
                page, newest = await self._look(wanted, following)
                found.extend(each["seq"] for each in page.found)
                following = page.next
            if len(found) == lines or begin == 0:
                return (found[0] - 1 if found else newest), newest
            back *= 4

    async def _look(self, wanted: Wanted, after: int, limit: int = _AT_ONCE) -> tuple[Page, int]:
        def look(inspection: Inspection) -> tuple[Page, int]:
            page = inspection.events(wanted, after=after, limit=limit) if limit else Page()
            return page, self._outbox.newest

        async with self._turn:
            if not self._outbox.is_open:
                return Page(), after
            return await self._outbox.look(look)


class _Memory:
    """What has been seen from memory while the disk failed, and is not seen again once it is on disk."""

    def __init__(self, outbox: Outbox, wanted: Wanted) -> None:
        self._outbox = outbox
        self._wanted = wanted
        self._seen: set[str] = set()
        self._told: str | None = None
        self._fails: str | None = None

    def unseen(self, stored: list[Document], *, whole: bool) -> list[Document]:
        """Those of what is stored that are new, and what is in memory alone: that has no place yet.

        Args:
            stored: what was read from disk.
            whole: whether that is all there is.
        """
        self._fails, held = self._outbox.held(self._wanted.lanes)
        found = [each for each in stored if each["event"].get("id") not in self._seen]
        if self._fails is None:
            self._told = None
            if whole:
                self._seen.clear()
            return found
        known = self._seen | {each["event"].get("id") for each in found}
        for record in held:
            if record.id in known or not self._wanted.takes(record):
                continue
            event = event_of(record)
            if self._wanted.selection.takes(event):
                self._seen.add(record.id)
                found.append({"seq": None, "event": event})
        return found

    def remark(self) -> str:
        """That the disk fails, once for each time it does."""
        if self._fails is None or self._told is not None:
            return ""
        self._told = self._fails
        return f"the outbox's disk fails, and what is new is in memory alone: {self._fails}"


def _told(records: list[Document], place: int, remark: str = "") -> Document:
    return {"records": records, "next": place, "remark": remark}
