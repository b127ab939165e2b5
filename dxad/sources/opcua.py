"""Readings over OPC-UA, by subscription: report by exception, with the server's own quality.

namespace = "urn:vendor:machine"      an index would change with the server's configuration; a URI does not
channels = { power = { node = "s=Pump.Power" } }
"""

import asyncio
import base64
import logging
import math
from collections.abc import Mapping, Sequence
from datetime import UTC
from typing import Any, Final, Literal
from urllib.parse import urlsplit

from asyncua import ua
from asyncua.client.client import Client
from asyncua.common.subscription import DataChangeEvent, StatusChangeEvent, SubEvent, Subscription
from asyncua.ua.object_ids import ObjectIds
from asyncua.ua.uaerrors import UaError
from pydantic import Field, field_validator

from dxad.errors import NotConnected
from dxad.fields import ChannelSection, Duration, Identifier, SourceSection
from dxad.links import words
from dxad.plugin import Plugin
from dxad.runtime.clock import Clock
from dxad.sources import Inbox
from dxad.types import NS_PER_S, Block, Channel, Quality, Reason

__all__ = ["PLUGIN", "Config", "Opcua", "OpcuaChannel"]

Identification = ua.Int32 | ua.String | ua.Guid | ua.ByteString

_ANSWER_S: Final = 4.0
_WATCHDOG_S: Final = 2.0
"""How often asyncua asks the server for its state, and how long it may take."""
_TICK_NS: Final = NS_PER_S
"""How often the server's clock is sampled: the session's proof of life."""
_PROOF: Final = 3
"""Ticks for which one proves the session alive; after three times as many it is given up."""
_QUEUED_MAX: Final = 50_000
_QUALITY: Final = (Quality.GOOD, Quality.UNCERTAIN, Quality.BAD, Quality.BAD)
"""By the two highest bits of a StatusCode (OPC 10000-4, 7.39)."""


def _identifier(text: str) -> Identification:
    """What `s=Name` and its kin stand for (OPC 10000-6, 5.3.1.10); asyncua's own parser stops at a `;`."""
    kind, _, rest = text.partition("=")
    match kind:
        case "i" if int(rest) < 2**32:
            return ua.Int32(rest)
        case "g":
            return ua.Guid(rest)
        case "b":
            return ua.ByteString(base64.b64decode(rest, validate=True))
        case "s" if rest:
            return ua.String(rest)
    raise ValueError(f"{text!r} is no node id")


class OpcuaChannel(ChannelSection):
    """One variable."""

    node: str = Field(pattern=r"^(nsu=[^;]+;)?[isgb]=[^-].*$", description="s=Name, i=42, or nsu=URI;s=Name")

    @field_validator("node")
    @classmethod
    def _parses(cls, node: str) -> str:
        _identifier(_split(node)[1])
        return node

    @property
    def namespace(self) -> str | None:
        """The URI of its namespace, if it names one."""
        return _split(self.node)[0]

    @property
    def identifier(self) -> Identification:
        """Its id in its namespace."""
        return _identifier(_split(self.node)[1])


def _split(node: str) -> tuple[str | None, str]:
    if not node.startswith("nsu="):
        return None, node
    uri, _, identifier = node.removeprefix("nsu=").partition(";")
    return uri, identifier


