"""Readings over OPC-UA, by subscription: report by exception, with the server's own quality.

namespace = "urn:vendor:machine"      an index would change with the server's configuration; a URI does not
channels = { power = { node = "s=Pump.Power" } }
"""

import asyncio
import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

from asyncua import ua
from asyncua.client.client import Client
from asyncua.common.subscription import DataChangeEvent, Subscription
from asyncua.ua.object_ids import ObjectIds
from asyncua.ua.uaerrors import UaError
from pydantic import Field, field_validator

from dxad.errors import NotConnected
from dxad.fields import ChannelSection, Duration, Identifier, SourceSection
from dxad.plugin import Plugin
from dxad.runtime.clock import Clock
from dxad.stage import Stage
from dxad.types import NS_PER_S, Block, Channel, Quality, Reason

__all__ = ["PLUGIN", "Config", "Opcua", "OpcuaChannel"]

_STAGED_MAX: Final = 50_000
_ANSWER_S: Final = 4.0
_PROOF_NS: Final = 3 * NS_PER_S
"""How long one reading of the server's clock, which it sends every second, proves the session alive."""
_GIVEN_UP_NS: Final = 10 * NS_PER_S
_QUALITY: Final = {0: Quality.GOOD, 1: Quality.UNCERTAIN, 2: Quality.BAD, 3: Quality.BAD}
"""By the two highest bits of a StatusCode (OPC 10000-4, 7.39)."""


class OpcuaChannel(ChannelSection):
    """One variable."""

    node: str = Field(pattern=r"^(nsu=[^;]+;)?[isgb]=.+$", description="s=Name, i=42, or nsu=URI;s=Name")


