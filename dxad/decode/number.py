"""A bare number as text: `12.5`."""

import math
import re
from collections.abc import Sequence
from typing import Final, Literal

from dxad.decode import DecodeSection
from dxad.errors import ConfigError, DecodeError
from dxad.plugin import Plugin

__all__ = ["PLUGIN", "Config", "Number"]

_NUMBER: Final = re.compile(rb"\s*[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?\s*")
_NOTHING: Final = {b"", b"nan", b"null", b"none", b"inf", b"+inf", b"-inf", b"infinity", b"-infinity"}
_TOLD: Final = 20


class Config(DecodeSection):
    """`decode = { kind = "number" }`."""

    kind: Literal["number"] = "number"


class Number:
    """The whole payload is the value of its one channel."""

    def __init__(self, config: Config, paths: Sequence[str]) -> None:
        """Know whose number it is; what the channel is called plays no part.

        Raises:
            ConfigError: several channels want one number.
        """
        if len(paths) != 1:
            raise ConfigError(f"a bare number is of one channel, not of {', '.join(paths)}")
        self._max = config.max_payload

    def decode(self, payload: bytes) -> list[float | None]:
        """Its number; None where it is empty, or a word for no number.

        Raises:
            DecodeError: it is anything else, or too large.
        """
        if len(payload) > self._max:
            raise DecodeError(f"payload of {len(payload)} bytes is larger than {self._max}")
        if _NUMBER.fullmatch(payload):
            number = float(payload)
            return [number if math.isfinite(number) else None]
        if payload.strip().lower() in _NOTHING:
            return [None]
        raise DecodeError(f"{payload[:_TOLD].decode(errors='replace')!r} is no number")


PLUGIN = Plugin(Config, Number)