class Config(SourceSection):
    """`type = "opcua"`, `url = "opc.tcp://10.0.0.7:4840/path"`, `namespace = "urn:vendor:machine"`."""

    stamped = True

    type: Literal["opcua"]
    url: str = Field(description="opc.tcp://host:port/path")
    namespace: str | None = Field(None, description="URI of the namespace of the nodes that name none")
    publish_interval: Duration = Field(
        NS_PER_S // 10, gt=0, description="how often the server sends what changed"
    )
    channels: dict[Identifier, OpcuaChannel] = Field({}, description="by name")

    @field_validator("url")
    @classmethod
    def _address(cls, url: str) -> str:
        split = urlsplit(url)
        if split.scheme != "opc.tcp" or not split.hostname or not split.port:
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
        self.faults: dict[str, int] = {}
        """Nodes that the server refused, why, and how often."""
        self._config = config
        self._clock = clock
        self._proof_ns = _PROOF * max(_TICK_NS, config.publish_interval)
        self._inbox = Inbox(config)
        self._columns: dict[ua.NodeId, list[int]] = {}
        self._client: Client | None = None
        self._pump: asyncio.Task[None] | None = None

    @property
    def overflowed(self) -> int:
        """Samples dropped because nobody read them."""
        return self._inbox.overflowed

    async def connect(self) -> None:
        """Open a session, with a fresh client, and subscribe.

        Raises:
            NotConnected: the server is not there, refuses us, or knows none of the nodes.
        """
        await self.close()
        logging.getLogger("asyncua").setLevel(logging.CRITICAL + 1)  # it logs what it also raises
        # Its own reconnecting would hide an outage, and keep node indices that a new server gives otherwise.
        client = Client(
            self._config.url, timeout=_ANSWER_S, watchdog_intervall=_WATCHDOG_S, auto_reconnect=False
        )
        self._client = client
        try:
            await client.connect()
            subscription = await self._subscribe(client)
        except (OSError, UaError) as error:
            raise NotConnected(f"{self._config.url}: {_told(error)}") from error
        self.alive_until = self._clock.now() + self._proof_ns
        self._inbox.open()
        self._pump = asyncio.create_task(self._stage_all(subscription), name="opcua.pump")
        self._pump.add_done_callback(lambda _: self._inbox.lose(f"{self._config.url}: the session ended"))

    async def _subscribe(self, client: Client) -> Subscription:
        uris = await client.get_namespace_array()
        self._columns = {}
        refused: dict[int, str] = {}
        for column, channel in enumerate(self._config.channels.values()):
            uri = channel.namespace or self._config.namespace
            if uri is not None and uri not in uris:
                refused[column] = f"no namespace {uri!r}"
            else:
                index = 0 if uri is None else uris.index(uri)
                node = ua.NodeId(channel.identifier, ua.Int16(index))
                self._columns.setdefault(node, []).append(column)
        interval_ms = self._config.publish_interval / 1e6
        # An iterator, not a handler: handlers may run out of order.
        subscription: Subscription = await client.create_subscription(interval_ms, queue_maxsize=_QUEUED_MAX)
        clock = client.get_node(ObjectIds.Server_ServerStatus_CurrentTime)
        await subscription.subscribe_data_change(clock, sampling_interval=ua.Double(_TICK_NS / 1e6))
        if self._columns:
            answers: Any = await subscription.subscribe_data_change(
                [client.get_node(node) for node in self._columns],
                queuesize=10,
                sampling_interval=ua.Double(interval_ms / 2),
            )
            for columns, answer in zip(self._columns.values(), answers, strict=True):
                if isinstance(answer, ua.StatusCode):  # among the handles
                    refused |= dict.fromkeys(columns, answer.name)
        self._refuse(refused)
        return subscription

    def _refuse(self, refused: Mapping[int, str]) -> None:
        """Mark the channels that there will be nothing of."""
        nodes = [channel.node for channel in self._config.channels.values()]
        for column, why in refused.items():
            fault = f"{nodes[column]}: {why}"
            self.faults[fault] = self.faults.get(fault, 0) + 1
        if len(refused) == len(nodes):
            raise UaError(f"it knows none of the nodes; {nodes[0]}: {refused[0]}")
        now = self._clock.now()
        for column in refused:
            self._inbox.begin(now)
            self._inbox.put(column, None, reason=Reason.DEVICE)

    async def _stage_all(self, subscription: Subscription) -> None:
        """Stage what the subscription brings until the session ends, or shows no life."""
        loop = asyncio.get_running_loop()
        patience_s = 3 * self._proof_ns / NS_PER_S
        try:
            async with asyncio.timeout(patience_s) as deadline:
                async for event in subscription:
                    if isinstance(event, StatusChangeEvent) and not event.notification.Status.is_good():
                        self._inbox.lose(f"{self._config.url}: the session is lost")
                        return
                    deadline.reschedule(loop.time() + patience_s)
                    self._stage(event)
        except TimeoutError:
            self._inbox.lose(f"{self._config.url}: the server has shown no life for {patience_s:g} s")

    def _stage(self, event: SubEvent) -> None:
        now = self._clock.now()
        self.alive_until = now + self._proof_ns
        if not isinstance(event, DataChangeEvent):
            return
        columns = self._columns.get(event.node.nodeid)
        if columns is None:  # the server's clock
            return
        data = event.data.monitored_item.Value
        self._inbox.begin(now, stamp=_stamp(data))
        value, quality, reason = _judged(data)
        for column in columns:
            self._inbox.put(column, value, quality, reason)

    async def read(self) -> Block:
        """All samples that came since the last call.

        Raises:
            NotConnected: the session is gone, or is no longer proved alive.
        """
        try:
            return await self._inbox.block()
        except NotConnected:
            if self._pump is not None and self._pump.done() and not self._pump.cancelled():
                self._pump.result()  # if it did not end but broke, that is the news
            raise

    async def close(self) -> None:
        """End the session, as far as that is possible in bounded time; safe twice, and without `connect`."""
        pump, self._pump = self._pump, None
        if pump is not None:
            pump.cancel()
            await asyncio.wait([pump])
        client, self._client = self._client, None
        if client is None:
            return
        task = asyncio.current_task()
        assert task is not None
        cancelled_before = task.cancelling()
        try:
            async with asyncio.timeout(_ANSWER_S):
                await client.disconnect()
        except (OSError, UaError):
            client.disconnect_socket()
        except asyncio.CancelledError:
            client.disconnect_socket()
            raise
        if task.cancelling() > cancelled_before:
            raise asyncio.CancelledError  # asyncua takes it for that of a task of its own, and goes on


def _judged(data: ua.DataValue | None) -> tuple[float | None, Quality, Reason]:
    """A number, or none, and what the server thinks of it."""
    if data is None:
        return None, Quality.BAD, Reason.TYPE
    quality = _QUALITY[0 if data.StatusCode is None else data.StatusCode.value >> 30]
    if quality is Quality.BAD:
        return None, quality, Reason.DEVICE
    raw = None if data.Value is None else data.Value.Value
    if not isinstance(raw, bool | int | float) or not math.isfinite(raw):
        return None, Quality.BAD, Reason.TYPE
    return float(raw), quality, Reason.NONE if quality is Quality.GOOD else Reason.DEVICE


def _stamp(data: ua.DataValue | None) -> int:
    """When the value was measured, as its device says, UTC ns; 0 where it does not (OPC 10000-4, 7.11)."""
    taken = None if data is None else data.SourceTimestamp
    if taken is None:
        return 0
    seconds = taken.replace(tzinfo=UTC).timestamp()  # it is UTC, whether it says so or not
    return max(0, int(seconds) * NS_PER_S + taken.microsecond * 1_000)


def _told(error: OSError | UaError) -> str:
    """An error's own words; a bare timeout has none."""
    if isinstance(error, TimeoutError):
        return f"no answer within {_ANSWER_S:g} s"
    return words(error) if isinstance(error, OSError) else str(error)


PLUGIN = Plugin(Config, Opcua)
