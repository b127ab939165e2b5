"""What a configuration says of an OPC-UA server: where it is, who we are to it, and what is read how."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from dxad.fields import ChannelSection, Duration, Identifier, Secret, SourceSection
from dxad.sources.opcua.browsing import is_pattern, parts_of
from dxad.sources.opcua.element import Element, elements_of
from dxad.sources.opcua.node import NodeName
from dxad.types import NS_PER_S

__all__ = ["Config", "OpcuaChannel", "Policy"]

Policy = Literal["none", "Basic256Sha256", "Aes128_Sha256_RsaOaep", "Aes256_Sha256_RsaPss"]
"""A security policy (OPC 10000-7, 6.6). Basic128Rsa15 and Basic256 are broken, and not to be had."""

_TIMEOUT: Final = 4 * NS_PER_S
_COUNT_MOST: Final = 1000
_QUEUE_MOST: Final = 10_000


class OpcuaChannel(ChannelSection):
    """One variable; or, with `count`, as many as a pattern finds."""

    node: str | None = Field(
        None, description="s=Name, i=42, or nsu=URI;s=Name; with browse, where its way begins"
    )
    browse: str | None = Field(
        None,
        description="the way to the variable by browse names, such as Objects/Pump1/Temperature; * and ? "
        "stand for others",
    )
    count: int | None = Field(
        None,
        gt=0,
        le=_COUNT_MOST,
        description="how many variables the pattern may find: channels NAME_1 to NAME_count",
    )
    index: Annotated[int, Field(ge=0)] | str | None = Field(
        None,
        description='the element of an array, from 0, or of a matrix ("1,2"); a range, "0:3", makes channels '
        "NAME_0 to NAME_3",
    )
    deadband: float | None = Field(
        None, gt=0, strict=False, allow_inf_nan=False, description="changes that the server keeps to itself"
    )
    deadband_kind: Literal["absolute", "percent"] = Field(
        "absolute",
        description="whether the deadband is in the value's unit or a share of its range (EURange)",
    )
    sampling_interval: Annotated[Duration, Field(gt=0)] | None = Field(
        None, description="how often the server looks at the variable; default: the source's"
    )
    queue_size: int | None = Field(
        None, ge=1, le=_QUEUE_MOST, description="values the server keeps between two publications"
    )

    @field_validator("node")
    @classmethod
    def _is_node(cls, node: str | None) -> str | None:
        if node is not None:
            NodeName.parse(node)
        return node

    @field_validator("browse")
    @classmethod
    def _is_way(cls, browse: str | None) -> str | None:
        if browse is not None:
            parts_of(browse)
        return browse

    @field_validator("index")
    @classmethod
    def _is_index(cls, index: int | str | None) -> int | str | None:
        if index is not None:
            elements_of(index)
        return index

    @model_validator(mode="after")
    def _found(self) -> Self:
        if self.node is None and self.browse is None:
            raise ValueError("node is missing, or browse: which variable is it?")
        if self.browse is None:
            if self.count is not None:
                raise ValueError("count is of what a browse pattern finds")
        elif is_pattern(self.browse) and self.count is None:
            raise ValueError(f"count is missing: how many variables {self.browse!r} may find")
        if self.count is not None and len(self.elements) > 1:
            raise ValueError("index: one element of each variable that a pattern finds; this is a range")
        return self

    @property
    def elements(self) -> list[Element] | list[None]:
        """The elements of its array that are channels; or that it is none."""
        return [None] if self.index is None else elements_of(self.index)

    def names(self, key: str) -> list[str]:
        """The channels that it makes, under its key."""
        if self.count is not None:
            return [f"{key}_{number}" for number in range(1, self.count + 1)]
        if len(self.elements) == 1:
            return [key]
        return ["_".join((key, *map(str, each or ()))) for each in self.elements]

    @property
    def name(self) -> NodeName | None:
        """The node, or the one at which the way to it begins."""
        return None if self.node is None else NodeName.parse(self.node)


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
    mode: Literal["subscribe", "poll"] = Field(
        "subscribe", description="whether the server tells what changes, or is asked for all once per period"
    )
    publish_interval: Duration = Field(
        NS_PER_S // 10, gt=0, description="how often the server sends what changed"
    )
    sampling_interval: Annotated[Duration, Field(gt=0)] | None = Field(
        None, description="how often the server looks at a variable; default: half the publish_interval"
    )
    queue_size: int = Field(
        10, ge=1, le=_QUEUE_MOST, description="values of a variable the server keeps between two publications"
    )
    history: Literal["auto"] | bool = Field(
        "auto",
        description="whether what was missed in an outage is read from the server's history, where it keeps "
        "one; true: that it keeps none is told",
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

    @model_validator(mode="after")
    def _asked_or_told(self) -> Self:
        if self.mode == "poll":
            for name, channel in self.channels.items():
                if channel.deadband is not None:
                    raise ValueError(f'channels.{name}: a deadband is of subscriptions, and mode = "poll"')
        if self.history is True and self.clock == "counted":
            raise ValueError('history: with clock = "counted", samples have no other time than their number')
        made = [name for key, channel in self.channels.items() for name in channel.names(key)]
        if len(self.channel_sections()) < len(made):
            raise ValueError("channels: a count, or an index, makes a channel that there is already")
        return self

    @property
    def polled(self) -> bool:  # type: ignore[override] # of other sources it is the class that says so
        """Whether it asks on the grid."""
        return self.mode == "poll"

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        split = urlsplit(self.url)
        assert split.hostname is not None
        assert split.port is not None
        return split.hostname, split.port

    def channel_sections(self) -> Mapping[str, ChannelSection]:
        """All channels, by name; those of a pattern and of a range are numbered."""
        return {name: channel for key, channel in self.channels.items() for name in channel.names(key)}
