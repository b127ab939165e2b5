"""The source: what its connection brings, as samples, and what there is to say of it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from dxad.errors import ConfigError, NotConnected
from dxad.runtime.clock import Clock
from dxad.sources import Inbox
from dxad.sources.opcua import identity
from dxad.sources.opcua.connection import FAULTS, Connection, Credentials
from dxad.sources.opcua.identity import Identity
from dxad.sources.opcua.section import Config
from dxad.sources.opcua.subscription import Monitored
from dxad.sources.opcua.target import targets
from dxad.sources.opcua.trust import Pin
from dxad.sources.opcua.value import judged, overflown, status_name
from dxad.sources.opcua.watching import Watch, Watched
from dxad.sources.opcua.wire import Item
from dxad.types import Block, Channel, Reason

__all__ = ["Opcua"]

_FAULTS_MOST: Final = 500
"""Different faults that are counted; of more, the sum."""
_CODE: Final = 0xFFFF_0000
_UNKNOWN: Final = frozenset({"BadNodeIdUnknown", "BadNodeIdInvalid"})
_QUEUE: Final = 10


class Opcua:
    """One session with one subscription."""

    def __init__(self, name: str, config: Config, *, clock: Clock, state_dir: Path | None = None) -> None:
        """Read as `config` says; certificates are kept below `state_dir`."""
        self.channels: Sequence[Channel] = config.declared(name)
        self.faults: dict[str, int] = {}
        """What was wrong with nodes, and what had to be done to keep the session alive; and how often."""
        self._config = config
        self._clock = clock
        self._folder = None if state_dir is None else state_dir / "opcua"
        self._identity: Identity | None = None
        self._inbox = Inbox(config)
        self._targets = targets(config)
        self._nowhere: dict[int, str] = {}
        """By handle, why this server has no such node."""
        self._connection: Connection | None = None
        self._watch: Watch | None = None

    @property
    def overflowed(self) -> int:
        """Samples dropped because nobody read them."""
        return self._inbox.overflowed

    @property
    def alive_until(self) -> int:
        """Up to when the session is proved alive, on the stream clock."""
        return 0 if self._watch is None else self._watch.alive_until

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
        owner = Watched(self._take, self._refused, self._lost, self._fault, lambda _: None)
        watch = Watch(
            connection, self._items, owner, interval=self._config.publish_interval, clock=self._clock
        )
        self._watch = watch
        self._inbox.open()
        try:
            await watch.start()
        except FAULTS as error:
            raise NotConnected(f"{self._config.url}: {connection.told(error)}") from error
        if len(self._nowhere) == len(self._targets):
            first = min(self._nowhere)
            raise NotConnected(
                f"{self._config.url}: it knows none of the nodes; "
                f"{self._targets[first - 1].name.text}: {self._nowhere[first]}"
            )

    async def _credentials(self) -> Credentials:
        config = self._config
        if config.security == "none":
            return Credentials(config, None, None)
        if self._identity is None:
            if config.certificate is not None and config.key is not None:
                self._identity = Identity.load(config.certificate, config.key)
            else:
                self._identity = await identity.own(self._state())
        if config.server_certificate is not None:
            return Credentials(config, self._identity, Pin(config.server_certificate, given=True))
        return Credentials(config, self._identity, Pin.kept(self._state(), *config.address))

    def _state(self) -> Path:
        if self._folder is None:
            raise ConfigError(
                "certificates need a place to be kept: give state_dir, or certificate, key and "
                "server_certificate"
            )
        return self._folder

    async def _items(self) -> list[Monitored | None]:
        """The nodes of the channels as this server has them."""
        assert self._connection is not None
        self._nowhere.clear()
        uris, config = self._connection.uris, self._config
        found: list[Monitored | None] = []
        for handle, target in enumerate(self._targets, 1):
            node = target.place(uris, config.namespace)
            if node is None:
                self._refused(handle, f"no namespace {target.name.namespace or config.namespace!r}")
                found.append(None)
            else:
                sampling_ms = config.publish_interval / 2e6
                found.append(target.monitored(handle, node, sampling_ms=sampling_ms, queue=_QUEUE))
        return found

    async def close(self) -> None:
        """End the session, as far as that is possible in bounded time; safe twice, and without `connect`."""
        watch, self._watch = self._watch, None
        connection, self._connection = self._connection, None
        try:
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
        for handle, value, status, stamp in items:
            if handle == 0:
                assert self._watch is not None
                self._watch.ticked(value)
                continue
            if not 0 < handle <= len(self._targets):
                continue  # of no item of ours
            if status:
                self._note(handle, status)
            number, quality, reason = judged(value, status)
            inbox.begin(now, stamp=max(0, stamp))
            for column in self._targets[handle - 1].columns:
                inbox.put(column, number, quality, reason)

    def _note(self, handle: int, status: int) -> None:
        """Count what the server says of a value."""
        target = self._targets[handle - 1]
        if overflown(status):
            self._fault(f"{target.name.text}: the server's queue was full")
        if status & _CODE:
            name = status_name(status)
            self._fault(f"{target.name.text}: {name}")
            if name in _UNKNOWN and self._watch is not None:
                self._watch.gone(handle)

    def _refused(self, handle: int, why: str) -> None:
        """Mark the channels that there will be nothing of."""
        target = self._targets[handle - 1]
        self._nowhere[handle] = why
        self._fault(f"{target.name.text}: {why}")
        self._inbox.begin(self._clock.now())
        for column in target.columns:
            self._inbox.put(column, None, reason=Reason.DEVICE)

    def _fault(self, what: str) -> None:
        if what not in self.faults and len(self.faults) >= _FAULTS_MOST:
            what = "others"
        self.faults[what] = self.faults.get(what, 0) + 1

    def _lost(self, reason: str) -> None:
        self._inbox.lose(f"{self._config.url}: {reason}")

    async def read(self) -> Block:
        """All samples that came since the last call.

        Raises:
            NotConnected: the session is gone, or is no longer proved alive.
        """
        try:
            return await self._inbox.block()
        except NotConnected:
            failure = None if self._watch is None else self._watch.failure
            if failure is not None:
                raise failure from None  # if it did not end but broke, that is the news
            raise
