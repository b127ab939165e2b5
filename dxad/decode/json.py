"""JSON objects: a path per channel, such as `motor.current` or `phases[0].i`; or arrays of such."""

import operator
from collections.abc import Callable, Sequence
from typing import Any, Final, Literal

import orjson
from pydantic import Field

from dxad.decode import (
    PAYLOAD_MAX,
    WHOLE,
    ArraySamples,
    DecodeSection,
    Path,
    PathText,
    bounded,
    follow,
    path_of,
)
from dxad.errors import DecodeError
from dxad.plugin import Plugin

__all__ = ["PLUGIN", "Config", "Json", "discover"]

_DISCOVER_MAX: Final = 64


class Config(DecodeSection):
    """`decode = { kind = "json" }`."""

    kind: Literal["json"] = "json"
    samples: PathText | None = Field(
        None,
        description="the path of an array of samples, . for the whole message: then the channels' paths, and "
        "that of the time, begin at each sample",
    )

    @property
    def sampled(self) -> bool:
        """Whether a message holds several samples."""
        return self.samples is not None


class Json:
    """Finds each channel's number in an object."""

    def __init__(self, config: Config, paths: Sequence[str]) -> None:
        """Look for `paths`, one per channel.

        Raises:
            ConfigError: a path is written wrong.
        """
        self._paths: list[Path] = [path_of(path) for path in paths]
        self.max_payload = config.max_payload
        self.load: Callable[[bytes], Any] = orjson.loads
        self.find = _finder(self._paths)
        """What stands at each path, whatever it is; see `Picking`."""

    def decode(self, payload: bytes) -> list[float | None]:
        """Each channel's number; None where it is missing, or is not a finite number.

        Booleans and strings are not numbers, whatever they look like.

        Raises:
            DecodeError: the payload is no JSON object, or too large.
        """
        document = _object(_parse(payload, self.max_payload))
        return [
            _number(document.get(path[0]) if len(path) == 1 else follow(document, path))
            for path in self._paths
        ]


def discover(payload: bytes) -> list[str]:
    """The numeric top-level fields of an object, sorted, 64 at most.

    Raises:
        DecodeError: the payload is no JSON object, or too large.
    """
    document = _object(_parse(payload, PAYLOAD_MAX))
    return sorted(name for name, value in document.items() if _number(value) is not None)[:_DISCOVER_MAX]


def _finder(paths: Sequence[Path]) -> Callable[[Any], Sequence[Any]]:
    """What takes the values out of a document; most paths are single names, at which it is fastest."""
    if any(len(path) > 1 for path in paths):
        return lambda document: [follow(_object(document), path) for path in paths]
    names = [path[0] for path in paths]
    if len(names) == 1:
        return lambda document: (document[names[0]],)
    return operator.itemgetter(*names)


def _parse(payload: bytes, most: int) -> Any:
    try:
        return orjson.loads(bounded(payload, most))
    except orjson.JSONDecodeError as error:
        raise DecodeError(f"not JSON: {error}") from error


def _object(document: Any) -> dict[Any, Any]:
    if not isinstance(document, dict):
        raise DecodeError(f"a JSON {type(document).__name__}, not an object")
    return document


def _number(value: Any) -> float | None:
    """Of what orjson makes: it has no infinities, and larger integers than an int64 holds are floats."""
    if type(value) is float:
        return value
    return float(value) if type(value) is int else None


def _built(config: Config, paths: Sequence[str]) -> Json | ArraySamples:
    if not config.sampled:
        return Json(config, paths)
    most = config.max_payload
    return ArraySamples(lambda payload: _parse(payload, most), _number, config.samples or WHOLE, paths)


PLUGIN = Plugin(Config, _built)
