"""MessagePack maps: a path per channel, as in JSON."""

import math
from collections.abc import Sequence
from typing import Any, Literal

import msgpack

from dxad.decode import DecodeSection, Path, follow, path_of
from dxad.errors import DecodeError
from dxad.plugin import Plugin

__all__ = ["PLUGIN", "Config", "Msgpack"]


class Config(DecodeSection):
    """`decode = { kind = "msgpack" }`."""

    kind: Literal["msgpack"] = "msgpack"


class Msgpack:
    """Finds each channel's number in a map."""

    def __init__(self, config: Config, paths: Sequence[str]) -> None:
        """Look for `paths`, one per channel.

        Raises:
            ConfigError: a path is written wrong.
        """
        self._max = config.max_payload
        self._paths: list[Path] = [path_of(path) for path in paths]

    def decode(self, payload: bytes) -> list[float | None]:
        """Each channel's number; None where it is missing, or is not a finite number.

        Raises:
            DecodeError: the payload is no map, or too large.
        """
        if len(payload) > self._max:
            raise DecodeError(f"payload of {len(payload)} bytes is larger than {self._max}")
        try:
            document = msgpack.unpackb(payload, strict_map_key=False)
        except (ValueError, msgpack.exceptions.UnpackException) as error:
            raise DecodeError(f"not MessagePack: {error or type(error).__name__}") from error
        if not isinstance(document, dict):
            raise DecodeError(f"a MessagePack {type(document).__name__}, not a map")
        return [_number(follow(document, path)) for path in self._paths]


def _number(value: Any) -> float | None:
    """Booleans and strings are not numbers, whatever they look like."""
    if type(value) is float or type(value) is int:
        number = float(value)
        return number if math.isfinite(number) else None
    return None


PLUGIN = Plugin(Config, Msgpack)
