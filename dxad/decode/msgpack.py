"""MessagePack maps: a path per channel, as in JSON; or arrays of such."""

import math
from collections.abc import Sequence
from typing import Any, Literal

import msgpack
from pydantic import Field

from dxad.decode import WHOLE, ArraySamples, DecodeSection, Path, PathText, bounded, follow, path_of
from dxad.errors import DecodeError
from dxad.plugin import Plugin

__all__ = ["PLUGIN", "Config", "Msgpack"]


class Config(DecodeSection):
    """`decode = { kind = "msgpack" }`."""

    kind: Literal["msgpack"] = "msgpack"
    samples: PathText | None = Field(None, description="the path of an array of samples, as in JSON")

    @property
    def sampled(self) -> bool:
        """Whether a message holds several samples."""
        return self.samples is not None


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
        document = _parse(payload, self._max)
        if not isinstance(document, dict):
            raise DecodeError(f"a MessagePack {type(document).__name__}, not a map")
        return [_number(follow(document, path)) for path in self._paths]


def _parse(payload: bytes, most: int) -> Any:
    try:
        return msgpack.unpackb(bounded(payload, most), strict_map_key=False)
    except (
        ValueError,
        TypeError,
        msgpack.exceptions.UnpackException,
    ) as error:  # a map may be a key: TypeError
        raise DecodeError(f"not MessagePack: {error or type(error).__name__}") from error


def _number(value: Any) -> float | None:
    """Booleans and strings are not numbers, whatever they look like."""
    if type(value) is float or type(value) is int:
        number = float(value)
        return number if math.isfinite(number) else None
    return None


def _built(config: Config, paths: Sequence[str]) -> Msgpack | ArraySamples:
    if not config.sampled:
        return Msgpack(config, paths)
    most = config.max_payload
    return ArraySamples(lambda payload: _parse(payload, most), _number, config.samples or WHOLE, paths)


PLUGIN = Plugin(Config, _built)
