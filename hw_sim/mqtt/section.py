"""What a scenario may say of an MQTT wire: `[wires.X]` with `type = "mqtt"`, and `[wires.X.devices.Y]`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from hw_sim.section import Duration, Name, Port, Section, WireSection

__all__ = ["DeviceSection", "Payload", "Settings", "Topic"]

_TOPIC_MAX: Final = 65_535

Payload = Literal["json", "csv", "msgpack", "binary", "number"]


def _topic(value: str) -> str:
    """MQTT 5.0, section 4.7: what one may publish on."""
    if not value or len(value.encode()) > _TOPIC_MAX:
        raise ValueError("a topic has 1 to 65535 bytes")
    if any(each in value for each in "+#\0"):
        raise ValueError(f"{value!r}: one publishes on a topic without wildcards, such as plant/motor")
    return value


Topic = Annotated[str, AfterValidator(_topic)]


class DeviceSection(Section):
    """A device that publishes what its sensors show."""

    topic: Topic
    """Where it publishes."""
    period: Duration = Field(gt=0)
    """From one sample to the next, in the plant's time."""
    phase: Duration = Field(default=0.0, ge=0)
    """When the first is; devices of one period and several phases send in turn."""
    fields: dict[str, Annotated[str, Field(min_length=1)]] = Field(min_length=1)
    """The plant's channel of each field of a sample, in their order."""
    version: Literal["5", "3.1.1"] = "5"
    """The protocol that it speaks; who reads may speak the other."""
    qos: Literal[0, 1] = 1
    retain: bool = False
    payload: Payload = "json"
    """An object in JSON or msgpack; values with commas between them; a packed struct; one number as text."""
    time: str = ""
    """The name of the field with the time of the sample in unix seconds; empty: none. Where fields have no
    names, it comes first."""
    samples: int = Field(default=1, ge=1, le=10_000)
    """How many a message carries, as a JSON array of objects."""
    decimals: int = Field(default=4, ge=0, le=17)
    """To which values are rounded, but for binary messages; 17 leaves them as they are."""
    encoding: Literal["float32", "float64"] = "float32"
    """Of each value of a binary message; its time is a float64."""
    byte_order: Literal["little", "big"] = "little"
    """Of a binary message."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.samples > 1 and self.payload != "json":
            raise ValueError(f'samples = {self.samples}: several in a message are for payload = "json"')
        if self.samples > 1 and not self.time:
            raise ValueError(
                f"samples = {self.samples}: each sample has its own time; name its field with `time`"
            )
        if self.payload == "number" and (len(self.fields) > 1 or self.time):
            raise ValueError('payload = "number" is one field, without a time')
        if self.time in self.fields:
            raise ValueError(f"{self.time!r} is both the time and a field")
        return self


class Settings(WireSection):
    """A broker with devices that publish to it."""

    type: Literal["mqtt"]
    port: Port
    """For clients of MQTT 5 and 3.1.1 alike."""
    tls_port: Port | None = None
    """For clients with TLS, if there shall be any."""
    pki: Path | None = None
    """The folder of the certificates, which are made if they are not there: `ca.pem`, `server.pem`,
    `client.pem` and the keys of the last two; if it is not said, one among the temporary files."""
    client_certificate: Literal["optional", "required"] = "optional"
    """Whether a client with TLS must show a certificate of this authority."""
    users: dict[str, str] = Field(default_factory=dict)
    """Passwords by user name; if there are any, a client must log in."""
    broker: str = Field(default="", pattern=r"^(.+:[0-9]{1,5})?$")
    """HOST:PORT of somebody else's broker, plain and of both versions, that stands behind `port` instead of
    our own; devices log in to it as the first of `users`."""
    devices: dict[Name, DeviceSection] = Field(min_length=1)

    @property
    def fields(self) -> Mapping[str, Mapping[str, str]]:
        """By device, the plant's channel of each of its fields."""
        return {name: device.fields for name, device in self.devices.items()}

    @property
    def elsewhere(self) -> tuple[str, int] | None:
        """Host and port of somebody else's broker."""
        host, _, port = self.broker.rpartition(":")
        return (host.strip("[]"), int(port)) if host else None

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.tls_port is None and (self.pki is not None or self.client_certificate == "required"):
            raise ValueError("pki and client_certificate are for a tls_port")
        if self.tls_port is not None and self.tls_port == self.port != 0:
            raise ValueError(f"port and tls_port are both {self.port}")
        if self.elsewhere is not None and not 0 < self.elsewhere[1] < 1 << 16:
            raise ValueError(f"broker = {self.broker!r}: no such port")
        return self
