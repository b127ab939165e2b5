"""What a scenario may say of an OPC-UA wire: a server with its security and logins, and the nodes of devices.

[wires.drive]
type = "opcua"
port = 14840
path = "pump-skid"
security = ["None", "Basic256Sha256"]
users = { operator = "secret" }
[wires.drive.devices.drive]
namespace = "urn:hw-sim:pump-skid"
object = "Pump"
period = "100ms"
[wires.drive.devices.drive.nodes]
power = { node = "s=Pump.Power", kind = "Double", channel = "drive.power", history = true }
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, ClassVar, Final, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from hw_sim.section import Duration, Name, Port, Section, WireSection

__all__ = ["Device", "Kind", "Node", "Security", "Settings"]

Kind = Literal[
    "Boolean", "SByte", "Byte", "Int16", "UInt16", "Int32", "UInt32", "Int64", "UInt64", "Float", "Double",
    "String",
]  # fmt: skip
"""A built-in type of OPC-UA (OPC 10000-6, 5.1.2)."""

Security = Literal["None", "Basic256Sha256", "Aes128Sha256RsaOaep", "Aes256Sha256RsaPss"]
"""A security policy (OPC 10000-7, 6.6); all but None are offered in Sign and in SignAndEncrypt."""

_OWN: Final = "http://opcfoundation.org/UA/"


def _namespace(uri: str) -> str:
    if uri == _OWN:
        raise ValueError("that is the standard's own namespace")
    return uri


class Node(Section):
    """A variable."""

    node: str = Field(pattern=r"^(s=.+|i=\d{1,9})$")
    """Its identifier in the namespace of its device: `s=` and a text, or `i=` and a number."""
    kind: Kind
    """The type of its value. Integers are rounded and held at the ends of their range, a Boolean is on from
    one half."""
    channel: str = ""
    """Of a plant; by default `DEVICE.NAME`."""
    history: bool = False
    """Whether its past can be read (HistoryRead), as far back as the device's `history` says."""
    array: int | None = Field(default=None, ge=1, le=100_000)
    """It shows so many of the channel's last readings, the oldest first, as an array."""

    @property
    def identifier(self) -> str | int:
        """As OPC-UA has it."""
        return int(self.node[2:]) if self.node[0] == "i" else self.node[2:]


class Device(Section):
    """A folder of variables."""

    namespace: Annotated[str, Field(min_length=1), AfterValidator(_namespace)]
    """Its URI; the server gives it an index."""
    object: str = ""
    """The object that has the variables, below Objects, and its identifier. By default, the device's name."""
    period: Annotated[Duration, Field(gt=0)] = 0.1
    """Its variables are written so often, in the plant's time, if they have changed."""
    phase: Annotated[Duration, Field(ge=0)] = 0.0
    """When they are first; devices of one period and several phases are written in turn."""
    history: Annotated[Duration, Field(gt=0)] = 600.0
    """How far back the variables with history can be read."""
    nodes: Mapping[Name, Node] = Field(min_length=1)


class Settings(WireSection):
    """An OPC-UA server on loopback."""

    type: Literal["opcua"] = "opcua"
    holds: ClassVar[str] = "nodes"
    port: Port = 4840
    path: str = Field(default="", pattern=r"^[A-Za-z0-9._~/-]*$")
    """Of the endpoint: `opc.tcp://127.0.0.1:PORT/PATH`."""
    security: tuple[Security, ...] = Field(default=("None",), min_length=1)
    """What a client may choose from."""
    users: Mapping[str, Annotated[str, Field(min_length=1)]] = Field(default_factory=dict)
    """Who may log in, with the password."""
    certificates: bool = False
    """Whether a user may log in by a certificate that is trusted: one of `trusted` below `pki`, such as the
    client's that is there already, or of the folder `trusted`."""
    trusted: Path | None = None
    """A folder of further certificates, `*.pem` or `*.der`. With it, users may log in by certificate, and a
    client's own certificate must be a trusted one, too."""
    anonymous: bool | None = None
    """Whether a client may come without a login; by default, if there is no other."""
    pki: Path | None = None
    """The folder of keys and certificates: the server's, and `client.pem` with `client-key.pem`, ready to be
    used by clients and users. What is not there is made and kept. By default in the folder for temporary
    files, by the port."""
    devices: Mapping[Name, Device] = Field(min_length=1)

    @property
    def fields(self) -> Mapping[str, Mapping[str, str]]:
        """By device, the plant's channel of each of its variables."""
        return {
            name: {each: node.channel or f"{name}.{each}" for each, node in device.nodes.items()}
            for name, device in self.devices.items()
        }

    @property
    def by_certificate(self) -> bool:
        """Whether users may log in by certificate."""
        return self.certificates or self.trusted is not None

    @property
    def by_nothing(self) -> bool:
        """Whether a client may come without a login."""
        return not (self.users or self.by_certificate) if self.anonymous is None else self.anonymous

    @property
    def has_keys(self) -> bool:
        """Whether the server needs a certificate."""
        return self.security != ("None",)

    @model_validator(mode="after")
    def _able(self) -> Self:
        if len(set(self.security)) < len(self.security):
            raise ValueError("security names a policy twice")
        if self.by_certificate and not self.has_keys:
            raise ValueError('a login by certificate needs a security policy beside "None" to be signed by')
        if not (self.by_nothing or self.users or self.by_certificate):
            raise ValueError("nobody may log in: give users, certificates = true or anonymous = true")
        return self

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        owner: dict[tuple[str, str | int], str] = {}
        for name, device in self.devices.items():
            places = {f"nodes.{each}": node.identifier for each, node in device.nodes.items()}
            for place, identifier in {"object": device.object or name, **places}.items():
                there = owner.setdefault((device.namespace, identifier), f"{name}.{place}")
                if there != f"{name}.{place}":
                    raise ValueError(
                        f"devices.{name}.{place}: devices.{there} has the identifier {identifier!r}, too"
                    )
        return self
