"""The source: what its connection brings, as samples, and what there is to say of it."""

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from asyncua import ua

from dxad.errors import ConfigError, NotConnected
from dxad.ring.schedule import Schedule
from dxad.runtime.clock import Clock
from dxad.sources import Inbox
from dxad.sources.opcua import identity
from dxad.sources.opcua.connection import FAULTS, Connection, Credentials
from dxad.sources.opcua.element import picked
from dxad.sources.opcua.filling import Filled, Filling
from dxad.sources.opcua.holding import Gap
from dxad.sources.opcua.identity import Identity
from dxad.sources.opcua.polling import Poll
from dxad.sources.opcua.section import Config
from dxad.sources.opcua.subscription import DAMAGED, Monitored
from dxad.sources.opcua.target import Target, Targets
from dxad.sources.opcua.trust import Pin
from dxad.sources.opcua.value import judged, overflown, status_name
from dxad.sources.opcua.watching import PROOF, TICK_NS, Watch, Watched
from dxad.sources.opcua.wire import Item
from dxad.types import NS_PER_S, Block, Channel, Reason

__all__ = ["Opcua"]

_FAULTS_MOST: Final = 500
"""Different faults that are counted; of more, the sum."""
_CODE: Final = 0xFFFF_0000
_UNKNOWN: Final = frozenset({"BadNodeIdUnknown", "BadNodeIdInvalid"})


