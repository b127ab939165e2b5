"""From the bytes of a message to a number per channel: one file per format.

A decoder is made of its config and what the channels are called in its format, and is pure:
`decode(payload) -> [number or None per channel]`, or DecodeError for a payload that is none of its format.
Some can do more: `Sampled`, `Bulk` and `Partial` say what.
"""

import math
import re
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Final, Protocol, runtime_checkable

from pydantic import AfterValidator, Field

from dxad import plugin
from dxad.errors import ConfigError, DecodeError
from dxad.fields import Identifier, Section, Size
from dxad.types import F8, NS_PER_S

__all__ = [
    "ABSENT",
    "PAYLOAD_MAX",
    "WHOLE",
    "ArraySamples",
    "Bulk",
    "DecodeSection",
    "DecodeTable",
    "Decoder",
    "Partial",
    "Path",
    "PathText",
    "Picking",
    "Sampled",
    "bounded",
    "decoder",
    "each_once",
    "follow",
    "number_in",
    "path_of",
    "places",
    "samples_in",
    "stamp",
]

PAYLOAD_MAX: Final = 256 * 1024
"""Bytes; the default bound of a message."""

Path = tuple[str | int, ...]
"""The steps to a value in a document: names in objects, places in arrays."""

ABSENT: Final = math.nan
"""What a `Partial` decoder gives for a channel that the message is not about; compared by `is`."""

WHOLE: Final = "."
"""The path of the document itself, or of a sample itself."""

_STEP: Final = re.compile(r"([^.\[\]]+)|\[(\d{1,6})\]")
_PATH: Final = re.compile(r"[^.\[\]]+(?:\.[^.\[\]]+|\[\d{1,6}\])*")
_LARGEST_NS: Final = 2**63
_SAMPLES_MAX: Final = 10_000
_TOLD: Final = 20


class Decoder(Protocol):
    """What every decoder offers."""

    def decode(self, payload: bytes) -> Sequence[float | None]:
        """Each channel's number; None where it is missing or no finite number.

        Raises:
            DecodeError: the payload is malformed, or larger than `max_payload`.
        """


@runtime_checkable
class Sampled(Protocol):
    """A decoder of messages that hold several samples, one after the other."""

    def decode_samples(self, payload: bytes) -> Sequence[Sequence[float | None]]:
        """Of each sample what `decode` gives, in their order.

        Raises:
            DecodeError: the payload is malformed, or larger than `max_payload`.
        """


@runtime_checkable
class Picking(Protocol):
    """A decoder of two calls that others make, many messages at once, and look at the kinds of what is found.

    Both may raise DecodeError, LookupError, TypeError and ValueError: then `decode` says what is wrong.
    """

    max_payload: int
    """Bytes; larger ones are for `decode` to refuse."""
    load: Callable[[bytes], Any]
    """Makes a document of a payload."""
    find: Callable[[Any], Sequence[Any]]
    """What stands in a document for each channel, number or not."""


@runtime_checkable
class Bulk(Protocol):
    """A decoder that can do many plain messages at once."""

    def decode_many(self, payloads: Sequence[bytes]) -> F8 | None:
        """(payloads, channels): what `decode` gives, NaN for its None; None: decode them one by one."""


@runtime_checkable
class Partial(Protocol):
    """A decoder of messages that are not all about the same channels.

    `decode` gives ABSENT for a channel that the message is not about, and nothing at all if it is about none.
    """

    partial: bool
    """Whether it is so with this configuration."""


class DecodeSection(Section):
    """What is said of every decoder; each kind adds its own."""

    kind: str
    max_payload: Annotated[Size, Field(gt=0)] = Field(PAYLOAD_MAX, description="larger messages are rejected")

    @property
    def names(self) -> Sequence[Identifier]:
        """What the format itself calls the numbers in it, in their order; nothing where it names none."""
        return ()

    @property
    def size(self) -> int | None:
        """How many bytes each payload has; None where that differs."""
        return None

    @property
    def sampled(self) -> bool:
        """Whether a message holds several samples."""
        return False


DecodeTable = Annotated[DecodeSection, plugin.section("decode", DecodeSection, key="kind")]
"""The type of a key `decode = { kind = "json" }`."""


def decoder(section: DecodeSection, paths: Sequence[str]) -> Decoder:
    """Make the decoder that `section` describes, for channels that its format calls `paths`.

    Raises:
        ConfigError: a path is none of this format.
    """
    made: Decoder = plugin.load("decode", section.kind).build(section, paths)
    return made


