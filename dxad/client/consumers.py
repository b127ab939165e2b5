"""Leasing events from a running daemon: fetch, do, acknowledge.

async with Client(socket) as client:
    async for delivery in client.consumers.deliveries("agent", types=["dxad.incident.*"]):
        async with delivery as event:       # acknowledged at the end, given back if it raises
            await investigate(event)
"""

from collections.abc import AsyncIterator, Sequence
from typing import TypedDict, Unpack
from urllib.parse import quote

from dxad.client.asking import Ask, insist
from dxad.client.delivery import Delivery
from dxad.types import Document

__all__ = ["ConsumersClient", "Delivery", "Wants"]


class Wants(TypedDict, total=False):
    """Which events; without any of these as before, or all of the lanes critical and normal."""

    lanes: Sequence[str] | None
    """`critical`, `normal`, `bulk`."""
    types: Sequence[str] | None
    """Patterns, such as `dxad.incident.*`."""
    severities: Sequence[str] | None
    """Of incidents and alarms."""
    pipelines: Sequence[str] | None
    """Patterns of pipelines' names."""
    subjects: Sequence[str] | None
    """Patterns of what events are about."""
    sources: Sequence[str] | None
    """Patterns of where they come from, such as `/*/outbox`."""


class ConsumersClient:
    """Asks about consumers; each method may raise what those of `Client` do."""

    def __init__(self, ask: Ask, *, patience_s: float) -> None:
        self._ask = ask
        self._patience_s = patience_s

    async def all(self) -> list[Document]:
        """Who leases events, and how far each is."""
        found: list[Document] = (await self._ask("GET", "/v1/consumers"))["consumers"]
        return found

    async def lease(
        self,
        name: str,
        *,
        limit: int = 10,
        lease: str = "30s",
        wait: str = "0s",
        start: str = "oldest",
        **wants: Unpack[Wants],
    ) -> list[Document]:
        """Events for a while: `lease` (a token), `for_s`, `attempts`, `event`.

        Args:
            name: the consumer, which is made at its first call.
            limit: events at most, 100 at most.
            lease: how long they are ours, 1 s to 1 h.
            wait: how long to wait for the first, a minute at most.
            start: a new consumer begins with the `oldest` event that is stored, or with the next: `now`.
            wants: which; it stays so until something else is said.

        Raises:
            RequestRefusedError: it cannot be; 503 while the daemon's disk fails.
        """
        body: Document = {"limit": limit, "lease": lease, "wait": wait, "start": start}
        body |= {key: list(value) for key, value in wants.items() if isinstance(value, Sequence)}
        found: list[Document] = (await self._do(name, "lease", body))["events"]
        return found

    async def ack(self, name: str, leases: Sequence[str]) -> Document:
        """Done with these, durably: `acked`, and the `stale` ones that were not ours any more."""
        return await self._do(name, "ack", {"leases": list(leases)})

    async def nack(self, name: str, leases: Sequence[str], reason: str, *, delay: str = "0s") -> Document:
        """Cannot do these: `nacked`, `dead_letters`, `stale`."""
        return await self._do(name, "nack", {"leases": list(leases), "reason": reason, "delay": delay})

    async def extend(self, name: str, leases: Sequence[str], *, lease: str = "30s") -> Document:
        """Need longer for these: `extended`, `stale`."""
        return await self._do(name, "extend", {"leases": list(leases), "lease": lease})

    async def drop(self, name: str) -> Document:
        """Keep nothing for a consumer any more."""
        return await self._do(name, "drop", {})

    async def deliveries(
        self,
        name: str,
        *,
        lease_s: float = 30.0,
        wait: str = "20s",
        start: str = "oldest",
        **wants: Unpack[Wants],
    ) -> AsyncIterator[Delivery]:
        """Events one after the other, for ever; each waits here for at most one lease.

        While the daemon does not answer, or its disk fails, it is asked again with a growing back-off, and
        the log says why.

        Raises:
            RequestRefusedError: it refuses for another reason.
        """

        async def lease() -> list[Document]:
            return await self.lease(name, limit=1, lease=f"{lease_s:g}s", wait=wait, start=start, **wants)

        while True:
            for each in await insist(lease, f"consumer {name}"):
                yield Delivery(self, name, each, lease_s)

    async def _do(self, name: str, verb: str, body: Document) -> Document:
        path = f"/v1/consumers/{quote(name, safe='')}/{verb}"
        return await self._ask("POST", path, body, timeout_s=self._patience_s)
