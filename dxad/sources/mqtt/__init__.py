"""Readings over MQTT: JSON, or any other decoder's payload, from one topic or several."""

import asyncio
import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal, Self
from urllib.parse import urlsplit

import mqtt5
from pydantic import AfterValidator, Field, field_validator, model_validator

from dxad.decode import Decoder, DecodeTable, decoder
from dxad.errors import ConfigError, DecodeError, NotConnected
from dxad.fields import ChannelSection, Duration, Identifier, Secret, SourceSection
from dxad.links.mqtt import MqttLink, Version, open_link
from dxad.links.tls import TlsSection
from dxad.plugin import Plugin
from dxad.runtime.clock import Clock
from dxad.sources import Inbox, Intake
from dxad.types import NS_PER_S, Block, Channel, Quality, Reason

__all__ = ["PLUGIN", "Config", "Mqtt", "MqttChannel"]

_PORTS: Final = {"mqtt": 1883, "mqtts": 8883}
_PROOF: Final = 1.5
"""Keep-alives for which a packet proves the session alive."""
_HEADER_MAX: Final = 65_536
"""Bytes of a packet beside its payload: a topic and its properties."""
_UNACKNOWLEDGED_MAX: Final = 2_000
"""Messages that the broker may send before the first of them has been staged and acknowledged."""
_LEVELS: Final = re.compile(r"(?:[^#+/]*|\+)(?:/(?:[^#+/]*|\+))*(?:/#)?|#")


def _topic_filter(text: str) -> str:
    if not text or "\0" in text or not _LEVELS.fullmatch(text):
        raise ValueError(f"{text!r} is no topic filter: + stands for one whole level, # ends it")
    return text


TopicFilter = Annotated[str, AfterValidator(_topic_filter)]


class MqttChannel(ChannelSection):
    """One field of a topic's messages."""

    path: str | None = Field(None, description="where the payload has it; default: the channel's name")
    topic: TopicFilter | None = Field(None, description="default: the source's")


class Config(SourceSection):
    """`type = "mqtt"`, `url = "mqtt://broker:1883"`, `topic = "plant/motor"`."""

    holds_back = True
    stamped = True

    type: Literal["mqtt"]
    url: str = Field(description="mqtt://host:port, or mqtts://host:port for TLS")
    tls: TlsSection = Field(
        TlsSection(), validate_default=True, description="of mqtts: whom to trust, and who we are"
    )
    topic: TopicFilter | None = Field(None, description="a topic or filter, unless each channel has one")
    version: Version = Field("5", description="of the protocol; 3.1.1 for brokers that have no other")
    qos: Literal[0, 1] = Field(1, description="1: the broker sends again what was not acknowledged; never 2")
    session: Annotated[Duration, Field(ge=NS_PER_S, multiple_of=NS_PER_S)] | None = Field(
        None,
        description="for how long the broker keeps what comes while we are away, with qos 1 and a client_id; "
        "without it, nothing",
    )
    client_id: str | None = Field(None, description="default: dxad-, the source's name and a random number")
    keep_alive: Duration = Field(
        15 * NS_PER_S,
        ge=4 * NS_PER_S,
        le=3600 * NS_PER_S,
        multiple_of=NS_PER_S,
        description="how long a broker may be silent before it is asked whether it is there",
    )
    username: str | None = Field(None, description="for brokers that want one")
    password: Secret | None = Field(None, description="a secret by reference")
    time: str | None = Field(
        None,
        description='for clock = "device": where a message has the time of its samples, a number of seconds, '
        "or of ms, us or ns where it is that large, since 1970",
    )
    decode: DecodeTable = Field({"kind": "json"}, validate_default=True, description="default: json")
    channels: dict[Identifier, MqttChannel] = Field({}, description="by name")

    @field_validator("url")
    @classmethod
    def _address(cls, url: str) -> str:
        split = urlsplit(url)
        if split.scheme not in _PORTS or not split.hostname or split.port == 0:
            raise ValueError(f"{url!r} is not mqtt://host:port or mqtts://host:port")
        return url

    @property
    def secured(self) -> TlsSection | None:
        """How to speak TLS, if at all."""
        return self.tls if self.url.startswith("mqtts:") else None

    @model_validator(mode="after")
    def _decodes_its_channels(self) -> Self:
        if self.secured is None and self.tls != TlsSection():
            raise ValueError("tls: the url is mqtt://, which is not encrypted; mqtts:// is")
        if self.clock == "device" and self.time is None:
            raise ValueError('clock: "device" wants to know by `time` where a message has it')
        if self.decode.sampled and self.clock == "arrival":
            raise ValueError(
                'clock: samples of an array arrive at once; say "counted" where they are even, "device" '
                "where each has its time"
            )
        if self.session is not None and (self.client_id is None or not self.qos):
            raise ValueError("session: the broker knows us by a client_id, and keeps messages of qos 1 alone")
        if self.version == "3.1.1" and self.password is not None and self.username is None:
            raise ValueError("password: MQTT 3.1.1 has none without a username")
        for name, channel in self.channels.items():
            if channel.topic is None and self.topic is None:
                raise ValueError(f"channels.{name}: no topic, and the source has none either")
        try:
            self.subscriptions()
        except ConfigError as error:
            raise ValueError(f"channels: {error}") from error
        return self

    def channel_sections(self) -> Mapping[str, ChannelSection]:
        """All channels, by name."""
        return self.channels

    def subscriptions(self) -> "list[Subscription]":
        """What to subscribe to, and what each message of it holds.

        Raises:
            ConfigError: a path is none of the payload's format.
        """
        grouped: dict[str, list[tuple[int, str]]] = {}
        for column, (name, channel) in enumerate(self.channels.items()):
            topic = channel.topic or self.topic or ""
            grouped.setdefault(topic, []).append((column, channel.path or name))
        time = [] if self.time is None else [self.time]
        return [
            Subscription(
                topic,
                tuple(column for column, _ in each),
                decoder(self.decode, [*(path for _, path in each), *time]),
            )
            for topic, each in grouped.items()
        ]