class Opcua:
    """One session with one subscription."""

    def __init__(self, name: str, config: Config, *, clock: Clock, state_dir: Path | None = None) -> None:
        """Read as `config` says; certificates are kept below `state_dir`."""
        self.channels: Sequence[Channel] = config.declared(name)
        self.faults: dict[str, int] = {}
        """What was wrong with nodes, and what had to be done to keep the session alive; and how often."""
        self._config = config
        self._period = config.period or NS_PER_S
        self._clock = clock
        self._folder = None if state_dir is None else state_dir / "opcua"
        self._identity: Identity | None = None
        self._inbox = Inbox(config)
        memory = None if self._folder is None else self._folder / f"{name}.found"
        self._targets = Targets(config, memory)
        self._nowhere: dict[int, str] = {}
        """By handle, why this server has no such node."""
        self._failure: BaseException | None = None
        self._met = False
        """There was a session before."""
        self._connection: Connection | None = None
        self._watch: Watch | None = None
        self._poll: Poll | None = None
        self._filling: Filling | None = None
        self._placed: Sequence[ua.NodeId | None] = ()
        """Where the nodes are on this server, by handle from 1 on."""
        self._heard: int | None = None
        """When data came last."""
        self._answered = 0
        """Up to when the last poll proves the session alive."""
        self.traffic = dict.fromkeys(("asked", "values", "ticks", "others", "past", "refused"), 0)
        """Values that were `asked` for by polls; `values` that came, by subscription or poll, of them `ticks`
        of the server's clock and `others` of no item of ours; samples of the `past`; and samples that say
        that the server `refused` their item."""
        self._schedule = Schedule(
            period=self._period, lateness=config.slot_lateness(self._period), clock=clock
        )

    @property
    def skipped(self) -> int:
        """Slots in which no poll could begin because the one before took too long."""
        return self._schedule.skipped

    @property
    def overflowed(self) -> int:
        """Samples dropped because nobody read them."""
        return self._inbox.overflowed

    @property
    def alive_until(self) -> int:
        """Up to when the session is proved alive, on the stream clock."""
        return self._answered if self._watch is None else self._watch.alive_until

    @property
    def recovering_until(self) -> int:
        """Up to when it mends its session, on the stream clock; 0 when there is nothing to mend."""
        return 0 if self._watch is None else self._watch.recovering_until

    # --- the link ---

    async def connect(self) -> None:
        """Open a session, with a fresh client, and subscribe.

        Raises:
            NotConnected: the server is not there, refuses us, or knows none of the nodes.
            ConfigError: it is not to be trusted, or will never have us like this.
        """
        await self.close()
        connection = Connection(self._config, await self._credentials())
        self._connection = connection
        await connection.open()
        self._inbox.open()
        before = self._heard
        if self._config.history and self._config.clock != "counted":
            self._filling = self._filler(connection)
        try:
            await (self._subscribe(connection) if self._config.mode == "subscribe" else self._ask(connection))
        except FAULTS as error:
            raise NotConnected(f"{self._config.url}: {connection.told(error)}") from error
        self._know_some(self._nowhere)
        if self._met:
            self._fault("had a new client")
        self._met = True
        if before is not None:
            self._missed(before)

    async def _subscribe(self, connection: Connection) -> None:
        owner = Watched(self._take, self._refused, self._bare, self._lost, self._fault, self._missed)
        interval = self._config.publish_interval
        self._watch = Watch(connection, self._items, owner, interval=interval, clock=self._clock)
        await self._watch.start()

    async def _ask(self, connection: Connection) -> None:
        self._schedule.restart()
        poll = Poll(connection, asked=self._polls)
        await poll.start(await self._nodes())
        self._poll = poll

    def _polls(self, values: int) -> None:
        self.traffic["asked"] += values

    def _filler(self, connection: Connection) -> Filling:
        config = self._config
        listen = 2 * (config.publish_interval if config.mode == "subscribe" else self._period)
        owner = Filled(self._put_past, lambda: self._inbox.room, self._hold, self._fault, self._failed)
        return Filling(
            connection, owner, clock=self._clock, asked=config.history is True, keep=config.keep,
            listen=listen, period=self._period,
        )  # fmt: skip

    def _hold(self, handle: int) -> int | None:
        """How long a value of the past holds, ns: as one that is told; polled, until the next one (None)."""
        if self._config.mode == "poll":
            return None
        sections = list(self._config.channel_sections().values())
        holds = [sections[column].hold for column in self._targets.all[handle - 1].columns]
        holds = [self._config.hold if each is None else each for each in holds]
        lasting = [2 * self._period if each is None else each for each in holds if each != "session"]
        return min(lasting, default=None)

    def _missed(self, since: int) -> None:
        """Nothing was told from this stream time until now."""
        if self._filling is not None:
            self._filling.add(Gap(since, self._clock.now()), self._placed)

    def _put_past(self, handle: int, value: object, status: int, stamp: int, taken: int) -> None:
        """Stage a value as if it had come when it was taken."""
        target = self._targets.all[handle - 1]
        found = [
            (column, judged(value if element is None else picked(value, element), status))
            for column, element in zip(target.columns, target.elements, strict=True)
        ]
        found = [each for each in found if each[1][0] is not None]
        if found:
            self.traffic["past"] += len(found)
            self._inbox.begin(taken, stamp=max(0, stamp))
        for column, (number, quality, reason) in found:
            self._inbox.put(column, number, quality, reason)

    def _know_some(self, nowhere: Mapping[int, str]) -> None:
        """A server that has none of the nodes is no server of ours.

        Raises:
            NotConnected: there is nothing to be had.
        """
        if len(nowhere) == len(self._targets.all):
            first = min(nowhere)
            raise NotConnected(
                f"{self._config.url}: it knows none of the nodes; "
                f"{self._targets.all[first - 1].label}: {nowhere[first]}"
            )

    async def _credentials(self) -> Credentials:
        config = self._config
        if config.security == "none":
            return await asyncio.to_thread(Credentials, config, None, None)
        if self._identity is None:
            if config.certificate is not None and config.key is not None:
                self._identity = await asyncio.to_thread(Identity.load, config.certificate, config.key)
            else:
                self._identity = await identity.own(self._state())
        if config.server_certificate is not None:
            pin = Pin(config.server_certificate, given=True)
        else:
            pin = Pin.kept(self._state(), *config.address)
        return await asyncio.to_thread(Credentials, config, self._identity, pin)

    def _state(self) -> Path:
        if self._folder is None:
            raise ConfigError(
                "certificates need a place to be kept: give state_dir, or certificate, key and "
                "server_certificate"
            )
        return self._folder

    async def _nodes(self) -> list[ua.NodeId | None]:
        """The nodes of the channels as this server has them; those it has not are told."""
        assert self._connection is not None
        self._nowhere.clear()
        found: list[ua.NodeId | None] = []
        for handle, node in enumerate(await self._targets.resolve(self._connection), 1):
            if isinstance(node, str):
                self._refused(handle, node)
            found.append(None if isinstance(node, str) else node)
        for channel, count in self._targets.left_out.items():
            self._fault(f"{channel}: {count} more than its count are left out")
        self._placed = found
        return found

    async def _items(self) -> list[Monitored | None]:
        """The same, as items to subscribe to."""
        return [
            None if node is None else target.monitored(handle, node)
            for handle, (target, node) in enumerate(
                zip(self._targets.all, await self._nodes(), strict=True), 1
            )
        ]

    async def close(self) -> None:
        """End the session, as far as that is possible in bounded time; safe twice, and without `connect`."""
        watch, self._watch = self._watch, None
        filling, self._filling = self._filling, None
        self._poll = None
        connection, self._connection = self._connection, None
        try:
            if filling is not None:
                await filling.close()
            if watch is not None:
                await watch.close()
        finally:
            if connection is not None:
                self._inbox.lose("not connected")
                await connection.close()

    # --- what it brings ---

    def _take(self, items: Sequence[Item], now: int) -> None:
        """Stage values as they come."""
        inbox = self._inbox
        self._heard = now
        self.traffic["values"] += len(items)
        if self._filling is not None and self._filling.listening:
            self._filling.see(items, now)
        for handle, value, status, stamp in items:
            if handle == 0:
                assert self._watch is not None
                self._watch.ticked(value)
                self.traffic["ticks"] += 1
                continue
            if not 0 < handle <= len(self._targets.all):
                self.traffic["others"] += 1  # of no item of ours
                continue
            if status:
                self._note(handle, status)
            inbox.begin(now, stamp=max(0, stamp))
            target = self._targets.all[handle - 1]
            if type(value) is list or target.indexed:
                self._put_elements(target, value, status)
                continue
            number, quality, reason = judged(value, status)
            for column in target.columns:
                inbox.put(column, number, quality, reason)

    def _put_elements(self, target: Target, value: object, status: int) -> None:
        """Stage what an array holds, or say why that is no channel's value."""
        size = len(value) if isinstance(value, list) else 0
        for column, element in zip(target.columns, target.elements, strict=True):
            found = value if element is None else picked(value, element)
            number, quality, reason = judged(found, status)
            self._inbox.put(column, number, quality, reason)
            if reason is not Reason.TYPE:
                continue
            if element is not None and found is None:
                place = ",".join(map(str, element))
                what = (
                    f"an array of {size}: it has no element {place}" if size else "no array: leave index out"
                )
                self._fault(f"{target.label}: {what}")
            elif isinstance(found, list):
                self._fault(f"{target.label}: an array of {len(found)}: say which element, such as index = 0")

    def _note(self, handle: int, status: int) -> None:
        """Count what the server says of a value."""
        target = self._targets.all[handle - 1]
        if overflown(status):
            self._fault(f"{target.label}: the server's queue was full")
        if status & _CODE:
            name = status_name(status)
            self._fault(f"{target.label}: {name}")
            if name in _UNKNOWN and self._watch is not None:
                self._watch.gone(handle)

    def _refused(self, handle: int, why: str) -> None:
        """Mark the channels that there will be nothing of."""
        target = self._targets.all[handle - 1]
        self._nowhere[handle] = why
        self._fault(f"{target.label}: {why}")
        self.traffic["refused"] += len(target.columns)
        self._inbox.begin(self._clock.now())
        for column in target.columns:
            self._inbox.put(column, None, reason=Reason.DEVICE)

    def _bare(self, handle: int) -> None:
        self._fault(f"{self._targets.all[handle - 1].label}: the server has no such deadband; it sends all")

    def _fault(self, what: str) -> None:
        if what not in self.faults and len(self.faults) >= _FAULTS_MOST:
            what = "others"
        self.faults[what] = self.faults.get(what, 0) + 1

    def _failed(self, error: BaseException) -> None:
        """A part of us has ended by a bug, which `read` raises."""
        self._failure = error
        self._lost("the session ended")

    def _lost(self, reason: str) -> None:
        self._inbox.lose(f"{self._config.url}: {reason}")

    async def read(self) -> Block:
        """All samples that came since the last call.

        Raises:
            NotConnected: the session is gone, or is no longer proved alive.
        """
        if self._poll is not None:
            return await self._polled(self._poll)
        try:
            return await self._inbox.block()
        except NotConnected:
            failure = self._failure or (None if self._watch is None else self._watch.failure)
            if failure is not None:
                raise failure from None  # if it did not end but broke, that is the news
            raise

    async def _polled(self, poll: Poll) -> Block:
        """Wait for the next slot, ask for all of it, and seal it.

        Raises:
            NotConnected: there is no answer, or the server has none of the nodes.
        """
        slot = await self._schedule.next_slot()
        assert self._connection is not None
        try:
            items = await poll.values()
        except FAULTS as error:
            raise NotConnected(f"{self._config.url}: {self._connection.told(error)}") from error
        except DAMAGED as error:
            raise NotConnected(f"{self._config.url}: its answer cannot be read: {error}") from error
        at = self._schedule.arrival(slot)
        unknown = {handle: status_name(status) for handle, _, status, _ in items if status >> 31}
        self._know_some(
            self._nowhere | {handle: name for handle, name in unknown.items() if name in _UNKNOWN}
        )
        self._answered = self._clock.now() + PROOF * max(self._period, TICK_NS)
        self._take(items, at)
        for handle in self._nowhere:
            self._inbox.begin(at)
            self.traffic["refused"] += len(self._targets.all[handle - 1].columns)
            for column in self._targets.all[handle - 1].columns:
                self._inbox.put(column, None, reason=Reason.DEVICE)
        return Block((await self._inbox.block()).samples, through=self._schedule.end(slot))
