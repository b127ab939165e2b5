"""What a configuration says of an MQTT source."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal, Self
from urllib.parse import urlsplit

import orjson
from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema, field_validator, model_validator

from dxad.decode import Decoder, DecodeTable, decoder, each_once, follow, path_of
from dxad.errors import ConfigError
from dxad.fields import ChannelSection, Duration, Identifier, Secret, Section, SourceSection
from dxad.links.tls import TlsSection
from dxad.sources.mqtt.topic import CHANNEL, DEVICE, TopicTemplate, filter_of
from dxad.types import NS_PER_S

__all__ = ["LEVEL_MAX", "PORTS", "Config", "MqttChannel", "StatusSection", "Subscription"]

PORTS: Final = {"mqtt": 1883, "mqtts": 8883}
"""By the scheme of the url."""

_UNNAMED: Final = r"device\d+"
LEVEL_MAX: Final = 200
"""Characters of a device's name."""


def _level(text: str) -> str:
    if not 0 < len(text) <= LEVEL_MAX or any(each in text for each in "/+#\0"):
        raise ValueError(f"{text[:LEVEL_MAX]!r} is no level of a topic")
    return text


_PROOF_NS: Final = 30 * NS_PER_S


def _sign_topic(text: str) -> str:
    if CHANNEL in text:
        raise ValueError(f"{text!r}: a device lives as a whole, not a {CHANNEL}")
    return text


SignTopic = Annotated[TopicTemplate, AfterValidator(_sign_topic)]


def _by_name(value: Any) -> Any:
    """A list of devices as the table of those that are called in topics as they are here."""
    if not isinstance(value, list | tuple) or not all(isinstance(each, str) for each in value):
        return value
    each_once("devices", value)
    return {each: each for each in value}


DeviceTable = Annotated[
    dict[Identifier, Annotated[str, AfterValidator(_level)]],
    BeforeValidator(_by_name),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "array", "items": {"type": "string"}},
                {"type": "object", "additionalProperties": {"type": "string"}},
            ]
        }
    ),
]
"""Devices by name, with their levels in topics."""


class MqttChannel(ChannelSection):
    """One field of a topic's messages."""

    path: str | None = Field(None, description="where the payload has it; default: the channel's name")
    topic: TopicTemplate | None = Field(None, description="default: the source's")


class StatusSection(Section):
    """Where a device says whether it is there; its last will says that it is not."""

    topic: SignTopic = Field(description="where it does, with {device} where each device has one")
    online: str = Field("online", min_length=1, description="the message of a device that is there")
    offline: str = Field("offline", min_length=1, description="the message of one that is not")
    path: str | None = Field(
        None, description="where a message in JSON has that word; default: it is the word"
    )

    @model_validator(mode="after")
    def _differs(self) -> Self:
        if self.online == self.offline:
            raise ValueError(f"offline: {self.offline!r} is what it says when it is online")
        if self.path is not None:
            try:
                path_of(self.path)
            except ConfigError as error:
                raise ValueError(f"path: {error}") from error
        return self

    def word(self, payload: bytes) -> str:
        """What a message says; empty where it says nothing."""
        if self.path is None:
            return payload.decode(errors="replace").strip()
        try:
            found = follow(orjson.loads(payload or b"null"), path_of(self.path))
        except orjson.JSONDecodeError:
            return "no JSON"
        return found if isinstance(found, str) else "" if found is None else orjson.dumps(found).decode()