def path_of(text: str, *, any_root: bool = False) -> Path:
    """Read a path such as `motor.current` or `phases[0].i`.

    With `any_root` it need not begin in an object: `.` is the root itself, and `[0].i` begins in an array.

    Raises:
        ConfigError: it is written wrong.
    """
    if any_root and text == WHOLE:
        return ()
    if not _PATH.fullmatch(f"_{text}" if any_root and text.startswith("[") else text):
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


def _path_text(text: str) -> str:
    try:
        path_of(text, any_root=True)
    except ConfigError as error:
        raise ValueError(str(error)) from error
    return text


PathText = Annotated[str, AfterValidator(_path_text)]
"""A path as it is written, known to be right; its root may be anything."""


def samples_in(document: Any, path: Path) -> list[Any]:
    """The samples of a document: what stands in the array at the end of a path.

    Raises:
        DecodeError: there is no array, it is empty, or has more than 10,000 elements.
    """
    found = follow(document, path)
    if not isinstance(found, list):
        raise DecodeError(f"its samples are a {type(found).__name__}, not an array")
    if not 0 < len(found) <= _SAMPLES_MAX:
        raise DecodeError(f"an array of {len(found)} samples; 1 to {_SAMPLES_MAX} may be")
    return found


class ArraySamples:
    """A decoder of documents with an array of samples: a path to it, and one in its elements per channel."""

    def __init__(
        self,
        parse: Callable[[bytes], Any],
        number: Callable[[Any], float | None],
        array: str,
        paths: Sequence[str],
    ) -> None:
        """Look for the array, and for `paths` in its elements.

        Args:
            parse: makes a document of a payload, or raises DecodeError.
            number: the finite number that a value of it is, if any.
            array: the path of the array.
            paths: of each channel, in each element.

        Raises:
            ConfigError: a path is written wrong.
        """
        self._parse = parse
        self._number = number
        self._array = path_of(array, any_root=True)
        self._paths: list[Path] = [path_of(path, any_root=True) for path in paths]

    def decode(self, payload: bytes) -> list[float | None]:
        """The last sample's numbers."""
        return self.decode_samples(payload)[-1]

    def decode_samples(self, payload: bytes) -> list[list[float | None]]:
        """Of each sample, each channel's number; None where it is missing, or is not a finite number.

        Raises:
            DecodeError: the payload is malformed, has no such array or too large a one, or is too large.
        """
        samples = samples_in(self._parse(payload), self._array)
        return [[self._number(follow(sample, path)) for path in self._paths] for sample in samples]


def bounded(payload: bytes, most: int) -> bytes:
    """The payload.

    Raises:
        DecodeError: it is larger than `most`.
    """
    if len(payload) > most:
        raise DecodeError(f"payload of {len(payload)} bytes is larger than {most}")
    return payload


def number_in(text: str, decimal: str = ".") -> float | None:
    """The number that a text is; None where it is empty, or not finite.

    Raises:
        DecodeError: it is anything else.
    """
    text = text.strip()
    if not text:
        return None
    written = text if decimal == "." else text.replace(decimal, ".")
    if "_" in text or (decimal != "." and "." in text):  # Python would read 1_000
        raise DecodeError(f"{text[:_TOLD]!r} is no number")
    try:
        found = float(written)
    except ValueError as error:
        raise DecodeError(f"{text[:_TOLD]!r} is no number") from error
    return found if math.isfinite(found) else None


def places(kind: str, wanted: Sequence[str], names: Sequence[str]) -> list[int]:
    """Where the wanted stand among the names.

    Raises:
        ConfigError: one does not, which is told as no such `kind`.
    """
    unknown = [each for each in wanted if each not in names]
    if unknown:
        raise ConfigError(f"no {kind} {unknown[0]!r}; there are {', '.join(names)}")
    return [names.index(each) for each in wanted]


def each_once(key: str, names: Sequence[str]) -> None:
    """Let no name stand twice under a key.

    Raises:
        ValueError: one does.
    """
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise ValueError(f"{key}: {min(twice)!r} stands there twice")


def stamp(at: float | None) -> int:
    """A time since 1970 as UTC nanoseconds; 0 where there is none. Seconds have ten digits these days."""
    if at is None or not at > 0:
        return 0
    for unit_ns, least in ((1, 1e17), (1_000, 1e14), (1_000_000, 1e11)):
        if at >= least:
            return int(at) * unit_ns if at < _LARGEST_NS / unit_ns else 0
    if at >= _LARGEST_NS // NS_PER_S:
        return 0
    return int(at) * NS_PER_S + round(at % 1 * NS_PER_S)  # the product of both would be off by up to 128 ns
