"""Payloads: what a device says of its readings, as text or as the bytes of a struct.

A text has first the time and the sequence number, where wanted, and then the fields in their order. A field
without a reading is empty in `csv` and `key_value`, null in `json`, and in a `struct` NaN or, in integers,
the most negative number, or the largest of an unsigned one; what does not fit is its largest or smallest.
"""

import itertools
import json
import math
import re
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal, Protocol

__all__ = ["Parts", "Payload", "TimeUnit", "csv", "key_value", "letters", "made", "objects", "packed"]

TimeUnit = Literal["s", "ms"]

_LETTERS: Final = re.compile(r"(\d*)([bBhHiIlLqQefd?x])")
_FORMAT: Final = re.compile(rf"[<>](?:{_LETTERS.pattern})+")
_FLOATS: Final = "efd"
_FLOAT_MOST: Final = {"e": 65504.0, "f": struct.unpack("<f", b"\xff\xff\x7f\x7f")[0], "d": math.inf}


class Payload(Protocol):
    """Makes the bytes of one message."""

    def __call__(self, time_s: float, sequence: int, values: Sequence[float]) -> bytes:
        """Of the unix time in seconds, a number that counts messages, and the readings, NaN for none."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What a message has in it."""

    fields: Sequence[str]
    scales: Sequence[float]
    """By field: what one count of what is sent stands for."""
    decimals: int = 4
    """Of each field in a text."""
    time: str = ""
    """The name of the time, if it is sent."""
    time_unit: TimeUnit = "s"
    """In text: seconds with six decimals, or whole milliseconds."""
    sequence: str = ""
    """The name of the sequence number, if it is sent."""

    @property
    def names(self) -> Sequence[str]:
        """Of all that is sent."""
        return tuple(name for name in (self.time, self.sequence, *self.fields) if name)

    def scaled(self, values: Sequence[float]) -> Sequence[float]:
        """The numbers as they are sent."""
        if all(scale == 1.0 for scale in self.scales):
            return values
        return tuple(value / scale for value, scale in zip(values, self.scales, strict=True))

    def head(self, time_s: float, sequence: int) -> list[str]:
        """The texts of what comes before the fields."""
        head = []
        if self.time:
            head.append(f"{time_s:.6f}" if self.time_unit == "s" else str(int(time_s * 1000)))
        if self.sequence:
            head.append(str(sequence))
        return head

    def texts(self, values: Sequence[float]) -> list[str]:
        """The texts of the fields."""
        decimals = self.decimals
        return [f"{value:.{decimals}f}" if math.isfinite(value) else "" for value in self.scaled(values)]


def made(kind: str, parts: Parts, *, separator: str = "", layout: str = "") -> Payload:
    """The maker of payloads of that kind; `layout` is the format of a struct."""
    if kind == "csv":
        return csv(parts, separator or ",")
    if kind == "key_value":
        return key_value(parts, separator or ",")
    return objects(parts) if kind == "json" else packed(parts, layout)


def csv(parts: Parts, separator: str) -> Payload:
    """`1.0000,2.0000`."""
    plain = separator.join([f"%.{parts.decimals}f"] * len(parts.fields))
    headless = not (parts.time or parts.sequence)

    def payload(time_s: float, sequence: int, values: Sequence[float]) -> bytes:
        if headless and all(map(math.isfinite, values)):
            return (plain % tuple(parts.scaled(values))).encode()
        return separator.join([*parts.head(time_s, sequence), *parts.texts(values)]).encode()

    return payload


def key_value(parts: Parts, separator: str) -> Payload:
    """`x=1.0000,y=2.0000`."""

    def payload(time_s: float, sequence: int, values: Sequence[float]) -> bytes:
        texts = parts.head(time_s, sequence) + parts.texts(values)
        return separator.join(
            f"{name}={text}" for name, text in zip(parts.names, texts, strict=True)
        ).encode()

    return payload


def objects(parts: Parts) -> Payload:
    """`{"x":1.0000,"y":null}`."""
    keys = [json.dumps(name) for name in parts.names]

    def payload(time_s: float, sequence: int, values: Sequence[float]) -> bytes:
        texts = parts.head(time_s, sequence) + parts.texts(values)
        members = (f"{key}:{text or 'null'}" for key, text in zip(keys, texts, strict=True))
        return ("{" + ",".join(members) + "}").encode()

    return payload


def letters(layout: str) -> str:
    """The letters of a struct's format, one for each number in it: `hhB` for `<2hxB`.

    Raises:
        ValueError: it does not begin with its byte order, or has letters of no number.
    """
    if not _FORMAT.fullmatch(layout):
        raise ValueError(
            f"{layout!r} is no format of a struct: < or > for the byte order, then a letter for each number "
            "(bBhHiIlLqQ for integers, efd for floats, ? for a switch, x for a byte between), such as <hhh"
        )
    found = _LETTERS.findall(layout)
    return "".join(letter * int(count or 1) for count, letter in found if letter != "x")


def packed(parts: Parts, layout: str) -> Payload:
    """The bytes of a struct; time and sequence number wrap where their integers end."""
    form = struct.Struct(layout)
    each = iter(letters(layout))
    ahead = list(itertools.islice(each, bool(parts.time) + bool(parts.sequence)))
    fits = [_fit(letter) for letter in each]

    def payload(time_s: float, sequence: int, values: Sequence[float]) -> bytes:
        head: list[float] = [time_s if parts.time_unit == "s" else time_s * 1000] if parts.time else []
        head += [sequence] if parts.sequence else []
        wrapped = [_wrapped(letter, number) for letter, number in zip(ahead, head, strict=True)]
        scaled = parts.scaled(values)
        return form.pack(*wrapped, *(fit(value) for fit, value in zip(fits, scaled, strict=True)))

    return payload


def _wrapped(letter: str, number: float) -> float:
    if letter in _FLOATS:
        return number
    bits = 8 * struct.calcsize(f"<{letter}") - letter.islower()
    return int(number) % (1 << bits)


def _fit(letter: str) -> Callable[[float], float]:
    """Of a reading, the number that the letter can carry."""
    if letter in _FLOATS:
        most = _FLOAT_MOST[letter]
        return lambda value: value if math.isnan(value) else min(max(value, -most), most)
    if letter == "?":
        return lambda value: not math.isnan(value) and value != 0.0
    bits = 8 * struct.calcsize(f"<{letter}")
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if letter.islower() else (0, (1 << bits) - 1)
    nothing = low or high

    def integer(value: float) -> float:
        if math.isnan(value):
            return nothing
        return round(min(max(value, low), high))

    return integer