@dataclass(frozen=True, slots=True)
class Subscription:
    """A topic filter, and what its messages are made of."""

    filter: str
    columns: tuple[int, ...]
    decoder: Decoder

    @property
    def wild(self) -> bool:
        """Whether it takes more than one topic."""
        return "+" in self.filter or "#" in self.filter


class Mqtt:
    """Subscribes, decodes, and acknowledges a message once its samples are in the ring."""

    def __init__(self, name: str, config: Config, *, clock: Clock) -> None:
        self.channels: Sequence[Channel] = config.declared(name)
        self._name = name
        self._config = config
        self._clock = clock
        self._inbox = Inbox(config, hold=self._hold)
        self._subscriptions = config.subscriptions()
        intakes = [(each, self._intake(each)) for each in self._subscriptions]
        self._plain = {each.filter: intake for each, intake in intakes if not each.wild}
        self._wild = [(each.filter, intake) for each, intake in intakes if each.wild]
        self._link: MqttLink | None = None
        self._known = False
        """Whether there has been a session that the broker should remember."""
        self._unacknowledged: list[int] = []
        """Messages that are staged."""
        self._handed_over: list[int] = []
        """Those whose samples the last `read` has returned."""

    def _intake(self, of: Subscription) -> Intake:
        timed = self._config.time is not None
        whole = of.columns == tuple(range(len(self.channels)))
        return Intake(self._inbox, of.decoder, of.columns, timed=timed, all_columns=whole)

    @property
    def overflowed(self) -> int:
        """Samples dropped because nobody read them."""
        return self._inbox.overflowed

    @property
    def devices(self) -> Sequence[str]:
        """By column, the topic it comes by: as a rule, each device has its own."""
        return [each.topic or self._config.topic or "" for each in self._config.channels.values()]

    @property
    def alive_until(self) -> int:
        """Up to when the session is proved alive, on the stream clock."""
        if self._link is None:
            return 0
        silent_s = asyncio.get_running_loop().time() - self._link.alive_at
        return self._clock.now() + int((_PROOF * self._link.keep_alive_s - silent_s) * NS_PER_S)

    async def connect(self) -> None:
        """Connect and subscribe, with a fresh connection.

        Raises:
            NotConnected: the broker is not there, or refuses the login or a subscription.
            ConfigError: the password, or a file of TLS, is not where the configuration says.
        """
        await self.close()
        url = urlsplit(self._config.url)
        assert url.hostname is not None
        hello = self._hello()
        self._inbox.open()
        port = url.port or _PORTS[url.scheme]
        self._link = await open_link(
            url.hostname,
            port,
            hello,
            self._message,
            self._closed,
            on_too_large=self._too_large,
            version=self._config.version,
            tls=self._config.secured,
        )
        if self._config.session is not None and self._known and not self._link.session_present:
            self._inbox.reject(
                self._clock.now(), "the broker has forgotten the session, and what it had kept"
            )
        await self._link.subscribe([each.filter for each in self._subscriptions], self._config.qos)
        self._known = True

    def _hello(self) -> mqtt5.ConnectPacket:
        config = self._config
        login: dict[str, Any] = {}
        if config.username is not None:
            login["username"] = config.username
        if config.password is not None:
            login["password"] = config.password.read().encode()
        return mqtt5.ConnectPacket(
            client_id=config.client_id or f"dxad-{self._name}-{secrets.token_hex(3)}",
            keep_alive=config.keep_alive // NS_PER_S,
            clean_start=config.session is None,
            session_expiry_interval=(config.session or 0) // NS_PER_S,
            receive_max=_UNACKNOWLEDGED_MAX,
            max_packet_size=config.decode.max_payload + _HEADER_MAX,
            **login,
        )

    def _hold(self, held: bool) -> None:  # noqa: FBT001 - called by the inbox alone
        """Leave what comes to the broker and the network, or take it again."""
        if self._link is not None:
            self._link.hold(held=held)

    def _closed(self, error: NotConnected) -> None:
        self._inbox.lose(str(error))

    def _too_large(self, reason: str) -> None:
        self._inbox.reject(self._clock.now(), reason)

    def _message(self, packet: mqtt5.PublishPacket) -> None:
        """Stage one message's samples; a malformed one is counted, and told at the next read."""
        now = self._clock.now()
        for intake in self._taking(packet.topic):
            if packet.retain:
                intake.take(now, packet.payload, Quality.UNCERTAIN, Reason.RETAINED)
            else:
                intake.take(now, packet.payload)
        if packet.packet_id is not None:
            self._unacknowledged.append(packet.packet_id)

    def _taking(self, topic: str) -> Iterator[Intake]:
        if topic in self._plain:
            yield self._plain[topic]
        for pattern, intake in self._wild:
            if _matches(pattern, topic):
                yield intake

    async def read(self) -> Block:
        """All samples that came since the last call.

        Raises:
            NotConnected: the connection is gone, and every sample that came before has been read.
            DecodeError: messages were malformed; the good ones among them have been read.
        """
        if self._link is None:
            raise NotConnected("not connected")
        if self._handed_over:  # whoever asks for more has what he was given
            self._link.acknowledge(self._handed_over)
            self._handed_over = []
        try:
            block = await self._inbox.block()
        except DecodeError:
            self._hand_over()  # it would be malformed again
            raise
        self._hand_over()
        return block

    def _hand_over(self) -> None:
        self._handed_over += self._unacknowledged
        self._unacknowledged = []

    async def close(self) -> None:
        """Leave the broker; safe twice, and without `connect`."""
        link, self._link = self._link, None
        self._unacknowledged, self._handed_over = [], []
        if link is not None:
            await link.close()


def _matches(pattern: str, topic: str) -> bool:
    """Whether a topic filter with wildcards takes a topic (MQTT 5, 4.7)."""
    if topic.startswith("$") and not pattern.startswith("$"):
        return False
    wanted, found = pattern.split("/"), topic.split("/")
    for place, level in enumerate(wanted):
        if level == "#":
            return True
        if place >= len(found) or level not in ("+", found[place]):
            return False
    return len(wanted) == len(found)


PLUGIN = Plugin(Config, Mqtt)
