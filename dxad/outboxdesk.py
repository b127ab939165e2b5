"""What people and agents ask of the outbox: to look into it, to offer again what was had or refused.

Questions and answers are JSON objects, so that the control socket and the Python API speak alike.
"""

from collections.abc import AsyncGenerator, Sequence

from dxad.errors import ConfigError
from dxad.outbox import Outbox
from dxad.outbox.inspection import LetterWanted, Wanted, there_are
from dxad.runtime.clock import Clock
from dxad.selection import EVERYTHING, Selection
from dxad.tailing import Tailing
from dxad.types import Document

__all__ = ["OutboxDesk"]


class OutboxDesk:
    """Answers about the outbox."""

    def __init__(self, outbox: Outbox, clock: Clock) -> None:
        self._outbox = outbox
        self._clock = clock
        self._tailing = Tailing(outbox, clock)

    def wanted(
        self,
        *,
        lanes: Sequence[str] = (),
        selection: Selection = EVERYTHING,
        since: int | None = None,
        until: int | None = None,
        sink: str = "",
    ) -> Wanted:
        """Which records are meant; a time is UTC ns or, below 0, so long ago."""
        now_utc = self._clock.utc(self._clock.now())
        return Wanted.of(
            lanes=lanes, selection=selection, since=since, until=until, sink=sink, now_utc=now_utc
        )

    def wanted_letters(
        self, *, numbers: Sequence[int] = (), sink: str | None = None, reason: str = ""
    ) -> LetterWanted:
        """Which dead letters are meant."""
        return LetterWanted(tuple(numbers), sink, reason)

    async def overview(self) -> Document:
        """Everything in numbers.

        Raises:
            NotConnected: the disk fails; so for all of these.
        """
        return await self._outbox.look(lambda inspection: inspection.overview())

    async def page(self, wanted: Wanted, *, after: int, limit: int, whole: bool) -> Document:
        """The next records of those wanted: `records`, `next`, `damaged`."""
        page = await self._outbox.look(
            lambda inspection: inspection.page(wanted, after=after, limit=limit, whole=whole)
        )
        return {"records": page.found, "next": page.next, "damaged": page.damaged}

    def follow(self, wanted: Wanted, *, after: int | None, lines: int | None) -> AsyncGenerator[Document]:
        """Events as they are stored, see `Tailing.follow`."""
        return self._tailing.follow(wanted, after=after, lines=lines)

    async def record(self, id_: str) -> Document | None:
        """One record, whole; None if it is not there."""
        return await self._outbox.look(lambda inspection: inspection.record(id_))

    async def letters(self, wanted: LetterWanted, *, after: int, limit: int, whole: bool) -> Document:
        """The next dead letters of those wanted: `letters`, `next`."""
        found, following = await self._outbox.look(
            lambda inspection: inspection.letters(wanted, after=after, limit=limit, whole=whole)
        )
        return {"letters": found, "next": following}

    async def replay(self, sink: str, wanted: Wanted, *, dry_run: bool) -> Document:
        """Offer a sink again what it has had of the records wanted.

        Raises:
            ConfigError: there is no such sink, or it has had nothing of them.
        """
        if sink not in self._outbox.sinks:
            raise ConfigError(f"no sink {sink!r}; {there_are(self._outbox.sinks)}")
        offered = await self._outbox.replay(sink, wanted, dry_run=dry_run)
        return {"sink": sink, "records": offered, "dry_run": dry_run}

    async def retry(self, wanted: LetterWanted) -> Document:
        """Offer dead letters to their sinks again."""
        back, stay = await self._outbox.retry_letters(wanted)
        return {
            "retried": back,
            "stay": [{"number": number, "reason": reason} for number, reason in stay.items()],
        }

    async def drop(self, wanted: LetterWanted) -> Document:
        """Delete dead letters for good."""
        return {"dropped": await self._outbox.drop_letters(wanted)}
