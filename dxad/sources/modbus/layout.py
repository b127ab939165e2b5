"""Where the values of one answer stand: all that are alike are read in a few numpy calls.

    wire ─▶ buffer ── a view or gather for each group of equal encoding and order ──▶ values ──▶ scale, offset

The buffer and the values stay in place, so that the views are made once.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from dxad.sources.modbus.plan import Request
from dxad.sources.modbus.section import BITS, ORDERS, Encoding, ModbusChannel
from dxad.types import F8, U1, Reason

__all__ = ["Layout"]

_FORMATS: Final[dict[Encoding, str]] = {
    "bool": "u1", "bits": "u2", "int8": "i1", "uint8": "u1", "int16": "i2", "uint16": "u2", "int32": "i4",
    "uint32": "u4", "int64": "i8", "uint64": "u8", "float16": "f2", "float32": "f4", "float64": "f8",
    "bcd16": "u2", "bcd32": "u4",
}  # fmt: skip
"""In numpy's letters; what is not here is read register by register."""
_SWAPPED: Final = frozenset({"BADC", "CDAB", "DCBA"})
_LOW_BYTES: Final = frozenset({"int8", "uint8"})
"""They stand in the low byte of a register."""
_MOD10: Final = 10_000
_DIGIT: Final = 10
_Array = npt.NDArray[Any]
_Take = Callable[[], _Array]


def _sunspec(format_: str) -> float | None:
    """The raw number that stands for "not implemented" (SunSpec Information Model Specification, 1.9)."""
    if format_[0] == "f":
        return None  # it is not a number, and bad as such
    bits = 8 * int(format_[1:])
    return -(2.0 ** (bits - 1)) if format_[0] == "i" else 2.0**bits - 1


def _markers(channel: ModbusChannel, format_: str) -> list[float]:
    """The raw numbers that mean that there is no value, as numbers of this format."""
    if channel.absent == "sunspec":
        only = _sunspec(format_)
        return [] if only is None else [only]
    found = []
    for each in channel.markers:
        if format_[0] == "i" and each >= 2 ** (8 * int(format_[1:]) - 1):
            found.append(each - 2 ** (8 * int(format_[1:])))  # written as its bits: 0x8000
        else:
            found.append(each)
    return found


def _regular(places: Sequence[int]) -> int:
    """The distance of places from one to the next; 0 where it is not the same."""
    steps = {after - before for before, after in pairwise(places)}
    return steps.pop() if len(steps) == 1 else 0


def _taking(buffer: _Array, format_: str, offsets: Sequence[int]) -> _Take:
    """What reads numbers of one format from these places of the buffer."""
    dtype, count = np.dtype(format_), len(offsets)
    step = _regular(offsets) if count > 1 else dtype.itemsize
    if step > 0:
        view: _Array = np.ndarray(count, dtype, buffer, offsets[0], (step,))
        return lambda: view
    gathered = np.add.outer(offsets, np.arange(dtype.itemsize))
    return lambda: buffer[gathered].view(dtype)[:, 0]


def _decimal(raw: _Array, digits: int) -> F8:
    """Binary coded decimals; NaN where a digit is none."""
    value = np.zeros(len(raw))
    wrong = np.zeros(len(raw), bool)
    for at in reversed(range(digits)):
        digit = (raw >> (4 * at)) & 15
        value = value * 10 + digit
        wrong |= digit >= _DIGIT
    value[wrong] = np.nan
    return value


def _mod10(registers: _Array) -> F8:
    """(n, registers), the most significant first: four decimal digits in each; NaN where it holds more."""
    value = np.zeros(len(registers))
    for register in registers.T:
        value = value * _MOD10 + register
    value[(registers >= _MOD10).any(axis=1)] = np.nan
    return value


@dataclass(slots=True)
class _Group:
    """Channels of one encoding and order."""

    places: slice | _Array
    """Among the request's channels."""
    take: _Take
    convert: Callable[[_Array], _Array] | None
    absent: list[_Array]
    """Raw numbers, each for all channels of the group."""