class Config(SourceSection):
    """`type = "mqtt"`, `url = "mqtt://broker:1883"`, `topic = "plant/motor"`."""

    holds_back = True
    stamped = True
    keeps_state = True

    type: Literal["mqtt"]
    url: str = Field(description="mqtt://host:port, or mqtts://host:port for TLS")
    tls: TlsSection = Field(
        TlsSection(), validate_default=True, description="of mqtts: whom to trust, and who we are"
    )
    topic: TopicTemplate | None = Field(
        None,
        description="a topic or filter, unless each channel has one; {channel} in it is each channel's name, "
        "and {device} a level that names a device, each of which has all the channels",
    )
    devices: DeviceTable = Field(
        {},
        description="those that {device} stands for, as a list, or by name what each is called in the topic; "
        "their channels are source.device.channel",
    )
    max_devices: int | None = Field(
        None,
        ge=1,
        le=1000,
        description="take in devices as they appear, so many with those of `devices`; those without a name "
        "become device1, device2 … in the order in which they come, for good",
    )
    version: Literal["auto", "5", "3.1.1"] = Field(
        "auto",
        description="of the protocol; auto: 5, or 3.1.1 where the broker refuses that, and remember it",
    )
    qos: Literal[0, 1, 2] = Field(
        1,
        description="1: the broker sends again what was not acknowledged; 2: and nothing comes twice. `ack` "
        "says when it is",
    )
    ack: Literal["ring", "outbox"] = Field(
        "ring",
        description="where a sample must be before the broker is told that it was received; outbox: in a "
        'record of telemetry that is on the disk, which wants a session and a [telemetry.NAME] of mode "all" '
        "with all channels of the source",
    )
    share: Annotated[str, AfterValidator(_level)] | None = Field(
        None,
        description="the name of a group of gateways between which the broker divides the messages; MQTT 5, "
        "or a 3.1.1 broker that can",
    )
    session: Annotated[Duration, Field(ge=NS_PER_S, multiple_of=NS_PER_S)] | None = Field(
        None,
        description="for how long the broker keeps what comes while we are away, with qos 1 or 2 and a "
        "client_id; without it, nothing",
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
    heartbeat: SignTopic | None = Field(
        None,
        description="a topic on which something comes as long as the device is alive, with {device} where "
        "each device has one",
    )
    status: StatusSection | None = Field(
        None, description="where a device says whether it is there, and its last will that it is not"
    )
    max_age: Annotated[Duration, Field(gt=0)] | None = Field(
        None,
        description="how long a heartbeat, or without one any message, proves a device alive; default: 30s "
        "after a heartbeat, and no limit without one",
    )
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
        if split.scheme not in PORTS or not split.hostname or split.port == 0:
            raise ValueError(f"{url!r} is not mqtt://host:port or mqtts://host:port")
        return url

    @property
    def awaits_outbox(self) -> bool:
        """Whether a message is acknowledged only when the outbox has its samples."""
        return self.ack == "outbox"

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
            raise ValueError(
                "session: the broker knows us by a client_id, and keeps messages of qos 1 and 2 alone"
            )
        if self.awaits_outbox and (self.session is None or not self.qos):
            raise ValueError(
                'ack: "outbox" wants qos 1 or 2, session = "1h" or so, and a client_id: a broker forgets at '
                "once what it has sent without them, acknowledged or not"
            )
        if self.version == "3.1.1" and self.password is not None and self.username is None:
            raise ValueError("password: MQTT 3.1.1 has none without a username")
        for name in self.channels:
            if not self.topic_of(name):
                raise ValueError(f"channels.{name}: no topic, and the source has none either")
        try:
            self.subscriptions()
        except ConfigError as error:
            raise ValueError(f"channels: {error}") from error
        return self

    @model_validator(mode="after")
    def _proves_what_it_holds(self) -> Self:
        signs = {"heartbeat": self.heartbeat, "status": self.status, "max_age": self.max_age}
        given = [name for name, each in signs.items() if each is not None]
        held = [name for name, each in self.channels.items() if (each.hold or self.hold) == "session"]
        if held and not given:
            raise ValueError(
                'hold: "session" wants a proof that the device is alive, since a broker answers for itself '
                "alone: heartbeat, status or max_age"
            )
        if given and self.clock == "counted":
            raise ValueError(f"{given[0]}: a counted stream has no other proof than its samples")
        for name, topic in (("heartbeat", self.heartbeat), ("status", self.status and self.status.topic)):
            if topic is not None and DEVICE in topic and not self.groups:
                raise ValueError(f"{name}: there is a {DEVICE} in it, and none in the topic of the channels")
        return self

    @property
    def proof(self) -> int:
        """Nanoseconds for which a sign of life counts."""
        return _PROOF_NS if self.max_age is None else self.max_age

    @model_validator(mode="after")
    def _places_its_devices(self) -> Self:
        by_device = [DEVICE in self.topic_of(name) for name in self.channels]
        if any(by_device) and not all(by_device):
            without = list(self.channels)[by_device.index(False)]
            raise ValueError(
                f"channels.{without}: its topic has no {DEVICE}, and others have; give it its own source"
            )
        if any(by_device) and not self.groups:
            raise ValueError(
                f'topic: {DEVICE} wants to know its devices: devices = ["…"] where they are known, or '
                "max_devices, how many may appear"
            )
        if self.groups and self.channels and not any(by_device):
            key = "devices" if self.devices else "max_devices"
            raise ValueError(f"{key}: the topic has no {DEVICE}, as in plant/{DEVICE}/values")
        if self.max_devices is not None and self.max_devices < len(self.devices):
            raise ValueError(f"max_devices: there are {len(self.devices)} in `devices` already")
        each_once("devices", list(self.devices.values()))
        taken = [name for name in self.devices if re.fullmatch(_UNNAMED, name)]
        if self.max_devices is not None and taken:
            raise ValueError(f"devices: {taken[0]!r} is what a device is called that has no name here")
        if self.clock == "counted" and len(self.groups) > 1:
            raise ValueError(f'clock: "counted" is of one stream, and each {DEVICE} has its own')
        return self

    @property
    def groups(self) -> Mapping[str, str | None]:
        """By the name of each group of columns, the device in its topics: None is one that will appear.

        Empty where topics name no device.
        """
        unnamed = (self.max_devices or 0) - len(self.devices)
        return {**self.devices, **{f"device{number}": None for number in range(1, unnamed + 1)}}

    def topic_of(self, channel: str) -> str:
        """The topic of a channel, in which {device} may stand; empty if it has none."""
        return (self.channels[channel].topic or self.topic or "").replace(CHANNEL, channel)

    def channel_sections(self) -> Mapping[str, ChannelSection]:
        """All channels, by name; device by device, where there are devices."""
        if not self.groups:
            return self.channels
        return {f"{group}.{name}": each for group in self.groups for name, each in self.channels.items()}

    def subscriptions(self) -> "list[Subscription]":
        """What each message of a topic holds.

        Raises:
            ConfigError: a path is none of the payload's format.
        """
        grouped: dict[str, list[tuple[int, str]]] = {}
        for column, (name, channel) in enumerate(self.channels.items()):
            grouped.setdefault(self.topic_of(name), []).append((column, channel.path or name))
        time = [] if self.time is None else [self.time]
        return [
            Subscription(
                topic,
                tuple(column for column, _ in each),
                decoder(self.decode, [*(path for _, path in each), *time]),
            )
            for topic, each in grouped.items()
        ]

    def filters(self) -> list[str]:
        """What to subscribe to."""
        share = "" if self.share is None else f"$share/{self.share}/"
        topics = {share + self.topic_of(name): None for name in self.channels}
        signs = [self.heartbeat, self.status.topic if self.status else None]
        topics |= {each: None for each in signs if each is not None}
        known = self.devices.values() if self.devices and self.max_devices is None else ["+"]
        return list(dict.fromkeys(filter_of(each, device) for each in topics for device in known))


@dataclass(frozen=True, slots=True)
class Subscription:
    """A topic, filter or template, and what its messages are made of."""

    topic: str
    columns: tuple[int, ...]
    """Counted within a device's, where the topic has {device}."""
    decoder: Decoder

    @property
    def by_device(self) -> bool:
        """Whether each device has its own."""
        return DEVICE in self.topic

    @property
    def wild(self) -> bool:
        """Whether it takes more than one topic."""
        return "+" in self.topic or "#" in self.topic
