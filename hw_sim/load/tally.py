"""What a far end notes of a load: what came, what is missing, doubled, out of order or not what it should be.

It knows the rule of the values by itself, from the map, and shares no code with what sends them.
"""

import math
from array import array
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, Final

__all__ = ["Order", "Tally"]

_TURN: Final = 4096
_APART: Final = 101
_PER_UNIT: Final = 4
_REMEMBERED: Final = 10_000
_QUANTILES: Final = (("p50_ms", 0.5), ("p99_ms", 0.99), ("max_ms", 1.0))


class Order:
    """The numbers of one stream, each of which is to come once and after the one before it."""

    __slots__ = ("_gaps", "doubled", "last", "late", "missed")

    def __init__(self) -> None:
        self.last = -1
        """The highest number yet."""
        self.missed = 0
        self.doubled = 0
        self.late = 0
        """Those that came after a later one; they are not missed any more."""
        self._gaps: set[int] = set()

    def came(self, number: int) -> bool:
        """Note a number; returns whether it is here for the first time."""
        if number == self.last + 1:
            self.last = number
            return True
        if number > self.last:
            # The stream begins with whatever comes first.
            if self.last >= 0:
                self.missed += number - self.last - 1
                self._gaps.update(range(max(self.last + 1, number - _REMEMBERED), number))
            self.last = number
            return True
        if number in self._gaps:
            self._gaps.remove(number)
            self.missed -= 1
            self.late += 1
            return True
        self.doubled += 1
        return False


class Tally:
    """All streams of one wire."""

    def __init__(self) -> None:
        self.values = 0
        """Values that came for the first time and are what they should be."""
        self.messages = 0
        """What they came in."""
        self.wrong = 0
        """Values that are not what they should be."""
        self.stale = 0
        """How often somebody who polls has found a row that he had seen, before there was another."""
        self._orders: dict[Hashable, Order] = {}
        self._latencies = array("d")

    def row(self, stream: Hashable, sequence: int, numbers: Sequence[int], values: Sequence[Any]) -> bool:
        """Note a message with the values of these channels; returns whether its row is new in this stream."""
        order = self._orders.get(stream)
        if order is None:
            order = self._orders[stream] = Order()
        if not order.came(sequence):
            return False
        self.messages += 1
        right = 0
        for number, value in zip(numbers, values, strict=False):
            right += value == (sequence + _APART * number) % _TURN / _PER_UNIT
        self.values += right
        self.wrong += max(len(numbers), len(values)) - right
        return True

    def value(self, number: int, value: float) -> int:
        """Note a value that comes alone, and so has to tell its row; returns the row's number."""
        order = self._orders.get(number)
        if order is None:
            order = self._orders[number] = Order()
        ticks = value * _PER_UNIT
        if not math.isfinite(ticks) or ticks != int(ticks):
            self.wrong += 1
            return -1
        ahead = (int(ticks) - _APART * number - order.last) % _TURN
        sequence = order.last + (ahead if ahead <= _TURN // 2 else ahead - _TURN)
        if order.came(sequence):
            self.messages += 1
            self.values += 1
        return sequence

    def took(self, seconds: float) -> None:
        """Note how long a message was on its way."""
        self._latencies.append(seconds)

    def document(self) -> Mapping[str, Any]:
        """The sums, as JSON may have them; latencies in ms, null if there are none."""
        orders = self._orders.values()
        latencies = sorted(self._latencies)
        return {
            "values": self.values,
            "messages": self.messages,
            "missed": sum(order.missed for order in orders),
            "doubled": self.stale + sum(order.doubled for order in orders),
            "late": sum(order.late for order in orders),
            "wrong": self.wrong,
            **{
                name: round(1000 * latencies[math.ceil(share * len(latencies)) - 1], 3) if latencies else None
                for name, share in _QUANTILES
            },
        }
