"""Messages of devices as bytes, in each shape: JSON, CSV, msgpack, a packed struct, or a number.

A sample is a time and the values of its fields by name. A value that the sensor does not show is NaN, and
becomes null in JSON, nothing in CSV or a number, nil in msgpack, and NaN in a binary message.
"""

import json
import math
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgpack
import orjson

from hw_sim.mqtt.section import DeviceSection, Payload

__all__ = ["Encode", "Sample", "encoder"]

_WHOLE_DECIMALS: Final = 17
"""No number has more that mean anything."""
_FLOATS: Final = {"float32": "f", "float64": "d"}
_WHOLE: Final = {"f": "i", "d": "q"}
"""The whole number of a float's size."""


class Sample(NamedTuple):
    """What a device has measured at once."""

    at: float
    """Unix seconds."""
    values: Mapping[str, Any]
    """Numbers by field; what is no number is a fault's work."""
    bare: bool = False
    """Whether what is not finite is written as it is, as NaN or Infinity, and not as a missing value."""


Encode = Callable[[Sequence[Sample]], bytes]
"""Makes a message of samples; all shapes but JSON take just one."""


def encoder(device: DeviceSection) -> Encode:
    """The encoder of a device's messages."""
    encoders: Mapping[Payload, Callable[[DeviceSection], Encode]] = {
        "json": _json,
        "csv": _csv,
        "msgpack": _msgpack,
        "binary": _binary,
        "number": _csv,
    }
    return encoders[device.payload](device)


def _json(device: DeviceSection) -> Encode:
    made = _objects(device)

    def encode_one(samples: Sequence[Sample]) -> bytes:
        (sample,) = samples
        return written(made(sample), bare=sample.bare)

    def encode(samples: Sequence[Sample]) -> bytes:
        return written([made(each) for each in samples], bare=any(each.bare for each in samples))

    def written(whole: object, *, bare: bool) -> bytes:
        if bare:
            return json.dumps(whole, separators=(",", ":")).encode()
        return orjson.dumps(whole)  # NaN is null

    return encode if device.samples > 1 else encode_one


def _csv(device: DeviceSection) -> Encode:
    def encode(samples: Sequence[Sample]) -> bytes:
        (sample,) = samples
        places = [_text(value, device.decimals, bare=sample.bare) for value in sample.values.values()]
        return ",".join([*([repr(sample.at)] if device.time else ()), *places]).encode()

    return encode


def _text(value: Any, decimals: int, *, bare: bool) -> str:
    if not isinstance(value, float):
        return value if isinstance(value, str) else json.dumps(value)
    if math.isfinite(value):
        return repr(round(value, decimals))
    return str(value) if bare else ""


def _msgpack(device: DeviceSection) -> Encode:
    made = _objects(device)

    def encode(samples: Sequence[Sample]) -> bytes:
        (sample,) = samples
        whole = made(sample)
        if not sample.bare:
            whole = {
                name: None if isinstance(value, float) and math.isnan(value) else value
                for name, value in whole.items()
            }
        packed: bytes = msgpack.packb(whole)
        return packed

    return encode


def _objects(device: DeviceSection) -> Callable[[Sample], dict[str, Any]]:
    decimals, time = device.decimals, device.time

    def made(sample: Sample) -> dict[str, Any]:
        values = {
            name: round(value, decimals) if isinstance(value, float) else value
            for name, value in sample.values.items()
        }
        return {time: sample.at, **values} if time else values

    def made_whole(sample: Sample) -> dict[str, Any]:
        return {time: sample.at, **sample.values} if time else dict(sample.values)

    return made if decimals < _WHOLE_DECIMALS else made_whole


def _binary(device: DeviceSection) -> Encode:
    order = {"little": "<", "big": ">"}[device.byte_order]
    code = _FLOATS[device.encoding]
    head = "d" if device.time else ""

    def encode(samples: Sequence[Sample]) -> bytes:
        (sample,) = samples
        codes = "".join(code if isinstance(each, float) else _WHOLE[code] for each in sample.values.values())
        times = [sample.at] if head else []
        return struct.pack(f"{order}{head}{codes}", *times, *sample.values.values())

    return encode
