"""What faults make of a device's samples and messages: plain functions of them."""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgpack

from hw_sim.fault import Settings
from hw_sim.mqtt.payload import Encode, Sample
from hw_sim.mqtt.section import Payload

__all__ = ["JUNK", "MESSAGES", "SAMPLES", "padded"]

JUNK: Final = b"\xff\xfe no message of this device \x00{["
"""A retained message that nobody wants: neither text nor JSON nor a number."""

_MEBI: Final = 1 << 20
_NO_NUMBERS: Final = (math.nan, math.inf, -math.inf)
_NO_UTF8: Final = b"\xff\xfe"


def _nan(sample: Sample, _payload: Payload) -> Sample:
    return Sample(sample.at, dict(zip(sample.values, itertools.cycle(_NO_NUMBERS), strict=False)), bare=True)


def _wrong_type(sample: Sample, payload: Payload) -> Sample:
    def wrong(value: float, turn: int) -> Any:
        number = value if math.isfinite(value) else 0.0
        if payload == "binary":
            return int(number)
        return (f"{number:g} ok", True, [number])[turn % 3]

    values = {name: wrong(value, turn) for turn, (name, value) in enumerate(sample.values.items())}
    return sample._replace(values=values)


def _missing(sample: Sample, _payload: Payload) -> Sample:
    return sample._replace(values=dict(itertools.islice(sample.values.items(), 1, None)))


SAMPLES: Final[Mapping[str, Callable[[Sample, Payload], Sample]]] = {
    "wrong_type": _wrong_type,
    "nan": _nan,
    "missing": _missing,
}
"""By fault, what a sample becomes; applied in this order."""


def _malformed(message: bytes, payload: Payload, _settings: Settings) -> bytes:
    if payload in {"msgpack", "binary"}:
        return message[:-1]
    return message[: len(message) // 2] + b'{"'


def _bad_utf8(message: bytes, _payload: Payload, _settings: Settings) -> bytes:
    return message[:1] + _NO_UTF8 + message[1:]


def _deep(_message: bytes, payload: Payload, settings: Settings) -> bytes:
    depth = int(settings["depth"])
    if payload == "msgpack":
        return b"\x91" * depth + b"\xc0"  # an array of one, in an array of one, and so on; nil
    return b'{"deep":' * depth + b"null" + b"}" * depth


def _empty(_message: bytes, _payload: Payload, _settings: Settings) -> bytes:
    return b""


MESSAGES: Final[Mapping[str, Callable[[bytes, Payload, Settings], bytes]]] = {
    "malformed": _malformed,
    "bad_utf8": _bad_utf8,
    "deep": _deep,
    "empty": _empty,
}
"""By fault, what a message becomes; applied in this order."""


def padded(samples: Sequence[Sample], encode: Encode, payload: Payload, mebibytes: float) -> bytes:
    """A message of so many MiB, which is well-formed in all shapes but the binary one."""
    size = int(mebibytes * _MEBI)
    plain = encode(samples)
    lacking = max(0, size - len(plain))
    if payload == "binary":
        return plain + bytes(lacking)
    if payload in {"csv", "number"}:
        return plain + b" " * lacking
    if payload == "msgpack":
        whole = {**msgpack.unpackb(plain), "padding": ""}
        lacking = max(0, size - len(msgpack.packb(whole)) - 4)  # its length takes up to four bytes more
        packed: bytes = msgpack.packb({**whole, "padding": "x" * lacking})
        return packed
    field = b',"padding":"'
    cut = plain.rindex(b"}")
    return plain[:cut] + field + b"x" * (lacking - len(field) - 1) + b'"' + plain[cut:]
