"""From the bytes of a message to a number per channel: one file per format.

A decoder is made of its config and what the channels are called in its format, and is pure:
`decode(payload) -> [number or None per channel]`, or DecodeError for a payload that is none of its format.
"""

from collections.abc import Sequence
from typing import Annotated, Final, Protocol

from pydantic import Field

from dxad import plugin
from dxad.fields import Section, Size

__all__ = ["PAYLOAD_MAX", "DecodeSection", "DecodeTable", "Decoder", "decoder"]

PAYLOAD_MAX: Final = 256 * 1024
"""Bytes; the default bound of a message."""


class Decoder(Protocol):
    """What every decoder offers."""

    def decode(self, payload: bytes) -> Sequence[float | None]:
        """Each channel's number; None where it is missing or no finite number.

        Raises:
            DecodeError: the payload is malformed, or larger than `max_payload`.
        """


class DecodeSection(Section):
    """What is said of every decoder; each kind adds its own."""

    kind: str
    max_payload: Annotated[Size, Field(gt=0)] = Field(PAYLOAD_MAX, description="larger messages are rejected")


DecodeTable = Annotated[DecodeSection, plugin.section("decode", DecodeSection, key="kind")]
"""The type of a key `decode = { kind = "json" }`."""


def decoder(section: DecodeSection, paths: Sequence[str]) -> Decoder:
    """Make the decoder that `section` describes, for channels that its format calls `paths`.

    Raises:
        ConfigError: a path is none of this format.
    """
    made: Decoder = plugin.load("decode", section.kind).build(section, paths)
    return made
