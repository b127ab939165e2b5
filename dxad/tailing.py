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
from dxad.outbox.inspection import Inspection, Page, Wanted
from dxad.runtime.clock import Clock
from dxad.types import NS_PER_S, Document

__all__ = ["HEARTBEAT_NS", "Tailing"]

HEARTBEAT_NS: Final = 15 * NS_PER_S
"""How often something is said when there is nothing. Source: HTML, §9.2.7 Authoring notes."""
_AT_ONCE: Final = 100
_BACK_AT_ONCE: Final = 256
"""Records that the first look back covers; each further one covers four times as many."""
_FAILS_NS: Final = NS_PER_S


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
            `records`, each with `seq` and `event`; `next`, the seq that has been reached; `remark`, what has
            to be said besides. The first comes at once; without news one comes each 15 s, without records.

        Raises:
            NotConnected: the disk fails at the beginning; later, a remark tells of it.
        """
        with self._outbox.watching(wanted.lanes) as news:
            remark = ""
            place, newest = await self._begin(wanted, after, lines)
            if place > newest:
                place, remark = 0, "the outbox is another one than it was: this is its beginning"
            yield {"records": [], "next": place, "remark": remark}
            fails = False
            while self._outbox.is_open:
                news.clear()
                try:
                    page, newest = await self._look(wanted, place)
                except NotConnected as error:
                    if not fails:
                        yield {"records": [], "next": place, "remark": f"the outbox's disk fails: {error}"}
                    fails = True
                    await self._clock.sleep_until(self._clock.now() + _FAILS_NS)
                    continue
                fails = False
                place = newest if page.next is None else page.next
                remark = f"{page.damaged} records are damaged, and were passed over" if page.damaged else ""
                if page.found or remark:
                    yield {"records": page.found, "next": place, "remark": remark}
                if page.next is None and not await self._heard(news):
                    yield {"records": [], "next": place, "remark": ""}

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

    async def _heard(self, news: asyncio.Event) -> bool:
        """Whether there is news before it is time for a sign of life."""
        waits = asyncio.create_task(news.wait(), name="tail waits")
        sleeps = asyncio.create_task(
            self._clock.sleep_until(self._clock.now() + HEARTBEAT_NS), name="tail waits no longer"
        )
        try:
            await asyncio.wait([waits, sleeps], return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in (waits, sleeps):
                each.cancel()
            await asyncio.wait([waits, sleeps])
        return news.is_set()
