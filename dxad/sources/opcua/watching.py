"""A session whose life is proved by data, and what is done when the proof fails to come.

    silent ─▶ ask for the time ─▶ resubscribe ─▶ new session ─▶ lost: ingest takes a new client

The server's CurrentTime is an item of the subscription, so that data comes each second even when no channel
changes. Empty publications prove nothing: a server may go on sending them for a subscription that it has
forgotten to feed.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from asyncua import ua
from asyncua.ua.attribute_ids import AttributeIds
from asyncua.ua.object_ids import ObjectIds
from asyncua.ua.status_codes import StatusCodes
from asyncua.ua.uaerrors import UaError

from dxad.runtime.clock import Clock
from dxad.sources.opcua.connection import FAULTS, Connection
from dxad.sources.opcua.subscription import Monitored, Subscription
from dxad.sources.opcua.wire import Item, Publication
from dxad.types import NS_PER_S

__all__ = ["PROOF", "TICK_NS", "Watch", "Watched"]

TICK_NS: Final = NS_PER_S
"""How often the server's clock is sampled."""
PROOF: Final = 3
"""Ticks for which one proves the session alive."""
_UNEASY: Final = 2.2
"""Ticks without one, after which something is done."""
_RELAPSE_NS: Final = 15 * NS_PER_S
"""A cure that has lasted for less was none."""
_MENDING_NS: Final = 30 * NS_PER_S
"""How long all stages may take together."""
_RETRY_NS: Final = 30 * NS_PER_S
"""How often nodes that are not there are asked for again."""
_FILTER_REFUSED: Final = frozenset(
    {
        StatusCodes.BadMonitoredItemFilterUnsupported, StatusCodes.BadMonitoredItemFilterInvalid,
        StatusCodes.BadFilterNotAllowed, StatusCodes.BadDeadbandFilterInvalid,
    }
)  # fmt: skip
"""By which a server says that it has no such deadband."""
_CLOCK: Final = 0
"""The handle of the server's clock; those of nodes begin at 1."""
_CURRENT_TIME: Final = ua.NodeId(ua.Int32(ObjectIds.Server_ServerStatus_CurrentTime), ua.Int16(0))
_ITEMS_PER_CALL: Final = ObjectIds.Server_ServerCapabilities_OperationLimits_MaxMonitoredItemsPerCall


@dataclass(frozen=True, slots=True)
class Watched:
    """What the owner of a watch is told."""

    items: Callable[[Sequence[Item], int], None]
    """Values, by handle, and the stream time at which they came."""
    refused: Callable[[int, str], None]
    """There is no such item, by its handle, and why."""
    bare: Callable[[int], None]
    """The server takes no filter for this item, which is told without it."""
    lost: Callable[[str], None]
    """The session is over."""
    fault: Callable[[str], None]
    """What is worth counting."""
    gap: Callable[[int], None]
    """The subscription is another since this stream time, and what came between is not told."""


