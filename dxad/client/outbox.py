"""The outbox of a running daemon: what waits, and what is offered again."""

from collections.abc import Sequence
from typing import Any, TypedDict, Unpack
from urllib.parse import quote, urlencode

from dxad.client.asking import Ask
from dxad.types import Document

__all__ = ["Chosen", "OutboxClient"]


class Chosen(TypedDict, total=False):
    """Which dead letters: one of these at least."""

    numbers: Sequence[int]
    sink: str | None
    """Of this sink alone."""
    reason: str
    """A part of the reason."""
    all: bool
    """All of them."""


class OutboxClient:
    """Asks about the outbox; each method may raise what those of `Client` do."""

    def __init__(self, ask: Ask, *, patience_s: float) -> None:
        self._ask = ask
        self._patience_s = patience_s

    async def overview(self) -> Document:
        """What waits, for whom and since when: `outbox`, `sinks`, `overview`."""
        return await self._ask("GET", "/v1/outbox")

    async def page(
        self,
        *,
        after: int = 0,
        limit: int = 50,
        lane: str | None = None,
        type: str | None = None,  # noqa: A002 - as CloudEvents names it
        since: str | None = None,
        until: str | None = None,
        sink: str | None = None,
        whole: bool = False,
    ) -> Document:
        """Events as they are stored, the oldest first: `records`, `next`, `damaged`.

        Args:
            after: the seq to go on behind; below 0, so many from the end.
            limit: how many at most; fewer come where they are large, or few of those looked at are wanted.
            lane: `critical`, `normal` or `bulk`.
            type: a pattern, such as `dxad.incident.*`.
            since: a time as RFC 3339 writes it, or a duration such as `2h`: so long ago.
            until: likewise, and not included.
            sink: only what this sink does not have yet.
            whole: with the event itself.
        """
        asked = {"after": after, "limit": limit, "lane": lane, "type": type, "since": since, "until": until}
        return await self._ask("GET", _path("records", **asked, sink=sink, whole=whole or None))

    async def record(self, id_: str) -> Document:
        """One event by its id.

        Raises:
            RequestRefusedError: it is not there, 404.
        """
        return await self._ask("GET", f"/v1/outbox/records/{quote(id_, safe='')}")

    async def letters(
        self,
        *,
        after: int = 0,
        limit: int = 50,
        sink: str | None = None,
        reason: str | None = None,
        whole: bool = False,
    ) -> Document:
        """Dead letters, the oldest first: `letters`, `next`."""
        asked = {"after": after, "limit": limit, "sink": sink, "reason": reason, "whole": whole or None}
        return await self._ask("GET", _path("dead_letters", **asked))

    async def retry(self, **which: Unpack[Chosen]) -> Document:
        """Offer dead letters to their sinks again: `retried`, and those that `stay`."""
        return await self._chosen("retry", which)

    async def drop(self, **which: Unpack[Chosen]) -> Document:
        """Delete dead letters for good: `dropped`."""
        return await self._chosen("drop", which)

    async def _chosen(self, verb: str, which: Chosen) -> Document:
        body: Document = {key: each for key, each in which.items() if each is not None}
        return await self._ask("POST", f"/v1/outbox/dead_letters/{verb}", body, timeout_s=self._patience_s)

    async def replay(
        self,
        sink: str,
        since: str,
        *,
        until: str | None = None,
        lanes: Sequence[str] = (),
        dry_run: bool = False,
    ) -> Document:
        """Offer a sink again what it has had since a time; `records` is how many.

        Raises:
            RequestRefusedError: we may not, or there is no such sink.
        """
        body: Document = {"sink": sink, "since": since, "lanes": list(lanes), "dry_run": dry_run}
        if until is not None:
            body["until"] = until
        return await self._ask("POST", "/v1/outbox/replay", body, timeout_s=self._patience_s)


def _path(what: str, **asked: Any) -> str:
    given = {key: str(value).lower() if value is True else value for key, value in asked.items()}
    return f"/v1/outbox/{what}?{urlencode({key: value for key, value in given.items() if value is not None})}"