class Config(SourceSection):
    """`type = "opcua"`, `url = "opc.tcp://10.0.0.7:4840/path"`, `namespace = "urn:vendor:machine"`."""

    type: Literal["opcua"]
    url: str = Field(description="opc.tcp://host:port/path")
    namespace: str | None = Field(None, description="URI of the namespace of the nodes that name none")
    publish_interval: Duration = Field(NS_PER_S // 10, description="how often the server sends what changed")
    channels: dict[Identifier, OpcuaChannel] = Field({}, description="by name")

    @field_validator("url")
    @classmethod
    def _address(cls, url: str) -> str:
        if not url.startswith("opc.tcp://"):
            raise ValueError(f"{url!r} is not opc.tcp://host:port/path")
        return url

    def channel_sections(self) -> Mapping[str, ChannelSection]:
        """All channels, by name."""
        return self.channels


class Opcua:
    """One session with one subscription; a task of its own stages what it brings."""

    def __init__(self, name: str, config: Config, *, clock: Clock) -> None:
        self.channels: Sequence[Channel] = config.declared(name)
        self.alive_until = 0
        """Up to when the session is proved alive, on the stream clock."""
        self._config = config
        self._clock = clock
        self._stage = Stage(_STAGED_MAX)
        self._client: Client | None = None
        self._pump: asyncio.Task[None] | None = None
        self._column_of: dict[ua.NodeId, int] = {}
        self._arrived = asyncio.Event()
        self._lost: NotConnected | None = None

    @property
    def overflowed(self) -> int:
        """Samples dropped because nobody read them."""
        return self._stage.overflowed

    async def connect(self) -> None:
        """Open a session, with a fresh client, and subscribe.

        Raises:
            NotConnected: the server is not there, refuses us, or knows none of the nodes.
        """
        await self.close()
        logging.getLogger("asyncua").setLevel(logging.CRITICAL + 1)  # it logs what it also raises
        self._lost = None
        client = Client(self._config.url, timeout=_ANSWER_S, watchdog_intervall=2.0, auto_reconnect=False)
        try:
            await client.connect()
        except (OSError, TimeoutError, UaError, ConnectionError) as error:
            # The client has not become ours: let go of what it opened on the way.
            await _let_go(client)
            raise NotConnected(f"{self._config.url}: {_text(error)}") from error
        self._client = client
        try:
            subscription = await self._subscribe(client)
        except (OSError, TimeoutError, UaError, ConnectionError) as error:
            raise NotConnected(f"{self._config.url}: {_text(error)}") from error
        self.alive_until = self._clock.now() + _PROOF_NS
        self._pump = asyncio.create_task(self._stage_all(subscription), name="opcua.pump")

    async def _subscribe(self, client: Client) -> Subscription:
        nodes = [await self._node_id(client, each.node) for each in self._config.channels.values()]
        self._column_of = {node: column for column, node in enumerate(nodes)}
        interval_ms = self._config.publish_interval / 1e6
        # An iterator, not a handler: handlers may run out of order.
        subscription: Subscription = await client.create_subscription(interval_ms, queue_maxsize=10_000)
        clock = client.get_node(ObjectIds.Server_ServerStatus_CurrentTime)
        await subscription.subscribe_data_change(clock, sampling_interval=ua.Double(1000))
        answers: Any = await subscription.subscribe_data_change(
            [client.get_node(node) for node in nodes],
            queuesize=10,
            sampling_interval=ua.Double(interval_ms / 2),
        )
        now = self._clock.now()
        refused = {column: code for column, code in enumerate(answers) if isinstance(code, ua.StatusCode)}
        if len(refused) == len(nodes):
            raise UaError(f"it knows none of the nodes: {refused[0].name}")
        self._stage.begin(now)
        for column in refused:
            self._stage.put(column, float("nan"), Quality.BAD, Reason.DEVICE)
        return subscription

    async def _node_id(self, client: Client, text: str) -> ua.NodeId:
        """A node by its namespace's URI, whatever index the server gives it today."""
        uri, rest = self._config.namespace, text
        if text.startswith("nsu="):
            uri, _, rest = text.removeprefix("nsu=").partition(";")
        index = 0
        if uri is not None:
            try:
                index = await client.get_namespace_index(uri)
            except ValueError as error:
                raise UaError(f"it has no namespace {uri!r}") from error
        return ua.NodeId.from_string(f"ns={index};{rest}")

    async def _stage_all(self, subscription: Subscription) -> None:
        """Stage what the subscription brings until the session ends."""
        async for event in subscription:
            now = self._clock.now()
            self.alive_until = now + _PROOF_NS
            if not isinstance(event, DataChangeEvent):
                continue
            column = self._column_of.get(event.node.nodeid)
            if column is not None:
                self._stage.begin(now)
                self._put(column, event.data.monitored_item.Value)
                self._arrived.set()
        self._lost = NotConnected(f"{self._config.url}: the session ended")
        self._arrived.set()

    def _put(self, column: int, value: ua.DataValue) -> None:
        code = 0 if value.StatusCode is None else value.StatusCode.value
        quality = _QUALITY[code >> 30]
        raw = None if value.Value is None else value.Value.Value
        if quality is Quality.BAD:
            self._stage.put(column, float("nan"), quality, Reason.DEVICE)
        elif not isinstance(raw, bool | int | float) or not math.isfinite(raw):
            self._stage.put(column, float("nan"), Quality.BAD, Reason.TYPE)
        else:
            reason = Reason.DEVICE if quality is Quality.UNCERTAIN else Reason.NONE
            self._stage.put(column, float(raw), quality, reason)

    async def read(self) -> Block:
        """All samples that came since the last call.

        Raises:
            NotConnected: the session is gone, or is no longer proved alive.
        """
        while not len(self._stage):
            if self._lost is not None:
                raise self._lost
            if self._client is None:
                raise NotConnected("read before connect")
            self._arrived.clear()
            try:
                async with asyncio.timeout(1.0):
                    await self._arrived.wait()
            except TimeoutError:
                self._check_life()
        return Block(self._stage.take())

    def _check_life(self) -> None:
        silent_ns = self._clock.now() - (self.alive_until - _PROOF_NS)
        if silent_ns > _GIVEN_UP_NS:
            raise NotConnected(
                f"{self._config.url}: the server's clock has not come for {silent_ns / 1e9:.0f} s"
            )

    async def close(self) -> None:
        """End the session; safe twice, and without `connect`."""
        pump, self._pump = self._pump, None
        if pump is not None:
            pump.cancel()
            await asyncio.wait([pump])
        client, self._client = self._client, None
        if client is not None:
            await _let_go(client)


async def _let_go(client: Client) -> None:
    """Disconnect as far as that is possible, in bounded time."""
    try:
        async with asyncio.timeout(_ANSWER_S):
            await client.disconnect()
    except (OSError, TimeoutError, UaError, ConnectionError):
        client.disconnect_socket()


def _text(error: BaseException) -> str:
    """An OPC-UA error's own words; a bare timeout has none."""
    if isinstance(error, TimeoutError):
        return f"no answer within {_ANSWER_S:g} s"
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


PLUGIN = Plugin(Config, Opcua)
