"""What a configuration says of the gateway itself, and of what it tells of itself."""

from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from dxad.fields import Duration, Identifier, Section
from dxad.types import NS_PER_S

__all__ = ["GatewaySection"]


def _off(value: object) -> object:
    return "0s" if value == "off" or (value == 0 and not isinstance(value, bool)) else value


def _paced(value: int) -> int:
    if 0 < value < NS_PER_S:
        raise ValueError('is at least "1s"; "off" turns it off')
    return value


class GatewaySection(Section):
    """Who this gateway is, and what it tells of itself."""

    id: Identifier = Field("dxad", description="the name of this gateway in every event")
    heartbeat: Annotated[Duration, AfterValidator(_paced), BeforeValidator(_off)] = Field(
        300 * NS_PER_S,
        description='how often an event says that the gateway is alive; "off" for never',
        examples=["5min", "off"],
    )
    tell: tuple[Literal["error", "warning"], ...] = Field(
        ("error",),
        strict=False,
        description="what is wrong with the gateway is told in events too, if it is so bad; [] for never",
    )
    tell_after: Annotated[Duration, Field(ge=0)] = Field(
        10 * NS_PER_S,
        description="once it has lasted so long, its end likewise; longer for what comes and goes",
    )
