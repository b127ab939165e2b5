"""One event that is leased, and kept for as long as it is worked on."""

import asyncio
import logging
from types import TracebackType
from typing import Final, Protocol

from dxad.client.asking import insist, may_pass
from dxad.errors import LeaseLostError, ResourceUnavailableError
from dxad.runtime.backoff import Backoff
from dxad.types import Document

__all__ = ["Delivery", "Leases"]

log = logging.getLogger(__name__)

_REASON_MOST: Final = 500
_AGAIN_MOST_S: Final = 2.0


class Leases(Protocol):
    """What is said of leases."""

    async def ack(self, name: str, leases: list[str]) -> Document:
        """Done with these."""

    async def nack(self, name: str, leases: list[str], reason: str, *, delay: str = "0s") -> Document:
        """Cannot do these."""

    async def extend(self, name: str, leases: list[str], *, lease: str = "30s") -> Document:
        """Need longer for these."""


class Delivery:
    """One event that is ours for a while; as a context, for as long as it takes.

    In the context the lease is extended until the work is done, also over times in which the daemon does not
    answer. If it is lost all the same, the work is cancelled, and the context raises LeaseLostError: somebody
    else may have the event. At its end it is acknowledged, until the daemon has it on disk; if the work has
    raised, it is given back.
    """

    def __init__(self, leases: Leases, name: str, told: Document, lease_s: float) -> None:
        self.event: Document = told["event"]
        """The CloudEvent."""
        self.lease: str = told["lease"]
        """The token."""
        self.attempts: int = told["attempts"]
        """How often the event was given out, this time included."""
        self.lost: str | None = None
        """Why it is ours no more; None while it is, as far as is known."""
        self._leases = leases
        self._name = name
        self._lease_s = lease_s
        self._until = asyncio.get_running_loop().time() + lease_s
        self._worker: asyncio.Task[object] | None = None
        self._keeping: asyncio.Task[None] | None = None

    async def ack(self) -> bool:
        """Done with it; False if the lease was over, and somebody else may have it now."""
        return not (await self._leases.ack(self._name, [self.lease]))["stale"]

    async def nack(self, reason: str, *, delay: str = "0s") -> bool:
        """Cannot do it; False as for `ack`."""
        return not (await self._leases.nack(self._name, [self.lease], reason, delay=delay))["stale"]

    async def __aenter__(self) -> Document:
        self._worker = asyncio.current_task()
        self._keeping = asyncio.create_task(self._keep(), name="lease is kept")
        return self.event

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        worker, keeping = self._worker, self._keeping
        assert worker is not None
        assert keeping is not None
        try:
            if self.lost is not None:
                self._lose(worker, error)
            elif error is None:
                await self._finish()
            else:
                keeping.cancel()
                await self._give_back(error)
        except asyncio.CancelledError as cancelled:
            if self.lost is None:
                raise
            self._lose(worker, cancelled)
        finally:
            self._worker = None
            keeping.cancel()
            await asyncio.wait([keeping])

    def _lose(self, worker: asyncio.Task[object], error: BaseException | None) -> None:
        """Say that it is lost, in place of the cancellation that said so to the work, and of no other.

        Raises:
            LeaseLostError: if nothing else is to be raised.
        """
        others = worker.uncancel()
        if isinstance(error, asyncio.CancelledError) and others > 0:
            return  # somebody else wants it to end, too
        if error is None or isinstance(error, asyncio.CancelledError):
            raise LeaseLostError(f"event {self.event.get('id')}: {self.lost}") from None

    async def _finish(self) -> None:
        if not await insist(self.ack, f"event {self.event.get('id')} is done"):
            log.warning(
                "event %s is done, but its lease was over: it may be done twice", self.event.get("id")
            )

    async def _give_back(self, error: BaseException) -> None:
        try:
            await self.nack(f"{type(error).__name__}: {error}"[:_REASON_MOST])
        except ResourceUnavailableError as unavailable:
            log.warning("event %s comes back when its lease ends: %s", self.event.get("id"), unavailable)

    async def _keep(self) -> None:
        """Extend the lease when half of it is over; end the work when it is lost."""
        loop = asyncio.get_running_loop()
        while self.lost is None:
            await asyncio.sleep(self._lease_s / 2)
            self.lost = await self._extend(loop)
        if self._worker is not None:
            self._worker.cancel()

    async def _extend(self, loop: asyncio.AbstractEventLoop) -> str | None:
        """Extend it, as long as it can be ours; returns why it is not."""
        waits = Backoff(most_s=min(_AGAIN_MOST_S, self._lease_s / 8))
        while True:
            asked = loop.time()
            try:
                told = await self._leases.extend(self._name, [self.lease], lease=f"{self._lease_s:g}s")
            except ResourceUnavailableError as error:
                if not may_pass(error):
                    return str(error)
                if loop.time() >= self._until:
                    return f"it ended before the daemon could be told that it is needed longer: {error}"
            else:
                self._until = asked + self._lease_s
                return "the lease was over" if told["stale"] else None
            await asyncio.sleep(waits.next_s())
