"""What numbers stand in Modbus registers: every type in every order of bytes, and which of them are likely.

Registers are a run: the address of the first, and their words. Pure.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

__all__ = [
    "Expected",
    "Guess",
    "Match",
    "Order",
    "Run",
    "guesses",
    "matches",
    "prevailing_order",
    "tolerance_of",
]

Order = Literal["ABCD", "BADC", "CDAB", "DCBA"]
Encoding = Literal[
    "int16", "uint16", "int32", "uint32", "int64", "uint64", "float16", "float32", "float64", "string"
]

_ORDERS: Final[dict[Order, tuple[bool, bool]]] = {
    "ABCD": (False, False), "CDAB": (True, False), "DCBA": (True, True), "BADC": (False, True),
}  # fmt: skip
"""Whether the words are turned round, and whether the bytes in each are; the usual ones first."""
_FORMATS: Final[dict[Encoding, str]] = {
    "int16": ">i2", "uint16": ">u2", "int32": ">i4", "uint32": ">u4", "int64": ">i8", "uint64": ">u8",
    "float16": ">f2", "float32": ">f4", "float64": ">f8",
}  # fmt: skip
_SCALES: Final = {
    1.0: 0.0, 0.1: 0.3, 0.01: 0.4, 0.001: 0.6, 10.0: 1.0, 0.0001: 1.2, 1e-5: 1.4, 1e-6: 1.4, 100.0: 1.4,
    1000.0: 1.5,
}  # fmt: skip
"""Factors that devices have, and how odd each is."""
_ODD_ENCODING: Final[dict[Encoding, float]] = {
    "float32": 0.0, "int16": 0.1, "uint16": 0.15, "float64": 0.3, "int32": 0.5, "uint32": 0.6, "int64": 1.5,
    "uint64": 1.6, "float16": 1.5,
}  # fmt: skip
_ODD_ORDER: Final[dict[Order, float]] = {"ABCD": 0.0, "CDAB": 0.1, "DCBA": 0.6, "BADC": 0.7}
_USUAL: Final[dict[Order, float]] = {"ABCD": 1.0, "CDAB": 0.8, "DCBA": 0.4, "BADC": 0.4}
"""What a vote for an order weighs: some of them are there by chance."""
_ALIKE: Final = 0.6
"""What a place gains whose type and order suit all that was expected."""
_TOLD: Final = 8
"""Places for each expected value."""
_SMALLEST, _LARGEST = 1e-3, 1e7
"""Magnitudes of a number that a sensor shows."""
_TEXT_LEAST: Final = 3
"""Registers."""


class Run(NamedTuple):
    """Registers that are next to each other."""

    first: int
    words: npt.NDArray[np.uint16]


class Expected(NamedTuple):
    """A value that a display beside the device shows, and how far it may be off."""

    value: float
    tolerance: float


@dataclass(frozen=True, slots=True)
class Match:
    """Where an expected value stands: value = scale * number."""

    address: int
    encoding: Encoding
    order: Order
    scale: float
    value: float
    odd: float
    """How strange it would be; 0 is a plain float32 that is exactly right."""

    @property
    def registers(self) -> int:
        """How many it takes."""
        return np.dtype(_FORMATS[self.encoding]).itemsize // 2


@dataclass(frozen=True, slots=True)
class Guess:
    """What probably stands at an address."""

    address: int
    encoding: Encoding
    order: Order
    value: float | str
    registers: int


def _numbers(
    words: npt.NDArray[np.uint16], encoding: Encoding, order: Order
) -> npt.NDArray[np.float64] | None:
    """The number that begins at each register; None where there are too few of them."""
    kind = np.dtype(_FORMATS[encoding])
    width = kind.itemsize // 2
    if len(words) < width:
        return None
    turned, swapped = _ORDERS[order]
    windows = sliding_window_view(words, width)
    if turned:
        windows = windows[:, ::-1]
    wire = np.ascontiguousarray(windows.byteswap() if swapped else windows).astype(">u2")
    with np.errstate(all="ignore"):
        return wire.view(kind)[:, 0].astype(np.float64)


def _orders(encoding: Encoding) -> Iterable[Order]:
    """Those that make a difference."""
    return ("ABCD", "BADC") if np.dtype(_FORMATS[encoding]).itemsize == 2 else _ORDERS


def matches(runs: Sequence[Run], wanted: Sequence[Expected]) -> list[list[Match]]:
    """For each expected value, where it may stand, the likeliest first.

    Several expected values help each other: those of one device mostly have one type and order of bytes.
    """
    found = [_matches(runs, each) for each in wanted]
    if len(found) > 1:
        kinds = [{(each.encoding, each.order) for each in one} for one in found if one]
        alike = set.intersection(*kinds) if kinds else set()
        found = [
            [
                replace(each, odd=each.odd - _ALIKE) if (each.encoding, each.order) in alike else each
                for each in one
            ]
            for one in found
        ]
    return [sorted(one, key=lambda each: each.odd)[:_TOLD] for one in found]


def _matches(runs: Sequence[Run], wanted: Expected) -> list[Match]:
    found: list[Match] = []
    for run in runs:
        for encoding, odd_encoding in _ODD_ENCODING.items():
            for order in _orders(encoding):
                numbers = _numbers(run.words, encoding, order)
                if numbers is None:
                    continue
                for scale, odd_scale in _SCALES.items():
                    if encoding.startswith("float") and scale not in {1.0, 0.001, 1000.0}:
                        continue
                    with np.errstate(all="ignore"):
                        off = np.abs(scale * numbers - wanted.value)
                    for place in np.flatnonzero(off <= wanted.tolerance):
                        number = float(numbers[place])
                        if _is_shorter(encoding, number):
                            continue
                        odd = odd_encoding + _ODD_ORDER[order] + odd_scale + _share(off[place], wanted)
                        found.append(
                            Match(run.first + int(place), encoding, order, scale, scale * number, odd)
                        )
    return found


def _share(off: float, wanted: Expected) -> float:
    return float(off) / wanted.tolerance if wanted.tolerance else 0.0


def _is_shorter(encoding: Encoding, number: float) -> bool:
    """Whether a shorter type says the same: then it is found there."""
    match encoding:
        case "uint16":
            return number < 2**15
        case "uint32":
            return number < 2**31
        case "int64":
            return -(2**31) <= number < 2**31
        case "uint64":
            return number < 2**63
    return False


def prevailing_order(runs: Iterable[Run]) -> Order:
    """The order of bytes in which most pairs of registers are numbers that a sensor shows."""
    votes: Counter[Order] = Counter()
    for run in runs:
        for order in _ORDERS:
            numbers = _numbers(run.words, "float32", order)
            if numbers is not None:
                plausible = _plausible(numbers)
                votes[order] += max(int(plausible[0::2].sum()), int(plausible[1::2].sum()))
    return max(_ORDERS, key=lambda order: votes[order] * _USUAL[order])


def _plausible(numbers: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    with np.errstate(all="ignore"):
        size = np.abs(numbers)
        return np.isfinite(numbers) & (size >= _SMALLEST) & (size < _LARGEST)


def guesses(run: Run, order: Order) -> list[Guess]:
    """What probably stands in a run whose longer numbers have this order; registers that are 0 are left out.

    Texts are three registers of letters at least. A pair is a float32 where that is of a magnitude that
    sensors show; whatever else it is, is a number of 16 bits: nothing in the registers tells otherwise.
    """
    floats, doubles = _numbers(run.words, "float32", order), _numbers(run.words, "float64", order)
    single = np.zeros(0, bool) if floats is None else _plausible(floats)
    double = np.zeros(0, bool) if doubles is None else _plausible(doubles)
    found: list[Guess] = []
    at = 0
    while at < len(run.words):
        if text := _text(run.words[at:]):
            length = -(-len(text) // 2)
            found.append(Guess(run.first + at, "string", "ABCD", text, length))
        elif at < len(double) and double[at] and doubles is not None and _is_double(run.words, at, single):
            length = 4
            found.append(Guess(run.first + at, "float64", order, float(doubles[at]), length))
        elif at < len(single) and single[at] and floats is not None:
            length = 2
            found.append(Guess(run.first + at, "float32", order, float(floats[at]), length))
        else:
            length = 1
            word = int(run.words[at])
            if word:
                number = word - 2**16 if word >= 2**15 else word
                found.append(Guess(run.first + at, "int16", "ABCD", float(number), length))
        at += length
    return found


def _is_double(words: npt.NDArray[np.uint16], at: int, single: npt.NDArray[np.bool_]) -> bool:
    """Whether four registers are one number rather than two: then the second of these would make no sense."""
    following = at + 2
    return bool(words[at : at + 4].astype(bool).sum() > 1) and not (
        following < len(single) and single[following]
    )


def _text(words: npt.NDArray[np.uint16]) -> str:
    """The text that begins here, or nothing."""
    data = words.astype(">u2").tobytes()
    end = 0
    while end + 1 < len(data) and _letter(data[end]) and (_letter(data[end + 1]) or not data[end + 1]):
        end += 2
        if not data[end - 1]:
            break
    text = data[:end].rstrip(b"\0").decode("ascii")
    if end < 2 * _TEXT_LEAST or sum(map(str.isalpha, text)) < len(text) / 2:
        return ""
    return text


def _letter(byte: int) -> bool:
    return 0x20 <= byte < 0x7F


def tolerance_of(value: float, percent: float) -> float:
    """How far a value may be off: so many percent of it; 0 by what a display with three decimals hides."""
    return abs(value) * percent / 100 if value else 0.0005
