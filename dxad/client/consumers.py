"""Leasing events from a running daemon: fetch, do, acknowledge.

async with Client(socket) as client:
    async for delivery in client.consumers.deliveries("agent", types=["dxad.incident.*"]):
        async with delivery as event:       # acknowledged at the end, given back if it raises
            await investigate(event)
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Sequence
from types import TracebackType
from typing import Protocol
from urllib.parse import quote

from dxad.types import Document

__all__ = ["ConsumersClient", "Delivery"]


class _Ask(Protocol):
    def __call__(
        self, method: str, path: str, body: Document | None = None, *, timeout_s: float | None = None
    ) -> Awaitable[Document]: ...


class Delivery:
    """One event that is ours for a while; as a context, for as long as it takes."""

    def __init__(self, consumers: "ConsumersClient", name: str, told: Document, lease_s: float) -> None:
        self.event: Document = told["event"]
        """The CloudEvent."""
        self.lease: str = told["lease"]
        """The token."""
        self.attempts: int = told["attempts"]
        """How often the event was given out, this time included."""
        self._consumers = consumers
        self._name = name
        self._lease_s = lease_s
        self._keeping: asyncio.Task[None] | None = None

    async def ack(self) -> bool:
        """Done with it; False if the lease was over, and somebody else may have it now."""
        return not (await self._consumers.ack(self._name, [self.lease]))["stale"]

    async def nack(self, reason: str, *, delay: str = "0s") -> bool:
        """Cannot do it; False as for `ack`."""
        return not (await self._consumers.nack(self._name, [self.lease], reason, delay=delay))["stale"]

    async def __aenter__(self) -> Document:
        self._keeping = asyncio.create_task(self._keep(), name="lease is extended")
        return self.event

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.wait([self._keeping])
        if error is None:
            await self.ack()
        else:
            await self.nack(f"{type(error).__name__}: {error}"[:500])

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(self._lease_s / 2)
            await self._consumers.extend(self._name, [self.lease], lease=f"{self._lease_s:g}s")


class ConsumersClient:
    """Asks about consumers; each method may raise what those of `Client` do."""

    def __init__(self, ask: _Ask, *, patience_s: float) -> None:
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
        lanes: Sequence[str] | None = None,
        types: Sequence[str] | None = None,
        severities: Sequence[str] | None = None,
        pipelines: Sequence[str] | None = None,
        subjects: Sequence[str] | None = None,
        sources: Sequence[str] | None = None,
    ) -> list[Document]:
        """Events for a while: `lease` (a token), `for_s`, `attempts`, `event`.

        Args:
            name: the consumer, which is made at its first call.
            limit: events at most, 100 at most.
            lease: how long they are ours, 1 s to 1 h.
            wait: how long to wait for the first, a minute at most.
            start: a new consumer begins with the `oldest` event that is stored, or with the next: `now`.
            lanes: of which lanes; without any of these six, as before, or critical and normal.
            types: patterns of event types.
            severities: of incidents and alarms.
            pipelines: patterns of pipelines' names.
            subjects: patterns of what events are about.
            sources: patterns of where they come from, such as `/*/outbox`.
        """
        wants = {
            "lanes": lanes, "types": types, "severities": severities, "pipelines": pipelines,
            "subjects": subjects, "sources": sources,
        }  # fmt: skip
        body: Document = {"limit": limit, "lease": lease, "wait": wait, "start": start}
        body |= {key: list(value) for key, value in wants.items() if value is not None}
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
        self, name: str, *, lease_s: float = 30.0, wait: str = "20s", types: Sequence[str] | None = None
    ) -> AsyncIterator[Delivery]:
        """Events one after the other, for ever; each waits here for at most one lease."""
        while True:
            for each in await self.lease(name, limit=1, lease=f"{lease_s:g}s", wait=wait, types=types):
                yield Delivery(self, name, each, lease_s)

    async def _do(self, name: str, verb: str, body: Document) -> Document:
        path = f"/v1/consumers/{quote(name, safe='')}/{verb}"
        return await self._ask("POST", path, body, timeout_s=self._patience_s)
