"""A subscription and what it brings: the server samples, and sends what has changed.

    create ─▶ monitored items, each known by the handle we give it ─▶ publish, publish, … ─▶ told

Two publish requests are always under way, so that a long road does not slow it down. asyncua's own
subscription keeps an event object and a queue for each value, and 37 kB for each that ever was.
"""

import asyncio
import contextlib
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from asyncua import ua
from asyncua.common.utils import Buffer
from asyncua.ua.attribute_ids import AttributeIds
from asyncua.ua.ua_binary import struct_from_binary
from asyncua.ua.uaerrors import BadTimeout, UaStatusCodeError

from dxad.sources.opcua.connection import FAULTS, Connection
from dxad.sources.opcua.pieces import pieces
from dxad.sources.opcua.wire import Publication, publication

__all__ = ["DAMAGED", "Monitored", "Subscription"]

DAMAGED: Final = (struct.error, IndexError, ValueError, KeyError)
"""What reading a message raises that is not as the standard says."""
_UNDER_WAY: Final = 2
_AT_ONCE: Final = 500
"""Notifications in one message at most: reading them takes 2 ms."""
_LIFETIME: Final = 60
"""Publishing intervals, of a second at least, after which the server may forget a subscription that nobody
asks for."""
_ITEMS_MOST: Final = 1000


@dataclass(frozen=True, slots=True)
class Monitored:
    """One item of a subscription."""

    handle: int
    """By which we know it."""
    node: ua.NodeId
    sampling_ms: float
    queue: int
    """Values that the server keeps between two publications; the oldest goes."""
    filter: ua.DataChangeFilter | None = None

    def request(self) -> ua.MonitoredItemCreateRequest:
        """What to ask the server for."""
        item = ua.ReadValueId(NodeId=self.node, AttributeId=AttributeIds.Value)
        how = ua.MonitoringParameters(
            ClientHandle=ua.UInt32(self.handle),
            SamplingInterval=ua.Double(self.sampling_ms),
            Filter=self.filter,
            QueueSize=ua.UInt32(self.queue),
            DiscardOldest=True,
        )
        return ua.MonitoredItemCreateRequest(
            ItemToMonitor=item, MonitoringMode=ua.MonitoringMode.Reporting, RequestedParameters=how
        )


class Subscription:
    """One at a time, on a session.

    Its requests to be told go on when it is opened anew: the server may have kept some of them, and answers
    them with what the new one has to tell.
    """

    def __init__(
        self,
        connection: Connection,
        *,
        told: Callable[[Publication], None],
        broken: Callable[[BaseException], None],
        damaged: Callable[[str], None],
    ) -> None:
        """Report what comes.

        Args:
            connection: that has a session.
            told: called with each publication, also with empty ones, in their order.
            broken: called when there will be no more, by the peer's doing or a bug's.
            damaged: called with what is wrong with a message that could not be read.
        """
        self._session: Any = connection.client.uaclient.session
        self._told = told
        self._broken = broken
        self._damaged = damaged
        self._id = 0
        self._acknowledge: list[ua.SubscriptionAcknowledgement] = []
        self._tasks: list[asyncio.Task[None]] = []

    async def open(self, interval_ms: float, *, keep_alive_ms: float) -> float:
        """Create it, in place of one that may be there; returns how often the server will publish, in ms.

        Raises:
            OSError, UaError: it cannot be had.
        """
        await self._delete()
        request = ua.CreateSubscriptionRequest()
        # The lifetime must be three times the keep-alive at least (OPC 10000-4, 5.13.2.2).
        alive = max(1, round(keep_alive_ms / interval_ms))
        request.Parameters = ua.CreateSubscriptionParameters(
            RequestedPublishingInterval=ua.Double(interval_ms),
            RequestedLifetimeCount=ua.UInt32(_LIFETIME * alive),
            RequestedMaxKeepAliveCount=ua.UInt32(alive),
            MaxNotificationsPerPublish=ua.UInt32(_AT_ONCE),
            PublishingEnabled=True,
            Priority=ua.Byte(0),
        )
        response = struct_from_binary(ua.CreateSubscriptionResponse, await self._ask(request))
        response.ResponseHeader.ServiceResult.check()
        self._id = response.Parameters.SubscriptionId
        self._tasks = [each for each in self._tasks if not each.done()]
        while len(self._tasks) < _UNDER_WAY:
            task = asyncio.create_task(self._listen(), name="opcua.publish")
            task.add_done_callback(self._ended)
            self._tasks.append(task)
        return float(response.Parameters.RevisedPublishingInterval)

    async def monitor(
        self, items: Sequence[Monitored], *, at_once: int = _ITEMS_MOST
    ) -> list[ua.MonitoredItemCreateResult]:
        """Have these items in it; returns the server's answer to each.

        Raises:
            OSError, UaError: it does not answer.
        """
        answers: list[ua.MonitoredItemCreateResult] = []
        for some in pieces(items, at_once):
            params = ua.CreateMonitoredItemsParameters(
                SubscriptionId=ua.UInt32(self._id),
                TimestampsToReturn=ua.TimestampsToReturn.Source,
                ItemsToCreate=[each.request() for each in some],
            )
            answers += await self._session.create_monitored_items(params)
        return answers

    async def forget(self, ids: Sequence[int]) -> None:
        """Have these items, by the server's ids, in it no more.

        Raises:
            OSError, UaError: it does not answer.
        """
        if ids:
            params = ua.DeleteMonitoredItemsParameters(
                SubscriptionId=ua.UInt32(self._id), MonitoredItemIds=[ua.UInt32(each) for each in ids]
            )
            await self._session.delete_monitored_items(params)

    async def _ask(self, request: Any, *, patient: bool = False) -> Buffer:
        answer: Buffer = await self._session._send_request(request, timeout=0 if patient else None)  # noqa: SLF001 - asyncua reads each answer itself, see wire.py
        return answer

    async def _listen(self) -> None:
        """Ask to be told, for ever."""
        while True:
            request = ua.PublishRequest()
            request.Parameters.SubscriptionAcknowledgements, self._acknowledge = self._acknowledge, []
            try:
                found = publication(await self._ask(request, patient=True))
            except BadTimeout:
                continue
            except DAMAGED as error:
                self._damaged(f"a publication cannot be read: {error}")
                continue
            self._take(found)

    def _ended(self, task: asyncio.Task[None]) -> None:
        """The peer, or a bug, has ended the listening."""
        if not task.cancelled() and (error := task.exception()) is not None:
            self._broken(error)

    def _take(self, found: Publication) -> None:
        if found.sequence:
            self._acknowledge.append(
                ua.SubscriptionAcknowledgement(ua.UInt32(found.subscription), ua.UInt32(found.sequence))
            )
        if found.subscription != self._id:
            return  # of the one before this
        if found.ended & 1 << 31:
            made: Any = UaStatusCodeError  # which asyncua gives no types
            raise made(found.ended)
        self._told(found)

    async def _delete(self) -> None:
        """Have none on the server, as far as it can be told so; else it ends with its lifetime."""
        before, self._id = self._id, 0
        if before:
            with contextlib.suppress(*FAULTS):
                await self._session.delete_subscriptions([before])

    async def close(self) -> None:
        """Listen no more; on the server it ends with its session."""
        self._id = 0
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        self._tasks = []
