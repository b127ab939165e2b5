"""From the bytes of a message to a number per channel: one file per format.

A decoder is made of its config and what the channels are called in its format, and is pure:
`decode(payload) -> [number or None per channel]`, or DecodeError for a payload that is none of its format.
"""

from collections.abc import Sequence
from typing import Final, Protocol

__all__ = ["PAYLOAD_MAX", "Decoder"]

PAYLOAD_MAX: Final = 256 * 1024
"""Bytes; the default bound of a message."""


class Decoder(Protocol):
    """What every decoder offers."""

    def decode(self, payload: bytes) -> Sequence[float | None]:
        """Each channel's number; None where it is missing or no finite number.

        Raises:
            DecodeError: the payload is malformed.
        """