class Watch:
    """Has a subscription, and sees to it that it lives."""

    def __init__(
        self,
        connection: Connection,
        resolve: Callable[[], Awaitable[Sequence[Monitored | None]]],
        owner: Watched,
        *,
        interval: int,
        clock: Clock,
    ) -> None:
        """Watch what `resolve` finds on the server; `interval` is how often it shall publish, ns.

        `resolve` gives an item for each handle from 1 on, or None where there is no such node; it is asked
        again for each new session.
        """
        self._connection = connection
        self._resolve = resolve
        self._owner = owner
        self._interval_ms = interval / 1e6
        self._clock = clock
        self._tick = max(TICK_NS, interval)
        self._subscription = self._made()
        self._trouble: BaseException | None = None
        self._stirred = asyncio.Event()
        self._data = asyncio.Event()
        self._heard = clock.now()
        self._server_time: object = None
        self._clockless = False
        """The server's clock stands, or it has none: a publication is all the proof there can be."""
        self._items: Sequence[Monitored | None] = ()
        self._missing: dict[int, int] = {}
        """The handles of nodes that are not there, and the server's id of an item of theirs, or 0."""
        self._ids: dict[int, int] = {}
        self._retry_at = 0
        self._cured: tuple[int, int] = (-_RELAPSE_NS, -1)
        """When a stage has helped, and which."""
        self._task: asyncio.Task[None] | None = None
        self.alive_until = 0
        """Up to when the session is proved alive, on the stream clock."""
        self.recovering_until = 0
        """Up to when it may be left alone: it is being mended."""

    def _made(self) -> Subscription:
        return Subscription(self._connection, told=self._told, broken=self._broken, damaged=self._owner.fault)

    # --- what comes ---

    def _told(self, publication: Publication) -> None:
        now = self._clock.now()
        items = publication.items
        if items or self._clockless:
            self._live(now)
            self._data.set()
        if items:
            self._owner.items(items, now)

    def _live(self, now: int) -> None:
        self._heard = now
        self.alive_until = now + PROOF * self._tick

    def ticked(self, value: object) -> None:
        """The server's clock has told its time."""
        self._server_time = value
        self._clockless = False

    def gone(self, handle: int) -> None:
        """A node is not there any more: its item will tell nothing, even if it comes back."""
        if handle not in self._missing:
            self._missing[handle] = self._ids.get(handle, 0)
            self._retry_at = self._clock.now() + _RETRY_NS
            self._stirred.set()

    def _broken(self, error: BaseException) -> None:
        self._trouble = self._trouble or error
        self._stirred.set()

    # --- how it begins and ends ---

    async def start(self) -> None:
        """Subscribe.

        Raises:
            OSError, UaError: it cannot be done.
        """
        self._items = await self._resolve()
        await self._subscribe()
        self._live(self._clock.now())
        self._task = asyncio.create_task(self._tend(), name="opcua.tend")
        self._task.add_done_callback(lambda _: self._owner.lost("the session ended"))

    async def close(self) -> None:
        """Watch no more; safe twice."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
        await self._subscription.close()

    @property
    def failure(self) -> BaseException | None:
        """What has ended it that should not have: a bug."""
        task = self._task
        return task.exception() if task is not None and task.done() and not task.cancelled() else None

    async def _subscribe(self) -> None:
        """Have a fresh subscription with everything in it."""
        interval_ms = await self._subscription.open(self._interval_ms, keep_alive_ms=TICK_NS / 1e6)
        clock = Monitored(_CLOCK, _CURRENT_TIME, TICK_NS / 1e6, 1)
        (answer,) = await self._subscription.monitor([clock])
        self._clockless = answer.StatusCode.is_bad()
        revised_ms = max(interval_ms, 0.0 if self._clockless else answer.RevisedSamplingInterval)
        self._tick = max(TICK_NS, int(revised_ms * 1e6))
        self._ids.clear()
        self._missing.clear()
        await self._monitor(range(1, len(self._items) + 1))

    async def _monitor(self, handles: Sequence[int]) -> None:
        """Add items by their handles; what is refused is told, and tried again later."""
        wanted = [item for each in handles if (item := self._items[each - 1]) is not None]
        self._missing.update((each, 0) for each in handles if self._items[each - 1] is None)
        (at_once,) = await self._connection.limits(_ITEMS_PER_CALL)
        answers = await self._subscription.monitor(wanted, at_once=at_once)
        bare = [
            replace(item, filter=None)
            for item, answer in zip(wanted, answers, strict=True)
            if answer.StatusCode.value in _FILTER_REFUSED
        ]
        if bare:
            for item in bare:
                self._owner.bare(item.handle)
            again = iter(await self._subscription.monitor(bare, at_once=at_once))
            answers = [
                next(again) if answer.StatusCode.value in _FILTER_REFUSED else answer for answer in answers
            ]
        for item, answer in zip(wanted, answers, strict=True):
            self._ids[item.handle] = answer.MonitoredItemId
            if answer.StatusCode.is_bad():
                self._missing[item.handle] = 0
                self._owner.refused(item.handle, answer.StatusCode.name)
        if self._missing:
            self._retry_at = self._clock.now() + _RETRY_NS

    # --- how it is kept alive ---

    async def _tend(self) -> None:
        """Look after it until it is lost."""
        while True:
            await self._wait()
            trouble, self._trouble = self._trouble, None
            if isinstance(trouble, OSError):
                self._owner.lost(f"the session is lost: {self._connection.told(trouble)}")
                return
            if trouble is not None and not isinstance(trouble, UaError):
                raise trouble  # it is a bug
            silent = self._clock.now() - self._heard >= _UNEASY * self._tick
            if (trouble is not None or silent) and not await self._revived(trouble):
                return
            if self._missing and self._clock.now() >= self._retry_at and not await self._retried():
                return

    async def _wait(self) -> None:
        """Until something stirs, or nothing has for too long."""
        due = self._heard + int(_UNEASY * self._tick)
        if self._missing:
            due = min(due, self._retry_at)
        try:
            async with asyncio.timeout(max(0, due - self._clock.now()) / NS_PER_S):
                await self._stirred.wait()
        except TimeoutError:
            pass
        self._stirred.clear()

    async def _revived(self, trouble: UaError | None) -> bool:
        """Go from one stage to the next until data comes; False: the session is lost."""
        self.recovering_until = self._clock.now() + _MENDING_NS
        since = self._heard
        why = f"it said {trouble}" if trouble is not None else self._silence()
        tried: list[str] = []
        try:
            if (trouble is None and not await self._clock_goes()) or await self._mended(tried):
                self._owner.gap(since)
                return True
        except OSError as error:
            tried.append(self._connection.told(error))
        finally:
            self.recovering_until = 0
        self._owner.lost(f"{why}; {'; '.join(tried) or 'twice in short time'}: a new client is needed")
        return False

    async def _mended(self, tried: list[str]) -> bool:
        """Try one stage after the other, from the one behind that which has helped just now.

        Raises:
            OSError: the connection is gone.
        """
        cured_at, cured_by = self._cured
        first = cured_by + 1 if self._clock.now() - cured_at < _RELAPSE_NS else 0
        for stage, (name, act) in enumerate(
            (("resubscribed", self._subscribe), ("had a new session", self._renew))
        ):
            if stage < first:
                continue
            self._owner.fault(name)
            tried.append(name)
            error = await self._failure_of(act)
            if error is None:
                self._cured = (self._clock.now(), stage)
                return True
            tried.append(error)
        return False

    def _silence(self) -> str:
        return f"the server has shown no life for {(self._clock.now() - self._heard) / NS_PER_S:.1f} s"

    async def _clock_goes(self) -> bool:
        """Whether the server's clock has moved on without our being told; if not, the answer is the proof.

        Raises:
            OSError: there is no answer.
        """
        session = self._connection.client.uaclient.session
        try:
            (answer,) = await session.read_attributes([_CURRENT_TIME], AttributeIds.Value)
        except UaError:
            return True
        value = None if answer.Value is None else answer.Value.Value
        if value is not None and value != self._server_time:
            return True
        self._owner.fault("the server's clock stands")
        self._clockless = True
        self._live(self._clock.now())
        return False

    async def _failure_of(self, act: Callable[[], Awaitable[None]]) -> str | None:
        """Why no data has come after it; None if some has.

        Raises:
            OSError: the connection is gone.
        """
        self._data.clear()
        try:
            await act()
        except UaError as error:
            return str(error)
        self._trouble = None
        try:
            async with asyncio.timeout(2 * self._tick / NS_PER_S):
                await self._data.wait()
        except TimeoutError:
            return "no data"
        return None

    async def _renew(self) -> None:
        await self._subscription.close()
        self._subscription = self._made()
        await self._connection.renew_session()
        self._items = await self._resolve()
        await self._subscribe()

    async def _retried(self) -> bool:
        """Ask again for the nodes that were not there; False: the session is lost."""
        handles = dict(self._missing)
        self._missing.clear()
        self._retry_at = self._clock.now() + _RETRY_NS
        try:
            await self._subscription.forget([each for each in handles.values() if each])
            if any(self._items[each - 1] is None for each in handles):
                self._items = await self._resolve()
            await self._monitor(sorted(handles))
        except FAULTS as error:
            self._owner.lost(self._connection.told(error))
            return False
        return True
