"""JSON objects: a path per channel, such as `motor.current` or `phases[0].i`."""

from collections.abc import Sequence
from typing import Any, Final, Literal

import orjson

from dxad.decode import PAYLOAD_MAX, DecodeSection, Path, follow, path_of
from dxad.errors import DecodeError
from dxad.plugin import Plugin

__all__ = ["PLUGIN", "Config", "Json", "discover"]

_DISCOVER_MAX: Final = 64


class Config(DecodeSection):
    """`decode = { kind = "json" }`."""

    kind: Literal["json"] = "json"


class Json:
    """Finds each channel's number in an object."""

    def __init__(self, config: Config, paths: Sequence[str]) -> None:
        """Look for `paths`, one per channel.

        Raises:
            ConfigError: a path is written wrong.
        """
        self._max = config.max_payload
        self._paths: list[Path] = [path_of(path) for path in paths]

    def decode(self, payload: bytes) -> list[float | None]:
        """Each channel's number; None where it is missing, or is not a finite number.

        Booleans and strings are not numbers, whatever they look like.

        Raises:
            DecodeError: the payload is no JSON object, or too large.
        """
        document = _parse(payload, self._max)
        return [
            _number(document.get(path[0]) if len(path) == 1 else follow(document, path))
            for path in self._paths
        ]


def discover(payload: bytes) -> list[str]:
    """The numeric top-level fields of an object, sorted, 64 at most.

    Raises:
        DecodeError: the payload is no JSON object, or too large.
    """
    document = _parse(payload, PAYLOAD_MAX)
    return sorted(name for name, value in document.items() if _number(value) is not None)[:_DISCOVER_MAX]


def _parse(payload: bytes, most: int) -> dict[Any, Any]:
    if len(payload) > most:
        raise DecodeError(f"payload of {len(payload)} bytes is larger than {most}")
    try:
        document = orjson.loads(payload)
    except orjson.JSONDecodeError as error:
        raise DecodeError(f"not JSON: {error}") from error
    if not isinstance(document, dict):
        raise DecodeError(f"a JSON {type(document).__name__}, not an object")
    return document


def _number(value: Any) -> float | None:
    """Of what orjson makes: it has no infinities, and larger integers than an int64 holds are floats."""
    if type(value) is float:
        return value
    return float(value) if type(value) is int else None


PLUGIN = Plugin(Config, Json)
