"""What was missed in an outage, from the server's history: raw values, bounded, and not in live data's way.

Values are staged as if they had arrived when they were taken, so that they find the slots that are empty.
The server's clock is not ours: `Delay` has the difference, from live data.
"""

import asyncio
import datetime as dt
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

from asyncua import ua
from asyncua.ua.attribute_ids import AttributeIds
from asyncua.ua.object_ids import ObjectIds
from asyncua.ua.uaerrors import UaError, UaStatusCodeError

from dxad.sources.opcua.connection import Connection
from dxad.sources.opcua.holding import Gap, Shown, Stretch
from dxad.sources.opcua.pieces import pieces
from dxad.sources.opcua.wire import Past, history_answers
from dxad.types import NS_PER_S

__all__ = ["Delay", "Reader"]

_TICK_NS: Final = 1000
"""What Python's times resolve."""
_VALUES: Final = 500
"""In one answer: reading them takes a millisecond."""
_ANSWERS_MOST: Final = 1000
"""For one gap."""
_REST_S: Final = 0.02
"""Between two requests: others want their turn, the server's too."""
_ROOM: Final = 0.5
"""The share of the queue that is left to live data."""
_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_AGREE_NS: Final = 2 * NS_PER_S


class Delay:
    """Our stream clock less the times that values bring: what a value's time is on ours.

    The least difference counts, of values that have changed while we listened: one that has not may be of any
    time. Where none has, the server's clock must do.
    """

    def __init__(self) -> None:
        self._values: int | None = None
        self._server: int | None = None

    def value(self, now: int, stamp: int) -> None:
        """A value has changed, that was taken at `stamp`, UTC ns."""
        if stamp > 0:
            delay = now - stamp
            self._values = delay if self._values is None else min(self._values, delay)

    def server(self, now: int, time: object) -> None:
        """The server's clock has told its time."""
        if isinstance(time, dt.datetime):
            since = time.replace(tzinfo=dt.UTC) - _EPOCH
            delay = now - (since // dt.timedelta(microseconds=1)) * 1000
            self._server = delay if self._server is None else min(self._server, delay)

    @property
    def ns(self) -> int | None:
        """To be added to a value's time; None as long as nothing is known."""
        return self._server if self._values is None else self._values


class Reader:
    """Reads what nodes had to tell in a gap."""

    def __init__(
        self,
        connection: Connection,
        *,
        put: Callable[[int, object, int, int], None],
        room: Callable[[], float],
        period: int,
        hold: Callable[[int], int | None],
    ) -> None:
        """Read the past.

        Args:
            connection: with a session.
            put: takes handle, value, status and stream time of each.
            room: tells the free share of the queue.
            period: of a slot, ns.
            hold: by handle, how long a value holds, ns; None: until the next one.
        """
        self._connection = connection
        self._session: Any = connection.client.uaclient.session
        self._put = put
        self._room = room
        self._period = period
        self._hold = hold
        self._bounds = True
        """The server is asked for the values at the ends of a gap as well."""
        self._answers = 0
        self._shown = 0

    async def able(self, nodes: Sequence[ua.NodeId | None]) -> dict[int, ua.NodeId]:
        """Those that the server keeps a history of and lets us read, by their handles from 1 on.

        Raises:
            OSError, UaError: it does not say.
        """
        there = [(handle, node) for handle, node in enumerate(nodes, 1) if node is not None]
        (at_once,) = await self._connection.limits(
            ObjectIds.Server_ServerCapabilities_OperationLimits_MaxNodesPerRead
        )
        found: dict[int, ua.NodeId] = {}
        for some in pieces(there, at_once):
            answers = await self._session.read_attributes(
                [node for _, node in some], AttributeIds.UserAccessLevel
            )
            for (handle, node), answer in zip(some, answers, strict=True):
                level = None if answer.Value is None else answer.Value.Value
                if isinstance(level, int) and level & ua.AccessLevel.HistoryRead.mask:
                    found[handle] = node
        return found

    async def read(self, nodes: Mapping[int, ua.NodeId], gap: Gap, delay: int) -> None:
        """Put all that these nodes have shown in the gap, as far as the bounds allow.

        Args:
            nodes: by handle.
            gap: on the stream clock.
            delay: what a value's time is less than the stream clock, ns.

        Raises:
            OSError, UaError: the server does not answer, or refuses.
            struct.error, IndexError, ValueError: its answer cannot be read.
        """
        for handle, node in nodes.items():
            start, more = gap.begin - delay, b""
            stretch = Stretch(gap, period=self._period, hold=self._hold(handle))
            while True:
                answer = await self._ask(node, start, gap.end - delay, more)
                if not stretch.bounded and not (answer.values and answer.values[0][2] <= start):
                    answer.values[:0] = await self._before(node, start)
                for value, status, stamp in answer.values:
                    await self._show(handle, stretch.take(value, status, stamp + delay))
                more = answer.more
                # Some servers give no point to go on from, and leave off all the same.
                last = answer.values[-1][2] if len(answer.values) >= _VALUES else 0
                if not more and not start < last < gap.end - delay:
                    break
                start = max(start, last + _TICK_NS) if not more else start
                self._answers += 1
                if self._answers >= _ANSWERS_MOST:
                    await self._release(node, more)
                    return
                await self._rest()
            await self._show(handle, stretch.close())

    async def _show(self, handle: int, shown: Iterator[Shown]) -> None:
        for value, status, at in shown:
            self._put(handle, value, status, at)
            self._shown += 1
            if self._shown % _VALUES == 0 or self._room() < _ROOM:
                await self._rest()

    async def _before(self, node: ua.NodeId, at: int) -> list[tuple[object, int, int]]:
        """The newest value before this time, UTC ns, of a server that does not tell by itself."""
        try:
            return (await self._ask(node, None, at, b"", most=1)).values[:1]
        except UaError:
            return []  # it cannot read backwards

    async def _rest(self) -> None:
        """Let others have their turn, and leave room for live data."""
        await asyncio.sleep(_REST_S)
        while self._room() < _ROOM:  # noqa: ASYNC110 - whoever makes room tells nobody
            await asyncio.sleep(_REST_S)

    async def _release(self, node: ua.NodeId, more: bytes) -> None:
        if more:
            await self._ask(node, 0, 0, more, release=True)

    async def _ask(
        self,
        node: ua.NodeId,
        start: int | None,
        end: int,
        more: bytes,
        *,
        release: bool = False,
        most: int = 0,
    ) -> Past:
        """Values from `start` to `end`, UTC ns, or those that follow `more`; without `start`, backwards.

        Raises:
            OSError, UaError: the server does not answer, or refuses.
            struct.error, IndexError, ValueError: its answer cannot be read.
        """
        request = ua.HistoryReadRequest()
        request.Parameters = ua.HistoryReadParameters(
            HistoryReadDetails=ua.ReadRawModifiedDetails(
                IsReadModified=False,
                StartTime=ua.get_win_epoch() if start is None else _when(start),
                EndTime=_when(end),
                NumValuesPerNode=ua.UInt32(most or _VALUES),
                ReturnBounds=self._bounds and start is not None,
            ),
            TimestampsToReturn=ua.TimestampsToReturn.Source,
            ReleaseContinuationPoints=release,
            NodesToRead=[ua.HistoryReadValueId(NodeId=node, ContinuationPoint=more or None)],
        )
        (answer,) = history_answers(await self._session._send_request(request))  # noqa: SLF001 - see wire.py
        if answer.status >> 31 and self._bounds and start is not None and not release:
            self._bounds = False  # it may not support them (OPC 10000-11, 6.5.3.2): try without
            return await self._ask(node, start, end, more)
        if answer.status >> 31 and not release:
            made: Any = UaStatusCodeError  # which asyncua gives no types
            raise made(answer.status)
        return answer


def _when(utc_ns: int) -> dt.datetime:
    return _EPOCH + dt.timedelta(microseconds=utc_ns // 1000)
