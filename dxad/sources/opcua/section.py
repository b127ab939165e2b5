"""What a configuration says of an OPC-UA server: where it is, who we are to it, and what is read how."""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from dxad.fields import ChannelSection, Duration, Identifier, Secret, SourceSection
from dxad.sources.opcua.node import NodeName
from dxad.types import NS_PER_S

__all__ = ["Config", "OpcuaChannel", "Policy"]

Policy = Literal["none", "Basic256Sha256", "Aes128_Sha256_RsaOaep", "Aes256_Sha256_RsaPss"]
"""A security policy (OPC 10000-7, 6.6). Basic128Rsa15 and Basic256 are broken, and not to be had."""

_TIMEOUT = 4 * NS_PER_S


class OpcuaChannel(ChannelSection):
    """One variable."""

    node: str = Field(description="s=Name, i=42, or nsu=URI;s=Name")

    @field_validator("node")
    @classmethod
    def _parses(cls, node: str) -> str:
        NodeName.parse(node)
        return node

    @property
    def name(self) -> NodeName:
        """The node."""
        return NodeName.parse(self.node)


class Config(SourceSection):
    """`type = "opcua"`, `url = "opc.tcp://10.0.0.7:4840/path"`, `namespace = "urn:vendor:machine"`."""

    stamped = True
    keeps_state = True

    type: Literal["opcua"]
    url: str = Field(description="opc.tcp://host:port/path")
    namespace: str | None = Field(None, description="URI of the namespace of the nodes that name none")
    timeout: Duration = Field(_TIMEOUT, gt=0, description="how long the server may take to answer")
    security: Policy = Field("none", description="the policy by which messages are signed and encrypted")
    security_mode: Literal["sign", "sign_and_encrypt"] = Field(
        "sign_and_encrypt", description="whether messages are signed alone"
    )
    server_certificate: Path | None = Field(
        None,
        strict=False,
        description="PEM or DER file of the only certificate the server may have; default: the first that "
        "is seen, kept in the state directory",
    )
    certificate: Path | None = Field(
        None,
        strict=False,
        description="PEM or DER file of our own; default: one that is made once, and kept in the state "
        "directory",
    )
    key: Path | None = Field(None, strict=False, description="PEM file of its private key")
    username: str | None = Field(None, min_length=1, description="default: anonymous")
    password: Secret | None = Field(None, description="by reference")
    plain_password: bool = Field(
        False, description="whether the password may go over the wire as it is, where the server wants that"
    )
    user_certificate: Path | None = Field(
        None, strict=False, description="PEM or DER file of a user's certificate to log in by"
    )
    user_key: Path | None = Field(None, strict=False, description="PEM file of its private key")
    publish_interval: Duration = Field(
        NS_PER_S // 10, gt=0, description="how often the server sends what changed"
    )
    channels: dict[Identifier, OpcuaChannel] = Field({}, description="by name")

    @field_validator("url")
    @classmethod
    def _address(cls, url: str) -> str:
        split = urlsplit(url)
        if split.username is not None or split.password is not None:
            raise ValueError("a user does not stand in the url: give username and password")
        if split.scheme != "opc.tcp" or not split.hostname or not split.port:
            raise ValueError(f"{url!r} is not opc.tcp://host:port/path")
        return url

    @model_validator(mode="after")
    def _together(self) -> Self:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate and key belong together")
        if (self.user_certificate is None) != (self.user_key is None):
            raise ValueError("user_certificate and user_key belong together")
        if (self.username is None) != (self.password is None):
            raise ValueError("username and password belong together")
        if self.username is not None and self.user_certificate is not None:
            raise ValueError("log in by username or by user_certificate, not by both")
        if self.security == "none":
            for key in ("server_certificate", "certificate", "user_certificate"):
                if getattr(self, key) is not None:
                    raise ValueError(f'{key}: security = "none" proves nothing by it; choose a policy')
        return self

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        split = urlsplit(self.url)
        assert split.hostname is not None
        assert split.port is not None
        return split.hostname, split.port

    def channel_sections(self) -> Mapping[str, ChannelSection]:
        """All channels, by name."""
        return self.channels