class Layout:
    """Reads the answers to one request."""

    def __init__(self, request: Request, channels: Sequence[ModbusChannel], values: F8, reasons: U1) -> None:
        """Decode into these arrays.

        Args:
            request: whose answers.
            channels: of the whole source; the request says which of them are its own.
            values: (n,), one for each channel of the request: NaN where there is none.
            reasons: (n,), is written where a value is BAD for another reason than that it is not finite.
        """
        mine = [channels[column] for column in request.columns]
        self._values, self._reasons = values, reasons
        self._bits = request.space in BITS
        self._buffer: U1 = np.zeros(request.count * (1 if self._bits else 2), "u1")
        self._swapped = self._buffer.copy()
        """The same, with the two bytes of each register swapped."""
        self._whole = self._buffer.data
        swaps = any(each.order in _SWAPPED for each in mine)
        self._words = (self._buffer.view(">u2"), self._swapped.view("<u2")) if swaps else None
        kinds = [(each.kind, each.order) for each in mine]
        self._groups = [
            self._group(request, mine, [at for at, each in enumerate(kinds) if each == kind])
            for kind in dict.fromkeys(kinds)
            if kind[0] != "string"
        ]
        self._texts = [
            (at, *self._text(request, each)) for at, each in enumerate(mine) if each.kind == "string"
        ]
        scale, offset = (np.array([getattr(each, name) for each in mine]) for name in ("scale", "offset"))
        self._scale: F8 | None = None if (scale == 1).all() else scale
        self._offset: F8 | None = None if (offset == 0).all() else offset

    def _group(self, request: Request, mine: Sequence[ModbusChannel], at: list[int]) -> _Group:
        first = mine[at[0]]
        step = _regular(at) if len(at) > 1 else 1
        places = slice(at[0], at[-1] + 1, step) if step > 0 else np.array(at)
        registers = [mine[each].first - request.first for each in at]
        if self._bits:
            return _Group(places, _taking(self._buffer, "u1", registers), None, [])
        letters = _FORMATS.get(first.kind)
        if letters is None:
            return self._by_register(places, first, registers)
        swapped, end = ORDERS[first.order]
        low = first.kind in _LOW_BYTES and end == ">"
        absent = [_markers(mine[each], letters) for each in at]
        return _Group(
            places,
            _taking(
                self._swapped if swapped else self._buffer,
                end + letters,
                [2 * each + low for each in registers],
            ),
            self._conversion(first.kind, [mine[each] for each in at]),
            [
                np.array([each[turn % len(each)] if each else np.nan for each in absent])
                for turn in range(max(map(len, absent)))
            ],
        )

    def _by_register(self, places: slice | _Array, first: ModbusChannel, registers: Sequence[int]) -> _Group:
        """Of what is no number of the machine's: all registers, the most significant first."""
        read = np.add.outer(registers, np.arange(first.count))
        if first.order in {"CDAB", "DCBA"}:
            read = read[:, ::-1]
        words = (self._swapped if first.order in {"BADC", "DCBA"} else self._buffer).view(">u2")
        return _Group(places, lambda: words[read], _mod10, [])

    @staticmethod
    def _conversion(kind: Encoding, mine: Sequence[ModbusChannel]) -> Callable[[_Array], _Array] | None:
        if kind == "bits":
            shifts = np.array([each.place.bit or 0 for each in mine], "u2")
            masks = np.array([(1 << each.place.width) - 1 for each in mine], "u2")
            return lambda raw: raw.astype("u2") >> shifts & masks
        if kind in {"bcd16", "bcd32"}:
            digits = 4 if kind == "bcd16" else 8
            return lambda raw: _decimal(raw.astype("u4"), digits)
        return None

    @staticmethod
    def _text(request: Request, channel: ModbusChannel) -> tuple[slice, str, dict[bytes, float]]:
        begin = 2 * (channel.first - request.first)
        known = {text.strip(" \0").encode(): value for text, value in channel.values.items()}
        return slice(begin, begin + 2 * channel.count), channel.order, known

    def decode(self, wire: bytes) -> None:
        """Read the values of an answer, of which these are the data."""
        values, reasons = self._values, self._reasons
        if self._bits:
            self._buffer[:] = np.unpackbits(np.frombuffer(wire, "u1"), bitorder="little")[: len(self._buffer)]
        else:
            self._whole[:] = wire
        if self._words is not None:
            np.copyto(self._words[1], self._words[0])
        for group in self._groups:
            raw = group.take()
            values[group.places] = raw if group.convert is None else group.convert(raw)
            for marker in group.absent:
                there_is_none = raw == marker
                if there_is_none.any():
                    values[group.places] = np.where(there_is_none, np.nan, values[group.places])
                    reasons[group.places] = np.where(there_is_none, Reason.ABSENT, reasons[group.places])
        for at, place, order, known in self._texts:
            value = known.get(_text_of(wire[place], order))
            values[at] = np.nan if value is None else value
            if value is None:
                reasons[at] = Reason.UNKNOWN_TEXT
        if self._scale is not None:
            np.multiply(values, self._scale, values)
        if self._offset is not None:
            np.add(values, self._offset, values)


def _text_of(data: bytes, order: str) -> bytes:
    """The characters up to the first zero, without the spaces around them."""
    if order == "DCBA":
        data = data[::-1]
    elif order == "BADC":
        data = np.frombuffer(data, "u2").byteswap().tobytes()
    elif order == "CDAB":
        data = np.frombuffer(data, "u2")[::-1].tobytes()
    return data.partition(b"\0")[0].strip(b" ")
