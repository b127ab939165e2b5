"""From the bytes of a message to a number per channel: one file per format.

A decoder is made of its config and what the channels are called in its format, and is pure:
`decode(payload) -> [number or None per channel]`, or DecodeError for a payload that is none of its format.
"""

import re
from collections.abc import Sequence
from typing import Annotated, Any, Final, Protocol

from pydantic import Field

from dxad import plugin
from dxad.errors import ConfigError
from dxad.fields import Section, Size

__all__ = [
    "PAYLOAD_MAX",
    "DecodeSection",
    "DecodeTable",
    "Decoder",
    "Path",
    "decoder",
    "follow",
    "path_of",
]

PAYLOAD_MAX: Final = 256 * 1024
"""Bytes; the default bound of a message."""

Path = tuple[str | int, ...]
"""The steps to a value in a document: names in objects, places in arrays."""

_STEP: Final = re.compile(r"([^.\[\]]+)|\[(\d{1,6})\]")
_PATH: Final = re.compile(r"[^.\[\]]+(?:\.[^.\[\]]+|\[\d{1,6}\])*")


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


def path_of(text: str) -> Path:
    """Read a path such as `motor.current` or `phases[0].i`.

    Raises:
        ConfigError: it is written wrong.
    """
    if not _PATH.fullmatch(text):
        raise ConfigError(f"{text!r} is no path such as motor.current or phases[0].i")
    return tuple(int(found[2]) if found[2] else found[1] for found in _STEP.finditer(text))


def follow(node: Any, path: Path) -> Any:
    """What stands at the end of a path; None where there is nothing."""
    for step in path:
        if isinstance(step, str):
            node = node.get(step) if isinstance(node, dict) else None
        else:
            node = node[step] if isinstance(node, list) and step < len(node) else None
    return node
