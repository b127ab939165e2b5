"""Readings over MQTT 5: JSON, or any other decoder's payload, from one topic or several."""

import asyncio
import secrets
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit

import mqtt5
from pydantic import Field, field_validator

from dxad import plugin
from dxad.decode import Decoder
from dxad.errors import DecodeError, NotConnected
from dxad.fields import ChannelSection, Identifier, Secret, Section, SourceSection
from dxad.links.mqtt import MqttLink, open_link
from dxad.plugin import Plugin
from dxad.runtime.clock import Clock
from dxad.stage import Stage
from dxad.types import Block, Channel, Quality, Reason

__all__ = ["PLUGIN", "Config", "Mqtt", "MqttChannel"]

_STAGED_MAX: Final = 50_000
_PORT: Final = 1883
_PROOF: Final = 1.5
"""Keep-alives for which a packet proves the session alive."""


class MqttChannel(ChannelSection):
    """One field of a topic's messages."""

    path: str | None = Field(None, description="where the payload has it; default: the channel's name")
    topic: str | None = Field(None, description="default: the source's")


class Config(SourceSection):
    """`type = "mqtt"`, `url = "mqtt://broker:1883"`, `topic = "plant/motor"`."""

    type: Literal["mqtt"]
    url: str = Field(description="mqtt://host:port")
    topic: str | None = Field(None, min_length=1, description="a topic filter, unless each channel has one")
    qos: Literal[0, 1] = 1
    client_id: str | None = Field(None, description="default: dxad-, the source's name and a random number")
    keep_alive: int = Field(15, ge=4, le=3600, description="seconds")
    username: str | None = None
    password: Secret | None = None
    decode: Annotated[Section, plugin.section("decode", Section, key="kind")] = Field(
        default_factory=lambda: plugin.load("decode", "json").config(), description="default: json"
    )
    channels: dict[Identifier, MqttChannel] = Field({}, description="by name")

    @field_validator("url")
    @classmethod
    def _address(cls, url: str) -> str:
        split = urlsplit(url)
        if split.scheme != "mqtt" or not split.hostname:
            raise ValueError(f"{url!r} is not mqtt://host:port")
        return url

    def channel_sections(self) -> Mapping[str, ChannelSection]:
        """All channels, by name."""
        return self.channels


class _Topic:
    """What a topic's messages are made of."""

    def __init__(self, columns: list[int], decoder: Decoder) -> None:
        self.columns = columns
        self.decoder = decoder


class Mqtt:
    """Subscribes, decodes, and acknowledges a message once its samples are staged."""

    def __init__(self, name: str, config: Config, *, clock: Clock) -> None:
        self.channels: Sequence[Channel] = config.declared(name)
        self._name = name
        self._config = config
        self._clock = clock
        self._stage = Stage(_STAGED_MAX)
        self._topics = self._by_topic(config)
        self._link: MqttLink | None = None
        self._lost: NotConnected | None = None
        self._arrived = asyncio.Event()
        self._unacknowledged: list[int] = []
        self._malformed = 0
        self._first_malformed = ""

    @staticmethod
    def _by_topic(config: Config) -> dict[str, _Topic]:
        build = plugin.load("decode", getattr(config.decode, "kind")).build  # noqa: B009 - of every decoder
        grouped: dict[str, list[tuple[int, str]]] = {}
        for column, (name, channel) in enumerate(config.channels.items()):
            topic = channel.topic or config.topic or name
            grouped.setdefault(topic, []).append((column, channel.path or name))
        return {
            topic: _Topic([column for column, _ in each], build(config.decode, [path for _, path in each]))
            for topic, each in grouped.items()
        }

    @property
    def overflowed(self) -> int:
        """Samples dropped because nobody read them."""
        return self._stage.overflowed

    @property
    def alive_until(self) -> int:
        """Up to when the session is proved alive, on the stream clock."""
        if self._link is None:
            return 0
        silent_s = asyncio.get_running_loop().time() - self._link.alive_at
        return self._clock.now() + int((_PROOF * self._config.keep_alive - silent_s) * 1e9)

    async def connect(self) -> None:
        """Connect and subscribe, with a fresh connection.

        Raises:
            NotConnected: the broker is not there, or refuses the login or a subscription.
            ConfigError: the password is not where the configuration says.
        """
        await self.close()
        url = urlsplit(self._config.url)
        assert url.hostname is not None
        self._lost = None
        self._link = await open_link(
            url.hostname, url.port or _PORT, self._hello(), self._message, self._closed
        )
        await self._link.subscribe(list(self._topics), self._config.qos)

    def _hello(self) -> mqtt5.ConnectPacket:
        config = self._config
        options: dict[str, Any] = {}
        if config.username is not None:
            options["username"] = config.username
        if config.password is not None:
            options["password"] = config.password.read().encode()
        return mqtt5.ConnectPacket(
            client_id=config.client_id or f"dxad-{self._name}-{secrets.token_hex(3)}",
            keep_alive=config.keep_alive,
            clean_start=True,
            **options,
        )

    def _closed(self, error: NotConnected) -> None:
        self._lost = error
        self._arrived.set()

    def _message(self, packet: mqtt5.PublishPacket) -> None:
        """Stage one message's samples; a malformed one is counted, and told at the next read."""
        for pattern, topic in self._topics.items():
            if _matches(pattern, packet.topic):
                self._take(topic, bytes(packet.payload))
        if packet.packet_id is not None:
            self._unacknowledged.append(packet.packet_id)
        self._arrived.set()

    def _take(self, topic: _Topic, payload: bytes) -> None:
        try:
            values = topic.decoder.decode(payload)
        except DecodeError as error:
            self._malformed += 1
            self._first_malformed = self._first_malformed or str(error)
            return
        stage = self._stage
        stage.begin(self._clock.now())
        for column, value in zip(topic.columns, values, strict=True):
            if value is None:
                stage.put(column, float("nan"), Quality.BAD, Reason.TYPE)
            else:
                stage.put(column, value)

    async def read(self) -> Block:
        """All samples that came since the last call.

        Raises:
            NotConnected: the connection is gone, and every sample that came before has been read.
            DecodeError: messages were malformed; the good ones among them have been read.
        """
        while not len(self._stage):
            if self._malformed:
                count, first = self._malformed, self._first_malformed
                self._malformed, self._first_malformed = 0, ""
                self._acknowledge()
                raise DecodeError(f"{count} messages rejected, the first: {first}", rejected=count)
            if self._lost is not None:
                raise self._lost
            if self._link is None:
                raise NotConnected("read before connect")
            self._arrived.clear()
            await self._arrived.wait()
        block = Block(self._stage.take())
        self._acknowledge()
        return block

    def _acknowledge(self) -> None:
        if self._unacknowledged and self._link is not None:
            self._link.acknowledge(self._unacknowledged)
        self._unacknowledged = []

    async def close(self) -> None:
        """Leave the broker; safe twice, and without `connect`."""
        link, self._link = self._link, None
        self._unacknowledged = []
        if link is not None:
            await link.close()


def _matches(pattern: str, topic: str) -> bool:
    """Whether a topic filter takes a topic (MQTT 5, 4.7)."""
    if pattern == topic:
        return True
    wanted, found = pattern.split("/"), topic.split("/")
    for place, level in enumerate(wanted):
        if level == "#":
            return True
        if place >= len(found) or level not in ("+", found[place]):
            return False
    return len(wanted) == len(found)


PLUGIN = Plugin(Config, Mqtt)
