"""What a configuration says of an MQTT sink."""

from typing import Annotated, Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator

from dxad.errors import ConfigError
from dxad.fields import Duration, Secret
from dxad.links.mqttdial import Versions
from dxad.links.tls import TlsSection
from dxad.sinks.mqtt.topic import PLACES, TopicTemplate
from dxad.sinksection import SinkSection
from dxad.types import NS_PER_S

__all__ = ["PORTS", "Config"]

PORTS: Final = {"mqtt": 1883, "mqtts": 8883}
"""By the scheme of the url."""


def _topic(text: str, places: tuple[str, ...] = PLACES) -> str:
    try:
        TopicTemplate(text, places=places)
    except ConfigError as error:
        raise ValueError(str(error)) from error
    return text


def _status(text: str) -> str:
    return _topic(text, ("gateway",)) if text else text


class Config(SinkSection):
    """`type = "mqtt"`, `url = "mqtts://broker:8883"`, `topic = "dxad/{gateway}/{lane}/{type}"`."""

    names_gateway = True

    type: Literal["mqtt"]
    url: str = Field(description="mqtt://host:port, or mqtts://host:port for TLS")
    tls: TlsSection = Field(
        TlsSection(), validate_default=True, description="of mqtts: whom to trust, and who we are"
    )
    topic: Annotated[str, AfterValidator(_topic)] = Field(
        "dxad/{gateway}/{lane}/{type}",
        min_length=1,
        description="where events are published, with {gateway}, {lane}, {type}, {pipeline}, {severity} and "
        "{id}; a topic that a source reads is refused",
    )
    status: Annotated[str, AfterValidator(_status)] = Field(
        "dxad/{gateway}/status",
        description="where the broker keeps whether the gateway is there: online, or offline, which is its "
        'last will as well; "" for nowhere',
    )
    mode: Literal["structured", "binary"] = Field(
        "structured",
        description="the whole event in JSON, or its data alone, with all else in user properties (MQTT 5)",
    )
    retain: bool = Field(False, description="whether the broker keeps the last event of each topic")
    version: Versions = Field(
        "auto", description="of the protocol; auto: 5, or 3.1.1 where the broker refuses that"
    )
    in_flight: int = Field(
        100, ge=1, le=65_535, description="events under way at most; fewer, where the broker says so"
    )
    timeout: Duration = Field(
        10 * NS_PER_S, gt=0, description="how long the broker may acknowledge nothing of what is under way"
    )
    client_id: str | None = Field(
        None,
        min_length=1,
        description="default: dxad-, the gateway's id, the sink's name and a random number",
    )
    keep_alive: Duration = Field(
        15 * NS_PER_S,
        ge=4 * NS_PER_S,
        le=3600 * NS_PER_S,
        multiple_of=NS_PER_S,
        description="how long a broker may be silent before it is asked whether it is there",
    )
    username: str | None = Field(None, description="for brokers that want one")
    password: Secret | None = Field(None, description="a secret by reference")

    @property
    def secured(self) -> TlsSection | None:
        """How to speak TLS, if at all."""
        return self.tls if self.url.startswith("mqtts:") else None

    @model_validator(mode="after")
    def _fits(self) -> Self:
        split = urlsplit(self.url)
        if split.scheme not in PORTS or not split.hostname or split.port == 0:
            raise ValueError(f"url: {self.url!r} is not mqtt://host:port or mqtts://host:port")
        if self.secured is None and self.tls != TlsSection():
            raise ValueError("tls: the url is mqtt://, which is not encrypted; mqtts:// is")
        if self.version == "3.1.1" and self.password is not None and self.username is None:
            raise ValueError("password: MQTT 3.1.1 has none without a username")
        if self.version == "3.1.1" and self.mode == "binary":
            raise ValueError("mode: binary needs the user properties of MQTT 5")
        return self

    def topics(self) -> tuple[str, ...]:
        """Where it publishes, with places in braces."""
        return (self.topic, self.status) if self.status else (self.topic,)
